"""Run folders that were damaged: every command names the file and the line, and none ends in a traceback."""

import json
import math
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from infer.cli import run
from infer.core.solution import Candidate, Solution
from infer.core.usage import Usage
from infer.errors import UserError
from infer.evalsets.graders.mathematics import Mathematics
from infer.runs.job import Machine, Models, Plan
from infer.runs.run import Run, load_record, read_solutions
from infer.testing.toy import ToyGenerator, ToyVerifier

CELL = "best-of-n,n=2,choose=weighted"
HUGE = 10**400


@asynccontextmanager
async def toys(plan: Plan, machine: Machine, *, with_verifier: bool) -> AsyncIterator[Models]:
    """What `open_models` would load."""
    async with Mathematics("exact") as grader:
        yield Models(ToyGenerator(), ToyVerifier() if with_verifier else None, grader)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a grid with one run: three solutions of two candidates, with their traces."""
    folder = tmp_path_factory.mktemp("runs") / "grid"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infer.runs.sweep.open_models", toys)
        patch.setattr("infer.cli.solve.open_models", toys)
        assert run(["compare", "-s", CELL, "--limit", "3", "--trace", "--run", str(folder)]) == 0
        yield folder


@pytest.fixture
def cell(good: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    shutil.copytree(good, tmp_path / "grid")
    return tmp_path / "grid" / CELL


def readers(cell: Path) -> list[list[str]]:
    """The commands that read solutions."""
    rescored = str(cell.parent.parent / "new")
    return [["show", str(cell)], ["report", str(cell)], ["rescore", str(cell), "--answers", "exact", "--out", rescored]]


def refusal(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that refuses what it was given, with exit code 2."""
    capsys.readouterr()
    code = run(list(arguments))
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), (arguments, out, err)
    assert err.startswith("infer: ")
    assert err.count("\n") == 1, err
    assert len(err) < 700
    return err.strip()


def reopened(cell: Path) -> str:
    """The refusal to resume the run, as solve, compare and sweep do. Nothing is changed by it."""
    before = (cell / "solutions.jsonl").read_bytes()
    with pytest.raises(UserError) as refused:
        Run.open(cell, load_record(cell)["config"], {}).close()
    assert (cell / "solutions.jsonl").read_bytes() == before
    return str(refused.value)


def put(value: Any, *place: str | int) -> Callable[[bytes], bytes]:
    """Puts a value at a place of a line's JSON; `...` removes what is there."""

    def damage(line: bytes) -> bytes:
        record = json.loads(line)
        *way, last = place
        inner = record
        for step in way:
            inner = inner[step]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
        return json.dumps(record).encode() + b"\n"

    return damage


FIRST = "candidates", 0
NESTED = b"[" * 100_000 + b"]" * 100_000

VALUES: dict[tuple[str | int, ...], tuple[Any, ...]] = {
    ("problem_id",): (7, None, ...),
    ("level",): (7, ...),
    ("reference",): ([], ...),
    ("also",): ("7", [7], None),
    ("choices",): ("A", [None], None),
    ("answer",): ({}, "\ud800"),
    ("correct",): ("yes",),
    ("finished",): (None, 1, ...),
    ("chosen",): (2, -1, "0", 0.5, HUGE, ...),
    ("candidates",): (None, {}, [None], [{}], ...),
    (*FIRST, "address"): ("0", [0.5], [2**63]),
    (*FIRST, "tokens"): ("x", [0.5]),
    (*FIRST, "num_tokens"): (-1, 2**31, 1.5, HUGE, ...),
    (*FIRST, "text"): (None, ["x"]),
    (*FIRST, "answer"): (7,),
    (*FIRST, "finished"): ("no",),
    (*FIRST, "steps"): ("x", [None]),
    (*FIRST, "scores"): ([math.nan], [2], [-0.1], ["x"], 0.5),
    (*FIRST, "logprob"): (-math.inf, "x"),
    (*FIRST, "group"): (2, -2, HUGE),
    (*FIRST, "correct"): (1,),
    (*FIRST, "weight"): (-0.5, math.nan),
    ("usage",): (None, [], ...),
    ("usage", "generated"): (-1, 1.5, 10**30, True, None),
    ("usage", "decode_flops"): (-1, 10**50, "many"),
    ("usage", "dollars"): (-1, math.nan, math.inf),
    ("log_evidence",): (math.nan, "x"),
    ("seconds",): (-1, math.inf, "1 s", ...),
    ("note",): (7,),
}

BAD_LINES: list[tuple[str, Callable[[bytes], bytes]]] = [
    *(
        (f"{'.'.join(map(str, place))}: {str(value)[:12]}", put(value, *place))
        for place, values in VALUES.items()
        for value in values
    ),
    ("blank", lambda line: b"\n"),
    ("zeros", lambda line: b"\0" * 99 + b"\n"),
    ("not UTF-8", lambda line: line.replace(b"nano", b"n\xff")),
    ("a byte-order mark", lambda line: b"\xef\xbb\xbf" + line),
    ("half a line", lambda line: line[: len(line) // 2] + b"\n"),
    ("two on one line", lambda line: line.strip() + line),
    ("a list", lambda line: b"[" + line.strip() + b"]\n"),
    ("endless nesting", lambda line: NESTED + b"\n"),
    ("nested in a field that is not ours", lambda line: line[:-2] + b',"more":' + NESTED + b"}\n"),
    ("HTML", lambda line: b"<!doctype html>\n"),
]


def test_every_field_is_checked(cell: Path) -> None:
    of_candidates = {place[2] for place in VALUES if place[:2] == FIRST}
    assert of_candidates == Candidate.model_fields.keys()
    assert {place[0] for place in VALUES} == Solution.model_fields.keys()
    path = cell / "solutions.jsonl"
    line = path.read_bytes().splitlines(keepends=True)[0]
    for field in fields(Usage):
        for value in (-1, "1", math.nan):
            path.write_bytes(put(value, "usage", field.name)(line))
            with pytest.raises(UserError, match=rf"line 1 of .* \(usage.{field.name}: "):
                list(read_solutions(cell))


@pytest.mark.parametrize("damage", [pytest.param(damage, id=name) for name, damage in BAD_LINES])
def test_a_bad_line_is_named_by_every_command(
    damage: Callable[[bytes], bytes], cell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cell / "solutions.jsonl"
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage(second) + third)
    said = f"infer: line 2 of {path} is no solution ("
    for arguments in readers(cell):
        line = refusal(arguments, capsys)
        assert line.startswith(said)
        assert line.endswith("): mend or remove it, or leave such lines out with --skip-bad")
    assert reopened(cell).startswith(said.removeprefix("infer: "))
    assert run(["show", str(cell), "--skip-bad"]) == 0
    assert capsys.readouterr().err.startswith(f"infer: left out one line of {path}; line 2: ")


@pytest.mark.parametrize("command", range(3))
def test_bad_lines_are_left_out_and_counted_on_request(
    command: int, cell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cell / "solutions.jsonl"
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"\n" + first + second + put(-1, "seconds")(third) + first)
    for again in range(2):
        if again:
            shutil.rmtree(cell.parent.parent / "new", ignore_errors=True)
        # one that reads the file twice counts a line once
        choose = ["--choose", "prm"] if command == 2 else []
        assert run([*readers(cell)[command], *choose, "--skip-bad", "--json"][: None if command else -1]) == 0
        out, err = capsys.readouterr()
        assert err.count("left out") == 1
        assert f"left out 3 lines of {path}; line 1: it is empty\n" in err
        if command == 0:
            assert "problems finished        2" in out
        else:
            shown = json.loads(out)
            assert (shown if command == 2 else shown[0])["problems"] == 2


def test_a_bad_line_stops_solve_and_compare(cell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = cell / "solutions.jsonl"
    path.write_bytes(path.read_bytes() + b"\n")
    job = ["--strategy", "best-of-n", "-o", "n=2", "-o", "choose=weighted", "--limit", "3"]
    for arguments in (["solve", *job, "--run", str(cell)], ["compare", "-s", CELL, "--run", str(cell.parent)]):
        assert refusal(arguments, capsys) == f"infer: line 4 of {path} is no solution (it is empty): mend or remove it"


GOOD_LINES: dict[str, Callable[[bytes], bytes]] = {
    "a field of another version": lambda line: line[:-2] + b',"more":{"a":[NaN]}}\n',
    "a field twice": lambda line: b'{"seconds":"x","usage":1,"candidates":3,' + line[1:],
    "a line break of Windows": lambda line: line[:-1] + b"\r\n",
    "another order": lambda line: json.dumps(dict(reversed(json.loads(line).items()))).encode() + b"\n",
    "no counts": put({}, "usage"),
    "a cost beyond 64 bits": put(10**25, "usage", "decode_flops"),
    "costs that are not known": put({"dollars": None, "decode_flops": None, "eflops": None}, "usage"),
    "no scores": put(None, *FIRST, "scores"),
    "nothing sampled": lambda line: put([], "candidates")(put(None, "chosen")(line)),
    "an older version's candidate": put(..., *FIRST, "weight"),
}


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in GOOD_LINES.items()])
def test_an_odd_line_that_fits_is_read_by_every_command(change: Callable[[bytes], bytes], cell: Path) -> None:
    path = cell / "solutions.jsonl"
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + change(second) + third)
    for arguments in readers(cell):
        assert run(arguments) == 0
    with Run.open(cell, load_record(cell)["config"], {}) as resumed:
        assert len(resumed.done) == 3


def of_record(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def damage(cell: Path) -> None:
        record = json.loads((cell / "run.json").read_bytes())
        change(record)
        (cell / "run.json").write_text(json.dumps(record))

    return damage


def replaced(content: bytes) -> Callable[[Path], object]:
    return lambda cell: (cell / "run.json").write_bytes(content)


def a_folder(name: str) -> Callable[[Path], object]:
    def damage(cell: Path) -> None:
        (cell / name).unlink()
        (cell / name).mkdir()

    return damage


def a_pipe(name: str) -> Callable[[Path], object]:
    def damage(cell: Path) -> None:
        (cell / name).unlink()
        os.mkfifo(cell / name)  # which would be waited for

    return damage


RECORDS: list[tuple[str, Callable[[Path], object], str]] = [
    *(
        (f"config.{key}: {value}", of_record(lambda it, k=key, v=value: it["config"].update({k: v})), f"(config.{key}")  # type: ignore[misc]
        for key, value in [
            *((key, []) for key in ("on", "strategy", "options", "budget", "model", "prm", "hardware", "evalset")),
            *(("seed", "0"), ("seed", 0.5), ("batch", 0), ("question", 7), ("split", 7)),
            *(("rescored", "x"), ("rescored", {"aggregation": "median"}), ("problem_column", {})),
        ]
    ),
    ("no config", of_record(lambda it: it.pop("config")), "(config: Field required)"),
    ("config null", of_record(lambda it: it.update(config=None)), "(config: "),
    ("config empty", of_record(lambda it: it.update(config={})), "(config: it is empty)"),
    ("no facts", of_record(lambda it: it.pop("facts")), "(facts: Field required)"),
    ("facts empty", of_record(lambda it: it.update(facts=[])), "(facts: "),
    ("facts null", of_record(lambda it: it.update(facts=[None])), "(facts.0: "),
    ("verifier", of_record(lambda it: it["facts"][-1].update(verifier=["x"])), "(facts.0.verifier: "),
    ("aggregation", of_record(lambda it: it["facts"][0].update(verifier={"aggregation": "median"})), "aggregation: "),
    ("generator", of_record(lambda it: it["facts"][-1].update(generator="x")), "(facts.0.generator: "),
    ("grader", of_record(lambda it: it["facts"][-1].update(grader=7)), "(facts.0.grader: "),
    ("created", of_record(lambda it: it.update(created=7)), "(created: "),
    ("newer", of_record(lambda it: it.update(version=2, config="another")), "newer infer (version 2): upgrade infer"),
    ("older", of_record(lambda it: it.update(version=0)), "older infer (version 0): use that one"),
    ("version text", of_record(lambda it: it.update(version="1")), "(version: "),
    ("version true", of_record(lambda it: it.update(version=True)), "(version: "),
    ("no version", of_record(lambda it: it.pop("version")), "(version: Field required)"),
    ("empty", replaced(b""), "EOF while parsing"),
    ("null", replaced(b"null"), "run.json is no run's record ("),
    ("a list", replaced(b"[1]"), "run.json is no run's record ("),
    ("a number", replaced(b"9" * 5000), "run.json is no run's record (number out of range"),
    ("not UTF-8", replaced(b'{"version": 1, "created": "\xff"}'), "invalid unicode"),
    ("NaN", replaced(b'{"version": 1, "config": {"a": NaN}, "facts": [{}]}'), "expected value"),
    (
        "a lone surrogate",
        replaced(b'{"version": 1, "config": {"a": "\\ud800"}, "facts": [{}]}'),
        "run.json is no run's",
    ),
    ("endless nesting", replaced(b'{"version":' + NESTED), "recursion limit"),
    ("a folder", a_folder("run.json"), "Is a directory: run.json"),
    ("a pipe", a_pipe("run.json"), "run.json is no file"),
    ("solutions: a folder", a_folder("solutions.jsonl"), "has no solutions: Is a directory: solutions.jsonl"),
    ("solutions: a pipe", a_pipe("solutions.jsonl"), "solutions.jsonl is no file"),
    ("solutions: none", lambda cell: (cell / "solutions.jsonl").unlink(), "No such file or directory: solutions.jsonl"),
]


@pytest.mark.parametrize(("damage", "says"), [pytest.param(*rest, id=name) for name, *rest in RECORDS])
def test_a_damaged_record_is_refused_by_every_command(
    damage: Callable[[Path], object], says: str, cell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_record(cell)["config"]
    damage(cell)
    for arguments in [*readers(cell), ["report", str(cell.parent)]]:
        line = refusal(arguments, capsys)
        assert says in line
        assert str(cell) in line
    if "solutions" not in says:  # it is made when a run begins
        with pytest.raises(UserError, match=str(cell).replace("+", r"\+")):
            Run.open(cell, config, {})
    assert not (cell.parent.parent / "new").exists()


def test_a_run_without_its_record_is_not_left_out_of_a_grid(cell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(cell, cell.parent / "another")
    (cell / "run.json").unlink()
    line = refusal(["report", str(cell.parent)], capsys)
    assert line == f"infer: {cell} is no run: No such file or directory: run.json: name a run folder"


EVENTS: list[tuple[str, int, Callable[[bytes], bytes]]] = [
    ("no version", 1, put(..., "version")),
    ("the version, as text", 1, put("1", "version")),
    ("no prompt", 1, put(..., "prompt")),
    ("another prompt", 1, put([0.5], "prompt")),
    ("no problem", 1, put(..., "problem")),
    ("no time", 2, put(..., "at")),
    ("time before the start", 2, put(-1, "at")),
    ("time that is none", 2, put(math.nan, "at")),
    ("no list of nodes", 2, put({}, "sampled")),
    ("no node", 2, put([7], "sampled")),
    ("no id", 2, put(..., "sampled", 0, "id")),
    ("an unknown parent", 2, put(9, "sampled", 0, "parent")),
    ("the root again", 2, put(0, "sampled", 0, "id")),
    ("a node twice", 3, put(1, "sampled", 0, "id")),
    ("no text", 2, put(None, "sampled", 0, "text")),
    ("an unknown end", 2, put("bored", "sampled", 0, "finish")),
    ("tokens below zero", 2, put(-1, "sampled", 0, "num_tokens")),
    ("scores of an unknown node", 4, put([[9, 0, [0.5]]], "scored")),
    ("scores out of range", 4, put([[1, 0, [1.5]]], "scored")),
    ("scores that are none", 4, put([[1, 0, ["x"]]], "scored")),
    ("pruned, unknown", 3, put([9], "pruned")),
    ("opened again", 3, put(1, "opened")),
    ("the chosen one unknown", 6, put(9, "chosen")),
    ("the chosen one as text", 6, put("2", "chosen")),
    ("blank", 3, lambda line: b"\n"),
    ("not UTF-8", 3, lambda line: b'"\xff"\n'),
    ("endless nesting", 3, lambda line: NESTED + b"\n"),
    ("half a line", 3, lambda line: line[:20] + b"\n"),
]


@pytest.mark.parametrize(("number", "damage"), [pytest.param(*rest, id=name) for name, *rest in EVENTS])
def test_a_damaged_trace_is_named_with_its_line(
    number: int, damage: Callable[[bytes], bytes], cell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cell / "traces" / "nano-L1-0000.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    lines[number - 1] = damage(lines[number - 1])
    path.write_bytes(b"".join(lines))
    line = refusal(["show", str(cell), "nano-L1-0000"], capsys)
    assert line.startswith(f"infer: line {number} of {path} is no event of a trace (")


def test_a_damaged_trace_is_named(cell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = cell / "traces" / "nano-L1-0000.jsonl"
    header = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(put(9, "version")(header))
    show = ["show", str(cell), "nano-L1-0000"]
    assert "newer infer (version 9): upgrade infer" in refusal(show, capsys)
    path.write_bytes(b"")
    assert f"{path} is no trace: it is empty" in refusal(show, capsys)
    path.unlink()
    path.mkdir()
    assert f"{path} is no trace: Is a directory" in refusal(show, capsys)


def test_a_long_trace_is_drawn(cell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Deeper than Python's own stack."""
    path = cell / "traces" / "nano-L1-0000.jsonl"
    node = {"tokens": [1], "num_tokens": 1, "text": "1", "finish": "step"}
    events = [{"at": 1.0, "sampled": [{"id": i + 1, "parent": i, **node}]} for i in range(1100)]
    header = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(header + b"".join(json.dumps(event).encode() + b"\n" for event in events))
    assert run(["show", str(cell), "nano-L1-0000", "--all"]) == 0
    assert "1,100 nodes" in capsys.readouterr().out


def test_no_text_of_a_run_commands_the_terminal(cell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    escapes = "\x1b[31m\x1b]0;title\x07\x9b2J\x7f"
    path, trace = cell / "solutions.jsonl", cell / "traces" / "nano-L1-0000.jsonl"
    first, *others = path.read_bytes().splitlines(keepends=True)
    for place in (("problem_id",), ("level",), ("answer",), ("note",), (*FIRST, "text"), (*FIRST, "answer")):
        first = put(f"{place[-1]}{escapes}", *place)(first)
    path.write_bytes(b"".join([first, *others]))
    header, sampled, *_ = trace.read_bytes().splitlines(keepends=True)
    trace.write_bytes(put(escapes, "problem")(header) + put(f"text{escapes}", "sampled", 0, "text")(sampled))
    of_record(lambda record: record["config"].update(dict.fromkeys(("model", "strategy", "on"), f"it{escapes}")))(cell)
    folder = cell.rename(cell.parent / f"cell{escapes}")
    for code, arguments in [
        *((0, arguments) for arguments in readers(folder)[:2]),
        *((2, [*arguments, "--run", str(folder)]) for arguments in (["solve"], ["compare", "-s", "greedy"])),
        (0, ["show", str(folder), "nano-L1-0000"]),
        (2, ["show", str(folder), f"nano{escapes}"]),
        (2, ["report", str(folder), "--against", f"x{escapes}"]),
        (2, ["report", f"absent{escapes}"]),
    ]:
        capsys.readouterr()
        assert run(arguments) == code, arguments
        said = "".join(capsys.readouterr())
        assert said
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said), arguments


def test_files_around_a_run_that_are_folders(cell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_record(cell)["config"]
    shutil.rmtree(cell / "traces")
    (cell / "traces").write_text("")
    with Run.open(cell, config, {}) as resumed, pytest.raises(UserError, match="traces is a file"):
        resumed.traces()
    (cell / ".analysis").write_text("")
    assert run(["report", str(cell)]) == 0  # what can't be kept is read again
    (cell / ".lock").unlink()
    (cell / ".lock").mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        Run.open(cell, config, {})


def test_mathematics_does_not_judge_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = tmp_path / "problems.jsonl"
    row = {"task_id": "T/1", "prompt": "def f(x):\n", "entry_point": "f", "test": "def check(f): assert f(1) == 1"}
    problems.write_text(json.dumps(row) + "\n")
    Run.open(tmp_path / "run", {"on": str(problems), "strategy": "greedy"}, {}).close()
    assert run(["rescore", str(tmp_path / "run"), "--answers", "exact", "--out", str(tmp_path / "new")]) == 2
    assert "--answers exact: the answers of" in capsys.readouterr().err
