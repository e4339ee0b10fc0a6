"""From `solutions.jsonl` to columns without the texts, which are kept beside the run for the next reading.

Candidates were graded and grouped when they were solved.
"""

import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infer.core.records import BadLine, OnBad
from infer.core.solution import Solution
from infer.core.tree import Aggregation
from infer.core.usage import Count, Usage
from infer.errors import UserError
from infer.runs.run import solution_lines

CACHE = ".analysis"
CACHE_VERSION = 4
CHUNK = 1000
"""Solutions whose numbers are held as Python objects, before they become columns."""

Columns = tuple[pa.Table, Path | pa.Table]
"""The table of a run's problems, and the table of its candidates or the file that holds it."""


def load(folder: Path, *, cache: bool = True, on_bad: OnBad | None = None) -> Columns:
    """The columns of a run: from its side files if they are fresh, else parsed, and stored where that is possible.

    Raises UserError for a run without solutions, for candidates that are not graded, and for a line that is no
    solution; with `on_bad`, such a line goes there and is left out.
    """
    bad: list[BadLine] = []
    lines = solution_lines(folder, bad.append if on_bad is not None else None)
    stamp = stamp_of(folder / "solutions.jsonl")
    files = _side_files(folder)
    if cache:
        try:
            if all(pq.read_schema(file).metadata[b"infer"] == stamp for file in files):
                return pq.read_table(files[0]), files[1]
        except (OSError, pa.ArrowInvalid, KeyError, TypeError):
            pass  # missing, half written, or another program's
    solutions = (line.record for line in lines)
    parts = [_columns(islice(solutions, CHUNK), folder)]
    while len(parts[-1][0]) == CHUNK:
        parts.append(_columns(islice(solutions, CHUNK), folder))
    problems = pa.concat_tables([part for part, _ in parts], promote_options="permissive").combine_chunks()
    candidates = pa.concat_tables([part for _, part in parts])
    for error in bad:
        assert on_bad is not None
        on_bad(error)
    if cache and not bad:  # side files are of all lines
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


_Array = np.ndarray[Any, Any]
_AGGREGATE: dict[Aggregation, Callable[[_Array, _Array, _Array], _Array]] = {
    "last": lambda scores, starts, lengths: scores[starts + lengths - 1],
    "min": lambda scores, starts, lengths: np.minimum.reduceat(scores, starts),
    "prod": lambda scores, starts, lengths: np.multiply.reduceat(scores, starts),
    "mean": lambda scores, starts, lengths: np.add.reduceat(scores, starts) / lengths,
    "max": lambda scores, starts, lengths: np.maximum.reduceat(scores, starts),
}
"""`infer.core.tree.aggregate` of many candidates: their scores one after another, and where each one's lie."""


TEXTS = ("problem_id", "level", "reference", "answer", "note")
FLOATS = ("correct", "seconds", "log_evidence")
COUNTS = [field.name for field in fields(Usage) if field.type is Count]
COSTS = [*(field.name for field in fields(Usage) if field.type is not Count), "flops", "bytes"]

_texts, _floats, _counts, _costs = (attrgetter(*names) for names in (TEXTS, FLOATS, COUNTS, COSTS))


def _columns(solutions: Iterable[Solution], folder: Path) -> tuple[pa.Table, pa.Table]:
    """The table of problems, and that of their candidates. Keeps no solution: its objects and texts are large."""
    rows: list[tuple[Any, ...]] = []
    cells: list[tuple[Any, ...]] = []
    scores: list[float] = []
    others: dict[str, dict[int, float]] = {}
    for row, solution in enumerate(solutions):
        usage, chosen = solution.usage, solution.chosen
        sizes = solution.finished, len(solution.candidates), -1 if chosen is None else chosen
        rows.append((*_texts(solution), *_floats(solution), *sizes, *_counts(usage), *_costs(usage)))
        for index, each in enumerate(solution.candidates):
            own = each.scores or ()
            scores += own
            grade = each.correct, each.group, index == chosen
            cells.append((each.num_tokens, len(each.address), each.finished, *grade, len(own), each.logprob))
        for name, value in (solution.model_extra or {}).items():
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
                others.setdefault(name, {})[row] = value
    names = [*TEXTS, *FLOATS, "finished", "samples", "chosen", *COUNTS, *COSTS]
    kinds = dict.fromkeys(TEXTS, pa.string()) | dict.fromkeys(["samples", "chosen", *COUNTS], pa.int64())
    kinds["finished"] = pa.bool_()
    found = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())
    columns = {name: pa.array(found[name], kinds[name]) if name in kinds else _known(found[name]) for name in names}
    for name, values in others.items():
        columns.setdefault(name, _known([values.get(row) for row in range(len(rows))]))
    return pa.table(columns), _candidates(cells, np.array(scores, np.float64), folder)


def _candidates(cells: Sequence[tuple[Any, ...]], scores: "_Array", folder: Path) -> pa.Table:
    """One row a candidate. Raises UserError where candidates are not graded."""
    tokens, depth, finished, correct, group, chosen, passes, logprob = zip(*cells, strict=True) if cells else [()] * 8
    if None in group:
        raise UserError(
            f"the candidates in {folder} are not graded, as an older infer wrote them: "
            f"infer rescore {folder} --out NEW grades them"
        )
    lengths = np.array(passes, np.int32)
    scored, starts = lengths > 0, np.cumsum(lengths) - lengths
    columns: dict[str, Any] = {
        "num_tokens": np.array(tokens, np.int32),
        "depth": np.array(depth, np.int32),
        "finished": np.array(finished, bool),
        "correct": _known(correct).astype(np.float32),
        "group": np.array(group, np.int32),
        "chosen": np.array(chosen, bool),
        "passes": lengths,
    }
    for how, combine in _AGGREGATE.items():
        values = np.full(len(cells), np.nan)
        if scored.any():
            values[scored] = combine(scores, starts[scored], lengths[scored])
        columns[f"score_{how}"] = values
    columns["logprob"] = _known(logprob)
    return pa.table(columns)


def _known(values: Sequence[float | None]) -> "_Array":
    """Numbers as floats, NaN for None."""
    return np.array([math.nan if value is None else float(value) for value in values], np.float64)
