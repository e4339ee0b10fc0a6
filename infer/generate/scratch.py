"""A folder for the temporary files of this process and its engines, and clearing up after processes that were killed.

vLLM leaves a rendezvous file or sockets in the temporary folder whenever an engine is closed, and segments in /dev/shm
when its processes are killed. So they work in a folder of this process, which is removed as the process ends. A killed
process removes nothing: the next one does it. The kernel tells which are dead: a living process holds a lock.
"""

import atexit
import fcntl
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHARED = Path("/dev/shm")
_PREFIX, _LOCK, _SEGMENTS = "infer-", "lock", "shared-memory"


@functools.cache
def scratch() -> Path:
    """The folder of this process. The first call clears what killed processes left."""
    clear_leftovers()
    born = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=_base()))
    fcntl.flock(os.open(born / _LOCK, os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)  # until this process is dead
    folder = born.with_name(born.name[1:])
    born.rename(folder)  # not seen by others before it is locked
    atexit.register(_remove_own, folder, os.getpid())
    return folder


@contextmanager
def temporary_files_here() -> Iterator[None]:
    """Within it, this process and those that it starts put temporary files into `scratch`."""
    folder = str(scratch())
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        tempfile.tempdir = before
        if variable is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = variable


def note_shared_memory() -> None:
    """Notes which segments of /dev/shm the processes below this one use, for whoever clears up after them."""
    with (scratch() / _SEGMENTS).open("a") as notes:
        notes.writelines(f"{name}\n" for name in _used_by(_below(os.getpid())))


def clear_leftovers() -> None:
    """Removes the folders of dead processes, and their segments unless a process lives that uses them."""
    for lock in _base().glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            descriptor = os.open(lock, os.O_RDWR)
        except OSError:  # gone, or another user's
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its process lives
            continue
        else:
            _remove(lock.parent, keep=_used_by(_parents()))
        finally:
            os.close(descriptor)


def _base() -> Path:
    """The temporary folder; /tmp where its name is long: that of a socket in it may have a hundred letters."""
    base = tempfile.gettempdir()
    return Path(base if len(base) <= 50 else "/tmp")


def _remove_own(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a fork
        note_shared_memory()
        _remove(folder, keep=set())


def _remove(folder: Path, keep: set[str]) -> None:
    with suppress(OSError):
        for name in set((folder / _SEGMENTS).read_text().split("\n")) - keep - {""}:
            with suppress(OSError):
                (SHARED / name).unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _used_by(processes: Iterable[int]) -> set[str]:
    """The names of segments that these processes have mapped."""
    names: set[str] = set()
    for process in processes:
        with suppress(OSError):
            maps = Path(f"/proc/{process}/maps").read_text()
            names |= set(re.findall(rf" {SHARED}/([^/\n]+?)(?: \(deleted\))?$", maps, re.MULTILINE))
    return names


def _below(process: int) -> list[int]:
    """The processes that this one started, and those that they started."""
    parents = _parents()
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _parents() -> dict[int, int]:
    """Every process with its parent; none where there is no /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return parents
