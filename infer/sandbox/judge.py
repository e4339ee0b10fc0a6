"""The two sides of a test, each in a process of its own: the program's, which nobody believes, and the test's.

The test's process never runs a line of the program. It calls the program's functions by messages and gets plain data
back (`wire.py`), so a program can patch, catch and print as it likes: it can't reach the comparison. A list, dict or
set that a call changes in place is changed in the test's process too.
"""

import builtins
import os
import sys
import types
from _blake2 import blake2b  # as hashlib has it: that loads OpenSSL, and each fork would copy its pages
from collections.abc import MutableMapping, MutableSequence, MutableSet
from socket import socket, socketpair
from typing import Any, NoReturn

from .wire import decode, encode, receive, send

MOST_BYTES = 16 << 20
"""Of one message of a program."""


def rehearse() -> None:
    """Does once, in the server, what every child does: the interpreter makes its caches, and children share them.

    The first call of `compile` alone takes 2 ms. A child copies each page of memory that it changes.
    """
    for _ in range(20):
        arguments = encode(([[3, 1], "a", 0.5], {}))
        (numbers, *_), _ = decode(arguments)
        encode((load("def f(x):\n    return sorted(x)\n")["f"](numbers), [None]), str)
        ours, theirs = socketpair()
        with ours, theirs:
            send(theirs, b"=" + encode({"f": len}, lambda _: "f"))
            run_test("import math", "assert True", None, Program(ours))
    del sys.modules["program"]


# ---- the program's side


def load(source: str, name: str = "program") -> dict[str, Any]:
    """Runs a program as a module of this name; its namespace."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(source, "<program>", "exec"), module.__dict__)
    return module.__dict__


def call_once(source: str, target: str, arguments: str, result: int) -> NoReturn:
    """Runs a program, makes one call of its `target`, and writes the outcome to the descriptor `result`."""
    try:
        args, kwargs = decode(arguments.encode())
        function = eval(target, load(source))
        outcome = b"=" + encode(function(*args, **kwargs))
    except BaseException as error:
        outcome = b"!" + _described(error)
    _write(result, outcome)
    os._exit(0)


def run_main(source: str, text: str, output: int) -> NoReturn:
    """Runs a program as a script: `text` is its standard input, and its standard output goes to `output`."""
    file = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    _write(file, text.encode("utf-8", "surrogateescape"))
    os.lseek(file, 0, os.SEEK_SET)
    for descriptor, standard in ((file, 0), (output, 1)):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    status = 1
    try:
        load(source, "__main__")
        status = 0
    except SystemExit as ending:
        status = 0 if ending.code in (None, 0) else 1
    finally:
        sys.stdout.flush()
        os._exit(status)


def serve_calls(source: str, channel: socket) -> NoReturn:
    """Runs a program and sends its public names. Then it answers calls, and readings of attributes, to the end."""
    public: dict[str, Any] = {}
    others: list[Any] = []

    def handle(value: Any) -> str:
        """A public object goes by its name, so that equal programs send equal bytes, whatever else they define."""
        name = next((name for name, known in public.items() if known is value), None)
        if name is not None:
            return name
        others.append(value)
        return f"#{len(others) - 1}"

    def found(label: str) -> Any:
        return others[int(label[1:])] if label.startswith("#") else public[label]

    try:
        names = load(source).items()
        public |= {name: value for name, value in names if not (name.startswith("__") or _is_module(value))}
        send(channel, b"=" + encode(public, handle))
    except BaseException as error:
        send(channel, b"!" + _described(error))
        os._exit(0)
    while True:
        try:
            label, name, args, kwargs = decode(receive(channel, MOST_BYTES), found)
        except EOFError:
            os._exit(0)
        try:
            before = [encode(argument, handle) if _changes(argument) else b"" for argument in args]
            target = getattr(found(label), name) if name else found(label)
            reply = target if kwargs is None else target(*args, **kwargs)
            after = [encode(argument, handle) if was else b"" for argument, was in zip(args, before, strict=True)]
            changed = [decode(now) if now != was else None for was, now in zip(before, after, strict=True)]
            send(channel, b"=" + encode((reply, changed), handle))
        except BaseException as error:
            send(channel, b"!" + _described(error))


def _is_module(value: Any) -> bool:
    return isinstance(value, types.ModuleType)


def _changes(value: Any) -> bool:
    return isinstance(value, MutableSequence | MutableMapping | MutableSet)


def _described(error: BaseException) -> bytes:
    """An exception as its type's name and its message."""
    try:
        message = str(error)[:500]
    except BaseException:
        message = ""
    return encode((type(error).__name__, message))


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


# ---- the test's side


class ProgramError(Exception):
    """Raised in the test's process for an exception of the program that is of no built-in type, or for its end."""


class Remote:
    """An object of the program's process: a function, a class, an instance. It equals itself alone."""

    def __init__(self, program: "Program", label: str) -> None:
        self.__dict__ |= {"_program": program, "_label": label}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._program.ask(self._label, "", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return self._program.ask(self._label, name, (), None)


for _name in ("len", "getitem", "setitem", "contains", "iter", "str", "repr", "enter", "exit"):

    def _method(self: Remote, *args: Any, name: str = f"__{_name}__") -> Any:
        return self._program.ask(self._label, name, args, {})

    setattr(Remote, f"__{_name}__", _method)


class Program:
    """The program as its test sees it, at the other end of a channel."""

    def __init__(self, channel: socket) -> None:
        self.channel = channel
        self.calls = 0
        self.seen = blake2b(digest_size=16)
        """Of all calls and their answers, and of an error as the program is loaded; not of the names it defines."""
        self.raised: BaseException | None = None
        """The exception that the program raised last."""

    def names(self) -> dict[str, Any]:
        """The program's public names. Raises its exception where loading it ends with one."""
        names = self._reply()
        if not isinstance(names, dict):
            self._fail(ProgramError("its answer is no plain data"))
        return names

    def function(self, names: dict[str, Any], name: str) -> Any:
        """One that the program must have."""
        if not isinstance(found := names.get(name), Remote):
            self._fail(NameError(f"function '{name}' is not defined"))
        return found

    def ask(self, label: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """A call, or without `kwargs` the reading of an attribute, of the object with this label."""
        self.calls += 1
        request = encode((label, name, args, kwargs), _label)
        try:
            send(self.channel, request)
        except OSError:
            self._fail(ProgramError("the program ended"))
        self.seen.update(request)
        reply = self._reply()
        try:
            value, changed = reply
            for argument, now in zip(args, changed, strict=True):
                if now is not None:
                    _become(argument, now)
        except (TypeError, ValueError) as error:
            self._fail(ProgramError(f"its answer is no plain data: {error}"))
        return value

    def _reply(self) -> Any:
        try:
            reply = receive(self.channel, MOST_BYTES)
        except (OSError, EOFError, ValueError):
            self._fail(ProgramError("the program ended"))
        if self.calls or reply[:1] == b"!":
            self.seen.update(reply)
        try:
            value = decode(reply[1:], lambda label: Remote(self, label))
        except ValueError as error:
            self._fail(ProgramError(str(error)))
        if reply[:1] == b"=":
            return value
        kind, message = value if isinstance(value, tuple) and len(value) == 2 else ("Exception", value)
        known = getattr(builtins, str(kind), None)
        if not (isinstance(known, type) and issubclass(known, Exception)):
            self._fail(ProgramError(f"{kind}: {message}"))
        try:
            raised = known(message)
        except TypeError:  # UnicodeDecodeError and its like take more
            raised = ProgramError(f"{kind}: {message}")
        self._fail(raised)

    def _fail(self, error: BaseException) -> NoReturn:
        self.raised = error
        raise error


def run_test(setup: str, test: str, entry: str | None, program: Program) -> dict[str, Any]:
    """Runs a test against a program: how it ended, in words of `infer.sandbox.pool.Outcome`, and why.

    `setup` defines names first. Those of the program come next, but take no name of a builtin or of `setup`, or a
    program could define the `abs` that compares its values; its function `entry` may, and is `candidate` too.
    """
    namespace: dict[str, Any] = {"__name__": "test"}
    try:
        code = compile(test, "<test>", "exec")
        exec(compile(setup, "<setup>", "exec"), namespace)
    except BaseException as error:
        return {"outcome": "malformed", "why": _one_line(error), "seen": None}
    outcome, why = "passed", None
    try:
        names = program.names()
        taken = (namespace.keys() | vars(builtins).keys()) - {entry}
        namespace |= {name: value for name, value in names.items() if name not in taken}
        if entry is not None:
            namespace["candidate"] = program.function(names, entry)
        exec(code, namespace)
    except BaseException as error:
        why = _one_line(error)
        if error is program.raised:
            outcome = "error"
        elif isinstance(error, AssertionError):
            outcome = "wrong"
        else:  # a name that the program lacks, or a value of a type that the test did not expect
            outcome = "error" if program.calls or isinstance(error, NameError) else "malformed"
    return {"outcome": outcome, "why": why, "seen": program.seen.hexdigest()}


def _label(remote: Any) -> str:
    if not isinstance(remote, Remote):
        raise TypeError(f"a {type(remote).__name__} can't be handed to a program")
    label: str = remote.__dict__["_label"]
    return label


def _become(argument: Any, now: Any) -> None:
    """Changes a list, dict or set in place."""
    if isinstance(argument, MutableSequence):
        argument[:] = now
    else:
        argument.clear()
        argument.update(now)


def _one_line(error: BaseException) -> str:
    kind, message = decode(_described(error))
    return f"{kind}: {message}".split("\n")[0].removesuffix(": ")[:300]
