"""Training: a few steps from end to end, and its parts."""

import itertools
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from infer.nano import generator, prm, problems, tokenizer, train
from infer.nano.fit import IGNORE, ROW, Sequence, hidden_states, pack
from infer.nano.sampling import Sample

words = tokenizer.build()
annotator = prm.Annotator(words)


def example(chain: problems.Chain) -> Sequence:
    return generator.encode_example(words, chain)


def test_packing_changes_nothing_that_a_sequence_sees() -> None:
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(generator.config(hidden=32, layers=2)).eval()
    sequences = [example(chain) for chain in itertools.islice(problems.training(1), 9)]
    batch = pack(sequences)
    assert batch.ids.shape[0] < len(sequences)
    states = hidden_states(model.model, batch)
    found = 0
    for sequence in sequences:
        alone = hidden_states(model.model, pack([sequence]))[0, : len(sequence.ids)]
        for row, column in (batch.positions == 0).nonzero().tolist():
            here = slice(column, column + len(sequence.ids))
            if batch.ids[row, here].tolist() == sequence.ids:
                torch.testing.assert_close(states[row, here], alone, rtol=0, atol=0.05)  # bfloat16
                assert batch.targets[row, here].tolist() == sequence.targets
                found += 1
    assert found == len(sequences)


def test_a_sequence_that_fits_into_no_row_is_refused() -> None:
    with pytest.raises(AssertionError, match="does not fit"):
        pack([Sequence([0] * (ROW + 1), [IGNORE] * (ROW + 1), [IGNORE] * (ROW + 1))])


def test_an_example_is_learned_from_its_solution_only() -> None:
    chain = next(problems.training(0))
    sequence = example(chain)
    learned = [token for token in sequence.targets if token != IGNORE]
    assert words.decode(learned) == f"{chain.solution}{tokenizer.END}"
    first = next(i for i, token in enumerate(sequence.targets) if token != IGNORE)
    assert sequence.ids[first] == tokenizer.vocabulary()[tokenizer.ASSISTANT]


def sample(chain: problems.Chain, completion: str) -> Sample:
    return Sample(chain, words(completion)["input_ids"])


CHAIN = problems.Chain(8, (("+", 2), ("*", 4)))


@pytest.mark.parametrize(
    ("completion", "verdicts"),
    [
        ("8+2=10\n\n10*4=40\n\nAnswer: \\boxed{40}<|end|>", [True, True, True]),
        ("8+2=11\n\n11*4=44\n\nAnswer: \\boxed{40}<|end|>", [False, True, False]),
        ("8+2=10<|end|>", [False]),  # ended too early: a step must end in a blank line
        ("8+2=10\n\n10*4=40\n\nAnswer: \\boxed{40}\n\n", [True, True, False]),
        ("8+2=10\n\n10*4=4", [True, False]),  # cut off
        ("<|end|>", [False]),
    ],
)
def test_steps_are_judged_with_the_token_that_ends_them(completion: str, verdicts: list[bool]) -> None:
    assert annotator.verdicts(sample(CHAIN, completion)) == verdicts


def test_token_verdicts_and_targets() -> None:
    sequence = annotator.sequence(sample(CHAIN, "8+2=20\n\n20*4=80\n\nAnswer: \\boxed{80}<|end|>"))
    start = sequence.ids.index(tokenizer.vocabulary()[tokenizer.ASSISTANT]) + 1
    assert sequence.verdicts[:start] == [IGNORE] * start
    assert sequence.verdicts[start : start + 7] == [1, 1, 1, 1, 0, 1, 0]  # 8+2= right, 2 wrong, 0 right, step wrong
    assert words.decode(sequence.targets[start - 1 : start + 4]) == "8+2=1"
    assert sequence.targets[start + 4 : start + 6] == [IGNORE, IGNORE]  # no targets after the mistake
    assert sequence.verdicts[start + 7 :] == [1] * (len(sequence.ids) - start - 7)
    assert len(sequence.ids) == len(sequence.targets) == len(sequence.verdicts)


def test_a_division_with_a_remainder_has_no_right_result() -> None:
    chain = problems.Chain(8, (("+", 2), ("/", 2)))
    sequence = annotator.sequence(sample(chain, "8+2=11\n\n11/2=5\n\n"))
    assert sequence.verdicts[-7:] == [1, 1, 1, 1, 1, 0, 0]  # 1 1 / 2 = are right; 5 and the step's end are wrong
    assert words.decode(sequence.targets[-3:-2]) == "?"


def test_corrupted_solutions_are_labelled() -> None:
    rng = random.Random(0)
    chains = itertools.islice(problems.training(3), 200)
    verdicts = [v for chain in chains for v in annotator.verdicts(annotator.corrupted(chain, rng))]
    assert 0.7 < sum(verdicts) / len(verdicts) < 0.95


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator after far too little training, saved under every size's name."""
    out = tmp_path_factory.mktemp("family")
    size = generator.Size(hidden=32, steps=40, seed=0, batch=8)
    for name in generator.SIZES:
        train.save(generator.train(size, words, "tiny"), out / name)
    return out


@pytest.mark.models
def test_a_generator_s_loss_falls_and_the_run_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    size = generator.Size(hidden=32, steps=100, seed=0, batch=4)
    models = [generator.train(size, words, "tiny") for _ in range(2)]
    loss = float(capsys.readouterr().out.splitlines()[0].split("loss ")[1].split(",")[0])  # the mean of 100 steps
    assert loss < 3.5  # a uniform guess over 128 tokens has a loss of 4.85
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.models
def test_a_reward_model_trains_saves_and_loads(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = prm.Recipe("s", seed=0, dense_steps=6, final_steps=4, neurons=16, pruned_steps=4, samples=8, batch=4)
    monkeypatch.setitem(prm.RECIPES, "prm-s", recipe)
    train.main(["prm-s", "--out", str(family)])
    model = Qwen3ForSequenceClassification.from_pretrained(family / "prm-s")
    assert model.config.prm_aggregation == "min"
    assert model.config.num_hidden_layers == 4 + prm.NEW_LAYERS
    assert model.config.intermediate_size == 16
    assert model.config.id2label[1] == "right"
    saved = AutoTokenizer.from_pretrained(family / "prm-s")
    assert saved("1+1=2\n\n")["input_ids"] == words("1+1=2\n\n")["input_ids"]


def test_a_reward_model_loses_the_neurons_that_do_nothing() -> None:
    torch.manual_seed(0)
    parent = prm.new_model(Qwen3ForCausalLM(generator.config(hidden=32, layers=2))).eval()
    for layer in parent.model.layers:
        torch.nn.init.normal_(layer.mlp.down_proj.weight)
        layer.mlp.down_proj.weight.data[:, torch.randperm(96)[:56]] = 0
    pruned = prm.without_neurons(parent, 40).eval()
    assert pruned.config.intermediate_size == 40
    ids = torch.tensor([example(next(problems.training(0))).ids])
    torch.testing.assert_close(pruned(input_ids=ids).logits, parent(input_ids=ids).logits)


def test_a_reward_model_without_generators_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["prm-s", "--out", str(tmp_path)])
    assert "train first" in capsys.readouterr().err
