"""Laws fitted to measured points: parameters with intervals, and R^2.

    parscale     loss = E + (A / (N (1 + k ln P)))^alpha      (2505.10475, eq. 5; N parameters, P streams)
    log-linear   accuracy = a + b log10(cost)
    saturating   accuracy = top - (scale / cost)^alpha

The errors of a curve's points are correlated, since all were measured on the same problems. An interval from their
scatter alone is too narrow: give `replicates`, the same curve on resampled problems (`infer.analysis.curves`).
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from infer.analysis.curves import Outcomes
from infer.analysis.estimates import percentiles, resamples
from infer.errors import UserError

Array = np.ndarray[Any, Any]

FAR = 1e3
"""The residual where a law can't be computed: larger than in any fit."""


@dataclass(frozen=True)
class Law:
    """A function of one or several columns, [columns, points] -> [points], with named parameters."""

    name: str
    formula: str
    parameters: tuple[str, ...]
    function: Callable[[Array, Array], Array]
    starts: Callable[[Array, Array], list[list[float]]]
    """The parameters from which the fit starts, given the points; the best result counts."""
    positive: tuple[str, ...] = ()
    most: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Upper bounds of parameters."""
    huber: float | None = None
    """Threshold of Huber's loss on log y. None: least squares on y."""


@dataclass(frozen=True)
class Fit:
    """A fitted law. `confidence` is the level of `intervals`; `r2` is 1 - residual / total sum of squares of y."""

    law: Law
    parameters: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    r2: float
    points: int
    confidence: float
    _vector: Array = field(repr=False)

    def __call__(self, *x: Any) -> Array:
        """The law's values at these points."""
        return self.law.function(np.atleast_2d(np.asarray(x, dtype=np.float64)), self._vector)


def _parscale(x: Array, p: Array) -> Array:
    parameters, streams = x
    e, a, alpha, k = p
    return e + (a * 1e9 / (parameters * (1 + k * np.log(streams)))) ** alpha  # type: ignore[no-any-return]


PARSCALE = Law(
    "parscale",
    "loss = E + (A 1e9 / (N (1 + k ln P)))^alpha",
    ("E", "A", "alpha", "k"),
    _parscale,
    lambda x, y: [[e * y.min(), 0.1, alpha, 0.3] for e in (0.5, 0.9) for alpha in (0.2, 0.8)],
    positive=("E", "A", "alpha", "k"),
    huber=1e-3,
)
LOG_LINEAR = Law(
    "log-linear",
    "accuracy = a + b log10(cost)",
    ("a", "b"),
    lambda x, p: p[0] + p[1] * np.log10(x[0]),
    lambda x, y: [[float(y.mean()), 0.0]],
)
SATURATING = Law(
    "saturating",
    "accuracy = top - (scale / cost)^alpha",
    ("top", "scale", "alpha"),
    lambda x, p: p[0] - (p[1] / x[0]) ** p[2],
    lambda x, y: [
        [y.max() + gap, x[0].min() * max(gap, y.max() + gap - y.min()) ** (1 / alpha), alpha]
        for gap in (0.01, 0.1)
        for alpha in (0.3, 1.0)
    ],
    positive=("scale", "alpha"),
    most={"top": 1.0},
)


def fit(
    law: Law,
    x: Any,
    y: Any,
    *,
    replicates: Any = None,
    confidence: float = 0.95,
    bootstrap: int = 0,
    seed: int = 0,
) -> Fit:
    """Fits a law to points. `x`: one row for each column of the law, [columns, points] or [points]; `y`: [points].

    With `replicates` [draws, points], the law is fitted to each, and intervals are the central ones of these fits. With
    `bootstrap`, it is fitted to that many resamples of the points. Else intervals are those of the delta method with
    Student's t, on the logarithm of positive parameters, cut off at upper bounds. Raises UserError with fewer points
    than parameters, or where nothing fits.
    """
    points = np.atleast_2d(np.asarray(x, dtype=np.float64))
    values = np.asarray(y, dtype=np.float64)
    count, width = len(values), len(law.parameters)
    if count < width:
        raise UserError(f"the {law.name} law has {width} parameters: {count} points are too few")
    best, residual_jacobian = _minimize(law, points, values, law.starts(points, values))
    predicted = law.function(points, best)
    total = float(((values - values.mean()) ** 2).sum())
    r2 = 1 - float(((values - predicted) ** 2).sum()) / total if total else math.nan
    if replicates is None and bootstrap:
        picks = np.random.default_rng(seed).integers(0, count, (bootstrap, count))
        again = [_refit(law, points[:, pick], values[pick], best) for pick in picks]
    elif replicates is not None:
        again = [_refit(law, points, np.asarray(row, dtype=np.float64), best) for row in replicates]
    else:
        again = []
    if again:
        low, high = percentiles(np.array(again), confidence)
    else:
        half = _delta(*residual_jacobian, count, width, confidence)
        logged, most = _logged(law), _most(law)
        with np.errstate(over="ignore"):  # without degrees of freedom the intervals are infinite
            low = np.where(logged, best * np.exp(-half), best - half)
            high = np.minimum(np.where(logged, best * np.exp(half), best + half), most)
    intervals = {name: (float(low[i]), float(high[i])) for i, name in enumerate(law.parameters)}
    return Fit(law, dict(zip(law.parameters, map(float, best), strict=True)), intervals, r2, count, confidence, best)


def fit_curve(law: Law, of: Outcomes, configurations: Sequence[str], *, draws: int = 200, seed: int = 0) -> Fit:
    """Fits a law to the mean cost and accuracy of these configurations, with intervals from resampled problems."""
    correct, cost = of.correct[list(configurations)], of.cost[list(configurations)].mean()
    weights = resamples(len(correct), draws, seed)
    return fit(law, cost, correct.mean(), replicates=weights @ correct.to_numpy())


def parscale_losses() -> pd.DataFrame:
    """The 48 published losses: dataset, parameters, streams, loss (the file's first lines name the source)."""
    text = (files("infer.analysis") / "data" / "parscale.csv").read_text(encoding="utf-8")
    return pd.read_csv(io.StringIO(text), comment="#")


PARSCALE_PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "stack-v2-python": {"k": 0.39, "r2": 0.9978},
    "pile": {"k": 0.33, "r2": 0.9987},
}
"""The paper's own values for its fits (section 3.2, figure 2)."""


def _minimize(law: Law, x: Array, y: Array, starts: Sequence[Sequence[float]]) -> tuple[Array, tuple[Array, Array]]:
    """The best parameters, with residuals and Jacobian there; positive parameters are varied on their logarithm."""
    from scipy.optimize import least_squares

    logged, most = _logged(law), _most(law)
    bounds = -np.inf, np.where(logged, np.log(most), most)

    def plain(inner: Array) -> Array:
        return np.where(logged, np.exp(np.where(logged, np.clip(inner, -60, 60), 0)), inner)

    def residuals(inner: Array) -> Array:
        with np.errstate(all="ignore"):
            said = law.function(x, plain(inner))
            off = np.log(said) - np.log(y) if law.huber else said - y
        return np.clip(np.where(np.isfinite(off), off, FAR), -FAR, FAR)

    best = None
    for start in starts:
        begin = np.minimum(start, most)
        begin[logged] = np.log(np.maximum(begin[logged], 1e-20))
        options = {"loss": "huber", "f_scale": law.huber} if law.huber else {}
        end = least_squares(residuals, begin, bounds=bounds, x_scale="jac", max_nfev=200, **options)
        if best is None or end.cost < best.cost:
            best = end
    if best is None or not np.isfinite(best.cost) or np.abs(residuals(best.x)).max() >= FAR:
        raise UserError(f"the {law.name} law does not fit these points")
    return plain(best.x), (residuals(best.x), best.jac)


def _logged(law: Law) -> Array:
    return np.array([name in law.positive for name in law.parameters])


def _most(law: Law) -> Array:
    return np.array([law.most.get(name, np.inf) for name in law.parameters])


def _refit(law: Law, x: Array, y: Array, start: Array) -> Array:
    try:
        return _minimize(law, x, y, [start.tolist()])[0]
    except UserError:
        return np.full(len(law.parameters), np.nan)


def _delta(residuals: Array, jacobian: Array, count: int, width: int, confidence: float) -> Array:
    """Half the width of each parameter's interval; infinite without degrees of freedom."""
    from scipy.special import stdtrit

    if count == width:
        return np.full(width, np.inf)
    scale = np.linalg.norm(jacobian, axis=0)  # parameters differ by many orders of magnitude
    scale = np.where(scale > 0, scale, 1.0)
    covariance = np.linalg.pinv((jacobian / scale).T @ (jacobian / scale)) / np.outer(scale, scale)
    variance = float((residuals**2).sum()) / (count - width)
    return stdtrit(count - width, (1 + confidence) / 2) * np.sqrt(variance * np.diag(covariance))  # type: ignore[no-any-return]
