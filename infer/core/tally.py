"""Counts over the solutions of a run."""

from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from infer.core.formats import natural
from infer.core.solution import Solution
from infer.core.usage import Usage


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
    """Wilson's score interval of a share; all of [0, 1] without observations."""
    if total == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # half a second that `infer --help` need not wait for

    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def summary_json(
    tally: Tally, seconds: float, *, earlier: Tally | None = None, path: Path | None = None
) -> dict[str, Any]:
    """A tally as plain JSON values; shares are None where they would be of nothing."""
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
        "program_executions": usage.executions,
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


def _accuracy(correct: int, graded: int) -> dict[str, Any]:
    share, interval = (correct / graded, list(wilson(correct, graded))) if graded else (None, None)
    return {"graded": graded, "correct": correct, "accuracy": share, "accuracy_interval_95": interval}
