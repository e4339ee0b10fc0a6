"""The tables of a report: all configurations, differences, fitted laws, the best use of a budget.

Each is a frame with the formats of its columns; `infer.analysis.html` writes it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from infer.analysis import plots
from infer.analysis.curves import Outcomes, allocation, sampled
from infer.analysis.estimates import compare
from infer.analysis.fits import LOG_LINEAR, SATURATING, fit_curve
from infer.analysis.frames import Runs
from infer.analysis.pools import graded_pools
from infer.core.formats import quantity
from infer.errors import UserError

Format = Callable[[float], str]

LINES = 40
"""Configurations that a list shows at most."""


@dataclass(frozen=True)
class Table:
    """A frame with the formats of its numeric columns, and a note for its reader."""

    frame: pd.DataFrame
    formats: Mapping[str, Format] = field(default_factory=dict)
    note: str = ""


def overview(summary: pd.DataFrame, confidence: float) -> Table:
    """The configurations of `infer.analysis.report.summary`, without the settings that all of them share."""
    shown = pd.DataFrame({"configuration": summary["configuration"]})
    for name in ("model", "prm", "budget"):
        if summary[name].nunique() > 1:
            shown[name] = summary[name]
    shown["runs"], shown["problems"] = summary["runs"], summary["problems"]
    shown["accuracy"] = summary["accuracy"]
    shown[f"{confidence:.0%} interval"] = [
        f"{low:.1%} to {high:.1%}" if low == low else "not graded"
        for low, high in zip(summary["low"], summary["high"], strict=True)
    ]
    costs = {"tokens": "tokens", "prm_passes": "PRM passes", "seconds": "seconds"}
    after = list(summary.columns).index("discarded") + 1
    costs |= {name: plots.UNIT_NAMES.get(name, name) for name in summary.columns[after:]}
    for column, name in costs.items():
        shown[name] = summary[column]
    shown["discarded"] = summary["discarded"]
    note = (
        "Means per problem. Seconds are from the start of a search to its answer, while other problems run beside it. "
        "Discarded: tokens that are not on the answer's trajectory."
    )
    formats = {"accuracy": percent, **dict.fromkeys(costs.values(), number), "discarded": percent}
    return Table(shown, formats, note)


def reference(runs: Runs, unit: str, against: str | None) -> str:
    """The configuration that others are compared with: `against` if it is here, else the cheapest graded one."""
    names = runs.runs["configuration"].unique().tolist()
    if against in names:
        return str(against)
    costs = runs.cost(unit)[runs.problems["correct"].notna()].groupby(runs.problems["configuration"], observed=True)
    known = costs.mean().dropna()
    return str(min((name for name in names if name in known.index), key=known.__getitem__, default=names[0]))


def differences(runs: Runs, first: str, unit: str, confidence: float, draws: int) -> Table | None:
    """All configurations against one; None where none has a graded problem in common with it."""
    others = [name for name in runs.runs["configuration"].unique() if name != first]
    rows = []
    for other in others[:LINES]:
        with suppress(UserError):  # no graded problem in common
            found = compare(runs, first, other, unit=unit, confidence=confidence, draws=draws)
            times = ratio(found.cost_b, found.cost_a)
            rows.append((other, found.mean, f"{found.low:+.1%} to {found.high:+.1%}", found.mcnemar_p, times))
    if not rows:
        return None
    columns = ["configuration", "difference", f"{confidence:.0%} interval", "McNemar's p", f"times the {in_unit(unit)}"]
    formats: dict[str, Format] = {"difference": lambda value: f"{value:+.1%}", columns[3]: p_value, columns[4]: number}
    note = (
        f"Each configuration against {first}, paired over the problems that both have (Bonett and Price's interval; "
        "exact McNemar test where each problem was run once). A difference at another cost is no advantage by itself."
    )
    return Table(pd.DataFrame(rows, columns=columns), formats, note)


def laws(of: Outcomes, lines: Mapping[str, Sequence[str]]) -> Table | None:
    """The test-time laws fitted to each line of at least four points; None where none fits."""
    rows = []
    for name, members in lines.items():
        there = [member for member in members if member in of.correct]
        if len(there) < 4 or not (of.cost[there].mean() > 0).all():
            continue
        for law in (LOG_LINEAR, SATURATING):
            with suppress(UserError):  # a law that does not fit
                found = fit_curve(law, of, there, draws=100)
                values = [
                    f"{key} = {value:.3g} ({found.intervals[key][0]:.3g} to {found.intervals[key][1]:.3g})"
                    for key, value in found.parameters.items()
                ]
                rows.append((name, law.formula, ", ".join(values), found.r2))
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["line", "law", "parameters, 95% intervals of resampled problems", "R²"])
    return Table(frame, {"R²": "{:.3f}".format}, "Laws fitted to the lines with at least four points.")


def undominated(best: pd.DataFrame, unit: str) -> Table:
    """The configurations on a frontier, with their numbers in its picture."""
    cost = in_unit(unit)
    frame = best.rename(columns={"chosen": "on the frontier in", "cost": cost})
    return Table(frame, {"accuracy": percent, "on the frontier in": percent, cost: number})


def best_uses(runs: Runs, of: Outcomes, draws: int) -> Table | None:
    """The best configuration for eight budgets, votes over k samples included; None with fewer than two costs."""
    with suppress(UserError):  # no independent samples: the configurations alone
        of = of + sampled(graded_pools(runs), ["majority"], unit=of.unit)
    cost = of.cost.mean()
    cost = cost[cost > 0]
    if len(cost) < 2:
        return None
    budgets = np.geomspace(cost.min(), cost.max(), 8)
    digit = 10.0 ** (np.floor(np.log10(budgets)) - 1)
    budgets = np.ceil(budgets / digit) * digit  # to two digits, upwards
    unit = in_unit(of.unit)
    frame = allocation(of, budgets.tolist(), draws=draws).rename(
        columns={"budget": f"budget, {unit}", "cost": unit, "chosen": "best in", "runner_up": "runner-up"}
    )
    note = (
        "The most accurate configuration whose mean cost is within each budget per problem, and the share of resamples "
        "of the problems in which the same one is the best. Majority votes over k of the independent samples take part."
    )
    return Table(frame, {f"budget, {unit}": number, "accuracy": percent, unit: number, "best in": percent}, note)


def in_unit(unit: str) -> str:
    """A unit of cost in words."""
    return plots.UNIT_NAMES.get(unit, unit.replace("_", " "))


def ratio(part: float, whole: float) -> float:
    """`part / whole`; NaN where the whole is zero."""
    return part / whole if whole else np.nan


def percent(value: float) -> str:
    return f"{value:.1%}"


def p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def number(value: float) -> str:
    """Three significant digits, thousands in full; from a million on with a prefix."""
    if abs(value) >= 1e6:
        return quantity(value)
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.3g}"
