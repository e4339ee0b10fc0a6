"""Errors that have a meaning of their own: a user's mistake, a spent budget, a server that fails, a full disk."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class UserError(Exception):
    """A mistake of the user. The message is one line that names the thing and the fix; exit code 2."""


class BudgetSpent(Exception):
    """Nothing more is affordable. The runner catches it and returns the best solution so far."""


class TooLong(UserError):
    """The input exceeds the model's context. Concerns one candidate; the others can still be scored.

    `calls` are the requests (`infer.core.pricing.Call`) that were made before this was found.
    """

    def __init__(self, message: str, calls: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.calls = calls


class ToldElsewhere(UserError):
    """The cause was already printed by another process (on standard error; in the log, in a command)."""


class ServerFailed(Exception):
    """A server gave no usable reply, however often it was asked. Fails the problem, not the run; exit code 1."""


class ServerDown(ServerFailed):
    """A server failed so many problems in a row that the run stops."""


class WriteError(OSError):
    """A result could not be written. Not a `UserError`: the whole run has to stop, not the one problem."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error, with its class where the line is a single word.

    >>> first_line(KeyError("llama"))
    "KeyError: 'llama'"
    """
    told = str(error)
    if hasattr(error, "errors"):  # pydantic's first line only counts them
        told = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    line = next((line.strip() for line in told.splitlines() if line.strip()), "")
    return line.rstrip(".") if " " in line else f"{type(error).__name__}: {line}".rstrip(": ")


def in_one_line(error: BaseException) -> str:
    """An exception of somebody else's code: its type and its text.

    >>> in_one_line(ValueError("no such\\n  thing"))
    'ValueError: no such thing'
    """
    return " ".join(f"{type(error).__name__}: {error}".split())


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known names, else all of them, or the first twenty.

    >>> nearest("asta", ["astar", "greedy"])
    'did you mean astar?'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(names[:20])}" + (f" and {len(names) - 20} more" if len(names) > 20 else "")
