"""Standard output and standard error: results go to the one, messages about them to the other."""

import logging
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from infer.core.formats import clean
from infer.errors import UserError
from infer.generate.address import without_secrets
from infer.generate.scratch import scratch


class CleanConsole(Console):
    """A console that no text commands: a name, a title or an error may come from a server or a file."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=clean(segment.text))


LONGEST = 2000
"""Characters of a message; of a longer one the middle is left out."""

for _name in ("COLUMNS", "LINES"):
    if not re.fullmatch("[1-9][0-9]{0,3}", os.environ.get(_name, "")):
        os.environ.pop(_name, None)  # no size that anything can be drawn in


class Unwritable(Exception):
    """Standard output can't be written: its reader has gone (a closed pipe), or the disk is full."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output can't be written: {error.strerror}")
        self.closed = isinstance(error, BrokenPipeError)


class _Stream:
    """Standard output or standard error; once it can't be written, what is written to it goes nowhere."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._failures():
            self._real.write(text)
        return len(text)

    def flush(self) -> None:
        with self._failures():
            self._real.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @property
    def _real(self) -> IO[str]:
        return self._stream or sys.stderr

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._real.fileno())  # Python would fail again as it flushes it at its end
            os.close(nowhere)
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        """Messages are lost, and nothing else."""


class _Results(_Stream):
    def _failed(self, error: OSError) -> None:
        raise Unwritable(error) from error


@contextmanager
def results() -> Iterator[None]:
    """In this block, and at its end, standard output that can't be written raises Unwritable."""
    stream = sys.stdout
    sys.stdout = cast(IO[str], _Results(stream))
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = stream


# a file or a pipe has room for whole tables
_width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
out = CleanConsole(highlight=False, width=_width)
err = CleanConsole(file=cast(IO[str], _Stream()), highlight=False)

# vLLM's own default is standard output, which is for results
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")

_log: Path | None = None
_began = 0
"""Bytes that the log had before this command: a resumed run's log goes on."""


def log() -> Path | None:
    """The log of the engines' standard error, if a command started any."""
    return _log


def kept_log() -> Path | None:
    """The log, where it stays after this process. For a message that names it."""
    if _log is None or _log.parent != scratch():
        return _log
    descriptor, name = tempfile.mkstemp(prefix="infer-", suffix=".log")
    os.close(descriptor)
    return Path(shutil.copy(_log, name))


def last_error() -> str | None:
    """The last exception in what this command's engines said, of those that don't refer to another."""
    if _log is None:
        return None
    said = _log.read_bytes()[_began:].decode(errors="replace")
    lines = r"^(?:\(\w+ pid=\d+\) ERROR [^\]]*\] )?(?:\w+\.)*(\w+(?:Error|Exception)(?:: .+)?)$"  # a traceback's last
    found = [line.strip() for line in re.findall(lines, said, re.MULTILINE)]
    return next((error for error in reversed(found) if "root cause" not in error), None)


def say(message: str) -> None:
    """One line on standard error, without the keys in addresses; what a terminal would obey is escaped."""
    line = " ".join(without_secrets(message).split())
    text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST * 3 // 4]} [...] {text[-LONGEST // 4 :]}"
    err.print(f"infer: {text}", markup=False, soft_wrap=True)


class Told(logging.Handler):
    """Prints the messages that our own code logs: each once, and at the end the count of those that came again."""

    def __init__(self) -> None:
        super().__init__()
        self._times: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        self._times[message] += 1
        if self._times[message] == 1:
            say(message)

    def close(self) -> None:
        for message, times in self._times.items():
            if times > 1:
                say(f"{times} times: {message}")
        self._times.clear()
        super().close()


@contextmanager
def engine_noise_to(folder: Path | None) -> Iterator[None]:
    """Sends what engines and their C++ parts write to standard error into a log file; ours reaches the terminal.

    Raises UserError where the log can't be written.
    """
    global _log, _began
    log = (folder if folder is not None else scratch()) / "log.txt"
    try:
        written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"cannot write {log}: {error.strerror or error}: remove it, or name another folder") from None
    terminal = os.dup(2)
    with os.fdopen(written, "ab", buffering=0) as file, os.fdopen(terminal, "w", errors="backslashreplace") as stream:
        with suppress(OSError):
            sys.stderr.flush()
        os.dup2(file.fileno(), 2)
        err.file = cast(IO[str], _Stream(stream))
        _log, _began = log, file.tell()
        handler = Told()
        logger = logging.getLogger("infer")
        before = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            handler.close()
            logger.setLevel(before[0])
            logger.propagate = before[1]
            os.dup2(terminal, 2)
            err.file = cast(IO[str], _Stream())
