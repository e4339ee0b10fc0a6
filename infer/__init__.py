"""infer: a research engine for inference-time compute.

How a language model's answers get better when more is spent at decoding time, and what that truly costs. Start with
`infer solve --help`, or from Python:

    import infer

    solution = infer.solve("23+54=?", strategy="astar", budget="1k")

Importing this package loads none of torch, vLLM and transformers.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infer.core.problem import Problem
    from infer.core.solution import Solution
    from infer.runs.door import solve, solve_async

__all__ = ["Problem", "Solution", "__version__", "solve", "solve_async"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Loads the public names when they are first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from infer.runs import door

    return getattr(door, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
