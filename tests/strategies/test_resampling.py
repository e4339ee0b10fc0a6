"""Resampling schemes: exact expectations and covariances over all outcomes, and degenerate weights."""

import math
from typing import Any

import numpy as np
import pytest

from infer.strategies.parts.resampling import (
    RESAMPLING,
    Resampling,
    effective_sample_size,
    log_mean,
    multinomial,
    normalized,
    residual,
    stratified,
    systematic,
)
from tests.enumeration import Choices, enumerated, runs

WEIGHTS = [
    [1.0],
    [0.5, 0.5],
    [0.2, 0.5, 0.3],
    [0.0, 0.7, 0.3, 0.0],
    [0.05, 0.45, 0.0, 0.5],
    [0.25, 0.25, 0.25, 0.25],
]
NAMES = sorted(RESAMPLING)


async def moments(scheme: Any, weights: Any, n: int) -> tuple[Any, Any]:
    """Mean [k] and covariance [k, k] of the counts."""
    mean: Any = np.zeros(len(weights))
    square: Any = np.zeros((len(weights), len(weights)))

    async def run(choices: Choices) -> Any:
        return np.bincount(enumerated(scheme, choices)(weights, n), minlength=len(weights))

    total = 0.0
    async for probability, counts in runs(run):
        assert counts.sum() == n
        total += probability
        mean += probability * counts
        square += probability * np.outer(counts, counts)
    assert total == pytest.approx(1)
    return mean, square - np.outer(mean, mean)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("name", NAMES)
async def test_counts_are_unbiased(name: Resampling, n: int, weights: list[float]) -> None:
    mean, covariance = await moments(RESAMPLING[name], np.array(weights), n)
    assert mean == pytest.approx(n * np.array(weights))
    if name == "multinomial":
        assert covariance == pytest.approx(n * (np.diag(weights) - np.outer(weights, weights)))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("scheme", [residual, stratified])
async def test_no_function_has_more_variance_than_under_multinomial(scheme: Any, n: int, weights: list[float]) -> None:
    """The difference of covariances has no negative eigenvalue (Douc, Cappé and Moulines 2005, sections 3.1, 3.2)."""
    _, worst = await moments(multinomial, np.array(weights), n)
    _, covariance = await moments(scheme, np.array(weights), n)
    assert np.linalg.eigvalsh(worst - covariance).min() > -1e-9


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("n", [2, 4])
async def test_systematic_counts_vary_the_least_that_whole_numbers_can(n: int, weights: list[float]) -> None:
    _, covariance = await moments(systematic, np.array(weights), n)
    part = n * np.array(weights) % 1
    assert np.diag(covariance) == pytest.approx(part * (1 - part), abs=1e-9)
    for name in NAMES:
        _, other = await moments(RESAMPLING[name], np.array(weights), n)
        assert (np.diag(covariance) <= np.diag(other) + 1e-9).all()


async def test_systematic_is_worse_than_multinomial_for_some_function() -> None:
    """The documented exception: where values alternate, all draws have one value (Douc et al. 2005, section 3.4)."""
    weights = np.full(8, 1 / 8)
    alternating = np.array([1.0, 0.0] * 4)
    n = 4
    independent = n * (np.diag(weights) - np.outer(weights, weights))
    _, covariance = await moments(systematic, weights, n)
    assert alternating @ covariance @ alternating == pytest.approx(4)
    assert alternating @ independent @ alternating == pytest.approx(1)


@pytest.mark.parametrize("name", ["residual", "stratified", "systematic"])
def test_equal_weights_lose_nobody(name: Any) -> None:
    rng = np.random.default_rng(0)
    for n in range(1, 200):
        weights = normalized(np.full(n, -1234.5))
        assert sorted(RESAMPLING[name](weights, n, rng)) == list(range(n))


class Edge:
    """Draws at the ends of the unit interval."""

    def __init__(self, u: float) -> None:
        self.u = u

    def random(self, size: int) -> Any:
        return np.full(size, self.u)


@pytest.mark.parametrize("u", [0.0, float(np.nextafter(1.0, 0.0))])
@pytest.mark.parametrize("name", NAMES)
def test_a_particle_without_weight_is_never_drawn(name: Any, u: float) -> None:
    rng: Any = Edge(u)
    for n in (1, 3, 8, 1000):
        for weights in ([0.0, 1.0, 0.0], [0.0, 0.3, 0.7, 0.0, 0.0], [0.0, *[0.1] * 10, 0.0]):
            drawn = RESAMPLING[name](normalized(_log(weights)), n, rng)
            assert len(drawn) == n
            assert all(weights[i] > 0 for i in drawn)


def test_normalized_weights() -> None:
    assert normalized(_log([1, 3])) == pytest.approx([0.25, 0.75])
    assert normalized(np.array([-5000.0, -5000.0 + math.log(3)])) == pytest.approx([0.25, 0.75])
    assert normalized(np.array([5000.0, -5000.0])) == pytest.approx([1, 0])


def test_weights_that_are_all_zero_are_equal() -> None:
    assert normalized(_log([0, 0, 0, 0])) == pytest.approx([0.25] * 4)
    assert log_mean(_log([0, 0])) == -math.inf


def test_infinite_weights_share_everything() -> None:
    assert normalized(np.array([math.inf, 3.0, math.inf, -math.inf])) == pytest.approx([0.5, 0, 0.5, 0])
    assert log_mean(np.array([math.inf, 3.0])) == math.inf


def test_a_weight_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        normalized(np.array([0.0, math.nan]))


def test_effective_sample_size_and_mean() -> None:
    assert effective_sample_size(np.array([0.25] * 4)) == pytest.approx(4)
    assert effective_sample_size(np.array([0.0, 1.0])) == pytest.approx(1)
    assert effective_sample_size(np.array([0.5, 0.25, 0.25])) == pytest.approx(8 / 3)
    assert log_mean(_log([1, 2, 6])) == pytest.approx(math.log(3))


def _log(weights: list[float]) -> Any:
    with np.errstate(divide="ignore"):
        return np.log(np.array(weights, float))
