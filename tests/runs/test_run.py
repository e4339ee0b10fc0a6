"""Runs on disk: torn lines, two processes, killed writers, full disks, and folders that can't be resumed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infer.core.records import BadLine
from infer.core.solution import Candidate, Solution
from infer.core.usage import Usage
from infer.errors import UserError
from infer.runs.run import Run, describe_machine, read_solutions

CONFIG: dict[str, Any] = {"model": "m", "seed": 0, "options": {"k": 4}, "stop": ("a", "b")}
FACTS: dict[str, Any] = {"infer": "0.1.0", "python": "3.11"}


def solution(name: str, text: str = "1 + 1 = 2\n\u2028é") -> Solution:
    candidate = Candidate(
        address=(0, 1), tokens=[5, 6], num_tokens=2, text=text, answer="2", finished=True, steps=[text], scores=[0.5]
    )
    return Solution(
        problem_id=name,
        level=None,
        reference="2",
        answer="2",
        correct=True,
        finished=True,
        chosen=0,
        candidates=[candidate],
        usage=Usage(generated=2),
        seconds=0.1,
    )


def reopen(path: Path, **config: Any) -> Run:
    return Run.open(path, {**CONFIG, **config}, FACTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed run of three solutions."""
    path = tmp_path / "runs" / "first"
    with reopen(path) as run:
        for name in "abc":
            run.append(solution(name))
    return path


def python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """Starts a process that runs `code` with `Run` and this file's helpers."""
    helpers = "import sys, importlib.util as u; s = u.spec_from_file_location('t', sys.argv[1]); "
    helpers += "t = u.module_from_spec(s); s.loader.exec_module(t); from pathlib import Path\n"
    command = [sys.executable, "-c", helpers + code, __file__, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_appended_solutions_are_read_again(folder: Path) -> None:
    with reopen(folder) as run:
        assert run.done == {"a", "b", "c"}
        run.append(solution("d"))
        assert list(run.solutions()) == [solution(name) for name in "abcd"]
    assert len((folder / "solutions.jsonl").read_bytes().splitlines()) == 4


def test_the_record_of_a_run(folder: Path) -> None:
    record = json.loads((folder / "run.json").read_text())
    assert record["version"] == 1
    assert record["config"] == {**CONFIG, "stop": ["a", "b"]}
    assert [{**facts, "since": None} for facts in record["facts"]] == [{**FACTS, "since": None}]


def test_facts_that_changed_are_noted_once(folder: Path) -> None:
    for facts in (FACTS, {**FACTS, "python": "3.12"}, {**FACTS, "python": "3.12"}):
        Run.open(folder, CONFIG, facts).close()
    record = json.loads((folder / "run.json").read_text())
    assert [facts["python"] for facts in record["facts"]] == ["3.11", "3.12"]


def test_keys_are_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ["--api-key", "sk-1", "--seed=1", "--prm-api-key=sk=2", "--api-key=sk-3"]
    monkeypatch.setattr(sys, "argv", ["infer", "solve", "a --b", *keys])
    shown = describe_machine()["command"]
    assert shown == "infer solve 'a --b' --api-key '***' --seed=1 '--prm-api-key=***' '--api-key=***'"


def test_a_server_that_serves_another_model_is_refused(tmp_path: Path) -> None:
    def session(model: str, **facts: Any) -> None:
        with Run.open(tmp_path, {"model": None}, {**FACTS, **facts}) as run:
            run.add_facts({"generator": {"model": model, "server_version": facts.get("version")}})

    session("a")
    session("a", python="3.12", version="1.0")
    with pytest.raises(UserError, match="holds another run: the server had a and has b: name another folder"):
        session("b", python="3.13")
    session("a")


def test_a_line_torn_at_any_byte_costs_that_line_alone(folder: Path) -> None:
    lines = folder / "solutions.jsonl"
    whole = lines.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    # cuts at each byte of the last line, but only at some before: each cut takes milliseconds
    for cut in [*range(0, ends[1], 40), *range(ends[1], len(whole) + 1)]:
        lines.write_bytes(whole[:cut])
        with reopen(folder) as run:
            # a line that lacks only its newline is whole
            kept = [name for name, end in zip("abc", ends, strict=True) if end - 1 <= cut]
            assert run.done == set(kept)
            run.append(solution("new"))
            assert [found.problem_id for found in run.solutions()] == [*kept, "new"]


WHOLE = solution("d").model_dump_json().encode()


@pytest.mark.parametrize(
    "damage",
    [
        *(b"{}\n", b"\n", b"\0\0\0\n", b'{"problem_id": "b"\n', b"\xff\n"),
        # a last line without its newline is torn only if it is the beginning of one: it would be cut off
        *(b"{}", b"#", b"[1, 2]", WHOLE.replace(b'"chosen":0', b'"chosen":1'), WHOLE + b"}"),
    ],
)
def test_a_corrupt_line_is_named_and_nothing_is_changed(folder: Path, damage: bytes) -> None:
    lines = folder / "solutions.jsonl"
    first, second, third = lines.read_bytes().splitlines(keepends=True)
    for content in [first + damage] + [first + damage + second + third] * damage.endswith(b"\n"):
        lines.write_bytes(content)
        with pytest.raises(UserError, match=r"^line 2 of .*solutions.jsonl is no solution \(.*\): mend or remove it$"):
            reopen(folder)
        assert lines.read_bytes() == content
    lines.write_bytes(first)
    reopen(folder).close()  # the refusal left no lock behind


def test_a_second_solution_of_a_problem_is_refused(folder: Path) -> None:
    with reopen(folder) as run, pytest.raises(ValueError, match="problem a has a solution"):
        run.append(solution("a"))
    lines = folder / "solutions.jsonl"
    lines.write_bytes(lines.read_bytes() + solution("a", "another").model_dump_json().encode() + b"\n")
    message = r"^line 4 of .*solutions.jsonl is no new solution \(line 1 has one of problem a\): mend or remove it$"
    with pytest.raises(UserError, match=message):
        reopen(folder)
    with pytest.raises(UserError, match=message):
        list(read_solutions(folder))
    bad: list[BadLine] = []
    assert list(read_solutions(folder, bad.append)) == [solution(name) for name in "abc"]
    assert [(each.path, each.number) for each in bad] == [(lines, 4)]


def test_a_solution_that_could_not_be_read_again_is_not_written(folder: Path) -> None:
    good = solution("d")
    bad = good.model_copy(update={"candidates": [good.candidates[0].model_copy(update={"scores": [float("nan")]})]})
    with reopen(folder) as run:
        with pytest.raises(ValueError, match="scores"):
            run.append(bad)
        run.append(good)
    with reopen(folder) as run:
        assert run.done == set("abcd")


def test_zeros_that_lost_power_left_are_no_line(folder: Path) -> None:
    lines = folder / "solutions.jsonl"
    whole = lines.read_bytes()
    for tail in (b"\0" * 4096, WHOLE[:50] + b"\0" * 100):
        lines.write_bytes(whole + tail)
        assert [each.problem_id for each in read_solutions(folder)] == ["a", "b", "c"]
    reopen(folder).close()
    assert lines.read_bytes() == whole


def test_another_config_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(UserError) as refusal:
        reopen(folder, seed=1, options={"k": 8}, prm="p")
    message = str(refusal.value)
    assert "seed was 0 and is 1; options.k was 4 and is 8; prm was absent and is" in message
    assert message.endswith("name another folder")  # no option is named: each command has its own
    assert "\n" not in message
    with pytest.raises(UserError, match="template was absent and is"):
        reopen(folder, template="x\n" * 1000)


def test_numbers_that_json_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Run.open(tmp_path / "run", {"min": float("inf")}, {})
    Run.open(tmp_path / "run", {"min": 0.0}, {"where": tmp_path}).close()


def spoil(text: str) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        (path / "run.json").write_text(text)

    return act


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (spoil('{"version": 2}'), "newer infer .version 2.: upgrade"),
        (spoil('{"version": 0, "config": {}, "facts": [{}]}'), "older infer .version 0."),
        (spoil('{"version": 1, "config": {}, "facts": []}'), "no run's record"),
        (spoil("[]"), "no run's record"),
        (spoil('{"version"'), "no run's record"),
        (lambda path: (path / "run.json").unlink(), "solutions but no run.json"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(folder: Path, act: Callable[[Path], None], message: str) -> None:
    act(folder)
    with pytest.raises(UserError, match=message) as refusal:
        reopen(folder)
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError):
        read_solutions(folder)


def test_a_run_without_solutions_is_refused_before_they_are_asked_for(folder: Path) -> None:
    (folder / "solutions.jsonl").unlink()
    with pytest.raises(UserError, match=r"first has no solutions: No such file.*: solutions\.jsonl: restore"):
        read_solutions(folder)
    with pytest.raises(UserError, match="absent is no run: No such file"):
        read_solutions(folder / "absent")


def test_a_folder_of_runs_is_no_run_and_names_them(folder: Path) -> None:
    with pytest.raises(UserError, match=r"holds runs: name one of them, such as '.*first'"):
        read_solutions(folder.parent)
    with pytest.raises(UserError, match=r"holds runs, such as '.*first', and is none"):
        Run.open(folder.parent, CONFIG, FACTS)
    assert not (folder.parent / "run.json").exists()


def test_a_path_that_can_be_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file: name another folder"):
        reopen(tmp_path / "file")
    with pytest.raises(UserError, match="Not a directory"):
        reopen(tmp_path / "file" / "run")
    with pytest.raises(UserError, match="File name too long"):
        reopen(tmp_path / ("x" * 300))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        reopen(tmp_path / "run")


def test_one_process_at_a_time_and_a_killed_one_leaves_no_lock(folder: Path) -> None:
    # the child of the process that holds the lock outlives it, as an engine's process may
    code = """
import os, time
run = t.reopen(Path(sys.argv[2]))
child = os.fork()
if child == 0:
    os.close(1), os.close(2)
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""
    holder = python(code, folder)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(UserError, match=rf"is in use by process {holder.pid} on .*: wait for it, or name another"):
            reopen(folder)
        holder.kill()
        holder.communicate()
        reopen(folder).close()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_second_run_in_the_same_process_is_refused_until_the_first_is_closed(folder: Path) -> None:
    with reopen(folder) as run, pytest.raises(UserError, match=f"in use by process {os.getpid()} on"):
        reopen(folder)
    run.close()
    reopen(folder).close()


def write(path: Path, acknowledge: int, most: int) -> None:
    """Appends the missing ones of 200 solutions, and reports each. After `most` of them it waits to be killed."""
    with reopen(path) as run:
        os.write(acknowledge, b"ready\n")
        missing = [name for name in map(str, range(200)) if name not in run.done]
        for name in missing[:most]:
            run.append(solution(name, "x" * 50_000))
            os.write(acknowledge, f"{name}\n".encode())
        if most < len(missing):
            time.sleep(60)


def test_a_killed_writer_loses_nothing_it_acknowledged_and_repeats_nothing(tmp_path: Path) -> None:
    rng = random.Random(0)
    acknowledged: list[str] = []
    for session in range(21):
        kill = session < 20
        read_end, write_end = os.pipe()
        writer = os.fork()
        if writer == 0:
            status = 1
            try:
                write(tmp_path / "run", write_end, most=9 if kill else 200)
                status = 0
            finally:
                os._exit(status)
        os.close(write_end)
        with open(read_end) as lines:
            assert lines.readline() == "ready\n"
            if kill:
                time.sleep(rng.uniform(0, 0.003))
                os.kill(writer, signal.SIGKILL)
            acknowledged += lines.read().split()
        assert os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) == (-signal.SIGKILL if kill else 0)
        with reopen(tmp_path / "run") as run:
            # the last solution before the kill may be on disk although it was not reported
            assert run.done.issuperset(acknowledged)
            assert len(run.done) - len(acknowledged) in (0, 1)
            acknowledged += run.done.difference(acknowledged)
    with reopen(tmp_path / "run") as run:
        found = [each.problem_id for each in run.solutions()]
    assert len(found) == len((tmp_path / "run" / "solutions.jsonl").read_bytes().splitlines()) == 200
    assert set(found) == set(acknowledged) == set(map(str, range(200)))


def test_a_full_disk_keeps_what_is_complete(folder: Path) -> None:
    """A limit on the file's size stands in for a full disk: the system writes part of the line, then refuses."""
    before = (folder / "solutions.jsonl").read_bytes()
    code = """
import resource
from infer.errors import WriteError
run = t.reopen(Path(sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    run.append(t.solution('d', 'x' * 10_000))
except WriteError as error:
    print(error)
print(len((run.path / 'solutions.jsonl').read_bytes()))
run.append(t.solution('e'))
"""
    output, errors = python(code, folder, len(before) + 5_000).communicate()
    message, size = output.splitlines()
    assert message.startswith("cannot write the solution of problem d to ")
    assert "File too large. The 3 solutions before it are kept: make room and start the same command again" in message
    assert int(size) == len(before)
    assert errors == ""
    with reopen(folder) as run:
        assert run.done == set("abce")


def test_a_full_disk_at_creation_is_one_line(tmp_path: Path) -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    t.reopen(Path(sys.argv[2]))
except t.UserError as error:
    print(error)
"""
    output, errors = python(code, tmp_path / "run").communicate()
    assert errors == ""
    assert output.endswith("run as a run folder: File too large: free some space, or name another folder\n")
    reopen(tmp_path / "run").close()  # the unfinished attempt is no obstacle
