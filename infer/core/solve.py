"""The runner: many problems in flight at once, each an asyncio task with a search of its own."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from infer.core.generator import Message
from infer.core.grading import graded
from infer.core.options import Options
from infer.core.problem import Problem
from infer.core.search import Search, Setting
from infer.core.solution import Solution
from infer.core.strategy import Strategy
from infer.errors import BudgetSpent, UserError


@dataclass(frozen=True, slots=True)
class Failure:
    """A problem that could not be tried, and why. It is not recorded, so a later run tries it again."""

    problem: Problem
    error: UserError


async def solve_one(
    problem: Problem, messages: Sequence[Message], setting: Setting, strategy: Strategy, options: Options
) -> Solution:
    """Runs a strategy on one problem, within the budget, and grades its answers. Raises UserError for a bad problem."""
    search = await Search.open(setting, problem, messages, options)
    try:
        solution = await strategy.run(search, options)
    except BudgetSpent:
        solution = search.solution(search.best())
    return await graded(solution, problem, setting.grader)


async def solve(
    problems: Iterable[Problem],
    messages: Callable[[Problem], list[Message]],
    setting: Setting,
    strategy: Strategy,
    options: Options,
    record: Callable[[Solution | Failure], None],
    *,
    concurrency: int = 64,
) -> None:
    """Solves all problems, at most `concurrency` at once, and hands each outcome to `record` as it comes.

    Problems are drawn as there is room for them and outcomes are not kept, so memory does not grow with their
    number. An error that is no UserError, or cancellation, cancels what is in flight; what was recorded stays.
    """

    async def one(problem: Problem) -> None:
        try:
            record(await solve_one(problem, messages(problem), setting, strategy, options))
        except UserError as error:
            record(Failure(problem, error))

    running: set[asyncio.Task[None]] = set()
    done: set[asyncio.Task[None]] = set()
    waiting = iter(problems)
    try:
        while True:
            while len(running) < concurrency and (problem := next(waiting, None)) is not None:
                running.add(asyncio.create_task(one(problem)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in running:
            task.cancel()
        # await finished tasks too, or asyncio logs 'exception was never retrieved'
        await asyncio.gather(*running, *done, return_exceptions=True)
