"""The four phases of a tree search: select, expand, evaluate, back up.

A tree search that backs up whichever simulation returns first grows another tree each time it is run. Here simulations
run side by side and are backed up in the order of their launch: the tree is always the same, while the models work on
all that is in flight.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from infer.core.search import Search
from infer.core.tree import Node
from infer.errors import BudgetSpent

State = TypeVar("State")


async def simulate(
    search: Search,
    select: Callable[[bool], Awaitable[State | None]],
    expand: Callable[[State], Coroutine[Any, Any, list[Node]]],
    back_up: Callable[[State, list[Node]], Awaitable[None]],
    *,
    width: int,
    limit: float,
    tokens: float,
    passes: float = math.inf,
) -> None:
    """Runs simulations until `limit` were launched, nothing is left to select, or the budget is spent.

    `select` gives the state to expand, or None where there is none now; it gets whether nothing is in flight, so that
    waiting is no use. `expand` samples from the state and evaluates: it returns the nodes that it sampled. `back_up`
    enters these into the tree. At most `width` simulations are in flight, and of several only as many as the budget
    covers if each takes `tokens` and `passes`. One that meets the end of the budget is dropped, and no more are
    launched; those in flight are still backed up.
    """
    # the rest after the simulations that were backed up: `search.left` changes in any order while others are in flight
    left, each = search.left, search.ledger.price_of_work(tokens, passes)
    flying: deque[tuple[State, asyncio.Task[list[Node]]]] = deque()
    try:
        while True:
            while limit > 0 and (not flying or (len(flying) < width and left >= (len(flying) + 1) * each)):
                state = await select(not flying)
                if state is None:
                    break
                limit -= 1
                flying.append((state, asyncio.create_task(expand(state))))
            if not flying:
                return
            state, task = flying[0]
            try:
                nodes = await task
            except BudgetSpent:
                limit = 0
            else:
                left -= sum(search.ledger.price_of_work(node.num_tokens, len(node.scores or ())) for node in nodes)
                await back_up(state, nodes)
            flying.popleft()
    finally:
        for _, task in flying:
            task.cancel()
        await asyncio.gather(*(task for _, task in flying), return_exceptions=True)
