"""Readers over HTTP: a vLLM server is asked with token ids.

A classification head is served by `vllm serve MODEL --runner pooling`. Where the server classifies (`POST /classify`),
each position is a prompt of its own and the server's prefix cache does its work. Qwen2.5-Math-PRM, as vLLM knows it,
only labels all step tags at once (`POST /pooling`), so each call computes the whole solution. Neither reply reports
what was cached: all prompt tokens count as computed, an upper bound. A model that answers with a token is served as any
language model is (`POST /v1/completions`), by a vLLM that takes `logprob_token_ids`. It reports what was cached if it
was started with `--enable-prompt-tokens-details`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from infer.core.pricing import Call
from infer.core.tasks import gather_or_cancel
from infer.core.verifier import Scores
from infer.cost.model import ModelSpec
from infer.errors import UserError
from infer.generate.address import Address
from infer.generate.http import LOST, TIMEOUT, FailedTry, Http, R, Refused
from infer.generate.readers import log_odds, sigmoid, token_id
from infer.generate.replies import Anything, Classified, Judged, Labelled, Served, ServedModels


async def served_models(http: Http, base_url: str) -> dict[str, Served]:
    """The models that a server has, by id. Raises UserError."""
    fix = "start a server (`vllm serve MODEL`) or correct the URL, which usually ends in /v1"
    try:
        models = await http.get(f"{base_url}/models", ServedModels)
    except LOST as error:
        # not `from` the cause, which quotes the whole address
        raise UserError(f"no server answers at {base_url} ({http.reason(error)}): {fix}") from None
    except (Refused, FailedTry) as error:
        if isinstance(error, Refused) and error.status in (401, 403):
            raise
        raise UserError(f"{base_url} lists no models ({error}): {fix}") from error
    return {model.id: model for model in models.data or []}


class Connection:
    """A server of one model, known to answer."""

    def __init__(
        self, http: Http, root: str, model: str, source: str, max_context: int, spec: ModelSpec | None = None
    ) -> None:
        self._http = http
        self._root = root
        self._model = model
        self.source = source
        """The folder or hub id that the server loaded."""
        self.max_context = max_context
        self.spec = spec
        """Set by whoever reads the model's config: a server does not report it."""

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        retries: int | None = None,
        backoff: float | None = None,
    ) -> "Connection":
        """`url` is such as `http://127.0.0.1:8000`, with or without `/v1`. Raises UserError."""
        address = Address.parse(url)
        root = address.url.removesuffix("/v1")
        http = Http(address, api_key, concurrency=64, timeout=timeout, retries=retries, backoff=backoff)
        try:
            models = await served_models(http, f"{root}/v1")
            if len(models) != 1:
                raise UserError(f"{root} serves {len(models)} models: a reward model needs a server of its own")
        except BaseException:
            await http.close()
            raise
        ((model, told),) = models.items()
        return cls(http, root, model, told.root or model, told.max_model_len or 4096)

    async def post(self, path: str, schema: type[R], check: Callable[[R], None] = lambda reply: None, **body: Any) -> R:
        """See `Http.post`."""
        return await self._http.post(f"{self._root}/{path}", {"model": self._model, **body}, schema, check=check)

    def describe(self) -> dict[str, Any]:
        return {"backend": "server", "url": self._root, "model": self._model, "source": self.source}

    async def close(self) -> None:
        await self._http.close()


class ServedHead:
    """A `Reader` of a classification head. Made by `probe`."""

    def __init__(self, server: Connection, tokenizer: Any, classifies: bool) -> None:
        self.tokenizer = tokenizer
        self.max_context = server.max_context
        self.spec = server.spec
        self._server = server
        self._classifies = classifies

    @classmethod
    async def probe(cls, server: Connection, tokenizer: Any) -> "ServedHead":
        """Finds out how the server is asked. Raises UserError where it serves no such model."""
        try:
            await server.post("classify", Anything, input=[0])
            return cls(server, tokenizer, classifies=True)
        except Refused:
            try:
                await server.post("pooling", Anything, input=[0], task="token_classify")
                return cls(server, tokenizer, classifies=False)
            except Refused as error:
                raise UserError(
                    f"no reward model is served ({error}): start the server with --runner pooling"
                ) from error

    def most(self, ends: Sequence[int]) -> list[Call]:
        return [Call(self.spec, end, 0, 0) for end in (ends if self._classifies else ends[-1:])]

    async def read(self, tokens: list[int], ends: Sequence[int]) -> Scores:
        if self._classifies:
            prompts = [tokens[:end] for end in ends]

            def one_of_each(reply: Classified) -> None:
                if sorted(item.index for item in reply.data) != list(range(len(prompts))):
                    raise FailedTry(f"{len(reply.data)} scores of {len(prompts)} prompts")

            reply = await self._server.post("classify", Classified, one_of_each, input=prompts, use_activation=False)
            logits = [item.probs for item in sorted(reply.data, key=lambda item: item.index)]
        else:
            whole = tokens[: ends[-1]]
            labelled = await self._server.post(
                "pooling", Labelled, input=whole, task="token_classify", use_activation=False
            )
            rows = labelled.data[0].data
            # one for each token, or for each step tag: vLLM knows Qwen's
            told = [end for end in range(1, len(whole) + 1) if len(rows) == len(whole) or whole[end - 1] == whole[-1]]
            if len(rows) != len(told):
                raise UserError(f"the server labels {len(rows)} tokens of a solution: its step tag is another model's")
            at = dict(zip(told, rows, strict=True))
            logits = [at[end] for end in ends]
        values = [sigmoid(log_odds(position)) for position in logits]
        return Scores(values, self.most(ends))

    def describe(self) -> dict[str, Any]:
        return self._server.describe()

    async def close(self) -> None:
        await self._server.close()


class ServedTokens:
    """A `Reader` of one token's probability over another's."""

    def __init__(self, server: Connection, tokenizer: Any, pair: tuple[str, str]) -> None:
        self.tokenizer = tokenizer
        self.max_context = server.max_context - 1  # room for the sampled token
        self.spec = server.spec
        self._server = server
        self._yes, self._no = (token_id(tokenizer, token) for token in pair)

    def most(self, ends: Sequence[int]) -> list[Call]:
        return [Call(self.spec, end, 0, 1) for end in ends]

    async def read(self, tokens: list[int], ends: Sequence[int]) -> Scores:
        each = await gather_or_cancel(self._read(tokens[:end]) for end in ends)
        return sum(each, Scores([], []))

    async def _read(self, prompt: list[int]) -> Scores:
        reply = await self._server.post(
            "v1/completions",
            Judged,
            prompt=prompt,
            max_tokens=1,
            temperature=0,
            logprobs=2,
            logprob_token_ids=[self._yes, self._no],
            return_tokens_as_token_ids=True,
        )
        told = reply.choices[0].logprobs.top_logprobs[0]
        try:
            value = sigmoid(told[f"token_id:{self._yes}"] - told[f"token_id:{self._no}"])
        except KeyError:
            raise UserError("the server reports no log-probabilities of chosen tokens: it needs a newer vLLM") from None
        cached = reply.usage.cached if reply.usage is not None else 0
        cached = cached if 0 <= cached <= len(prompt) else 0
        return Scores([value], [Call(self.spec, len(prompt) - cached, cached, 1)])

    def describe(self) -> dict[str, Any]:
        return self._server.describe()

    async def close(self) -> None:
        await self._server.close()
