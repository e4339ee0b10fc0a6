"""The vLLM generator's texts, where vLLM's own text is not good enough, and its draws."""

import asyncio
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infer.core.generator import Request, Sampling
from infer.evalsets.nano import load
from infer.generate.vllm import VLLMGenerator
from tests.engines import TESTED

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 over a byte-level vocabulary with the tokens "\\n\\n", "\\n\\n\\n" and ".\\n\\n#"."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    newline = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("\n")[0][0]
    words = [*alphabet, newline * 2, newline * 3, f".{newline * 2}#"]
    merges = [(newline, newline), (newline, newline * 2)]
    tokenizer = Tokenizer(BPE({word: i for i, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("bytes")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>").save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(words) + 1,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=len(words),
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(byte_model: Path) -> Any:
    pytest.importorskip("vllm")
    from infer.generate.engine import start_engine

    return start_engine(byte_model, "generate", **TESTED)


async def test_texts_of_steps_are_whole_tokens_and_add_up(engine: Any) -> None:
    """The texts of the pieces add up to the text of all tokens, over random bytes that may split characters.

    A step ends with the token that completes the delimiter, even if that token has text before or after the delimiter.
    """
    generator = VLLMGenerator(engine)
    decode = engine.tokenizer.decode
    sampling = Sampling(temperature=1.0, max_tokens=400)
    ends: set[str] = set()

    async def grow(seed: int) -> None:
        prompt = engine.tokenizer.encode("é")
        produced: list[int] = []
        text = ""
        while len(produced) < 300:
            request = Request(prompt + produced, sampling, 7, seed=1000 * seed + len(produced), delimiter="\n\n")
            (piece,) = await generator.generate(request)
            assert piece.tokens
            last = decode(piece.tokens)
            if piece.finish == "step":
                assert "\n\n" in last
                assert "\n\n" not in decode(piece.tokens[:-1])
                ends.add(decode(piece.tokens[-1:]))
            produced += piece.tokens
            text += piece.text
            if piece.finish == "end":
                break
        whole = decode(produced, skip_special_tokens=True).rstrip("\ufffd")
        assert text.rstrip("\ufffd") == whole

    await asyncio.gather(*map(grow, range(40)))
    assert {"\n\n", "\n\n\n", ".\n\n#"} <= ends


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("stop", ["\u220e", "\u3002", "\U0001f51a", "\U0001f51a\u220e\u220e", "\n\n", "\u00e9", ". "])
@pytest.mark.parametrize("before", ["", "so x", "so \u2705"])
def test_a_stop_string_may_be_several_tokens(stop: str, before: str, fallback: bool) -> None:
    """The text goes on after a stop string by the rest of the last token, also if the stop string is several tokens."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    # both vocabularies have a token that goes on after the stop string: the stop string and "#", or its last byte and
    # "#"
    if fallback:
        words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"sox.q:# "]
        vocabulary = {word: i for i, word in enumerate(words)}
        tokenizer = Tokenizer(BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        tokenizer.add_tokens([f"{stop}#"])
    else:
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        last = level.pre_tokenize_str(stop)[0][0][-1]
        words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), f"{last}#"]
        tokenizer = Tokenizer(BPE({word: i for i, word in enumerate(words)}, [(last, "#")]))
        tokenizer.pre_tokenizer, tokenizer.decoder = level, decoders.ByteLevel()
    wrapped = SimpleNamespace(encode=lambda text: tokenizer.encode(text).ids, decode=tokenizer.decode)
    generator = VLLMGenerator(SimpleNamespace(tokenizer=wrapped, max_context=100, spec=None))
    prompt = tokenizer.encode("q: ").ids
    for rest in ("", "#"):
        sample = SimpleNamespace(text=before + stop, stop_reason=stop)
        tokens = tokenizer.encode(before + stop + rest).ids
        assert generator._text(prompt, tokens, sample, "step") == (before + stop + rest, "step")


SAMPLINGS = [
    Sampling(temperature=2.0, max_tokens=40),
    Sampling(temperature=1.2, max_tokens=40),
    Sampling(temperature=1.8, top_k=5, max_tokens=40),
    Sampling(temperature=2.0, top_p=0.8, max_tokens=40),
    Sampling(temperature=2.0, min_p=0.05, max_tokens=40),
    Sampling(temperature=0.0, max_tokens=40),
]


@pytest.mark.usefixtures("our_draws")
async def test_samples_are_those_of_transformers_token_for_token(nano_engine: Any) -> None:
    """The same seed gives the same tokens on both backends, although their batches differ throughout."""
    from infer.generate.transformers import TransformersGenerator
    from infer.nano import checkpoint

    vllm = VLLMGenerator(nano_engine)
    plain = TransformersGenerator(checkpoint("nano-s"), dtype="float32", device="cpu", max_batch=7)
    hard = islice(load(level=5), 3)
    prompts = [await vllm.encode([{"role": "user", "content": problem.prompt}]) for problem in hard]
    requests = [
        Request(prompt, sampling, 40, n=3, seed=2**40 + 1000 * i, logprobs=True)
        for i, (prompt, sampling) in enumerate((prompt, sampling) for prompt in prompts for sampling in SAMPLINGS)
    ]
    ours = await asyncio.gather(*(vllm.generate(request) for request in requests))
    theirs = await asyncio.gather(*(plain.generate(request) for request in reversed(requests)))
    for mine, reference in zip(ours, reversed(theirs), strict=True):
        for a, b in zip(mine, reference, strict=True):
            assert a.tokens == b.tokens
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    assert len({tuple(sample.tokens) for samples in ours for sample in samples}) > 15
    await plain.close()


@pytest.mark.usefixtures("our_draws")
async def test_a_preempted_request_samples_as_if_it_had_not_been(nano_engine: Any) -> None:
    """With a KV cache for a few requests, vLLM preempts some running ones and computes them again later."""
    from infer.generate.engine import _free_memory, start_engine
    from infer.nano import checkpoint

    room = 4 * 3.2e6 / _free_memory()  # some 1,500 tokens
    small: Any = start_engine(checkpoint("nano-s"), "generate", **(TESTED | {"memory_fraction": room}))
    (problem,) = load(1, level=5)
    results = []
    for generator in (VLLMGenerator(small), VLLMGenerator(nano_engine)):
        prompt = await generator.encode([{"role": "user", "content": problem.prompt}])
        request = Request(prompt, Sampling(temperature=2.0), 200, n=40, seed=3)
        results.append([completion.tokens for completion in await generator.generate(request)])
    assert results[0] == results[1]
    preempted = next(m.value for m in small._engine.get_metrics() if m.name == "vllm:num_preemptions")
    await small.close()
    assert preempted > 0
