"""Strategies, one file each: async functions of a `Search` and options that return a `Solution`.

They are found by name through the entry-point group `infer.strategies`, so another package can add one.
"""

from importlib.metadata import entry_points

from infer.core.strategy import Strategy
from infer.errors import UserError, nearest

GROUP = "infer.strategies"


def names() -> list[str]:
    """All strategies that are installed."""
    return sorted(set(entry_points(group=GROUP).names))


def find(name: str) -> Strategy:
    """The strategy of this name. Raises UserError: unknown, with the nearest names; offered twice; not to be loaded."""
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise UserError(f"unknown strategy {name!r}: {nearest(name, names())} (infer list strategies)")
    offered = sorted({entry.value for entry in found})
    if len(offered) > 1:
        raise UserError(f"strategy {name!r} is offered by {' and '.join(offered)}: uninstall one, or name it otherwise")
    try:
        strategy = Strategy(name, next(iter(found)).load())
        _ = strategy.options
    except (ImportError, AttributeError, TypeError, LookupError, NameError) as error:
        raise UserError(
            f"strategy {name!r} can't be loaded from {offered[0]}: {type(error).__name__}: {error}"
        ) from error
    return strategy
