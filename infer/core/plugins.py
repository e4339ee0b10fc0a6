"""Objects that installed packages offer by name, through entry points. Nothing is imported before it is chosen."""

from importlib.metadata import entry_points
from typing import Any

from infer.errors import UserError, nearest


def names(group: str) -> list[str]:
    """All names in an entry-point group, in alphabetical order."""
    return sorted(set(entry_points(group=group).names))


def load(group: str, kind: str, name: str) -> Any:
    """The object of this name. `kind` is the word for it in messages.

    Raises UserError: unknown, with the nearest names; offered by two packages; or not importable.
    """
    found = entry_points(group=group, name=name)
    if not found:
        raise UserError(f"unknown {kind} {name!r}: {nearest(name, names(group))}")
    offered = sorted({entry.value for entry in found})
    if len(offered) > 1:
        raise UserError(f"{kind} {name!r} is offered by {' and '.join(offered)}: uninstall one, or name it otherwise")
    try:
        return next(iter(found)).load()
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{kind} {name!r} can't be loaded from {offered[0]}: {type(error).__name__}: {error}"
        ) from error
