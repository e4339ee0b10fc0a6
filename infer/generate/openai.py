"""A model on a server with `POST /v1/completions`: on vLLM's token for token, on any other by text.

**Token-exact** (vLLM): prompts travel as token ids and the ids that the model produced come back, so that everything
counts as it does in process. **By text** (any other server): prompts are strings, `Completion.tokens` is empty, and
tokens are counted by the reply's `usage`. Which it is, is found out when connecting, with a request for one token.

n completions are n requests with successive seeds, for only then is every reply's usage that of one completion. The
server reports what its prefix cache held if it was started with `--enable-prompt-tokens-details`; otherwise all of a
prompt counts as computed, which is an upper bound. A request whose connection is lost is sent again: what the server
did for the lost one is not counted, nor are the tokens it ran ahead when a call was cancelled or met its deadline. By
text, a completion cut at its deadline counts the stream's chunks as tokens, and its prompt's tokens are not known.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from infer.core.generator import Completion, Message, Request
from infer.core.reader import Reader
from infer.core.tasks import gather_or_cancel
from infer.core.tree import Finish, Prompt
from infer.cost.model import ModelSpec
from infer.errors import UserError, nearest
from infer.generate.chat import plain_prompt
from infer.generate.http import LOST, Http, Json, Refused
from infer.generate.loading import load_tokenizer
from infer.generate.served import Connection, ServedTokens, served_models
from infer.generate.text import PARTIAL

logger = logging.getLogger(__name__)

_UNKNOWN_CONTEXT = 4096
"""Tokens of context where neither the server nor the caller gives a number."""
_TAIL = 4
"""Tokens of which one character consists at most, in byte-level vocabularies."""


@dataclass(slots=True)
class _Reply:
    """The part of one completion that has arrived: the whole of it, or a stream so far."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    chunks: int = 0
    finish_reason: str | None = None
    tells_stop: bool = False
    stop: str | None = None
    """The stop string that was met, where the server reports it."""
    usage: Json | None = None
    cut: bool = False
    """The deadline came before the stream's end."""

    def take(self, event: Json) -> None:
        for choice in event.get("choices") or []:
            self.text += choice.get("text") or ""
            self.tokens += choice.get("token_ids") or []
            self.logprobs += (choice.get("logprobs") or {}).get("token_logprobs") or []
            self.chunks += 1
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            for name in ("stop_reason", "matched_stop"):  # vLLM's and SGLang's; a token id is an end token
                if name in choice:
                    self.tells_stop = True
                    self.stop = choice[name] if isinstance(choice[name], str) else None
        self.usage = event.get("usage") or self.usage


class OpenAIGenerator:
    """A `Generator` over HTTP. Made by `connect`."""

    def __init__(self, http: Http, base_url: str, model: str, source: str, max_context: int) -> None:
        self.max_context = max_context
        self.model = model
        self.source = source
        """The folder or hub id that the server loaded, where it says so; otherwise the model's name."""
        self.spec: ModelSpec | None = None
        """Set by whoever can read the served model's config: a server does not report it."""
        self.token_exact = False
        self._http = http
        self._base_url = base_url
        self._root = base_url.removesuffix("/v1")
        self._version: str | None = None
        self._has_template = True
        self._decoded: dict[tuple[int, ...], str] = {}
        self._torn: set[tuple[int, ...]] = set()
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    @classmethod
    async def connect(
        cls,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        max_context: int | None = None,
        concurrency: int = 64,
        timeout: float = 600.0,
        retries: int = 6,
        backoff: float = 0.5,
    ) -> "OpenAIGenerator":
        """Find the model and what the server can do. `base_url` is such as `http://127.0.0.1:8000/v1`.

        `model` None is the only one served. `max_context` (tokens) bounds the server's own number, or stands in for it.
        At most `concurrency` requests are open at once; `timeout` (seconds) is the longest silence of the server; see
        `infer.generate.http` for `retries` and `backoff`. Raises UserError: unreachable, key refused, unknown model.
        """
        base_url = base_url.rstrip("/")
        http = Http(api_key, concurrency=concurrency, timeout=timeout, retries=retries, backoff=backoff)
        try:
            served = await served_models(http, base_url)
            model = _choose(model, list(served), base_url)
            contexts = [tokens for tokens in (served[model].get("max_model_len"), max_context) if tokens is not None]
            source = served[model].get("root") or model
            generator = cls(http, base_url, model, source, min(contexts, default=_UNKNOWN_CONTEXT))
            await generator._probe()
        except BaseException:
            await http.close()
            raise
        return generator

    async def encode(self, messages: Sequence[Message]) -> Prompt:
        """The chat as token ids by the server's template; text, or a plain prompt's ids, where it has none."""
        if self._has_template and self.token_exact:
            try:
                return await self._ids(messages=list(messages), add_generation_prompt=True)
            except Refused:
                # is there no template, or does it refuse these messages?
                try:
                    await self._ids(messages=[{"role": "user", "content": "?"}], add_generation_prompt=True)
                except Refused:
                    pass
                else:
                    raise
        if self._has_template:
            logger.warning("%s reports no chat template of %s: prompts are plain text", self._base_url, self.model)
            self._has_template = False
        text = plain_prompt(messages)
        return await self._ids(prompt=text) if self.token_exact else text

    async def tokenize(self, text: str) -> Prompt:
        return await self._ids(prompt=text, add_special_tokens=False) if self.token_exact else text

    async def generate(self, request: Request) -> list[Completion]:
        """See `Generator.generate`. Raises UserError where the server refuses the request, else RuntimeError."""
        if self._closed:
            raise RuntimeError(f"the connection to {self._base_url} is closed")
        if not self.token_exact and not isinstance(request.prompt, str):
            raise UserError(f"{self._base_url} takes no token ids: give it the prompt as text")
        if not isinstance(request.prompt, str) and not 0 < len(request.prompt) < self.max_context:
            size, most = len(request.prompt), self.max_context - 1
            raise UserError(f"{self.model}: a prompt of {size} tokens; it takes 1 to {most}")
        try:
            # tasks of their own, so that `close` cancels them and not their caller
            calls = (asyncio.create_task(self._complete(request, request.seed + i)) for i in range(request.n))
            return await gather_or_cancel(calls)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._closed and caller is not None and not caller.cancelling():
                raise RuntimeError(f"the connection to {self._base_url} was closed") from None
            raise

    def reader(self, pair: tuple[str, str]) -> Reader:
        """See `Generator.reader`. Texts are tokenized here, so that their tokens are those of a model in this process.

        Raises UserError where the server takes no token ids, or its model's tokenizer can't be loaded here.
        """
        if not self.token_exact:
            raise UserError(
                f"{self._base_url} takes no token ids and reports no probabilities of chosen tokens: "
                "use a vLLM server, or --backend vllm or transformers"
            )
        server = Connection(self._http, self._root, self.model, self.source, self.max_context, self.spec)
        return ServedTokens(server, load_tokenizer(self.source, None), pair)

    def describe(self) -> dict[str, Any]:
        """Backend, URL, model, the server's version if it is a vLLM, and whether tokens are exact."""
        return {
            "backend": "openai",
            "base_url": self._base_url,
            "model": self.model,
            "server_version": self._version,
            "token_exact": self.token_exact,
            "max_context": self.max_context,
        }

    async def close(self) -> None:
        self._closed = True
        for task in self._running:
            task.cancel()
        await self._http.close()

    async def _complete(self, request: Request, seed: int) -> Completion:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            reply = await self._reply(self._body(request, seed), request.deadline)
            if reply is None:
                return Completion.nothing(logprobs=request.logprobs)
            return await self._completion(request, reply)
        finally:
            self._running.discard(task)

    async def _reply(self, body: Json, deadline: float | None) -> _Reply | None:
        """The server's reply, or what has come of it by the deadline; None if it was not even sent by then."""
        url = f"{self._base_url}/completions"
        if deadline is None:
            reply = _Reply()
            reply.take(await self._http.post(url, body))
            return reply
        tries: list[_Reply] = []  # one for each time the request was really sent
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        left = deadline - time.monotonic()
        if left > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left) as limit:
                    await self._http.stream(
                        url, body, lambda: tries.append(_Reply()), lambda event: tries[-1].take(event)
                    )
        if not tries:
            return None
        tries[-1].cut = limit.expired()
        return tries[-1]

    def _body(self, request: Request, seed: int) -> Json:
        sampling = request.sampling
        room = request.max_tokens if isinstance(request.prompt, str) else self.max_context - len(request.prompt)
        body: Json = {
            "model": self.model,
            "prompt": request.prompt,
            "max_tokens": min(request.max_tokens, room),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.temperature > 0:
            body["seed"] = seed
        if stops := [*([request.delimiter] if request.delimiter else []), *sampling.stop]:
            body["stop"] = stops
        if request.logprobs:
            body["logprobs"] = 0 if self.token_exact else 1  # some servers take 0 for no
        if self.token_exact:
            # vLLM silently fills in what is left out, from the model's generation_config.
            body |= {"top_k": sampling.top_k, "min_p": sampling.min_p, "repetition_penalty": 1.0}
            body |= {"return_token_ids": True, "include_stop_str_in_output": True}
        else:
            body |= {"top_k": sampling.top_k} if sampling.top_k else {}
            body |= {"min_p": sampling.min_p} if sampling.min_p else {}
        return body

    async def _completion(self, request: Request, reply: _Reply) -> Completion:
        finish, stop = _finish(reply, request)
        if self.token_exact:
            num_tokens = len(reply.tokens)
            text = await self._exact_text(request.prompt, reply, finish, stop)
            if stop is not None and stop not in text:
                finish = "length"  # see `_exact_text`: the stop string was the prompt's
        else:
            text = reply.text if stop is None or reply.text.endswith(stop) else reply.text + stop
            num_tokens = self._usage(reply).get("completion_tokens", reply.chunks)
        usage = self._usage(reply)
        prompt_tokens = usage.get("prompt_tokens", 0 if isinstance(request.prompt, str) else len(request.prompt))
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        logprobs = reply.logprobs if request.logprobs else None
        return Completion(
            reply.tokens, num_tokens, text, finish, logprobs, prefill=prompt_tokens - cached, cached=cached
        )

    def _usage(self, reply: _Reply) -> Json:
        """The server's own counts. A cut stream has none: its chunks are counted, one token each."""
        if reply.usage is None and not reply.cut and not reply.tokens:
            raise RuntimeError(f"{self._base_url} reports no usage with its replies, so that tokens can't be counted")
        return reply.usage or {}

    async def _exact_text(self, prompt: Prompt, reply: _Reply, finish: Finish, stop: str | None) -> str:
        """The text of whole tokens. vLLM's own differs from it in two cases.

        It is cut at the stop string's end, though the token that completes it may go on: the last tokens' text has
        the rest. And after a prompt that ends within a character, vLLM's detokenizer starts over from the prompt's
        beginning (and looks for stop strings there): such prompts are remembered where they arise, and what follows
        them is decoded again.
        """
        tokens = reply.tokens
        ended = finish == "end" and stop is None
        last = ""
        if tokens and not ended and reply.finish_reason is not None:  # else nothing goes on from here
            last = await self._ending(reply, stop)
        prompt = [] if isinstance(prompt, str) else prompt
        text = reply.text
        if tuple(prompt[-_TAIL:]) in self._torn:
            before = await self._last(prompt, _TAIL)
            visible = tokens[:-1] if ended else tokens  # /detokenize would spell the end token out
            text = (await self._whole(before + visible))[len(await self._whole(before)) :]
        elif stop is not None:
            text += last.partition(stop)[2].rstrip(PARTIAL)
        if last.endswith(PARTIAL):
            self._torn.add(tuple((prompt[-_TAIL:] + tokens)[-_TAIL:]))
        return text

    async def _ending(self, reply: _Reply, stop: str | None) -> str:
        """The text of the last tokens: from where the stop string begins, at the latest.

        That of single tokens, which are soon all known, put together; but that of a few decoded at once where a
        character spreads over tokens, or where it is not what the reply ends with (a decoder drops a word's space).
        """
        pieces: list[str] = []
        for token in reversed(reply.tokens):
            pieces.insert(0, await self._decode([token]))
            if PARTIAL in pieces[0] or len("".join(pieces[:-1])) >= len(stop or "") - 1:
                break
        text = "".join(pieces)
        head, met, _ = text.partition(stop) if stop else (text, "", "")
        if text and PARTIAL not in text and met == (stop or "") and reply.text.endswith(head + met):
            return text
        return await self._decode(await self._last(reply.tokens, _TAIL * (len(stop or "") + 1)))

    async def _last(self, ids: list[int], size: int) -> list[int]:
        """See `infer.generate.text.last_tokens`."""
        while size < len(ids) and PARTIAL in await self._decode([ids[-size]]):
            size += 1
        return ids[-size:]

    async def _whole(self, ids: list[int]) -> str:
        """The text of tokens up to their last whole character.

        A decoder with byte fallback (Llama 2, Gemma) shows nothing of a run of byte tokens whose last character is not
        whole: what it showed before counts.
        """
        whole = ""
        for size in range(len(ids), 0, -1):
            decoded = await self._decode(ids[:size])
            whole = max(whole, decoded.rstrip(PARTIAL), key=len)
            if not decoded.endswith(PARTIAL):
                break
        return whole

    async def _decode(self, ids: list[int]) -> str:
        """The text of a few tokens, asked for once."""
        key = tuple(ids)
        if key not in self._decoded:
            if len(self._decoded) >= 100_000:
                self._decoded.clear()
            answer = await self._http.post(
                f"{self._root}/detokenize", {"model": self.model, "tokens": ids}, at_once=True
            )
            self._decoded[key] = answer["prompt"]
        return self._decoded[key]

    async def _ids(self, **what: Any) -> list[int]:
        answer = await self._http.post(f"{self._root}/tokenize", {"model": self.model, **what}, at_once=True)
        tokens: list[int] = answer.get("tokens") or []
        return tokens

    async def _probe(self) -> None:
        """Find out whether the server takes and returns token ids, and its version. Costs it one token."""
        try:
            self._version = (await self._http.get(f"{self._root}/version")).get("version")
        except (*LOST, Refused, RuntimeError):
            return  # not a vLLM
        try:
            ids = await self._ids(prompt="Hello")
            body = {"model": self.model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "return_token_ids": True}
            reply = _Reply()
            reply.take(await self._http.post(f"{self._base_url}/completions", body))
        except Refused:
            return
        self.token_exact = bool(reply.tokens)


def _choose(model: str | None, served: list[str], base_url: str) -> str:
    if model is None:
        if len(served) != 1:
            raise UserError(f"{base_url} serves {len(served)} models, name one of them: {', '.join(served) or 'none'}")
        return served[0]
    if model not in served:
        raise UserError(f"{base_url} does not serve {model!r}: {nearest(model, served)}")
    return model


def _finish(reply: _Reply, request: Request) -> tuple[Finish, str | None]:
    """Why a completion stopped, and the stop string that ended it, if one did.

    A server that doesn't report which stop string it met, and cuts it off, leaves the end of a step and the end of the
    answer alike: it is taken for a step, unless nothing came at all.
    """
    if reply.finish_reason in (None, "length"):
        return "length", None
    if reply.finish_reason == "abort":
        raise RuntimeError("the server aborted the request")
    stop = reply.stop
    if not reply.tells_stop and reply.finish_reason == "stop":
        stops = [request.delimiter, *request.sampling.stop]
        stop = next((stop for stop in stops if stop and reply.text.endswith(stop)), None)
        if stop is None and reply.text:
            stop = request.delimiter
    return "step" if stop is not None and stop == request.delimiter else "end", stop
