"""Every family against the procedure of its model card, rewritten here in plain transformers code.

The checkpoints are tiny and random, and have the published architectures. The scores are compared with the card's: at
once and step by step, on vLLM and on transformers.
"""

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infer.core.problem import Problem
from infer.core.verifier import Scores, Verifier
from infer.errors import TooLong, UserError
from infer.generate.readers import VLLMHead, VLLMTokens
from tests.engines import open_verifier

pytestmark = pytest.mark.models

torch = pytest.importorskip("torch")
BLOCK = 32
"""Tokens that vLLM caches together."""


@dataclass(frozen=True)
class Case:
    question: str
    steps: list[str]
    finished: bool = True


PLAIN = Case(
    "How many eggs?", ["Let x be the number.\n\n", "Then x + 2 = 7.\n\n", "So x = 5. The answer is \\boxed{5}."]
)
CASES = {
    "plain": PLAIN,
    "one step": Case("2 + 3 = ?", ["The answer is 5."]),
    "unfinished, ends in the delimiter": Case("Add 2 to 3.", ["First we add.\n\n", "We get 5.\n\n"], finished=False),
    "cut off in a step": Case("Take 1 from 3.", ["First, take.\n\n", "Then we g"], finished=False),
    "delimiter inside a step": Case("Let x = 1.", ["First\n\nwe add\n 2.\n\n", "So\n\n\nx = 3."]),
    "empty step": Case("Is it so?", ["Let x be 1.\n\n", "", "So it is."], finished=False),
    "spaces": Case("Is  it so ?", ["Let  x be 1 .\n\n", "So   it is."]),
    "200 steps": Case("Count.", [f"{n} + 1\n\n" for n in range(200)]),
}


# The cards' procedures. Their `steps` come without the delimiter, at which an answer was split.


def load(folder: Path, kind: str) -> tuple[Any, Any]:
    import transformers

    model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def qwen_card(folder: Path, case: Case) -> list[float]:
    model, tokenizer = load(folder, "Qwen2Model")
    messages = [
        {"role": "system", "content": "Please reason step by step, and put your final answer within \\boxed{}."},
        {"role": "user", "content": case.question},
        {"role": "assistant", "content": "<extra_0>".join(step.strip() for step in case.steps) + "<extra_0>"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    head = weights(folder)
    with torch.inference_mode():
        hidden = model(ids).last_hidden_state[0]
        hidden = torch.relu(hidden @ head["score.0.weight"].T + head["score.0.bias"])
        probabilities = (hidden @ head["score.2.weight"].T + head["score.2.bias"]).softmax(-1)
    return probabilities[ids[0] == tokenizer.convert_tokens_to_ids("<extra_0>"), 1].tolist()


def skywork_card(folder: Path, case: Case) -> list[float]:
    model, tokenizer = load(folder, "Qwen2Model")
    ids, flagged = tokenizer.encode(tokenizer.bos_token + case.question + "\n"), []
    newline = tokenizer.encode("\n")[-1]
    lines = []
    for number, step in enumerate(case.steps):
        last = number == len(case.steps) - 1
        body = step.rstrip("\n") if last else step.removesuffix("\n")
        contents = body.split("\n")
        judged = max([i for i, line in enumerate(contents) if line.strip()], default=0)
        lines += [(line, i == judged) for i, line in enumerate(contents)]
    for line, judged in lines:
        ids += [*(tokenizer.encode(line) if line else []), newline]
        if judged:
            flagged.append(len(ids) - 1)
    head = weights(folder)
    with torch.inference_mode():
        hidden = model(torch.tensor([ids])).last_hidden_state[0]
        rewards = (hidden @ head["v_head.summary.weight"].T + head["v_head.summary.bias"])[:, 0].sigmoid()
    return [rewards[i].item() for i in flagged]


def rlhflow_card(folder: Path, case: Case) -> list[float]:
    model, tokenizer = load(folder, "AutoModelForCausalLM")
    candidates = [tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]]
    conversation, scores = [], []
    many = len(case.steps) > 20
    for number, step in enumerate(case.steps):
        text = step.strip() if number else case.question + " " + step.strip()
        conversation += [{"content": text, "role": "user"}, {"content": "+", "role": "assistant"}]
        if many and number % 40 not in (0, 39):
            scores.append(float("nan"))
            continue
        ids = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=False)
        with torch.inference_mode():
            logits = model(ids).logits[0, -3, candidates]
        scores.append(logits.softmax(-1)[0].item())
    return scores


def shepherd_card(folder: Path, case: Case) -> list[float]:
    model, tokenizer = load(folder, "AutoModelForCausalLM")
    candidates = tokenizer.encode("+ -")[1:]
    tag = tokenizer.encode("ки")[-1]
    steps = [f"Step {number}: {step.strip()}".strip() + " ки" for number, step in enumerate(case.steps, 1)]
    ids = torch.tensor([tokenizer.encode(f"{case.question} " + "\n".join(steps))])
    with torch.inference_mode():
        scores = model(ids).logits[:, :, candidates].softmax(-1)[:, :, 0]
    return scores[ids == tag].tolist()


def outcome_card(folder: Path, case: Case) -> list[float]:
    model, tokenizer = load(folder, "AutoModelForSequenceClassification")
    answer = {"role": "assistant", "content": "".join(case.steps).strip()}
    conversation = [{"role": "user", "content": case.question}, answer]
    ids = tokenizer.apply_chat_template(conversation, tokenize=True, return_tensors="pt", return_dict=False)
    with torch.inference_mode():
        return [model(ids).logits[0][0].sigmoid().item()]


def nano_card(folder: Path, case: Case) -> list[float]:
    model, tokenizer = load(folder, "AutoModelForSequenceClassification")
    scores = []
    for end in range(1, len(case.steps) + 1):
        text = f"<|user|>{case.question}<|assistant|>" + "".join(case.steps[:end])
        text += "<|end|>" if case.finished and end == len(case.steps) else ""
        with torch.inference_mode():
            scores.append(model(tokenizer(text, return_tensors="pt").input_ids).logits[0].softmax(-1)[1].item())
    return scores


CARDS = {
    "qwen_prm": qwen_card,
    "skywork_prm": skywork_card,
    "rlhflow_prm": rlhflow_card,
    "math_shepherd": shepherd_card,
    "outcome": outcome_card,
}
FAMILY_NAMES = {"rlhflow_prm": "rlhflow-prm:", "math_shepherd": "math-shepherd:"}


@dataclass(frozen=True)
class Opened:
    family: str
    folder: Path
    verifiers: dict[str, Verifier]


@pytest.fixture(scope="module", params=CARDS)
def opened(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    pytest.importorskip("vllm")
    from tests.verifiers import checkpoints

    folder = getattr(checkpoints, request.param)(tmp_path_factory.mktemp("checkpoints") / request.param)
    name = f"{FAMILY_NAMES.get(request.param, '')}{folder}"

    async def start(backend: Any) -> Verifier:
        return await open_verifier(name, backend, dtype="float32", memory_fraction=0.1)

    verifiers = {backend: asyncio.run(start(backend)) for backend in ("vllm", "transformers")}
    yield Opened(request.param, folder, verifiers)
    for verifier in verifiers.values():
        asyncio.run(verifier.close())


def card_of(opened: Opened, case: Case) -> list[float]:
    scores = CARDS[opened.family](opened.folder, case)
    stepwise = opened.verifiers["vllm"].stepwise
    assert len(scores) == (len(case.steps) if stepwise else 1), "the card's procedure is itself at a loss"
    return scores


async def in_one(verifier: Verifier, case: Case) -> Scores:
    return await verifier.score(Problem("p", case.question), case.steps, 0, case.finished)


def assert_same(scores: Sequence[float], card: Sequence[float]) -> None:
    """Compares scores wherever the card's procedure was run.

    Where each step takes a run of its own, only some of 200 steps were run. The card's other scores are NaN.
    """
    assert len(scores) == len(card)
    run = [i for i, score in enumerate(card) if score == score]
    assert [scores[i] for i in run] == pytest.approx([card[i] for i in run], abs=1e-4)


@pytest.mark.parametrize("name", CASES)
async def test_scores_are_the_model_cards(opened: Opened, name: str) -> None:
    card = card_of(opened, CASES[name])
    for verifier in opened.verifiers.values():
        assert_same((await in_one(verifier, CASES[name])).values, card)


async def test_scores_differ_from_step_to_step(opened: Opened) -> None:
    """The other tests mean something only if the random weights give different scores."""
    scores = await in_one(opened.verifiers["transformers"], CASES["200 steps"])
    others = await in_one(opened.verifiers["transformers"], PLAIN)
    values = scores.values + others.values
    assert max(values) - min(values) > 0.05


@pytest.mark.parametrize("name", ["plain", "delimiter inside a step", "empty step", "200 steps"])
async def test_step_by_step_is_at_once(opened: Opened, name: str) -> None:
    """Scores step by step equal those at once.

    On vLLM each token is computed once; only tokens of a cache block that is not full are computed again.
    """
    case = CASES[name]
    for backend, verifier in opened.verifiers.items():
        if not verifier.stepwise or (backend == "transformers" and len(case.steps) > 20):
            continue
        fresh = Case(f"{case.question} ({backend})", case.steps, case.finished)  # not cached yet
        values: list[float] = []
        computed = whole = without = 0
        for number in range(1, len(case.steps) + 1):
            finished = case.finished and number == len(case.steps)
            scores = await verifier.score(Problem("p", fresh.question), fresh.steps[:number], number - 1, finished)
            values += scores.values
            computed += scores.prefill
            whole = scores.prefill + scores.cached
            without += whole
        assert values == pytest.approx((await in_one(verifier, fresh)).values, abs=1e-4)
        if backend == "vllm":
            assert computed <= whole + BLOCK * len(case.steps)
            assert len(case.steps) < 20 or computed < 0.15 * without


async def test_at_once_the_prefixes_share_the_cache(opened: Opened) -> None:
    verifier = opened.verifiers["vllm"]
    case = Case("Count once more.", CASES["200 steps"].steps)
    scores = await in_one(verifier, case)
    if verifier.stepwise:
        assert scores.prefill < 0.2 * (scores.prefill + scores.cached)
        assert scores.generated in (0, len(case.steps))


TAGS = {
    "qwen_prm": "<extra_0>",
    "skywork_prm": "<|im_end|>",
    "rlhflow_prm": "<|eot_id|>",
    "math_shepherd": "ки",
    "outcome": "<|eot_id|>",
}


async def test_the_familys_own_tag_in_a_step_is_text(opened: Opened) -> None:
    """The tag adds no position to read at and ends no turn, and both backends agree."""
    tag = TAGS[opened.family]
    case = Case("What is a tag?", [f"A tag is {tag} and\n\n", f"{tag} {tag} no {tag}\n\n", "So be it."])
    vllm, transformers = [(await in_one(verifier, case)).values for verifier in opened.verifiers.values()]
    assert vllm == pytest.approx(transformers, abs=1e-4)
    verifier: Any = opened.verifiers["transformers"]
    tokenizer = verifier._reader.tokenizer
    tokens, ends = verifier._layout(case.question, case.steps, True)
    assert len(ends) == (3 if verifier.stepwise else 1)
    plain, _ = verifier._layout(case.question, [step.replace(tag, "") for step in case.steps], True)
    special = set(tokenizer.all_special_ids)
    assert [t for t in tokens if t in special] == [t for t in plain if t in special]
    assert tokenizer.decode(tokens).count(tag) == tokenizer.decode(plain).count(tag) + 4


async def test_a_solution_longer_than_the_context_is_an_error_and_not_cut(opened: Opened) -> None:
    for verifier in opened.verifiers.values():
        with pytest.raises(TooLong, match=r"a solution of \d+ tokens is longer than .* context of 409[56]"):
            await verifier.score(Problem("p", "Too long?"), ["so so so so " * 2000], 0, True)


def test_describe_names_the_family_and_its_aggregation(opened: Opened) -> None:
    for backend, verifier in opened.verifiers.items():
        described = verifier.describe()
        assert described["family"] == opened.family.replace("_", "-")
        assert described["backend"] == backend
        assert described["aggregation"] == verifier.aggregation


async def test_many_problems_at_once(opened: Opened) -> None:
    cases = [Case(f"{n} + {n} = ?", [f"Add {n}.\n\n", f"It is {2 * n}."]) for n in range(12)]
    for verifier in opened.verifiers.values():
        together = await asyncio.gather(*(in_one(verifier, case) for case in cases))
        for case, scores in zip(cases[::5], together[::5], strict=True):
            assert_same(scores.values, card_of(opened, case))


async def test_nano(nano_prm_engine: Any) -> None:
    from infer.nano import checkpoint
    from infer.verifiers.classifier import CLASSIFIER
    from infer.verifiers.prm import RewardModel

    folder = checkpoint("nano-prm-s")
    verifier = RewardModel(CLASSIFIER, VLLMHead(nano_prm_engine))
    plain = await open_verifier("nano-prm-s", "transformers")
    steps = ["12+30=42\n\n", "42*2=84\n\n", "84-14=70\n\n", "Answer: \\boxed{70}"]
    for case in (Case("(12+30)*2-14=?", steps), Case("(12+30)*2-14=?", steps[:2], False)):
        card = nano_card(folder, case)
        assert (await in_one(verifier, case)).values == pytest.approx(card, abs=1e-4)
        assert (await in_one(plain, case)).values == pytest.approx(card, abs=1e-4)


async def test_a_probability_that_bfloat16_rounds_to_zero_is_still_a_score(tmp_path: Path) -> None:
    """The card drops all zeros to find its positions, so it also drops scores that are zero. We do not."""
    from tests.verifiers.checkpoints import qwen_prm

    verifier = await open_verifier(str(qwen_prm(tmp_path, scale=1e4)), "transformers", dtype="bfloat16")
    scores = (await in_one(verifier, CASES["200 steps"])).values
    assert len(scores) == 200
    assert min(scores) < 1e-30
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize(
    ("made", "named", "says"),
    [
        ("math_shepherd", "qwen-prm:", "can't be loaded|lacks .* weights"),
        ("outcome", "classifier:", "a LlamaForSequenceClassification with 1 labels: classifier needs .* with 2"),
        ("rlhflow_prm", "math-shepherd:", "'ки' is .* tokens to the tokenizer"),
        ("rlhflow_prm", "outcome:", "a LlamaForCausalLM"),
        ("rlhflow_prm", "", "is a LlamaForCausalLM, whose family can't be detected: .* math-shepherd, gen-prm"),
        ("math_shepherd", "rlhflow-prm:", "has no chat template"),
        ("skywork_prm", "qwen-prm:", "lacks 4 weights"),
        ("bert", "", "is a BertForSequenceClassification, which has no `score` head"),
        ("upside_down", "", "has the labels .POSITIVE. and .NEGATIVE. .*: the second has to mean correct"),
        ("torn", "", "model.safetensors: can.t be read: .*incomplete metadata"),
        ("no_tokenizer", "", "has no tokenizer"),
        ("one_turn", "rlhflow-prm:", "does not keep the turns of a conversation"),
        ("refusing", "rlhflow-prm:", "refuses these messages: Only one message"),
    ],
)
async def test_another_familys_checkpoint_is_an_error_of_one_line(
    tmp_path: Path, made: str, named: str, says: str
) -> None:
    from tests.verifiers import checkpoints

    folder = getattr(checkpoints, made)(tmp_path / "model")
    with pytest.raises(UserError, match=says) as error:
        await open_verifier(f"{named}{folder}", "transformers")
    assert "\n" not in str(error.value)


async def test_a_server_whose_model_has_no_tokenizer_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infer.generate.served import Connection
    from tests.verifiers import checkpoints

    class Served:
        source = str(checkpoints.no_tokenizer(tmp_path / "empty"))

        async def close(self) -> None: ...

    async def connect(url: str, **_: Any) -> Any:
        return Served()

    monkeypatch.setattr(Connection, "connect", connect)
    with pytest.raises(UserError, match="has no tokenizer"):
        await open_verifier("http://127.0.0.1:9", "transformers")
    (tmp_path / "empty" / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"the tokenizer of .*empty can't be loaded"):
        await open_verifier("http://127.0.0.1:9", "transformers")


@pytest.mark.parametrize("reader", [lambda engine: VLLMHead(engine), lambda engine: VLLMTokens(engine, ("+", "-"))])
def test_an_engine_without_a_tokenizer(reader: Any) -> None:
    engine = SimpleNamespace(tokenizer=SimpleNamespace(encode=lambda text: [], name_or_path="/model"))
    with pytest.raises(UserError, match="model /model has no tokenizer"):
        reader(engine)


async def test_an_outcome_model_that_pads_with_its_end_token(tmp_path: Path) -> None:
    from tests.verifiers.checkpoints import outcome

    config = outcome(tmp_path) / "config.json"
    end = load(tmp_path, "AutoModelForSequenceClassification")[1].eos_token_id
    config.write_text(json.dumps({**json.loads(config.read_text()), "pad_token_id": end}))
    verifier = await open_verifier(str(tmp_path), "transformers", dtype="float32")
    assert (await in_one(verifier, PLAIN)).values == pytest.approx(outcome_card(tmp_path, PLAIN), abs=1e-4)


async def test_layouts_of_prefixes_are_prefixes_of_layouts(opened: Opened) -> None:
    """Incremental scores rest on this. The steps here could merge with the next one in a tokenizer."""
    verifier: Any = opened.verifiers["transformers"]
    if not verifier.stepwise:
        return
    pieces = ["x", " y", "ки", "3.", "\n", "\n\n", " \n\n", "Step 2: x\n\n", "+", "", "'s\n\n", "<extra_0>\n\n"]
    for steps in itertools.product(pieces, repeat=3):
        tokens, ends = verifier._layout("Q", steps, False)
        for number in range(1, 4):
            shorter, shorter_ends = verifier._layout("Q", steps[:number], False)
            assert shorter_ends == ends[:number], steps
            assert shorter[: ends[number - 1]] == tokens[: ends[number - 1]], steps
