"""`infer report` and `infer rescore`: what runs that are there say."""

import asyncio
import json
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from rich.table import Column, Table
from rich.text import Text

from infer.cli import options
from infer.cli.app import app, examples
from infer.cli.display import print_summary
from infer.cli.terminal import engine_noise_to, out, say
from infer.core.choice import Choice
from infer.core.tally import Tally, summary_json
from infer.core.tree import Aggregation
from infer.errors import UserError, nearest
from infer.evalsets.graders.mathematics import Mathematics
from infer.generate import backends
from infer.runs.run import read_solutions, runs_inside
from infer.runs.verifiers import VerifierRef


@app.command(
    epilog=examples(
        "infer report runs/first",
        "infer report runs/compare --html report.html --unit flops",
        "infer report runs/a runs/b --html report.html --format png --format csv",
    )
)
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or of grids (infer compare, infer sweep).")],
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    debug: options.Debug = False,
) -> None:
    """Accuracy against cost: a table, and on request one HTML file with curves, frontier, calibration and spending."""
    from infer.analysis import read
    from infer.analysis.report import Format, summary, write_report

    chosen = [kind for kind in get_args(Format) if kind in (formats or [])]
    if unknown := set(formats or []) - set(chosen):
        raise UserError(f"--format {unknown.pop()}: {nearest('', get_args(Format))}")
    if formats and html is None:
        raise UserError("--format needs --html, which says where the files go")
    found = read([folder for path in runs for folder in _folders(path)])
    table = summary(found, unit)
    if as_json:
        sys.stdout.write(table.to_json(orient="records") + "\n")
    else:
        _print(table, unit)
    if html is not None:
        written = write_report(found, html, unit=unit, formats=chosen)
        say(f"written: {', '.join(map(str, written))}")


def _folders(path: Path) -> list[Path]:
    """A run, or the runs inside a grid's folder."""
    inside = runs_inside(path)
    return inside if inside and not (path / "run.json").exists() else [path]


def _print(rows: Any, unit: str) -> None:
    names = ("accuracy, %", "95%", "problems", "tokens", "passes", "s", "discarded, %")
    extra = [unit] if unit not in ("tokens", "prm", "seconds") else []
    several = ["evalset"] if rows["evalset"].nunique() > 1 else []
    words = (Column(name, overflow="fold") for name in ["", *several])
    numbers = (Column(name, no_wrap=True, justify="right") for name in [*names, *extra])
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
        table.add_row(*(Text(str(row[name])) for name in ["configuration", *several]), *cells)
    out.print(table)
    out.print(Text("Means over problems; intervals are clustered by problem.", "dim"))


def _cell(value: float, form: str) -> str:
    return format(value, form) if value == value else "-"  # NaN: not known


@app.command(
    epilog=examples(
        "infer rescore runs/first --out runs/min --aggregation min --choose weighted",
        "infer rescore runs/first --out runs/other --prm Qwen/Qwen2.5-Math-PRM-7B",
    )
)
def rescore(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    to: Annotated[Path, typer.Option("--out", help="Folder of the new run.")],
    prm: Annotated[
        str | None, typer.Option(help="Score the stored solutions with this reward model. Default: their scores.")
    ] = None,
    prm_revision: options.PrmRevision = None,
    prm_api_key: options.PrmApiKey = None,
    aggregation: Annotated[Aggregation | None, typer.Option(help="Of step scores. Default: the run's.")] = None,
    choose: Annotated[Choice | None, typer.Option(help="What decides. Default: the trajectory stays chosen.")] = None,
    answers: Annotated[
        Literal["math", "exact"] | None,
        typer.Option(help="How answers are compared. Default: as the evaluation set compares them (math)."),
    ] = None,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> None:
    """Judge stored solutions again, without generating: another reward model, aggregation, vote or answer checker."""
    from infer.analysis.rescore import grader_of, rescore_run

    async def judge() -> int:
        async with AsyncExitStack() as stack:
            grader = Mathematics(answers) if answers is not None else grader_of(run)
            stack.push_async_callback(grader.close)
            verifier = None
            if prm is not None:
                backend = backends.find(backends.default())
                verifier = await VerifierRef.named(prm, prm_revision).open(backend, api_key=prm_api_key)
                stack.push_async_callback(verifier.close)
            return await rescore_run(
                run, to, grader, verifier=verifier, prm=prm, aggregation=aggregation, choose=choose
            )

    with ExitStack() as stack:
        if prm is not None and not debug:
            stack.enter_context(engine_noise_to(None))
        added = asyncio.run(judge())
    tally = Tally()
    for solution in read_solutions(to):
        tally.add(solution)
    if as_json:
        sys.stdout.write(json.dumps(summary_json(tally, 0.0, path=to)) + "\n")
    else:
        say(f"{added} solutions judged again, into {to}")
        print_summary(out, tally, path=to)
