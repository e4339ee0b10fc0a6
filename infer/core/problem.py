"""A problem: what an evaluation set yields and a strategy solves."""

from dataclasses import dataclass


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
