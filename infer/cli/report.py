"""`infer report`: accuracy against cost of one or more runs."""

import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.table import Column, Table
from rich.text import Text

from infer.cli.app import app, examples
from infer.cli.folders import SkipBad, bad_lines, folder
from infer.cli.options import options_of_fields
from infer.cli.terminal import out, say
from infer.errors import UserError, nearest
from infer.runs.run import runs_inside


@app.command(
    epilog=examples(
        "infer report runs/first",
        "infer report runs/compare --html report.html --unit flops",
        "infer report runs/compare --against 'greedy 512tok'",
        "infer report runs/a runs/b --html report.html --format png --format csv",
    )
)
@options_of_fields()
def report(
    *,
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs, or of grids (infer compare, infer sweep).", parser=folder)
    ],
    html: Annotated[
        Path | None, typer.Option(help="Write the pictures and tables to this one file too.", show_default=False)
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", help="With --html: also each picture (png, svg) or table (csv) beside it; repeatable."
        ),
    ] = None,
    unit: Annotated[
        str, typer.Option(help="Of the cost: tokens, prm, seconds, or any column of usage, such as flops.")
    ] = "tokens",
    against: Annotated[
        str | None,
        typer.Option(
            help="Compare all with this configuration, problem by problem. Default, in the HTML file: the cheapest.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    skip_bad: SkipBad = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    debug: bool,
) -> None:
    """Accuracy against cost: a table, and on request one HTML file with curves, frontier, calibration and spending."""
    from infer.analysis import read
    from infer.analysis.report import Format, summary, write_report

    chosen = [kind for kind in get_args(Format) if kind in (formats or [])]
    if unknown := set(formats or []) - set(chosen):
        raise UserError(f"--format {unknown.pop()}: {nearest('', get_args(Format))}")
    if formats and html is None:
        raise UserError("--format needs --html, which says where the files go")
    with bad_lines(skip_bad) as on_bad:
        found = read([each for path in runs for each in _folders(path)], on_bad=on_bad)
    table = summary(found, unit, against=against)
    if as_json:
        sys.stdout.write(table.to_json(orient="records") + "\n")
    else:
        _print(table, unit)
    if html is not None:
        written = write_report(found, html, unit=unit, formats=chosen, against=against)
        say(f"written: {', '.join(map(str, written))}")


def _folders(path: Path) -> list[Path]:
    """A run, or the runs inside a grid's folder."""
    inside = runs_inside(path)
    return inside if inside and not (path / "run.json").exists() else [path]


def _print(rows: Any, unit: str) -> None:
    names = ("accuracy, %", "95%", "problems", "tokens", "passes", "s", "discarded, %")
    extra = [unit] if unit not in ("tokens", "prm", "seconds") else []
    paired = ["difference, 95%", "p"] if "difference" in rows else []
    several = ["evalset"] if rows["evalset"].nunique() > 1 else []
    words = (Column(name, overflow="fold") for name in ["", *several])
    numbers = (Column(name, no_wrap=True, justify="right") for name in [*names, *extra, *paired])
    table = Table(*words, *numbers, box=None, padding=(0, 1, 0, 0), header_style="dim")
    for row in rows.to_dict("records"):
        graded = row["accuracy"] == row["accuracy"]  # not NaN
        cells = [
            _cell(100 * row["accuracy"], ".1f"),
            f"{100 * row['low']:.1f}-{100 * row['high']:.1f}" if graded else "-",
            f"{row['problems']:,}",
            _cell(row["tokens"], ",.0f"),
            _cell(row["prm_passes"], ",.1f"),
            _cell(row["seconds"], ",.2f"),
            _cell(100 * row["discarded"], ".1f"),
            *(_cell(row[name], ".3g") for name in extra),
        ]
        if paired:
            values = [100 * row[name] for name in ("difference", "difference_low", "difference_high")]
            known = values[0] == values[0]
            cells.append("{:+.1f} ({:+.1f} to {:+.1f})".format(*values) if known else "-")
            cells.append(_cell(row["mcnemar_p"], ".3f"))
        table.add_row(*(Text(str(row[name])) for name in ["configuration", *several]), *cells)
    out.print(table)
    out.print(Text("Means over problems; intervals are clustered by problem.", "dim"))
    if paired:
        out.print(Text("Differences are paired over problems, in points; p by the exact McNemar test.", "dim"))


def _cell(value: float, form: str) -> str:
    return format(value, form) if value == value else "-"  # NaN: not known
