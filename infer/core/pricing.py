"""Requests priced: what each one did, in FLOPs, bytes, eFLOPs, device time and dollars."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from infer.core.usage import Priced, Usage
from infer.cost.formulas import ALONE, RequestCost, Serving, affordable_tokens, request_cost
from infer.cost.hardware import Hardware
from infer.cost.model import ModelSpec
from infer.cost.runtime import Runtime
from infer.errors import UserError

PICOSECONDS = 1e12
"""In a second."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model: prompt tokens computed and read from the cache, tokens sampled."""

    spec: ModelSpec | None
    """None: the model's sizes are not known, and neither is what it costs."""
    prefill: int
    cached: int
    generated: int


@dataclass(frozen=True, slots=True)
class Pricing:
    """On which device requests run, and how they are served."""

    hardware: Hardware
    serving: Serving = ALONE

    def usage(self, call: Call, role: Literal["", "verifier_"] = "") -> Usage:
        """What a request of the generator, or of the verifier, is charged: its tokens and its cost."""
        counts: dict[str, Any] = {
            f"{role}generated": call.generated,
            f"{role}prefill": call.prefill,
            f"{role}cached": call.cached,
        }
        costs = [f"{role}{phase}_{amount}" for phase in ("prefill", "decode") for amount in ("flops", "bytes")]
        if call.spec is None:
            return Usage(**counts | dict.fromkeys([*costs, "eflops", "device_picoseconds"]))
        cost = request_cost(call.spec, call.prefill, call.cached, call.generated, serving=self.serving)
        runtime = Runtime(self.hardware, call.spec.dtype)
        # rounded down: what is charged is never more than what was set aside
        amounts = cost.prefill.flops, cost.prefill.bytes, cost.decode.flops, cost.decode.bytes
        counts |= zip(costs, map(int, amounts), strict=True)
        return Usage(
            **counts, eflops=int(runtime.eflops(cost)), device_picoseconds=int(runtime.seconds(cost) * PICOSECONDS)
        )

    def judging(self, calls: Iterable[Call], passes: int = 0) -> Usage:
        """What a verifier is charged for so many scores and the requests that they took."""
        return sum((self.usage(call, "verifier_") for call in calls), Usage(passes=passes))

    def dollars(self, usage: Usage) -> float | None:
        """The price of the usage's device time."""
        price, time = self.hardware.price, usage.device_picoseconds
        return price * time / PICOSECONDS / 3600 if price is not None and time is not None else None

    def price(self, unit: Priced, call: Call) -> float:
        """The request in one unit. Raises UserError where that is not known."""
        spec = _known(call.spec, unit)
        cost = request_cost(spec, call.prefill, call.cached, call.generated, serving=self.serving)
        return self._measure(unit, spec)(cost)

    def affordable(self, unit: Priced, amount: float, call: Call) -> int:
        """How many tokens, `call.generated` at most, the request may sample for this amount."""
        spec = _known(call.spec, unit)
        return affordable_tokens(
            spec,
            amount,
            self._measure(unit, spec),
            prefill=call.prefill,
            cached=call.cached,
            most=call.generated,
            serving=self.serving,
        )

    def _measure(self, unit: Priced, spec: ModelSpec) -> Callable[[RequestCost], float]:
        runtime = Runtime(self.hardware, spec.dtype)
        match unit:
            case "flops":
                return attrgetter("flops")
            case "eflops":
                return runtime.eflops
            case "dollars":
                return runtime.dollars


def _known(spec: ModelSpec | None, unit: Priced) -> ModelSpec:
    if spec is None:
        raise UserError(f"a budget of {unit} needs models whose sizes are known: give it in tokens")
    return spec
