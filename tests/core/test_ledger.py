"""The ledger: units are rows of one table, budgets are read and written, and reservations never overdraw."""

import asyncio
import math
import random
import re
from contextlib import suppress
from typing import Any

import pytest

from infer.core import ledger as module
from infer.core.ledger import UNITS, Budget, Ledger, Unit
from infer.core.pricing import Call, Pricing
from infer.core.problem import Problem
from infer.core.usage import Usage
from infer.core.verifier import Scores
from infer.cost.hardware import HARDWARE
from infer.errors import BudgetSpent, UserError
from infer.testing import toy
from tests.strategies.test_laws import VARIANTS, run

PRICING = Pricing(HARDWARE["h100"])
WATTS = 700.0


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("4k", 4000, "tokens"),
        ("4096tok", 4096, "tokens"),
        ("1.5K", 1500, "tokens"),
        ("64prm", 64, "prm"),
        ("2kprm", 2000, "prm"),
        ("100runs", 100, "runs"),
        ("30s", 30, "seconds"),
        (".5s", 0.5, "seconds"),
        ("2e12flops", 2e12, "flops"),
        ("5E15eflops", 5e15, "eflops"),
        ("0.002usd", 0.002, "dollars"),
    ],
)
def test_budgets_are_read_and_written(text: str, amount: float, unit: str) -> None:
    budget = Budget.parse(text)
    assert budget == Budget(amount, unit)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k",
        "4 k",
        "4x",
        "4kk",
        "4ks",
        "4kflops",
        "-4",
        "0",
        "0s",
        "1.5tok",
        ".5prm",
        "nan",
        "inf",
        "infs",
        "1e-400s",
        "9" * 400,
        "9" * 400 + "s",
        "1e309flops",
        "9" * 5000 + "m",
        "1e999999999999usd",
        "٤k",
        "4\nk",
    ],
)
def test_malformed_budgets_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="budget"):
        Budget.parse(text)


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_the_largest_budget_is_finite_and_one_beyond_is_refused(unit: Unit) -> None:
    text = str(Budget(unit.most, unit.name))
    largest = Budget.parse(text)
    assert largest == Budget(unit.most, unit.name)
    assert math.isfinite(largest.amount)
    assert str(largest) == text
    with pytest.raises(UserError, match=f"too large: at most {re.escape(text)}"):
        Budget.parse(f"{unit.most * 2:.0f}{unit.suffix}")


def test_every_unit_reads_its_own_suffix() -> None:
    for unit in UNITS.values():
        assert Budget.parse(f"7{unit.suffix}").unit == unit.name


@pytest.mark.parametrize(("name", "options"), VARIANTS)
async def test_a_new_unit_is_one_row(name: str, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit of joules, device time at 700 watts, is one row. Every strategy then keeps a budget of joules."""
    joules = Unit(
        "joules",
        "j",
        lambda ledger: (ledger.usage.device_picoseconds or 0) / 1e12 * WATTS,
        measure=lambda runtime, cost: runtime.seconds(cost) * WATTS,
    )
    monkeypatch.setitem(module.UNITS, "joules", joules)
    for amount in ("1e-7j", "1e-6j", "1e-5j"):
        solution = await run(toy.setting(amount), name, options)
        assert solution.usage.device_picoseconds is not None
        assert solution.usage.device_picoseconds / 1e12 * WATTS <= Budget.parse(amount).amount


class Sandbox(toy.ToyVerifier):
    """Runs two programs for each score, or one for a short step. The number is known only afterwards."""

    executions = 0

    async def most(self, problem: Problem, steps: Any, known: int, finished: bool) -> list[Call]:
        return [Call(None, 0, 0, 0, executions=2) for _ in steps[known:]]

    async def score(self, problem: Problem, steps: Any, known: int, finished: bool) -> Scores:
        await asyncio.sleep(0)
        values = [toy.reward("".join(steps[: i + 1])) for i in range(known, len(steps))]
        calls = [Call(None, 0, 0, 0, executions=1 + (len(step) > 3)) for step in steps[known:]]
        self.executions += sum(call.executions for call in calls)
        return Scores(values, calls)


@pytest.mark.parametrize("budget", ["1runs", "7runs", "40runs"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("best-of-n", []),
        ("beam", ["n=4", "width=2"]),
        ("astar", []),
        ("mcts", ["simulations=30"]),
        ("particle-filter", ["n=4"]),
        ("ab-mcts", ["n=9"]),
        ("self-consistency", ["weights=prm", "n=9"]),
    ],
)
async def test_a_budget_of_program_executions_holds(name: str, options: list[str], budget: str) -> None:
    for digits in ("1", "22", "345"):
        verifier = Sandbox()
        solution = await run(toy.setting(budget, verifier=verifier), name, options, digits)
        assert solution.usage.executions == verifier.executions <= Budget.parse(budget).amount
        assert solution.usage.flops is not None, "a sandbox costs no FLOPs"


@pytest.mark.parametrize("unit", ["tokens", "flops"])
async def test_concurrent_reservations_never_overdraw(unit: str) -> None:
    """Random calls take less than they reserved, and one worker is cancelled. The budget is never overdrawn."""
    whole = Call(toy.SPEC, 5, 0, 12)
    for seed in range(20):
        choose = random.Random(seed)
        each = 12.0 if unit == "tokens" else Ledger(Budget(1, "flops"), PRICING).price(whole)
        ledger = Ledger(Budget(each * 6, unit), PRICING)

        async def work(ledger: Ledger = ledger, choose: random.Random = choose) -> None:
            with suppress(BudgetSpent):
                while True:
                    async with ledger.reserve([whole] * choose.randrange(1, 3), n=choose.randrange(1, 3)) as limits:
                        assert ledger.left >= 0
                        await asyncio.sleep(0)
                        took = choose.randrange(1, min(limits) + 1)
                        ledger.usage += PRICING.usage(Call(toy.SPEC, 5, 0, took))

        tasks = [asyncio.create_task(work()) for _ in range(5)]
        for _ in range(choose.randrange(8)):
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        spent = ledger.usage.generated if unit == "tokens" else ledger.usage.flops
        assert spent is not None
        assert spent <= each * 6
        assert ledger.left == pytest.approx(each * 6 - spent)
        assert not ledger.waiting


async def test_a_reservation_returns_its_amount_once() -> None:
    ledger = Ledger(Budget(10, "tokens"), PRICING)
    first, second = ledger.take(4), ledger.take(3)
    assert ledger.left == 3
    first.release()
    first.release()
    assert ledger.left == 7
    with second:
        pass
    assert ledger.left == 10
    assert Ledger(None, PRICING).left == float("inf")
    assert ledger.usage == Usage()
