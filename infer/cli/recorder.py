"""Records the outcomes of a session."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infer.cli.display import ProgressBar
from infer.cli.terminal import say
from infer.core.solution import Solution
from infer.core.solve import Failure
from infer.core.tally import Tally
from infer.errors import ServerFailed
from infer.runs.run import Run

SHOWN = 10
"""Kinds of failures that are printed."""


@dataclass(slots=True)
class _Kind:
    """Failures whose messages differ in numbers and in the problem's id at most."""

    message: str
    problem: str
    """The first one's id."""
    count: int = 0

    def __str__(self) -> str:
        if self.problem in self.message:
            head = f"{self.count} problems: " if self.count > 1 else ""
        else:
            head = f"{self.count} problems, the first {self.problem}: " if self.count > 1 else f"{self.problem}: "
        return head + self.message


class Failures:
    """The problems that could not be tried, by their reasons: however many there are, memory holds the reasons."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}
        self.code = 0
        """The exit code: 2 where the user can mend all of them, 1 where a server failed any."""

    def add(self, failure: Failure) -> None:
        message, problem = str(failure.error), failure.problem.id
        name = re.sub(r"\d+", "", message.replace(problem, ""))
        kind = self._kinds.setdefault(name, _Kind(message, problem))
        kind.count += 1
        self.code = 1 if isinstance(failure.error, ServerFailed) else self.code or 2

    def __iter__(self) -> Iterator[_Kind]:
        """The most frequent first."""
        return iter(sorted(self._kinds.values(), key=lambda kind: -kind.count))

    def as_json(self) -> list[dict[str, Any]]:
        return [{"count": kind.count, "first": kind.problem, "message": kind.message} for kind in self]

    def say(self) -> int:
        """Prints them, each kind once with its count. Returns the exit code."""
        kinds = list(self)
        for kind in kinds[:SHOWN]:
            say(str(kind))
        if len(kinds) > SHOWN:
            say(f"and {sum(kind.count for kind in kinds[SHOWN:])} more problems that could not be tried")
        return self.code


class Recorder:
    """Writes solutions to the run, counts them, shows how it goes; keeps failures, and the solution of one question."""

    def __init__(self, run: Run | None, bar: ProgressBar | None, failures: Failures | None = None) -> None:
        self.tally = Tally()
        self.failures = failures if failures is not None else Failures()
        self.only: Solution | None = None
        self._run = run
        self._bar = bar

    def __call__(self, outcome: Solution | Failure) -> None:
        if isinstance(outcome, Failure):
            self.failures.add(outcome)
            self.tally.failed += 1
        else:
            if self._run is not None:
                self._run.append(outcome)
            self.tally.add(outcome)
        if self._bar is not None:
            self._bar.update(self.tally)
        elif isinstance(outcome, Solution):
            self.only = outcome
