"""One problem's account: the amounts that its search has spent, that calls in flight have reserved, and that are left.

    ledger = Ledger(Budget.parse("4k"), pricing)
    async with ledger.reserve([call], n=8) as (limit,):      # raises BudgetSpent where nothing is left
        ...                                                  # send the request, add to `ledger.usage` what it took

`UNITS` is the one place that knows what a budget may be counted in. A new unit is one more row.
"""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from infer.core.pricing import Call, Measure, Pricing
from infer.core.usage import Usage
from infer.cost.runtime import Runtime
from infer.errors import BudgetSpent, UserError


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit that a budget may be counted in, with the price of each piece of work."""

    name: str
    suffix: str
    spent: Callable[["Ledger"], float | None]
    """How much of it a ledger has spent; None where the cost model lacks a figure."""
    per_token: float = 0.0
    """Taken by each token that the generator samples."""
    per_score: float = 0.0
    """Taken by each step score."""
    per_execution: float = 0.0
    """Taken by each program that the verifier runs."""
    measure: Measure | None = None
    """Taken by each request of either model, by the cost model."""
    timed: bool = False
    """It runs out by itself: nothing is reserved, requests get a deadline."""

    @property
    def counted(self) -> bool:
        """Whether amounts are whole numbers."""
        return bool(self.per_token or self.per_score or self.per_execution)

    @property
    def most(self) -> float:
        """The largest budget: whole numbers are exact up to here, and sums of the others stay finite."""
        return 2.0**53 if self.counted else 1e30

    @property
    def scores_cost(self) -> bool:
        """Whether scoring takes from a budget in this unit."""
        return bool(self.per_score or self.counts_requests)

    @property
    def counts_requests(self) -> bool:
        """Whether the price of scoring depends on the requests to the verifier, not on the number of scores alone."""
        return bool(self.per_execution or self.measure)


UNITS = {
    unit.name: unit
    for unit in (
        Unit("tokens", "tok", lambda ledger: ledger.usage.generated, per_token=1),
        Unit("prm", "prm", lambda ledger: ledger.usage.passes, per_score=1),
        Unit("runs", "runs", lambda ledger: ledger.usage.executions, per_execution=1),
        Unit("seconds", "s", lambda ledger: ledger.seconds, timed=True),
        Unit("flops", "flops", lambda ledger: ledger.usage.flops, measure=lambda runtime, cost: cost.flops),
        Unit("eflops", "eflops", lambda ledger: ledger.usage.eflops, measure=Runtime.eflops),
        Unit("dollars", "usd", lambda ledger: ledger.pricing.dollars(ledger.usage), measure=Runtime.dollars),
    )
}

_SCALE = {"": 1.0, "k": 1e3, "m": 1e6}


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one problem may use: an amount of one unit.

    `tokens` are generated tokens, `prm` verifier passes (one for each step scored), `runs` programs executed by a
    verifier, `seconds` time since the search of the problem began; `flops`, `eflops` and `dollars` are generator and
    verifier together, by the cost model.
    """

    amount: float
    unit: str
    """A name in `UNITS`."""

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """`4k`, `4096tok`, `64prm`, `100runs`, `30s`, `2e12flops`, `5e15eflops`, `0.002usd`. Raises UserError.

        The amount is above zero and at most the unit's `most`: nothing overflows later.

        >>> Budget.parse("4k")
        Budget(amount=4000.0, unit='tokens')
        """
        named = {unit.suffix: unit for unit in UNITS.values()}
        counted = "|".join(suffix for suffix, unit in named.items() if unit.counted)
        others = "|".join(suffix for suffix, unit in named.items() if not unit.counted)
        pattern = rf"(\d+(?:\.\d*)?|\.\d+)(?:(k|m|)({counted}|)|(e[+-]?\d+)?({others}))"
        found = re.fullmatch(pattern, text.strip().lower(), re.ASCII)
        if found is None:
            raise UserError(
                f"budget {text!r} is not a number with a unit: write 4k or 4096tok, 64prm, 100runs, 30s, 2e12flops, "
                "5e15eflops, or 0.002usd"
            )
        number, scale, count, exponent, other = found.groups()
        unit = named[count or other or "tok"]
        amount = float(number + (exponent or "")) * _SCALE[scale or ""]
        if amount <= 0:
            raise UserError(f"budget {text!r} buys nothing: it must be above zero")
        if amount > unit.most:
            raise UserError(f"budget {text!r} is too large: at most {cls(unit.most, unit.name)}")
        if unit.counted and amount != int(amount):
            raise UserError(f"budget {text!r} is not a whole number of {unit.name}")
        return cls(amount, unit.name)

    def __str__(self) -> str:
        unit = UNITS[self.unit]
        return f"{int(self.amount)}{unit.suffix}" if unit.counted else f"{self.amount:.12g}{unit.suffix}"


class Reservation:
    """An amount that a call in flight has taken off a ledger; a context manager. Releasing it again does nothing."""

    def __init__(self, ledger: "Ledger", amount: float) -> None:
        self._ledger = ledger
        self._amount = amount

    def release(self) -> None:
        """Returns the amount to the ledger. Charge first what the call took."""
        amount, self._amount = self._amount, 0.0
        if amount:
            self._ledger._settle(amount)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        self.release()


class Ledger:
    """One problem's account. Concurrent calls never overdraw it."""

    usage: Usage
    """Charged so far."""
    pricing: Pricing

    def __init__(self, budget: Budget | None, pricing: Pricing) -> None:
        self.unit = UNITS[budget.unit] if budget is not None else None
        self.pricing = pricing
        self.usage = Usage()
        self._amount = budget.amount if budget is not None else math.inf
        self._start = time.monotonic()
        self._reserved = 0.0
        self._in_flight = 0
        self._settled = asyncio.Event()

    @property
    def seconds(self) -> float:
        """Since the search began."""
        return time.monotonic() - self._start

    @property
    def deadline(self) -> float | None:
        """When the budget runs out by itself, on the clock of `time.monotonic`."""
        return self._start + self._amount if self.unit is not None and self.unit.timed else None

    @property
    def remaining(self) -> float | None:
        """Seconds until the budget runs out by itself; None where it does not."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @property
    def left(self) -> float:
        """The rest of the budget, in its own unit, less all reservations; infinite without a budget."""
        if self.unit is None:
            return math.inf
        spent = self.unit.spent(self)
        assert spent is not None, "a request without a price is refused before it is sent"
        return self._amount - spent - self._reserved

    @property
    def waiting(self) -> bool:
        """Whether calls in flight may still return a part of what they reserved."""
        return self._in_flight > 0

    def price(self, call: Call) -> float:
        """The price of a request to the generator, in the budget's unit."""
        unit = self.unit
        if unit is None:
            return 0.0
        return unit.per_token * call.generated + (self._measured(call) if unit.measure else 0.0)

    def price_of_scores(self, calls: Sequence[Call], passes: int) -> float:
        """The price of so many step scores and of the requests to the verifier that they need."""
        unit = self.unit
        if unit is None:
            return 0.0
        price = unit.per_score * passes + unit.per_execution * sum(call.executions for call in calls)
        return price + (sum(map(self._measured, calls)) if unit.measure else 0.0)

    def price_of_work(self, tokens: float, passes: float) -> float:
        """The price of so many sampled tokens and step scores, whatever the requests; infinite where these matter."""
        unit = self.unit
        if unit is None or unit.timed:
            return 0.0
        if unit.measure or unit.per_execution:
            return math.inf
        return (unit.per_token and unit.per_token * tokens) + (unit.per_score and unit.per_score * passes)

    def covers(self, amount: float) -> bool:
        """Whether so much is left; of a unit that runs out by itself, whether anything is."""
        left = self.left
        return left >= amount and (self.unit is None or not self.unit.timed or left > 0)

    def take(self, amount: float) -> Reservation:
        """Reserves an amount that is covered, until the reservation is released."""
        if amount:
            self._reserved += amount
            self._in_flight += 1
        return Reservation(self, amount)

    def take_executions(self, executions: int) -> Reservation:
        """Reserves so many executions of programs. Raises BudgetSpent where the budget does not cover them."""
        price = self.unit.per_execution * executions if self.unit is not None else 0.0
        if not self.covers(price):
            raise BudgetSpent
        return self.take(price)

    @asynccontextmanager
    async def reserve(self, calls: Sequence[Call], n: int = 1) -> AsyncIterator[list[int]]:
        """Reserves `n` times each request before it is sent; gives the token limits that the budget covers.

        Where the budget falls short while other calls are in flight, this waits for what they return, so that
        concurrent calls are cut no shorter than successive ones. The rest is then shared equally: limits may be
        below `call.generated`. Raises BudgetSpent where not even one token each is left.
        """

        def price() -> float:
            return n * sum(map(self.price, calls))

        wanted = price()
        while self.left < wanted and self.waiting:
            await self.settlement()
        if (left := self.left) < wanted:
            share = left / (n * len(calls))
            calls = [replace(call, generated=self._tokens_for(share, call)) for call in calls]
            wanted = price()
        limits = [call.generated for call in calls]
        if min(limits) < 1 or left <= 0:
            raise BudgetSpent
        with self.take(wanted):
            yield limits

    async def settlement(self) -> None:
        """Waits until a call in flight has returned its reservation."""
        self._settled.clear()
        await self._settled.wait()

    def _tokens_for(self, amount: float, call: Call) -> int:
        """How many tokens, `call.generated` at most, a request may sample for this much of the budget."""
        unit = self.unit
        assert unit is not None
        if unit.measure:
            return self.pricing.affordable(unit.measure, amount, self._known(call))
        return min(call.generated, int(amount / unit.per_token)) if unit.per_token else call.generated

    def _measured(self, call: Call) -> float:
        assert self.unit is not None
        assert self.unit.measure is not None
        return self.pricing.price(self.unit.measure, self._known(call))

    def _known(self, call: Call) -> Call:
        if call.spec is None:
            assert self.unit is not None
            raise UserError(f"a budget of {self.unit.name} needs models whose sizes are known: give it in tokens")
        return call

    def _settle(self, amount: float) -> None:
        self._in_flight -= 1
        self._reserved = self._reserved - amount if self._in_flight else 0.0  # no rest of rounding
        self._settled.set()
