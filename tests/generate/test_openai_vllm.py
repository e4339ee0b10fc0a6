"""The HTTP generator on a real vLLM server: exact tokens, and a ledger that equals the server's own count."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from infer.core.generator import Completion, Request, Sampling
from infer.errors import UserError
from infer.generate.openai import OpenAIGenerator
from infer.nano import checkpoint
from tests.servers import Server

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


async def test_the_ledger_is_the_servers(generator: OpenAIGenerator, nano_server: Server) -> None:
    names = ["vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:prefix_cache_hits_total"]
    before = [nano_server.metric(name) for name in names]
    sampling = Sampling(temperature=1.0)
    asked = await prompts(generator)
    first = [Request(prompt, sampling, 30, n=6, seed=1, delimiter=stop) for prompt in asked for stop in (None, "\n\n")]
    results = await asyncio.gather(*map(generator.generate, first))
    grown = [[*request.prompt, *done.tokens] for request, (done, *_) in zip(first, results, strict=True)]
    results += await asyncio.gather(*(generator.generate(replace(first[0], prompt=prompt)) for prompt in grown))
    completions = [completion for result in results for completion in result]
    assert sum(c.cached for c in completions) > 0
    assert [after - b for after, b in zip([nano_server.metric(name) for name in names], before, strict=True)] == [
        sum(c.num_tokens for c in completions),
        sum(c.prefill + c.cached for c in completions),
        sum(c.cached for c in completions),
    ]
    assert all(c.num_tokens == len(c.tokens) for c in completions)


async def test_transformers_agrees(generator: OpenAIGenerator) -> None:
    """Both give the same greedy tokens and texts, and log-probabilities equal to 1e-3, in float32."""
    from infer.generate.transformers import TransformersGenerator

    reference = TransformersGenerator(checkpoint("nano-s"), dtype="float32")
    inside_a_token = False
    for prompt in await prompts(generator):
        for delimiter in (None, "\n\n", "\\box"):
            got = await one(generator, prompt, delimiter=delimiter, logprobs=True)
            request = Request(prompt, GREEDY, 200, delimiter=delimiter, logprobs=True)
            (expected,) = await reference.generate(request)
            inside_a_token |= got.text.endswith("\\boxed{")
            assert (got.tokens, got.text, got.finish) == (expected.tokens, expected.text, expected.finish)
            assert got.logprobs == pytest.approx(expected.logprobs, abs=1e-3)
    assert inside_a_token


async def test_a_reader_is_as_in_process(generator: OpenAIGenerator, nano_server: Server) -> None:
    """A server's next-token probabilities equal those in process, and the cost equals the server's own count."""
    from infer.generate.transformers import TransformersGenerator

    reference = TransformersGenerator(checkpoint("nano-s"), dtype="float32").reader(("+", "-"))
    reader = generator.reader(("+", "-"))
    assert reader.max_context == 1023  # one less than the context: reading samples a token
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
