"""Simulations in flight side by side, their results taken in the order of their launch.

A tree search that backs up whichever simulation returns first grows another tree each time it is run. Taken in order,
the results lead to the same tree, while the models work on all that is in flight.
"""

import asyncio
import math
from collections import deque
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from infer.core.search import Search
from infer.core.tree import Node
from infer.core.usage import BudgetSpent

T = TypeVar("T")


class InOrder(Generic[T]):
    """At most `width` coroutines of one search in flight. Leaving it cancels what is left.

    `tokens` and `passes` bound what a simulation can spend; `charge` says what those that were taken have spent. Once
    one of them met the end of the budget no more are launched, but those in flight are paid for: they are still taken.
    """

    def __init__(self, search: Search, width: int, *, tokens: int, passes: float = math.inf) -> None:
        self._width = width
        self._tasks: deque[asyncio.Task[T]] = deque()
        self._spent = False
        budget = search.setting.budget
        self._left, self._each = math.inf, 0.0
        if budget is not None and budget.unit in ("tokens", "prm"):
            self._left, self._each = budget.amount, tokens if budget.unit == "tokens" else passes
        elif budget is not None and budget.unit != "seconds":
            self._left, self._each = 0.0, 1.0  # what one can cost depends on its place in the tree: one at a time
        self._counts_tokens = budget is not None and budget.unit == "tokens"

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def has_room(self) -> bool:
        """Whether one more may be launched: never more than the budget covers should each run to its limit.

        The only one may always try. What is left is what those already taken have left, not `search.left`: that changes
        while those in flight come to their ends, in any order.
        """
        if self._spent:
            return False
        return not self._tasks or (len(self) < self._width and self._left >= (len(self) + 1) * self._each)

    def launch(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._tasks.append(asyncio.create_task(coroutine))

    async def oldest(self) -> T | None:
        """The result of what was launched first, None where the budget did not cover it; its error, if it has one."""
        result = None
        try:
            result = await self._tasks[0]
        except BudgetSpent:
            self._spent = True
        self._tasks.popleft()
        return result

    def charge(self, node: Node) -> None:
        """A node that a simulation sampled, and scored if it has scores."""
        self._left -= node.num_tokens if self._counts_tokens else len(node.scores or ())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
