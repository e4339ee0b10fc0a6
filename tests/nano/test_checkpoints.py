"""The packaged checkpoints: they load, are small, and are as good as the README says."""

import itertools
import math
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from infer.nano import CHECKPOINTS, checkpoint, generator, prm, problems, tokenizer
from infer.nano.evaluation import auc_at_first_wrong_step, calibration_error, judge
from infer.nano.sampling import sample

GREEDY = {"xs": 0.38, "s": 0.78, "m": 0.85, "l": 0.94}  # over all levels
PER_LEVEL = 40
NAMES = [*generator.SIZES, *prm.RECIPES]


def test_names_are_folders_and_unknown_ones_are_told_the_choices() -> None:
    assert checkpoint("nano-s") == CHECKPOINTS / "s"
    with pytest.raises(ValueError, match=r"unknown nano checkpoint 'nano-xxl'; there are: nano-l, nano-m,"):
        checkpoint("nano-xxl")
    with pytest.raises(ValueError, match="unknown nano checkpoint 's'"):
        checkpoint("s")


def test_the_package_says_where_they_are_without_loading_torch() -> None:
    code = "import sys, infer.nano, infer.nano.problems; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_family_takes_at_most_30_megabytes() -> None:
    assert {path.parent.name for path in CHECKPOINTS.glob("*/config.json")} == set(NAMES)
    assert sum(path.stat().st_size for path in CHECKPOINTS.rglob("*") if path.is_file()) <= 30e6


def test_the_smallest_reward_model_is_no_larger_than_the_smallest_useful_generator() -> None:
    """This holds for all parameters, and for those that every token is multiplied with."""
    total, multiplied = {}, {}
    for name in ("s", "prm-s"):
        with safe_open(checkpoint(f"nano-{name}") / "model.safetensors", framework="np") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        total[name] = sum(math.prod(shape) for shape in shapes.values())
        multiplied[name] = sum(math.prod(s) for key, s in shapes.items() if len(s) == 2 and "embed" not in key)
    assert total["prm-s"] <= total["s"]
    assert multiplied["prm-s"] <= multiplied["s"]


@pytest.mark.parametrize("name", NAMES)
def test_every_checkpoint_has_the_family_s_tokenizer(name: str) -> None:
    words, built = AutoTokenizer.from_pretrained(checkpoint(f"nano-{name}")), tokenizer.build()
    assert words.get_vocab() == built.get_vocab() == tokenizer.vocabulary()
    assert words.eos_token == tokenizer.END
    chain = next(problems.held_out(3))
    message = [{"role": "user", "content": chain.prompt}, {"role": "assistant", "content": chain.solution}]
    ids = words.apply_chat_template(message, return_dict=False)
    assert ids == built(f"<|user|>{chain.prompt}<|assistant|>{chain.solution}<|end|>")["input_ids"]


@pytest.mark.models
@pytest.mark.parametrize("size", generator.SIZES)
def test_greedy_accuracy(size: str) -> None:
    folder = checkpoint(f"nano-{size}")
    model, words = Qwen3ForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    assert model.generation_config is not None
    assert model.generation_config.eos_token_id == words.eos_token_id
    chains = [c for level in problems.LEVELS for c in itertools.islice(problems.held_out(level), PER_LEVEL)]
    annotator = prm.Annotator(words)
    right = [all(annotator.verdicts(s)) for s in sample(model, words, chains, greedy=True)]
    error = math.sqrt(GREEDY[size] * (1 - GREEDY[size]) / len(right))
    assert sum(right) / len(right) > GREEDY[size] - 4 * error


@pytest.mark.models
@pytest.mark.parametrize("name", prm.RECIPES)
def test_a_reward_model_finds_the_first_wrong_step(name: str) -> None:
    folder = checkpoint(f"nano-{name}")
    model, words = Qwen3ForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    generator_s = Qwen3ForCausalLM.from_pretrained(checkpoint("nano-s")).eval()
    torch.manual_seed(0)
    chains = [c for level in problems.LEVELS for c in itertools.islice(problems.held_out(level), PER_LEVEL)]
    judged = judge(model, words, sample(generator_s, words, chains))
    assert auc_at_first_wrong_step(judged) > 0.94
    assert calibration_error(judged) < 0.06


@pytest.mark.models
def test_vllm_and_transformers_give_the_same_scores() -> None:
    vllm = pytest.importorskip("vllm")
    folder = checkpoint("nano-prm-s")
    model, words = Qwen3ForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    prefixes: list[list[int]] = []
    for chain in itertools.islice(problems.held_out(3), 5):
        for text in (chain.solution, chain.solution.replace("1", "7")):
            ids = words(f"<|user|>{chain.prompt}<|assistant|>{text}<|end|>")["input_ids"]
            ends = [i for i, token in enumerate(ids) if words.decode([token]) in ("\n\n", tokenizer.END)]
            prefixes += [ids[: end + 1] for end in ends]
    with torch.inference_mode():
        expected = [model(input_ids=torch.tensor([ids])).logits.softmax(-1)[0, 1].item() for ids in prefixes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        llm = vllm.LLM(
            str(folder),
            runner="pooling",
            dtype="float32",
            enforce_eager=True,
            enable_prefix_caching=True,
            block_size=32,
        )
        outputs = llm.encode([{"prompt_token_ids": ids} for ids in prefixes], pooling_task="classify", use_tqdm=False)
    assert [o.outputs.data[1].item() for o in outputs] == pytest.approx(expected, abs=1e-4)
    assert min(expected) < 0.1 < 0.9 < max(expected)
