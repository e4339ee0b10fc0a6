"""Engines: the one in this process and the one in vLLM's own processes do the same."""

import asyncio
import gc
import os
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from infer.generate.base import Request, Sampling
from infer.generate.vllm import VLLMGenerator
from infer.nano import checkpoint

pytestmark = pytest.mark.models

PROMPTS = ["23+54=?", "(12+30)*2-14=?", "((23+54)*2-88+89-99)*6=?"]


async def test_an_engine_that_fails_answers_every_waiter(nano_engine: Any) -> None:
    generator = VLLMGenerator(nano_engine)
    prompt = await generator.encode([{"role": "user", "content": PROMPTS[2]}])
    whole = nano_engine._engine.step

    def failing() -> Any:
        nano_engine._engine.step = whole
        raise ValueError("out of luck")

    calls = [asyncio.create_task(generator.generate(Request(prompt, Sampling(), 50, n=2, seed=i))) for i in range(4)]
    await asyncio.sleep(0.005)
    nano_engine._engine.step = failing
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, RuntimeError)
        assert "out of luck" in str(result)
    # the aborted requests are gone, and the engine works on
    nano_engine._engine.abort_request(list(nano_engine._engine.output_processor.request_states), internal=True)
    (completion,) = await generator.generate(Request(prompt, Sampling(temperature=0), 5))
    assert completion.num_tokens == 5


@pytest.mark.parametrize("ending", ["closed", "dropped"])
async def test_an_engine_that_ends_leaves_the_others_alone(nano_engine: Any, ending: str) -> None:
    """vLLM destroys the process groups that all engines of a process share as one of them ends, or is collected."""
    from infer.engine import start_engine

    async def complete(engine: Any) -> int:
        generator = VLLMGenerator(engine)
        prompt = await generator.encode([{"role": "user", "content": PROMPTS[0]}])
        (completion,) = await generator.generate(Request(prompt, Sampling(temperature=0), 5))
        return completion.num_tokens

    other: Any = start_engine(checkpoint("nano-xs"), "generate", dtype="float32", memory_fraction=0.05)
    assert await complete(other) == 5
    await other._loop  # it steps on for some turns, and holds the engine
    if ending == "closed":
        await other.close()
    gone = weakref.ref(other)
    del other
    gc.unfreeze()  # vLLM hides what an engine holds from the collector, until the next engine is closed
    gc.collect()
    assert gone() is None
    assert await complete(nano_engine) == 5


@pytest.fixture
def own_processes() -> Iterator[Any]:
    pytest.importorskip("vllm")
    from vllm import EngineArgs

    from infer.engine import ProcessEngine

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    arguments: dict[str, Any] = {
        "dtype": "float32",
        "enable_chunked_prefill": False,
        "enforce_eager": True,
        "block_size": 32,
        "kv_cache_memory_bytes": 1 << 28,
    }
    yield lambda: ProcessEngine(EngineArgs(str(checkpoint("nano-s")), **arguments))
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


async def test_an_engine_in_its_own_processes_does_the_same(nano_engine: Any, own_processes: Any) -> None:
    engine = own_processes()  # must start inside the loop that it will serve
    generators = [VLLMGenerator(nano_engine), VLLMGenerator(engine)]
    try:
        for sampling in (Sampling(temperature=0), Sampling(temperature=1.0)):
            results = []
            for generator in generators:
                prompts = [await generator.encode([{"role": "user", "content": text}]) for text in PROMPTS]
                requests = [Request(prompt, sampling, 80, n=3, seed=7, delimiter="\n\n") for prompt in prompts]
                grown = await asyncio.gather(*map(generator.generate, requests))
                results.append([(c.tokens, c.text, c.finish) for completions in grown for c in completions])
            assert results[0] == results[1]

        prompt = await generators[1].encode([{"role": "user", "content": PROMPTS[2]}])
        start = time.monotonic()
        request = Request(prompt, Sampling(temperature=0), 900, n=2, deadline=start + 0.05)
        cut = await generators[1].generate(request)
        assert time.monotonic() - start < 5
        assert all(completion.tokens for completion in cut)

        call = asyncio.create_task(generators[1].generate(Request(prompt, Sampling(), 900, n=2)))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    finally:
        await engine.close()
