"""The pictures of a report: the list of them, how each is drawn from the runs, and why one is missing."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from matplotlib.figure import Figure

from infer.analysis import plots, tables
from infer.analysis.curves import Outcomes, curve, families, frontier, outcomes
from infer.analysis.estimates import auroc, reliability, share
from infer.analysis.frames import Runs
from infer.analysis.pools import How, at_k, graded_pools
from infer.analysis.tables import LINES, Table, in_unit
from infer.core.formats import clean, natural
from infer.errors import UserError

PANELS = 6
"""Configurations that get a panel of their own."""
BINS = 10
"""Bins of a score in the calibration picture."""


@dataclass(frozen=True)
class Source:
    """The runs of a report, and how they are shown."""

    runs: Runs
    unit: str
    """Of the cost."""
    confidence: float
    """Of the intervals."""
    draws: int
    """Resamples of the problems."""
    against: str | None = None
    """The configuration that others are compared with; None, or one that is not here: the cheapest."""

    @cached_property
    def outcomes(self) -> Outcomes:
        """Accuracy and cost of the configurations. Raises UserError without known costs or graded problems."""
        known = self.runs.cost(self.unit).notna().groupby(self.runs.problems["configuration"], observed=True).any()
        if not known.all():
            unknown = ", ".join(known.index[~known].astype(str))
            raise UserError(f"the cost in {in_unit(self.unit)} is not known for {unknown}: choose another unit")
        return outcomes(self.runs, self.unit)


@dataclass(frozen=True)
class Drawing:
    """A figure with its caption, the numbers that it shows, and the tables below it."""

    figure: Figure
    caption: str
    numbers: pd.DataFrame
    below: Sequence[Table] = ()


@dataclass(frozen=True)
class Picture:
    """One of the report's pictures."""

    name: str
    title: str
    drawing: Drawing | None
    reason: str = ""
    """Why there is no drawing."""


def pictures(source: Source) -> Iterator[Picture]:
    """Yields all pictures of a report in order. One that can't be drawn from these runs has the reason instead."""
    for name, title, draw in PICTURES:
        try:
            if source.runs.problems.empty:
                raise UserError("no problem has a solution yet")
            picture = Picture(name, title, draw(source))
        except UserError as error:
            picture = Picture(name, title, None, str(error))
        yield picture


def _curves(source: Source) -> Drawing:
    runs, of, confidence = source.runs, source.outcomes, source.confidence
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
    first = tables.reference(runs, of.unit, source.against)
    below = tables.differences(runs, first, of.unit, confidence, source.draws), tables.laws(of, shown)
    figure = plots.drawn(plots.curves, points, shown, of.unit)
    return Drawing(figure, caption, points, [table for table in below if table is not None])


def _frontier(source: Source) -> Drawing:
    of, confidence, draws = source.outcomes, source.confidence, source.draws
    best, steps = frontier(of, confidence=confidence, draws=draws)
    caption = (
        "The step line is the best accuracy among configurations that cost no more; the band is its "
        f"{confidence:.0%} interval over {draws:,} resamples of the problems. The best of several noisy numbers lies a "
        "little high: the share of resamples in which a configuration is on the frontier shows how far to trust it."
    )
    figure = plots.drawn(plots.frontier, curve(of, confidence), best, steps, of.unit)
    best.insert(0, "", plots.numbers(best))
    below = tables.undominated(best, of.unit), tables.best_uses(source.runs, of, draws)
    return Drawing(figure, caption, best, [table for table in below if table is not None])


def _samples(source: Source) -> Drawing:
    pooled = graded_pools(source.runs)
    shown = _largest(pooled)[:PANELS]
    pooled = pooled.select(pooled.runs["configuration"].isin(shown))
    panels: dict[str, dict[str, pd.DataFrame]] = {}
    flat = []
    hows: list[How] = ["pass", "majority"]
    if pooled.candidates(["score"])["score"].notna().any():
        hows += ["best", "weighted"]
    ways = {how: at_k(pooled, how, draws=200) for how in hows}
    for configuration in shown:
        rows = (pooled.problems["configuration"] == configuration).to_numpy()
        for how, values in ways.items():
            estimates = [
                (int(k), share(values.loc[rows, k], pooled.problems.loc[rows, "problem_id"], source.confidence))
                for k in values.columns
            ]
            table = pd.DataFrame(
                [(k, e.mean, e.low, e.high, e.problems, e.missing) for k, e in estimates if e.problems],
                columns=["k", "mean", "low", "high", "problems", "missing"],
            )
            if table.empty:  # such as a vote by score where there are no scores
                continue
            panels.setdefault(configuration, {})[how] = table
            flat.append(table.assign(configuration=configuration, choice=how))
    caption = (
        "Every number is the mean over all subsets of k of a problem's samples. It is exact, except for the weighted "
        "vote (200 random subsets a problem). Ties are broken uniformly. Problems with fewer than k samples are left "
        f"out at that k. Bands: {source.confidence:.0%}, clustered by problem, each k by itself."
    ) + _selection(source.runs, shown)
    return Drawing(plots.drawn(plots.samples, panels), caption, pd.concat(flat))


def _levels(source: Source) -> Drawing:
    runs, confidence = source.runs, source.confidence
    problems = runs.problems[runs.problems["level"].notna()]
    if problems.empty:
        raise UserError("these problems have no levels")
    problems = problems[problems["correct"].notna()]
    if problems.empty:
        raise UserError("no problem was graded: these runs have no reference answers")
    shown = _largest(runs, set(problems["configuration"]))[: plots.MOST]
    problems = problems[problems["configuration"].isin(shown)]
    problems = problems.assign(level=problems["level"].map(clean))
    rows = []
    for (level, configuration), part in problems.groupby(["level", "configuration"], observed=True, sort=False):
        estimate = share(part["correct"], part["problem_id"], confidence)
        rows.append((str(level), str(configuration), estimate.mean, estimate.low, estimate.high, estimate.problems))
    rows.sort(key=lambda row: (natural(row[0]), shown.index(row[1])))
    table = pd.DataFrame(rows, columns=["level", "configuration", "mean", "low", "high", "problems"])
    caption = f"Bars: {confidence:.0%} intervals (Wilson, clustered by problem)." + _selection(runs, shown)
    return Drawing(plots.drawn(plots.levels, table), caption, table)


def _calibration(source: Source) -> Drawing:
    runs, confidence = source.runs, source.confidence
    candidates = runs.candidates(["score", "correct"])
    candidates = candidates[candidates["score"].notna() & candidates["correct"].notna()]
    if candidates.empty:
        raise UserError("no candidate has a score and a reference")
    rows = runs.problems.iloc[candidates["problem"]]
    names, ids = rows["configuration"].to_numpy(), rows["problem_id"].to_numpy()
    how = runs.runs.set_index("configuration")["aggregation"].to_dict()
    panels, flat = {}, []
    shown = _largest(runs, set(names))[:PANELS]
    for configuration in shown:
        own = names == configuration
        score, right, problem = (
            values[own] for values in (candidates["score"].to_numpy(), candidates["correct"].to_numpy(), ids)
        )
        table = reliability(score, right, problem, BINS, confidence)
        error = float((table["size"] * (table["mean"] - table["score"]).abs()).sum())
        title = f"{configuration}\n{how[configuration]} score, AUROC {auroc(score, right):.2f}, ECE {error:.2f}"
        panels[title] = table
        flat.append(table.assign(configuration=configuration))
    caption = (
        f"Candidates in {BINS} bins of their score, aggregated as in the run, and the share of right ones in each bin "
        f"({confidence:.0%} intervals, clustered by problem). AUROC: the probability that a right candidate scores "
        "above a wrong one. ECE: mean distance from the diagonal. A search's candidates are those that it kept."
    ) + _selection(runs, shown)
    return Drawing(plots.drawn(plots.calibration, panels), caption, pd.concat(flat))


def _lengths(source: Source) -> Drawing:
    runs = source.runs
    candidates = runs.candidates(["num_tokens", "correct", "finished"])
    candidates = candidates[candidates["finished"] & candidates["correct"].notna()]
    if candidates.empty:
        raise UserError("no complete candidate was graded")
    names = runs.problems["configuration"].to_numpy()[candidates["problem"].to_numpy()]
    tokens, right = candidates["num_tokens"].to_numpy(), candidates["correct"].to_numpy()
    panels, flat = {}, []
    shown = _largest(runs, set(names))[:PANELS]
    for configuration in shown:
        own = names == configuration
        panels[configuration] = tokens[own & (right == 1)], tokens[own & (right == 0)]
        counts = pd.DataFrame({"tokens": tokens[own], "right": right[own]}).value_counts().reset_index()
        flat.append(counts.assign(configuration=configuration))
    caption = "Tokens of each complete candidate, as shares of all graded candidates of its configuration."
    caption += _selection(runs, shown)
    return Drawing(plots.drawn(plots.lengths, panels), caption, pd.concat(flat))


def _spending(source: Source) -> Drawing:
    runs, problems = source.runs, source.runs.problems
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
    return Drawing(figure, caption, table.assign(cached=cached).reset_index())


PICTURES: tuple[tuple[str, str, Callable[[Source], Drawing]], ...] = (
    ("curves", "Accuracy against cost", _curves),
    ("frontier", "Best accuracy at each cost", _frontier),
    ("samples", "Accuracy of k samples", _samples),
    ("levels", "Accuracy by level", _levels),
    ("calibration", "Calibration of the scores", _calibration),
    ("lengths", "Tokens of right and wrong candidates", _lengths),
    ("spending", "Where the budget went", _spending),
)
"""Name, title and drawing function of each, in the order of the report."""


def _largest(runs: Runs, among: Collection[str] | None = None) -> list[str]:
    """The configuration of each family with the most tokens per problem, among the given ones or all."""
    spent = runs.problems["generated"].groupby(runs.problems["configuration"].astype(str)).mean()
    among = spent.index if among is None else among
    there = [[name for name in members if name in among] for members in families(runs).values()]
    return [max(members, key=spent.__getitem__) for members in there if members]


def _selection(runs: Runs, shown: Sequence[str]) -> str:
    """A sentence for captions: how many configurations are shown, and which; empty if all are."""
    count = runs.runs["configuration"].nunique()
    if len(shown) == count:
        return ""
    return f" {len(shown)} of {count} configurations are shown: of each family with data, the one with the most tokens."
