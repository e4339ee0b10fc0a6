"""A folder's lock: one process at a time, and nothing to clear up after one that was killed."""

import fcntl
import os
import socket
import weakref
from pathlib import Path

from infer.errors import UserError


class Lock:
    """Held until `close` or the death of the process. The kernel holds it: a `.lock` file that stays means nothing.

    The file names its last holder. Raises UserError, with that name, while another holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        _held.add(self)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        except BlockingIOError:
            holder = os.pread(self._descriptor, 300, 0).decode(errors="replace") or "another process"
            self.close()
            raise UserError(f"{folder} is in use by {holder}: wait for it, or name another folder") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Gives the lock back; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


_held: "weakref.WeakSet[Lock]" = weakref.WeakSet()


def _forget() -> None:
    """In a forked child, such as an engine's process: it may outlive its parent, and would keep the lock alive."""
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_forget)
