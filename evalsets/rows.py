r"""From a table's rows to problems: finds the columns, and reports a bad row in one line.

Column names are guessed for each row unless given; their case is ignored, and so is a space in place of `_`. An answer
that is a whole worked solution is reduced to its final answer: the text after GSM8K's `####`, else the content of the
last `\boxed{}`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from infer.core.problem import Problem
from infer.errors import UserError
from infer.evalsets import choices
from infer.evalsets.cells import RowError, empty, kind_of, text_of, whole
from infer.evalsets.chats import Chat, read_chat
from infer.evalsets.choices import Choices, choices_of
from infer.evalsets.graders.extraction import boxes

logger = logging.getLogger(__name__)

PROBLEM = (
    "problem",
    "question",
    "prompt",
    "input",
    "query",
    "instruction",
    "problem_text",
    "question_text",
    "question_stem",
    "messages",
)
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
LOST = "\ufffd"
"""Stands for a character that was lost."""

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
    fix = "ids must be unique: name the right column with --id-column"
    return made(rows, lambda number, row: _problem(row, columns, f"{stem}-{number:04d}", where), where=where, fix=fix)


def made(
    rows: Iterable[tuple[str, Row]], make: Callable[[int, Row], Problem], *, where: str, fix: str
) -> Iterator[Problem]:
    """Yields the problem that `make` makes of each row and its number from 1 on.

    Raises `UserError`, with `where` and the place, for a row of which it raises `RowError`, and for an id that occurs
    twice, with the `fix`.
    """
    # hashes take less memory than ids (64 bits: a false alarm among ten million has probability 3e-6)
    seen: dict[int, int] = {}
    for number, (place, row) in enumerate(rows, 1):
        try:
            problem = make(number, row)
        except RowError as error:
            raise UserError(f"{where}, {place}: {error}") from None
        first = seen.setdefault(hash(problem.id), number)
        if first != number:
            raise UserError(f"{where}, {place}: id {problem.id!r} occurs twice (also in problem {first}); {fix}")
        yield problem


def check(found: Iterator[Problem], where: str) -> None:
    """Reads all problems once, so that a bad row 9,000 is reported before any compute is spent on row 1.

    Warns of lost characters: what was lost can't be mended, and the other problems can be solved.
    """
    count = 0
    lost = []
    for problem in found:
        count += 1
        if LOST in "".join([problem.prompt, problem.answer or "", *problem.choices]):
            lost.append(problem.id)
    if count == 0:
        raise UserError(f"{where} is empty: it has no problems")
    if lost:
        many = f"{len(lost)} problems" if len(lost) > 1 else "a problem"
        _warn(f"{where}: characters of {many} were lost in an export and stand as {LOST}, first in {lost[0]}")


@cache  # a set is checked each time it is found
def _warn(message: str) -> None:
    logger.warning("%s", message)


def _problem(row: Row, columns: Columns, default_id: str, source: str) -> Problem:
    known = {str(name).strip().lower().replace(" ", "_"): str(name) for name in row}
    chat = _chat(row, known, columns)
    offered = choices_of(row, known, _value(row, known, columns.answer, ANSWER + choices.ANSWER))
    right = list(dict.fromkeys(_answers(row, known, columns, chat.reply, offered)))
    id = _value(row, known, columns.id, ID)
    if id is None and columns.id is not None:
        raise RowError(f"column {columns.id!r} is empty, but a problem needs an id")
    level = _value(row, known, None, LEVEL)
    return Problem(
        id=default_id if id is None else text_of(id),
        prompt=offered.listed(chat.prompt) if offered is not None else chat.prompt,
        answer=right[0] if right else None,
        level=None if level is None else text_of(level),
        source=source,
        also=tuple(right[1:]),
        choices=offered.texts if offered is not None else (),
        before=chat.before,
    )


def _chat(row: Row, known: Mapping[str, str], columns: Columns) -> Chat:
    """The problem's text, and what comes before and after it where it is given as a chat."""
    prompt = _value(row, known, columns.problem, PROBLEM)
    if prompt is None and columns.problem is None and not any(name in known for name in PROBLEM):
        raise RowError(f"no column with the problem; name it with --problem-column (columns: {_list(row)})")
    if isinstance(prompt, list) and any(isinstance(message, dict) for message in prompt):
        chat = read_chat(prompt)
    elif prompt is None or isinstance(prompt, str):
        chat = Chat((), whole(prompt or ""), None)
    else:
        raise RowError(
            f"the problem is {kind_of(prompt)}, not text; name another with --problem-column (columns: {_list(row)})"
        )
    if not chat.prompt.strip():
        raise RowError("the problem's text is empty")
    return chat


def _answers(
    row: Row, known: Mapping[str, str], columns: Columns, reply: str | None, offered: Choices | None
) -> Iterator[str]:
    """The right answers: letters where choices are offered."""
    usual = ANSWER + choices.ANSWER if offered is not None else ANSWER
    value = _value(row, known, columns.answer, usual)
    # a worked solution without a final answer is not a reference: no answer would equal it
    only_final = value is None and columns.answer is None
    if only_final:
        value = _value(row, known, None, SOLUTION) or reply
    for answer in value if isinstance(value, list) else [value]:
        if isinstance(answer, list | dict):
            raise RowError(f"an answer is {kind_of(answer)}, not text; name another with --answer-column")
        if empty(answer):
            continue
        final = _final(text_of(answer))
        if final is not None or not only_final:
            given = answer if final is None else final
            yield text_of(given) if offered is None else offered.letter(given)


def _value(row: Row, known: Mapping[str, str], given: str | None, usual: Iterable[str]) -> Any:
    """The value of the given column, else of the first usual one that has a value. None: empty, or no such column."""
    if given is not None and given not in row:
        raise RowError(f"no column {given!r} (columns: {_list(row)})")
    for name in (given,) if given is not None else (known[name] for name in usual if name in known):
        value = row[name]
        if not empty(value):
            return value
    return None


def _final(text: str) -> str | None:
    r"""The text after `####` in the last line, else in the last `\boxed{}` with an answer; None: there is neither."""
    last = text.strip().rpartition("\n")[2]
    if last.startswith("####"):
        return last.removeprefix("####").strip() or None
    return next((content for content in boxes(text) if content), None)


def _list(row: Row) -> str:
    names = [str(name) for name in row]
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") if names else "none"
