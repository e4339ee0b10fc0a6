"""The reader of our own files: it checks each record against its schema, and names the place of one that does not fit.

    for line in read_lines(folder / "solutions.jsonl", Solution, "solution"):
        line.record

Bytes that are no UTF-8, nesting without end, numbers that JSON lacks, and values of another type or out of range are
refused with file, line and reason. The last line may be torn because its writer was killed: it is left out.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from infer.errors import UserError


class BadLine(UserError):
    """A line that is no record, with its file, its number from 1 on, and the reason."""

    def __init__(self, path: Path, number: int, kind: str, reason: str) -> None:
        super().__init__(f"line {number} of {path} is no {kind} ({reason}): mend or remove it")
        self.path = path
        self.number = number
        self.reason = reason


OnBad = Callable[[BadLine], None]
"""Called with each line that is left out."""


class Line(NamedTuple):
    """A line of a file, read."""

    number: int
    data: bytes
    end: int
    """The offset of the line's end in the file."""
    record: Any
    """An object of the schema."""


def open_file(path: Path) -> BinaryIO:
    """Opens a file to read its bytes. Raises OSError, also for a pipe, whose opening would wait for a writer."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(f"{path} is no file")
    return path.open("rb")


def read_lines(
    path: Path, schema: type[BaseModel], kind: str, on_bad: OnBad | None = None, *, first: type[BaseModel] | None = None
) -> Iterator[Line]:
    """Yields the lines of a file, up to a torn last one.

    `kind` is the word for a record in messages; `first` is the schema of the first line where it has another. A line
    that does not fit raises BadLine, or goes to `on_bad`. Raises OSError.
    """
    end = 0
    with open_file(path) as file:
        for number, data in enumerate(file, 1):
            end += len(data)
            model = first if first is not None and number == 1 else schema
            try:
                record = model.model_validate_json(data, strict=True)
            except ValidationError as error:
                found = error.errors(include_url=False)[0]
                if _torn(data, found):
                    return
                bad = BadLine(path, number, kind, reason_of(found) if data.strip() else "it is empty")
                if on_bad is None:
                    raise bad from None
                on_bad(bad)
            else:
                yield Line(number, data, end, record)


def check_line(data: bytes, schema: type[BaseModel]) -> None:
    """Raises ValueError for a line that `read_lines` would refuse."""
    schema.model_validate_json(data, strict=True)


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises OSError, and ValueError for what is no JSON."""
    with open_file(path) as file:
        return from_json(file.read(), allow_inf_nan=False)


def check_version(path: Path, record: Any, known: int) -> None:
    """Raises UserError for a record of another version. Check this first: its other fields may differ too."""
    version = record.get("version") if isinstance(record, dict) else None
    if isinstance(version, int) and version != known:
        newer = version > known
        age, fix = ("a newer", "upgrade infer") if newer else ("an older", "use that one for it")
        raise UserError(f"{path} was written by {age} infer (version {version}): {fix}")


def reason_of(error: ErrorDetails) -> str:
    """Why a value does not fit, with its place in the record."""
    place = ".".join(map(str, error["loc"]))
    given = error["input"]
    short = isinstance(given, bool | int | float) or given is None
    reason = f"{error['msg']}, not {str(given)[:40]}" if short and error["type"] != "missing" else error["msg"]
    return f"{place}: {reason}" if place else reason


def _torn(data: bytes, error: ErrorDetails) -> bool:
    """Whether a line is the beginning of one. Only the last line lacks its newline; a loss of power leaves zeros."""
    if data.endswith(b"\n") or error["type"] != "json_invalid":
        return False
    try:
        from_json(data.rstrip(b"\0"))
    except ValueError as reason:
        return "EOF while parsing" in str(reason)
    return False
