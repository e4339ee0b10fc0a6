"""The two ways to fail: what the user can put right, and everything else."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class UserError(Exception):
    """Something the user got wrong. The message is one line that names the thing and the fix; exit code 2."""


class TooLong(UserError):
    """What a model was given does not fit its context. Of one candidate among many: the others can still be judged.

    `calls` are the requests (`infer.core.pricing.Call`) that were made before that was found out.
    """

    def __init__(self, message: str, calls: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.calls = calls


class ToldElsewhere(UserError):
    """Why it failed has been said by another process, on standard error: in a command, in its log."""


class WriteError(OSError):
    """A result could not be written. No `UserError`: the whole run has to stop, not the one problem."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A half-sentence for an unknown name: the nearest known names, else all of them, or the first of very many.

    >>> nearest("asta", ["astar", "greedy"])
    'did you mean astar?'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(names[:20])}" + (f" and {len(names) - 20} more" if len(names) > 20 else "")
