"""The tokens, passes and costs of a search."""

import functools
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Annotated, Any

from pydantic import Field

Count = Annotated[int, Field(ge=0, le=2**53)]
"""A number of tokens or the like; every reader of JSON keeps it exactly."""
Cost = Annotated[int, Field(ge=0, le=10**36)]
"""FLOPs, bytes or picoseconds: more than 64 bits hold, less than a float does."""
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, passes and cost of one search, all branches included. Added with `+`.

    Prompt tokens stand apart by what they cost: `prefill` ones were computed, `cached` ones read from a prefix cache.
    Costs are those of the cost model (`infer.cost`), None where a model's sizes are not known. They are whole numbers,
    so that their sum does not depend on the order in which calls return. eFLOPs, device time and dollars are both
    models', on the hardware that the run names.
    """

    generated: Count = 0
    """Tokens the generator sampled."""
    discarded: Count = 0
    """Of those, tokens that are not on the chosen trajectory."""
    prefill: Count = 0
    cached: Count = 0
    passes: Count = 0
    """Step scores the verifier gave."""
    verifier_generated: Count = 0
    """Tokens a verifier sampled (judges)."""
    verifier_prefill: Count = 0
    verifier_cached: Count = 0
    executions: Count = 0
    """Programs run by a verifier."""
    prefill_flops: Cost | None = 0
    prefill_bytes: Cost | None = 0
    decode_flops: Cost | None = 0
    decode_bytes: Cost | None = 0
    verifier_prefill_flops: Cost | None = 0
    verifier_prefill_bytes: Cost | None = 0
    verifier_decode_flops: Cost | None = 0
    verifier_decode_bytes: Cost | None = 0
    eflops: Cost | None = 0
    """FLOPs + intensity x bytes (Kinetics, 2506.05333)."""
    device_picoseconds: Cost | None = 0
    """Share of the device's time, on its roofline."""
    dollars: Dollars | None = 0.0
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
