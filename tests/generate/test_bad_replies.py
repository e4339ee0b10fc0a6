"""Whatever a server sends: a reply that is none is asked for again, and its counts are not believed."""

import asyncio
import json
import time
from email.utils import formatdate
from typing import Any

import pytest

from infer.core import pauses
from infer.core.generator import Completion, Sampling
from infer.errors import ServerFailed, UserError
from infer.generate import http
from infer.generate.counts import Counts
from infer.generate.replies import Choice, Piece, Received
from infer.generate.served import Connection, ServedHead, ServedTokens
from infer.strategies import find
from infer.testing.toy import setting, solve
from tests.fake_server import Json, Server, completion, events, in_turn, listening, send
from tests.generate.test_openai import connected, one

FINE = completion("fine", "stop", tokens=[11], stop_reason=None, prompt=2)
LATER = {"prompt": [7, 8]}


def but(**choice: Any) -> Json:
    """A fine reply with another choice."""
    return {**FINE, "choices": [{**FINE["choices"][0], **choice}]}


BAD: dict[str, Json | str] = {
    "a login page": "<html><body>Please log in.</body></html>",
    "nothing": "",
    "half a body": json.dumps(FINE)[:40],
    "a list": "[]",
    "null": "null",
    "too deep": "[" * 100_000,
    "no choices": {"usage": FINE["usage"]},
    "choices that are null": {**FINE, "choices": None},
    "choices that are an object": {**FINE, "choices": FINE["choices"][0]},
    "choices that are text": {**FINE, "choices": ["fine"]},
    "an empty list of choices": {**FINE, "choices": []},
    "two choices": {**FINE, "choices": FINE["choices"] * 2},
    "a text that is a number": but(text=4),
    "a lone surrogate": but(text="\ud800"),
    "ids that are texts": but(token_ids=["11"]),
    "an id below zero": but(token_ids=[-1]),
    "an id beyond all vocabularies": but(token_ids=[2**40]),
    "no ids": but(token_ids=None),
    "more ids than were asked for": but(token_ids=[11] * 9),
    "log-probabilities that are no numbers": but(logprobs={"token_logprobs": [None]}),
    "NaN": but(logprobs={"token_logprobs": [float("nan")]}),
    "more log-probabilities than tokens": but(logprobs={"token_logprobs": [-0.5, -0.5]}),
    "usage that is text": {**FINE, "usage": "5 tokens"},
    "usage in texts": {**FINE, "usage": {"prompt_tokens": "2", "completion_tokens": "1"}},
    "an error under status 200": {"error": {"message": "out of memory", "code": 500}},
    "an error beside a choice": {**FINE, "error": "out of memory"},
    "aborted": but(finish_reason="abort"),
    "broken off": but(finish_reason="error"),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_bad_reply_is_asked_for_again(bad: Json | str, streamed: bool) -> None:
    server = Server(token_exact=True)
    if streamed:
        data = bad if isinstance(bad, str) else json.dumps(bad)
        answers: list[Any] = [events(f"data: {data}"), events(FINE)]
    else:
        answers = [lambda writer: send(writer, 200, bad), FINE]
    async with connected(server) as generator:
        server.answer = in_turn(*answers)
        deadline = time.monotonic() + 60 if streamed else None
        got = await one(generator, **LATER, deadline=deadline)
    assert got == Completion([11], 1, "fine", "end", None, 2, 0)
    assert len(server.bodies) == 2


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_server_that_sends_nothing_else_fails_the_request(bad: Json | str) -> None:
    server = Server(token_exact=True)
    async with connected(server) as generator:
        server.answer = in_turn(lambda writer: send(writer, 200, bad))
        with pytest.raises(ServerFailed, match=r"/v1/completions failed, tried 3 times: "):
            await one(generator, **LATER)


@pytest.mark.parametrize("status", [200, 400, 500])
async def test_a_servers_words_are_short_and_fit_for_a_terminal(status: int) -> None:
    page = "<html>\x1b[2J\x1b]0;mine\x07\n\x9b31mred\x00" + "very " * 1000 + "long</html>"
    server = Server()
    async with connected(server, retries=0) as generator:
        server.answer = in_turn(lambda writer: send(writer, status, page))
        with pytest.raises((ServerFailed, UserError), match=r"<html> red ?very very") as error:
            await one(generator)
    said = str(error.value)
    assert said.isprintable()
    assert len(said) < 400


async def test_a_reply_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(b" " * (1 << 16))
            await writer.drain()

    monkeypatch.setattr(http, "LARGEST", 1 << 20)
    server = Server()
    async with connected(server, retries=0) as generator:
        server.answer = in_turn(endless)
        with pytest.raises(ServerFailed, match="a reply of more than 1 MiB"):
            await one(generator)
        line = events("data: " + "x" * (3 << 20))
        server.answer = in_turn(line)
        with pytest.raises(ServerFailed, match="a line that is too long"):
            await one(generator, deadline=time.monotonic() + 60)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_server_that_sends_a_byte_at_a_time_times_out(streamed: bool) -> None:
    """Each silence is short; the whole takes too long."""

    async def trickle(writer: asyncio.StreamWriter) -> None:
        kind = "text/event-stream" if streamed else "application/json"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode())
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    server = Server()
    async with connected(server, timeout=0.2) as generator:
        server.answer = in_turn(trickle)
        with pytest.raises(ServerFailed, match=r"tried 2 times: no answer in time \(--timeout\)"):
            await one(generator)


async def test_once_a_request_has_failed_no_other_is_repeated_until_the_server_answers() -> None:
    server = Server()
    async with connected(server) as generator:
        server.answer = in_turn(lambda writer: send(writer, 500, "boom"))
        for tries in (3, 1, 1):
            server.bodies.clear()
            with pytest.raises(ServerFailed):
                await one(generator)
            assert len(server.bodies) == tries
        server.answer = in_turn(completion("4"))
        await one(generator)
        server.answer = in_turn(lambda writer: send(writer, 500, "boom"), completion("4"))
        assert (await one(generator)).text == "4"


# Pauses


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("5", 5),
        ("0.5", 0.5),
        ("-3", 0),
        ("nan", 0),
        ("soon", 0),
        ("7200", http.LONGEST_PAUSE),
        ("inf", http.LONGEST_PAUSE),
        ("9" * 400, http.LONGEST_PAUSE),
        (formatdate(4e9, usegmt=True), http.LONGEST_PAUSE),
        (formatdate(1e9, usegmt=True), 0),
        ("Wed, 99 Nov 2026 00:00:00 GMT", 0),
        ("Wed, 01 Jan 0001 00:00:00 GMT", 0),
    ],
)
def test_retry_after_in_both_forms_is_capped(value: str | None, seconds: float) -> None:
    assert http._retry_after(value) == seconds


def test_retry_after_as_a_date_is_the_time_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "time", lambda: 1e9 - 30)
    assert http._retry_after(formatdate(1e9, usegmt=True)) == 30


async def test_a_pause_that_a_server_asks_for_is_told_while_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    async with connected(server) as generator:
        server.answer = in_turn(lambda writer: send(writer, 429, "slow down", Retry_After="1"), completion("4"))
        with caplog.at_level("INFO", logger="infer"):
            asked = asyncio.create_task(one(generator))
            while (told := pauses.waiting()) is None and not asked.done():  # noqa: ASYNC110  (it is no event)
                await asyncio.sleep(0.001)
            assert told is not None
            assert told.startswith("waiting 1 s: 127.0.0.1:")
            assert "asks for it (HTTP 429: slow down (a lower --concurrency asks for less))" in told
            await asked
    assert pauses.waiting() is None
    assert "waiting 1 s: 127.0.0.1:" in caplog.text


# Counts


@pytest.mark.parametrize(
    ("told", "counted", "said"),
    [
        (3, 3, None),
        (8, 8, None),
        (9, 8, None),  # it counts the end token apart
        (0, 1, None),  # the end token alone
        (10, 8, "reports 10 tokens where 8 at most were asked for: tokens are counted as all that were asked for"),
        (10**30, 8, "at most were asked for"),
        (-5, 8, "reports -5 tokens where 8 at most were asked for"),
        (None, 8, "reports no usage: tokens are counted as all that were asked for"),
    ],
)
async def test_a_count_of_tokens_is_believed_where_it_can_be(
    told: int | None, counted: int, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    async with connected(server) as generator:
        server.answer = in_turn({**completion("4"), "usage": {"prompt_tokens": 5, "completion_tokens": told}})
        for _ in range(3):
            assert (await one(generator, max_tokens=8)).num_tokens == counted
    assert [record.getMessage().count(said or "?") for record in caplog.records] == ([1] if said else [])


async def test_the_models_own_tokenizer_counts_where_the_server_does_not(caplog: pytest.LogCaptureFixture) -> None:
    from transformers import AutoTokenizer

    from infer.nano import checkpoint

    folder, server = str(checkpoint("nano-s")), Server()
    server.models = [folder]
    async with connected(server, model=folder) as generator:
        server.answer = in_turn({**completion("12+30=42", "stop"), "usage": None})
        got = await one(generator, max_tokens=64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert got.num_tokens == len(tokenizer.encode("12+30=42", add_special_tokens=False)) + 1
    assert "counted by the model's tokenizer" in caplog.text


async def test_ids_count_whatever_the_server_reports(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(token_exact=True)
    async with connected(server) as generator:
        wrong = {"prompt_tokens": -7, "completion_tokens": 99, "prompt_tokens_details": {"cached_tokens": 400}}
        server.answer = in_turn({**FINE, "usage": wrong})
        for _ in range(3):
            assert await one(generator, **LATER) == Completion([11], 1, "fine", "end", None, 2, 0)
    assert [record.getMessage().partition("/v1 ")[2] for record in caplog.records] == [
        "reports -7 tokens of a prompt that has 2",
        "reports 400 cached tokens of 2: none are counted as cached",
        "reports 99 tokens where it returned 1: those returned count",
    ]


def test_a_stream_cut_after_more_pieces_than_tokens_is_not_charged_more() -> None:
    reply = Received(most=2)
    for letter in "abc":
        reply.take(Piece(choices=[Choice(text=letter)]))
    reply.cut = True
    assert Counts("http://host/v1", "model").completion(reply) == 2


# Reward models


SCORED: dict[str, Json] = {
    "no data": {},
    "an empty list": {"data": []},
    "too few": {"data": [{"index": 0, "probs": [0.0]}]},
    "twice the same": {"data": [{"index": 0, "probs": [0.0]}] * 2},
    "none": {"data": [{"index": 0, "probs": []}, {"index": 1, "probs": []}]},
    "texts": {"data": [{"index": 0, "probs": ["a"]}, {"index": 1, "probs": ["b"]}]},
    "NaN": {"data": [{"index": 0, "probs": [float("nan")]}, {"index": 1, "probs": [0.0]}]},
    "an error": {"error": {"message": "no"}},
}


@pytest.mark.parametrize("reply", SCORED.values(), ids=SCORED)
async def test_scores_that_do_not_fit_fail_the_request(reply: Json) -> None:
    server = Server()
    server.models = ["tiny"]
    async with listening(server) as url:
        connection = await Connection.connect(url, retries=1, backoff=0.001)
        server.others["/classify"] = in_turn({"data": [{"index": 0, "probs": [0.0]}]})
        head = await ServedHead.probe(connection, None)
        fit = {"data": [{"index": 1, "probs": [0.0]}, {"index": 0, "probs": [-50.0, 50.0]}]}
        server.others["/classify"] = in_turn(reply, fit)
        assert (await head.read([1, 2, 3], [2, 3])).values == [1.0, 0.5]
        server.others["/classify"] = in_turn(reply)
        with pytest.raises(ServerFailed, match="/classify failed, tried 2 times"):
            await head.read([1, 2, 3], [2, 3])
        await connection.close()


class TwoWords:
    unk_token_id = None
    name_or_path = "words"

    def encode(self, text: str, **options: Any) -> list[int]:
        return [{"+": 3, "-": 4}[text]]


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": []},
        {"choices": [{"text": "+", "logprobs": None}]},
        {"choices": [{"text": "+", "logprobs": {"top_logprobs": []}}]},
        {"choices": [{"text": "+", "logprobs": {"top_logprobs": [{"token_id:3": "high"}]}}]},
    ],
)
async def test_a_verdict_that_does_not_fit_fails_the_request(reply: Json) -> None:
    server = Server()
    server.models = ["tiny"]
    fit = {"choices": [{"logprobs": {"top_logprobs": [{"token_id:3": -1.0, "token_id:4": -1.0}]}}]}
    async with listening(server) as url:
        connection = await Connection.connect(url, retries=1, backoff=0.001)
        reader = ServedTokens(connection, TwoWords(), ("+", "-"))
        server.others["/v1/completions"] = in_turn(reply, fit)
        assert (await reader.read([1, 2], [2])).values == [0.5]
        server.others["/v1/completions"] = in_turn(reply)
        with pytest.raises(ServerFailed, match="/v1/completions failed, tried 2 times"):
            await reader.read([1, 2], [2])
        await connection.close()


async def test_a_budget_of_tokens_ends_whatever_the_server_counts() -> None:
    """Counts below zero would let it grow."""
    server = Server()
    async with connected(server) as generator:
        server.answer = in_turn({**completion("4", "stop"), "usage": {"completion_tokens": -64}})
        world = setting("64tok", generator=generator, sampling=Sampling(max_tokens=16))
        solution = await solve(world, find("best-of-n"), ["choose=majority"])
    assert solution.usage.generated == 64
    assert len(solution.candidates) == 4
