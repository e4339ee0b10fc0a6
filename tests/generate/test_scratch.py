"""Temporary files and shared memory: nothing is left by a process that ended, nothing is taken from one that lives."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

import pytest

from infer.generate.scratch import SHARED

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="no /dev/shm")

BEGIN = """
import sys, tempfile
from pathlib import Path
from infer.generate.scratch import note_shared_memory, scratch, temporary_files_here
with temporary_files_here():
    (Path(tempfile.mkdtemp()) / "socket").touch()
print(scratch(), flush=True)
"""
WAIT = f"{BEGIN}\nsys.stdin.read()"
# as vLLM's: a child maps the segment, and the death of all of them at once leaves it
WITH_SEGMENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import mmap, sys
from multiprocessing import resource_tracker, shared_memory
segment = shared_memory.SharedMemory(create=True, size=64)
resource_tracker.unregister(segment._name, "shared_memory")
print(segment.name, flush=True)
sys.stdin.read()
'''], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
name = child.stdout.readline()
{WAIT.replace("print(scratch(), flush=True)", "note_shared_memory(); print(scratch(), name, flush=True)")}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder with a short name, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="t-") as name:
        yield Path(name)


def ended(code: str, folder: Path) -> None:
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(folder)}, check=True)


@contextmanager
def living(code: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process that has begun, and what it said. It is killed with its children on the way out."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().split()
    finally:
        kill(process)
        process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_nothing_is_left_at_the_end(folder: Path) -> None:
    ended(BEGIN, folder)
    assert os.listdir(folder) == []


def test_nothing_is_left_after_ctrl_c(folder: Path) -> None:
    with living(WAIT, folder) as (process, (own,)):
        assert os.listdir(folder) == [Path(own).name]
        process.send_signal(signal.SIGINT)
        process.wait()
        assert os.listdir(folder) == []


def test_the_next_start_clears_what_a_killed_one_left_and_no_more(folder: Path) -> None:
    with living(WAIT, folder) as (dead, _), living(WAIT, folder) as (_, (alive,)):
        kill(dead)
        assert len(os.listdir(folder)) == 2
        (folder / "infer-of-another-program").mkdir()
        (folder / "infer-a-kept.log").touch()
        ended(BEGIN, folder)
        assert sorted(os.listdir(folder)) == sorted([Path(alive).name, "infer-of-another-program", "infer-a-kept.log"])
        assert len(os.listdir(alive)) == 2  # its lock, and its file


def test_segments_of_killed_processes_are_cleared(folder: Path) -> None:
    with living(WITH_SEGMENT, folder) as (process, (_, name)):
        assert (SHARED / name).exists()
        ended(BEGIN, folder)
        assert (SHARED / name).exists()  # it lives
        kill(process)
        assert (SHARED / name).exists()
        ended(BEGIN, folder)
        assert not (SHARED / name).exists()


def test_a_segment_that_another_process_uses_is_kept(folder: Path) -> None:
    with living(WITH_SEGMENT, folder) as (process, (_, name)):
        mine = shared_memory.SharedMemory(name=name)
        resource_tracker.unregister(f"/{name}", "shared_memory")
        kill(process)
        ended(BEGIN, folder)
        assert (SHARED / name).exists()
        mine.close()
        (SHARED / name).unlink()
        assert os.listdir(folder) == []


def test_a_long_name_is_no_place_for_sockets(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    with living(WAIT, long) as (process, (own,)):
        assert len(own) < 60
        process.send_signal(signal.SIGINT)
        process.wait()
        assert not Path(own).exists()


def test_settings_are_put_back(folder: Path) -> None:
    code = """
import os, tempfile
from infer.generate.scratch import scratch, temporary_files_here
before = tempfile.gettempdir(), os.environ["TMPDIR"]
with temporary_files_here():
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(scratch())
assert (tempfile.gettempdir(), os.environ["TMPDIR"]) == before
"""
    ended(code, folder)


ENGINE = """
import asyncio, sys
from pathlib import Path
from infer.generate.engine import start_engine
from infer.generate.scratch import scratch
from infer.nano import checkpoint

async def main():
    engine = start_engine(checkpoint("nano-xs"), "generate", dtype="float32", memory_fraction=0.1, in_process=False)
    print(*(scratch() / "shared-memory").read_text().split(), flush=True)
    sys.stdin.read(1)
    await engine.close()

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.models
def test_engines_in_processes_of_their_own_leave_nothing(folder: Path, tmp_path: Path) -> None:
    """One is killed with all its processes; the next one clears up, runs, and ends."""
    pytest.importorskip("vllm")
    script = tmp_path / "engine.py"  # a file: vLLM's processes are spawned, and import it
    script.write_text(ENGINE)
    run = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    with living(run, folder) as (process, killed):
        kill(process)
    assert any((SHARED / name).exists() for name in killed)
    with living(run, folder) as (process, used):
        assert used
        assert not any((SHARED / name).exists() for name in killed)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait() == 0
    assert os.listdir(folder) == []
    assert not any((SHARED / name).exists() for name in used)
