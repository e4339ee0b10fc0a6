"""Idealized runtime (Narayanan et al. 2305.02440): the time of passes on given hardware without other load.

    Runtime.of(spec, find("h100")).seconds(cost)             the roofline
    runtime = fit(spec, find("cpu"), groups, seconds)        fitted to measured times (`infer.runs.calibrate`)
    runtime.seconds(group_cost(spec, shapes))

In the paper, the time of a query is that of encoding its prompt plus a constant for each further token, both fitted to
runs on dedicated hardware. Here the time of each phase is a linear function of its roofline,

    seconds = overhead x passes + slowdown x max(FLOPs / peak, bytes / bandwidth)

with overhead 0 and slowdown 1 for the roofline itself, which no engine reaches. A phase has one roofline as a whole, as
if all its passes were equal.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

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
    """Seconds of a phase as a linear function of its roofline."""

    overhead: float = 0.0
    """Seconds of each pass besides its work: scheduling, sampling, launching kernels."""
    slowdown: float = 1.0
    """Measured seconds for each second of the roofline."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The speed of a model on a device: by the device's roofline, or calibrated."""

    hardware: Hardware
    dtype: str
    prefill: Line = Line()
    decode: Line = Line()
    matrix_dtype: str | None = None
    """Of the products with the layers' matrices; None: `dtype`, as all others."""

    @classmethod
    def of(cls, spec: ModelSpec, hardware: Hardware) -> "Runtime":
        """The roofline of a model. Where the device has no rate for 8 bits, weights are unpacked to `spec.dtype`."""
        eight = spec.matrix_dtype if spec.matrix_dtype in hardware.peak else None
        return cls(hardware, spec.dtype, matrix_dtype=eight)

    def seconds(self, cost: RequestCost) -> float:
        """Device time of a cost. A share of a pass counts as that share of its time, so times of requests add up."""
        return self._phase(cost.prefill, self.prefill) + self._phase(cost.decode, self.decode)

    def dollars(self, cost: RequestCost) -> float:
        """The device's price for the time of a cost. Raises UserError where the hardware has no price."""
        if self.hardware.price is None:
            raise UserError(f"{self.hardware.name} has no price: give one in dollars an hour")
        return self.seconds(cost) * self.hardware.price / 3600

    def eflops(self, cost: RequestCost) -> float:
        """FLOPs + intensity x bytes, at this hardware's intensity for the dtype of the model's matrices."""
        return cost.eflops(self.hardware.intensity(self.matrix_dtype or self.dtype))

    def _phase(self, cost: Cost, line: Line) -> float:
        return line.overhead * cost.passes + line.slowdown * self._roofline(cost)

    def _roofline(self, cost: Cost) -> float:
        matrices = cost.weights.flops / self.hardware.flops_per_second(self.matrix_dtype or self.dtype)
        others = (cost.kv.flops + cost.logits.flops) / self.hardware.flops_per_second(self.dtype)
        return max(matrices + others, cost.bytes / self.hardware.bandwidth)

    def keep(self, model: str) -> None:
        """Stores the calibration in `hardware.cache_folder()`, for `kept`."""
        keep(_file(model), asdict(self))

    @classmethod
    def kept(cls, model: str) -> "Runtime":
        """The calibration of a model on this machine. Raises UserError where there is none."""
        command = f"infer hardware --calibrate {model}"
        record = kept(_file(model), command)
        try:
            lines = Line(**record["prefill"]), Line(**record["decode"])
            return cls(Hardware(**record["hardware"]), record["dtype"], *lines, record.get("matrix_dtype"))
        except (KeyError, TypeError):
            raise UserError(f"the calibration of {model} is of another version: run {command} again") from None


def _file(model: str) -> str:
    return f"calibration-{re.sub(r'[^A-Za-z0-9.]+', '-', model).strip('-')}.json"


def group_cost(spec: ModelSpec, shapes: Sequence[Shape]) -> RequestCost:
    """The cost of requests that start together: one pass for all prompts, then passes of those that still run.

    An engine that limits the tokens of a pass splits a large prefill; this is ignored.
    """
    together = Serving(batch=len(shapes))
    prefill = sum((prefill_cost(spec, s.prefill, s.cached, serving=together) for s in shapes), Cost())
    decode = Cost()
    running = sorted(shapes, key=lambda shape: shape.generated)
    done = 1  # the prefill gave each request its first token
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


def fit(spec: ModelSpec, hardware: Hardware, groups: Sequence[Sequence[Shape]], seconds: Sequence[float]) -> Runtime:
    """Fits overheads and slowdowns, none negative: the least squares of relative errors of the groups' seconds."""
    import numpy as np
    from scipy.optimize import nnls

    roofline = Runtime.of(spec, hardware)
    rows = []
    for group in groups:
        cost = group_cost(spec, group)
        rows.append([cost.prefill.passes, roofline._roofline(cost.prefill)])
        rows[-1] += [cost.decode.passes, roofline._roofline(cost.decode)]
    times = np.array(seconds)
    coefficients, _ = nnls(np.array(rows) / times[:, None], np.ones_like(times))
    prefill_overhead, prefill_slowdown, decode_overhead, decode_slowdown = map(float, coefficients)
    lines = Line(prefill_overhead, prefill_slowdown), Line(decode_overhead, decode_slowdown)
    return replace(roofline, prefill=lines[0], decode=lines[1])
