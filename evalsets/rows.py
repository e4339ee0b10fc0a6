r"""From a table's rows to problems: finds the columns, and reports a bad row in one line.

Column names are guessed for each row unless given, and their case is ignored. An answer that is a whole worked solution
is reduced to its final answer: the text after GSM8K's `####`, else the content of the last `\boxed{}`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infer.core.problem import Problem
from infer.errors import UserError

PROBLEM = ("problem", "question", "prompt", "input", "query", "instruction", "problem_text", "question_text")
ANSWER = (
    "answer",
    "final_answer",
    "correct_answer",
    "expected_answer",
    "target",
    "reference",
    "label",
    "gold",
    "output",
)
SOLUTION = ("solution",)
ID = ("unique_id", "id", "problem_id", "question_id", "task_id", "uid", "idx")
LEVEL = ("level", "difficulty")

Row = Mapping[str, Any]
Read = Callable[[Iterable[tuple[str, Row]]], Iterator[Problem]]
"""Makes problems of rows, each with its place ("line 17"). Raises `UserError` for a row that does not fit."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that the user named; None: guessed."""

    problem: str | None = None
    answer: str | None = None
    id: str | None = None


def problems(rows: Iterable[tuple[str, Row]], *, where: str, stem: str, columns: Columns) -> Iterator[Problem]:
    """Yields a problem for each row. Rows come with their place ("line 17"). Ids begin with `stem` where rows lack one.

    Raises `UserError` for a missing column, an empty problem, a value that is not text, or an id that occurs twice. It
    names `where`, the place and the fix.
    """
    # hashes take less memory than ids (64 bits: a false alarm among ten million has probability 3e-6)
    seen: dict[int, int] = {}
    for number, (place, row) in enumerate(rows, 1):
        try:
            problem = _problem(row, columns, f"{stem}-{number:04d}", where)
        except _RowError as error:
            raise UserError(f"{where}, {place}: {error}") from None
        first = seen.setdefault(hash(problem.id), number)
        if first != number:
            raise UserError(
                f"{where}, {place}: id {problem.id!r} occurs twice (also in problem {first}); "
                "ids must be unique: name the right column with --id-column"
            )
        yield problem


def check(found: Iterator[Problem], where: str) -> None:
    """Reads all problems once, so that a bad row 9,000 is reported before any compute is spent on row 1."""
    if sum(1 for _ in found) == 0:
        raise UserError(f"{where} is empty: it has no problems")


class _RowError(Exception):
    pass


def _problem(row: Row, columns: Columns, default_id: str, source: str) -> Problem:
    known = {str(name).lower(): str(name) for name in row}
    prompt = _value(row, known, columns.problem, PROBLEM)
    if prompt is None:
        if columns.problem is None and not any(name in known for name in PROBLEM):
            raise _RowError(f"no column with the problem; name it with --problem-column (columns: {_list(row)})")
        raise _RowError("the problem's text is empty")
    if not isinstance(prompt, str):
        raise _RowError(
            f"the problem is {_kind(prompt)}, not text; name another with --problem-column (columns: {_list(row)})"
        )
    if not prompt.strip():
        raise _RowError("the problem's text is empty")
    answer = _value(row, known, columns.answer, ANSWER + SOLUTION)
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if isinstance(answer, list | dict):
        raise _RowError(f"the answer is {_kind(answer)}, but a problem has one; name another with --answer-column")
    reference = None if answer is None else _text(answer)
    if reference is not None:
        final = _final(reference)
        # a worked solution without a final answer is not a reference: no answer would equal it
        solution_only = columns.answer is None and _value(row, known, None, ANSWER) is None
        reference = final if final is not None or solution_only else reference
    id = _value(row, known, columns.id, ID)
    if id is None and columns.id is not None:
        raise _RowError(f"column {columns.id!r} is empty, but a problem needs an id")
    level = _value(row, known, None, LEVEL)
    return Problem(
        id=default_id if id is None else _text(id),
        prompt=prompt,
        answer=reference,
        level=None if level is None else _text(level),
        source=source,
    )


def _value(row: Row, known: Mapping[str, str], given: str | None, usual: Iterable[str]) -> Any:
    """The value of the given column, else of the first usual one that has a value. None: empty, or no such column."""
    if given is not None and given not in row:
        raise _RowError(f"no column {given!r} (columns: {_list(row)})")
    for name in (given,) if given is not None else (known[name] for name in usual if name in known):
        value = row[name]
        empty = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
        if not empty:
            return value
    return None


def _text(value: Any) -> str:
    """The value as text; 42.0 becomes "42", since columns with gaps turn integers into floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _final(text: str) -> str | None:
    r"""The text after `####` in the last line, else in the last closed `\boxed{}`; None: there is neither."""
    last = text.strip().rpartition("\n")[2]
    if last.startswith("####"):
        return last.removeprefix("####").strip() or None
    start = len(text)
    while (start := text.rfind("\\boxed{", 0, start)) >= 0:
        depth = 0
        for end in range(start, len(text)):
            if text[end] in "{}" and text[end - 1] != "\\":
                depth += 1 if text[end] == "{" else -1
                if depth == 0:
                    return text[start + len("\\boxed{") : end].strip() or None
    return None


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, dict) else f"{value!r}"


def _list(row: Row) -> str:
    names = [str(name) for name in row]
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") if names else "none"
