"""vLLM engines under asyncio: many tasks await their own request, one loop runs the batch.

On a GPU an engine is vLLM's `AsyncLLM`: its own processes, scheduling overlapped with execution, tensor and data
parallelism. On a CPU it is an `LLMEngine` inside this process, stepped from the event loop: it starts in seconds where
worker processes take half a minute, and several engines take turns without fighting for the cores. (vLLM keeps its
forward context in a module-level variable, so engines that share a process must never run in two threads.)
"""

import asyncio
import multiprocessing
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from infer.cost.config import known_spec
from infer.cost.model import ModelSpec
from infer.errors import ToldElsewhere, UserError
from infer.generate.checkpoint import check_model
from infer.generate.loading import refused
from infer.generate.scratch import note_shared_memory, temporary_files_here

TURNS_BETWEEN_STEPS = 4
"""Turns of the event loop after a step that finished requests. A waiter's next request is some awaits away (future,
`gather`, strategy, search): let it join the very next step instead of idling through one."""


class Engine(Protocol):
    """A model that takes token ids and vLLM's sampling or pooling parameters."""

    max_context: int
    tokenizer: Any
    spec: ModelSpec | None
    draws: bool
    """Whether it draws by `infer.generate.draws`; otherwise by vLLM's own sampler and its seeds."""

    def submit(self, prompt: list[int], params: Any, deadline: float | None = None) -> "asyncio.Future[Any]":
        """vLLM's final output for one request; what there is at `deadline` (time.monotonic) if that comes first.

        None where there is none by then: the request was still queued, or in a prefill of which the engine reports
        nothing. The output's prompt is charged as the engine counts it (`num_cached_tokens`). Cancelling the future
        aborts the request; it fails with RuntimeError if the engine does or is closed. (A future, not a coroutine: a
        task per request is measurable overhead at tens of thousands of requests per second.)
        """
        ...

    def describe(self) -> dict[str, Any]: ...

    async def close(self) -> None: ...


class InProcessEngine:
    """vLLM's `LLMEngine` in this process, stepped while anything waits."""

    def __init__(self, args: Any) -> None:
        from vllm.v1.engine.llm_engine import LLMEngine

        _share_process_state()
        self._engine = LLMEngine.from_engine_args(args, usage_context=_throughput())
        _in_process.add(self)
        self._config = self._engine.vllm_config
        self.tokenizer = self._engine.renderer.tokenizer
        self.max_context: int = self._config.model_config.max_model_len
        self.spec = _spec(self._config.model_config)
        self.draws = bool(self._config.model_config.logits_processors)
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._partial: dict[str, Any] = {}
        self._deadlines: dict[str, float] = {}
        self._requests = 0
        self._loop: asyncio.Task[None] | None = None
        self._closed = False

    def submit(self, prompt: list[int], params: Any, deadline: float | None = None) -> asyncio.Future[Any]:
        if self._closed:
            raise RuntimeError("the engine is closed")
        self._requests += 1
        name = str(self._requests)
        self._engine.add_request(name, {"type": "token", "prompt_token_ids": prompt}, params)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(partial(self._forget, name))
        self._waiting[name] = future
        if deadline is not None:
            self._deadlines[name] = deadline
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._step_while_waiting())
        return future

    def _forget(self, name: str, future: asyncio.Future[Any]) -> None:
        if future.cancelled() and self._waiting.pop(name, None) is not None and not self._closed:
            self._engine.abort_request([name])
        self._partial.pop(name, None)
        self._deadlines.pop(name, None)

    async def _step_while_waiting(self) -> None:
        try:
            while self._waiting:
                finished = self._cut_late()
                with _unranked():
                    outputs = self._engine.step()
                for output in outputs:
                    name = output.request_id
                    if output.finished:
                        finished |= self._resolve(name, output)
                    else:
                        self._partial[name] = output
                for _ in range(TURNS_BETWEEN_STEPS if finished else 1):
                    await asyncio.sleep(0)
        except Exception as error:
            failure = RuntimeError(f"vLLM failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            with suppress(Exception):  # or vLLM would go on with them, for nobody
                self._engine.abort_request(list(self._waiting))
            self._fail(failure)

    def _resolve(self, name: str, output: Any) -> bool:
        future = self._waiting.pop(name, None)
        if future is None or future.done():
            return False
        future.set_result(output)
        return True

    def _cut_late(self) -> bool:
        """Ends the requests whose deadline has come, with what they have: None if they were not scheduled yet."""
        now = time.monotonic()
        late = [name for name, deadline in self._deadlines.items() if deadline <= now]
        if late:
            self._engine.abort_request(late)
        resolved = [self._resolve(name, self._partial.get(name)) for name in late]
        return any(resolved)

    def _fail(self, error: RuntimeError) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(error)

    def describe(self) -> dict[str, Any]:
        return {**_describe(self._config), "engine": "in process"}

    async def close(self) -> None:
        self._closed = True
        self._fail(RuntimeError("the engine was closed"))
        if self._loop is not None and not self._loop.done():
            await asyncio.gather(self._loop, return_exceptions=True)
        _in_process.discard(self)
        self._engine.engine_core.shutdown()


_in_process: "weakref.WeakSet[InProcessEngine]" = weakref.WeakSet()
"""The open engines of this process."""


def _share_process_state() -> None:
    """Lets engines of one process end one by one. Brittle: it replaces a function inside vLLM.

    vLLM keeps its process groups in module-level variables that all engines of a process share, and destroys them when
    any one of them is closed, or just garbage-collected: the others then fail at their next step. Here the last one
    destroys them.
    """
    from vllm.v1.engine import core

    destroy = core.cleanup_dist_env_and_memory
    if getattr(destroy, "shared", False):
        return

    def destroy_with_the_last(*arguments: Any, **options: Any) -> None:
        if not list(_in_process):  # a list: the length also counts those being collected
            destroy(*arguments, **options)

    destroy_with_the_last.shared = True  # type: ignore[attr-defined]
    core.cleanup_dist_env_and_memory = destroy_with_the_last


@contextmanager
def _unranked() -> Iterator[None]:
    """Keeps vLLM from ranking sampled tokens among all others. Brittle: it replaces a function inside vLLM (0.32).

    Nothing here reads the rank. The first request with log-probabilities would compile that function, for 3 to 5
    seconds of its problem's budget, and each later token pay for it.
    """
    from vllm.v1.sample import sampler

    rank = sampler.batched_count_greater_than
    sampler.batched_count_greater_than = _no_rank
    try:
        yield
    finally:
        sampler.batched_count_greater_than = rank


def _no_rank(logprobs: Any, _: Any) -> Any:
    import torch

    return torch.zeros(len(logprobs), dtype=torch.long, device=logprobs.device)


class ProcessEngine:
    """vLLM's `AsyncLLM`: the engine in processes of its own."""

    def __init__(self, args: Any) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        fields = AsyncEngineArgs.__dataclass_fields__
        same = {name: value for name, value in vars(args).items() if name in fields}
        with _no_process_left():
            self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**same), usage_context=_throughput())
        self._config = self._engine.vllm_config
        self.tokenizer = self._engine.renderer.tokenizer
        self.max_context: int = self._config.model_config.max_model_len
        self.spec = _spec(self._config.model_config)
        self.draws = bool(self._config.model_config.logits_processors)
        self._requests = 0
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    def submit(self, prompt: list[int], params: Any, deadline: float | None = None) -> asyncio.Future[Any]:
        if self._closed:
            raise RuntimeError("the engine is closed")
        self._requests += 1
        task = asyncio.create_task(self._run(prompt, params, deadline, str(self._requests)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _run(self, prompt: list[int], params: Any, deadline: float | None, name: str) -> Any:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return None
        outputs = self._outputs({"type": "token", "prompt_token_ids": prompt}, params, name)
        limit = asyncio.timeout(left)
        last: Any = None
        try:
            # around the whole loop: `wait_for` loses a cancellation that comes together with an output (Python 3.11)
            async with limit:
                async for output in outputs:
                    last = output
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and task.cancelling() == 1:  # by `close` and nobody else
                raise RuntimeError("the engine was closed") from None
            raise
        except Exception as error:
            if not (isinstance(error, TimeoutError) and limit.expired()):  # vLLM has time-outs of its own
                raise RuntimeError(f"vLLM failed: {type(error).__name__}: {error}") from error
        finally:
            await outputs.aclose()  # aborts what is not finished
        return last

    def _outputs(self, prompt: Any, params: Any, name: str) -> Any:
        from vllm import PoolingParams

        run: Callable[..., Any] = self._engine.encode if isinstance(params, PoolingParams) else self._engine.generate
        return run(prompt, params, name)

    def describe(self) -> dict[str, Any]:
        return {**_describe(self._config), "engine": "own processes"}

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.sleep(0)  # a task cancelled before it began could not report why it ends
        running = list(self._running)
        for task in running:
            task.cancel()
        try:
            await asyncio.gather(*running, return_exceptions=True)
        finally:
            self._engine.shutdown()
            del self._engine  # or it would shut down again as the interpreter ends, and print that it can't


@contextmanager
def _no_process_left() -> Iterator[None]:
    """Where the block fails, or is interrupted, kills the processes that it started, and theirs.

    vLLM ends those that it has made a note of, and makes a note of all only when all have started. Brittle: it calls a
    function inside vLLM.
    """
    from vllm.utils.system_utils import kill_process_tree

    before = multiprocessing.active_children()
    try:
        yield
    except BaseException:
        for process in multiprocessing.active_children():
            if process not in before and process.pid is not None:
                kill_process_tree(process.pid)
                process.join()
        raise


def _throughput() -> Any:
    """vLLM's word for "as many as fit": by it the batch is as large as `vllm.LLM`'s.

    That is 1,024 requests and 16,384 tokens a step on a GPU of 70 GiB or more, 4,096 tokens on a CPU, where an engine
    of no context gets 128 and 2,048 (vLLM 0.32).
    """
    from vllm.usage.usage_lib import UsageContext

    return UsageContext.LLM_CLASS


def _spec(model: Any) -> ModelSpec | None:
    return known_spec(model.hf_config, str(model.dtype).removeprefix("torch."), model.model)


def _describe(config: Any) -> dict[str, Any]:
    import torch
    import vllm

    return {
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "device": device_name(),
        "block_size": config.cache_config.block_size,
        "tensor_parallel": config.parallel_config.tensor_parallel_size,
        "data_parallel": config.parallel_config.data_parallel_size,
    }


def start_engine(
    model: str | Path,
    role: Literal["generate", "pooling"],
    *,
    dtype: str = "auto",
    revision: str | None = None,
    architecture: str | None = None,
    max_context: int | None = None,
    tensor_parallel: int = 1,
    data_parallel: int = 1,
    memory_fraction: float = 0.9,
    log_stats: bool = False,
    in_process: bool | None = None,
) -> Engine:
    """Loads a model into vLLM, as fits the machine.

    `memory_fraction` is the share of a GPU's memory for weights and KV cache; on a CPU the KV cache takes that share
    of a quarter of the free memory. `architecture` is a class of vLLM's to load it as, instead of the one that its
    config.json names. `log_stats` keeps vLLM's own counters. `in_process` says whether the engine runs inside this
    process (None: where there is no GPU); one that does not must be started inside the event loop that it will serve.
    Raises UserError for a model that can't be loaded.
    """
    quiet_environment()
    from vllm import EngineArgs

    on_cpu = _on_cpu()
    if in_process is None:
        in_process = on_cpu and tensor_parallel == data_parallel == 1
    args: dict[str, Any] = {
        "model": str(model),
        "revision": revision,
        "tokenizer_revision": revision,
        "runner": role,
        "dtype": dtype,
        "max_model_len": max_context,
        "enable_prefix_caching": True,
        "use_tqdm_on_load": False,
        "tensor_parallel_size": tensor_parallel,
        "data_parallel_size": data_parallel,
        "disable_log_stats": not log_stats,
        "trust_remote_code": False,
        "load_format": "safetensors",  # pickled weights can hold code
    }
    if architecture is not None:
        args["hf_overrides"] = {"architectures": [architecture]}
    check_model(model, revision)
    if not on_cpu:
        args["gpu_memory_utilization"] = memory_fraction
    else:
        # Compilation takes a minute and gains little on a CPU. Small blocks: prefixes are shared in whole blocks.
        args |= {"enforce_eager": True, "block_size": 32, "max_num_seqs": 256}
        args["kv_cache_memory_bytes"] = int(_free_memory() * memory_fraction / 4)
        if role == "generate":
            # not on a GPU, where vLLM (0.32) draws for all rows at once itself
            args["logits_processors"] = ["infer.generate.draws:SeededDraws"]
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if in_process else "1"
    # NaN ends an engine in processes of its own; in this one `draws` notes whose logits they are
    os.environ["VLLM_RAISE_ON_LOGIT_NANS"] = "0" if in_process and on_cpu else "1"
    try:
        with temporary_files_here():
            engine_args = EngineArgs(**args)
            if in_process:
                return InProcessEngine(engine_args)
            engine = ProcessEngine(engine_args)
        note_shared_memory()
        return engine
    except Exception as error:
        if "root cause" in str(error):
            raise ToldElsewhere(f"model {model} can't be loaded by vLLM: its process failed") from error
        raise refused(f"model {model}", error) from error


def quiet_environment() -> None:
    """vLLM reads its settings from the environment as it is imported: no usage reports, warnings and errors only."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def device_memory() -> int | None:
    """Bytes of memory of one GPU; None on a CPU. Raises UserError where vLLM finds no device."""
    quiet_environment()
    if _on_cpu():
        return None
    from vllm.platforms import current_platform

    return int(current_platform.get_device_total_memory())


def device_name() -> str:
    """The device that vLLM runs on here: "cpu", or the name that a GPU's driver gives it. Raises UserError."""
    if _on_cpu():
        return "cpu"
    from vllm.platforms import current_platform

    return str(current_platform.get_device_name())


def _on_cpu() -> bool:
    """Whether vLLM runs on a CPU here. Raises UserError where it can't run at all.

    Not asked of torch: once it has looked for a GPU, forks can't use it.
    """
    from vllm.platforms import current_platform

    if current_platform.is_unspecified():
        raise UserError("this build of vLLM finds no GPU here: make one visible to it, or use --backend transformers")
    return bool(current_platform.is_cpu())


def _free_memory() -> int:
    """Free physical memory in bytes."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
