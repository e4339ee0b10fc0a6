"""The generator protocol: prompts in, sampled completions out, every token reported.

The three backends (`vllm`, `transformers`, `openai`) implement `Generator`; strategies never see it, `Search` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from infer.core.reader import Reader
from infer.core.tree import Finish, Prompt
from infer.cost.model import ModelSpec

Message = dict[str, str]
"""One chat message: `role` and `content`."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 are off.

    `max_tokens` bounds a whole completion, over all of its steps; `stop` strings end it, and stay part of it.
    """

    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 2048
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """`n` completions of one prompt, at most `max_tokens` each.

    Completion i is drawn with seed `seed + i`, so that n completions of one request are those of n requests with
    successive seeds. With a `delimiter` a completion stops where its text first contains it, the token that
    completes it kept whole. `deadline` (of `time.monotonic`) cuts what is still running, as `max_tokens` would.
    """

    prompt: Prompt
    sampling: Sampling
    max_tokens: int
    n: int = 1
    seed: int = 0
    delimiter: str | None = None
    logprobs: bool = False
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled continuation.

    `tokens` are the ids the model produced, the end token included (empty where a server returns none; `num_tokens`
    counts them either way). `logprobs` are the model's own, before temperature and truncation. `prefill` and `cached`
    split the prompt's tokens into those computed for this completion and those read from the prefix cache.
    """

    tokens: list[int]
    num_tokens: int
    text: str
    finish: Finish
    logprobs: list[float] | None
    prefill: int
    cached: int

    @classmethod
    def nothing(cls, *, logprobs: bool) -> "Completion":
        """The completion of a request whose deadline came before its first token, nothing computed."""
        return cls([], 0, "", "length", [] if logprobs else None, prefill=0, cached=0)


class Generator(Protocol):
    """A language model that continues prompts. All calls share one batch: await many at once."""

    max_context: int
    """Prompt and completion together never exceed this many tokens."""

    spec: ModelSpec | None
    """The model's sizes, for the cost model; None where they are not known."""

    async def encode(self, messages: Sequence[Message]) -> Prompt:
        """The prompt of a chat: the model's chat template applied, ready for the assistant's first token."""
        ...

    async def tokenize(self, text: str) -> Prompt:
        """Token ids of a text continued mid-completion, without special tokens; the text where there are no ids."""
        ...

    async def generate(self, request: Request) -> list[Completion]:
        """`request.n` completions, in the order of their seeds. A cancelled call frees what it held.

        Raises ServerFailed where a server gave no usable reply: that fails the problem, any other error the whole run.
        """
        ...

    def reader(self, pair: tuple[str, str]) -> Reader:
        """Reads this model: the probability of the first token of `pair`, over that of the second, as the next one.

        The reader runs on the generator's own model and is closed with it. Raises UserError for a text that is not one
        token, and where this generator can't be read, with the reason.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """The backend, versions, dtype, attention kernel and device that really ran, for the run's record."""
        ...

    async def close(self) -> None:
        """Free the model or the connection. Calls still waiting fail with an error."""
        ...
