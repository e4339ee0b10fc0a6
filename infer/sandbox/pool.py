"""`Sandbox`: hands programs and their tests to fork servers, and makes the verdicts from facts no program can forge."""

import asyncio
import functools
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from infer.sandbox.kernel import Limits
from infer.sandbox.wire import decode, encode

logger = logging.getLogger(__name__)

Outcome = Literal["passed", "wrong", "error", "time", "output", "malformed"]
"""How a test ended.

It passed. The program gave a wrong value or output; it raised, crashed or exited; it exceeded a limit of time or of
output. Or the test is none: it does not compile, fails before it calls the program, or ends itself.
"""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: `target` is an expression over the program's names, such as `f` or `Solution().solve`."""

    target: str
    args: tuple[Any, ...]
    expected: Any


@dataclass(frozen=True, slots=True)
class Main:
    """One run of the program as a script."""

    text: str
    """Its standard input."""
    expected: str
    """Its standard output, but for blank space at the ends of lines and of the whole."""


@dataclass(frozen=True, slots=True)
class Script:
    """Code that calls the program and raises where it is wrong. `candidate` is the program's function `entry`."""

    code: str
    setup: str = ""
    """Run first. Its names stay as they are, though the program may define others of the same name."""
    entry: str | None = None


Test = Call | Main | Script


@dataclass(frozen=True, slots=True)
class Result:
    """The end of one test."""

    outcome: Outcome
    cpu: float
    """CPU seconds of the program's process."""
    why: str | None = None
    """In a few words, where it did not pass."""
    seen: str | None = None
    """Of all that the program answered in this test: equal for programs that behave equally."""


class Sandbox:
    """Runs programs against tests, `workers` at once; any number of calls may wait. An async context manager.

    Each program has at most `cpu` seconds of processor time a test, whatever else the machine does; a process that
    neither runs nor waits for a core for `idle` seconds is ended, and every test after `wall` seconds. `memory` bounds
    a process's address space, `output` its output and each file, `folder` its working folder: all in bytes.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        cpu: float = 5.0,
        idle: float = 5.0,
        wall: float = 120.0,
        memory: int = 1 << 30,
        output: int = 4 << 20,
        folder: int = 32 << 20,
    ) -> None:
        self.workers = workers or os.cpu_count() or 1
        self.cpu, self.idle, self.wall = cpu, idle, wall
        self.output, self.limits = output, Limits(memory=memory, file=output, folder=folder)
        self._slots = asyncio.Semaphore(self.workers)
        self._free: list[_Worker] = []
        self._all: list[_Worker] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def run(self, program: str, tests: Sequence[Test]) -> list[Result]:
        """Each test's end, in processes of its own: no test sees what another left."""
        return list(await asyncio.gather(*(self._run(program, test) for test in tests)))

    async def layers(self) -> dict[str, Any]:
        """The layers of isolation that are on, and why others are off."""
        async with self._slots:
            worker = await self._take()
            self._free.append(worker)
        return worker.layers

    async def close(self) -> None:
        """Ends the servers, and with them every process that they started."""
        while self._all:
            await self._all.pop().stop()
        self._free.clear()

    async def _run(self, program: str, test: Test) -> Result:
        async with self._slots:
            worker = await self._take()
            try:
                result = await _ended(worker, program, test, self.cpu)
            except BaseException as error:
                self._all.remove(worker)
                await worker.stop()
                if isinstance(error, EOFError | ConnectionError):
                    raise RuntimeError("a server of the sandbox has ended: was it killed?") from error
                raise
            self._free.append(worker)
        return result

    async def _take(self) -> "_Worker":
        if self._free:
            return self._free.pop()
        worker = await _Worker.start(self)
        self._all.append(worker)
        return worker


class _Worker:
    """A fork server's process, and the channel to it."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket, folder: str) -> None:
        self.process = process
        self.channel = channel
        self.folder = folder
        self.layers: dict[str, Any] = {}

    @classmethod
    async def start(cls, sandbox: Sandbox) -> Self:
        ours, theirs = socket.socketpair()
        folder = tempfile.mkdtemp(prefix="infer-sandbox-")
        os.chmod(folder, 0o777)  # for programs, where they can't have a folder of their own in memory
        settings = {
            "limits": sandbox.limits._asdict(),
            "idle": sandbox.idle,
            "wall": sandbox.wall,
            "output": sandbox.output,
            "work": folder,
            # for each server another one, as the number of a user's threads is limited
            "uid": 60_000 + (os.getpid() * 64 + len(sandbox._all)) % 5_000,
            "readable": _readable(),
        }
        bootstrap = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); import sandbox.server as server; "
            "del sys.path[0]; server.main()"
        )
        process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: ASYNC220 - a millisecond
            [sys.executable, "-s", "-S", "-P", "-B", "-c", bootstrap, json.dumps(settings)],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},  # verdicts must not depend on the order of a set
            start_new_session=True,  # Ctrl-C is for us
        )
        theirs.close()
        ours.setblocking(False)
        worker = cls(process, ours, folder)
        try:
            worker.layers = json.loads(await worker.receive())
            if "root" in worker.layers["on"]:
                os.rmdir(folder)  # programs have one in memory
            if off := worker.layers["off"]:
                _warn(", ".join(f"{name} ({reason})" for name, reason in off.items()))
        except (EOFError, ConnectionError):
            assert process.stderr is not None
            errors = await asyncio.to_thread(process.stderr.read)
            await worker.stop()
            reason = (errors.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(f"the sandbox can't start: {reason}") from None
        except BaseException:
            await worker.stop()
            raise
        return worker

    async def ask(self, kind: str, cpu: float, body: bytes, *descriptors: int) -> dict[str, Any]:
        """Gives work to the server; what the processes did."""
        socket.send_fds(self.channel, [b"j"], descriptors)
        await _send(self.channel, json.dumps([kind, cpu]).encode(), body)
        answer: dict[str, Any] = json.loads(await self.receive())
        return answer

    async def receive(self) -> bytes:
        return await _receive(self.channel)

    async def stop(self) -> None:
        self.channel.close()
        self.process.terminate()
        await asyncio.to_thread(self.process.wait)
        assert self.process.stderr is not None
        self.process.stderr.close()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


async def _ended(worker: _Worker, program: str, test: Test, cpu: float) -> Result:
    match test:
        case Call():
            body = json.dumps([program, test.target, encode((list(test.args), {})).decode()]).encode()
            answer = await worker.ask("call", cpu, body)
            return _limited(answer, cpu) or _compared(answer, test)
        case Main():
            answer = await worker.ask("main", cpu, json.dumps([program, test.text]).encode())
            return _limited(answer, cpu) or _printed(answer, test)
        case Script():
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            with ours:
                with theirs:
                    sending = asyncio.create_task(_send(ours, json.dumps([test.setup, test.code, test.entry]).encode()))
                    answer = await worker.ask("test", cpu, program.encode(), theirs.fileno())
                await asyncio.gather(sending, return_exceptions=True)
                try:
                    verdict = json.loads(await _receive(ours))
                except (EOFError, ConnectionError):
                    verdict = None
            return _judged(answer, verdict, cpu)


@functools.cache
def _warn(layers: str) -> None:
    """Says which layers are missing: once, though each server finds the same."""
    logger.warning("the sandbox runs without %s: programs are held by the other layers alone", layers)


def _limited(answer: dict[str, Any], cpu: float) -> Result | None:
    """The end of a program that exceeded a limit, if it did."""
    used = answer["ended"][0][1]
    if used > cpu or answer["over"] == "cpu":
        return Result("time", used, f"more than {cpu:g} s of CPU time")
    match answer["over"]:
        case "output":
            return Result("output", used, "more output than is allowed")
        case "idle":
            return Result("time", used, "it neither ended nor ran")
        case "wall":
            return Result("time", used, "it did not end")
    return None


def _compared(answer: dict[str, Any], test: Call) -> Result:
    (status, used), output = answer["ended"][0], answer["output"].encode("latin-1")
    try:
        value = decode(output[1:])
    except ValueError:
        return Result("error", used, _died(status) if not output else "its answer is no plain data")
    if output[:1] != b"=":
        return Result("error", used, _shown(value), seen=output.decode("latin-1"))
    right = value == test.expected
    return Result("passed" if right else "wrong", used, None if right else _short(value), output.decode("latin-1"))


def _printed(answer: dict[str, Any], test: Main) -> Result:
    (status, used), output = answer["ended"][0], answer["output"].encode("latin-1").decode("utf-8", "replace")
    if status != 0:
        return Result("error", used, _died(status) if status < 0 else "it raised, or ended with a status", output)
    right = _lines(output) == _lines(test.expected)
    return Result("passed" if right else "wrong", used, None if right else _short(output), output)


def _judged(answer: dict[str, Any], verdict: dict[str, Any] | None, cpu: float) -> Result:
    (_, used), (test_status, test_used) = answer["ended"]
    seen = verdict["seen"] if verdict is not None else None
    if verdict is not None and verdict["outcome"] == "passed":
        return _limited(answer, cpu) or Result("passed", used, seen=seen)
    if test_used > cpu:
        return Result("malformed", used, f"the test took more than {cpu:g} s of CPU time", seen)
    if (limited := _limited(answer, cpu)) is not None:
        return limited
    if verdict is None:
        return Result("malformed", used, f"the test's process ended ({test_status})")
    return Result(verdict["outcome"], used, verdict["why"], seen)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _died(status: int) -> str:
    return f"it was ended by {signal.Signals(-status).name}" if status < 0 else "it ended before its call returned"


def _shown(error: tuple[str, str]) -> str:
    return _short(f"{error[0]}: {error[1]}".removesuffix(": "))


def _short(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:  # an integer of too many digits to be written
        text = f"a {type(value).__name__}"
    return text.split("\n")[0][:200]


async def _send(channel: socket.socket, *messages: bytes) -> None:
    data = b"".join(len(message).to_bytes(4, "big") + message for message in messages)
    await asyncio.get_running_loop().sock_sendall(channel, data)


async def _receive(channel: socket.socket) -> bytes:
    async def exactly(size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = await loop.sock_recv(channel, size - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    loop = asyncio.get_running_loop()
    return await exactly(int.from_bytes(await exactly(4), "big"))


def _readable() -> list[str]:
    """The folders that Python itself needs, none within another."""
    folders = [Path(path) for path in ("/usr", "/lib", "/lib64", sys.base_prefix) if os.path.exists(path)]
    return [str(path) for path in folders if not any(other in path.parents for other in folders)]
