"""The result of `infer report`: a table for the terminal, and one HTML file that needs nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from infer.analysis import html, plots, tables
from infer.analysis.estimates import compare, share
from infer.analysis.frames import Runs, read
from infer.analysis.pictures import Drawing, Source, pictures
from infer.errors import UserError, WriteError, nearest

Format = Literal["png", "svg", "csv"]


def summary(runs: Runs, unit: str = "tokens", confidence: float = 0.95, *, against: str | None = None) -> pd.DataFrame:
    """One row a configuration, in the order of the runs: its settings, its accuracy, and its cost per problem.

    Columns: evalset, configuration, model, prm, strategy, options, budget, runs, problems, accuracy, low, high (NaN
    where nothing was graded), tokens, prm_passes, seconds, discarded (share of the tokens), and `unit` if another.
    With the name of a configuration to compare `against` also difference, difference_low, difference_high and
    mcnemar_p (see `infer.analysis.compare`; NaN where they share no graded problem). Raises UserError for an unknown
    unit or configuration.
    """
    _check_against(runs, against)
    problems = runs.problems.assign(cost=runs.cost(unit))
    rows = []
    for configuration, members in runs.runs.groupby("configuration", sort=False):
        part = problems[problems["configuration"] == configuration]
        estimate = share(part["correct"], part["problem_id"], confidence)
        first = members.iloc[0]
        graded = estimate.problems > 0
        discarded = tables.ratio(part["discarded"].sum(), part["generated"].sum()) if "discarded" in part else np.nan
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
            "discarded": discarded,
        }
        row |= {} if unit in ("tokens", "prm", "seconds") else {unit: part["cost"].mean()}
        rows.append(row if against is None else {**row, **_difference(runs, against, str(configuration), confidence)})
    return pd.DataFrame(rows)


def _difference(runs: Runs, against: str, configuration: str, confidence: float) -> dict[str, float]:
    names = ("difference", "difference_low", "difference_high", "mcnemar_p")
    values: tuple[float | None, ...] = (np.nan,) * 4
    if configuration != against:
        with suppress(UserError):  # no graded problem in common
            found = compare(runs, against, configuration, confidence=confidence, draws=1)
            values = found.mean, found.low, found.high, found.mcnemar_p
    return {name: np.nan if value is None else value for name, value in zip(names, values, strict=True)}


def _check_against(runs: Runs, against: str | None) -> None:
    names = [str(name) for name in runs.runs["configuration"].unique()]
    if against is not None and against not in names:
        raise UserError(f"these runs have no configuration {against!r} to compare with: {nearest(against, names)}")


def write_report(
    paths: Sequence[str | Path] | Runs,
    out: str | Path,
    *,
    unit: str = "tokens",
    formats: Sequence[Format] = (),
    confidence: float = 0.95,
    draws: int = 1000,
    against: str | None = None,
) -> list[Path]:
    """Writes the report on these runs to the HTML file `out`. Returns the paths of all files that it wrote.

    Each picture is also written in each of `formats` beside it, as `<out>-<name>.png` and so on; csv is the table of
    its numbers. Costs are in `unit` (see `Runs.cost`); bands come from `draws` resamples of the problems. Paired
    differences are `against` that configuration, by default (and on other evaluation sets) the cheapest. Raises
    UserError for runs that can't be read or don't count that unit, WriteError where a file can't be written.
    """
    runs = paths if isinstance(paths, Runs) else read(paths)
    out = Path(out)
    several = runs.runs["evalset"].nunique() > 1
    written: list[Path] = []
    blocks: list[str] = []

    def write(name: str, content: bytes) -> None:
        path = out.with_name(f"{out.stem}-{name}")
        path.write_bytes(content)
        written.append(path)

    runs.cost(unit)  # refuses a unit that they don't count before anything is written
    _check_against(runs, against)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for evalset, part in _by_evalset(runs):
            prefix = f"{_slug(evalset)}-" if several else ""
            if several:
                blocks.append(html.heading(evalset))
            table = summary(part, unit, confidence)
            if "csv" in formats:
                write(f"{prefix}summary.csv", _csv(table))
            overview = tables.overview(table, confidence)
            blocks += [html.table(overview), html.note(overview)]
            for picture in pictures(Source(part, unit, confidence, draws, against)):
                blocks.append(html.section(picture, f"{prefix}{picture.name}"))
                if picture.drawing is not None:
                    for kind in formats:
                        write(f"{prefix}{picture.name}.{kind}", _content(picture.drawing, kind, picture.name))
        out.write_text(html.page(runs, blocks), encoding="utf-8")
    except OSError as error:
        raise WriteError(f"cannot write {out}: {error.strerror or error}: name another file with --html") from error
    return [out, *written]


def _content(drawing: Drawing, kind: Format, name: str) -> bytes:
    return _csv(drawing.numbers) if kind == "csv" else plots.render(drawing.figure, kind, name)


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False).encode()


def _by_evalset(runs: Runs) -> Iterator[tuple[str, Runs]]:
    evalsets = runs.runs["evalset"].fillna("no evaluation set")
    for evalset in evalsets.unique():
        yield str(evalset), runs.select(evalsets == evalset)


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text).strip("-").lower()[-40:] or "problems"
