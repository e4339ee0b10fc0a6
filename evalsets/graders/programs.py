"""Programs: they are found in a solution's text, run against hidden tests in a sandbox, and grouped by what they do."""

import ast
import asyncio
import doctest
import platform
import re
import textwrap
import warnings
from collections.abc import Sequence
from itertools import islice
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from infer.core.grading import Verdict
from infer.core.problem import Problem
from infer.sandbox.pool import Sandbox, Script

MAX_CHARS = 100_000
"""A longer answer holds no program: all searches would wait for the parser."""

MAX_STARTS = 50
"""Lines that look like the beginning of a program, in an answer without blocks: so many are tried."""


class HiddenTests(BaseModel):
    """The reference of a problem, kept as JSON in its `answer`: code that raises where a program is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entry: str | None = None
    """The name of the function in question."""
    setup: str = ""
    """Run before the program, and before each test: imports and functions that the problem gives."""
    head: str = ""
    """The function's first lines, if the problem gives them, for answers that are its body alone."""
    codes: tuple[str, ...] = ()
    """All must pass. `candidate` is the function."""

    def script(self, code: str) -> Script:
        return Script(code, self.setup, self.entry)

    def program(self, answer: str) -> str:
        """An answer as it is run. One that does not define the function is taken as its body, if it can be one."""
        if self.entry not in _names(answer) and self.head and (body := _body(answer)) is not None:
            answer = f"{self.head}\n{body}"
        return f"{self.setup}\n{answer}\n"


class Programs:
    """Runs programs, any number at once, from one event loop. The sandbox starts with the first."""

    def __init__(self) -> None:
        self._sandbox = Sandbox()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    @staticmethod
    def extract(text: str) -> str | None:
        """The program in a solution (see `extract`)."""
        return extract(text)

    async def grade(self, problem: Problem, answer: str) -> Verdict:
        """Whether a program passes all of the problem's tests."""
        tests = _tests_of(problem)
        results = await self._sandbox.run(tests.program(answer), [tests.script(code) for code in tests.codes])
        failed = next((result for result in results if result.outcome != "passed"), None)
        # the usual ways to fail need no note: they would be most of a run
        cut = failed is not None and failed.outcome in ("time", "output", "malformed")
        return Verdict(failed is None, note=f"{failed.outcome}: {failed.why}" if failed is not None and cut else None)

    async def group(self, problem: Problem, answers: Sequence[str | None]) -> list[int]:
        """For each program the index of the first that behaves equally on the problem's examples; -1 for None.

        Hidden tests take no part. Without examples, programs are equal if their syntax trees are.
        """
        distinct = list(dict.fromkeys(answer for answer in answers if answer is not None))
        behaviours = await asyncio.gather(*(self._behaviour(problem, answer) for answer in distinct))
        known = dict(zip(distinct, behaviours, strict=True))
        first: dict[Any, int] = {}
        return [-1 if answer is None else first.setdefault(known[answer], n) for n, answer in enumerate(answers)]

    def tests(self, problem: Problem, text: str) -> list[str]:
        """The tests in a text: its lines that are one `assert` each, in blocks or not."""
        lines = (line.strip() for line in text.splitlines())
        return [line for line in lines if line.startswith("assert ") and _parse(line) is not None]

    async def passes(self, problem: Problem, answers: Sequence[str], tests: Sequence[str]) -> list[list[bool]]:
        """For each program, which of the tests it passes. A test that is malformed for all passes nowhere."""
        found = _tests_of(problem)
        ran = (self._sandbox.run(found.program(answer), [found.script(test) for test in tests]) for answer in answers)
        return [[result.outcome == "passed" for result in results] for results in await asyncio.gather(*ran)]

    def describe(self) -> dict[str, Any]:
        return {"programs": 1, "python": platform.python_version(), "cpu_seconds": self._sandbox.cpu}

    async def close(self) -> None:
        """Ends the sandbox's processes."""
        await self._sandbox.close()

    async def _behaviour(self, problem: Problem, answer: str) -> Any:
        codes = examples(problem.prompt)
        if not codes:
            return _tree(answer)
        tests = _tests_of(problem)
        results = await self._sandbox.run(tests.program(answer), [tests.script(code) for code in codes])
        return tuple(result.seen or (result.outcome, result.why) for result in results)


def _tests_of(problem: Problem) -> HiddenTests:
    return HiddenTests() if problem.answer is None else HiddenTests.model_validate_json(problem.answer)


def extract(text: str) -> str | None:
    """The program in the text of a solution; None where there is none.

    Of fenced blocks it is the last that defines a function or a class, else the last that is Python. A block that the
    end of the text cuts off counts up to its last whole statement. In text without blocks it is the first run of lines
    that defines something, as far as it is Python; else the text itself, if it can be the body of a function.
    """
    _, thought, rest = text.rpartition("</think>")
    text = rest if thought else text
    if (not thought and "<think>" in text) or not text.strip() or len(text) > MAX_CHARS:
        return None
    found = [block for block in _BLOCK.finditer(text) if block["language"].lower() in _PYTHON]
    blocks = [(textwrap.dedent(block["code"]), not block["end"]) for block in found]
    if blocks:
        programs = [whole for code, cut in blocks if (whole := _whole(code) if cut else _parsed(code)) is not None]
        bodies = [code for code, _ in blocks if _body(code) is not None]
        return next(iter([p for p in programs if _defines(p)][-1:] + programs[-1:] + bodies[-1:]), None)
    for start in islice(_START.finditer(text), MAX_STARTS):
        if (whole := _whole(text[start.start() :])) is not None and _defines(whole):
            return whole
    return text if _body(text) is not None else None


def examples(prompt: str) -> list[str]:
    """The calls that a problem shows: what follows `>>>`, and lines that begin with `assert`."""
    try:
        shown = [example.source.strip() for example in doctest.DocTestParser().get_examples(prompt)]
    except ValueError:  # a doctest that is none
        shown = []
    return [*shown, *(line.strip() for line in prompt.splitlines() if line.startswith("assert "))]


_BLOCK = re.compile(
    r"^[ \t]*```[ \t]*(?P<language>[^`\s]*)[^`\n]*\n(?P<code>.*?)(?P<end>^[ \t]*```[ \t]*$|\Z)",
    re.DOTALL | re.MULTILINE,
)
_PYTHON = ("", "python", "python3", "py")
_START = re.compile(r"^(?:import |from \w|def |async def |class |@)", re.MULTILINE)


_NO_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)


def _parser(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in strings
        return ast.parse(code)


def _parse(code: str) -> ast.Module | None:
    try:
        return _parser(code)
    except _NO_PYTHON:
        return None


def _parsed(code: str) -> str | None:
    return code if code.strip() and _parse(code) is not None else None


def _whole(code: str) -> str | None:
    """The code up to its last whole statement before the first that is no Python; None where there is none."""
    lines = code.splitlines()
    while lines:
        try:
            _parser(whole := "\n".join(lines))
        except _NO_PYTHON as error:
            bad = error.lineno if isinstance(error, SyntaxError) and error.lineno else len(lines)
            lines = lines[: min(bad, len(lines)) - 1]  # not line by line, or long prose would take minutes
        else:
            return whole.rstrip() or None
    return None


def _defines(program: str) -> bool:
    module = _parse(program)
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return module is not None and any(isinstance(node, kinds) for node in module.body)


def _names(program: str) -> set[str]:
    """The names that a program defines or imports at its top level."""
    names: set[str] = set()
    module = _parse(program)
    for node in module.body if module is not None else ():
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name for alias in node.names}
            case ast.Assign():
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _body(text: str) -> str | None:
    """The text as the body of a function, indented; None where it can't be one that returns something."""
    first_line_stripped = "    " + text.strip()  # as many models begin it
    for body in (textwrap.indent(textwrap.dedent(text.strip("\n")), "    "), first_line_stripped):
        module = _parse(f"def _():\n{body}")
        if module is not None and any(isinstance(node, ast.Return | ast.Yield) for node in ast.walk(module)):
            return body
    return None


def _tree(program: str) -> str:
    module = _parse(program)
    return program if module is None else ast.dump(module)
