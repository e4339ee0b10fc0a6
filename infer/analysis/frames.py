"""Runs as pandas frames: one row a run, one row a problem's solution, one row a candidate.

    runs = read(["runs/a", "runs/b"])
    runs.problems      # answers, correctness, usage and the run's settings
    runs.candidates()  # every trajectory: tokens, score, class of its answer, correctness

The first reading of a run parses `solutions.jsonl` and stores its columns without the texts in `.analysis/*.parquet`
beside it. Later readings take only the columns they need from there, as long as size and time of `solutions.jsonl` are
the same. Where the folder can't be written, each reading parses again.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from infer.analysis import columns
from infer.core.formats import clean
from infer.core.records import OnBad
from infer.core.tree import Aggregation
from infer.errors import UserError, nearest
from infer.runs.run import load_record

SETTINGS = ("model", "prm", "strategy", "options", "budget", "seed", "evalset")
"""Columns of every problem with the settings of its run, besides `run` and `configuration`."""

UNNAMED = ("strategy", "on", "evalset", "template.user", "template.system")
"""Settings that a configuration's label leaves out, although they make configurations differ."""

COLUMNS = ("num_tokens", "finished", "correct", "group", "score")
"""Columns of `Runs.candidates` unless others are asked for."""

UNITS = {"tokens": "generated", "prm": "passes", "seconds": "seconds"}
"""Units of cost as budgets name them, and the column that counts each."""


@dataclass(frozen=True)
class Runs:
    """Several runs, of any models, strategies, budgets and seeds.

    `runs` has one row for each run, indexed by its name: its settings and `configuration`, a short label that is the
    same for runs that differ only in their seed. `problems` has one row for each problem of each run, with `correct`
    (1, 0, or NaN without a reference), `samples` (number of candidates) and one column for each count of `usage`.
    `records` has each run's `run.json`.
    """

    runs: pd.DataFrame
    problems: pd.DataFrame
    records: dict[str, dict[str, Any]]
    _parts: tuple[Path | pa.Table, ...]

    def candidates(self, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
        """All candidates, problem by problem; column `problem` is the row in `problems`.

        Columns: `num_tokens`; `depth` (1: sampled from the prompt in one piece); `finished`; `correct` (1, 0, NaN);
        `group` (class of equal answers within the problem, -1 without an answer); `chosen`; `passes` (steps scored);
        `score_last`, `score_min`, `score_prod`, `score_mean`, `score_max` and `logprob` (NaN where there is none);
        `score`: the one of these that the run itself aggregated by.
        """
        aggregations = self.runs["aggregation"].to_numpy()
        wanted = [name for name in columns if name != "score"]
        if "score" in columns:
            wanted += sorted({f"score_{how}" for how in aggregations} - set(wanted))

        def load(part: Path | pa.Table) -> pa.Table:
            return pq.read_table(part, columns=wanted) if isinstance(part, Path) else part.select(wanted)

        try:
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                table = pa.concat_tables(pool.map(load, self._parts))
        except (KeyError, pa.ArrowInvalid) as error:
            raise ValueError(f"candidates have no such column: {error}") from None
        frame = table.to_pandas(split_blocks=True, self_destruct=True)
        del table
        counts = self.problems["samples"].to_numpy()
        problem = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        frame.insert(0, "problem", problem)
        if "score" in columns:
            used = sorted(set(aggregations))
            frame["score"] = frame[f"score_{used[0]}"]
            codes = self.problems["run"].cat.codes.to_numpy()
            for how in used[1:]:
                rows = (aggregations == how)[codes][problem]
                frame.loc[rows, "score"] = frame.loc[rows, f"score_{how}"]
        return pd.DataFrame(frame[["problem", *columns]])

    def cost(self, unit: str = "tokens") -> pd.Series:
        """The cost of each problem's solution, in a unit of budgets (tokens, prm, seconds) or any column of usage.

        NaN where it is not known. Raises UserError for a unit that no run counts.
        """
        column = UNITS.get(unit, unit)
        counted = usage_columns(self.problems)
        if column not in counted:
            names = [*UNITS, *(name for name in counted if name not in UNITS.values())]
            raise UserError(f"these runs do not count {unit!r}: {nearest(unit, names)}")
        return self.problems[column].astype("float64")

    def select(self, rows: "pd.Series | np.ndarray[Any, Any]") -> "Runs":
        """The runs for which `rows`, a mask over `runs`, is true."""
        mask = np.asarray(rows, dtype=bool)
        names = [str(name) for name in self.runs.index[mask]]
        problems = self.problems[self.problems["run"].isin(names)].copy()
        problems["run"] = problems["run"].cat.set_categories(names)
        parts = tuple(part for part, kept in zip(self._parts, mask, strict=True) if kept)
        return Runs(
            self.runs[mask], problems.reset_index(drop=True), {name: self.records[name] for name in names}, parts
        )


def read(paths: Sequence[str | Path], *, cache: bool = True, on_bad: OnBad | None = None) -> Runs:
    """Reads run folders, each once. A torn last line is left out.

    Raises UserError for a folder that is no run, a run of another format version, and (`infer.core.records.BadLine`)
    a line that is no solution or a second one of its problem; with `on_bad`, such lines go there and are left out.
    """
    folders = list(dict.fromkeys(Path(path) for path in paths))
    if not folders:
        raise UserError("no runs to read: name at least one run folder")
    records = [load_record(folder) for folder in folders]
    names = _names(folders)
    tables = [columns.load(folder, cache=cache, on_bad=on_bad) for folder in folders]
    problems = []
    for name, (table, _) in zip(names, tables, strict=True):
        frame = table.to_pandas()
        frame.insert(0, "run", name)
        problems.append(frame)
    return assemble(dict(zip(names, records, strict=True)), problems, [part for _, part in tables])


def assemble(
    records: dict[str, dict[str, Any]], problems: Sequence[pd.DataFrame], parts: Sequence[Path | pa.Table]
) -> Runs:
    """Makes `Runs` from the record, the problems and the candidates of each run."""
    runs = settings(records)
    whole = pd.concat([frame for frame in problems if len(frame)] or problems[:1], ignore_index=True)
    whole["run"] = pd.Categorical(whole["run"], categories=list(records))
    codes = whole["run"].cat.codes.to_numpy()
    for name in (*SETTINGS, "configuration"):
        values = pd.Categorical(runs[name])
        whole[name] = pd.Categorical.from_codes(values.codes[codes], dtype=values.dtype)
    return Runs(runs, whole, records, tuple(parts))


def settings(records: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One row for each run: its settings as plain values, its configuration's label, and how it aggregates scores."""
    rows = []
    for name, record in records.items():
        config = record["config"]
        options = {key: value for key, value in (config.get("options") or {}).items() if value is not None}
        verifier = record["facts"][-1].get("verifier") or {}
        rows.append(
            {
                "run": name,
                "model": config.get("model"),
                "prm": config.get("prm"),
                "strategy": config.get("strategy"),
                "options": json.dumps(options, ensure_ascii=False, sort_keys=True),
                "budget": config.get("budget"),
                "seed": config.get("seed"),
                "evalset": config.get("on") or config.get("evalset"),
                "aggregation": aggregation_of(config, verifier),
                "created": record.get("created"),
            }
        )
    frame = pd.DataFrame(rows).set_index("run")
    frame["configuration"] = labels([record["config"] for record in records.values()])
    return frame


def labels(configs: Sequence[dict[str, Any]]) -> list[str]:
    """A short name for each configuration: the strategy, and all settings but the seed that vary.

    A setting that some of them lack is ignored: their version of infer did not have it yet. The exception is
    `rescored`, how solutions were judged again. Configurations that still share a name are numbered.
    """
    flat = [_flat({"rescored": {}, **config}) for config in configs]
    for settings in flat:
        for key in ("seed", "rescored.from"):
            settings.pop(key, None)
        for key in ("choose", "aggregation", "answers"):
            settings.setdefault(f"rescored.{key}", "none")
    peers: dict[str, list[dict[str, str]]] = {}
    for settings in flat:
        peers.setdefault(settings.get("strategy", "run"), []).append(settings)
    shared = {strategy: set.intersection(*(set(settings) for settings in same)) for strategy, same in peers.items()}
    names: list[str] = []
    keys: list[tuple[str, ...]] = []
    for settings in flat:
        strategy = settings.get("strategy", "run")
        parts = [strategy]
        for key in sorted(shared[strategy], key=lambda key: (key != "model", not key.startswith("options."), key)):
            among = flat if key == "model" else peers[strategy]
            short, value = key.removeprefix("options."), settings[key]
            told = key in UNNAMED or (key.startswith("rescored.") and value == "none")
            if not told and len({other[key] for other in among if key in other}) > 1:
                parts.append(value if short in ("model", "budget", "choose") else f"{short}={value}")
        names.append(clean(" ".join(parts)))
        keys.append(tuple(settings[key] for key in sorted(shared[strategy])))
    numbers: dict[str, dict[tuple[str, ...], int]] = {}  # of configurations with the same name
    for name, values in zip(names, keys, strict=True):
        numbers.setdefault(name, {}).setdefault(values, len(numbers[name]) + 1)
    ordinals = [numbers[name][values] for name, values in zip(names, keys, strict=True)]
    return [name if number == 1 else f"{name} ({number})" for name, number in zip(names, ordinals, strict=True)]


def usage_columns(problems: pd.DataFrame) -> list[str]:
    """The columns of `problems` that count costs, and have a value for some problem."""
    told = {"correct", "chosen", "samples", "finished", *SETTINGS}
    numbers = [name for name in problems.select_dtypes("number").columns if name not in told]
    return [name for name in numbers if problems.empty or problems[name].notna().any()]


def aggregation_of(config: dict[str, Any], verifier: dict[str, Any]) -> Aggregation:
    """How step scores become one: by the latest rescoring, else the strategy's options, else the verifier's default."""
    places = (config.get("rescored") or {}, config.get("options") or {}, verifier)
    named = (place.get("aggregation") for place in places)
    known: tuple[Aggregation, ...] = get_args(Aggregation)
    return next((how for how in named if how in known), "last")  # a strategy's own option may mean something else


def _names(folders: Sequence[Path]) -> list[str]:
    """The name of each folder if no other has the same, else its path."""
    short = [folder.resolve().name for folder in folders]
    return [name if short.count(name) == 1 else str(folder) for name, folder in zip(short, folders, strict=True)]


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is None:
            flat[prefix + key] = "none"
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat
