"""Calibration: times a vLLM engine, and fits the idealized runtime of `infer.cost.runtime` to it.

runtime = await calibrate(engine, spec, find("cpu"), sampling)
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infer.cost.hardware import THIS_CPU, Hardware
from infer.cost.model import ModelSpec
from infer.cost.runtime import Runtime, Shape, fit
from infer.errors import UserError
from infer.generate.engine import Engine

GRID: tuple[tuple[Shape, ...], ...] = tuple(
    (Shape(prompt, 0, generated),) * batch
    for batch, prompt in ((1, 32), (1, 256), (4, 64), (4, 256), (16, 32))
    for generated in (1, 9, 33)
)
"""Groups that a calibration times: at most 1,024 prompt tokens each."""


def check_device(on: str, here: str) -> None:
    """Raises UserError unless `on`, a name of `infer.cost.hardware`, is the device `here`, as its driver names it.

    The times of another device would be fitted to its roofline, and kept as the model's.
    """

    def letters(name: str) -> str:
        return "".join(filter(str.isalnum, name.casefold()))

    if letters(on) not in letters(here):
        fix = "leave it out" if here == THIS_CPU else "name this one, if infer hardware lists it"
        raise UserError(f"--on {on}: vLLM runs on {here} here: {fix}")


async def calibrate(
    engine: Engine, spec: ModelSpec, hardware: Hardware, sampling: Mapping[str, Any], rounds: int = 5
) -> Runtime:
    """Times `GRID` on a running engine and fits overhead and slowdown of both phases.

    `hardware` is the device that the engine runs on: its peaks are the roofline. `sampling` are options of vLLM's
    `SamplingParams`, so that tokens are drawn as they will be (`infer.generate.vllm.sampling_options`).
    """
    groups = [group for group in GRID if all(shape.prefill + shape.generated <= engine.max_context for shape in group)]
    return fit(spec, hardware, groups, await time_groups(engine, spec, groups, sampling, rounds))


async def time_groups(
    engine: Engine,
    spec: ModelSpec,
    groups: Sequence[Sequence[Shape]],
    sampling: Mapping[str, Any],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds until all requests of a group are done, for each group: the least of `rounds`.

    The rounds go over all groups in turn, so that a disturbance does not fall on all measurements of one. Prompts are
    random tokens, so none is in the prefix cache; shapes with cached tokens are not timed. `time.process_time` as the
    clock leaves out what other processes take, for an engine that runs in this process on one thread.
    """
    draw = random.Random(0)
    await _time_group(engine, spec, groups[-1], sampling, draw, clock)  # warm-up
    best = [float("inf")] * len(groups)
    for _ in range(rounds):
        for index, group in enumerate(groups):
            best[index] = min(best[index], await _time_group(engine, spec, group, sampling, draw, clock))
    return best


async def _time_group(
    engine: Engine,
    spec: ModelSpec,
    group: Sequence[Shape],
    sampling: Mapping[str, Any],
    draw: random.Random,
    clock: Callable[[], float],
) -> float:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    assert not any(shape.cached for shape in group)
    vocabulary = min(spec.vocab, len(engine.tokenizer))
    kind = RequestOutputKind.FINAL_ONLY
    calls = [
        (
            [draw.randrange(vocabulary) for _ in range(shape.prefill)],
            SamplingParams(**sampling, max_tokens=shape.generated, ignore_eos=True, output_kind=kind),
        )
        for shape in group
    ]
    start = clock()
    await asyncio.gather(*(engine.submit(prompt, params) for prompt, params in calls))
    return clock() - start
