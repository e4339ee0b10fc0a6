"""The replies of servers with OpenAI's API: the fields that are used. Anything of another form is no reply."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from infer.generate.http import FailedTry, Reply

TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Served(_Part):
    """A model that a server has."""

    id: str
    root: str | None = None
    """The folder or hub id that it was loaded from."""
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    """Its context in tokens: vLLM's and SGLang's name for it."""
    context_length: Annotated[int, Field(ge=1)] | None = None
    """The same: OpenRouter's."""


class ServedModels(Reply):
    data: list[Served] | None
    """None: there is none (Ollama)."""


class Version(Reply):
    version: str


class Tokenized(Reply):
    tokens: list[TokenId]


class Detokenized(Reply):
    prompt: str


class CachedTokens(_Part):
    cached_tokens: int | None = None


class Usage(_Part):
    """A server's own counts, which are not believed blindly either."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: CachedTokens | None = None

    @property
    def cached(self) -> int:
        """The prompt's tokens that were read from a cache; 0 where it is not reported."""
        details = self.prompt_tokens_details
        return (details.cached_tokens if details is not None else None) or 0


class TokenLogprob(_Part):
    logprob: float


class Logprobs(_Part):
    """Log-probabilities of the sampled tokens: one list, or an object for each (llama.cpp, and all chats)."""

    token_logprobs: list[float] | None = None
    content: list[TokenLogprob] | None = None

    @property
    def values(self) -> list[float]:
        return (self.token_logprobs or []) + [token.logprob for token in self.content or []]


class Said(_Part):
    content: str | None = None


class Choice(_Part):
    """A completion, or the next piece of one."""

    text: str | None = None
    message: Said | None = None
    delta: Said | None = None
    token_ids: list[TokenId] | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    """vLLM's: the stop string that was met, or the id of an end token."""
    matched_stop: Any = None
    """SGLang's name for it."""

    @property
    def written(self) -> str:
        """The text, whichever endpoint it comes from."""
        said = self.message or self.delta
        return (said.content if said is not None else self.text) or ""


class Piece(Reply):
    """One completion (never more are asked for at once), or an event of its stream, which may hold none."""

    choices: list[Choice] = Field(max_length=1)
    usage: Usage | None = None


@dataclass(slots=True)
class Received:
    """The part of one completion that has arrived: the whole of it, or a stream so far."""

    most: int
    """Tokens that were asked for."""
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    events: int = 0
    pieces: int = 0
    """Events with text in them."""
    finish_reason: str | None = None
    tells_stop: bool = False
    stop: str | None = None
    """The stop string that was met, where the server reports it."""
    usage: Usage | None = None
    cut: bool = False
    """The stream was not read to its end."""

    def take(self, piece: Piece) -> None:
        for choice in piece.choices:
            self.events += 1
            self.text += choice.written
            self.tokens += choice.token_ids or []
            self.logprobs += choice.logprobs.values if choice.logprobs is not None else []
            self.pieces += bool(choice.written)
            self.finish_reason = choice.finish_reason or self.finish_reason
            for name in ("stop_reason", "matched_stop"):  # vLLM's and SGLang's; a token id is an end token
                if name in choice.model_fields_set:
                    self.tells_stop = True
                    met = getattr(choice, name)
                    self.stop = met if isinstance(met, str) else None
        self.usage = piece.usage or self.usage
        if len(self.tokens) > self.most:
            raise FailedTry(f"a completion of more than the {self.most} tokens that were asked for")

    def cut_after(self, stop: str) -> None:
        """Ends it with a stop string that the server was not told of."""
        self.text = self.text[: self.text.index(stop) + len(stop)]
        self.finish_reason, self.stop, self.cut = "stop", stop, True

    def check(self, *, exact: bool) -> None:
        """Raises FailedTry for what is no completion, though each piece of it has the right form."""
        if not self.events:
            raise FailedTry("a reply without a completion")
        if self.finish_reason in ("abort", "error"):  # vLLM's and OpenRouter's
            raise FailedTry("the server broke off")
        if exact and not self.tokens:
            raise FailedTry("a completion without its token ids")
        if exact and self.logprobs and len(self.logprobs) != len(self.tokens):
            raise FailedTry(f"{len(self.logprobs)} log-probabilities of {len(self.tokens)} tokens")


class TopLogprobs(_Part):
    top_logprobs: list[dict[str, float]] = Field(min_length=1)


class JudgedChoice(_Part):
    logprobs: TopLogprobs


class Judged(Reply):
    """One token, with the log-probabilities of those that were asked for."""

    choices: list[JudgedChoice] = Field(min_length=1, max_length=1)
    usage: Usage | None = None


class Classified(Reply):
    """vLLM's `/classify`: the logits of each prompt."""

    class Item(_Part):
        index: int
        probs: list[float] = Field(min_length=1, max_length=2)

    data: list[Item]


class Labelled(Reply):
    """vLLM's `/pooling`: the logits of each token, or of each step tag."""

    class Item(_Part):
        data: list[Annotated[list[float], Field(min_length=1, max_length=2)]]

    data: list[Item] = Field(min_length=1, max_length=1)


class Anything(Reply):
    """Any object at all: only its status counts."""
