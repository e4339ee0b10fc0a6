"""Plain data as bytes, so that values cross between processes that do not trust each other.

JSON, with a tag for each type that it lacks. Only types of the standard library whose behaviour a program can't change
come out of `decode`: a number that claims to equal everything arrives as a plain number. An iterator arrives as an
iterator over what it gave; any other object as a `handle`, where the caller has a use for one.
"""

import json
import struct
from collections import deque
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from socket import socket
from typing import Any

MOST_ITEMS = 100_000
"""Taken from an iterator: it may have no end."""
_SMALL = 1 << 62
_JSON = json.JSONEncoder(separators=(",", ":"))


def encode(value: Any, handle: Callable[[Any], str] | None = None) -> bytes:
    """A value as bytes. `handle` gives objects that are no plain data a label; without it they raise TypeError."""

    def plain(value: Any) -> Any:
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, int):
            return int(value) if -_SMALL < value < _SMALL else {"int": hex(value)}
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, tuple | set | frozenset | deque):
            name = next(kind.__name__ for kind in (tuple, set, frozenset, deque) if isinstance(value, kind))
            return {name: [plain(item) for item in value]}
        if isinstance(value, dict):
            return {"dict": [[plain(key), plain(item)] for key, item in value.items()]}
        if isinstance(value, bytes | bytearray):
            return {type(value).__name__: value.hex()}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, range):
            return {"range": [value.start, value.stop, value.step]}
        if isinstance(value, Decimal | Fraction):
            return {type(value).__name__: str(value)}
        if isinstance(value, date | time):
            return {type(value).__name__: value.isoformat()}
        if isinstance(value, timedelta):
            return {"timedelta": [value.days, value.seconds, value.microseconds]}
        if isinstance(value, KeysView | ValuesView | ItemsView):
            return [plain(item) for item in value]
        if isinstance(value, Iterator):
            return {"iterator": [plain(item) for item in islice(value, MOST_ITEMS)]}
        if handle is None:
            raise TypeError(f"a {type(value).__name__} is no plain data")
        return {"handle": handle(value)}

    return _JSON.encode(plain(value)).encode()


def decode(data: bytes, handle: Callable[[str], Any] | None = None) -> Any:
    """The value in `data`; `handle` makes the object that stands for one that stayed. Raises ValueError for others."""

    def value(found: Any) -> Any:
        if isinstance(found, list):
            return [value(item) for item in found]
        if not isinstance(found, dict):
            return found
        ((tag, content),) = found.items()
        match tag:
            case "handle" if handle is not None:
                return handle(str(content))
            case "dict":
                return {value(key): value(item) for key, item in content}
            case "iterator":
                return iter([value(item) for item in content])
            case _:
                return _MAKERS[tag](value(content) if isinstance(content, list) else content)

    try:
        return value(json.loads(data))
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"no plain data: {type(error).__name__}: {error}") from None


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": lambda parts: complex(*parts),
    "range": lambda parts: range(*parts),
    "Decimal": Decimal,
    "Fraction": Fraction,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "datetime": datetime.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
}


def send(channel: socket, data: bytes) -> None:
    """One message: its length, then its bytes."""
    channel.sendall(struct.pack("!I", len(data)) + data)


def receive(channel: socket, most: int) -> bytes:
    """The next message. Raises EOFError where the other end has gone, and ValueError for one of over `most` bytes."""
    (size,) = struct.unpack("!I", _exactly(channel, 4))
    if size > most:
        raise ValueError(f"a message of {size} bytes: the limit is {most}")
    return _exactly(channel, size)


def _exactly(channel: socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
