"""What a verifier is: a problem and its steps in, one score a step out, every token told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from infer.core.pricing import Call
from infer.core.tree import Aggregation
from infer.cost.model import ModelSpec


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of the steps that were asked for, in [0, 1], and the requests that they took."""

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
        """One after the other, and what both took."""
        return Scores(self.values + other.values, self.calls + other.calls)


class Verifier(Protocol):
    """Judges the steps of a solution. All calls share one batch: await many at once."""

    aggregation: Aggregation
    """How this verifier's step scores are best made into one."""

    stepwise: bool
    """It scores each step. False: it gives the solution so far a single score, whatever the number of its steps."""

    spec: ModelSpec | None
    """The sizes of its model (of the first of several), for the cost model; None where they are not known."""

    async def most(self, question: str, steps: Sequence[str], known: int, finished: bool) -> list[Call]:
        """The requests that `score` would make at most: nothing cached, all written that may be written."""
        ...

    async def score(self, question: str, steps: Sequence[str], known: int, finished: bool) -> Scores:
        """Scores of steps[known:] (at least one), each given all steps before it; steps[:known] were scored earlier.

        The score of a step depends on nothing behind it, so the same step has the same score in every call. `finished`
        says that the last step ends the solution; otherwise the solution goes on. Where the verifier is not `stepwise`
        there is one score, of all steps together.
        Raises TooLong where the solution does not fit the verifier's context.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What was really used, for the run's record."""
        ...

    async def close(self) -> None: ...
