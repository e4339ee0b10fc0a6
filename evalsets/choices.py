"""Multiple choice: finds the choices of a row, lists them for the prompt, and reads which one is right.

Read are a column of texts (MMLU), of texts and labels (ARC), or an object of texts by letters (MedQA), as values or as
JSON in a CSV; columns named A, B, C, …; and a right answer beside wrong ones (GPQA).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from string import ascii_uppercase
from typing import Any

from infer.evalsets.cells import RowError, empty, kind_of, text_of

CHOICES = ("choices", "options")
ANSWER = ("answerkey", "answer_key", "correct", "answer_idx", "answer_index")
"""Columns of the answer besides the usual ones."""

_LABELLED = re.compile(r"\(?([A-Za-z])[).:]\s*(.*)", re.DOTALL)
_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of a problem, at least two."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    """As the row names them: letters, or numbers."""

    def listed(self, prompt: str) -> str:
        """The problem with its choices after it, unless it lists them itself."""
        lines = [f"{letter}) {text}" for letter, text in zip(ascii_uppercase, self.texts, strict=False)]
        shown = (rf"\b{line[0]}\b\W{{1,3}}{re.escape(line[3:])}" for line in lines)
        if all(re.search(pattern, prompt) for pattern in shown):
            return prompt
        return "\n".join([prompt.rstrip(), "", *lines, "", "Answer with the letter of the right choice."])

    def letter(self, answer: Any) -> str:
        """The letter of the right choice, by its letter or label, its text, or its index from 0. Raises RowError."""
        text = text_of(answer)
        count = len(self.texts)
        found: list[int] = []
        bare = _LETTER.fullmatch(text)
        for label in (text, bare[1].upper() if bare else text):
            found = found or [place for place, known in enumerate(self.labels) if known == label]
        if not found and isinstance(answer, str):
            found = [place for place, known in enumerate(self.texts) if known == text]
        if re.fullmatch(r"\d{1,2}", text) and text not in self.labels and int(text) < count:
            if found and found != [int(text)]:
                raise RowError(f"the answer {text!r} is a choice and the index of another: give its letter")
            found = [int(text)]
        if len(found) != 1:
            letters = f"{ascii_uppercase[0]} to {ascii_uppercase[count - 1]}"
            why = "several" if found else "none"
            raise RowError(
                f"the answer {text[:60]!r} is {why} of the {count} choices: give a letter ({letters}), an index "
                f"(0 to {count - 1}) or a choice's text, or leave the choices out"
            )
        return ascii_uppercase[found[0]]


def choices_of(row: Mapping[str, Any], known: Mapping[str, str], answer: Any) -> Choices | None:
    """The choices in a row; None: it has none. Raises RowError.

    `known` has the row's columns by their plain names. Columns A, B, C may hold anything: they are choices where the
    answer is one of these letters.
    """
    for name in CHOICES:
        if name in known and not empty(row[known[name]]):
            return _choices(_parsed(row[known[name]]), known[name])
    if {"a", "b", "c"} <= known.keys():
        letters = [letter for letter in ascii_uppercase[:10] if not empty(row.get(known.get(letter.lower(), "")))]
        if letters == list(ascii_uppercase[: len(letters)]) and text_of(answer).upper() in letters:
            return _checked([row[known[letter.lower()]] for letter in letters], letters, "A, B, …")
    wrong = [known[name] for name in known if re.fullmatch(r"incorrect_answer_?\d+", name)]
    if "correct_answer" in known and wrong:
        right = row[known["correct_answer"]]
        texts = [right, *(row[name] for name in wrong if not empty(row[name]))]
        # in an order that is fixed, and tells nothing
        texts.sort(key=lambda text: sha256(f"{text_of(right)}\n{text_of(text)}".encode()).digest())
        return _checked(texts, ascii_uppercase[: len(texts)], "incorrect answers")
    return None


def _parsed(value: Any) -> Any:
    """A list or an object that a CSV can only hold as JSON."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            return json.loads(value)
        except ValueError:
            raise RowError(f'the choices {value[:60]!r} are not JSON: write them like ["2", "3"]') from None
    return value


def _choices(value: Any, column: str) -> Choices:
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        texts = value["text"]
        labels = value.get("label") or ascii_uppercase[: len(texts)]
    elif isinstance(value, dict):
        labels, texts = list(value), list(value.values())
    elif isinstance(value, list) and value and all(isinstance(item, dict) and "text" in item for item in value):
        texts = [item["text"] for item in value]
        labels = [item.get("label", letter) for item, letter in zip(value, ascii_uppercase, strict=False)]
    elif isinstance(value, list):
        texts, labels = value, ascii_uppercase[: len(value)]
    else:
        raise RowError(f"the choices in {column!r} are {kind_of(value)}, not a list of texts")
    return _checked(texts, labels, column)


def _checked(texts: Sequence[Any], labels: Sequence[Any], column: str) -> Choices:
    if not 2 <= len(texts) <= len(ascii_uppercase):
        raise RowError(f"{column!r} has {len(texts)} choices: there must be 2 to {len(ascii_uppercase)}")
    if len(labels) != len(texts):
        raise RowError(f"{column!r} has {len(texts)} choices and {len(labels)} labels")
    if other := next((text for text in texts if isinstance(text, list | dict) or empty(text)), None):
        raise RowError(f"{column!r} has a choice that is {kind_of(other)}, not text")
    plain = tuple(text_of(text) for text in texts)
    marked = [_LABELLED.fullmatch(text) for text in plain]
    if all(mark and mark[1].upper() == letter for mark, letter in zip(marked, ascii_uppercase, strict=False)):
        plain = tuple(mark[2] for mark in marked if mark)
    return Choices(plain, tuple(text_of(label) for label in labels))
