"""The reader's protocol: token ids and positions in, a probability at each position out, every token counted.

A reward model is read at the positions that it was trained for; a generator, where a verdict stands.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from infer.core.pricing import Call
from infer.core.verifier import Scores
from infer.cost.model import ModelSpec


class Reader(Protocol):
    """A model that gives the probability that the text up to a position is right. All calls share one batch."""

    tokenizer: Any
    max_context: int
    spec: ModelSpec | None

    def most(self, ends: Sequence[int]) -> list[Call]:
        """The requests that `read` would make if nothing were cached."""
        ...

    async def read(self, tokens: list[int], ends: Sequence[int]) -> Scores:
        """Probabilities at `ends`, each the length of a prefix of `tokens`, in rising order: read at its last token."""
        ...

    def describe(self) -> dict[str, Any]: ...

    async def close(self) -> None: ...
