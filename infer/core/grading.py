"""Graders: they find the answer in a solution, compare it with the reference, and group equal answers.

An evaluation set names its grader: mathematics compares values, programs are compared by what they do.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from infer.core.problem import Problem
from infer.core.solution import Solution

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer is right, with a note for the reader where there is something to know."""

    right: bool
    note: str | None = None


class Grader(Protocol):
    """Judges final answers. One grader serves all problems of a run; any number of calls may run at once."""

    def extract(self, text: str) -> str | None:
        """The final answer in the text of a solution; None where it gives none."""
        ...

    async def grade(self, problem: Problem, answer: str) -> Verdict:
        """Compares an answer with the problem's reference."""
        ...

    async def group(self, problem: Problem, answers: Sequence[str | None]) -> list[int]:
        """For each answer the index of the first answer equal to it; -1 for None."""
        ...

    def describe(self) -> dict[str, Any]:
        """The settings that verdicts depend on, such as a version: a run is not resumed with others."""
        ...

    async def close(self) -> None:
        """Frees what it holds."""
        ...


@runtime_checkable
class Tester(Protocol):
    """A grader that can also run a solution against tests that a model wrote."""

    def tests(self, problem: Problem, text: str) -> list[str]:
        """The tests in a text that a model wrote; those that are none are left out."""
        ...

    async def passes(self, problem: Problem, answers: Sequence[str], tests: Sequence[str]) -> list[list[bool]]:
        """For each answer, which of the tests it passes: one execution each. The reference takes no part."""
        ...


def described_grader(grader: Grader) -> dict[str, Any]:
    """A grader in a run's record: its class and what it says of itself. Runs are mixed only if these are equal."""
    kind = type(grader)
    return {"class": f"{kind.__module__}.{kind.__qualname__}", **grader.describe()}


async def graded(solution: Solution, problem: Problem, grader: Grader) -> Solution:
    """The solution, each candidate with its group of equal answers and, given a reference, whether it is right.

    Where the grader fails the solution stays ungraded, with a note: it was paid for, and can be graded again.
    """
    answers = [candidate.answer for candidate in solution.candidates]
    groups = [-1 if answer is None else answers.index(answer) for answer in answers]
    verdicts: dict[str, Verdict] | None = None
    note = None
    try:
        groups = _checked(await grader.group(problem, answers), answers)
        verdicts = await _verdicts(problem, [solution.answer, *answers], grader)
        note = verdicts[solution.answer].note if solution.answer in verdicts else None
    except Exception as error:
        note = f"not graded: {type(grader).__name__} failed: {type(error).__name__}: {error}"
        logger.warning("problem %s is %s", problem.id, note)

    def right(answer: str | None) -> bool | None:
        if problem.answer is None or verdicts is None:
            return None
        return answer is not None and verdicts[answer].right

    candidates = [
        candidate.model_copy(update={"group": group, "correct": right(candidate.answer)})
        for candidate, group in zip(solution.candidates, groups, strict=True)
    ]
    notes = [solution.note] if solution.note is not None else []
    if note is not None and not (solution.note or "").endswith(note):  # it may have been graded before
        notes.append(note)
    update = {"candidates": candidates, "correct": right(solution.answer), "note": "; ".join(notes) or None}
    return solution.model_copy(update=update)


async def _verdicts(problem: Problem, answers: Sequence[str | None], grader: Grader) -> dict[str, Verdict]:
    """The verdict on each distinct answer; none without a reference."""
    if problem.answer is None:
        return {}
    distinct = list(dict.fromkeys(answer for answer in answers if answer is not None))
    found = await asyncio.gather(*(grader.grade(problem, answer) for answer in distinct))
    for verdict in found:
        if not isinstance(verdict, Verdict):
            raise TypeError(f"grade returned a {type(verdict).__name__}, not a Verdict")
    return dict(zip(distinct, found, strict=True))


def _checked(groups: Sequence[int], answers: Sequence[str | None]) -> list[int]:
    """Groups, each the index of its first answer, or -1. Raises ValueError for others."""
    first = [group == -1 or (0 <= group <= index and groups[group] == group) for index, group in enumerate(groups)]
    if len(groups) != len(answers) or not all(first):
        raise ValueError(
            f"group returned {list(groups)} for {len(answers)} answers, not the index of the first equal one"
        )
    return list(groups)
