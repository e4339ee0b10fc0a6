"""Graders: they find the answer in a solution, compare it with the reference, and group equal answers.

An evaluation set names its grader: mathematics compares values, programs are compared by what they do.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from infer.core.problem import Problem
from infer.core.solution import Solution


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
        """How answers are compared, for the run's record."""
        ...

    async def close(self) -> None:
        """Frees what it holds."""
        ...


async def graded(solution: Solution, problem: Problem, grader: Grader) -> Solution:
    """The solution, each candidate with its group of equal answers and, given a reference, whether it is right."""
    answers = [candidate.answer for candidate in solution.candidates]
    groups = await grader.group(problem, answers)
    verdicts: dict[str, Verdict] = {}
    if problem.answer is not None:
        distinct = dict.fromkeys(answer for answer in [solution.answer, *answers] if answer is not None)
        found = await asyncio.gather(*(grader.grade(problem, answer) for answer in distinct))
        verdicts = dict(zip(distinct, found, strict=True))

    def right(answer: str | None) -> bool | None:
        if problem.answer is None:
            return None
        return answer is not None and verdicts[answer].right

    candidates = [
        candidate.model_copy(update={"group": group, "correct": right(candidate.answer)})
        for candidate, group in zip(solution.candidates, groups, strict=True)
    ]
    note = verdicts[solution.answer].note if solution.answer in verdicts else None
    notes = [solution.note] if solution.note is not None else []
    if note is not None and not (solution.note or "").endswith(note):  # it may have been graded before
        notes.append(note)
    update = {"candidates": candidates, "correct": right(solution.answer), "note": "; ".join(notes) or None}
    return solution.model_copy(update=update)
