"""Engines: the one in this process and the one in vLLM's own processes behave the same."""

import asyncio
import gc
import os
import subprocess
import sys
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from infer.core.generator import Completion, Request, Sampling
from infer.errors import UserError
from infer.generate.engine import ProcessEngine
from infer.generate.vllm import VLLMGenerator
from infer.nano import checkpoint
from tests.engines import TESTED

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
    # once the requests are aborted, the engine continues to work
    nano_engine._engine.abort_request(list(nano_engine._engine.output_processor.request_states), internal=True)
    (completion,) = await generator.generate(Request(prompt, Sampling(temperature=0), 5))
    assert completion.num_tokens == 5


@pytest.mark.parametrize("ending", ["closed", "dropped"])
async def test_an_engine_that_ends_leaves_the_others_alone(nano_engine: Any, ending: str) -> None:
    """When an engine ends or is collected, vLLM destroys the process groups that all engines of the process share."""
    from infer.generate.engine import start_engine

    async def complete(engine: Any) -> int:
        generator = VLLMGenerator(engine)
        prompt = await generator.encode([{"role": "user", "content": PROMPTS[0]}])
        (completion,) = await generator.generate(Request(prompt, Sampling(temperature=0), 5))
        return completion.num_tokens

    other: Any = start_engine(checkpoint("nano-xs"), "generate", **TESTED)
    assert await complete(other) == 5
    await other._loop  # the loop runs for some more turns, and holds the engine
    if ending == "closed":
        await other.close()
    gone = weakref.ref(other)
    del other
    gc.unfreeze()  # vLLM freezes an engine's objects, so the collector skips them until the next engine is closed
    gc.collect()
    assert gone() is None
    assert await complete(nano_engine) == 5


LOOKS = """
import os
import torch

looks, look = [], torch.cuda.is_available
torch.cuda.is_available = lambda: looks.append(os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK")) or look()
from infer.generate.engine import device_memory

device_memory()
assert set(looks) <= {"1"}, looks
"""


def test_torch_is_not_made_to_touch_a_gpu_before_vllm_forks() -> None:
    """vLLM sets PYTORCH_NVML_BASED_CUDA_CHECK, so that torch looks for a GPU without starting CUDA.

    If torch looks for one without it, forked processes can't use the GPU.
    """
    pytest.importorskip("vllm")
    environment = {name: value for name, value in os.environ.items() if name != "PYTORCH_NVML_BASED_CUDA_CHECK"}
    done = subprocess.run([sys.executable, "-c", LOOKS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_vllm_without_a_device_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's GPU build, on a machine where no GPU is visible, is reported as such."""
    pytest.importorskip("vllm")
    from vllm import platforms
    from vllm.platforms import interface

    from infer.generate.engine import device_memory, start_engine

    monkeypatch.setattr(platforms, "_current_platform", interface.UnspecifiedPlatform())
    for ask in (device_memory, lambda: start_engine(checkpoint("nano-s"), "generate")):
        with pytest.raises(UserError, match="finds no GPU here"):
            ask()


async def test_a_deadline_ends_what_is_still_queued(nano_engine: Any) -> None:
    generator = VLLMGenerator(nano_engine)
    prompt = await generator.encode([{"role": "user", "content": PROMPTS[2]}])
    nothing = Completion([], 0, "", "length", [], 0, 0)
    late = Request(prompt, Sampling(), 900, n=2, logprobs=True, deadline=time.monotonic() - 1)
    assert await generator.generate(late) == [nothing, nothing]
    count = 300  # the engine runs 256 at once
    crowd = Request(prompt, Sampling(), 900, n=count, logprobs=True, deadline=time.monotonic() + 0.2)
    completions = await generator.generate(crowd)
    assert sum(completion == nothing for completion in completions) >= count - 256
    assert all(completion.prefill + completion.cached == len(prompt) for completion in completions if completion.tokens)
    assert all(completion.finish == "length" for completion in completions)
    (after,) = await generator.generate(Request(prompt, Sampling(temperature=0), 5))
    assert after.num_tokens == 5


class Scripted:
    """Stands in for vLLM's `AsyncLLM`. Each of its endless outputs is the result of `then()`."""

    def __init__(self, then: Callable[[], Awaitable[Any]]) -> None:
        self.then = then
        self.ended = self.shut = False

    async def generate(self, *_: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield await self.then()
        finally:
            assert not self.shut
            self.ended = True

    def shutdown(self) -> None:
        self.shut = True


def scripted(then: Callable[[], Awaitable[Any]]) -> Any:
    engine: Any = object.__new__(ProcessEngine)
    engine._engine, engine._requests, engine._running, engine._closed = Scripted(then), 0, set(), False
    return engine


@pytest.mark.parametrize("begun", [False, True])
async def test_closing_fails_those_who_wait(begun: bool) -> None:
    engine = scripted(asyncio.Event().wait)
    calls = [engine.submit([1], None) for _ in range(2)]
    if begun:
        await asyncio.sleep(0.01)
    core = engine._engine
    await engine.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(result) for result in results] == ["the engine was closed"] * 2
    assert {type(result) for result in results} == {RuntimeError}
    assert core.ended
    assert core.shut
    with pytest.raises(RuntimeError, match="is closed"):
        engine.submit([1], None)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("deadline", [None, 5.0])
async def test_a_cancellation_that_comes_with_an_output_counts(turns: int, deadline: float | None) -> None:
    output: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    awaited: list[Awaitable[Any]] = [asyncio.sleep(0, "first"), output]

    async def then() -> Any:
        return await (awaited.pop(0) if awaited else asyncio.sleep(0.01, "more"))

    engine = scripted(then)
    call = engine.submit([1], None, deadline and time.monotonic() + deadline)
    await asyncio.sleep(0.01)
    output.set_result("output")
    for _ in range(turns):
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call], timeout=2)
    assert call.cancelled()
    assert engine._engine.ended


async def test_a_time_out_within_vllm_is_no_deadline() -> None:
    async def then() -> None:
        raise TimeoutError("no answer from the core")

    engine = scripted(then)
    for deadline in (None, time.monotonic() + 5):
        with pytest.raises(RuntimeError, match="vLLM failed: TimeoutError: no answer from the core"):
            await engine.submit([1], None, deadline)


async def test_a_deadline_before_the_first_output_gives_none() -> None:
    engine = scripted(asyncio.Event().wait)
    assert await engine.submit([1], None, time.monotonic() + 0.05) is None
    assert engine._engine.ended
    assert await engine.submit([1], None, time.monotonic() - 1) is None


async def test_a_deadline_gives_the_last_output() -> None:
    outputs = iter(range(100))

    async def then() -> int:
        await asyncio.sleep(0.02)
        return next(outputs)

    assert 0 < await scripted(then).submit([1], None, time.monotonic() + 0.3) < 20


@pytest.fixture
def own_processes() -> Iterator[Any]:
    pytest.importorskip("vllm")
    from vllm import EngineArgs

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
        request = Request(prompt, Sampling(temperature=0), 900, n=2, deadline=start + 0.5)
        cut = await generators[1].generate(request)
        assert time.monotonic() - start < 5
        assert all(completion.tokens for completion in cut)

        call = asyncio.create_task(generators[1].generate(Request(prompt, Sampling(), 900, n=2)))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        core = weakref.ref(engine._engine)
    finally:
        await engine.close()
    gc.collect()
    assert core() is None  # at exit, vLLM shuts down remaining engines once more, and that fails loudly


async def test_an_engine_that_failed_lets_go_of_its_requests(nano_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise vLLM would keep their cache blocks and slots. Later requests are served as if nothing had happened."""
    generator = VLLMGenerator(nano_engine)
    prompt = await generator.encode([{"role": "user", "content": PROMPTS[0]}])
    request = Request(prompt, Sampling(temperature=1.0), 30, n=3, seed=7)
    before = await generator.generate(request)
    step, calls = nano_engine._engine.step, 0

    def failing() -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OverflowError("on purpose")
        return step()

    with monkeypatch.context() as patched:
        patched.setattr(nano_engine._engine, "step", failing)
        with pytest.raises(RuntimeError, match="on purpose"):
            await generator.generate(request)
    assert not nano_engine._engine.has_unfinished_requests()
    assert [sample.tokens for sample in await generator.generate(request)] == [sample.tokens for sample in before]
