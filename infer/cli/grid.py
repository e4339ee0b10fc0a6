"""`infer compare` and `infer sweep`: many runs over one evaluation set in one go."""

import json
import sys
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from infer.cli.app import app, examples
from infer.cli.comparison import Row, print_rows, rows_json
from infer.cli.counted import verifier_of
from infer.cli.display import ProgressBar
from infer.cli.options import RunOptions, fresh_folder, options_of_fields
from infer.cli.recorder import Failures, Recorder
from infer.cli.terminal import engine_noise_to, err, out, say
from infer.core import interrupts
from infer.core.formats import quantity
from infer.core.tally import Tally
from infer.cost.estimate import STEP_TOKENS, estimate
from infer.errors import ServerDown, UserError
from infer.runs import sweep as grids
from infer.runs.fields import HOW, RUN
from infer.runs.job import Job, Machine, Models
from infer.runs.run import Run, describe_machine, read_solutions
from infer.runs.sweep import Cell

Strategies = Annotated[
    list[str],
    typer.Option(
        "--strategy",
        "-s",
        metavar="NAME[,KEY=VALUE...]",
        help="A strategy with its options. Repeatable; the others are compared with the first.",
        rich_help_panel=HOW,
    ),
]


@app.command(
    epilog=examples(
        "infer compare -s greedy -s best-of-n,choose=majority -s astar,k=8 -b 256 -b 512 -b 1k",
        "infer compare -s best-of-n,choose=weighted -s beam -b 4k --on math500 --model DIR --prm DIR --run runs/beam",
    )
)
@options_of_fields(without=("question", "options"))
def compare(strategy: Strategies, budget: list[str], job: Job, machine: Machine, how: RunOptions) -> int:
    """Compare strategies at equal budgets on the same problems: accuracy, cost, paired significance."""
    return _run("compare", grids.expand(job, strategy, budget), machine, how)


@app.command(
    epilog=examples(
        "infer sweep -s greedy -s astar -b 512 -b 1k -m nano-s -m nano-m --seed 0 --seed 1 --dry-run",
        "infer sweep -s best-of-n,n=16 --temperature 0.6 --temperature 1 --limit 100 --run runs/temperatures",
    )
)
@options_of_fields(without=("question", "options"))
def sweep(
    strategy: Strategies,
    budget: list[str],
    seed: list[int],
    model: list[str],
    temperature: list[float],
    job: Job,
    machine: Machine,
    how: RunOptions,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the cells and what they cost on paper; run nothing.", rich_help_panel=RUN
        ),
    ] = False,
) -> int:
    """Run a grid of models, strategies, budgets, temperatures and seeds; cells of one model share its start."""
    cells = grids.expand(job, strategy, budget, model, temperature, seed)
    if dry_run:
        _print_cells(cells, how.limit, as_json=how.as_json)
        return 0
    return _run("sweep", cells, machine, how)


def _on_paper(cells: list[Cell], limit: int | None) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each cell: its cost if it spends all of its budget of tokens, None with a budget of another unit.

    Also notes, which say what is assumed and what is not counted.
    """
    rows: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    for cell in cells:
        plan, problems = cell.plan, sum(1 for _ in cell.plan.problems(limit))
        row: dict[str, Any] = {"name": cell.name, "problems": problems}
        row |= dict.fromkeys(("tokens", "flops", "eflops", "device_sec", "dollars"))
        if plan.budget is not None and plan.budget.unit == "tokens" and plan.model is not None:
            budget = int(plan.budget.amount)
            samples = -(-budget // plan.sampling.max_tokens)  # of equal length: together the budget
            spec, device = plan.model.spec(plan.job.dtype), plan.pricing.hardware
            prm = plan.verifier if plan.options.needs_verifier else None
            verifier, uncounted = verifier_of(prm) if prm is not None else (None, "")
            notes[uncounted] = None
            paper = estimate(
                spec,
                device,
                samples=samples,
                tokens=budget // samples,
                step=STEP_TOKENS if plan.options.scores_steps else None,
                verifier=verifier,
                serving=plan.pricing.serving,
            )
            total = paper.rows[-1]
            row |= {"tokens": budget * problems, "flops": total.flops * problems, "eflops": total.eflops * problems}
            row |= {"device_sec": total.seconds * problems}
            row |= {"dollars": total.dollars * problems if total.dollars is not None else None}
        rows.append(row)
    assumed = f"about, if all of the budget is spent, after prompts of 256 tokens, in steps of {STEP_TOKENS}"
    searched = "not counted: prompt tokens that a search computes again at each step"
    return rows, [assumed, searched, *filter(None, notes)]


def _print_cells(cells: list[Cell], limit: int | None, *, as_json: bool) -> None:
    rows, notes = _on_paper(cells, limit)
    if as_json:
        sys.stdout.write(json.dumps({"cells": rows, "notes": notes}) + "\n")
        return
    names = ("problems", "tokens", "FLOPs", "eFLOPs", "device time", "dollars")
    columns = (Column(name, no_wrap=True, justify="right") for name in names)
    table = Table(Column("", overflow="fold"), *columns, box=None, padding=(0, 1, 0, 0), header_style="dim")
    for row in rows:
        shown = ["-"] * 5
        if row["tokens"] is not None:
            amounts = [quantity(row["flops"]), quantity(row["eflops"]), quantity(row["device_sec"], "s")]
            shown = [f"{row['tokens']:,}", *amounts, f"{row['dollars']:.2g}" if row["dollars"] is not None else "-"]
        table.add_row(Text(row["name"]), f"{row['problems']:,}", *shown)
    out.print(table)
    for note in notes:
        out.print(Text(note, "dim"))


def _run(command: str, cells: list[Cell], machine: Machine, how: RunOptions) -> int:
    """Runs the cells that are not finished, and shows all of them."""
    for cell in cells:
        cell.plan.check(machine)
    asked = {problem.id for problem in cells[0].plan.problems(how.limit)}
    if not asked:
        raise UserError(f"{cells[0].plan.evalset.name} has no problems")
    folder = how.folder or fresh_folder(f"{Path(cells[0].plan.evalset.name).stem}-{command}")
    if (folder / "run.json").exists() or (folder / "solutions.jsonl").exists():
        raise UserError(f"--run {folder}: it holds a single run: name another folder")
    missing = [cell for cell in cells if not asked <= _done(cell, folder)]
    failures = Failures()
    with ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        if not how.debug:
            stack.enter_context(engine_noise_to(folder))
        left = f", {len(cells) - len(missing)} of them finished" if len(missing) < len(cells) else ""
        say(f"{cells[0].plan.evalset.name}, {len(asked)} problems: {len(cells)} cells{left}, into {folder}")

        async def session() -> None:
            async with aclosing(grids.load(missing, machine)) as loading:
                async for cell, loaded in loading:
                    say(f"cell {cells.index(cell) + 1} of {len(cells)}: {cell.name}")
                    await _cell(cell, loaded, folder / cell.folder, asked, machine, how, failures)

        try:
            interrupts.run(session())
        except KeyboardInterrupt:
            say(f"stopped: what is solved is kept; the same command with --run {folder} goes on")
            return 130
        except ServerDown as error:
            say(f"{error}: what is solved is kept; the same command with --run {folder} goes on")
            return failures.say()
    rows = []
    for cell in cells:  # all over the same problems, though a run may hold more
        solutions = (each for each in read_solutions(folder / cell.folder) if each.problem_id in asked)
        rows.append(Row.of(cell.name, cell.strategy, cell.pair, solutions))
    if how.as_json:
        result = {"run": str(folder), "cells": rows_json(rows), "failures": failures.as_json()}
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        print_rows(out, rows, folder)
    return failures.say()


def _done(cell: Cell, folder: Path) -> set[str]:
    """The problems a cell has solved; checks that its folder, if it is there, is this cell's."""
    if not (folder / cell.folder).exists():
        return set()
    with Run.open(folder / cell.folder, cell.plan.config(), describe_machine(), cell.plan.defaults()) as run:
        return run.done


async def _cell(
    cell: Cell,
    loaded: Models,
    folder: Path,
    asked: set[str],
    machine: Machine,
    how: RunOptions,
    failures: Failures,
) -> None:
    """Solves those of the problems `asked` that a cell's run lacks."""
    earlier = Tally()
    with Run.open(folder, cell.plan.config(), describe_machine(), cell.plan.defaults()) as run:
        for solution in run.solutions():
            if solution.problem_id in asked:
                earlier.add(solution)
        session = cell.plan.session(loaded, run.traces() if how.trace else None)
        run.add_facts(session.describe())
        with ProgressBar(err, len(asked), earlier) as bar:
            record = Recorder(run, bar, failures)
            waiting = (problem for problem in cell.plan.problems(how.limit) if problem.id not in run.done)
            await session.solve(waiting, record, machine.concurrency)
