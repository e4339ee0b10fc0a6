"""An evaluation set: named problems, the chat that puts them to a model, and the grader of their answers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from infer.core.grading import Grader
from infer.core.problem import Problem
from infer.errors import UserError
from infer.evalsets.graders.mathematics import Mathematics


@dataclass(frozen=True, slots=True)
class Template:
    """The chat messages for a problem. `user` holds `{problem}`; other braces stand for themselves."""

    user: str
    system: str | None = None

    def __post_init__(self) -> None:
        if "{problem}" not in self.user:
            raise UserError(
                f"the template {self.user!r} has no {{problem}} in it: put it where the problem's text goes"
            )

    def messages(self, problem: Problem) -> list[dict[str, str]]:
        # replaced, not formatted: templates ask for \boxed{}, problems are full of LaTeX
        user = {"role": "user", "content": self.user.replace("{problem}", problem.prompt)}
        return [user] if self.system is None else [{"role": "system", "content": self.system}, user]


# The request stands in the user message, since the chat templates of several model families refuse a system message.
# Blank lines between steps are what process reward models were trained on and where step-wise search cuts.
MATHEMATICS = Template(
    "{problem}\n\nReason step by step. Separate the steps by a blank line. Put the final answer in \\boxed{}."
)

PLAIN = Template("{problem}")


@dataclass(frozen=True)
class EvalSet:
    """Problems under one name.

    `load()` raises a `UserError` for what is wrong with the set at the call, before its first problem; the problems
    themselves are streamed. `source` is a hub id with its revision, a path with the file's digest, or "procedural".
    """

    name: str
    summary: str
    source: str
    load: Callable[[], Iterator[Problem]]
    template: Template = MATHEMATICS
    license: str | None = None
    grader: Callable[[], Grader] = Mathematics
    """Makes the grader of its answers."""

    def messages(self, problem: Problem) -> list[dict[str, str]]:
        """The chat messages that put the problem to a model."""
        return self.template.messages(problem)
