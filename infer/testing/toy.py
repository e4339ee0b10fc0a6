"""A language model and a reward model small enough to enumerate: pure functions of their input that count their work.

The model's tokens are ten digits, `\\n\\n` (id 10) and the end token (id 11); its distribution after a prefix comes
from a hash of the prefix. The reward of a solution so far is a hash of its text. The toys count their own work, apart
from the ledger under test.
"""

import asyncio
import functools
import hashlib
import math
import random
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from infer.core.generator import Completion, Message, Request, Sampling, room_after
from infer.core.grading import Verdict
from infer.core.ledger import Budget
from infer.core.options import Options
from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.reader import Reader
from infer.core.search import Search, Setting
from infer.core.solution import Solution
from infer.core.solve import solve_one
from infer.core.strategy import Strategy
from infer.core.tree import Aggregation, Finish
from infer.core.verifier import Scores
from infer.cost.config import read_spec
from infer.cost.model import ModelSpec
from infer.errors import UserError

DELIMITER, END = 10, 11
SPEC = read_spec(
    {
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 12,
    }
)
TEXT = [*map(str, range(10)), "\n\n", ""]


def hashed(*key: object) -> float:
    """A number in [0, 1) that depends on nothing but the key."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=6).digest()) / 2**48


class ToyGenerator:
    """Implements `Generator`. Calls take a random number of turns, so they end in another order than they began.

    It can't be read: it has no words.
    """

    def __init__(self, max_context: int = 200, seed: int = 0) -> None:
        self.max_context = max_context
        self.spec: ModelSpec | None = SPEC
        self.generated = self.prompt_tokens = self.calls = self.in_flight = 0
        self.log: list[Call] = []
        self._turns = random.Random(seed)
        self._closed = False

    async def encode(self, messages: Sequence[Message]) -> list[int]:
        return [int(character) for message in messages for character in message["content"] if character.isdigit()]

    async def tokenize(self, text: str) -> list[int]:
        return [TEXT.index(piece) for piece in re.findall(r"\n\n|\d", text)]

    async def generate(self, request: Request) -> list[Completion]:
        self.calls += 1
        self.in_flight += 1
        try:
            for _ in range(self._turns.randrange(8)):
                await asyncio.sleep(0)
            if self._closed:
                raise RuntimeError("the toy is closed")
        finally:
            self.in_flight -= 1
        assert not isinstance(request.prompt, str)
        return [self._complete(request, request.prompt, request.seed + i) for i in range(request.n)]

    def _complete(self, request: Request, prompt: list[int], seed: int) -> Completion:
        limit = min(request.max_tokens, room_after(prompt, self.max_context, "the toy"))
        rng, tokens, finish = random.Random(seed), list[int](), "length"
        if request.deadline is not None and time.monotonic() >= request.deadline:
            return Completion([], 0, "", "length", [] if request.logprobs else None, 0, 0)
        stops = [*request.sampling.stop, *([request.delimiter] if request.delimiter else [])]
        longest = max(map(len, stops), default=0)
        logprobs = list[float]()
        while len(tokens) < limit:
            own = probabilities([*prompt, *tokens])
            weights = truncated(heated(own, request.sampling.temperature), request.sampling)
            greedy = request.sampling.temperature == 0
            tokens.append(weights.index(max(weights)) if greedy else rng.choices(range(12), weights)[0])
            logprobs.append(math.log(own[tokens[-1]]))
            if tokens[-1] == END:
                finish = "end"
                break
            met = next((stop for stop in stops if stop in decode(tokens[-longest:])), None)
            if met is not None:
                finish = "step" if met == request.delimiter else "end"
                break
        self.generated += len(tokens)
        self.prompt_tokens += len(prompt)
        ended: Finish = finish  # type: ignore[assignment]
        cached = len(prompt) // 2
        self.log.append(Call(SPEC, len(prompt) - cached, cached, len(tokens)))
        told = logprobs if request.logprobs else None
        return Completion(tokens, len(tokens), decode(tokens), ended, told, len(prompt) - cached, cached)

    def reader(self, pair: tuple[str, str]) -> Reader:
        raise UserError("a toy has no words")

    def describe(self) -> dict[str, Any]:
        return {"backend": "toy"}

    async def close(self) -> None:
        self._closed = True


class ToyVerifier:
    """Implements `Verifier`."""

    stepwise = True

    def __init__(self, aggregation: Aggregation = "last") -> None:
        self.aggregation = aggregation
        self.spec: ModelSpec | None = SPEC
        self.passes = 0
        self.log: list[Call] = []

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        await asyncio.sleep(0)
        assert all(step.strip() for step in steps), "an empty step was scored"
        self.passes += len(steps) - known
        values = [reward("".join(steps[: i + 1])) for i in range(known, len(steps))]
        most = await self.most(problem, steps, known, finished)
        calls = [Call(SPEC, call.prefill - call.prefill // 2, call.prefill // 2, 0) for call in most]
        self.log += calls
        return Scores(values, calls)

    async def most(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> list[Call]:
        ends = [sum(map(len, steps[: i + 1])) for i in range(known, len(steps))]
        return [Call(SPEC, end, 0, 0) for end in ends]

    def describe(self) -> dict[str, Any]:
        return {"backend": "toy"}

    async def close(self) -> None: ...


def probabilities(prefix: Sequence[int]) -> list[float]:
    """The model's distribution over the 12 tokens after a prefix. It never ends or steps before a digit."""
    return list(_probabilities(tuple(prefix)))


@functools.lru_cache(1 << 14)  # the tests of a process ask for the same prefixes again and again
def _probabilities(prefix: tuple[int, ...]) -> list[float]:
    weights = [hashed("token", prefix, token) ** 4 for token in range(12)]
    weights[DELIMITER] += 0.5
    weights[END] += 0.3
    if not prefix or prefix[-1] == DELIMITER:
        weights[DELIMITER] = weights[END] = 0.0
    return [weight / sum(weights) for weight in weights]


def heated(weights: list[float], temperature: float) -> list[float]:
    """The distribution at a temperature; unchanged at 1, and at 0, where the greatest is taken."""
    if temperature in (0, 1):
        return weights
    powers = [weight ** (1 / temperature) for weight in weights]
    return [power / sum(powers) for power in powers]


def truncated(weights: list[float], sampling: Sampling) -> list[float]:
    """The weights of the tokens that `min_p`, `top_k` and `top_p` leave, and 0 for the others."""
    if not sampling.min_p and not sampling.top_k and sampling.top_p == 1:
        return weights
    least = sampling.min_p * max(weights)
    likely = sorted((token for token in range(12) if weights[token] >= least), key=lambda token: -weights[token])
    likely = likely[: sampling.top_k or None]
    nucleus = sampling.top_p * math.fsum(weights[token] for token in likely)
    kept, mass = [0.0] * 12, 0.0
    for token in likely:
        if mass >= nucleus:
            break
        kept[token] = weights[token]
        mass += weights[token]
    return kept


def reward(text: str) -> float:
    return hashed("reward", text.strip())


def decode(tokens: Sequence[int]) -> str:
    return "".join(TEXT[token] for token in tokens)


def extract(text: str) -> str | None:
    """The last step's first digit."""
    return text.split("\n\n")[-1][:1] or None


class ToyGrader:
    """Implements `Grader`: answers are equal if their texts are."""

    def __init__(self, extract: Callable[[str], str | None] = extract) -> None:
        self.extract = extract

    async def grade(self, problem: Problem, answer: str) -> Verdict:
        return Verdict(answer == problem.answer)

    async def group(self, problem: Problem, answers: Sequence[str | None]) -> list[int]:
        return [-1 if answer is None else answers.index(answer) for answer in answers]

    def describe(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None: ...


def setting(budget: str | None = None, seed: int = 0, **changes: Any) -> Setting:
    """A setting over fresh toys."""
    values: dict[str, Any] = {
        "generator": ToyGenerator(seed=seed),
        "verifier": ToyVerifier(),
        "grader": ToyGrader(),
        "sampling": Sampling(temperature=1.0, max_tokens=100),
        "budget": Budget.parse(budget) if budget else None,
        "seed": 0,
        "step_tokens": 20,
    }
    return Setting(**{**values, **changes})


async def search(setting: Setting, digits: str = "7", options: Options | None = None) -> Search:
    """A search of the problem whose prompt is these digits."""
    return await Search.open(setting, Problem(f"p{digits}", digits), [{"role": "user", "content": digits}], options)


async def solve(setting: Setting, strategy: Strategy, options: Sequence[str] = (), digits: str = "7") -> Solution:
    """Runs a strategy with these `key=value` options on the problem whose prompt is these digits."""
    problem = Problem(f"p{digits}", digits, answer="3")
    messages = [{"role": "user", "content": digits}]
    return await solve_one(problem, messages, setting, strategy, strategy.configure(options))
