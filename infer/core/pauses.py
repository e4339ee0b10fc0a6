"""Pauses that servers ask for: for whoever shows how a run goes on, as nothing else comes while they last."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

_asked: dict[object, tuple[str, float]] = {}


@contextmanager
def pausing(why: str, seconds: float) -> Iterator[None]:
    """A block that waits, for so long and for this reason."""
    key = object()
    _asked[key] = (why, time.monotonic() + seconds)
    try:
        yield
    finally:
        del _asked[key]


def waiting() -> str | None:
    """Describes the pause that ends first: the seconds left, and the reason. None if there is no pause."""
    if not _asked:
        return None
    why, until = min(_asked.values(), key=lambda pause: pause[1])
    return f"waiting {math.ceil(max(0.0, until - time.monotonic()))} s: {why}"
