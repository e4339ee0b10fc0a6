"""What was spent and what may be: `Usage` counts tokens and passes, `Budget` bounds them."""

import functools
import re
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Literal

from infer.errors import UserError

Priced = Literal["flops", "eflops", "dollars"]
"""Units that the cost model counts in."""
Unit = Literal["tokens", "prm", "seconds", Priced]


class BudgetSpent(Exception):
    """Nothing more is affordable. The runner catches it and returns the best solution so far."""


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


_UNITS: dict[str, Unit] = {
    "tok": "tokens",
    "prm": "prm",
    "s": "seconds",
    "flops": "flops",
    "eflops": "eflops",
    "usd": "dollars",
}
_SCALE = {"": 1.0, "k": 1e3, "m": 1e6}


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one problem may use: an amount of one unit.

    `tokens` are generated tokens, `prm` verifier passes (one for each step scored), `seconds` time since the search of
    the problem began; `flops`, `eflops` and `dollars` are generator and verifier together, by the cost model.
    """

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """`4k`, `4096tok`, `64prm`, `30s`, `2e12flops`, `5e15eflops`, `0.002usd`. Raises UserError.

        >>> Budget.parse("4k")
        Budget(amount=4000.0, unit='tokens')
        """
        pattern = r"(\d+(?:\.\d*)?|\.\d+)(?:(k|m|)(tok|prm|)|(s)|(e[+-]?\d+)?(flops|eflops|usd))"
        found = re.fullmatch(pattern, text.strip().lower())
        if found is None:
            raise UserError(
                f"budget {text!r} is not a number with a unit: write 4k or 4096tok, 64prm, 30s, 2e12flops, 5e15eflops, "
                "or 0.002usd"
            )
        number, scale, counted, seconds, exponent, cost = found.groups()
        unit = _UNITS[counted or seconds or cost or "tok"]
        amount = float(number + (exponent or "")) * _SCALE[scale or ""]
        if amount <= 0:
            raise UserError(f"budget {text!r} buys nothing: it must be above zero")
        if unit in ("tokens", "prm") and amount != int(amount):
            raise UserError(f"budget {text!r} is not a whole number of {unit}")
        return cls(amount, unit)

    def __str__(self) -> str:
        suffix = next(suffix for suffix, unit in _UNITS.items() if unit == self.unit)
        return f"{int(self.amount)}{suffix}" if self.unit in ("tokens", "prm") else f"{self.amount:.12g}{suffix}"
