"""Independent samples in waves: as many at once as the budget is sure to cover."""

import math
from operator import attrgetter

from infer.core.options import MOST
from infer.core.search import Search
from infer.core.tasks import all_affordable
from infer.core.tree import Node

WITHOUT_BUDGET = 16
"""Samples at once where neither an option nor the budget says how many."""


async def sample_wave(search: Search, size: int, samples: list[Node], *, scored: bool) -> None:
    """Adds `size` samples of the prompt. Raises BudgetSpent, with those that there are added.

    Scored samples are scored as soon as each has ended. A budget that scoring takes from goes to the samples in their
    order, so there all are sampled before the first is scored.
    """
    unit = search.ledger.unit
    if not scored or (unit is not None and unit.scores_cost):
        new = await search.sample(search.root, size, until="end")
        samples += new
        if scored:
            await search.score(new)
        return
    new = []

    async def one() -> None:
        sample = await search.sample(search.root, until="end")
        new.extend(sample)
        await search.score(sample)

    try:
        await all_affordable(one() for _ in range(size))
    finally:
        samples += sorted(new, key=attrgetter("index"))


def affordable_wave(search: Search, n: int | None, taken: int) -> int:
    """How many samples to take at once: all that the budget covers at full length; the next wave gets the rest.

    Of `n` samples, of which so many are taken; None: as many as the budget allows, `MOST` at most. Where sampling
    itself is free (a budget of passes), the price of a sample is known only once it is scored: waves stay small there.
    """
    wanted = (n or MOST) - taken
    affordable = search.affordable(search.root)
    if affordable is None:
        return min(wanted, WITHOUT_BUDGET) if n is None else wanted
    if not search.price(search.root, search.room(search.root)):
        affordable = min(affordable, WITHOUT_BUDGET)
    return max(1, min(wanted, affordable))


def samples_to_come(search: Search, wanted: float, *, scored: bool) -> float:
    """How many more samples there can be: each takes at least one token, and one pass where it is scored."""
    least = search.ledger.price_of_work(1, 1 if scored else 0)
    return min(wanted, search.left / least) if 0 < least < math.inf else wanted
