"""Terminal output of a run: a progress bar while it goes on, a table at its end, and single solutions."""

import time
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from infer.core import pauses
from infer.core.formats import clean, clock, quantity
from infer.core.problem import Problem
from infer.core.solution import Solution
from infer.core.tally import Tally, summary_json

LINE_SECONDS = 10.0


class _Description(ProgressColumn):
    """Shows a pause that a server asked for, if there is one, and then the run's progress."""

    def render(self, task: Task) -> Text:
        return Text(", ".join(filter(None, [pauses.waiting(), task.description])))


class ProgressBar:
    """Progress on a console, usually standard error's: a bar on a terminal, elsewhere a line every ten seconds.

    `total` counts the problems asked for (None: not known), `earlier` what it held before this session. A context
    manager: at its end the bar makes room for the summary.
    """

    def __init__(self, console: Console, total: int | None, earlier: Tally | None = None) -> None:
        self._console = console
        self._total = total
        self._earlier = earlier or Tally()
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            # on a narrow terminal the bar gives way, then the end of the description
            elapsed = TimeElapsedColumn(Column(no_wrap=True, min_width=7))
            columns = elapsed, _Description(Column(no_wrap=True)), BarColumn(bar_width=None)
            # answers on standard output must not end up on this console
            self._bar = Progress(*columns, console=console, transient=True, redirect_stdout=False)
            self._task = self._bar.add_task(self._describe(Tally(), 0.0), total=total, completed=self._earlier.problems)

    def update(self, tally: Tally) -> None:
        """Shows how far this session has come."""
        now = time.monotonic()
        if self._bar is not None:
            done = self._earlier.problems + tally.problems + tally.failed
            self._bar.update(self._task, completed=done, description=self._describe(tally, now - self._start))
        elif now - self._last >= LINE_SECONDS:
            self._last = now
            self._console.print(Text(self._describe(tally, now - self._start)), soft_wrap=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _describe(self, tally: Tally, seconds: float) -> str:
        whole = self._earlier + tally
        done, new = whole.problems + tally.failed, tally.problems + tally.failed
        parts = [f"{done:,}/{self._total:,}" if self._total is not None else f"{done:,} problems"]
        if whole.graded:
            parts.append(f"{whole.correct.total() / whole.graded.total():.1%} right")
        if tally.usage.generated and seconds:
            parts.append(f"{tally.usage.generated / seconds:,.0f} tok/s")
        if prompt := tally.usage.prefill + tally.usage.cached:
            parts.append(f"{tally.usage.cached / prompt:.1%} cached")
        if tally.failed:
            parts.append(f"{tally.failed:,} failed")
        if new and self._total is not None:
            parts.append(f"{clock(max(0, self._total - done) * seconds / new)} left")
        return ", ".join(parts)


def print_summary(
    console: Console, tally: Tally, seconds: float = 0.0, *, earlier: Tally | None = None, path: Path | None = None
) -> None:
    """The table at the end.

    `tally` and `seconds` are this session's, `earlier` what the run in `path` held before. Counts are of both, of the
    problems asked for; time and speed are this session's (none are shown where it took none), and so are failures,
    which a run does not keep.
    """
    shown = summary_json(tally, seconds, earlier=earlier, path=path)
    label, number = Column(no_wrap=True, max_width=24), Column(no_wrap=True, justify="right")
    table = Table.grid(label, number, Column(style="dim"), padding=(0, 2))

    def row(label: str, number: str, remark: str) -> None:
        table.add_row(Text(clean(label)), Text(number), Text(remark))

    def accuracy(label: str, counts: dict[str, Any]) -> None:
        low, high = counts["accuracy_interval_95"]
        share, correct, graded = counts["accuracy"], counts["correct"], counts["graded"]
        row(label, f"{share:.1%}", f"{low:.1%} to {high:.1%} (95%), {correct:,} of {graded:,}")

    def prompt(owner: str, prefill: int, cached: int) -> None:
        if prefill + cached:
            row(f"{owner} prompt", f"{prefill:,}", "tokens computed")
            row("  cached", f"{cached:,}", f"tokens, {cached / (prefill + cached):.1%} of all")

    if shown["graded"]:
        accuracy("accuracy", shown)
        for level, counts in shown["levels"].items():
            accuracy(f"  level {level}", counts)
    else:
        row("accuracy", "-", "nothing was graded")
    resumed = shown["resumed_problems"]
    row("problems finished", f"{shown['finished']:,}", f"{resumed:,} with a solution before" if resumed else "")
    row("  unfinished", f"{shown['unfinished']:,}", "cut off: the best so far counts" if shown["unfinished"] else "")
    row("  failed", f"{shown['failed']:,}", "not recorded: tried again next time" if shown["failed"] else "")
    if shown["noted"]:
        row("  with a note", f"{shown['noted']:,}", "in solutions.jsonl")
    generated, each = shown["generated_tokens"], shown["generated_tokens_per_problem"]
    row("tokens generated", f"{generated:,}", f"{each:,.0f} a problem" if each is not None else "")
    wasted = shown["discarded_tokens"]
    row("  discarded", f"{wasted:,}", f"{wasted / generated:.1%} of them" if generated else "")
    prompt("generator", shown["prefill_tokens"], shown["cached_tokens"])
    judged = shown["verifier_generated_tokens"]
    row("PRM passes", f"{shown['prm_passes']:,}", f"{judged:,} verifier tokens generated" if judged else "")
    prompt("verifier", shown["verifier_prefill_tokens"], shown["verifier_cached_tokens"])
    if shown["program_executions"]:
        row("programs run", f"{shown['program_executions']:,}", "against tests that the model wrote")
    if shown["flops"] and shown["bytes"]:
        weighed = f", {quantity(shown['eflops'])} eFLOPs" if shown["eflops"] is not None else ""
        row("FLOPs", quantity(shown["flops"]), f"{quantity(shown['bytes'], 'B')} moved{weighed}")
        if shown["device_seconds"] is not None:
            price = f", ${shown['dollars']:.2g}" if shown["dollars"] is not None else ""
            row("device time", quantity(shown["device_seconds"], "s"), f"at the roofline of the run's hardware{price}")
    if seconds:
        row("wall time", clock(seconds), "this session" if resumed else "")
        row("tokens/s", f"{shown['generated_tokens_per_second'] or 0:,.0f}", "generated")
    console.print(table)
    if path is not None:
        console.print(Text(f"run in {path}"), soft_wrap=True)


def print_solution(console: Console, problem: Problem, solution: Solution) -> None:
    """One problem: the chosen trajectory's steps with their scores, the answer, and what it cost."""

    def line(text: str, style: str = "") -> None:
        console.print(Text(clean(text), style), soft_wrap=True)

    line(f"{problem.prompt.strip()}\n", "dim")
    if solution.chosen is not None:
        chosen = solution.candidates[solution.chosen]
        scores = [f"  score {score:.3f}" for score in chosen.scores or []]
        for i, (step, score) in enumerate(zip_longest(chosen.steps, scores, fillvalue=""), 1):
            line(f"step {i}{score}", "dim")
            line(f"{step.strip()}\n")
    line("answer: " + (solution.answer if solution.answer is not None else "none was given"), "bold")
    if solution.correct is not None:
        verdict = "right" if solution.correct else "wrong"
        right = " or ".join([solution.reference or "", *solution.also])
        line(f"{verdict}: the reference is {right}", "green" if solution.correct else "red")
    if not solution.finished:
        line("unfinished: the budget or the context was spent", "yellow")
    if solution.note is not None:
        line(f"note: {solution.note}", "yellow")
    usage = solution.usage
    cost = f"{usage.generated:,} tokens generated ({usage.discarded:,} discarded); "
    cost += f"prompt {usage.prefill:,} computed, {usage.cached:,} cached; "
    if usage.passes:
        cost += f"{usage.passes:,} PRM passes, {usage.verifier_prefill:,} computed, {usage.verifier_cached:,} cached; "
    if usage.executions:
        cost += f"{usage.executions:,} programs run; "
    line(cost + clock(solution.seconds), "dim")
