"""How a command ends when it is told to stop, or can't write: real processes, as a shell starts them."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infer.core import interrupts

INFER = f"{sys.executable} -m infer"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=120,
    )


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        # each twice: what rich prints, and what is written as it is
        (f"({INFER} list strategies; {INFER} hardware --json) >&-", 0, ""),
        (f"{INFER} list strategies | true", 141, ""),
        (f"{INFER} hardware --json | true", 141, ""),
        (
            f"{INFER} list strategies > /dev/full",
            2,
            "infer: standard output can't be written: No space left on",
        ),
        (f"{INFER} solve -s astr 2>&-", 2, ""),
        (f"{INFER} solve -s astr 2>&1 >/dev/null | true", 2, ""),
        (f"{INFER} solve -s astr <&-", 2, "infer: unknown strategy 'astr': did you mean astar?"),
        (f"{INFER} solve -s $'astr\\xff'", 2, "infer: --strategy is not UTF-8 text"),
    ],
)
def test_closed_streams_and_pipes(command: str, code: int, says: str) -> None:
    done = shell(command)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(says)
    assert done.stderr.count("\n") == bool(says)


def test_a_file_opened_later_does_not_get_printed_text(tmp_path: Path) -> None:
    """With standard error closed, the next file that is opened has its number."""
    code = "from infer import __main__ as m; m._prepare_streams(); import os; f = open('f', 'w'); os.write(2, b'noise')"
    done = shell(f'cd {tmp_path}; {sys.executable} -c "{code}" 2>&-')
    assert done.returncode == 0
    assert (tmp_path / "f").read_text() == ""


@pytest.mark.parametrize("columns", ["0", "\u00b2", "9" * 30])
def test_any_width(columns: str) -> None:
    done = shell(f"{INFER} hardware | wc -c", COLUMNS=columns, LINES=columns)
    assert (done.returncode, done.stderr) == (0, "")
    assert 0 < int(done.stdout) < 10_000


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sends this process signals that `interrupts` has taken over, until the test ends."""
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    for number in interrupts.SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # the tests themselves may run under nohup
    monkeypatch.setattr(interrupts, "came", None)
    monkeypatch.setattr("atexit.register", lambda function: None)
    interrupts.watch()
    yield signal.raise_signal
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_the_first_signal_cancels_the_work_and_more_change_nothing(
    number: signal.Signals, caught: Callable[[int], None]
) -> None:
    import asyncio

    ended = []

    async def work() -> None:
        try:
            caught(number)
            await asyncio.sleep(60)
        finally:
            for other in (*interrupts.SIGNALS, number):
                caught(other)
            await asyncio.sleep(0.01)
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupts.run(work())
    caught(signal.SIGINT)
    assert (ended, interrupts.came) == ([True], number)


def test_in_an_interruptible_block_it_is_at_once(caught: Callable[[int], None]) -> None:
    reached = []

    async def work() -> None:
        with interrupts.interruptible():
            caught(signal.SIGTERM)
            reached.append("after")

    with pytest.raises(KeyboardInterrupt):
        interrupts.run(work())
    assert not reached


def test_an_ending_that_hangs_can_be_ended(caught: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(interrupts.Interrupt):
        caught(signal.SIGTERM)
    caught(signal.SIGINT)
    monkeypatch.setattr(interrupts, "PATIENCE", 0.0)
    with pytest.raises(interrupts.Interrupt):
        caught(signal.SIGINT)
    assert interrupts.came == signal.SIGTERM


def test_signals_that_are_ignored_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As nohup and a shell's background jobs have it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    others = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr("atexit.register", lambda function: None)
    try:
        interrupts.watch()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for number, handler in {**others, signal.SIGHUP: before}.items():
            signal.signal(number, handler)


def started(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """`infer solve` of the whole set, in a session of its own."""
    command = [sys.executable, "-m", "infer", "solve", "-m", "nano-xs", "--run", str(folder), *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # what a shell starts in the background ignores it, tests as well, and so do their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_until(holds: Callable[[], Any], process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 240
    while not holds() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    assert holds()


def session(leader: int) -> list[str]:
    """The command lines of a session's processes. Those that have ended, or are ending and have none, are left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, member = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            line = (folder / "cmdline").read_text().replace("\0", " ")
            if int(member) == leader and state != "Z" and line:
                found.append(line)
        except OSError:  # it has ended meanwhile
            pass
    return found


@pytest.mark.models
@pytest.mark.parametrize(
    ("number", "times", "code"), [(signal.SIGTERM, 1, 143), (signal.SIGHUP, 1, 129), (signal.SIGINT, 5, 130)]
)
def test_a_signal_keeps_what_is_solved(number: signal.Signals, times: int, code: int, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = started(folder, "--backend", "transformers", "--concurrency", "2")
    solutions = folder / "solutions.jsonl"
    wait_until(lambda: solutions.exists() and solutions.read_text().count("\n") >= 2, process)
    for _ in range(times):
        os.killpg(process.pid, number)  # as a terminal does: to the grader's process as well
        time.sleep(0.02)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, ""), err
    stopped = re.search(r"stopped: (\d+) of 500 problems are done and kept", err)
    assert stopped is not None, err
    assert int(stopped[1]) == solutions.read_text().count("\n") >= 2
    assert all(line.startswith("infer: ") or "/500" in line for line in err.splitlines()), err
    assert not session(process.pid)


@pytest.mark.models
def test_an_interrupted_start_leaves_no_engine(tmp_path: Path) -> None:
    """Five Ctrl-C to the command alone, while two engines load in processes of their own."""
    pytest.importorskip("vllm")
    process = started(tmp_path / "run", "--data-parallel", "2")
    wait_until(lambda: sum("spawn_main" in line or "EngineCore" in line for line in session(process.pid)) >= 2, process)
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, ""), err
    assert "stopped: 0 of 500" in err
    assert len(err.splitlines()) == 2, err
    assert not session(process.pid)
