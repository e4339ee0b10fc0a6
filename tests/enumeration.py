"""Enumerates every run of a random algorithm, with its probability: expectations without any sampling error.

The algorithm asks `Choices` for each random decision. It runs again and again, each time along the next branch, until
all branches have been taken.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")


class Choices:
    """Takes the decisions of one run.

    `script` has, for each decision, the index of the outcome to take among the possible ones. After its end the first
    possible outcome is taken.
    """

    def __init__(self, script: Sequence[int] = ()) -> None:
        self._script = script
        self.taken: list[tuple[int, int]] = []
        """For each decision: the index of the outcome taken, and the number of possible outcomes."""
        self.probability = 1.0

    def pick(self, probabilities: npt.ArrayLike) -> int:
        """The index of an outcome in `probabilities`. Impossible outcomes are never taken."""
        p = np.asarray(probabilities, float)
        possible = np.flatnonzero(p > 1e-14)
        branch = self._script[len(self.taken)] if len(self.taken) < len(self._script) else 0
        self.taken.append((branch, len(possible)))
        self.probability *= p[possible[branch]] / p[possible].sum()
        return int(possible[branch])


async def runs(run: Callable[[Choices], Awaitable[T]]) -> AsyncIterator[tuple[float, T]]:
    """Yields the probability and the result of each possible run."""
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
    """Takes the place of a numpy generator of uniform draws.

    Only the gap between two `breaks` that a draw falls into may matter. So each draw branches over the gaps, with their
    lengths as probabilities, and returns the middle of the gap.
    """

    def __init__(self, choices: Choices, breaks: npt.ArrayLike) -> None:
        self._choices = choices
        self._edges = np.unique(np.concatenate([[0.0, 1.0], np.clip(breaks, 0.0, 1.0)]))

    def random(self, size: int) -> npt.NDArray[np.float64]:
        draws = [self._choices.pick(np.diff(self._edges)) for _ in range(size)]
        return np.array([(self._edges[i] + self._edges[i + 1]) / 2 for i in draws])


def enumerated(resample: Callable[..., Any], choices: Choices) -> Callable[..., Any]:
    """A resampling scheme that branches over its outcomes and ignores the generator passed to it."""

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
