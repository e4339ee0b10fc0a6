"""A problem: what an evaluation set yields and a strategy solves."""

import re
from dataclasses import dataclass

HALVES = re.compile("[\ud800-\udfff]")
"""Halves of characters, as broken exports have them: no tokenizer takes them, and no file in UTF-8."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem with its reference answer.

    `id` is unique within its evaluation set; `prompt` is the problem's own text, before any template; `answer` is the
    reference answer as written by the set (None: ungraded); `level` is the set's own difficulty label, if it has one.
    """

    id: str
    prompt: str
    answer: str | None = None
    level: str | None = None
    source: str = ""
    also: tuple[str, ...] = ()
    """Further right answers: any of them counts."""
    choices: tuple[str, ...] = ()
    """Multiple choice: the texts of A, B, C, …; `answer` is a letter then. The prompt lists them."""
    before: tuple[tuple[str, str], ...] = ()
    """Roles and texts of the chat before the prompt: a system message, examples."""
