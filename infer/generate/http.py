"""JSON over HTTP with bounded concurrency, time-outs and retries, its failures reported in one line each.

Failures that a retry can mend (429, 500, 502, 503, 504, a lost connection, a time-out) are tried again with
exponential back-off and jitter. The server may have done the work of a lost reply already: it is paid for there, and
not counted here.

aiohttp, not httpx: of many short requests at once, on few cores that the server keeps busy, httpx gets most out one
after the other, and the server batches little.
"""

import asyncio
import functools
import json
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from infer.errors import UserError

T = TypeVar("T")
Json = dict[str, Any]

LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError, TimeoutError)
"""No reply, or none that is HTTP."""

_TRANSIENT = {429, 500, 502, 503, 504}


class Refused(UserError):
    """The server understood and said no: a 4xx that no retry mends, with the server's own words."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Transient(Exception):
    """Worth another try, after at least `wait` seconds if the server said so."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Http:
    """One server. At most `concurrency` requests are open at once; further ones wait for their turn.

    `timeout` is the longest silence of the server in seconds: for a reply that isn't streamed, the whole time it takes.
    `retries` is the number of further tries; the k-th waits `backoff * 2**k` seconds, half of it random, at most
    `longest_backoff` unless the server asks for more by Retry-After.
    """

    def __init__(
        self,
        api_key: str | None,
        *,
        concurrency: int,
        timeout: float,
        retries: int,
        backoff: float,
        longest_backoff: float = 30.0,
    ) -> None:
        self.retries, self.backoff, self.longest_backoff = retries, backoff, longest_backoff
        self._turn = asyncio.Semaphore(concurrency)
        self._client = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(timeout, 30.0), sock_read=timeout),
            connector=aiohttp.TCPConnector(limit=0),
            read_bufsize=1 << 20,  # the longest line of a stream is twice that
        )

    async def get(self, url: str) -> Json:
        """The reply to one GET, tried once. Raises aiohttp.ClientError, TimeoutError, Refused, RuntimeError."""
        try:
            async with self._client.get(url, proxy=_proxy(url)) as reply:
                return await _decoded(reply)
        except _Transient as error:
            raise RuntimeError(f"{url} failed: {error}") from error

    async def post(self, url: str, body: Json, *, at_once: bool = False) -> Json:
        """The reply to a POST. Raises Refused, or RuntimeError when the retries are used up.

        `at_once` takes no turn: for requests that are answered quickly and must not wait for long ones.
        """

        async def exchange() -> Json:
            async with self._client.post(url, json=body, proxy=_proxy(url)) as reply:
                return await _decoded(reply)

        return await self._retried(url, exchange, nullcontext() if at_once else self._turn)

    async def stream(self, url: str, body: Json, start: Callable[[], None], take: Callable[[Json], None]) -> None:
        """Hand each event of a streamed reply to `take`; `start` is called before each try. Raises as `post` does."""

        async def exchange() -> None:
            start()
            async with self._client.post(url, json=body, proxy=_proxy(url)) as reply:
                await _raise_for_status(reply)
                async with aclosing(_events(reply)) as events:
                    async for event in events:
                        take(event)

        await self._retried(url, exchange, self._turn)

    async def close(self) -> None:
        await self._client.close()

    async def _retried(
        self, url: str, exchange: Callable[[], Awaitable[T]], turn: AbstractAsyncContextManager[None]
    ) -> T:
        attempt = 0
        while True:
            try:
                async with turn:
                    return await exchange()
            except (*LOST, _Transient) as error:
                if attempt == self.retries:
                    times = "once" if attempt == 0 else f"{attempt + 1} times"
                    raise RuntimeError(f"{url} failed, tried {times}: {reason(error)}") from error
                least = error.wait if isinstance(error, _Transient) else 0.0
                wait = min(self.backoff * 2**attempt, self.longest_backoff)
                await asyncio.sleep(max(least, wait * random.uniform(0.5, 1.0)))
                attempt += 1


@functools.cache
def _proxy(url: str) -> str | None:
    """The proxy that the environment names. (aiohttp's `trust_env` has a thread look it up for each request.)"""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


def reason(error: Exception) -> str:
    """The cause, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno or 0  # below zero: a name that was not found
        return os.strerror(number) if number > 0 else str(error.os_error.strerror)
    return str(error).split("\n")[0] or type(error).__name__


async def _events(reply: aiohttp.ClientResponse) -> AsyncGenerator[Json, None]:
    """The JSON objects of a stream of server-sent events. Ending without `[DONE]` is a lost connection."""
    async for raw in reply.content:
        line = raw.decode(errors="replace")
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = _object(data, reply)
        if "error" in event:
            raise _Transient(f"the server broke off: {_message(event)}")
        yield event
    raise _Transient("the stream ended early")


async def _decoded(reply: aiohttp.ClientResponse) -> Json:
    await _raise_for_status(reply)
    return _object(await reply.text("utf-8", "replace"), reply)


async def _raise_for_status(reply: aiohttp.ClientResponse) -> None:
    status = reply.status
    if status < 400:
        return
    said = await reply.text("utf-8", "replace")
    with suppress(ValueError):  # a text that is not JSON is shown as it is
        said = _message(json.loads(said))
    said = " ".join(said.split())[:500] or reply.reason or ""
    if status in _TRANSIENT:
        raise _Transient(f"HTTP {status}: {said}", _retry_after(reply.headers.get("retry-after")))
    if status in (401, 403):
        raise Refused(f"{reply.url} refused the API key (HTTP {status}: {said}): give one that it accepts", status)
    raise Refused(f"{reply.url} refused the request (HTTP {status}): {said}", status)


def _retry_after(value: str | None) -> float:
    """Seconds to wait by a Retry-After header: a number, or a date."""
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return 0.0


def _message(reply: Any) -> str:
    """A server's own words for an error: OpenAI's `{"error": {"message": ...}}` or what comes near it."""
    while isinstance(reply, dict):
        reply = next((reply[key] for key in ("error", "message", "detail") if key in reply), json.dumps(reply))
    return str(reply)


def _object(text: str, reply: aiohttp.ClientResponse) -> Json:
    try:
        decoded = json.loads(text)
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        raise RuntimeError(
            f"{reply.url} answered something that is not a JSON object: {' '.join(text.split())[:200]!r}"
        )
    return decoded
