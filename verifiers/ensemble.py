"""Several verifiers as one: the mean, the lowest or the product of their scores, step by step."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.tasks import gather_or_cancel
from infer.core.tree import Aggregation
from infer.core.verifier import Scores, Verifier
from infer.errors import TooLong, UserError

Combination = Literal["mean", "min", "prod"]

COMBINATIONS: dict[Combination, Callable[[Sequence[float]], float]] = {
    "mean": lambda scores: math.fsum(scores) / len(scores),
    "min": min,
    "prod": math.prod,
}


class Ensemble:
    """Aggregates over steps as its first member does. Its cost is that of all members."""

    def __init__(self, members: Sequence[Verifier], combination: Combination) -> None:
        if len({member.stepwise for member in members}) > 1:
            raise UserError("an ensemble needs verifiers of one kind: all score steps, or all score whole solutions")
        self._members = members
        self._combination: Combination = combination
        self.aggregation: Aggregation = members[0].aggregation
        self.stepwise = members[0].stepwise
        self.spec = members[0].spec

    async def most(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> list[Call]:
        each = [await member.most(problem, steps, known, finished) for member in self._members]
        return [call for calls in each for call in calls]

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        async def ask(member: Verifier) -> Scores | TooLong:
            try:
                return await member.score(problem, steps, known, finished)
            except TooLong as error:
                return error

        each = await gather_or_cancel(ask(member) for member in self._members)
        calls = [call for scores in each for call in scores.calls]
        scored = [scores.values for scores in each if isinstance(scores, Scores)]
        if too_long := [error for error in each if isinstance(error, TooLong)]:
            raise TooLong(str(too_long[0]), calls)
        combine = COMBINATIONS[self._combination]
        values = [combine(scores) for scores in zip(*scored, strict=True)]
        return Scores(values, calls)

    def describe(self) -> dict[str, Any]:
        members = [member.describe() for member in self._members]
        return {"family": f"{self._combination} of {len(members)}", "aggregation": self.aggregation, "members": members}

    async def close(self) -> None:
        for member in self._members:
            await member.close()
