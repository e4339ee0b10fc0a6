r"""From a table's rows to problems: which column is what, and what is wrong with a row, in one line.

Column names are guessed row by row, whatever their capitals, unless given. An answer that is a whole worked solution
is reduced to its final answer: what follows GSM8K's `####`, else what the last `\boxed{}` holds.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
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


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that the user named; None: guess."""

    problem: str | None = None
    answer: str | None = None
    id: str | None = None


def problems(rows: Iterable[tuple[str, Row]], *, where: str, stem: str, columns: Columns) -> Iterator[Problem]:
    """A problem for each row. Rows come with their place ("line 17"); `stem` begins the ids of rows without one.

    Raises `UserError`, which names `where`, the place and the fix: a missing column, an empty problem, a value that is
    not text, an id that was there before.
    """
    # a dictionary of hashes, so that ten million ids cost no more than their hashes (64 bits: a false alarm among ten
    # million has probability 3e-6)
    seen: dict[int, int] = {}
    for number, (place, row) in enumerate(rows, 1):
        try:
            problem = _problem(row, columns, f"{stem}-{number:04d}", where)
        except _RowError as error:
            raise UserError(f"{where}, {place}: {error}") from None
        first = seen.setdefault(hash(problem.id), number)
        if first != number:
            raise UserError(
                f"{where}, {place}: id {problem.id!r} is there already (problem {first}); "
                "ids must be unique: name the right column with --id-column"
            )
        yield problem


def check(found: Iterator[Problem], where: str) -> None:
    """Go through all problems once, so that a bad row 9,000 is reported before anything is spent on row 1."""
    if sum(1 for _ in found) == 0:
        raise UserError(f"{where} is empty: it has no problems")


class _RowError(Exception):
    pass


def _problem(row: Row, columns: Columns, default_id: str, source: str) -> Problem:
    known = {str(name).lower(): str(name) for name in row}
    prompt = _value(row, known, columns.problem, PROBLEM)
    if prompt is None:
        if columns.problem is None and not any(name in known for name in PROBLEM):
            raise _RowError(f"no column with the problem; name it with --problem-column (there are: {_list(row)})")
        raise _RowError("the problem's text is empty")
    if not isinstance(prompt, str):
        raise _RowError(
            f"the problem is {_kind(prompt)}, not text; name another with --problem-column (there are: {_list(row)})"
        )
    if not prompt.strip():
        raise _RowError("the problem's text is empty")
    answer = _value(row, known, columns.answer, ANSWER + SOLUTION)
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if isinstance(answer, list | dict):
        raise _RowError(f"the answer is {_kind(answer)}, and a problem has one; name another with --answer-column")
    reference = None if answer is None else _text(answer)
    if reference is not None:
        final = _final(reference)
        # a worked solution that shows no final answer is no reference: nothing would ever equal it
        solution_only = columns.answer is None and _value(row, known, None, ANSWER) is None
        reference = final if final is not None or solution_only else reference
    id = _value(row, known, columns.id, ID)
    if id is None and columns.id is not None:
        raise _RowError(f"column {columns.id!r} is empty, and a problem needs an id")
    level = _value(row, known, None, LEVEL)
    return Problem(
        id=default_id if id is None else _text(id),
        prompt=prompt,
        answer=reference,
        level=None if level is None else _text(level),
        source=source,
    )


def _value(row: Row, known: Mapping[str, str], given: str | None, usual: Iterable[str]) -> Any:
    """The given column's value, else the first of the usual ones that is filled; None: empty, or no such column."""
    if given is not None and given not in row:
        raise _RowError(f"no column {given!r} (there are: {_list(row)})")
    for name in (given,) if given is not None else (known[name] for name in usual if name in known):
        value = row[name]
        empty = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
        if not empty:
            return value
    return None


def _text(value: Any) -> str:
    """42.0 is "42": tables with a gap make floats of their integers."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _final(text: str) -> str | None:
    r"""What follows `####` in the last line, else in the last `\boxed{}` that is closed; None: neither is there."""
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
