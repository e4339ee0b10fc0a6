"""The cost of keeping a budget: the share of a solve's time that its checks take, for each unit.

    python benchmarks/budget.py
    python benchmarks/budget.py --strategy beam --limit 256 --repeats 5

Solves nano problems with the packaged models. A check is all the work of a search to know how much budget is left and
how much a call may take: prices, reservations and their remainders. Its share is of the wall time, in which model and
checks take turns. It includes the clock around each check.
"""

import argparse
import asyncio
import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from infer.core.ledger import Ledger
from infer.core.search import Search
from infer.runs.job import Job, Machine, Plan, open_models

BUDGETS = ["2e9flops", "2e11eflops", "2e-6usd", "640tok", "40prm"]
CHECKS = ("price", "price_of_scores", "most", "took", "covers", "take", "_tokens_for", "_settle")


class Clock:
    """Seconds and calls of the outermost checks."""

    def __init__(self) -> None:
        self.seconds, self.calls, self._depth = 0.0, 0, 0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def begin() -> float:
            self._depth += 1
            return time.perf_counter()

        def end(start: float) -> None:
            self._depth -= 1
            if not self._depth:
                self.seconds += time.perf_counter() - start
                self.calls += 1

        @functools.wraps(call)
        def timed(*given: Any, **named: Any) -> Any:
            start = begin()
            try:
                return call(*given, **named)
            finally:
                end(start)

        return timed


async def measure(args: argparse.Namespace, clock: Clock) -> list[dict[str, Any]]:
    plans = {budget: Plan(Job(strategy=args.strategy, budget=budget, on="nano")) for budget in BUDGETS}
    results = []
    async with open_models(plans[BUDGETS[0]], Machine(), with_verifier=True) as loaded:
        for budget, plan in plans.items():
            shares, calls, seconds = [], 0, []
            for _ in range(args.repeats):
                clock.seconds = clock.calls = 0
                start = time.perf_counter()
                await plan.session(loaded).solve(plan.problems(args.limit), lambda outcome: None)
                seconds.append(time.perf_counter() - start)
                shares.append(clock.seconds / seconds[-1])
                calls = clock.calls
            median = statistics.median(shares)
            print(
                f"{budget:<12} {statistics.median(seconds):6.2f} s   {calls:>8,} checks   {median:.2%} of the time "
                f"({min(shares):.2%} to {max(shares):.2%})",
                flush=True,
            )
            results.append({"budget": budget, "checks": calls, "share": median, "range": [min(shares), max(shares)]})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", default="astar")
    parser.add_argument("--limit", type=int, default=128, help="problems")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    clock = Clock()
    for kind, name in [(Search, "affordable"), *((Ledger, name) for name in CHECKS)]:
        setattr(kind, name, clock.around(getattr(kind, name)))
    left: Any = vars(Ledger)["left"]
    setattr(Ledger, "left", property(clock.around(left.fget)))  # noqa: B010  (mypy refuses an assignment)
    print(json.dumps(vars(args) | {"results": asyncio.run(measure(args, clock))}))


if __name__ == "__main__":
    main()
