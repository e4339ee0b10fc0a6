"""Self-evaluation: the generator is asked whether what it wrote is right (P(True); Kadavath et al., 2207.05221).

The score is the probability of `Yes` over that of `No` as its first word. It runs on the generator's own weights:
nothing more is loaded.
"""

from collections.abc import Sequence
from typing import Any

from infer.core.generator import Generator
from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.tree import Aggregation
from infer.core.verifier import Scores
from infer.errors import TooLong
from infer.verifiers.chat import Chat

PROMPT = """Problem:
{question}

Proposed solution{so_far}:
{solution}

Is the proposed solution{so_far} correct? Answer with one word, Yes or No."""


class SelfEvaluation:
    aggregation: Aggregation = "last"
    stepwise = False

    def __init__(self, generator: Generator) -> None:
        self._reader = generator.reader(("Yes", "No"))
        self._chat = Chat(self._reader.tokenizer)
        self.spec = generator.spec

    async def most(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> list[Call]:
        return self._reader.most([len(self._prompt(problem.prompt, steps, finished))])

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        tokens = self._prompt(problem.prompt, steps, finished)
        if len(tokens) > self._reader.max_context:
            raise TooLong(
                f"a solution of {len(tokens)} tokens, with the question about it, is longer than the model's context "
                f"of {self._reader.max_context}"
            )
        return await self._reader.read(tokens, [len(tokens)])

    def _prompt(self, question: str, steps: Sequence[str], finished: bool) -> list[int]:
        filled = {"question": question, "solution": "".join(steps).strip(), "so_far": "" if finished else " so far"}
        return self._chat.encode(self._chat.text([{"role": "user", "content": PROMPT.format(**filled)}]))

    def describe(self) -> dict[str, Any]:
        return {"family": "self", "aggregation": self.aggregation, **self._reader.describe()}

    async def close(self) -> None:
        """The generator is closed by who opened it."""
