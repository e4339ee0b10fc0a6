"""Requests priced: what each one did, in FLOPs, bytes, eFLOPs, device time and dollars."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from infer.core.usage import Usage
from infer.cost.formulas import ALONE, RequestCost, Serving, affordable_tokens, request_cost
from infer.cost.hardware import Hardware
from infer.cost.model import ModelSpec
from infer.cost.runtime import Runtime

PICOSECONDS = 1e12
"""In a second."""

Measure = Callable[[Runtime, RequestCost], float]
"""One number from the cost of a request on a device: its FLOPs, eFLOPs or price."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request: prompt tokens computed and read from the cache, tokens sampled, programs executed."""

    spec: ModelSpec | None
    """None: the model's sizes are not known, so neither is the cost of its tokens."""
    prefill: int
    cached: int
    generated: int
    executions: int = 0


@dataclass(frozen=True, slots=True)
class Pricing:
    """On which device requests run, and how they are served."""

    hardware: Hardware
    serving: Serving = ALONE

    def usage(self, call: Call, role: Literal["", "verifier_"] = "") -> Usage:
        """The usage that a request of the generator, or of the verifier, adds: its tokens and its cost."""
        counts: dict[str, Any] = {
            f"{role}generated": call.generated,
            f"{role}prefill": call.prefill,
            f"{role}cached": call.cached,
            "executions": call.executions,
        }
        if call.executions and not any((call.prefill, call.cached, call.generated)):
            return Usage(**counts)  # a sandbox, not a model
        costs = [f"{role}{phase}_{amount}" for phase in ("prefill", "decode") for amount in ("flops", "bytes")]
        if call.spec is None:
            return Usage(**counts | dict.fromkeys([*costs, "eflops", "device_picoseconds"]))
        cost = request_cost(call.spec, call.prefill, call.cached, call.generated, serving=self.serving)
        runtime = Runtime.of(call.spec, self.hardware)
        # rounded down: what is charged is never more than what was set aside
        amounts = cost.prefill.flops, cost.prefill.bytes, cost.decode.flops, cost.decode.bytes
        counts |= zip(costs, map(int, amounts), strict=True)
        return Usage(
            **counts, eflops=int(runtime.eflops(cost)), device_picoseconds=int(runtime.seconds(cost) * PICOSECONDS)
        )

    def judging(self, calls: Iterable[Call], passes: int = 0) -> Usage:
        """The usage that so many scores of a verifier add, with the requests that they took."""
        return sum((self.usage(call, "verifier_") for call in calls), Usage(passes=passes))

    def dollars(self, usage: Usage) -> float | None:
        """The price of the usage's device time."""
        price, time = self.hardware.price, usage.device_picoseconds
        return price * time / PICOSECONDS / 3600 if price is not None and time is not None else None

    def price(self, measure: Measure, call: Call) -> float:
        """The cost of a request to a model of known sizes, as one number."""
        assert call.spec is not None
        cost = request_cost(call.spec, call.prefill, call.cached, call.generated, serving=self.serving)
        return measure(Runtime.of(call.spec, self.hardware), cost)

    def affordable(self, measure: Measure, amount: float, call: Call) -> int:
        """How many tokens, `call.generated` at most, the request may sample for this amount."""
        assert call.spec is not None
        return affordable_tokens(
            call.spec,
            amount,
            partial(measure, Runtime.of(call.spec, self.hardware)),
            prefill=call.prefill,
            cached=call.cached,
            most=call.generated,
            serving=self.serving,
        )
