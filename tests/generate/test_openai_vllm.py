"""The HTTP generator on a real vLLM server: exact tokens, and a ledger that is the server's own."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infer.core.generator import Completion, Request, Sampling
from infer.errors import UserError
from infer.generate.openai import OpenAIGenerator
from infer.nano import checkpoint
from tests.servers import Server, vllm_server

pytestmark = pytest.mark.models

GREEDY = Sampling(temperature=0.0)
PROBLEMS = ["23+54=?", "(12+30)*2-14=?", "((23+54)*2-88+89-99)*6=?", "(((23+54)*2-88+89-99)*6+28)/2=?"]


@pytest.fixture
async def generator(nano_server: Server) -> AsyncIterator[OpenAIGenerator]:
    found = await OpenAIGenerator.connect(nano_server.url)
    yield found
    await found.close()


async def prompts(generator: OpenAIGenerator) -> list[list[int]]:
    encoded = [await generator.encode([{"role": "user", "content": problem}]) for problem in PROBLEMS]
    return [prompt for prompt in encoded if not isinstance(prompt, str)]


async def one(generator: OpenAIGenerator, prompt: list[int], **request: object) -> Completion:
    fields = {"prompt": prompt, "sampling": GREEDY, "max_tokens": 200} | request
    return (await generator.generate(Request(**fields)))[0]  # type: ignore[arg-type]


async def in_steps(
    generator: OpenAIGenerator, prompt: list[int], delimiter: str | None, size: int
) -> tuple[list[Completion], list[int]]:
    """A greedy solution, a step or `size` tokens at a time, each from the ids so far."""
    steps: list[Completion] = []
    ids = list(prompt)
    while not steps or (steps[-1].finish != "end" and len(ids) - len(prompt) < 200):
        left = min(size, 200 - len(ids) + len(prompt))
        steps.append(await one(generator, ids, delimiter=delimiter, max_tokens=left, logprobs=True))
        ids += steps[-1].tokens
    return steps, ids[len(prompt) :]


async def test_it_is_token_exact(generator: OpenAIGenerator, nano_server: Server) -> None:
    described = generator.describe()
    assert described["token_exact"]
    assert described["server_version"]
    assert described["model"] == nano_server.model
    assert generator.max_context == 1024


async def test_encode_is_the_models_chat_template(generator: OpenAIGenerator) -> None:
    from transformers import AutoTokenizer

    messages = [{"role": "user", "content": PROBLEMS[0]}]
    words = AutoTokenizer.from_pretrained(checkpoint("nano-s"))
    expected = words.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert await generator.encode(messages) == expected
    with pytest.raises(UserError, match="nano models know the roles user and assistant only"):
        await generator.encode([{"role": "tool", "content": "x"}])


@pytest.mark.parametrize(("delimiter", "size"), [("\n\n", 200), ("\\box", 200), (None, 3)])
async def test_greedy_in_steps_is_greedy_in_one_go(
    generator: OpenAIGenerator, delimiter: str | None, size: int
) -> None:
    """Token for token, text for text. `\\box` is met within a token, `\\boxed{`, that is kept whole."""
    for prompt in await prompts(generator):
        whole = await one(generator, prompt, logprobs=True)
        steps, tokens = await in_steps(generator, prompt, delimiter, size)
        assert tokens == whole.tokens
        assert "".join(step.text for step in steps) == whole.text
        logprobs = [x for step in steps for x in step.logprobs or []]
        assert logprobs == pytest.approx(whole.logprobs, abs=1e-4)
        assert all((step.finish == "step") == bool(delimiter and delimiter in step.text) for step in steps)
    if delimiter == "\\box":
        assert any(step.text.endswith("\\boxed{") for step in steps)


async def test_the_ledger_is_the_servers(generator: OpenAIGenerator, nano_server: Server) -> None:
    names = ["vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:prefix_cache_hits_total"]
    before = [nano_server.metric(name) for name in names]
    sampling = Sampling(temperature=1.0)
    asked = await prompts(generator)
    results = await asyncio.gather(
        *(generator.generate(Request(prompt, sampling, 120, n=6, seed=1, delimiter=stop))
          for prompt in asked for stop in (None, "\n\n"))
    )  # fmt: skip
    completions = [completion for result in results for completion in result]
    for prompt in asked:
        steps, _ = await in_steps(generator, prompt, "\n\n", 200)
        completions += steps
    assert sum(c.cached for c in completions) > 0
    assert [after - b for after, b in zip([nano_server.metric(name) for name in names], before, strict=True)] == [
        sum(c.num_tokens for c in completions),
        sum(c.prefill + c.cached for c in completions),
        sum(c.cached for c in completions),
    ]
    assert all(c.num_tokens == len(c.tokens) for c in completions)


async def test_seeds_reproduce(generator: OpenAIGenerator) -> None:
    prompt = (await prompts(generator))[2]
    sampling = Sampling(temperature=1.5)
    together = await generator.generate(Request(prompt, sampling, 60, n=4, seed=10))
    alone = [await one(generator, prompt, sampling=sampling, max_tokens=60, seed=10 + i) for i in range(4)]
    assert [c.tokens for c in together] == [c.tokens for c in alone]
    assert len({tuple(c.tokens) for c in together}) > 1


async def test_transformers_agrees(generator: OpenAIGenerator) -> None:
    """The same greedy tokens and texts, and log-probabilities to 1e-3, in float32."""
    from infer.generate.transformers import TransformersGenerator

    reference = TransformersGenerator(checkpoint("nano-s"), dtype="float32")
    for prompt in await prompts(generator):
        for delimiter in (None, "\n\n", "\\box"):
            got = await one(generator, prompt, delimiter=delimiter, logprobs=True)
            request = Request(prompt, GREEDY, 200, delimiter=delimiter, logprobs=True)
            (expected,) = await reference.generate(request)
            assert (got.tokens, got.text, got.finish) == (expected.tokens, expected.text, expected.finish)
            assert got.logprobs == pytest.approx(expected.logprobs, abs=1e-3)


async def test_a_reader_is_as_in_process(generator: OpenAIGenerator, nano_server: Server) -> None:
    """Next-token probabilities by token ids: the same numbers, and the server's own count of what they took."""
    from infer.generate.transformers import TransformersGenerator

    reference = TransformersGenerator(checkpoint("nano-s"), dtype="float32").reader(("+", "-"))
    reader = generator.reader(("+", "-"))
    assert reader.max_context == 1023  # with the token that is sampled
    for prompt in await prompts(generator):
        ends = [len(prompt) // 2, len(prompt)]
        names = ["vllm:generation_tokens_total", "vllm:prompt_tokens_total"]
        before = [nano_server.metric(name) for name in names]
        scores = await reader.read(prompt, ends)
        counted = [nano_server.metric(name) - b for name, b in zip(names, before, strict=True)]
        assert scores.values == pytest.approx((await reference.read(prompt, ends)).values, abs=1e-4)
        assert [scores.generated, scores.prefill + scores.cached] == counted == [2, sum(ends)]
    with pytest.raises(UserError, match="'Yes' is 3 tokens to the tokenizer"):
        generator.reader(("Yes", "No"))


async def test_a_user_stop_string_stays(generator: OpenAIGenerator) -> None:
    prompt = (await prompts(generator))[0]
    got = await one(generator, prompt, sampling=Sampling(temperature=0.0, stop=("Answer",)), delimiter="\n\n\n")
    assert (got.finish, got.text.endswith("Answer: ")) == ("end", True)


async def test_the_deadline_cuts(generator: OpenAIGenerator) -> None:
    prompt = (await prompts(generator))[0]
    sampling = Sampling(temperature=1.0)
    whole = await one(generator, prompt, deadline=time.monotonic() + 60)
    assert whole.finish == "end"
    plain = await one(generator, prompt)
    assert (whole.tokens, whole.text) == (plain.tokens, plain.text)
    start = time.monotonic()
    cut = await generator.generate(Request(prompt, sampling, 900, n=32, deadline=start + 0.1, delimiter="never"))
    assert time.monotonic() - start < 2
    assert any(c.finish == "length" for c in cut)
    assert all(c.num_tokens == len(c.tokens) for c in cut)


async def test_a_prompt_that_is_too_long(generator: OpenAIGenerator) -> None:
    with pytest.raises(UserError, match="a prompt of 1024 tokens; it takes 1 to 1023"):
        await one(generator, [50] * 1024)


async def test_the_server_dies(tmp_path: Path) -> None:
    with vllm_server(checkpoint("nano-s"), tmp_path / "log") as server:
        generator = await OpenAIGenerator.connect(server.url, retries=1, backoff=0.01)
        sampling = Sampling(temperature=2.0)
        prompt = (await prompts(generator))[0]
        calls = [asyncio.create_task(generator.generate(Request(prompt, sampling, 900, n=16))) for _ in range(2)]
        await asyncio.sleep(0.1)
        server.kill()
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, RuntimeError)
            assert str(error).startswith(f"{server.url}/completions failed, tried 2 times: ")
        await generator.close()
