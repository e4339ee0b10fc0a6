"""An evaluation set: named problems, the chat that asks a model for a solution, and the grader of its answers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from infer.core.grading import Grader
from infer.core.problem import Problem
from infer.errors import UserError, in_one_line
from infer.evalsets.graders.mathematics import Mathematics


@dataclass(frozen=True, slots=True)
class Template:
    """The chat messages for a problem. `user` contains `{problem}`; other braces are ordinary text.

    A problem that comes with a system message of its own keeps that one.
    """

    user: str
    system: str | None = None

    def __post_init__(self) -> None:
        if "{problem}" not in self.user:
            raise UserError(f"the template {self.user!r} lacks {{problem}}: put it where the problem's text goes")

    def messages(self, problem: Problem) -> list[dict[str, str]]:
        # replaced, not formatted: templates contain \boxed{}, and problems LaTeX
        chat = [*problem.before, ("user", self.user.replace("{problem}", problem.prompt))]
        if self.system is not None and chat[0][0] != "system":
            chat.insert(0, ("system", self.system))
        return [{"role": role, "content": text} for role, text in chat]


# The request is in the user message, since the chat templates of several model families refuse a system message.
# Process reward models were trained on steps that end with a blank line, and step-wise search ends steps there.
MATHEMATICS = Template(
    "{problem}\n\nReason step by step. Separate the steps by a blank line. Put the final answer in \\boxed{}."
)

PLAIN = Template("{problem}")


@dataclass(frozen=True)
class EvalSet:
    """Problems under one name.

    `load()` raises `UserError` for errors in the set when it is called, before the first problem; the problems are then
    streamed. `source` is a hub id with its revision, a path with the file's digest, or "procedural".
    """

    name: str
    summary: str
    source: str
    load: Callable[[], Iterator[Problem]]
    template: Template = MATHEMATICS
    license: str | None = None
    grader: Callable[[], Grader] = Mathematics
    """Makes the grader of the answers."""

    def problems(self) -> Iterator[Problem]:
        """The problems, streamed, each checked. Raises UserError, which names the set, whatever its code does wrong."""
        seen: set[int] = set()  # hashes, as there may be millions
        try:
            for problem in self.load():
                if not isinstance(problem, Problem):
                    raise UserError(f"evaluation set {self.name} has a {type(problem).__name__}, which is no Problem")
                if hash(problem.id) in seen:
                    raise UserError(f"evaluation set {self.name}: id {problem.id!r} occurs twice, but ids are unique")
                seen.add(hash(problem.id))
                yield problem
        except UserError:
            raise
        except Exception as error:  # of another package, or of the files it reads
            raise UserError(f"evaluation set {self.name} can't be read: {in_one_line(error)}") from error

    def messages(self, problem: Problem) -> list[dict[str, str]]:
        """The chat messages that ask a model for a solution of the problem."""
        return self.template.messages(problem)
