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
from infer.errors import BudgetSpent, ServerDown, ServerFailed, UserError

IN_A_ROW = 16
"""Problems that a server may fail one after the other before no more are begun. So many are not the problems' fault. An
outage that is shorter than the tries of one request (about 25 s) fails none."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A problem that could not be tried, and why. It is not recorded, so a later run tries it again."""

    problem: Problem
    error: UserError | ServerFailed


async def solve_one(
    problem: Problem, messages: Sequence[Message], setting: Setting, strategy: Strategy, options: Options
) -> Solution:
    """Runs a strategy on one problem, within the budget, and grades its answers. Raises UserError for a bad problem.

    Raises ServerFailed where a model's server does not answer.
    """
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
    number. An error that is no failure of one problem, or cancellation, cancels what is in flight; what was recorded
    stays. After `IN_A_ROW` problems in a row that a server failed, no more are begun until one of those in flight comes
    to another end. Raises ServerDown where none does.
    """
    in_a_row = 0

    async def one(problem: Problem) -> None:
        nonlocal in_a_row
        outcome: Solution | Failure
        try:
            outcome = await solve_one(problem, messages(problem), setting, strategy, options)
        except (UserError, ServerFailed) as error:
            outcome = Failure(problem, error)
        record(outcome)
        failed = isinstance(outcome, Failure) and isinstance(outcome.error, ServerFailed)
        in_a_row = in_a_row + 1 if failed else 0

    running: set[asyncio.Task[None]] = set()
    done: set[asyncio.Task[None]] = set()
    waiting = iter(problems)
    try:
        while True:
            while len(running) < concurrency and (in_a_row < IN_A_ROW or not running):
                if (problem := next(waiting, None)) is None:
                    break
                if in_a_row >= IN_A_ROW:
                    raise ServerDown(f"the server failed {in_a_row} problems in a row, so the run stops")
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
