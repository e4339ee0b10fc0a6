"""Runs side by side: what each strategy found at what cost, and whether the differences are more than chance."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from infer.core.solution import Solution
from infer.core.tally import Tally, wilson

NUMBERS = ("accuracy, %", "95%", "tokens", "passes", "s", "difference, 95%", "p")


@dataclass(slots=True)
class Row:
    """One run in the table. `pair` is what it shares with the runs that it is compared with."""

    name: str
    strategy: str
    pair: tuple[Any, ...]
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    """Summed over problems, each from the start of its search to its answer."""
    correct: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, strategy: str, pair: tuple[Any, ...], solutions: Iterable[Solution]) -> "Row":
        row = cls(name, strategy, pair)
        for solution in solutions:
            row.tally.add(solution)
            row.seconds += solution.seconds
            if solution.correct is not None:
                row.correct[solution.problem_id] = solution.correct
        return row

    def plain(self, first: "Row | None") -> dict[str, Any]:
        """The row for machines; means are over problems. `first` is the run it is compared with."""
        tally, problems = self.tally, max(1, self.tally.problems)
        right, graded = sum(self.correct.values()), len(self.correct)
        return {
            "name": self.name,
            "strategy": self.strategy,
            "problems": tally.problems,
            "unfinished": tally.problems - tally.finished,
            "graded": graded,
            "correct": right,
            "accuracy": right / graded if graded else None,
            "accuracy_interval_95": list(wilson(right, graded)) if graded else None,
            "generated_tokens_per_problem": tally.usage.generated / problems,
            "prm_passes_per_problem": tally.usage.passes / problems,
            "verifier_tokens_per_problem": (tally.usage.verifier_prefill + tally.usage.verifier_generated) / problems,
            "seconds_per_problem": self.seconds / problems,
            **(_difference(self.correct, first.correct) if first is not None else {}),
        }


def rows_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """All rows for machines, each compared with the first of its pair."""
    firsts: dict[tuple[Any, ...], Row] = {}
    return [row.plain(None if (first := firsts.setdefault(row.pair, row)) is row else first) for row in rows]


def _difference(correct: dict[str, bool], reference: dict[str, bool]) -> dict[str, Any]:
    """The difference of accuracies on the problems that both runs have, as `infer.analysis.estimates.compare` does."""
    from infer.analysis.estimates import mcnemar, paired

    shared = sorted(correct.keys() & reference.keys())
    changes = [correct[problem] - reference[problem] for problem in shared]
    gained, lost = changes.count(1), changes.count(-1)
    return {
        "shared_problems": len(shared),
        "gained": gained,
        "lost": lost,
        "difference": sum(changes) / len(shared) if shared else None,
        "difference_interval_95": list(paired(changes)) if shared else None,
        "mcnemar_p": mcnemar(gained, lost),
    }


def print_rows(console: Console, rows: Sequence[Row], path: Path) -> None:
    """The table: accuracy with its interval, cost, and the paired difference to the first run of the same pair."""
    table = Table(
        Column("", overflow="fold"),
        *(Column(name, no_wrap=True, justify="right") for name in NUMBERS),
        box=None,
        padding=(0, 1, 0, 0),
        header_style="dim",
    )
    previous: tuple[Any, ...] | None = None
    for row, shown in zip(rows, rows_json(rows), strict=True):
        if previous is not None and row.pair != previous:
            table.add_row()
        previous = row.pair
        accuracy, interval, difference = shown["accuracy"], shown["accuracy_interval_95"], shown.get("difference")
        against = p = ""
        if difference is not None:
            low, high = shown["difference_interval_95"]
            against = f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            p = f"{shown['mcnemar_p']:.3f}" if shown["mcnemar_p"] >= 0.001 else "<.001"
        table.add_row(
            Text(row.name),
            f"{100 * accuracy:.1f}" if accuracy is not None else "-",
            f"{100 * interval[0]:.1f}-{100 * interval[1]:.1f}" if interval is not None else "-",
            f"{shown['generated_tokens_per_problem']:,.0f}",
            f"{shown['prm_passes_per_problem']:,.1f}",
            f"{shown['seconds_per_problem']:,.2f}",
            against,
            p,
        )
    console.print(table)
    console.print(
        Text(
            "Means over problems: tokens generated, PRM passes, seconds (others running beside each). Differences to "
            "the first strategy, paired over problems, in points; p by the exact McNemar test.",
            "dim",
        ),
    )
    console.print(Text(f"runs in {path}"), soft_wrap=True)
