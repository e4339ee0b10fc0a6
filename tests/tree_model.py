"""A language model of a few trajectories, and a reward model: posterior and normalizing constant by enumeration.

One token is one step: `0` or `1`, each followed by a blank line, or `2`, which ends the answer. Answers end after one,
two or three steps. The limit of `depth` tokens cuts some of them off. `Choices` makes every random decision.
"""

import math
from collections.abc import Sequence

from infer.core.generator import Completion, Message, Request, Sampling
from infer.core.problem import Problem
from infer.core.search import Search
from infer.core.tree import Finish, Node
from infer.core.verifier import Scores
from infer.testing import toy
from tests.enumeration import Choices

Tokens = tuple[int, ...]

TEXT = ["0\n\n", "1\n\n", "2"]
END = 2


def probabilities(prefix: Sequence[int]) -> list[float]:
    """The model's distribution over the three possible tokens after `prefix`, a completion so far."""
    possible = [(0, END), (1, END), (0, END)][len(prefix)]
    weights = [(0.2 + toy.hashed("token", tuple(prefix), token)) * (token in possible) for token in range(3)]
    return [weight / math.fsum(weights) for weight in weights]


def trajectories(depth: int = 3, prefix: Tokens = (), p: float = 1.0) -> dict[Tokens, float]:
    """All trajectories that start with `prefix`, with their probabilities."""
    if len(prefix) == depth or END in prefix:
        return {prefix: p}
    found: dict[Tokens, float] = {}
    for token, probability in enumerate(probabilities(prefix)):
        if probability:
            found |= trajectories(depth, (*prefix, token), p * probability)
    return found


def score(tokens: Sequence[int]) -> float:
    """The reward of a solution so far."""
    return 0.02 + 0.96 * toy.hashed("step", tuple(tokens))


def posterior(power: float = 1.0, depth: int = 3) -> tuple[dict[Tokens, float], float]:
    """p(y) r(y)^power normalized, and its normalizing constant."""
    weights = {y: p * score(y) ** power for y, p in trajectories(depth).items()}
    total = math.fsum(weights.values())
    return {y: weight / total for y, weight in weights.items()}, total


class TreeGenerator(toy.ToyGenerator):
    def __init__(self, choices: Choices) -> None:
        super().__init__()
        self.choices = choices

    async def encode(self, messages: Sequence[Message]) -> list[int]:
        return [7]

    async def generate(self, request: Request) -> list[Completion]:
        assert not isinstance(request.prompt, str)
        return [self._step(self.choices.pick(probabilities(request.prompt[1:]))) for _ in range(request.n)]

    def _step(self, token: int) -> Completion:
        finish: Finish = "end" if token == END else "step"
        return Completion([token], 1, TEXT[token], finish, None, 1, 0)


class TreeVerifier(toy.ToyVerifier):
    """Scores each step by `score`, except that the last step of each prefix in `zero` scores zero."""

    def __init__(self, zero: Sequence[Tokens] = ()) -> None:
        super().__init__()
        self.zero = zero

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        tokens = tuple(TEXT.index(step) for step in steps)
        prefixes = [tokens[: i + 1] for i in range(known, len(steps))]
        return Scores([0.0 if prefix in self.zero else score(prefix) for prefix in prefixes], [])


async def search(choices: Choices, depth: int = 3, zero: Sequence[Tokens] = (), budget: str | None = None) -> Search:
    sampling = Sampling(max_tokens=depth)
    models = toy.setting(budget, generator=TreeGenerator(choices), verifier=TreeVerifier(zero), sampling=sampling)
    return await toy.search(models)


def tokens(node: Node) -> Tokens:
    return tuple(token for part in node.trajectory for token in part.tokens)
