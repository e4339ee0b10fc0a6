"""Strategies, one file each: async functions of a `Search` and options that return a `Solution`.

They are found by name through the entry-point group `infer.strategies`, so another package can add one.
"""

from importlib.metadata import entry_points

from infer.errors import UserError, nearest
from infer.strategies.base import Strategy

GROUP = "infer.strategies"


def names() -> list[str]:
    """All strategies that are installed."""
    return sorted(entry_points(group=GROUP).names)


def find(name: str) -> Strategy:
    """The strategy of this name. Raises UserError with the nearest names for an unknown one."""
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise UserError(f"unknown strategy {name!r}: {nearest(name, names())} (infer list strategies)")
    return Strategy(name, next(iter(found)).load())
