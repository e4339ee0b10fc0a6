"""A verifier that costs nothing, for benchmarks of everything else."""

import hashlib
from collections.abc import Sequence
from typing import Any

from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.tree import Aggregation
from infer.core.verifier import Scores
from infer.cost.model import ModelSpec


class FreeVerifier:
    """Scores a text by its hash, without a model and in almost no time."""

    aggregation: Aggregation = "last"
    stepwise = True
    spec: ModelSpec | None = None

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        texts = ["".join(steps[: i + 1]) for i in range(known, len(steps))]
        return Scores([hashlib.blake2b(text.encode()).digest()[0] / 256 for text in texts], [])

    async def most(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> list[Call]:
        return []

    def describe(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None: ...
