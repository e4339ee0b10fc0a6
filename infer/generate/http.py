"""JSON over HTTP with bounded concurrency, time-outs, retries and checked replies.

Nothing that a server sends is believed: each reply has to fit a schema (`Reply`). What does not fit is a failed try,
as are 429 and 5xx, a lost connection and a time-out. Failed tries are repeated with exponential back-off and jitter.
When they are used up, `ServerFailed` ends the one problem that asked. If no request at all was answered meanwhile, none
is repeated from then on until one is: of a server that is down, only the first requests wait long. The server may have
done the work of a lost reply already: it is paid for there, and not counted here.

aiohttp, not httpx: of many short requests at once, on few cores that the server keeps busy, httpx gets most out one
after the other, and the server batches little.
"""

import asyncio
import functools
import json
import logging
import math
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.http import HttpProcessingError
from pydantic import BaseModel, ConfigDict, ValidationError

from infer.core.formats import clean
from infer.core.pauses import pausing
from infer.core.records import reason_of
from infer.errors import ServerFailed, UserError
from infer.generate.address import Address

logger = logging.getLogger(__name__)

Json = dict[str, Any]

LOST = (aiohttp.ClientError, HttpProcessingError, TimeoutError)
"""No reply, or none that is HTTP."""
TIMEOUT = 600.0
"""Seconds for one whole reply, unless the user says otherwise."""
RETRIES = 6
BACKOFF = 0.5
"""Seconds before the first of them. All six come within 16 to 32 s."""
CONNECT = 30.0
"""Seconds for a connection, and for what a server says about itself, at most."""
LONGEST_PAUSE = 60.0
"""Seconds that a server may ask to wait by Retry-After: limits are mostly counted by the minute. More is cut."""
LARGEST = 1 << 28
"""Bytes of a reply at most."""
TOLD = 200
"""Characters of a server's own words that a message repeats."""


class Reply(BaseModel):
    """The base of the schemas of replies. Fields that a schema does not name are ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    error: Any = None
    """Some servers report what broke under status 200."""


T = TypeVar("T")
R = TypeVar("R", bound=Reply)


class Refused(UserError):
    """The server understood and said no: a 4xx that no retry mends, with the server's own words."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class FailedTry(Exception):
    """No reply of use. Worth another try, after at least `wait` seconds if the server said so."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class Busy(FailedTry):
    """The server is there, and has too much to do."""


class EndedEarly(FailedTry):
    """A stream that ended without saying so."""


class Http:
    """One server. At most `concurrency` requests are open at once; further ones wait for their turn.

    `timeout` is the seconds for one whole reply. `retries` (default: RETRIES) is the number of further tries; the k-th
    waits `backoff * 2**k` seconds (default: BACKOFF), half of it random, at most `longest_backoff`, unless the server
    asks for more by Retry-After. A second time-out is not tried again.
    """

    def __init__(
        self,
        address: Address,
        api_key: str | None,
        *,
        concurrency: int,
        timeout: float = TIMEOUT,
        retries: int | None = None,
        backoff: float | None = None,
        longest_backoff: float = 30.0,
    ) -> None:
        self.address = address
        self.timeout, self.longest_backoff = timeout, longest_backoff
        self.retries = RETRIES if retries is None else retries
        self.backoff = BACKOFF if backoff is None else backoff
        self._key = api_key
        self._turn = asyncio.Semaphore(concurrency)
        connect = min(timeout, CONNECT)
        self._unbounded, self._bounded, self._short = (
            aiohttp.ClientTimeout(total, sock_connect=connect, sock_read=timeout) for total in (None, timeout, connect)
        )
        self._answered = 0
        """Requests so far, to tell a server that is down from one that fails a single request."""
        self._down = self._paused = False
        # a login in the address goes first: both travel in the same header
        self._client = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {api_key}"} if api_key and address.login is None else {},
            auth=aiohttp.BasicAuth(*address.login) if address.login is not None else None,
            connector=aiohttp.TCPConnector(limit=0),
            read_bufsize=1 << 20,  # the longest line of a stream is twice that
        )

    async def get(self, url: str, schema: type[R]) -> R:
        """The reply to one GET, tried once. Raises Refused, FailedTry, and what is in LOST."""
        async with self._send("GET", url, None, self._short) as reply:
            await self._raise_for_status(reply)
            return self._checked(await _whole(reply), schema)

    async def post(
        self,
        url: str,
        body: Json,
        schema: type[R],
        *,
        check: Callable[[R], None] = lambda reply: None,
        at_once: bool = False,
    ) -> R:
        """The reply to a POST. Raises Refused, or ServerFailed when the retries are used up.

        `check` raises FailedTry for a reply of the right form that does not answer what was asked. `at_once` takes no
        turn: for requests that are answered quickly and must not wait for long ones.
        """

        async def exchange() -> R:
            async with self._send("POST", url, body, self._bounded) as reply:
                await self._raise_for_status(reply)
                checked = self._checked(await _whole(reply), schema)
                check(checked)
                return checked

        return await self.tried(url, exchange, at_once=at_once)

    async def events(self, url: str, body: Json, schema: type[R], *, bounded: bool = True) -> AsyncGenerator[R, None]:
        """One try of a POST: each event of a streamed reply, or the one reply of a server that does not stream.

        Not `bounded`, only each silence is: for a caller with a deadline of its own. Raises as `get` does.
        """
        async with self._send("POST", url, body, self._bounded if bounded else self._unbounded) as reply:
            await self._raise_for_status(reply)
            if reply.content_type != "text/event-stream":
                yield self._checked(await _whole(reply), schema)
                return
            async for line in _lines(reply):
                if line.startswith(b"data:"):  # others are comments and names of events
                    data = line[5:].strip()
                    if data == b"[DONE]":
                        return
                    yield self._checked(data, schema)
            raise EndedEarly("the stream ended early")

    async def tried(self, url: str, attempt: Callable[[], Awaitable[T]], *, at_once: bool = False) -> T:
        """Returns the result of `attempt`, which is repeated where its failure may pass. Raises as `post` does."""
        turn: AbstractAsyncContextManager[None] = nullcontext() if at_once else self._turn
        failed = late = 0
        answered = self._answered
        while True:
            try:
                async with turn:
                    result = await attempt()
                self._answers()
                return result
            except Refused:
                self._answers()
                raise
            except (*LOST, FailedTry) as error:
                failed, late, busy = failed + 1, late + isinstance(error, TimeoutError), isinstance(error, Busy)
                why, asked = self.reason(error), error.wait if isinstance(error, FailedTry) else 0.0
            if failed > self.retries or late > 1 or (self._down and not busy):
                self._down = self._down or (self._answered == answered and not busy)
                times = "once" if failed == 1 else f"{failed} times"
                # not `from` the cause, which quotes the whole address
                raise ServerFailed(f"{url} failed, tried {times}: {why}")
            wait = min(self.backoff * 2 ** (failed - 1), self.longest_backoff) * random.uniform(0.5, 1.0)
            await self._pause(max(wait, asked), f"{urlsplit(url).netloc} asks for it ({why})" if asked else None)

    def _answers(self) -> None:
        self._answered += 1
        self._down = False

    async def _pause(self, seconds: float, asked: str | None) -> None:
        if asked is None:
            await asyncio.sleep(seconds)
            return
        if not self._paused:  # said once: a busy server asks again and again
            self._paused = True
            logger.info("waiting %.0f s: %s; the progress bar shows further pauses", math.ceil(seconds), asked)
        with pausing(asked, seconds):
            await asyncio.sleep(seconds)

    async def close(self) -> None:
        await self._client.close()

    def reason(self, error: Exception) -> str:
        """Why a try failed, in a few words."""
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"no connection within {min(self.timeout, CONNECT):g} s"
        if isinstance(error, TimeoutError):
            return "no answer in time (--timeout)"
        if isinstance(error, aiohttp.ClientConnectorError):
            number = error.os_error.errno or 0  # below zero: a name that was not found
            return os.strerror(number) if number > 0 else str(error.os_error.strerror)
        return self._told(str(error)) or type(error).__name__

    def _send(
        self, method: str, url: str, body: Json | None, timeout: aiohttp.ClientTimeout
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        query = self.address.query or None
        return self._client.request(method, url, json=body, params=query, timeout=timeout, proxy=_proxy(url))

    def _checked(self, data: bytes, schema: type[R]) -> R:
        """Reads a reply by its schema. Raises FailedTry where it does not fit, or reports an error."""
        try:
            reply = schema.model_validate_json(data)
        except ValidationError as error:
            said = _decoded(data)
            if not (isinstance(said, dict) and said.get("error")):
                why = self._told(reason_of(error.errors(include_url=False)[0]))
                shown = self._told(data[: 8 * TOLD].decode(errors="replace"))
                raise FailedTry(f"not the reply that was asked for ({why}): {shown!r}") from None
            broken = said
        else:
            if not reply.error:
                return reply
            broken = {"error": reply.error}
        raise FailedTry(f"the server reports an error: {self._told(_message(broken))}")

    async def _raise_for_status(self, reply: aiohttp.ClientResponse) -> None:
        status = reply.status
        if status < 400:
            return
        said = self._told(_message(_decoded(await _whole(reply)))) or reply.reason or ""
        url = f"{reply.url.origin()}{reply.url.raw_path}"  # its query may hold a secret
        if status == 429:
            wait = _retry_after(reply.headers.get("retry-after"))
            raise Busy(f"HTTP 429: {said} (a lower --concurrency asks for less)", wait)
        if status in (408, 425) or (status >= 500 and status != 501):
            raise FailedTry(f"HTTP {status}: {said}", _retry_after(reply.headers.get("retry-after")))
        if status in (401, 403):
            raise Refused(f"{url} refused the API key (HTTP {status}: {said}): give one that it accepts", status)
        raise Refused(f"{url} refused the request (HTTP {status}): {said}", status)

    def _told(self, text: str) -> str:
        """The beginning of a server's words, on one line, fit for a terminal, without what was sent in secret."""
        return " ".join(clean(self.address.hide(text, self._key)[: 8 * TOLD]).split())[:TOLD]


@functools.cache
def _proxy(url: str) -> str | None:
    """The proxy that the environment names. (aiohttp's `trust_env` has a thread look it up for each request.)"""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


async def _whole(reply: aiohttp.ClientResponse) -> bytes:
    """A reply's bytes. Raises FailedTry where there are too many."""
    if reply.content_length is not None and reply.content_length <= LARGEST and "Content-Encoding" not in reply.headers:
        return await reply.read()
    data = bytearray()
    async for chunk in reply.content.iter_any():
        data += chunk
        if len(data) > LARGEST:
            raise FailedTry(f"a reply of more than {LARGEST >> 20} MiB")
    return bytes(data)


async def _lines(reply: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    try:
        async for line in reply.content:
            yield line
    except (ValueError, HttpProcessingError):  # by the version of aiohttp
        raise FailedTry("a stream with a line that is too long") from None


def _retry_after(value: str | None) -> float:
    """Seconds to wait by a Retry-After header: a number, or a date."""
    try:
        seconds = float(value or 0)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value or "").timestamp() - time()
        except (ValueError, OverflowError, OSError):
            return 0.0
    return min(seconds, LONGEST_PAUSE) if seconds > 0 else 0.0


def _decoded(data: bytes) -> Any:
    """JSON, or the text itself where it is none."""
    text = data.decode(errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _message(reply: Any) -> str:
    """A server's own words for an error: OpenAI's `{"error": {"message": ...}}` or what comes near it."""
    while isinstance(reply, dict):
        reply = next((reply[key] for key in ("error", "message", "detail") if key in reply), json.dumps(reply))
    return str(reply)
