"""Grids of jobs: each combination of models, temperatures, seeds, budgets and strategies is a run of its own."""

import itertools
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from infer.core.formats import file_name
from infer.errors import UserError
from infer.runs.job import Job, Machine, Models, Plan, open_models


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of a grid."""

    name: str
    """Unique in the grid: `astar,k=8@1k`."""
    strategy: str
    plan: Plan

    @property
    def folder(self) -> str:
        """The name of its run's folder inside the grid's: its own name, without slashes and the like."""
        return file_name(self.name, plain=True)

    @property
    def pair(self) -> tuple[Any, ...]:
        """The settings that cells share to be compared: all but the strategy and its options."""
        job = self.plan.job
        return job.model, job.temperature, job.seed, str(self.plan.budget)


def expand(
    base: Job,
    strategies: Sequence[str],
    budgets: Sequence[str | None] = (),
    models: Sequence[str | None] = (),
    temperatures: Sequence[float | None] = (),
    seeds: Sequence[int] = (),
) -> list[Cell]:
    """All cells; those of one model stand together. Raises UserError.

    A strategy is `NAME` or `NAME,KEY=VALUE,...`. Of the others, what is not given is the base's.
    """
    cells: dict[str, Cell] = {}
    for model, temperature, seed, budget, strategy in itertools.product(
        models or [base.model],
        temperatures or [base.temperature],
        seeds or [base.seed],
        budgets or [base.budget],
        strategies,
    ):
        name, *options = strategy.split(",")
        parts = [strategy + (f"@{budget}" if budget is not None else "")]
        parts += [str(model).replace("/", "--")] if len(models) > 1 else []
        parts += [f"t={temperature:g}"] if temperature is not None and len(temperatures) > 1 else []
        parts += [f"seed={seed}"] if len(seeds) > 1 else []
        changes = {"model": model, "temperature": temperature, "seed": seed, "strategy": name, "budget": budget}
        job = base.model_copy(update={**changes, "options": tuple(options)})
        try:
            cell = Cell(" ".join(parts), strategy, Plan(job))
        except UserError as error:
            raise UserError(f"{' '.join(parts)}: {error}") from None
        if cell.name in cells:
            raise UserError(f"{cell.name} stands twice in the grid: name each strategy, budget, model and seed once")
        cells[cell.name] = cell
    return list(cells.values())


async def load(cells: Sequence[Cell], machine: Machine) -> AsyncGenerator[tuple[Cell, Models], None]:
    """Each cell with its models loaded; successive cells of the same models share them."""
    for group in groups(cells):
        needing = [cell for cell in group if cell.plan.options.needs_verifier]
        plan = (needing or group)[0].plan
        async with open_models(plan, machine, with_verifier=bool(needing)) as loaded:
            for cell in group:
                yield cell, loaded


def groups(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Successive cells that differ in nothing that is loaded."""

    def loaded(cell: Cell) -> tuple[Any, ...]:
        job = cell.plan.job
        return job.model, job.revision, job.backend, job.base_url, job.dtype, job.max_context

    for _, group in itertools.groupby(cells, loaded):
        yield list(group)
