"""Many awaited calls as one, and cleaning up after errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from infer.errors import BudgetSpent

T = TypeVar("T")


async def gather_or_cancel(calls: Iterable[Awaitable[T]]) -> list[T]:
    """All results, in order. The first error, or cancellation, cancels the calls still running and waits for them."""
    waiting = list(calls)
    if len(waiting) == 1:  # the usual case of a search in steps: no task needed
        return [await waiting[0]]
    tasks = [asyncio.ensure_future(call) for call in waiting]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def all_affordable(calls: Iterable[Awaitable[None]]) -> None:
    """Awaits all. Raises BudgetSpent where any of them did, once all have ended; another error cancels the rest."""

    async def attempt(call: Awaitable[None]) -> bool:
        try:
            await call
        except BudgetSpent:
            return False
        return True

    if not all(await gather_or_cancel(attempt(call) for call in calls)):
        raise BudgetSpent


@asynccontextmanager
async def closed_on_error(opened: Any) -> AsyncIterator[None]:
    """Closes an engine, a reader or the like where the block fails: whoever asked for it never gets it."""
    try:
        yield
    except BaseException:
        await opened.close()
        raise
