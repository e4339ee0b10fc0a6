"""The verifier protocol: a problem and its steps in, one score for each step out, every token counted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.tree import Aggregation
from infer.cost.model import ModelSpec
from infer.errors import TooLong, UserError


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores in [0, 1] of the steps in question, and the requests that they took."""

    values: list[float]
    calls: list[Call]

    @property
    def prefill(self) -> int:
        """Prompt tokens that were computed."""
        return sum(call.prefill for call in self.calls)

    @property
    def cached(self) -> int:
        """Prompt tokens that were read from the verifier's prefix cache."""
        return sum(call.cached for call in self.calls)

    @property
    def generated(self) -> int:
        """Tokens that the verifier sampled."""
        return sum(call.generated for call in self.calls)

    def __add__(self, other: "Scores") -> "Scores":
        """The scores one after the other, and all requests."""
        return Scores(self.values + other.values, self.calls + other.calls)


class Verifier(Protocol):
    """Judges the steps of a solution. All calls share one batch: await many at once."""

    aggregation: Aggregation
    """How this verifier's step scores become one, unless the user says otherwise."""

    stepwise: bool
    """It scores each step. False: it gives the solution so far a single score, whatever the number of its steps."""

    spec: ModelSpec | None
    """The sizes of its model (of the first of several), for the cost model; None where they are not known."""

    async def most(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> list[Call]:
        """The requests that `score` makes at most: nothing cached, and every critique at its full length."""
        ...

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        """Scores of steps[known:] (at least one), each given all steps before it; steps[:known] were scored earlier.

        The score of a step depends on nothing after it, so the same step has the same score in every call. `finished`
        says that the last step ends the solution; otherwise the solution goes on. A verifier that is not `stepwise`
        gives one score, of all steps together. Raises TooLong where the solution exceeds the verifier's context, and
        ServerFailed where a server gave no usable reply.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """The model and engine that really ran, for the run's record."""
        ...

    async def close(self) -> None: ...


async def ask(verifier: Verifier, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
    """`verifier.score`, checked. Raises UserError unless it gives a number in [0, 1] for each score that is due."""
    scores = await verifier.score(problem, steps, known, finished)
    due = len(steps) - known if verifier.stepwise else 1
    if not all(math.isfinite(value) and 0 <= value <= 1 for value in scores.values):
        raise UserError(f"problem {problem.id}: the reward model scored a step with {scores.values}, not in [0, 1]")
    if len(scores.values) != due:
        raise UserError(f"problem {problem.id}: the reward model gave {len(scores.values)} scores where {due} were due")
    return scores


def not_scored(errors: Sequence[TooLong]) -> str | None:
    """The note on a solution some of whose trajectories exceed the verifier's context; None where none does."""
    return f"{len(errors)} times not scored: {errors[0]}" if errors else None
