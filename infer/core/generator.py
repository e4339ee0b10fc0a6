"""The generator protocol: prompts in, sampled completions out, every token reported.

The three backends (`vllm`, `transformers`, `openai`) implement `Generator`; strategies never see it, `Search` does.
`infer.testing.GeneratorLaws` checks what is promised here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from infer.core.reader import Reader
from infer.core.tree import Finish, Prompt
from infer.cost.model import ModelSpec
from infer.errors import UserError

Message = dict[str, str]
"""One chat message: `role` and `content`."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 are off.

    They act in vLLM's order, each on what the one before has left: temperature, `min_p`, `top_k`, `top_p`.
    `max_tokens` bounds a whole completion, over all of its steps: `Search` sees to it, and a generator goes by the
    request's own. `stop` strings end a completion, and stay part of it.
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
    successive seeds. Seeds are hashes, from 0 to a little above 2^62. It is enough to draw by their last 32 bits, as
    torch does on a CPU.

    With a `delimiter` a completion stops where its text first contains it, the token that completes it kept whole. Only
    the completion's own text counts, not the prompt's. `deadline` (of `time.monotonic`) cuts what is still running, as
    `max_tokens` would. Where the context has room for fewer than `max_tokens`, that room is the limit.
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
    counts them either way). An end token is any that the tokenizer or the generation config names.

    `text` is what the tokens add to the prompt's text, so that the texts of successive steps add up. It shows no
    special tokens. A character whose bytes are not complete is left to the completion that goes on from here
    (`infer.generate.text.Detokenizer` does all this).

    `finish` is "end" after an end token or a stop string, "step" after the delimiter, "length" after `max_tokens` or
    the deadline. If one token brings several, an end token comes first and the limit last.

    `logprobs` are the model's own, before temperature and truncation, to base e; one for each token, and None if they
    were not asked for.

    `prefill` and `cached` split the prompt's tokens into those computed for this completion and those read from a
    cache. If a prompt is computed once for n completions, the first has all of it as `prefill` and the others as
    `cached`; if it is computed for each, all have it as `prefill`.
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


def room_after(prompt: Sequence[int], max_context: int, model: str) -> int:
    """How many tokens fit after a prompt. Raises UserError for an empty one, and for one that leaves no room."""
    if not 0 < len(prompt) < max_context:
        raise UserError(f"{model}: a prompt of {len(prompt)} tokens; it takes 1 to {max_context - 1}")
    return max_context - len(prompt)


class Generator(Protocol):
    """A language model that continues prompts. All calls share one batch: many are awaited at once.

    A search often asks for one prompt, or for its continuations, in many calls at the same time. So batch across calls,
    and let prompts that begin alike share what is computed, if the engine can.
    """

    max_context: int
    """Prompt and completion together never exceed this many tokens."""

    spec: ModelSpec | None
    """The model's sizes, for the cost model (`infer.cost.config.known_spec`); None where they are not known."""

    async def encode(self, messages: Sequence[Message]) -> Prompt:
        """The prompt of a chat: the model's chat template applied, ready for the assistant's first token.

        A model without a template gets plain text. `infer.generate.chat.encode_chat` does both.
        """
        ...

    async def tokenize(self, text: str) -> Prompt:
        """Token ids of a text continued mid-completion, without special tokens; the text where there are no ids.

        `infer.generate.text.encode_within` does it for tokenizers that put a space before a text.
        """
        ...

    async def generate(self, request: Request) -> list[Completion]:
        """`request.n` completions, in the order of their seeds. A cancelled call frees what it held.

        The event loop must not wait for the model: run it on a thread or in a process, or await `asyncio.sleep(0)`
        between forward passes.

        Raises UserError for a prompt without room (see `room_after`); ServerFailed where a server gave no usable reply:
        that fails the problem, any other error the whole run.
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
        """Free the model or the connection.

        Calls still waiting, and later ones, raise an Exception such as RuntimeError: not CancelledError, which would
        look as if their caller had been cancelled.
        """
        ...
