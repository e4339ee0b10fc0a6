"""Idealized runtime (Narayanan et al. 2305.02440): how long passes take on given hardware, alone and undisturbed.

    Runtime(find("h100"), spec.dtype).seconds(cost)                the roofline
    runtime = await calibrate(engine, spec, find("cpu"), sampling)      fitted to measured times
    runtime.seconds(group_cost(spec, shapes))

The paper takes the time of a query as that of encoding its prompt plus a constant for each further token, both fitted
to runs on dedicated hardware. Here both phases are lines over their roofline,

    seconds = overhead x passes + slowdown x max(FLOPs / peak, bytes / bandwidth)

with overhead 0 and slowdown 1 for the roofline itself, which no engine reaches. A phase is put under one roof as a
whole, as if its passes were alike.
"""

import asyncio
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from infer.cost.formulas import Cost, RequestCost, Serving, decode_cost, prefill_cost
from infer.cost.hardware import Hardware, keep, kept
from infer.cost.model import ModelSpec
from infer.errors import UserError


class Shape(NamedTuple):
    """A request's lengths: prompt tokens computed, prompt tokens cached, tokens generated."""

    prefill: int
    cached: int
    generated: int


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds of a phase over its roofline."""

    overhead: float = 0.0
    """Seconds of each pass that no work explains: scheduling, sampling, launching kernels."""
    slowdown: float = 1.0
    """Measured seconds for one of the roofline."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """How fast a model runs on a device: by the device's roofline, or as calibrated."""

    hardware: Hardware
    dtype: str
    prefill: Line = Line()
    decode: Line = Line()

    def seconds(self, cost: RequestCost) -> float:
        """Device time of a cost. Shares of passes count as shares of their time, so times of requests add up."""
        return self._phase(cost.prefill, self.prefill) + self._phase(cost.decode, self.decode)

    def dollars(self, cost: RequestCost) -> float:
        """Price of the device for that time. Raises UserError where the hardware has no price."""
        if self.hardware.price is None:
            raise UserError(f"{self.hardware.name} has no price: give one in dollars an hour")
        return self.seconds(cost) * self.hardware.price / 3600

    def eflops(self, cost: RequestCost) -> float:
        """FLOPs + intensity x bytes, at this hardware's intensity for the model's dtype."""
        return cost.eflops(self.hardware.intensity(self.dtype))

    def _phase(self, cost: Cost, line: Line) -> float:
        return line.overhead * cost.passes + line.slowdown * self._roofline(cost)

    def _roofline(self, cost: Cost) -> float:
        return max(cost.flops / self.hardware.flops_per_second(self.dtype), cost.bytes / self.hardware.bandwidth)

    def keep(self, model: str) -> None:
        """Keeps a calibration for `kept`, in `hardware.cache_folder()`."""
        keep(_file(model), asdict(self))

    @classmethod
    def kept(cls, model: str) -> "Runtime":
        """The calibration of a model on this machine. Raises UserError where there is none."""
        command = f"infer hardware --calibrate {model}"
        record = kept(_file(model), command)
        try:
            return cls(
                Hardware(**record["hardware"]), record["dtype"], Line(**record["prefill"]), Line(**record["decode"])
            )
        except (KeyError, TypeError):
            raise UserError(f"the calibration of {model} is of another version: run {command} again") from None


def _file(model: str) -> str:
    return f"calibration-{re.sub(r'[^A-Za-z0-9.]+', '-', model).strip('-')}.json"


def group_cost(spec: ModelSpec, shapes: Sequence[Shape]) -> RequestCost:
    """What requests cost that start together: one pass for all their prompts, then passes of those that still run.

    (An engine with a limit on tokens in a pass splits a large prefill: that is ignored.)
    """
    together = Serving(batch=len(shapes))
    prefill = sum((prefill_cost(spec, s.prefill, s.cached, serving=together) for s in shapes), Cost())
    decode = Cost()
    running = sorted(shapes, key=lambda shape: shape.generated)
    done = 1  # the prefill gave each its first token
    for index, shape in enumerate(running):
        steps = shape.generated - done
        if steps <= 0:
            continue
        alive = running[index:]
        serving = Serving(batch=len(alive))
        for s in alive:
            decode += decode_cost(spec, s.prefill + s.cached + done - 1, steps, serving=serving)
        done += steps
    return RequestCost(prefill, decode)


GRID: tuple[tuple[Shape, ...], ...] = tuple(
    (Shape(prompt, 0, generated),) * batch
    for batch, prompt in ((1, 32), (1, 256), (4, 64), (4, 256), (16, 32))
    for generated in (1, 9, 33)
)
"""Groups that a calibration times: at most 1,024 prompt tokens each."""


async def calibrate(
    engine: Any, spec: ModelSpec, hardware: Hardware, sampling: Mapping[str, Any], rounds: int = 5
) -> Runtime:
    """Times `GRID` on a running engine (`infer.generate.engine`) and fits overhead and slowdown of both phases.

    `hardware` is the device the engine runs on: its peaks are the roofline. `sampling` are options of vLLM's
    `SamplingParams`: tokens are drawn as they will be (`infer.generate.vllm.sampling_options`).
    """
    groups = [group for group in GRID if all(shape.prefill + shape.generated <= engine.max_context for shape in group)]
    return fit(spec, hardware, groups, await time_groups(engine, spec, groups, sampling, rounds))


async def time_groups(
    engine: Any,
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
    engine: Any,
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


def fit(spec: ModelSpec, hardware: Hardware, groups: Sequence[Sequence[Shape]], seconds: Sequence[float]) -> Runtime:
    """Overheads and slowdowns, none negative, of least squared relative error over the groups' times."""
    import numpy as np
    from scipy.optimize import nnls

    roofline = Runtime(hardware, spec.dtype)
    rows = []
    for group in groups:
        cost = group_cost(spec, group)
        rows.append([cost.prefill.passes, roofline._roofline(cost.prefill)])
        rows[-1] += [cost.decode.passes, roofline._roofline(cost.decode)]
    times = np.array(seconds)
    coefficients, _ = nnls(np.array(rows) / times[:, None], np.ones_like(times))
    prefill_overhead, prefill_slowdown, decode_overhead, decode_slowdown = map(float, coefficients)
    return Runtime(
        hardware, spec.dtype, Line(prefill_overhead, prefill_slowdown), Line(decode_overhead, decode_slowdown)
    )
