"""Problems from the user's own file: JSONL, JSON, CSV, TSV or Parquet; all but the last also compressed (`.gz`).

JSONL, CSV, TSV and Parquet are streamed. JSON, which is one list, is read whole.
"""

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from infer.core.problem import Problem
from infer.errors import UserError, first_line
from infer.evalsets.base import EvalSet
from infer.evalsets.rows import Columns, Read, Row, check, problems

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
DELIMITERS = (",", ";", "\t")
"""Of a CSV: spreadsheets write semicolons where the comma is the decimal sign."""


def open_file(path: Path, columns: Columns, read: Read | None = None) -> EvalSet:
    """The set of a file's problems. Reads the file once, so that its errors are raised here, as `UserError`.

    `read` makes the problems of rows with other columns.

    Its source has a digest of the content, so a run is not resumed if the problems have changed since.
    """

    stem = path.name.removesuffix(".gz").rpartition(".")[0] or path.stem

    def load() -> Iterator[Problem]:
        if read is not None:
            return read(rows(path))
        return problems(rows(path), where=str(path), stem=stem, columns=columns)

    check(load(), str(path))
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    return EvalSet(stem, f"the problems of {path}", f"{path}, sha256 {digest}", load)


def rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yields each row of a file with its place. Raises `UserError` for a file that can't be read by its suffix."""
    suffix = kind_of_file(path)
    if path.is_dir():
        raise UserError(f"{path} is a directory: name one file in it ({', '.join(SUFFIXES)})")
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if not path.is_file():
        raise UserError(f"{path} is not a regular file, but problems are read twice: save them to a file first")
    if suffix is None:
        raise UserError(f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(SUFFIXES)}, and .gz of text")
    read = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}[suffix]
    try:
        yield from read(path)
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path} is cut off or damaged ({first_line(error)}): compress it again") from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}") from error


def kind_of_file(path: Path) -> str | None:
    """The suffix that says what is in a file, without that of its compression; None: it is none that is read."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        suffix = Path(path.stem).suffix.lower()
        return suffix if suffix in SUFFIXES and suffix != ".parquet" else None
    return suffix if suffix in SUFFIXES else None


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    with _open(path) as lines:  # bytes, so that an error can name the line that is not UTF-8
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError:
                raise UserError(f"{path}, line {number}: not UTF-8 text") from None
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: not JSON ({first_line(error)})") from None
            yield _object(row, path, f"line {number}")


def _json(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        with _open(path) as file:
            items = json.loads(file.read().decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    except json.JSONDecodeError as error:
        hint = "; one object a line? name the file .jsonl" if error.msg == "Extra data" else ""
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg}{hint})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({first_line(error)})") from None
    if not isinstance(items, list):
        raise UserError(f"{path}: a JSON file must be one list of objects, this is {_name(items)}")
    for number, item in enumerate(items, 1):
        yield _object(item, path, f"item {number}")


def _csv(path: Path) -> Iterator[tuple[str, Row]]:
    with _open(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
        try:
            header = file.readline()
        except UnicodeDecodeError:
            raise UserError(f"{path}, line 1: not UTF-8 text") from None
        delimiter = "\t" if kind_of_file(path) == ".tsv" else _delimiter(header)
        reader = csv.DictReader(chain([header], file), delimiter=delimiter, strict=True)
        try:
            for row in reader:
                if None in row:
                    name = {",": "commas", ";": "semicolons", "\t": "tabs"}[delimiter]
                    raise UserError(
                        f"{path}, line {reader.line_num}: more fields than the header has; quote fields with {name}"
                    )
                yield f"line {reader.line_num}", row
        except UnicodeDecodeError:
            raise UserError(f"{path}, after line {reader.reader.line_num}: not UTF-8 text") from None
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.reader.line_num}: not CSV ({error})") from None


def _delimiter(header: str) -> str:
    """The delimiter that splits the header into the most columns; a comma where none does."""
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            number = 0
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: not a Parquet file ({first_line(error)})") from None


def _object(value: Any, path: Path, place: str) -> tuple[str, Row]:
    if not isinstance(value, dict):
        raise UserError(f'{path}, {place}: must be an object such as {{"problem": …}}, this is {_name(value)}')
    return place, value


def _name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
