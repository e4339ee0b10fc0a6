"""What is shown of a run: a tally of its solutions, while it goes on and at its end, for people and for machines."""

import math
import re
import time
from collections import Counter
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from infer.problem import Problem
from infer.solution import Solution
from infer.usage import Usage

LINE_SECONDS = 10.0


@dataclass
class Tally:
    """Counts over solutions. Added with `+`: tallies of two parts make the tally of the whole."""

    problems: int = 0  # with a solution, complete or not
    finished: int = 0  # of those, with a complete one
    noted: int = 0  # of those, with a note
    failed: int = 0  # could not be tried: no solution
    graded: Counter[str | None] = field(default_factory=Counter)  # by level; None: the problem has none
    correct: Counter[str | None] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)

    def add(self, solution: Solution) -> None:
        self.problems += 1
        self.finished += solution.finished
        self.noted += solution.note is not None
        self.usage += solution.usage
        if solution.correct is not None:
            self.graded[solution.level] += 1
            self.correct[solution.level] += solution.correct

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share; all of [0, 1] where there is nothing to tell from."""
    if total == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # half a second that `infer --help` need not wait for

    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


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
            columns = elapsed, TextColumn("{task.description}", markup=False), BarColumn(bar_width=None)
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
        if new and self._total is not None:
            parts.append(f"{_clock(max(0, self._total - done) * seconds / new)} left")
        return ", ".join(parts)


def summary_json(
    tally: Tally, seconds: float, *, earlier: Tally | None = None, path: Path | None = None
) -> dict[str, Any]:
    """What `print_summary` shows, for machines: plain JSON values; shares are None where there is nothing to share."""
    whole = tally + (earlier or Tally())
    usage = whole.usage
    levels = sorted((level for level in whole.graded if level is not None), key=natural)
    return {
        "problems": whole.problems,
        "resumed_problems": whole.problems - tally.problems,
        "finished": whole.finished,
        "unfinished": whole.problems - whole.finished,
        "failed": tally.failed,
        "noted": whole.noted,
        **_accuracy(whole.correct.total(), whole.graded.total()),
        "levels": {level: _accuracy(whole.correct[level], whole.graded[level]) for level in levels},
        "generated_tokens": usage.generated,
        "generated_tokens_per_problem": usage.generated / whole.problems if whole.problems else None,
        "discarded_tokens": usage.discarded,
        "prefill_tokens": usage.prefill,
        "cached_tokens": usage.cached,
        "prm_passes": usage.passes,
        "verifier_generated_tokens": usage.verifier_generated,
        "verifier_prefill_tokens": usage.verifier_prefill,
        "verifier_cached_tokens": usage.verifier_cached,
        "flops": usage.flops,
        "bytes": usage.bytes,
        "eflops": usage.eflops,
        "device_seconds": usage.device_picoseconds / 1e12 if usage.device_picoseconds is not None else None,
        "dollars": usage.dollars,
        "wall_seconds": seconds,
        "generated_tokens_per_second": tally.usage.generated / seconds if seconds > 0 else None,
        "run": str(path) if path is not None else None,
    }


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
    if shown["flops"] and shown["bytes"]:
        weighed = f", {quantity(shown['eflops'])} eFLOPs" if shown["eflops"] is not None else ""
        row("FLOPs", quantity(shown["flops"]), f"{quantity(shown['bytes'], 'B')} moved{weighed}")
        if shown["device_seconds"] is not None:
            price = f", ${shown['dollars']:.2g}" if shown["dollars"] is not None else ""
            row("device time", quantity(shown["device_seconds"], "s"), f"at the roofline of the run's hardware{price}")
    if seconds:
        row("wall time", _clock(seconds), "this session" if resumed else "")
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
        line(f"{verdict}: the reference is {solution.reference}", "green" if solution.correct else "red")
    if not solution.finished:
        line("unfinished: the budget or the context was spent", "yellow")
    if solution.note is not None:
        line(f"note: {solution.note}", "yellow")
    usage = solution.usage
    cost = f"{usage.generated:,} tokens generated ({usage.discarded:,} discarded); "
    cost += f"prompt {usage.prefill:,} computed, {usage.cached:,} cached; "
    if usage.passes:
        cost += f"{usage.passes:,} PRM passes, {usage.verifier_prefill:,} computed, {usage.verifier_cached:,} cached; "
    line(cost + _clock(solution.seconds), "dim")


_CONTROL = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor movements
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # window titles, links, ...
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def quantity(value: float, unit: str = "") -> str:
    """A number with three digits and a prefix: 1.23T, 45.6 GB, 7.89 ms."""
    prefixes = {1e24: "Y", 1e21: "Z", 1e18: "E", 1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k", 1: ""}
    prefixes |= {1e-3: "m", 1e-6: "µ", 1e-9: "n", 1e-12: "p"}
    scale = next((scale for scale in prefixes if abs(value) >= scale * 0.9995), 1.0)
    scaled = value / scale
    digits = f"{scaled:.{max(0, 2 - math.floor(math.log10(abs(scaled) * 1.0005)))}f}" if scaled else "0"
    return f"{digits} {prefixes[scale]}{unit}".rstrip() if unit else f"{digits}{prefixes[scale]}"


def clean(text: str) -> str:
    """A model's or a data set's text without what a terminal would obey; line breaks and tabs stay."""
    return _CONTROL.sub("", text)


def _accuracy(correct: int, graded: int) -> dict[str, Any]:
    share, interval = (correct / graded, list(wilson(correct, graded))) if graded else (None, None)
    return {"graded": graded, "correct": correct, "accuracy": share, "accuracy_interval_95": interval}


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def natural(text: str) -> list[str | int]:
    """Sorts "level 10" behind "level 9"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]
