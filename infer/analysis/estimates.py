"""Means over problems with intervals, and paired differences.

The problems are the sample: more runs or seeds of one problem add knowledge of that problem, not of others. All
intervals are clustered by problem, and each problem weighs the same (Miller 2411.00640, section 2.2).
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, Literal

import numpy as np
import pandas as pd

from infer.analysis.frames import Runs
from infer.errors import UserError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems and its interval."""

    mean: float
    low: float
    high: float
    problems: int
    """Clusters: problems with at least one value."""
    values: int
    missing: int
    """Number of NaN values, such as pass@k of fewer than k samples. They are left out, not counted as zero."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Configuration `b` minus configuration `a` on the problems that both have."""

    mean: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float
    gained: int | None
    """Problems that only `b` solves; None where there are several runs of a problem."""
    lost: int | None
    mcnemar_p: float | None
    """Exact two-sided McNemar test; None where there are several runs of a problem."""
    cost_a: float
    cost_b: float
    problems: int


def share(
    values: Any, problems: Any, confidence: float = 0.95, *, weigh: Literal["problems", "values"] = "problems"
) -> Estimate:
    """The mean of values in [0, 1], with Wilson's interval at the effective sample size.

    The effective size is p (1 - p) / s^2, with s the standard error clustered by problem, corrected for the degrees of
    freedom of s (Korn and Graubard 1998, with Wilson's interval in place of Clopper and Pearson's). Where problems
    weigh the same, it is at least their number, since no share varies more than a coin with its mean. With one answer
    to each problem this is Wilson's interval itself, as in `core.tally.wilson`. Where all values are 0 or all are 1, s
    is zero, and each problem counts as one observation. Without any value the interval is [0, 1]. With `weigh` "values"
    each value weighs the same, and s is that of the ratio estimator.
    """
    sums, counts, missing = _clusters(values, problems)
    clusters = len(counts)
    if clusters == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, 0, missing)
    means = sums / counts
    weights = np.full(clusters, 1 / clusters) if weigh == "problems" else counts / counts.sum()
    centre = float(means.mean() if weigh == "problems" else sums.sum() / counts.sum())
    z, t = _quantiles(confidence, clusters - 1)
    spread = float(((weights * (means - centre)) ** 2).sum())
    variance = spread * clusters / (clusters - 1) if clusters > 1 else 0.0
    size = float(clusters)
    if 0 < centre < 1 and variance > 1e-20:  # above rounding
        worth = centre * (1 - centre) / variance * (z / t) ** 2
        size = max(size, worth) if weights.min() == weights.max() else worth
    middle = (centre + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(centre * (1 - centre) / size + z**2 / (4 * size**2))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Estimate(centre, min(low, centre), max(high, centre), clusters, int(counts.sum()), missing)


def mean(values: Any, problems: Any, confidence: float = 0.95) -> Estimate:
    """The mean of values of any size, such as costs, with Student's interval over the means of the problems."""
    sums, counts, missing = _clusters(values, problems)
    means = sums / counts
    centre = float(means.mean()) if len(means) else math.nan
    half = math.inf
    if len(means) > 1:
        _, t = _quantiles(confidence, len(means) - 1)
        half = t * float(means.std(ddof=1)) / math.sqrt(len(means))
    return Estimate(centre, centre - half, centre + half, len(means), int(counts.sum()), missing)


def accuracy(runs: Runs, by: str | list[str] = "configuration", confidence: float = 0.95) -> pd.DataFrame:
    """The share of solved problems, for each value of one or several columns of `runs.problems`."""
    columns = [by] if isinstance(by, str) else by
    rows = []
    for key, part in runs.problems.groupby(columns, observed=True, sort=False):
        rows.append((*key, *astuple(share(part["correct"], part["problem_id"], confidence))))
    names = [field.name for field in fields(Estimate)]
    return pd.DataFrame(rows, columns=[*columns, *names]).set_index(columns)


def reliability(score: Any, correct: Any, problems: Any, bins: int = 10, confidence: float = 0.95) -> pd.DataFrame:
    """The share of right candidates in bins of their score in [0, 1]; those without score or verdict are left out.

    One row for each bin that is not empty: score (its mean), mean, low, high (share right, clustered by problem; each
    candidate weighs the same), size (share of all candidates), left, right (edges). The expected calibration error is
    `(size * |mean - score|).sum()`.
    """
    scores, right = np.asarray(score, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    known = ~(np.isnan(scores) | np.isnan(right))
    scores, right, ids = scores[known], right[known], np.asarray(problems)[known]
    places = np.clip((scores * bins).astype(int), 0, bins - 1)
    rows = []
    for place in np.unique(places):
        inside = places == place
        found = share(right[inside], ids[inside], confidence, weigh="values")
        edges = place / bins, (place + 1) / bins
        rows.append((scores[inside].mean(), found.mean, found.low, found.high, inside.mean(), *edges))
    return pd.DataFrame(rows, columns=["score", "mean", "low", "high", "size", "left", "right"])


def auroc(score: Any, correct: Any) -> float:
    """The probability that a right candidate scores above a wrong one, ties count half; NaN without one of each."""
    from scipy.stats import rankdata

    scores, right = np.asarray(score, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    known = ~(np.isnan(scores) | np.isnan(right))
    scores, good = scores[known], right[known] == 1
    if good.all() or not good.any():
        return math.nan
    ranks = rankdata(scores)
    return float((ranks[good].mean() - (good.sum() + 1) / 2) / (~good).sum())


def compare(
    runs: Runs,
    a: str,
    b: str,
    *,
    unit: str = "tokens",
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """Configuration `b` against configuration `a`, problem by problem.

    `low` and `high` are Bonett and Price's interval (2012, eq. 3): that of the differences with two problems added, one
    that only `a` solves and one that only `b` solves. Without them, the interval would have no width where both agree
    on all problems; the bootstrap's has none there. It is a little wide where few problems are solved by only one of
    the two. It is cut off at [-1, 1].
    The result has both costs, since a difference at unequal cost means little: `infer.analysis.curves.at_equal_cost`
    compares families of configurations at the same cost. Raises UserError for an unknown configuration.
    """
    means = []
    costs = []
    cost = runs.cost(unit)
    for name in (a, b):
        rows = (runs.problems["configuration"] == name) & runs.problems["correct"].notna()
        if not rows.any():
            known = ", ".join(runs.runs["configuration"].unique())
            raise UserError(f"no graded problems of configuration {name!r}: there are {known}")
        ids = runs.problems.loc[rows, "problem_id"]
        means.append(runs.problems.loc[rows, "correct"].groupby(ids).agg(["mean", "size"]))
        costs.append(cost[rows].groupby(ids).mean())
    shared = means[0].index.intersection(means[1].index)
    if shared.empty:
        raise UserError(f"{a} and {b} have no problem in common: a paired difference needs the same evaluation set")
    first, second = (part.loc[shared] for part in means)
    difference = (second["mean"] - first["mean"]).to_numpy()
    low, high = percentiles(resamples(len(difference), draws, seed) @ difference, confidence)
    gained = lost = p = None
    if (first["size"] == 1).all() and (second["size"] == 1).all():
        gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
        p = mcnemar(gained, lost)
    cost_a, cost_b = (float(part.loc[shared].mean()) for part in costs)
    bounds = *paired(difference, confidence), float(low), float(high)
    return Difference(float(difference.mean()), *bounds, gained, lost, p, cost_a, cost_b, len(shared))


def paired(differences: Sequence[float] | Array, confidence: float = 0.95) -> tuple[float, float]:
    """Bonett and Price's interval (2012, eq. 3) for the mean of differences in [-1, 1], one for each problem."""
    more = np.append(np.asarray(differences, dtype=np.float64), [1.0, -1.0])
    z, _ = _quantiles(confidence, len(more))
    middle, half = float(more.mean()), z * float(more.std()) / math.sqrt(len(more))
    return max(-1.0, middle - half), min(1.0, middle + half)


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p-value for the numbers of problems that only one side solved."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def resamples(problems: int, draws: int, seed: int = 0) -> Array:
    """Bootstrap over problems: the weight of each problem in each draw, [draws, problems]; each row sums to one."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(problems, np.full(problems, 1 / problems), draws) / problems


def percentiles(values: Array, confidence: float = 0.95, axis: int = 0) -> tuple[Any, Any]:
    """The central interval of bootstrap values; NaN values are left out."""
    tail = (1 - confidence) / 2
    if np.isnan(values).any():
        with np.errstate(all="ignore"):
            low, high = np.nanquantile(values, [tail, 1 - tail], axis=axis)
    else:
        low, high = np.quantile(values, [tail, 1 - tail], axis=axis)
    return low, high


def _clusters(values: Any, problems: Any) -> tuple[Array, Array, int]:
    """Sum and number of the values of each problem that has some, and the number of missing values in all."""
    array = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(array)
    codes = pd.factorize(np.asarray(problems)[known])[0]
    return np.bincount(codes, array[known]), np.bincount(codes), int((~known).sum())


def _quantiles(confidence: float, freedom: int) -> tuple[float, float]:
    from scipy.special import ndtri, stdtrit

    upper = (1 + confidence) / 2
    return float(ndtri(upper)), float(stdtrit(freedom, upper)) if freedom else math.inf
