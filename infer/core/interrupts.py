"""Ctrl-C, SIGTERM and SIGHUP: the first ends a command in order; more of them, while it ends, change nothing.

Otherwise the second of five Ctrl-C would cut off what the first began: closing engines, whose processes then stay.
"""

import atexit
import signal
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

Result = TypeVar("Result")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 10.0
"""Seconds after which another signal counts again: the ending itself may hang."""


class Interrupt(SystemExit):
    """A signal came. No KeyboardInterrupt: vLLM swallows one while its engines start, and then waits for them."""


came: int | None = None
"""The first signal that came."""
_at = 0.0
_task: "asyncio.Task[Any] | None" = None
"""The task to cancel; None: `Interrupt` is raised wherever the program stands."""


def watch() -> None:
    """Takes over the three signals for the life of this process; one that is ignored stays so, as under nohup."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    atexit.register(_ignore)  # Python ends by giving signals back to the system, which would kill it for one more


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """As `asyncio.run`, which cancels the work on Ctrl-C alone: here on each of the signals watched.

    Raises KeyboardInterrupt.
    """
    import asyncio

    async def main() -> Result:
        global _task
        _task = asyncio.current_task()
        try:
            return await work
        finally:
            _task = None

    try:
        return asyncio.run(main())
    except (asyncio.CancelledError, Interrupt):
        raise KeyboardInterrupt from None


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C takes effect at once: asyncio waits with it for its next turn, which comes when the model is loaded."""
    global _task
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    task, _task = _task, None
    handler = signal.getsignal(signal.SIGINT)
    foreign = callable(handler) and handler is not _interrupt  # asyncio's, in a program of the user's own
    if foreign:
        signal.signal(signal.SIGINT, _raise)
    try:
        yield
    except Interrupt:
        raise KeyboardInterrupt from None
    finally:
        _task = task
        if foreign:
            signal.signal(signal.SIGINT, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupt(128 + number)


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global came, _at
    now = time.monotonic()
    if came is not None and now - _at < PATIENCE:
        return
    came, _at = came or number, now
    if _task is None:
        _raise(number, frame)
    else:
        _task.cancel()
        _task.get_loop().call_soon_threadsafe(lambda: None)  # wakes the loop, which may wait for a socket
