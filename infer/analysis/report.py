"""What `infer report` shows: a table for the terminal, and one HTML file that needs nothing else."""

import html
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from infer.analysis import plots
from infer.analysis.curves import Outcomes, allocation, curve, families, frontier, outcomes, sampled
from infer.analysis.estimates import auroc, compare, reliability, share
from infer.analysis.fits import LOG_LINEAR, SATURATING, fit_curve
from infer.analysis.frames import Runs, read
from infer.analysis.pools import How, at_k, independent
from infer.core.formats import natural, quantity
from infer.errors import UserError, WriteError

Format = Literal["png", "svg", "csv"]
PANELS = 6
"""Configurations that get a panel of their own."""
LINES = 40
"""Configurations that a list of them all shows."""

BINS = 10


def summary(runs: Runs, unit: str = "tokens", confidence: float = 0.95) -> pd.DataFrame:
    """One row a configuration, in the order of the runs: what it is, its accuracy, and its cost per problem.

    Columns: evalset, configuration, model, prm, strategy, options, budget, runs, problems, accuracy, low, high (NaN
    where nothing was graded), tokens, prm_passes, seconds, discarded (share of the tokens), and `unit` if another.
    """
    problems = runs.problems.assign(cost=runs.cost(unit))
    rows = []
    for configuration, members in runs.runs.groupby("configuration", sort=False):
        part = problems[problems["configuration"] == configuration]
        estimate = share(part["correct"], part["problem_id"], confidence)
        first = members.iloc[0]
        graded = estimate.problems > 0
        row = {
            "evalset": first["evalset"],
            "configuration": configuration,
            **{name: first[name] for name in ("model", "prm", "strategy", "options", "budget")},
            "runs": len(members),
            "problems": part["problem_id"].nunique(),
            "accuracy": estimate.mean,
            "low": estimate.low if graded else np.nan,
            "high": estimate.high if graded else np.nan,
            "tokens": part["generated"].mean(),
            "prm_passes": part["passes"].mean() if "passes" in part else np.nan,
            "seconds": part["seconds"].mean(),
            "discarded": _ratio(part["discarded"].sum(), part["generated"].sum()) if "discarded" in part else np.nan,
        }
        rows.append(row if unit in ("tokens", "prm", "seconds") else {**row, unit: part["cost"].mean()})
    return pd.DataFrame(rows)


def write_report(
    paths: Sequence[str | Path] | Runs,
    out: str | Path,
    *,
    unit: str = "tokens",
    formats: Sequence[Format] = (),
    confidence: float = 0.95,
    draws: int = 1000,
) -> list[Path]:
    """Writes the report on these runs to the HTML file `out`, and says what files it wrote.

    Each picture and its table is also written beside it in `formats`, as `<out>-<name>.png` and so on. Costs are in
    `unit` (see `Runs.cost`); bands come from `draws` resamples of the problems. Raises UserError for runs that can't be
    read or don't count that unit, WriteError where the file can't be written.
    """
    runs = paths if isinstance(paths, Runs) else read(paths)
    out = Path(out)
    runs.cost(unit)
    written = []
    sections = []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for evalset, part in _by_evalset(runs):
            title = f"<h2>{html.escape(str(evalset))}</h2>" if runs.runs["evalset"].nunique() > 1 else ""
            prefix = f"{_slug(evalset)}-" if title else ""
            table = summary(part, unit, confidence)
            if "csv" in formats:
                written.append(_write(out, f"{prefix}summary.csv", table.to_csv(index=False).encode()))
            blocks = [title, _summary_html(table, confidence)]
            for shown in _pictures(part, unit, confidence, draws):
                blocks.append(shown.html(f"{prefix}{shown.name}"))
                for kind in formats:
                    if (content := shown.content(kind)) is not None:
                        written.append(_write(out, f"{prefix}{shown.name}.{kind}", content))
            sections.append("\n".join(blocks))
        page = _page(runs, "\n".join(sections))
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise WriteError(f"cannot write {out}: {error.strerror or error}: name another file with --html") from error
    return [out, *written]


@dataclass(frozen=True)
class _Picture:
    """A figure with its caption and the numbers behind it; without a figure, why there is none."""

    name: str
    title: str
    caption: str
    figure: Figure | None
    table: pd.DataFrame | None = None
    extra: str = ""
    """HTML below the figure."""

    def html(self, key: str) -> str:
        if self.figure is None:
            return (
                f'<section><h3>{self.title}</h3><p class="none">Not shown: {html.escape(self.caption)}.</p></section>'
            )
        svg = plots.render(self.figure, "svg", key).decode()
        svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{html.escape(self.title)}"', 1)
        text = f"<figcaption>{self.caption}</figcaption>"
        return f"<section><h3>{self.title}</h3><figure>{svg}{text}</figure>{self.extra}</section>"

    def content(self, kind: Format) -> bytes | None:
        if kind == "csv":
            return self.table.to_csv(index=False).encode() if self.table is not None else None
        return plots.render(self.figure, kind, self.name) if self.figure is not None else None


def _by_evalset(runs: Runs) -> Iterator[tuple[Any, Runs]]:
    evalsets = runs.runs["evalset"].fillna("no evaluation set")
    for evalset in evalsets.unique():
        yield evalset, runs.select(evalsets == evalset)


def _pictures(runs: Runs, unit: str, confidence: float, draws: int) -> Iterator[_Picture]:
    """All of the report's pictures; one that these runs can't give says why."""

    def outcome() -> Outcomes:
        known = runs.cost(unit).notna().groupby(runs.problems["configuration"], observed=True).any()
        if not known.all():
            unknown = ", ".join(known.index[~known].astype(str))
            raise UserError(f"what these cost in {_unit(unit)} is not known: {unknown}: choose another unit")
        return outcomes(runs, unit)

    plans: list[tuple[str, str, Callable[[], _Picture]]] = [
        ("curves", "Accuracy against cost", lambda: _curves(runs, outcome(), confidence, draws)),
        ("frontier", "What one can get for each cost", lambda: _frontier(runs, outcome(), confidence, draws)),
        ("samples", "What k of the samples give", lambda: _samples(runs, confidence)),
        ("levels", "Accuracy by level", lambda: _levels(runs, confidence)),
        ("calibration", "Does the score say what is right?", lambda: _calibration(runs, confidence)),
        ("lengths", "Tokens of right and wrong candidates", lambda: _lengths(runs)),
        ("spending", "Where the budget went", lambda: _spending(runs)),
    ]
    for name, title, plan in plans:
        try:
            if runs.problems.empty:
                raise UserError("no problem has a solution yet")
            yield plan()
        except UserError as error:
            yield _Picture(name, title, str(error), None)


def _curves(runs: Runs, of: Outcomes, confidence: float, draws: int) -> _Picture:
    points = curve(of, confidence)
    there = set(of.correct.columns)
    shown = {name: members for name, members in families(runs).items() if there.intersection(members)}
    caption = (
        f"Each point is a configuration on {len(of.correct)} problems, the mean over its runs; a line joins "
        "configurations that differ only in their budget or in whole-number options. Bars and bands: "
        f"{confidence:.0%} intervals (Wilson, clustered by problem)."
    )
    if of.left_out:
        caption += f" {of.left_out} problems that not all configurations have are left out."
    if len(shown) > plots.MOST:
        caption += f" Only the first {plots.MOST} of {len(shown)} lines are drawn."
        shown = dict(list(shown.items())[: plots.MOST])
    figure = plots.drawn(plots.curves, points, shown, of.unit)
    extra = _differences(runs, of.unit, confidence, draws) + _laws(of, shown)
    return _Picture("curves", "Accuracy against cost", caption, figure, points, extra)


def _differences(runs: Runs, unit: str, confidence: float, draws: int) -> str:
    """A table of all configurations against the first."""
    first, *others = runs.runs["configuration"].unique()
    rows = []
    for other in others[:LINES]:
        with suppress(UserError):  # no graded problem in common
            found = compare(runs, first, other, unit=unit, confidence=confidence, draws=draws)
            ratio = _ratio(found.cost_b, found.cost_a)
            rows.append((other, found.mean, f"{found.low:+.1%} to {found.high:+.1%}", found.mcnemar_p, ratio))
    if not rows:
        return ""
    columns = ["configuration", "difference", f"{confidence:.0%} interval", "McNemar's p", f"times the {_unit(unit)}"]
    kinds: dict[str, Callable[[float], str]] = {
        "difference": lambda value: f"{value:+.1%}",
        columns[3]: _p,
        columns[4]: _number,
    }
    text = (
        f"Each configuration against {html.escape(str(first))}, paired over the problems that both have (Bonett and "
        "Price's interval; exact McNemar test where each problem was run once). At another cost, a difference is no "
        "advantage."
    )
    return f'<p class="note">{text}</p>{_table(pd.DataFrame(rows, columns=columns), kinds)}'


def _laws(of: Outcomes, shown: Mapping[str, Sequence[str]]) -> str:
    """A table of the test-time laws that fit each line of at least four points."""
    rows = []
    for name, members in shown.items():
        there = [member for member in members if member in of.correct]
        for law in (LOG_LINEAR, SATURATING):
            with suppress(UserError):  # a law that does not fit
                if len(there) >= 4 and (of.cost[there].mean() > 0).all():
                    found = fit_curve(law, of, there, draws=100)
                    values = [
                        f"{key} = {value:.3g} ({found.intervals[key][0]:.3g} to {found.intervals[key][1]:.3g})"
                        for key, value in found.parameters.items()
                    ]
                    rows.append((name, law.formula, ", ".join(values), found.r2))
    if not rows:
        return ""
    table = pd.DataFrame(rows, columns=["line", "law", "parameters, 95% intervals of resampled problems", "R²"])
    return (
        f'<p class="note">Laws fitted to the lines of four points and more.</p>{_table(table, {"R²": "{:.3f}".format})}'
    )


def _frontier(runs: Runs, of: Outcomes, confidence: float, draws: int) -> _Picture:
    best, steps = frontier(of, confidence=confidence, draws=draws)
    caption = (
        "The step line is the best accuracy among configurations that cost no more; the band is its "
        f"{confidence:.0%} interval over {draws:,} resamples of the problems. The best of several noisy numbers lies a "
        "little high: the share of resamples in which a configuration is on the frontier says how far to trust it."
    )
    figure = plots.drawn(plots.frontier, curve(of, confidence), best, steps, of.unit)
    best.insert(0, "", plots.numbers(best))
    shown = best.rename(columns={"chosen": "on the frontier in", "cost": _unit(of.unit)})
    kinds = {"accuracy": _percent, "on the frontier in": _percent, _unit(of.unit): _number}
    title = "What one can get for each cost"
    return _Picture("frontier", title, caption, figure, best, _table(shown, kinds) + _allocation(runs, of, draws))


def _samples(runs: Runs, confidence: float) -> _Picture:
    pooled = _pools(runs)
    shown = _largest(pooled)[:PANELS]
    pooled = pooled.select(pooled.runs["configuration"].isin(shown))
    tables: dict[str, dict[str, pd.DataFrame]] = {}
    flat = []
    hows: list[How] = ["pass", "majority"]
    if pooled.candidates(["score"])["score"].notna().any():
        hows += ["best", "weighted"]
    ways = {how: at_k(pooled, how, draws=200) for how in hows}
    for configuration in shown:
        rows = (pooled.problems["configuration"] == configuration).to_numpy()
        for how, values in ways.items():
            estimates = [
                (int(k), share(values.loc[rows, k], pooled.problems.loc[rows, "problem_id"], confidence))
                for k in values.columns
            ]
            table = pd.DataFrame(
                [(k, e.mean, e.low, e.high, e.problems, e.missing) for k, e in estimates if e.problems],
                columns=["k", "mean", "low", "high", "problems", "missing"],
            )
            if table.empty:  # such as a vote by score where there are no scores
                continue
            tables.setdefault(configuration, {})[how] = table
            flat.append(table.assign(configuration=configuration, choice=how))
    caption = (
        "Every number is the mean over all subsets of k of a problem's samples, not of the first k: exact, but for the "
        "weighted vote (200 random subsets a problem). Ties are broken uniformly. Problems with fewer than k samples "
        f"are left out at that k. Bands: {confidence:.0%}, clustered by problem, each k by itself."
    ) + _chosen_text(runs, shown)
    figure = plots.drawn(plots.samples, tables)
    return _Picture("samples", "What k of the samples give", caption, figure, pd.concat(flat))


def _allocation(runs: Runs, of: Outcomes, draws: int) -> str:
    """A table of the best use of some budgets, with what k of the samples would have given among the choices."""
    with suppress(UserError):  # nothing was sampled independently: the configurations alone
        of = of + sampled(_pools(runs), ["majority"], unit=of.unit)
    cost = of.cost.mean()
    cost = cost[cost > 0]
    if len(cost) < 2:
        return ""
    budgets = np.geomspace(cost.min(), cost.max(), 8)
    digit = 10.0 ** (np.floor(np.log10(budgets)) - 1)
    budgets = np.ceil(budgets / digit) * digit  # to two digits, upwards
    unit = _unit(of.unit)
    table = allocation(of, budgets.tolist(), draws=draws).rename(
        columns={"budget": f"budget, {unit}", "cost": unit, "chosen": "best in", "runner_up": "or else"}
    )
    text = (
        "For each budget a problem, the most accurate configuration whose mean cost is within it, majority votes over "
        "k of the independent samples included, and in how many resamples of the problems the same one is the best."
    )
    kinds = {f"budget, {unit}": _number, "accuracy": _percent, unit: _number, "best in": _percent}
    return f'<p class="note">{text}</p>{_table(table, kinds)}'


def _levels(runs: Runs, confidence: float) -> _Picture:
    problems = runs.problems[runs.problems["level"].notna()]
    if problems.empty:
        raise UserError("these problems have no levels")
    problems = problems[problems["correct"].notna()]
    if problems.empty:
        raise UserError("no problem was graded: these runs have no reference answers")
    shown = _largest(runs, set(problems["configuration"]))[: plots.MOST]
    problems = problems[problems["configuration"].isin(shown)]
    rows = []
    for (level, configuration), part in problems.groupby(["level", "configuration"], observed=True, sort=False):
        estimate = share(part["correct"], part["problem_id"], confidence)
        rows.append((str(level), str(configuration), estimate.mean, estimate.low, estimate.high, estimate.problems))
    rows.sort(key=lambda row: (natural(row[0]), shown.index(row[1])))
    table = pd.DataFrame(rows, columns=["level", "configuration", "mean", "low", "high", "problems"])
    caption = f"Bars: {confidence:.0%} intervals (Wilson, clustered by problem)." + _chosen_text(runs, shown)
    return _Picture("levels", "Accuracy by level", caption, plots.drawn(plots.levels, table), table)


def _calibration(runs: Runs, confidence: float) -> _Picture:
    candidates = runs.candidates(["score", "correct"])
    candidates = candidates[candidates["score"].notna() & candidates["correct"].notna()]
    if candidates.empty:
        raise UserError("no candidate has a score and a reference")
    rows = runs.problems.iloc[candidates["problem"]]
    names, ids = rows["configuration"].to_numpy(), rows["problem_id"].to_numpy()
    how = runs.runs.set_index("configuration")["aggregation"].to_dict()
    tables, flat = {}, []
    shown = _largest(runs, set(names))[:PANELS]
    for configuration in shown:
        own = names == configuration
        score, right, problem = (
            values[own] for values in (candidates["score"].to_numpy(), candidates["correct"].to_numpy(), ids)
        )
        table = reliability(score, right, problem, BINS, confidence)
        error = float((table["size"] * (table["mean"] - table["score"]).abs()).sum())
        title = f"{configuration}\n{how[configuration]} score, AUROC {auroc(score, right):.2f}, ECE {error:.2f}"
        tables[title] = table
        flat.append(table.assign(configuration=configuration))
    caption = (
        f"Candidates in {BINS} bins of the score by which the run aggregates its steps, and the share of them that is "
        f"right ({confidence:.0%} intervals, clustered by problem). AUROC: the chance that a right candidate scores "
        "above a wrong one. ECE: mean distance from the diagonal. A search's candidates are those it kept."
    ) + _chosen_text(runs, shown)
    figure = plots.drawn(plots.calibration, tables)
    return _Picture("calibration", "Does the score say what is right?", caption, figure, pd.concat(flat))


def _lengths(runs: Runs) -> _Picture:
    candidates = runs.candidates(["num_tokens", "correct", "finished"])
    candidates = candidates[candidates["finished"] & candidates["correct"].notna()]
    if candidates.empty:
        raise UserError("no complete candidate was graded")
    names = runs.problems["configuration"].to_numpy()[candidates["problem"].to_numpy()]
    tokens, right = candidates["num_tokens"].to_numpy(), candidates["correct"].to_numpy()
    tables, flat = {}, []
    shown = _largest(runs, set(names))[:PANELS]
    for configuration in shown:
        own = names == configuration
        tables[configuration] = tokens[own & (right == 1)], tokens[own & (right == 0)]
        counts = pd.DataFrame({"tokens": tokens[own], "right": right[own]}).value_counts().reset_index()
        flat.append(counts.assign(configuration=configuration))
    caption = "Tokens of each complete candidate, as shares of all that were graded of its configuration."
    caption += _chosen_text(runs, shown)
    figure = plots.drawn(plots.lengths, tables)
    return _Picture("lengths", "Tokens of right and wrong candidates", caption, figure, pd.concat(flat))


def _spending(runs: Runs) -> _Picture:
    problems = runs.problems
    zero = pd.Series(0.0, index=problems.index)

    def count(name: str) -> pd.Series:
        return problems.get(name, zero)

    kinds = pd.DataFrame(
        {
            "generated, kept": count("generated") - count("discarded"),
            "generated, discarded": count("discarded"),
            "prompt computed": count("prefill"),
            "verifier": count("verifier_prefill") + count("verifier_generated"),
        }
    )
    table = kinds.groupby(problems["configuration"], observed=True).mean()
    table = table.reindex([name for name in dict.fromkeys(runs.runs["configuration"]) if name in table.index])
    if table.empty:
        raise UserError("nothing was spent")
    table = table.loc[:, (table > 0).any()] if (table > 0).any(axis=None) else table
    left_out = len(table) - LINES
    table = table.head(LINES)
    cached = (count("cached") + count("verifier_cached")).groupby(problems["configuration"], observed=True).mean()
    caption = (
        "Mean tokens per problem. Kept: on the trajectory of the answer. Verifier: computed or generated by it. Not "
        f"drawn: prompt tokens read from a prefix cache, up to {cached.max():,.0f} a problem. Tokens of models of "
        "different sizes cost different amounts of compute."
    )
    if left_out > 0:
        caption += f" The first {LINES} of {LINES + left_out} configurations."
    figure = plots.drawn(plots.spending, table)
    return _Picture("spending", "Where the budget went", caption, figure, table.assign(cached=cached).reset_index())


def _largest(runs: Runs, among: Collection[str] | None = None) -> list[str]:
    """The dearest configuration of each family in tokens: `among` these, or all."""
    spent = runs.problems["generated"].groupby(runs.problems["configuration"].astype(str)).mean()
    among = spent.index if among is None else among
    there = [[name for name in members if name in among] for members in families(runs).values()]
    return [max(members, key=spent.__getitem__) for members in there if members]


def _chosen_text(runs: Runs, shown: Sequence[str]) -> str:
    count = runs.runs["configuration"].nunique()
    if len(shown) == count:
        return ""
    return f" Shown are {len(shown)} of {count} configurations: of each kind with any to show, what spends the most."


def _pools(runs: Runs) -> Runs:
    """The runs with several independent samples of a problem, graded."""
    several = independent(runs)
    if not several.any():
        raise UserError("no run has several independent samples of a problem, as best-of-n draws them")
    candidates = runs.candidates(["correct"])
    rows = candidates.loc[candidates["correct"].notna(), "problem"]
    several &= several.index.isin(runs.problems["run"].iloc[rows])
    if not several.any():
        raise UserError("no candidate was graded")
    return runs.select(several)


def _summary_html(table: pd.DataFrame, confidence: float) -> str:
    shown = pd.DataFrame({"configuration": table["configuration"]})
    for name in ("model", "prm", "budget"):
        if table[name].nunique() > 1:
            shown[name] = table[name]
    shown["runs"], shown["problems"] = table["runs"], table["problems"]
    shown["accuracy"] = table["accuracy"]
    shown[f"{confidence:.0%} interval"] = [
        f"{low:.1%} to {high:.1%}" if low == low else "not graded"
        for low, high in zip(table["low"], table["high"], strict=True)
    ]
    for name, column in (("tokens", "tokens"), ("PRM passes", "prm_passes"), ("seconds", "seconds")):
        shown[name] = table[column]
    columns = list(table.columns)
    for name in columns[columns.index("discarded") + 1 :]:
        shown[plots.UNIT_NAMES.get(name, name)] = table[name]
    shown["discarded"] = table["discarded"]
    names = list(shown.columns)
    kinds = dict.fromkeys(names[names.index("tokens") :], _number)
    return _table(shown, {**kinds, "accuracy": _percent, "discarded": _percent}) + (
        '<p class="note">Means per problem; seconds are from the start of a search to its answer, other problems '
        "running beside it. Discarded: tokens that are not on the answer's trajectory.</p>"
    )


def _table(frame: pd.DataFrame, kinds: Mapping[str, Callable[[float], str]]) -> str:
    """An HTML table; numbers on the right, by the given formats."""

    def cell(name: str, value: Any) -> str:
        missing = value is None or value != value
        text = "–" if missing else html.escape(kinds[name](float(value))) if name in kinds else str(value)
        right = name in kinds or isinstance(value, int | float | np.number)
        return f'<td class="number">{text}</td>' if right else f"<td>{html.escape(text)}</td>"

    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in frame.columns)
    rows = [
        "".join(cell(str(name), value) for name, value in zip(frame.columns, row, strict=True))
        for row in frame.itertuples(index=False, name=None)
    ]
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _page(runs: Runs, body: str) -> str:
    parts = []
    for name, record in runs.records.items():
        text = html.escape(json.dumps(record, indent=2, ensure_ascii=False))
        parts.append(f"<details><summary>{html.escape(name)}</summary><pre>{text}</pre></details>")
    count = len(runs.runs)
    when = datetime.now(UTC).isoformat(timespec="minutes")
    solutions, candidates = len(runs.problems), runs.problems["samples"].sum()
    what = f"{count} run{'s' * (count != 1)}, {solutions:,} solutions, {candidates:,} candidates"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>infer report</title>'
        f'<style>{_CSS}</style></head><body><h1>infer report</h1><p class="note">{what}. Written {when}.</p>'
        f"{body}<h2>Configuration</h2>{''.join(parts)}</body></html>\n"
    )


_CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 980px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: 0; } h2 { font-size: 1.3em; margin-top: 2em; } h3 { margin-bottom: .3em; }
table { border-collapse: collapse; margin: 1em 0; font-size: .88em; display: block; overflow-x: auto; }
th { text-align: left; font-weight: 600; border-bottom: 2px solid #999; padding: .25em .7em; }
td { border-bottom: 1px solid #ddd; padding: .25em .7em; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: .5em 0; } figure svg { max-width: 100%; height: auto; }
figcaption, .note, .none { color: #555; font-size: .88em; }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: .8em; }
details { margin: .4em 0; } summary { cursor: pointer; }
"""


def _write(out: Path, name: str, content: bytes) -> Path:
    path = out.with_name(f"{out.stem}-{name}")
    path.write_bytes(content)
    return path


def _slug(text: Any) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in str(text)).strip("-").lower()[-40:] or "problems"


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else np.nan


def _unit(unit: str) -> str:
    return plots.UNIT_NAMES.get(unit, unit.replace("_", " "))


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _number(value: float) -> str:
    if abs(value) >= 1e6:
        return quantity(value)
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.3g}"
