"""The transformers generator against `model.generate`, brute force and its contract."""

import asyncio
import itertools
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from infer.core.generator import Completion, Request, Sampling
from infer.errors import UserError
from infer.generate.text import Detokenizer, encode_within, first_stop
from infer.generate.transformers import TransformersGenerator

GREEDY = Sampling(temperature=0.0)
PIECES = ["<end>", "\n", "\n\n", "\n\n#", "a", "b", "c", *(f" w{i}" for i in range(25))]


# Text


def spaced(ids: list[int]) -> str:
    """A decoder that drops the leading space, spells two bytes of one character apart, and hides token 9."""
    parts: dict[int, str | bytes] = {0: " a", 1: " b", 2: "\n", 3: ".\n\n#", 4: b"\xc3", 5: b"\xa9", 9: ""}
    raw = b"".join(part if isinstance(part, bytes) else part.encode() for part in (parts[i] for i in ids))
    return raw.decode(errors="replace").removeprefix(" ")


@pytest.mark.parametrize("prompt", [[], [0], [9] * 20, [0] + [9] * 40, [0, 4], [4, 5] * 30])
def test_texts_of_steps_add_up_to_the_text_of_the_whole(prompt: list[int]) -> None:
    ids = [0, 1, 4, 5, 9, 0, 2, 4, 5, 3] * 6
    whole = spaced(prompt + ids)[len(spaced(prompt).rstrip("\ufffd")) :]
    if prompt[-1:] == [4]:
        ids = [5, *ids]
        whole = spaced(prompt + ids)[len(spaced(prompt).rstrip("\ufffd")) :]
    for size in (1, 3, 7, len(ids)):
        text = ""
        for start in range(0, len(ids), size):
            piece = Detokenizer(spaced, prompt + ids[:start])
            for token in ids[start : start + size]:
                piece.add(token)
            text += piece.text
        assert text == whole


@pytest.fixture(scope="module")
def fallback() -> Tokenizer:
    """A tokenizer like Llama 2's and Gemma's, with letters, and bytes for all else.

    Its decoder garbles a whole run of bytes if one character in it is incomplete.
    """
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"abcdefghijklmnopqrstuvwxyz=.", "\u2581"]
    tokenizer = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def streamed(tokenizer: Tokenizer, prompt: list[int], ids: list[int]) -> str:
    text = Detokenizer(tokenizer.decode, prompt)
    for token in ids:
        text.add(token)
    return text.text


def test_bytes_that_stand_for_characters_come_once(fallback: Tokenizer) -> None:
    """Words and characters that the vocabulary lacks are decoded right, at once and in steps that end anywhere."""
    choose = random.Random(0)
    words = ["\u2200\u2203", " ab", "x", "\U0001f600", " \u2208\u211d", "\u7b54\u6848", "=", "\U0001f44d\U0001f3fd"]
    prompt = fallback.encode("the prompt is").ids
    texts = ["".join(choose.choices(words, k=40)) for _ in range(50)] + ["\U0001f600" * 50, "\u2705" * 50]
    for text in texts:
        ids = fallback.encode(text).ids
        assert streamed(fallback, prompt, ids) == text
        ends = sorted(choose.sample(range(len(ids)), 12))
        pieces = itertools.pairwise([0, *ends, len(ids)])
        assert "".join(streamed(fallback, prompt + ids[:start], ids[start:end]) for start, end in pieces) == text


def test_bytes_that_are_no_characters_add_up_too(fallback: Tokenizer) -> None:
    choose = random.Random(1)
    letters, high = range(257, 280), range(1 + 0x80, 257)
    for _ in range(100):
        ids = [choose.choice(choose.choice([letters, high, high])) for _ in range(150)] + [257]
        whole = streamed(fallback, [257], ids)
        for size in (1, 5, 23):
            steps = [streamed(fallback, [257, *ids[:i]], ids[i : i + size]) for i in range(0, len(ids), size)]
            assert "".join(steps) == whole


@pytest.mark.parametrize("space_first", [False, True])
@pytest.mark.parametrize("text", ["wait", " wait", "\nwait", "\n\nwait", "\u2200", ""])
def test_nothing_is_put_before_a_text_that_goes_on(fallback: Tokenizer, text: str, space_first: bool) -> None:
    tokenizer = Tokenizer.from_str(fallback.to_str())
    if space_first:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert encode_within(wrapped, text) == fallback.encode(text).ids


@pytest.mark.parametrize("text", ["Wait", " Wait", "\nWait", "\n\nWait", "\n\n\n", "  x", "\u00e9", ""])
def test_a_tokenizer_without_a_first_token_encodes_a_text_as_it_is(text: str) -> None:
    newline = "\u010a"  # how byte-level vocabularies spell it
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), newline * 2, newline * 3]
    merges = [(newline, newline), (newline * 2, newline)]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert encode_within(wrapped, text) == tokenizer.encode(text).ids


def test_bytes_that_nothing_completes_are_shown_at_the_end() -> None:
    text = Detokenizer(spaced, [0])
    for token in (1, 4):
        text.add(token)
    assert text.text == " b"
    text.flush()
    assert text.text == " b\ufffd"


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [("one\n\ntwo", 4, "\n\n"), ("one\n\ntwo", 5, None), ("ab END\n\n", 0, "END"), ("x", 0, None), ("\n\n", 0, "\n\n")],
)
def test_first_stop(text: str, start: int, stop: str | None) -> None:
    assert first_stop(text, start, ["\n\n", "END"]) == stop


# A tiny random model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 with 32 tokens, and logits wide enough for varied completions."""
    path = tmp_path_factory.mktemp("tiny")
    config = transformers.Qwen3Config(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=128,
        eos_token_id=0,
        pad_token_id=0,
        bos_token_id=None,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    transformers.Qwen3ForCausalLM(config).save_pretrained(path)
    words = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(PIECES)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words.decoder = decoders.Fuse()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>").save_pretrained(path)
    return path


@pytest.fixture
def generator(folder: Path) -> TransformersGenerator:
    return TransformersGenerator(folder, dtype="float32")


async def one(generator: TransformersGenerator, **request: Any) -> Completion:
    fields = {"prompt": [4, 5, 6], "sampling": GREEDY, "max_tokens": 40, **request}
    return (await generator.generate(Request(**fields)))[0]


PROMPTS = [[4], [5, 6, 7, 8, 9, 10], [11, 12, 13], [20] * 31]


@pytest.mark.models
async def test_greedy_is_that_of_transformers(generator: TransformersGenerator, folder: Path) -> None:
    """A batch of prompts of four lengths gives the same tokens as `model.generate` on each alone, in float32."""
    batch = await asyncio.gather(*(one(generator, prompt=prompt) for prompt in PROMPTS))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    for prompt, got in zip(PROMPTS, batch, strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)
        assert got.tokens == expected[0, len(prompt) :].tolist()
    assert sum(len(got.tokens) for got in batch) > 80


@pytest.mark.models
async def test_logprobs_are_the_models_own(generator: TransformersGenerator, folder: Path) -> None:
    sampling = Sampling(temperature=1.7, top_k=9)
    got = await one(generator, sampling=sampling, logprobs=True, seed=5)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    with torch.inference_mode():
        logits = model(torch.tensor([[4, 5, 6, *got.tokens]])).logits[0, 2:-1]
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(got.tokens)[:, None])[:, 0]
    assert got.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.models
async def test_prompt_tokens_are_those_computed(generator: TransformersGenerator) -> None:
    """The sum of `prefill` is the number of prompt tokens passed to the model, without padding."""
    seen: list[torch.Tensor] = []
    generator._model.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
    )
    generator.max_batch = 4
    results = await asyncio.gather(
        generator.generate(Request([4, 5, 6], GREEDY, 1, n=3)),
        generator.generate(Request([4, 5, 6], GREEDY, 1, n=3)),
        generator.generate(Request([7], GREEDY, 1)),
    )
    completions = [completion for result in results for completion in result]
    assert sum(c.prefill for c in completions) == sum(int(mask.sum()) for mask in seen) == 3 + 3 + 1
    assert sum(c.prefill + c.cached for c in completions) == 6 * 3 + 1


@pytest.mark.models
async def test_a_step_ends_with_the_whole_token_that_completes_the_delimiter(generator: TransformersGenerator) -> None:
    """The delimiter `\\n\\n` comes as one token, as two, and inside the token `\\n\\n#`."""
    sampling = Sampling(temperature=3.0)
    steps = await generator.generate(Request([4], sampling, 60, n=60, delimiter="\n\n"))
    ends: set[str] = set()
    for step in steps:
        text = "".join(PIECES[token] for token in step.tokens if token)
        assert step.text == text
        assert ("\n\n" in text) == (step.finish == "step")
        assert "\n\n" not in "".join(PIECES[token] for token in step.tokens[:-1])
        if step.finish == "step":
            ends.add(repr(text[-3:]) if PIECES[step.tokens[-1]] != "\n" else "two tokens")
    assert "two tokens" in ends
    assert any("#" in end for end in ends)


def slow_down(generator: TransformersGenerator, seconds: float) -> list[int]:
    """Makes each forward pass take longer. The list collects the number of rows of each."""
    rows: list[int] = []

    def hook(_: Any, __: Any, kwargs: Any) -> None:
        rows.append(len(kwargs["input_ids"]))
        time.sleep(seconds)

    generator._model.register_forward_pre_hook(hook, with_kwargs=True)
    generator._end = frozenset()
    return rows


@pytest.mark.models
async def test_the_deadline_cuts(generator: TransformersGenerator) -> None:
    slow_down(generator, 0.005)
    soon, late = await asyncio.gather(
        one(generator, max_tokens=100, deadline=time.monotonic() + 0.05), one(generator, max_tokens=30)
    )
    assert soon.finish == late.finish == "length"
    assert 0 < soon.num_tokens < 25
    assert late.num_tokens == 30
    assert soon.tokens == late.tokens[: soon.num_tokens]
    past = await one(generator, deadline=time.monotonic() - 1)
    assert past == Completion([], 0, "", "length", None, 0, 0)


@pytest.mark.models
async def test_rows_that_are_done_or_cancelled_leave_the_batch(generator: TransformersGenerator) -> None:
    rows = slow_down(generator, 0.002)
    calls = [asyncio.create_task(one(generator, max_tokens=n)) for n in (2, 20, 40)]
    await asyncio.sleep(0.02)
    calls[1].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert [r.num_tokens for r in (results[0], results[2]) if isinstance(r, Completion)] == [2, 40]
    # the three calls share one prompt row; then there are three rows, two from the third token on, and one after the
    # cancellation
    assert rows[:3] == [1, 3, 2]
    assert rows[-1] == 1
    assert rows.count(2) < 18
    assert len(rows) == 40


@pytest.mark.models
async def test_a_failure_reaches_every_waiter_and_the_next_batch_goes_on(generator: TransformersGenerator) -> None:
    hook = generator._model.register_forward_pre_hook(lambda *_: 1 / 0)
    results = await asyncio.gather(*(one(generator) for _ in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == [
        f"{generator.model} failed: ZeroDivisionError: division by zero" for _ in range(3)
    ]
    hook.remove()
    assert (await one(generator)).num_tokens > 0


@pytest.mark.models
async def test_it_can_be_described_after_it_was_closed(generator: TransformersGenerator) -> None:
    await generator.close()
    assert generator.describe()["backend"] == "transformers"


@pytest.mark.models
def test_a_generator_outlives_an_event_loop(generator: TransformersGenerator) -> None:
    assert asyncio.run(one(generator)) == asyncio.run(one(generator))


@pytest.mark.models
async def test_without_a_chat_template_prompts_are_plain(generator: TransformersGenerator) -> None:
    assert await generator.encode([{"role": "user", "content": "ab"}]) == [4, 5, 1, 1]


@pytest.mark.models
def test_describe(generator: TransformersGenerator) -> None:
    described = generator.describe()
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    assert (described["dtype"], described["device"], described["attention"]) == ("float32", device, "sdpa")


# Models that can't be loaded


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such model folder"):
        TransformersGenerator(tmp_path / "nothing")


def test_unknown_hub_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"^model nobody/nothing can't be loaded: .*: give a complete .*$"):
        TransformersGenerator("nobody/nothing")


@pytest.mark.models
def test_truncated_weights(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    with pytest.raises(UserError, match=r"model\.safetensors: can't be read: "):
        TransformersGenerator(tmp_path)


@pytest.mark.models
def test_a_classifier_is_no_language_model(folder: Path, tmp_path: Path) -> None:
    config = transformers.Qwen3Config.from_pretrained(folder)
    transformers.Qwen3ForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a Qwen3ForSequenceClassification, not a causal language model"):
        TransformersGenerator(tmp_path)
