"""Strategies, one file each: async functions of a `Search` and options that return a `Solution`.

They are found by name through the entry-point group `infer.strategies`, so another package can add one.
"""

from typing import Any

from infer.core import plugins
from infer.core.strategy import Strategy
from infer.errors import UserError, nearest

GROUP = "infer.strategies"


def names() -> list[str]:
    """All strategies that are installed."""
    return plugins.names(GROUP)


def find(name: str) -> Strategy:
    """The strategy of this name. Raises UserError: unknown, with the nearest names; offered twice; not to be loaded."""
    if name not in names():
        raise UserError(f"unknown strategy {name!r}: {nearest(name, names())} (infer list strategies)")

    def check(run: Any) -> Strategy:
        strategy = Strategy(name, run)
        _ = strategy.options  # raises TypeError for a function of another kind
        return strategy

    return plugins.load(GROUP, "strategy", name, check)
