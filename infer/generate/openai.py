"""A model on a server with OpenAI's API: on vLLM's token for token, on any other by text.

**Token-exact** (vLLM): prompts travel as token ids and the ids that the model produced come back, so that everything
counts as it does in process. **By text** (any other server): prompts are strings, `Completion.tokens` is empty, and
tokens are counted by the reply's `usage`. Which it is, is found out when connecting, with requests for one token. So
are a server's other habits: whether it only streams, reports no usage, or has a chat endpoint alone. A chat's prompt
is then its messages as JSON on one line, followed by what the assistant has written so far; a server that cannot
continue that is refused where a search needs it. Where a server neither tells nor keeps the stop string that ended a
text, steps are streamed and cut here: otherwise nobody knew whether a step ended, or the answer.

n completions are n requests with successive seeds, for only then is every reply's usage that of one completion, and
some servers ignore n. The server reports what its prefix cache held if it was started with
`--enable-prompt-tokens-details`; otherwise all of a prompt counts as computed, which is an upper bound. A request whose
connection is lost is sent again: what the server did for the lost one is not counted, nor are the tokens it ran ahead
when a call was cancelled or met its deadline. By text, a completion cut at its deadline counts the stream's chunks as
tokens, and its prompt's tokens are not known.

A server's counts are checked: see `infer.generate.counts`.
"""

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Any

from infer.core.generator import Completion, Message, Request, Sampling, room_after
from infer.core.reader import Reader
from infer.core.tasks import gather_or_cancel
from infer.core.tree import Finish, Prompt
from infer.cost.model import ModelSpec
from infer.errors import UserError, nearest
from infer.generate.address import Address
from infer.generate.chat import plain_prompt
from infer.generate.counts import Counts
from infer.generate.http import LOST, TIMEOUT, EndedEarly, FailedTry, Http, Json, Refused
from infer.generate.loading import load_tokenizer
from infer.generate.replies import Detokenized, Piece, Received, Tokenized, Version
from infer.generate.served import Connection, ServedTokens, served_models
from infer.generate.text import PARTIAL

logger = logging.getLogger(__name__)

_UNKNOWN_CONTEXT = 4096
"""Tokens of context where neither the server nor the caller gives a number."""
_TAIL = 4
"""Tokens of which one character consists at most, in byte-level vocabularies."""
_MET = ("stop", "stop_sequence")
"""Finish reasons of a stop string or an end token; the latter is TGI's, of a stop string alone."""
_HELLO = "Hello"
"""The prompt of the first requests, which find out how a server is asked."""


class OpenAIGenerator:
    """A `Generator` over HTTP. Made by `connect`."""

    def __init__(self, http: Http, model: str, source: str, max_context: int) -> None:
        self.max_context = max_context
        self.model = model
        self.source = source
        """The folder or hub id that the server loaded, where it says so; otherwise the model's name."""
        self.spec: ModelSpec | None = None
        """Set by whoever can read the served model's config: a server does not report it."""
        self.token_exact = False
        self._http = http
        self._base_url = http.address.url
        self._root = self._base_url.removesuffix("/v1")
        self._version: str | None = None
        self._chat = False
        """It has a chat endpoint alone."""
        self._continues = False
        """A chat endpoint goes on with an answer that was begun."""
        self._streams = False
        self._keeps_stops: bool | None = None
        """Whether its texts end with the stop string that was met, where it does not tell; None: not known yet."""
        self._counts = Counts(self._base_url, source)
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
        timeout: float = TIMEOUT,
        retries: int | None = None,
        backoff: float | None = None,
    ) -> "OpenAIGenerator":
        """Find the model and what the server can do. `base_url` is such as `http://127.0.0.1:8000/v1`.

        `model` None is the only one served. `max_context` (tokens) bounds the server's own number, or stands in for it.
        At most `concurrency` requests are open at once; `timeout` (seconds) is for one whole reply; see
        `infer.generate.http` for `retries` and `backoff`. Raises UserError: unreachable, key refused, unknown model;
        ServerFailed where it fails to answer the first requests.
        """
        address = Address.parse(base_url)
        http = Http(address, api_key, concurrency=concurrency, timeout=timeout, retries=retries, backoff=backoff)
        try:
            served = await served_models(http, address.url)
            model = _choose(model, list(served), address.url)
            told = served[model]
            contexts = [each for each in (told.max_model_len or told.context_length, max_context) if each is not None]
            generator = cls(http, model, told.root or model, min(contexts, default=_UNKNOWN_CONTEXT))
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
        if self._chat:
            return json.dumps(list(messages), ensure_ascii=False) + "\n"
        if self._has_template:
            logger.warning("%s reports no chat template of %s: prompts are plain text", self._base_url, self.model)
            self._has_template = False
        text = plain_prompt(messages)
        return await self._ids(prompt=text) if self.token_exact else text

    async def tokenize(self, text: str) -> Prompt:
        return await self._ids(prompt=text, add_special_tokens=False) if self.token_exact else text

    async def generate(self, request: Request) -> list[Completion]:
        """See `Generator.generate`. Raises UserError where the server refuses the request, else ServerFailed."""
        if self._closed:
            raise RuntimeError(f"the connection to {self._base_url} is closed")
        if not self.token_exact and not isinstance(request.prompt, str):
            raise UserError(f"{self._base_url} takes no token ids: give it the prompt as text")
        if not isinstance(request.prompt, str):
            room_after(request.prompt, self.max_context, self.model)
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
            "endpoint": "chat/completions" if self._chat else "completions",
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
            reply = await self._reply(self._body(request, seed), request.deadline, self._cut_at(request))
            if reply is None:
                return Completion.nothing(logprobs=request.logprobs)
            return await self._completion(request, reply)
        finally:
            self._running.discard(task)

    def _cut_at(self, request: Request) -> str | None:
        """The delimiter, where a completion is cut at it here: the server would cut it off, and not say so."""
        return request.delimiter if self._keeps_stops is False else None

    async def _reply(self, body: Json, deadline: float | None, cut_at: str | None = None) -> Received | None:
        """The server's reply, or what has come of it by the deadline or up to `cut_at`; None if nothing had come."""
        url = f"{self._base_url}/{'chat/' if self._chat else ''}completions"
        if self._streams or deadline is not None or cut_at is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        coming: list[Received] = []  # the one that is being received

        async def attempt() -> Received:
            reply = Received(body["max_tokens"], tells_stop=cut_at is not None)
            coming[:] = [reply]
            try:
                try:
                    async with aclosing(self._http.events(url, body, Piece, bounded=deadline is None)) as pieces:
                        async for piece in pieces:
                            reply.take(piece)
                            if cut_at is not None and cut_at in reply.text:
                                reply.cut_after(cut_at)
                                break  # hanging up ends it there as well
                except EndedEarly:
                    if reply.finish_reason is None:
                        raise
                reply.check(exact=self.token_exact)
            except (*LOST, FailedTry):
                coming.clear()
                raise
            return reply

        if deadline is None:
            return await self._http.tried(url, attempt)
        left = deadline - time.monotonic()
        if left > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    return await self._http.tried(url, attempt)
        for reply in coming:
            reply.cut = True
            return reply
        return None

    def _body(self, request: Request, seed: int) -> Json:
        sampling, prompt = request.sampling, request.prompt
        room = request.max_tokens if isinstance(prompt, str) else self.max_context - len(prompt)
        body: Json = {
            "model": self.model,
            **(self._messages(prompt) if self._chat and isinstance(prompt, str) else {"prompt": prompt}),
            "max_tokens": min(request.max_tokens, room),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.temperature > 0:
            body["seed"] = seed
        delimiter = request.delimiter if self._cut_at(request) is None else None
        if stops := [*([delimiter] if delimiter else []), *sampling.stop]:
            body["stop"] = stops
        if request.logprobs:
            body["logprobs"] = True if self._chat else 0 if self.token_exact else 1  # some servers take 0 for no
        if self.token_exact:
            # vLLM silently fills in what is left out, from the model's generation_config.
            body |= {"top_k": sampling.top_k, "min_p": sampling.min_p, "repetition_penalty": 1.0}
            body |= {"return_token_ids": True, "include_stop_str_in_output": True}
        else:
            body |= {"top_k": sampling.top_k} if sampling.top_k else {}
            body |= {"min_p": sampling.min_p} if sampling.min_p else {}
        return body

    def _messages(self, prompt: str) -> Json:
        """A chat's prompt (see `encode`) as a request has it."""
        chat, _, written = prompt.partition("\n")
        messages = json.loads(chat)
        if not written:
            return {"messages": messages}
        if not self._continues:
            raise UserError(
                f"{self._base_url} has a chat endpoint alone, which does not continue an answer: no search in steps, "
                "use whole samples (greedy, best-of-n, self-consistency), or a server with /v1/completions"
            )
        messages.append({"role": "assistant", "content": written})
        return {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}

    async def _completion(self, request: Request, reply: Received) -> Completion:
        if request.delimiter and not reply.tells_stop and reply.text and reply.finish_reason in _MET:
            stops = (request.delimiter, *request.sampling.stop)
            if reply.text.endswith(stops):
                self._keeps_stops = True
            elif self._keeps_stops is None:
                self._keeps_stops = False
        finish, stop = _finish(reply, request, sure=self._keeps_stops is True)
        if request.logprobs and reply.text and not reply.logprobs:
            raise UserError(f"{self._base_url} reports no log-probabilities, which this strategy's options need")
        if self.token_exact:
            text = await self._exact_text(request.prompt, reply, finish, stop)
            if stop is not None and stop not in text:
                finish = "length"  # see `_exact_text`: the stop string was the prompt's
        else:
            text = reply.text if stop is None or reply.text.endswith(stop) else reply.text + stop
        prefill, cached = self._counts.prompt(request.prompt, reply)
        logprobs = reply.logprobs if request.logprobs else None
        tokens = reply.tokens if self.token_exact else []
        return Completion(
            tokens, self._counts.completion(reply), text, finish, logprobs, prefill=prefill, cached=cached
        )

    async def _exact_text(self, prompt: Prompt, reply: Received, finish: Finish, stop: str | None) -> str:
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

    async def _ending(self, reply: Received, stop: str | None) -> str:
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
            body = {"model": self.model, "tokens": ids}
            answer = await self._http.post(f"{self._root}/detokenize", body, Detokenized, at_once=True)
            self._decoded[key] = answer.prompt
        return self._decoded[key]

    async def _ids(self, **what: Any) -> list[int]:
        body = {"model": self.model, **what}
        return (await self._http.post(f"{self._root}/tokenize", body, Tokenized, at_once=True)).tokens

    async def _probe(self) -> None:
        """Find out how the server is asked, and its version. Costs it a few tokens."""
        url = f"{self._root}/version"

        async def version() -> str | None:
            try:
                return (await self._http.get(url, Version)).version
            except (Refused, FailedTry):
                return None  # not a vLLM

        self._version = await self._http.tried(url, version, at_once=True)
        if self._version is not None:
            with suppress(Refused):
                ids = await self._ids(prompt=_HELLO)
                body = {"model": self.model, "prompt": ids, "max_tokens": 1, "temperature": 0.0}
                reply = await self._reply({**body, "return_token_ids": True}, None)
                self.token_exact = reply is not None and bool(reply.tokens)
        if not self.token_exact:
            await self._probe_text()

    async def _probe_text(self) -> None:
        """Which endpoint there is, whether it only streams, and how it counts."""
        refusals: list[Refused] = []
        for self._chat, self._streams in ((False, False), (False, True), (True, False), (True, True)):
            prompt = _HELLO if not self._chat else await self.encode([{"role": "user", "content": _HELLO}])
            try:
                reply = await self._reply(self._body(Request(prompt, Sampling(temperature=1.0), 1), 0), None)
                break
            except Refused as error:
                if error.status in (401, 403):
                    raise
                refusals.append(error)
        else:
            raise refusals[0]
        told = reply.usage if reply is not None else None
        if (told is None or told.completion_tokens is None) and self._counts.tokenizer is None:
            self._streams = True  # its pieces can be counted
        if self._chat:
            self._continues = await self._can_continue()
            able = "can continue an answer" if self._continues else "does not continue an answer: no search in steps"
            logger.info("%s has a chat endpoint alone, which %s", self._base_url, able)
        else:
            logger.info("%s takes no token ids: prompts are sent as text", self._base_url)

    async def _can_continue(self) -> bool:
        """Whether a chat endpoint goes on with the assistant's last message, and does not just ignore that it should.

        Then the prompt is shorter: neither is that message closed, nor another one begun.
        """
        self._continues = True
        chat = await self.encode([{"role": "user", "content": _HELLO}])
        begun = self._messages(f"{chat}{_HELLO}")
        sizes = []
        for what in (begun, {"messages": begun["messages"]}):
            try:
                reply = await self._reply({"model": self.model, **what, "max_tokens": 1}, None)
            except Refused:
                return False
            usage = reply.usage if reply is not None else None
            sizes.append(usage.prompt_tokens if usage is not None else None)
        return sizes[0] is not None and sizes[1] is not None and sizes[0] < sizes[1]


def _choose(model: str | None, served: list[str], base_url: str) -> str:
    if model is None:
        if len(served) != 1:
            raise UserError(f"{base_url} serves {len(served)} models, name one of them: {', '.join(served) or 'none'}")
        return served[0]
    if model not in served:
        raise UserError(f"{base_url} does not serve {model!r}: {nearest(model, served)}")
    return model


def _finish(reply: Received, request: Request, *, sure: bool) -> tuple[Finish, str | None]:
    """Why a completion stopped, and the stop string that ended it, if one did.

    A server that neither tells nor keeps the stop string that it met leaves the end of a step and the end of the answer
    alike. Unless it is `sure` to keep them, this is taken for a step where anything came at all. (It comes about in the
    first replies only: see `_cut_at`.)
    """
    if reply.finish_reason in (None, "length"):
        return "length", None
    stop = reply.stop
    if not reply.tells_stop and reply.finish_reason in _MET:
        stops = [request.delimiter, *request.sampling.stop]
        stop = next((stop for stop in stops if stop and reply.text.endswith(stop)), None)
        if stop is None and reply.text and not sure:
            stop = request.delimiter
    return "step" if stop is not None and stop == request.delimiter else "end", stop
