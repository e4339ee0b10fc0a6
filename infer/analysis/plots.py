"""The report's pictures: one function each, from tables to a matplotlib figure.

Colours are Okabe and Ito's, which people with any kind of colour vision can distinguish. Markers, line styles and
hatches repeat the distinction.
"""

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

Array = np.ndarray[Any, Any]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.dpi": 110,
    "savefig.bbox": "tight",
    "svg.fonttype": "path",
    "text.parse_math": False,
}
UNIT_NAMES = {
    "tokens": "tokens generated",
    "prm": "PRM passes",
    "seconds": "seconds",
    "flops": "FLOPs",
    "eflops": "eFLOPs",
    "dollars": "US dollars",
}
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MOST = 8
"""Configurations that one picture shows at most, each with its own colour and marker."""

NUMBERED = 12
"""Configurations on a frontier that the legend names."""


def curves(points: pd.DataFrame, families: Mapping[str, Sequence[str]], unit: str) -> Figure:
    """Accuracy against cost: `points` come from `infer.analysis.curve`; each family is a line with its band."""
    figure, axes = _figure(7.2, 4.4)
    known = points.set_index("configuration")
    alpha = 0.15 if len(families) <= 4 else 0.08  # many bands lie on one another
    for index, (name, members) in enumerate(families.items()):
        part = known.loc[[member for member in members if member in known.index]].sort_values("cost")
        if part.empty:
            continue
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        axes.plot(
            part["cost"], part["accuracy"], marker=marker, color=colour, linestyle=_dash(index), label=name, zorder=3
        )
        if len(part) > 1:
            axes.fill_between(part["cost"], part["low"], part["high"], color=colour, alpha=alpha, linewidth=0)
        else:
            reach = [part["accuracy"] - part["low"], part["high"] - part["accuracy"]]
            axes.errorbar(part["cost"], part["accuracy"], reach, fmt="none", ecolor=colour, elinewidth=1, capsize=2.5)
    _cost_axis(axes, points["cost"], unit)
    _accuracy_axis(axes)
    _legend(axes)
    return figure


def frontier(everything: pd.DataFrame, best: pd.DataFrame, steps: pd.DataFrame, unit: str) -> Figure:
    """All configurations (a table of `curve`), and the best accuracy at each cost (the two tables of `frontier`)."""
    figure, axes = _figure(7.2, 4.4)
    others = everything[~everything["configuration"].isin(best["configuration"])]
    if len(others):  # rings, which are visible around a numbered point too
        ring: dict[str, Any] = {"color": "#999999", "fillstyle": "none", "markersize": 9, "clip_on": False}
        axes.plot(others["cost"], others["accuracy"], "o", **ring, zorder=6, label="beaten by another")
    low, high = steps["low"], steps["high"]
    axes.fill_between(steps["cost"], low, high, step="post", color=COLOURS[0], alpha=0.15, linewidth=0)
    axes.step(steps["cost"], steps["accuracy"], where="post", color=COLOURS[0], zorder=3)
    places = zip(numbers(best), best["configuration"], best["cost"], best["accuracy"], strict=True)
    for number, name, cost, accuracy in places:
        label = f"{number}  {name}" if number <= NUMBERED else None
        axes.plot(cost, accuracy, "o", color=COLOURS[0], markersize=13, zorder=4, clip_on=False, label=label)
        axes.text(cost, accuracy, str(number), color="white", ha="center", va="center", fontsize=8, zorder=5)
    _cost_axis(axes, everything["cost"], unit)
    _accuracy_axis(axes)
    _legend(axes, markerscale=0.5)
    return figure


def numbers(best: pd.DataFrame) -> pd.Series:
    """The numbers of the configurations on a frontier; those with equal cost and accuracy share one."""
    return (~best.duplicated(["cost", "accuracy"])).cumsum()


def samples(tables: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Accuracy of k of n samples: for each configuration and way of choosing, a table of k, mean, low and high."""
    names = {
        "pass": "any of them is right (pass@k)",
        "weighted": "score-weighted vote",
        "best": "best score",
        "majority": "majority vote",
    }
    figure, panels = _panels(len(tables), 3.5, 3.1, share_y=True)
    for axes, (title, ways) in zip(panels, tables.items(), strict=True):
        for index, (how, label) in enumerate(names.items()):
            if how not in ways:
                continue
            part = ways[how].dropna()
            axes.plot(
                part["k"],
                part["mean"],
                marker=MARKERS[index],
                color=COLOURS[index],
                linestyle=_dash(index),
                label=label,
            )
            axes.fill_between(part["k"], part["low"], part["high"], color=COLOURS[index], alpha=0.12, linewidth=0)
        axes.set_xscale("log", base=2)
        ks = sorted({k for table in ways.values() for k in table["k"]})
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("samples k")
        axes.set_title(_wrap(title, 38), fontsize=10)
    _accuracy_axis(panels[0])  # which the others share
    _shared_legend(figure, panels)
    return figure


def levels(table: pd.DataFrame) -> Figure:
    """Accuracy by level: a table with the columns level, configuration, mean, low, high."""
    shown = list(dict.fromkeys(table["configuration"]))[:MOST]
    names = list(dict.fromkeys(table["level"]))
    figure, axes = _figure(max(6.0, min(12.0, 1.2 + 0.16 * len(shown) * len(names) + 0.3 * len(names))), 3.8)
    width = 0.84 / len(shown)
    for index, configuration in enumerate(shown):
        part = table[table["configuration"] == configuration].set_index("level").reindex(names)
        place = np.arange(len(names)) + (index - (len(shown) - 1) / 2) * width
        reach = [part["mean"] - part["low"], part["high"] - part["mean"]]
        axes.bar(
            *(place, part["mean"], width * 0.9),
            color=COLOURS[index],
            label=configuration,
            edgecolor="white",
            hatch=("", "///", "...", "xx", "\\\\\\", "++", "oo", "--")[index],
            linewidth=0,
        )
        bars = axes.errorbar(place, part["mean"], reach, fmt="none", ecolor="#333333", elinewidth=0.9, capsize=1.5)
        for line in bars.get_children():
            line.set_path_effects([withStroke(linewidth=2.4, foreground="white")])  # visible on a black bar too
    room = int(12 * (figure.get_figwidth() - 1) / len(names))  # letters
    if max((len(word) for name in names for word in name.split()), default=1) <= room:
        axes.set_xticks(np.arange(len(names)), [_wrap(name, room) for name in names])
    else:
        axes.set_xticks(np.arange(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("level")
    _accuracy_axis(axes, zero=True)
    _legend(axes)
    return figure


def lengths(tables: Mapping[str, tuple[Array, Array]]) -> Figure:
    """Histograms of the candidates' tokens: for each configuration, the numbers of right and of wrong ones."""
    figure, panels = _panels(len(tables), 3.5, 2.6)
    longest = max((int(part.max(initial=1)) for pair in tables.values() for part in pair), default=1)
    bins = np.linspace(0, longest, min(40, longest) + 1)
    for axes, (title, (right, wrong)) in zip(panels, tables.items(), strict=True):
        total = max(1, len(right) + len(wrong))
        for values, colour, label, hatch in ((right, COLOURS[0], "right", ""), (wrong, COLOURS[1], "wrong", "////")):
            heights = np.histogram(values, bins)[0] / total
            axes.stairs(heights, bins, color=colour, linewidth=1.4, label=label)
            axes.stairs(heights, bins, fill=True, facecolor=colour, alpha=0.2, linewidth=0)
            axes.stairs(heights, bins, fill=True, facecolor="none", edgecolor=colour, hatch=hatch, linewidth=0)
        axes.set_xlabel("tokens of a candidate")
        axes.set_title(_wrap(title, 38), fontsize=10)
        _percents(axes.yaxis)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
        if axes is panels[0]:
            axes.set_ylabel("share of candidates")
    _shared_legend(figure, panels)
    return figure


def calibration(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Reliability diagrams: for each configuration, bins of the score with the share of right candidates.

    Columns: score (mean of the bin), mean, low, high (share right), size (share of candidates), left, right (edges).
    """
    figure, panels = _panels(len(tables), 3.4, 3.4, share_y=True)
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1, label="calibrated")
        axes.bar(
            *(table["left"], table["size"]),
            width=table["right"] - table["left"],
            align="edge",
            color="#56B4E9",
            alpha=0.35,
            linewidth=0,
            label="share of candidates",
        )
        reach = [table["mean"] - table["low"], table["high"] - table["mean"]]
        axes.errorbar(
            *(table["score"], table["mean"], reach),
            fmt="o-",
            clip_on=False,
            color=COLOURS[1],
            elinewidth=1,
            capsize=2.5,
            label="share right",
        )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("score")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_title(_wrap(title, 38), fontsize=10)
        _percents(axes.yaxis)
        if axes is panels[0]:
            axes.set_ylabel("share")
    _shared_legend(figure, panels)
    return figure


def spending(table: pd.DataFrame) -> Figure:
    """Tokens per problem by kind: configurations are rows, kinds are columns."""
    figure, axes = _figure(7.2, 1.3 + (0.42 if len(table) <= 10 else 0.28) * len(table))
    left = np.zeros(len(table))
    place = np.arange(len(table))[::-1]
    for index, kind in enumerate(table.columns):
        values = table[kind].to_numpy(dtype=np.float64)
        axes.barh(
            *(place, values, 0.66),
            left=left,
            color=COLOURS[(0, 1, 2, 3)[index % 4]],
            hatch=("", "////", "....", "xx")[index % 4],
            edgecolor="white",
            linewidth=0,
            label=kind,
        )
        left += values
    axes.set_yticks(place, [_wrap(str(name), 34 if len(table) <= 10 else 80) for name in table.index])
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("tokens per problem")
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.set_xlim(0, 1.04 * max(1.0, left.max()))
    _legend(axes, columns=min(4, len(table.columns)))
    return figure


def render(figure: Figure, kind: Literal["svg", "png"], name: str = "figure") -> bytes:
    """The content of the figure's file, the same bytes each time. `name` makes the ids in an SVG unique on a page."""
    buffer = io.BytesIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def drawn(plot: Callable[..., Figure], *tables: Any) -> Figure:
    """Calls a function of this module in the report's style, whatever the user's own settings are."""
    with mpl.rc_context(STYLE):
        return plot(*tables)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _panels(count: int, width: float, height: float, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    columns = min(3, max(1, count))
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(4.6, width * columns), height * rows + 0.35), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=share_y, squeeze=False)
    for axes in grid.ravel()[count:]:
        axes.set_visible(False)
    return figure, list(grid.ravel()[:count])


def _cost_axis(axes: Axes, cost: pd.Series, unit: str) -> None:
    positive = cost[cost > 0]
    if len(positive) == len(cost) and len(cost) and cost.max() / cost.min() > 4:
        axes.set_xscale("log")
        wide = cost.max() / cost.min() > 1000
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.set_xlabel(f"{UNIT_NAMES.get(unit, unit.replace('_', ' '))} per problem")


def _accuracy_axis(axes: Axes, zero: bool = False) -> None:
    """Call it after everything is drawn: it fixes the limits."""
    _percents(axes.yaxis)
    low, high = (0, 1) if zero else np.clip(axes.get_ylim(), 0, 1)
    edge = 0.02 * (high - low)  # room for half of a marker; no share lies beyond 0 and 1
    axes.set_ylim(low - (0 if zero else edge), high + edge)
    axes.set_ylabel("accuracy")


def _percents(axis: Axis) -> None:
    """Labels shares as percents, without decimals unless ticks are closer than one percent."""
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g}%"))


def _legend(axes: Axes, *, columns: int | None = None, **options: Any) -> None:
    """A legend below the axes, in as many columns as the lengths of the names allow."""
    handles, names = axes.get_legend_handles_labels()
    if not names:
        return
    if columns is None:
        columns = max(1, min(3, int(88 / (8 + max(map(len, names))))))
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, handlelength=2.6, **options)


def _shared_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    entries: dict[str, Any] = {}
    for axes in panels:
        handles, names = axes.get_legend_handles_labels()
        entries |= dict(zip(names, handles, strict=True))
    columns = min(len(entries), 2 if len(panels) == 1 else 4)
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=max(1, columns))


def _dash(index: int) -> str:
    return DASHES[index % len(DASHES)]


def _short(value: float, _: Any = None) -> str:
    """Writes 3000 as 3k, and powers of ten from a trillion on."""
    if value == 0:
        return "0"
    if abs(value) >= 1e12 or abs(value) < 1e-3:
        exponent = math.floor(math.log10(abs(value)) + 1e-9)
        return f"{value / 10**exponent:g}×10{str(exponent).translate(SUPERSCRIPT)}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _wrap(text: str, width: int) -> str:
    return "\n".join(part for line in text.splitlines() for part in textwrap.wrap(line, width))
