"""The fork server: a warm interpreter that takes its layers once, then runs each test in a child, one after the other.

It never sees what a program should answer: expected values stay with `Sandbox`, and a test's text goes to the test's
process over a channel that the server passes on unread. A program is a child of the server and may search its memory.

The server first reports its layers. Then it answers each job by what the job's processes did.
"""

import gc
import json
import os
import random
import resource
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from socket import AF_UNIX, SOCK_STREAM, recv_fds, send_fds, socket, socketpair
from typing import Any, NamedTuple, NoReturn

from . import judge, kernel
from .wire import receive, send

WARM = (
    *("bisect", "cmath", "collections", "copy", "datetime", "decimal", "enum", "fractions", "functools", "heapq"),
    *("itertools", "json", "math", "operator", "random", "re", "statistics", "string", "typing"),
)
"""Modules that programs import often: loaded once, here.

Each takes memory, which makes every fork slower: `dataclasses` and `pathlib`, which bring many others, are left out.
"""
TICK = 0.2
"""Seconds between two looks at a process that takes long."""


class Child(NamedTuple):
    """A process that waits for its work, or does it."""

    pid: int
    channel: socket
    """Its work goes in, its output comes out."""


class Server:
    """One worker. `channel` leads to the `Sandbox` that started it."""

    def __init__(self, channel: socket, settings: dict[str, Any], layers: kernel.Layers, processes: int | None) -> None:
        self.channel = channel
        self.work: str = settings["work"]
        self.descriptors: int = settings["limits"]["descriptors"]
        self.output: int = settings["output"]
        self.idle: float = settings["idle"]
        self.wall: float = settings["wall"]
        self.filtered = "seccomp" in layers.on
        self.alone = kernel.Alone() if self.filtered else None
        self.inside = "namespaces" in layers.on
        self.processes = processes
        self.moved = 0
        self.spare: list[Child] = []
        """Forked ahead of need, while the other end is busy with the last answer."""

    def run(self) -> NoReturn:
        """Answers jobs until the other end closes the channel."""
        while True:
            if not self.spare:
                self.spare.append(self._fork())
            try:
                kind, cpu, body, descriptors = _receive(self.channel)
            except EOFError:
                os._exit(0)
            if kind == "test":
                answer = self._test(cpu, body, descriptors[0])
            else:
                child = self._start(kind, cpu, body)
                answer = self._watch([child.pid], cpu, child.channel.detach())
            self._clean()
            send(self.channel, json.dumps(answer).encode())

    def _test(self, cpu: float, body: bytes, descriptor: int) -> dict[str, Any]:
        """Joins a program's process and its test's. The test itself comes through `descriptor`, unread."""
        program = self._start("serve", cpu, body)
        test = self._start("test", cpu, b"", [descriptor, program.channel.fileno()])
        os.close(descriptor)
        program.channel.close()
        answer = self._watch([program.pid, test.pid], cpu)
        test.channel.close()
        return answer

    def _start(self, kind: str, cpu: float, body: bytes, descriptors: Sequence[int] = ()) -> Child:
        """Gives work to the spare child, or to a new one."""
        child = self.spare.pop() if self.spare else self._fork()
        send_job(child.channel, kind, cpu, body, descriptors)
        return child

    def _fork(self) -> Child:
        """A child that waits for work, with nothing open but its channel."""
        ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
        pid = os.fork()
        if pid:
            theirs.close()
            return Child(pid, ours)
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(null, standard)
            channel = os.dup2(os.dup2(theirs.fileno(), self.descriptors - 1), 3)  # whichever number it had
            os.closerange(4, self.descriptors)
            os.chdir(self.work)
            if self.alone is not None:
                self.alone.take()
            if not self.inside:
                kernel.end_with_parent()
            gc.enable()
            _work(socket(fileno=channel))
        finally:
            os._exit(70)

    def _watch(self, children: list[int], cpu: float, read: int | None = None) -> dict[str, Any]:
        """Waits until the last of `children` has ended, or its whole output has come; then ends all of them.

        How each ended: its exit status (negative for a signal) and its CPU seconds; the output that came through
        `read`; and the limit that was exceeded, if one was.
        """
        started = time.monotonic()
        output = bytearray()
        over = None
        handle = os.pidfd_open(children[-1])
        poll = select.poll()
        poll.register(handle if read is None else read, select.POLLIN)
        while over is None:
            if not poll.poll(TICK * 1000):
                over = self._over(children, cpu, started)
            elif read is None:
                break
            elif part := os.read(read, 1 << 16):
                output += part
                over = "output" if len(output) > self.output else None
            else:
                poll.unregister(read)
                poll.register(handle, select.POLLIN)
                os.close(read)
                read = None
        for descriptor in (handle, read):
            if descriptor is not None:
                os.close(descriptor)
        ended = [self._end(child) for child in children]
        return {"over": over, "ended": ended, "output": output.decode("latin-1")}

    def _over(self, children: list[int], cpu: float, started: float) -> str | None:
        """The limit on time that was exceeded. Waiting for a core, on a busy machine, does not count as idle."""
        wall = time.monotonic() - started
        if wall > self.wall:
            return "wall"
        if any(_ran(child) > cpu for child in children):
            return "cpu"
        if self.processes is not None:
            idle = wall - sum(_active(child, self.processes) for child in children)
        else:  # it can't be seen who waits for a core: a tenth of the time is taken to be idle
            idle = (wall - sum(_ran(child) for child in children)) / 10
        return "idle" if idle > self.idle else None

    def _end(self, child: int) -> tuple[int, float]:
        """Ends a child, with everything that it started where that was not prevented."""
        if self.filtered:
            os.kill(child, signal.SIGKILL)
        else:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL) if self.inside else os.killpg(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
        while not self.filtered:  # orphans, which are ours in a namespace of our own
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
        return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime

    def _clean(self) -> None:
        """Empties the working folder. Folders within folders are moved up first: no depth is too great."""
        while entries := list(os.scandir(self.work)):
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.remove(entry.path)
                    continue
                os.chmod(entry.path, 0o700)
                for inner in os.scandir(entry.path):
                    if inner.is_dir(follow_symlinks=False):
                        self.moved += 1
                        os.chmod(inner.path, 0o700)
                        os.rename(inner.path, f"{self.work}/.moved-{self.moved}")
                    else:
                        os.remove(inner.path)
                os.rmdir(entry.path)


def send_job(channel: socket, kind: str, cpu: float, body: bytes, descriptors: Sequence[int] = ()) -> None:
    """Sends work: its kind and its CPU seconds, a body for the process that does it, descriptors for that process."""
    send_fds(channel, [b"j"], descriptors)
    send(channel, json.dumps([kind, cpu]).encode())
    send(channel, body)


def _receive(channel: socket) -> tuple[str, float, bytes, list[int]]:
    mark, descriptors, _, _ = recv_fds(channel, 1, 2)
    if not mark:
        raise EOFError
    kind, cpu = json.loads(receive(channel, judge.MOST_BYTES))
    return kind, cpu, receive(channel, 1 << 31), list(descriptors)


def _work(channel: socket) -> None:
    """A child's life: it waits for its work, and does it."""
    kind, cpu, body, descriptors = _receive(channel)
    random.seed(0)  # a fork seeds it from the clock, and equal programs must behave equally
    seconds = int(cpu) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    match kind:
        case "call":
            source, target, arguments = json.loads(body)
            judge.call_once(source, target, arguments, channel.detach())
        case "main":
            source, text = json.loads(body)
            judge.run_main(source, text, channel.detach())
        case "serve":
            judge.serve_calls(body.decode(), channel)
        case "test":
            ours, program = (socket(fileno=descriptor) for descriptor in descriptors)
            setup, test, entry = json.loads(receive(ours, judge.MOST_BYTES))
            send(ours, json.dumps(judge.run_test(setup, test, entry, judge.Program(program))).encode())


def _ran(child: int) -> float:
    """CPU seconds of a child so far; 0 where it has ended."""
    with suppress(OSError):
        return time.clock_gettime(~child << 3 | 2)  # the kernel's number for the clock of a process
    return 0.0


def _active(child: int, processes: int) -> float:
    """Seconds that the threads of a child have run, or waited for a core."""
    nanoseconds = 0
    with suppress(OSError):
        folder = os.open(f"{child}/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=processes)
        try:
            for thread in os.listdir(folder):
                with open(os.open(f"{thread}/schedstat", os.O_RDONLY, dir_fd=folder)) as file:
                    ran, waited, _ = file.read().split()
                nanoseconds += int(ran) + int(waited)
        finally:
            os.close(folder)
    return nanoseconds / 1e9


def main() -> None:
    """Runs in an interpreter of its own; standard input is the channel, the first argument the settings as JSON."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    channel = socket(fileno=os.dup(0))
    limits = kernel.Limits(**settings["limits"])
    layers = kernel.Layers()
    child = layers.attempt("namespaces", lambda: kernel.own_processes(settings["uid"]))
    if child:
        channel.close()
        # the end of PID 1 ends its whole namespace, and it is not over before that
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
        os.waitpid(child, 0)
        os._exit(0)
    processes = None
    if child == 0:
        processes = layers.attempt("root", lambda: kernel.own_root(limits, settings["readable"]))
        if "root" in layers.on:
            settings["work"] = kernel.WORK
    for module in WARM:
        __import__(module)
    judge.rehearse()
    kernel.settle(layers, limits, settings["uid"], settings["readable"], settings["work"], processes)
    gc.collect()
    gc.freeze()
    gc.disable()
    send(channel, json.dumps({"on": layers.on, "off": layers.off}).encode())
    Server(channel, settings, layers, processes).run()
