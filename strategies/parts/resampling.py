"""Resampling: `n` indices drawn by weight, so that index i comes n W_i times on average.

multinomial  n independent draws                                             (Gordon, Salmond and Smith 1993)
residual     floor(n W_i) copies of each i; the rest are independent draws   (Liu and Chen 1998)
stratified   one draw from each of n equal slices of the unit interval       (Kitagawa 1996)
systematic   the same place in each of the n slices                          (Carpenter, Clifford and Fearnhead 1999)

All are unbiased. For any function of the particles residual and stratified resampling have at most the variance of
multinomial (Douc, Cappé and Moulines 2005). Systematic resampling gives each index floor(n W_i) or one more, so no
scheme has counts of less variance; but what it adds up depends on the order of the particles, and for some functions it
is worse than multinomial.

Weights W are not negative and sum to one. `normalized` makes them from logarithms, and says what becomes of weights
that are all zero, infinite or not numbers.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Resampling = Literal["multinomial", "residual", "stratified", "systematic"]
Resample = Callable[[Floats, int, np.random.Generator], Indices]
"""Draws so many indices by weight."""


def normalized(log_weights: Floats) -> Floats:
    """Weights that sum to one, from their logarithms [n].

    In the limit, infinite weights share everything and others get nothing. If all weights are zero there is nothing to
    tell them apart, and they are equal. Raises ValueError where one is not a number: it has no place among the others.
    """
    if np.isnan(log_weights).any():
        raise ValueError(f"a weight is not a number: {log_weights}")
    top = log_weights.max()
    weights = np.exp(log_weights - top) if np.isfinite(top) else np.where(log_weights == top, 1.0, 0.0)
    shares: Floats = weights / weights.sum()
    return shares


def log_mean(log_weights: Floats) -> float:
    """The logarithm of the mean weight, from the weights' logarithms [n]."""
    return float(np.logaddexp.reduce(log_weights)) - float(np.log(len(log_weights)))


def effective_sample_size(weights: Floats) -> float:
    """1 / sum W_i^2: n for equal weights, 1 where one particle has everything (Kong, Liu and Wong 1994)."""
    return 1.0 / float(np.square(weights).sum())


def multinomial(weights: Floats, n: int, rng: np.random.Generator) -> Indices:
    return _inverse_cdf(weights, rng.random(n))


def residual(weights: Floats, n: int, rng: np.random.Generator) -> Indices:
    expected = n * weights
    copies = np.floor(expected + 1e-9).astype(np.intp)  # n * (1 / n) may fall just short of one
    certain = np.repeat(np.arange(len(weights)), copies)
    if len(certain) == n:
        return certain
    rest = np.maximum(expected - copies, 0.0)
    return np.concatenate([certain, multinomial(rest, n - len(certain), rng)])


def stratified(weights: Floats, n: int, rng: np.random.Generator) -> Indices:
    return _inverse_cdf(weights, (np.arange(n) + rng.random(n)) / n)


def systematic(weights: Floats, n: int, rng: np.random.Generator) -> Indices:
    return _inverse_cdf(weights, (np.arange(n) + rng.random(1)) / n)


RESAMPLING: dict[Resampling, Resample] = {
    "multinomial": multinomial,
    "residual": residual,
    "stratified": stratified,
    "systematic": systematic,
}


def _inverse_cdf(weights: Floats, places: Floats) -> Indices:
    """The index on whose share of the unit interval each place lies; never one without weight."""
    ends = np.cumsum(weights)
    below_one = np.minimum(places, np.nextafter(1.0, 0.0))  # (n - 1 + u) / n rounds to 1 for u just below 1
    indices: Indices = np.searchsorted(ends / ends[-1], below_one, side="right")
    return indices
