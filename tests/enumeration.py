"""Every run of a random algorithm with its probability: expectations without any sampling error.

The algorithm asks `Choices` for each random decision. It is run again and again, each time along the next branch, until
all branches were taken.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")


class Choices:
    """Follows `script`, one index into the possible outcomes a decision; behind its end, the first of them."""

    def __init__(self, script: Sequence[int] = ()) -> None:
        self._script = script
        self.taken: list[tuple[int, int]] = []
        """For each decision, which of how many possible outcomes."""
        self.probability = 1.0

    def pick(self, probabilities: npt.ArrayLike) -> int:
        """An outcome: its index among the probabilities. Impossible ones are no branch."""
        p = np.asarray(probabilities, float)
        possible = np.flatnonzero(p > 1e-14)
        branch = self._script[len(self.taken)] if len(self.taken) < len(self._script) else 0
        self.taken.append((branch, len(possible)))
        self.probability *= p[possible[branch]] / p[possible].sum()
        return int(possible[branch])


async def runs(run: Callable[[Choices], Awaitable[T]]) -> AsyncIterator[tuple[float, T]]:
    """The probability and the result of each possible run."""
    script: list[int] | None = []
    while script is not None:
        choices = Choices(script)
        result = await run(choices)
        yield choices.probability, result
        script = _next(choices.taken)


def _next(taken: list[tuple[int, int]]) -> list[int] | None:
    for last in reversed(range(len(taken))):
        branch, branches = taken[last]
        if branch + 1 < branches:
            return [index for index, _ in taken[:last]] + [branch + 1]
    return None


class Uniforms:
    """In place of a numpy generator: uniform draws, which matter only by the gap between `breaks` that they fall into.

    Each draw branches over the gaps, with their lengths as probabilities, and is the middle of its gap.
    """

    def __init__(self, choices: Choices, breaks: npt.ArrayLike) -> None:
        self._choices = choices
        self._edges = np.unique(np.concatenate([[0.0, 1.0], np.clip(breaks, 0.0, 1.0)]))

    def random(self, size: int) -> npt.NDArray[np.float64]:
        draws = [self._choices.pick(np.diff(self._edges)) for _ in range(size)]
        return np.array([(self._edges[i] + self._edges[i + 1]) / 2 for i in draws])


def enumerated(resample: Callable[..., Any], choices: Choices) -> Callable[..., Any]:
    """A resampling scheme of which every outcome is a branch; the generator that it is given is not used."""

    def branching(weights: npt.NDArray[np.float64], n: int, rng: object = None) -> Any:
        ends = np.cumsum(weights)
        rest = n * weights - np.floor(n * weights + 1e-9)
        breaks = {
            "multinomial": ends,
            "residual": np.cumsum(rest) / (rest.sum() or 1.0),
            "stratified": (n * ends) % 1,
            "systematic": (n * ends) % 1,
        }
        return resample(weights, n, Uniforms(choices, breaks[resample.__name__]))

    return branching
