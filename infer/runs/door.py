"""The door from Python: `infer.solve` and `infer.solve_async`.

    import infer

    solution = infer.solve("23+54=?", strategy="astar", options={"k": 8}, budget="1k")

For problems by the thousand, runs on disk or models of your own, use `infer.runs.job.Plan`.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, overload

from pydantic import BaseModel

from infer.core.interrupts import interruptible
from infer.core.problem import HALVES, Problem
from infer.core.solution import Solution
from infer.core.solve import Failure
from infer.errors import UserError, nearest
from infer.runs.fields import build
from infer.runs.job import Job, Machine, Plan

Result = TypeVar("Result")
Question = str | Problem


@overload
def solve(question: Question, **settings: Any) -> Solution: ...
@overload
def solve(question: Sequence[Question], **settings: Any) -> list[Solution]: ...
def solve(question: Question | Sequence[Question], **settings: Any) -> Solution | list[Solution]:
    """As `solve_async`, but waits for the solution. It also works where an event loop runs already: in a notebook."""
    return _wait(_solve(question, settings))


@overload
async def solve_async(question: Question, **settings: Any) -> Solution: ...
@overload
async def solve_async(question: Sequence[Question], **settings: Any) -> list[Solution]: ...
async def solve_async(question: Question | Sequence[Question], **settings: Any) -> Solution | list[Solution]:
    """Loads the models, solves a question or a problem, and closes the models.

    Several questions or problems share the models, and give a list of solutions in the same order. A `Problem` with an
    answer is graded. The settings are the fields of `Job` and `Machine` (`infer.runs.job`); a strategy's options are
    `key=value` texts or a dictionary. Raises UserError for a setting that does not fit, for a model that cannot be
    loaded, and for the first problem that cannot be tried, such as one longer than the model's context; ServerFailed
    (`infer.errors`) for the first that a server fails.
    """
    return await _solve(question, settings)


async def _solve(question: Question | Sequence[Question], settings: dict[str, Any]) -> Solution | list[Solution]:
    if isinstance(question, str | Problem):
        (solution,) = await _solve_all([_problem("question", question)], settings)
        return solution
    return await _solve_all([_problem(f"question {i}", each) for i, each in enumerate(question, 1)], settings)


def _problem(name: str, question: Question) -> Problem:
    problem = Problem(name, question) if isinstance(question, str) else question
    if not problem.prompt.strip():
        raise UserError(f"{problem.id} is empty")
    if HALVES.search(problem.prompt):
        raise UserError(f"{problem.id} has half a character in it (a lone surrogate): mend its text")
    return problem


async def _solve_all(problems: list[Problem], settings: dict[str, Any]) -> list[Solution]:
    known = Job.model_fields | Machine.model_fields
    if unknown := settings.keys() - known.keys():
        name = min(unknown)
        raise UserError(f"infer.solve has no setting {name!r}: {nearest(name, known)}")
    for name, count in Counter(problem.id for problem in problems).items():
        if count > 1:
            raise UserError(f"{count} problems have the id {name!r}: give each problem its own")
    if not problems:
        return []
    solutions: dict[str, Solution] = {}

    def given(model: type[BaseModel]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name in model.model_fields}

    def record(outcome: Solution | Failure) -> None:
        if isinstance(outcome, Failure):
            raise outcome.error
        solutions[outcome.problem_id] = outcome

    plan = Plan(build(Job, {**given(Job), "question": problems[0].prompt}))
    machine = build(Machine, given(Machine))
    async with plan.open(machine) as session:
        await session.solve(iter(problems), record, machine.concurrency)
    return [solutions[problem.id] for problem in problems]


def _wait(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine, in an event loop of its own; on another thread where this one runs a loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    tasks: list[asyncio.Task[Result]] = []

    async def cancellable() -> Result:
        tasks.append(asyncio.create_task(work))
        return await tasks[0]

    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(asyncio.run, cancellable())
        try:
            with interruptible():
                return result.result()
        except KeyboardInterrupt:  # leaving the block then waits until the models are closed
            for task in tasks:
                task.get_loop().call_soon_threadsafe(task.cancel)
            raise
