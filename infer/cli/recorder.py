"""Records the outcomes of a session."""

from infer.cli.display import ProgressBar
from infer.cli.terminal import say
from infer.core.solution import Solution
from infer.core.solve import Failure
from infer.core.tally import Tally
from infer.runs.run import Run


class Recorder:
    """Writes solutions to the run, counts them, shows how it goes; keeps failures, and the solution of one question."""

    def __init__(self, run: Run | None, bar: ProgressBar | None) -> None:
        self.tally = Tally()
        self.failures: list[Failure] = []
        self.only: Solution | None = None
        self._run = run
        self._bar = bar

    def __call__(self, outcome: Solution | Failure) -> None:
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
            self.tally.failed += 1
            return
        if self._run is not None:
            self._run.append(outcome)
        self.tally.add(outcome)
        if self._bar is not None:
            self._bar.update(self.tally)
        else:
            self.only = outcome


def say_failures(failures: list[Failure]) -> int:
    """Prints the problems that could not be tried. Returns the exit code: 2 if there are any."""
    for failure in failures[:10]:
        say(str(failure.error))
    if len(failures) > 10:
        say(f"and {len(failures) - 10} more problems that could not be tried")
    return 2 if failures else 0
