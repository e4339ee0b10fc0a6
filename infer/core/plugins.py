"""Objects that installed packages offer by name, through entry points. Nothing is imported before it is chosen."""

import functools
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoints, entry_points
from typing import Any, TypeVar

from infer.errors import UserError, in_one_line, nearest

T = TypeVar("T")


def names(group: str) -> list[str]:
    """All names in an entry-point group, in alphabetical order."""
    return sorted(set(_installed(group, tuple(sys.path)).names))


def load(group: str, kind: str, name: str, check: Callable[[Any], T]) -> T:
    """Imports the object of this name, and returns `check(object)`. Error messages call the object a `kind`.

    `check` raises TypeError for an unfit object. Raises UserError: an unknown name, with the nearest ones; one that two
    packages offer; an object that can't be imported, or is unfit.
    """
    found = _installed(group, tuple(sys.path)).select(name=name)
    if not found:
        raise UserError(f"unknown {kind} {name!r}: {nearest(name, names(group))}")
    place, *others = sorted({entry.value for entry in found})
    if others:
        both = " and ".join([place, *others])
        raise UserError(f"{kind} {name!r} is offered by {both}: uninstall one, or name it otherwise")
    try:
        return check(next(iter(found)).load())
    except Exception as error:  # whatever the package's code raises as it is imported
        raise UserError(f"{kind} {name!r} can't be loaded from {place}: {in_one_line(error)}") from error


def of_type(wanted: type[T]) -> Callable[[Any], T]:
    """A check that an object is of a type."""

    def check(found: Any) -> T:
        if not isinstance(found, wanted):
            raise TypeError(f"it is a {type(found).__name__}, not {wanted.__module__}.{wanted.__name__}")
        return found

    return check


@functools.lru_cache
def _installed(group: str, path: tuple[str, ...]) -> EntryPoints:
    """The entry points of a group: read once for each state of the import path, as every package's files are read."""
    return entry_points(group=group)
