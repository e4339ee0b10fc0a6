"""The tokens, passes and costs of a search."""

import functools
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, passes and cost of one search, all branches included. Added with `+`.

    Prompt tokens stand apart by what they cost: `prefill` ones were computed, `cached` ones read from a prefix cache.
    Costs are those of the cost model (`infer.cost`), None where a model's sizes are not known. They are whole numbers,
    so that their sum does not depend on the order in which calls return. eFLOPs, device time and dollars are both
    models', on the hardware that the run names.
    """

    generated: int = 0
    """Tokens the generator sampled."""
    discarded: int = 0
    """Of those, tokens that are not on the chosen trajectory."""
    prefill: int = 0
    cached: int = 0
    passes: int = 0
    """Step scores the verifier gave."""
    verifier_generated: int = 0
    """Tokens a verifier sampled (judges)."""
    verifier_prefill: int = 0
    verifier_cached: int = 0
    executions: int = 0
    """Programs run by a verifier."""
    prefill_flops: int | None = 0
    prefill_bytes: int | None = 0
    decode_flops: int | None = 0
    decode_bytes: int | None = 0
    verifier_prefill_flops: int | None = 0
    verifier_prefill_bytes: int | None = 0
    verifier_decode_flops: int | None = 0
    verifier_decode_bytes: int | None = 0
    eflops: int | None = 0
    """FLOPs + intensity x bytes (Kinetics, 2506.05333)."""
    device_picoseconds: int | None = 0
    """Share of the device's time, on its roofline."""
    dollars: float | None = 0.0
    """That time at the hardware's price; None also where it has none. Known when the search is over."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*map(_plus, _amounts(self), _amounts(other)))

    @property
    def flops(self) -> int | None:
        """Of both models, prefill and decode."""
        return _total(self.prefill_flops, self.decode_flops, self.verifier_prefill_flops, self.verifier_decode_flops)

    @property
    def bytes(self) -> int | None:
        """Moved between memory and chip, likewise."""
        return _total(self.prefill_bytes, self.decode_bytes, self.verifier_prefill_bytes, self.verifier_decode_bytes)


_amounts = attrgetter(*(f.name for f in fields(Usage)))


def _plus(one: Any, other: Any) -> Any:
    return None if one is None or other is None else one + other


def _total(*parts: int | None) -> int | None:
    return functools.reduce(_plus, parts)
