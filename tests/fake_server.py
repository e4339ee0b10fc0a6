"""A small HTTP server for tests, with the habits of the servers that people run, and one that fails on purpose."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal
from urllib.parse import urlsplit

Json = dict[str, Any]

PROBE = [5]  # the generator sends this to find out whether the server reports ids
HELLO = "Hello"  # what it asks first by text
PIECES = {
    7: "a",
    8: "b",
    9: "c",
    11: "fine",
    12: "one\n",
    13: "\n\nTwo",
    2: "<end>",
    14: "\xc3",
    15: "\xa9",
    16: "\xa9!",
}
BYTES = (14, 15, 16)

STEPS = ("One and one.\n\n", "It is two.\n\n", "Answer: 2")
"""What the model of a server with habits answers, in its own tokens:"""
WORDS = ("One", " and", " one", ".", "\n\n", "It", " is", " two", ".", "\n\n", "Answer:", " 2")


@dataclass(frozen=True, slots=True)
class Habits:
    """How a server departs from vLLM's. None of them knows `n`."""

    strips: bool = True
    """The stop string that was met is cut off the text."""
    tells: str | None = None
    """The field that names it."""
    met: str = "stop"
    """The finish reason where it was met."""
    usage: bool = True
    logprobs: Literal["lists", "objects"] | None = None
    streams: Literal["asked", "always", "only", "never"] = "asked"
    comments: bool = False
    """Heartbeats in streams: comments, and events without a text."""
    done: bool = True
    """Streams end with [DONE]."""
    completions: bool = True
    """POST /v1/completions is there; otherwise the chat endpoint alone."""
    continues: bool = False
    """The chat endpoint knows `continue_final_message`."""
    unknown: Json | None = None
    """The body under which unknown paths are answered with status 200."""


HABITS = {
    "llama.cpp": Habits(logprobs="objects"),
    "Ollama": Habits(comments=True),
    "SGLang": Habits(tells="matched_stop", logprobs="lists"),
    "SGLang, chat alone": Habits(tells="matched_stop", completions=False, continues=True, logprobs="objects"),
    "LM Studio": Habits(unknown={"error": "Unexpected endpoint or method."}),
    "TGI": Habits(strips=False, met="stop_sequence", done=False),
    "OpenRouter, chat alone": Habits(completions=False, comments=True),
    "a proxy that only streams": Habits(streams="only"),
    "one that always streams": Habits(streams="always"),
    "one that never streams": Habits(streams="never"),
    "one without usage": Habits(usage=False),
}
"""As documented, or seen in the source, in 2026."""


class Server:
    """HTTP/1.1 on a free port of 127.0.0.1. `answer` writes the reply to each `POST /v1/completions`."""

    def __init__(self, *, token_exact: bool = False, habits: Habits | None = None) -> None:
        self.token_exact = token_exact
        self.habits = habits
        self.spell = spell
        self.answer: Callable[[Json, asyncio.StreamWriter], Awaitable[None]] = self.complete
        self.models = ["tiny", "small"]
        self.others: dict[str, Callable[[Json, asyncio.StreamWriter], Awaitable[None]]] = {}
        """Further endpoints by path."""
        self.heads: list[str] = []
        self.bodies: list[Json] = []
        self.times: list[float] = []
        self.open = self.most_open = self.hung_up = 0
        self.arrived, self.none_open = asyncio.Event(), asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head.decode())
                method, target = head.decode().split()[:2]
                path = urlsplit(target).path  # a proxy is given whole URLs
                sizes = [
                    line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
                ]
                length = int(sizes[0]) if sizes else 0
                body = json.loads(await reader.readexactly(length)) if length else {}
                if path in self.others:
                    await self.others[path](body, writer)
                elif method == "GET" or path not in self.endpoints:
                    self.metadata(path, body, writer)
                elif HELLO in json.dumps(body) or body.get("prompt") == PROBE:
                    await self.complete(body, writer)
                else:
                    await self.completion(reader, writer, body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @property
    def endpoints(self) -> list[str]:
        if self.habits is None:
            return ["/v1/completions"]
        return ["/v1/chat/completions", *(["/v1/completions"] if self.habits.completions else [])]

    async def completion(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: Json) -> None:
        self.bodies.append(body)
        self.times.append(time.monotonic())
        self.open += 1
        self.none_open.clear()
        self.most_open = max(self.most_open, self.open)
        self.arrived.set()
        answering = asyncio.ensure_future(self.answer(body, writer))
        gone = asyncio.ensure_future(reader.read(1))  # answers only when the client hangs up
        try:
            await asyncio.wait([answering, gone], return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                self.hung_up += 1
                raise ConnectionResetError
            await answering
        finally:
            self.open -= 1
            if not self.open:
                self.none_open.set()
            for task in (answering, gone):
                task.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)

    async def idle(self) -> None:
        """Waits until no request is open, and fails if one stays."""
        async with asyncio.timeout(5):
            await self.none_open.wait()

    def metadata(self, path: str, body: Json, writer: asyncio.StreamWriter) -> None:
        match path:
            case "/v1/models":
                send(writer, 200, {"data": [{"id": model} for model in self.models]})
            case "/version" if self.token_exact:
                send(writer, 200, {"version": "1.2.3"})
            case "/tokenize" if self.token_exact:
                if "messages" in body:
                    send(writer, 400, {"error": {"message": "no chat template"}})
                else:
                    send(writer, 200, {"tokens": PROBE if body["prompt"] == HELLO else [7, 8, 9]})
            case "/detokenize" if self.token_exact:
                send(writer, 200, {"prompt": self.spell(body["tokens"])})
            case _:
                unknown = self.habits.unknown if self.habits is not None else None
                send(writer, 200 if unknown else 404, unknown or {"detail": "Not Found"})

    async def complete(self, body: Json, writer: asyncio.StreamWriter) -> None:
        if self.habits is not None:
            await _by_habit(self.habits, body, writer)
        else:
            tokens = [11] if self.token_exact else None
            send(writer, 200, completion("fine", tokens=tokens, prompt=len(body["prompt"])))


async def _by_habit(habits: Habits, body: Json, writer: asyncio.StreamWriter) -> None:
    """The model's answer from where the prompt ends, as a server of these habits gives it."""
    messages = body.get("messages")
    streamed = habits.streams == "always" or (body.get("stream", False) and habits.streams != "never")
    if habits.streams == "only" and not streamed:
        return send(writer, 400, {"error": {"message": "stream must be true"}})
    continued = habits.continues and body.get("continue_final_message", False)
    prompt = body["prompt"] if messages is None else messages[-1]["content"] if continued else ""
    begin = max(size for size in range(len(WORDS) + 1) if not size or prompt.endswith("".join(WORDS[:size])))
    if prompt.rstrip().endswith("".join(WORDS)):
        begin = len(WORDS)
    pieces: list[str] = []
    met = None
    for word in WORDS[begin : begin + body["max_tokens"]]:
        pieces.append(word)
        if met := next((stop for stop in body.get("stop", []) if stop in "".join(pieces)), None):
            break
    ended = met is None and len(pieces) < body["max_tokens"]
    counted = len(pieces) + ended
    if met is not None and habits.strips:
        pieces[-1] = pieces[-1].removesuffix(met)
    finish: Json = {"finish_reason": habits.met if met else "stop" if ended else "length"}
    if habits.tells:
        finish[habits.tells] = met
    usage: Json = {}
    if habits.usage:
        size = len(prompt) if messages is None else sum(len(message["content"]) for message in messages)
        usage = {"usage": {"prompt_tokens": size + 4 * (not continued), "completion_tokens": counted}}

    def choice(text: str, words: list[str], **more: Any) -> Json:
        told: Json = {"index": 0, "logprobs": None, **more}
        if body.get("logprobs") and habits.logprobs == "objects":
            told["logprobs"] = {"content": [{"token": word, "logprob": -0.5, "top_logprobs": []} for word in words]}
        elif body.get("logprobs") and habits.logprobs == "lists":
            told["logprobs"] = {"tokens": words, "token_logprobs": [-0.5] * len(words), "top_logprobs": None}
        said = {"role": "assistant", "content": text}
        return {**told, **({"text": text} if messages is None else {"delta" if streamed else "message": said})}

    if not streamed:
        return send(writer, 200, {"choices": [choice("".join(pieces), pieces, **finish)], **usage, "timings": {}})
    sent: list[Json | str] = []
    for piece in pieces:
        sent += [": PROCESSING", {"choices": [choice("", [])]}] if habits.comments else []
        sent.append({"choices": [choice(piece, [piece], finish_reason=None)]})
    sent.append({"choices": [choice("", [], **finish)]})
    if body.get("stream_options", {}).get("include_usage"):
        sent += [{"choices": [], **usage}] if usage else []
    await events(*sent, then="[DONE]" if habits.done else "")(writer)


def spell(tokens: list[int]) -> str:
    """The text of tokens; 14 and 15 are the two bytes of one character, 16 is the second and more."""
    raw = b"".join(PIECES[token].encode("latin1" if token in BYTES else "utf8") for token in tokens)
    return raw.decode(errors="replace")


def spell_runs(tokens: list[int]) -> str:
    """The text from a decoder with byte fallback, which garbles a run of bytes as a whole."""
    runs = [list(run) for _, run in groupby(tokens, lambda token: token in BYTES)]
    return "".join("\ufffd" * len(run) if "\ufffd" in spell(run) else spell(run) for run in runs)


def completion(
    text: str,
    finish: str = "length",
    *,
    tokens: list[int] | None = None,
    charged: int = 1,
    prompt: int = 5,
    **choice: Any,
) -> Json:
    if tokens is not None:
        choice["token_ids"] = tokens
        charged = len(tokens)
    return {
        "choices": [{"index": 0, "text": text, "finish_reason": finish, **choice}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": charged},
    }


def send(writer: asyncio.StreamWriter, status: int, body: Json | str, **headers: str) -> None:
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    head = {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in head.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode() + data)


def in_turn(*answers: Any) -> Callable[[Json, asyncio.StreamWriter], Awaitable[None]]:
    """Give these answers one after the other: a reply's JSON, or what writes one. The last one stays."""
    left = list(answers)

    async def answer(body: Json, writer: asyncio.StreamWriter) -> None:
        this = left.pop(0) if len(left) > 1 else left[0]
        if callable(this):
            result = this(writer)
            if result is not None:
                await result
        else:
            send(writer, 200, this)

    return answer


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def reset_within_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"choices": [')
    writer.transport.abort()


def events(*replies: Json | str, then: str | None = "[DONE]") -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """A stream: an object is an event, a text is a line; at its end `then`, or nothing and no end (None)."""

    async def stream(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for reply in replies:
            writer.write((reply if isinstance(reply, str) else f"data: {json.dumps(reply)}").encode() + b"\n\n")
        await writer.drain()
        if then is None:
            await hang(writer)
        writer.write(f"data: {then}\n\n".encode() if then else b"")
        writer.close()

    return stream


@asynccontextmanager
async def listening(server: Server) -> AsyncIterator[str]:
    """The server in this event loop; its base URL."""
    socket = await asyncio.start_server(server, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{socket.sockets[0].getsockname()[1]}/v1"
    finally:
        socket.close()


@contextmanager
def running(server: Server) -> Iterator[str]:
    """The server on a thread of its own, for a command that has an event loop itself; its base URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    socket = asyncio.run_coroutine_threadsafe(asyncio.start_server(server, "127.0.0.1", 0), loop).result()
    try:
        yield f"http://127.0.0.1:{socket.sockets[0].getsockname()[1]}/v1"
    finally:

        async def end() -> None:
            socket.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
