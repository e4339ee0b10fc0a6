"""From `solutions.jsonl` to columns, which are kept beside the run for the next reading.

Arrow parses the JSON and leaves the texts out. Candidates were graded and grouped when they were solved.
"""

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq
from pydantic import ValidationError

from infer.core.solution import Solution
from infer.core.tree import Aggregation
from infer.core.usage import Usage
from infer.errors import UserError

CACHE = ".analysis"
CACHE_VERSION = 3
CHUNK = 32 << 20
WHOLE = {field.name for field in fields(Usage) if field.type is int}

Columns = tuple[pa.Table, Path | pa.Table]
"""The table of a run's problems, and the table of its candidates or the file that holds it."""


def load(folder: Path, *, cache: bool = True) -> Columns:
    """The columns of a run: from its side files if they are fresh, else parsed, and stored where that is possible.

    Raises UserError for a run without solutions, a line that is no solution, and candidates that are not graded.
    """
    path = folder / "solutions.jsonl"
    try:
        stamp = stamp_of(path)
    except OSError as error:
        raise UserError(f"{folder} has no solutions: {error.strerror}: {path.name}: leave this run out") from None
    files = _side_files(folder)
    if cache:
        try:
            if all(pq.read_schema(file).metadata[b"infer"] == stamp for file in files):
                return pq.read_table(files[0]), files[1]
        except (OSError, pa.ArrowInvalid, KeyError, TypeError):
            pass  # missing, half written, or another program's
    problems, candidates = _columns(path)
    if cache:
        try:
            store(folder, stamp, problems, candidates)
            return problems, files[1]
        except OSError:
            pass  # a folder that we may only read
    return problems, candidates


def store(folder: Path, stamp: bytes, problems: pa.Table, candidates: pa.Table) -> None:
    """Writes a run's side files. Raises OSError."""
    for table, file in zip((problems, candidates), _side_files(folder), strict=True):
        file.parent.mkdir(exist_ok=True)
        fresh = file.with_suffix(f".{os.getpid()}.new")
        pq.write_table(table.replace_schema_metadata({b"infer": stamp}), fresh)
        fresh.replace(file)


def stamp_of(path: Path) -> bytes:
    """Identifies the state of `solutions.jsonl` from which side files were made. Raises OSError."""
    found = path.stat()
    return f"{CACHE_VERSION} {found.st_size} {found.st_mtime_ns}".encode()


def _side_files(folder: Path) -> tuple[Path, Path]:
    return folder / CACHE / "problems.parquet", folder / CACHE / "candidates.parquet"


def _columns(path: Path) -> tuple[pa.Table, pa.Table]:
    seen: set[str] = set()
    problems, candidates = [], []
    for table in _parse(path):
        ids = table["problem_id"].to_pylist()
        fresh = [name not in seen and not seen.add(name) for name in ids]  # type: ignore[func-returns-value]
        if not all(fresh):
            table = table.filter(pa.array(fresh))
        problem = _problems(table)
        problems.append(problem)
        candidates.append(_candidates(table, path))
    return pa.concat_tables(problems, promote_options="permissive").combine_chunks(), pa.concat_tables(candidates)


def _parse(path: Path) -> Iterator[pa.Table]:
    """Yields the solutions without their texts, some megabytes at a time: at least one table, which may be empty."""
    with path.open("rb") as file:
        first = file.readline()
        schema = _schema([first, _last_line(path)])
        file.seek(0)
        number, rest = 1, b""
        none = True
        while True:
            data = file.read(CHUNK)
            block, newline, rest = (rest + data).rpartition(b"\n")
            block += newline
            if not data and rest:  # the last line lacks its newline: it is whole, or torn
                block, rest = (block + rest if _is_solution(rest) else block), b""
            if block.strip():
                none = False
                yield _parse_block(block, schema, path, number)
                number += block.count(b"\n")
            if not data:
                break
    if none:
        yield schema.empty_table()


def _parse_block(block: bytes, schema: pa.Schema, path: Path, number: int) -> pa.Table:
    try:
        table = pj.read_json(
            io.BytesIO(block),
            read_options=pj.ReadOptions(block_size=len(block) + 1, use_threads=False),
            parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid:
        table = None
    required = ("problem_id", "finished", "candidates", "usage")
    if table is None or any(table[name].null_count for name in required):
        lines = block.splitlines()
        bad = next((i for i, line in enumerate(lines) if not _is_solution(line)), None)
        where = f"line {number + bad} of {path}" if bad is not None else f"{path}, from line {number} on,"
        raise UserError(f"{where} is no solution: mend or remove it")
    return table


def _is_solution(line: bytes) -> bool:
    try:
        Solution.model_validate_json(line)
    except ValidationError:
        return False
    return True


def _last_line(path: Path) -> bytes:
    """The last line that ends in a newline."""
    size, width = path.stat().st_size, 1 << 16
    with path.open("rb") as file:
        while True:
            file.seek(max(0, size - width))
            lines = file.read().split(b"\n")[:-1]
            if len(lines) > 1 or width >= size:
                return lines[-1] if lines else b""
            width *= 4


_CANDIDATE = pa.struct(
    [
        ("address", pa.list_(pa.int64())),
        ("num_tokens", pa.int64()),
        ("finished", pa.bool_()),
        ("scores", pa.list_(pa.float64())),
        ("logprob", pa.float64()),
        ("group", pa.int64()),
        ("correct", pa.bool_()),
    ]
)


def _schema(samples: Sequence[bytes]) -> pa.Schema:
    """The fields that are read of a solution. The counts in its usage are those that these lines have."""
    known: dict[str, pa.DataType] = {
        "problem_id": pa.string(),
        "level": pa.string(),
        "reference": pa.string(),
        "answer": pa.string(),
        "correct": pa.bool_(),
        "finished": pa.bool_(),
        "chosen": pa.int64(),
        "seconds": pa.float64(),
        "note": pa.string(),
        "candidates": pa.list_(_CANDIDATE),
    }
    counts: dict[str, Any] = {name.name: 0 for name in fields(Usage)}
    extra: dict[str, Any] = {}
    for line in samples:
        try:
            found = json.loads(line)
            counts |= found["usage"]
            extra |= {key: value for key, value in found.items() if key not in known and key != "usage"}
        except (ValueError, LookupError, TypeError):
            continue  # the parser reports it, with its number
    schema = [*known.items(), ("usage", _numbers(counts) or pa.struct([]))]
    schema += [(key, kind) for key, value in extra.items() if (kind := _numbers(value)) is not None]
    return pa.schema(schema)


def _numbers(value: Any) -> pa.DataType | None:
    """The type of a number, or of the numbers in a dictionary; None for anything else."""
    if isinstance(value, dict):
        kinds = [(key, kind) for key, item in value.items() if (kind := _numbers(item)) is not None]
        return pa.struct(kinds) if kinds else None
    return pa.float64() if isinstance(value, int | float) and not isinstance(value, bool) else None


def _problems(table: pa.Table) -> pa.Table:
    columns: dict[str, Any] = {name: table[name] for name in ("problem_id", "level", "reference", "answer")}
    columns["correct"] = table["correct"].cast(pa.uint8()).cast(pa.float64())
    columns["correct"] = pc.fill_null(columns["correct"], np.nan)
    columns["finished"] = table["finished"]
    columns["samples"] = pc.fill_null(pc.list_value_length(table["candidates"]), 0)
    columns["chosen"] = pc.fill_null(table["chosen"], -1)
    columns["note"] = table["note"]
    columns["seconds"] = table["seconds"]
    for name in table.column_names:
        if pa.types.is_floating(table[name].type) and name not in columns:
            columns[name] = table[name]
    for name in table.column_names:
        if pa.types.is_struct(table[name].type):
            columns |= _counts(table[name], "" if name == "usage" else f"{name}_")
    for kind in ("flops", "bytes"):  # totals, as in the properties of `Usage`
        parts = [f"{part}_{kind}" for part in ("prefill", "decode", "verifier_prefill", "verifier_decode")]
        if all(part in columns for part in parts):
            columns.setdefault(kind, sum(columns[part].to_numpy() for part in parts))
    return pa.table(columns)


def _counts(column: pa.ChunkedArray, prefix: str) -> dict[str, pa.ChunkedArray]:
    """The numbers in a column of structs: integers where `Usage` counts in integers, else floats, NaN if not known."""
    flat: dict[str, pa.ChunkedArray] = {}
    for field, values in zip(column.type, column.flatten(), strict=True):
        name = prefix + field.name
        if pa.types.is_struct(field.type):
            flat |= _counts(values, f"{name}_")
        elif field.name in WHOLE:
            flat[name] = pc.fill_null(values, 0.0).cast(pa.int64())
        else:
            flat[name] = pc.fill_null(values, np.nan)
    return flat


_Array = np.ndarray[Any, Any]
_AGGREGATE: dict[Aggregation, Callable[[_Array, _Array, _Array], _Array]] = {
    "last": lambda scores, starts, lengths: scores[starts + lengths - 1],
    "min": lambda scores, starts, lengths: np.minimum.reduceat(scores, starts),
    "prod": lambda scores, starts, lengths: np.multiply.reduceat(scores, starts),
    "mean": lambda scores, starts, lengths: np.add.reduceat(scores, starts) / lengths,
    "max": lambda scores, starts, lengths: np.maximum.reduceat(scores, starts),
}
"""`infer.core.tree.aggregate` of many candidates: their scores one after another, and where each one's lie."""


def _candidates(table: pa.Table, path: Path) -> pa.Table:
    """One row a candidate, without its text. Raises UserError where candidates are not graded."""
    lists = table["candidates"].combine_chunks()
    lists = lists if isinstance(lists, pa.ListArray) else pa.concat_arrays(lists.chunks)
    names = [field.name for field in _CANDIDATE]
    cells = dict(zip(names, lists.flatten().flatten(), strict=True))
    if cells["group"].null_count:
        raise UserError(
            f"the candidates in {path} are not graded, as an older infer wrote them: "
            f"infer rescore {path.parent} --out NEW grades them"
        )
    counts = _lengths(lists)
    index = np.arange(counts.sum()) - np.repeat(_starts(counts), counts)  # within its problem
    chosen = np.repeat(pc.fill_null(table["chosen"], -1).to_numpy(), counts)
    lengths = _lengths(cells["scores"])
    scored = lengths > 0
    scores = cells["scores"].flatten().to_numpy(zero_copy_only=False)
    columns: dict[str, Any] = {
        "num_tokens": cells["num_tokens"].to_numpy().astype(np.int32),
        "depth": pc.list_value_length(cells["address"]).to_numpy(zero_copy_only=False).astype(np.int16),
        "finished": cells["finished"],
        "correct": pc.fill_null(cells["correct"].cast(pa.uint8()).cast(pa.float32()), np.nan),
        "group": cells["group"].cast(pa.int32()),
        "chosen": index == chosen,
        "passes": lengths.astype(np.int32),
    }
    for how, combine in _AGGREGATE.items():
        values = np.full(len(lengths), np.nan)
        if scored.any():
            values[scored] = combine(scores, _starts(lengths)[scored], lengths[scored])
        columns[f"score_{how}"] = values
    columns["logprob"] = pc.fill_null(cells["logprob"], np.nan)
    return pa.table(columns)


def _lengths(lists: pa.Array) -> _Array:
    """The number of items in each list; 0 for null."""
    counts: _Array = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return counts


def _starts(lengths: _Array) -> _Array:
    """Where each list begins when all are laid end to end."""
    starts: _Array = np.cumsum(lengths) - lengths
    return starts
