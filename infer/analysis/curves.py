"""Accuracy against cost: curves, frontiers, the best configuration for a budget, differences at equal cost.

All of it rests on two tables, [problems, configurations]: how often each problem was solved, and its mean cost. Bands
come from resampled problems. Accuracy and cost of all configurations are resampled together, so the bands hold for
comparisons too. A frontier is the best of several noisy numbers and therefore lies a little high; the share of
resamples in which a configuration is the best shows how far to trust it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from infer.analysis.estimates import mean, percentiles, resamples, share
from infer.analysis.frames import Runs, labels
from infer.analysis.pools import How, at_k
from infer.cost.hardware import Hardware
from infer.errors import UserError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Outcomes:
    """Results on the problems that all configurations have, averaged over runs: [problems, configurations]."""

    correct: pd.DataFrame
    cost: pd.DataFrame
    unit: str
    left_out: int = 0
    """Number of problems that some configuration lacks."""

    def __add__(self, other: "Outcomes") -> "Outcomes":
        """The configurations of both. Raises ValueError for different units, UserError without a problem in common."""
        if self.unit != other.unit:
            raise ValueError(f"costs in {self.unit} and in {other.unit} do not compare")
        correct = pd.concat([self.correct, other.correct], axis=1)
        return _common(correct, pd.concat([self.cost, other.cost], axis=1), self.unit)


def outcomes(runs: Runs, unit: str = "tokens") -> Outcomes:
    """The outcomes of the configurations as run. Raises UserError where they have no graded problem in common."""
    problems = runs.problems
    frame = pd.DataFrame(
        {
            "problem_id": problems["problem_id"],
            "configuration": problems["configuration"],
            "correct": problems["correct"],
            "cost": runs.cost(unit),
        }
    )
    frame = frame[frame["correct"].notna()]
    if frame.empty:
        raise UserError("no problem was graded: these runs have no reference answers")
    means = frame.groupby(["problem_id", "configuration"], observed=True, sort=False).mean()
    wide: pd.DataFrame = means.unstack()  # type: ignore[assignment]
    return _common(pd.DataFrame(wide["correct"]), pd.DataFrame(wide["cost"]), unit)


def sampled(runs: Runs, hows: Sequence[How], ks: Sequence[int] | None = None, unit: str = "tokens") -> Outcomes:
    """The outcomes of k of each run's samples, as configurations named `<configuration>, <how>@<k>`.

    The cost is k / n of the cost of the n samples: exact in expectation for costs that each sample has of its own
    (tokens, verifier passes), an approximation for costs that they share. pass@k and majority votes need no verifier
    and are not charged its passes, FLOPs, bytes and eFLOPs. Seconds and dollars can't be split by model, so they
    include the verifier. A k above some problem's number of samples is left out. Raises UserError where every k is.
    """
    whole, free = runs.cost(unit), _without_verifier(runs, unit)
    names = runs.problems["configuration"].astype(str)
    correct, costs = {}, {}
    for how in hows:
        each = (free if how in ("pass", "majority") else whole) / runs.problems["samples"]
        table = at_k(runs, how, ks)
        for k in map(int, table.columns):
            values = table[k]
            for name, rows in runs.problems.groupby(names, sort=False).groups.items():
                if values[rows].notna().all():
                    ids = runs.problems.loc[rows, "problem_id"]
                    label = f"{name}, {how}@{k}"
                    correct[label] = values[rows].groupby(ids.to_numpy(), sort=False).mean()
                    costs[label] = k * each[rows].groupby(ids.to_numpy(), sort=False).mean()
    if not correct:
        raise UserError("no run has that many graded samples of each problem")
    return _common(pd.DataFrame(correct), pd.DataFrame(costs), unit)


def families(runs: Runs) -> dict[str, list[str]]:
    """Groups the configurations that differ only in budget and whole-number options, such as n: points of one curve."""
    configs = [record["config"] for record in runs.records.values()]
    reduced = []
    for config in configs:
        options = {key: value for key, value in (config.get("options") or {}).items() if type(value) is not int}
        reduced.append({**config, "options": options, "budget": None})
    found: dict[str, list[str]] = {}
    for label, configuration in zip(labels(reduced), runs.runs["configuration"], strict=True):
        members = found.setdefault(label, [])
        if configuration not in members:
            members.append(configuration)
    return found


def curve(of: Outcomes, confidence: float = 0.95) -> pd.DataFrame:
    """Cost and accuracy of each configuration with their intervals, sorted by cost."""
    rows = []
    for name in of.correct.columns:
        accuracy = share(of.correct[name], of.correct.index, confidence)
        cost = mean(of.cost[name], of.cost.index, confidence)
        rows.append((name, cost.mean, cost.low, cost.high, accuracy.mean, accuracy.low, accuracy.high))
    columns = ["configuration", "cost", "cost_low", "cost_high", "accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=columns).sort_values("cost", ignore_index=True)


def frontier(
    of: Outcomes, *, points: int = 200, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The configurations that no other beats, and the best accuracy at each cost, with its band.

    A configuration is dominated if another is at most as dear and at least as accurate, and better in one of the two.
    The first table has cost and accuracy of those that are not dominated, and `chosen`: the share of resamples in which
    they are not. The second is a step function: at `points` costs, and at those of the configurations, the accuracy of
    the best configuration that costs no more, and its band.
    """
    accuracy, cost = _resampled(of, draws, seed)
    centre, price = of.correct.mean().to_numpy(), of.cost.mean().to_numpy()
    best = _undominated(price[None], centre[None])[0]
    table = pd.DataFrame(
        {
            "configuration": of.correct.columns,
            "cost": price,
            "accuracy": centre,
            "chosen": _undominated(cost, accuracy).mean(axis=0),
        }
    )[best].sort_values("cost", ignore_index=True)
    positive = price[price > 0]
    if len(positive) == len(price) and price.min() < price.max():
        grid = np.geomspace(price.min(), price.max(), points)
        grid[0], grid[-1] = price.min(), price.max()  # exactly, without rounding
    else:
        grid = np.linspace(price.min(), price.max(), points)
    grid = np.union1d(grid, price)  # the line steps up where a configuration is
    bands = percentiles(_envelope(cost, accuracy, grid), confidence)
    line = _envelope(price[None], centre[None], grid)[0]
    steps = {"cost": grid, "accuracy": line, "low": np.fmin(bands[0], line), "high": np.fmax(bands[1], line)}
    return table, pd.DataFrame(steps)


def allocation(of: Outcomes, budgets: Sequence[float], *, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The most accurate configuration whose mean cost is within each budget (as in Kinetics, 2506.05333, section 3).

    `chosen` is the share of resamples in which the same configuration is the best. `runner_up` is the other one that
    is the best most often. A budget below all costs has no configuration.
    """
    accuracy, cost = _resampled(of, draws, seed)
    centre, price = of.correct.mean().to_numpy(), of.cost.mean().to_numpy()
    names = np.array(of.correct.columns, dtype=object)
    rows = []
    for budget in budgets:
        if not (price <= budget).any():
            rows.append((budget, None, np.nan, np.nan, np.nan, None))
            continue
        best = _best(centre, price, budget)
        # the best of those that are affordable in each resample
        wins = np.where(cost <= budget, accuracy, -1.0)
        wins += 1e-9 * (cost == np.where(wins == wins.max(axis=1, keepdims=True), cost, np.inf).min(axis=1)[:, None])
        counts = np.bincount(wins.argmax(axis=1), minlength=len(names)) / len(wins)
        others = np.where(np.arange(len(names)) == best, -1.0, counts)
        second = names[others.argmax()] if others.max() > 0 else None
        rows.append((budget, names[best], centre[best], price[best], counts[best], second))
    return pd.DataFrame(rows, columns=["budget", "configuration", "accuracy", "cost", "chosen", "runner_up"])


def at_equal_cost(
    of: Outcomes,
    a: Sequence[str],
    b: Sequence[str],
    costs: Sequence[float] | None = None,
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The accuracy of family `b` minus that of family `a` at the same cost and problems, with a bootstrap band.

    Between two configurations a family's accuracy is linear in cost: the mean of drawing one of the two at random. It
    never falls as cost grows: a dearer but worse configuration is skipped. It is constant above the dearest
    configuration and NaN below the cheapest. `costs`: by default 20 in the range that both families cover.
    """
    accuracy, cost = _resampled(of, draws, seed)
    everything = [*of.correct.columns]
    first, second = ([everything.index(name) for name in family] for family in (a, b))
    centre, price = of.correct.mean().to_numpy(), of.cost.mean().to_numpy()
    if costs is None:
        low = max(price[first].min(), price[second].min())
        high = max(low, min(price[first].max(), price[second].max()))
        costs = np.linspace(low, high, 20 if high > low else 1).tolist()
    at = np.asarray(costs, dtype=np.float64)

    def gap(price: Array, accuracy: Array) -> Array:
        return _interpolated(price[second], accuracy[second], at) - _interpolated(price[first], accuracy[first], at)

    below = at < max(price[first].min(), price[second].min())
    bands = percentiles(np.array([gap(*draw) for draw in zip(cost, accuracy, strict=True)]), confidence)
    columns = {"difference": gap(price, centre), "low": bands[0], "high": bands[1]}
    return pd.DataFrame({"cost": at, **{name: np.where(below, np.nan, values) for name, values in columns.items()}})


def _without_verifier(runs: Runs, unit: str) -> pd.Series:
    """Each problem's cost without the verifier, in units that are counted for each model; else its whole cost."""
    cost = runs.cost(unit)
    if unit in ("prm", "passes"):
        return 0 * cost
    columns = {kind: [f"verifier_{phase}_{kind}" for phase in ("prefill", "decode")] for kind in ("flops", "bytes")}
    if unit not in (*columns, "eflops") or not {*columns["flops"], *columns["bytes"]} <= set(runs.problems):
        return cost
    spent = {kind: runs.problems[names].sum(axis=1) for kind, names in columns.items()}
    if unit in spent:
        return cost - spent[unit]
    intensity = {name: _verifier_intensity(record["facts"][-1]) for name, record in runs.records.items()}
    weighed = runs.problems["run"].map(intensity).astype("float64") * spent["bytes"]
    return cost - (spent["flops"] + weighed).fillna(0.0)


def _verifier_intensity(facts: dict[str, Any]) -> float:
    """The FLOPs that a byte of the verifier counts as in its eFLOPs; NaN where the run has no record of it."""
    hardware, verifier = facts.get("hardware"), facts.get("verifier") or {}
    if hardware is None or "dtype" not in verifier:
        return np.nan
    return Hardware(**hardware).intensity(verifier["dtype"])


def _common(correct: pd.DataFrame, cost: pd.DataFrame, unit: str) -> Outcomes:
    shared = correct.notna().all(axis=1) & cost.notna().all(axis=1)
    if not shared.any():
        raise UserError("these configurations have no graded problem in common: compare runs of one evaluation set")
    correct, cost = correct[shared].rename(columns=str), cost[shared].rename(columns=str)
    return Outcomes(correct, cost[correct.columns], unit, int((~shared).sum()))


def _resampled(of: Outcomes, draws: int, seed: int) -> tuple[Array, Array]:
    """Accuracy and cost of each configuration in each resample of the problems: [draws, configurations]."""
    weights = resamples(len(of.correct), draws, seed)
    return weights @ of.correct.to_numpy(), weights @ of.cost.to_numpy()


def _undominated(cost: Array, accuracy: Array) -> Array:
    """A mask of each row's configurations: those that no other beats in one and equals or beats in the other."""
    order = np.lexsort((-accuracy, cost), axis=-1)
    ordered = np.take_along_axis(accuracy, order, 1)
    before = np.maximum.accumulate(np.pad(ordered, ((0, 0), (1, 0)), constant_values=-np.inf), axis=1)[:, :-1]
    leader = np.maximum.accumulate(np.where(ordered > before, np.arange(cost.shape[1]), 0), axis=1)
    costs = np.take_along_axis(cost, order, 1)
    equals = (ordered == np.take_along_axis(ordered, leader, 1)) & (costs == np.take_along_axis(costs, leader, 1))
    kept = np.empty(cost.shape, dtype=bool)
    np.put_along_axis(kept, order, equals, 1)
    return kept


def _envelope(cost: Array, accuracy: Array, grid: Array) -> Array:
    """The best accuracy of each row at no more than each cost; below all costs, that of the cheapest."""
    order = np.argsort(cost, axis=1, kind="stable")
    costs = np.take_along_axis(cost, order, 1)
    best = np.maximum.accumulate(np.take_along_axis(accuracy, order, 1), axis=1)
    found = np.empty((len(cost), len(grid)))
    for row in range(len(cost)):
        place = np.searchsorted(costs[row], grid, side="right") - 1
        found[row] = best[row, np.maximum(place, 0)]
    return found


def _best(accuracy: Array, cost: Array, budget: float) -> int:
    """Index of the most accurate configuration within the budget; of equals the cheapest."""
    affordable = np.flatnonzero(cost <= budget)
    return int(affordable[np.lexsort((cost[affordable], -accuracy[affordable]))[0]])


def _interpolated(cost: Array, accuracy: Array, at: Array) -> Array:
    order = np.argsort(cost, kind="stable")
    return np.asarray(np.interp(at, cost[order], np.maximum.accumulate(accuracy[order])))
