"""The HTTP generator against a small server that fails on purpose."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from infer.core.generator import Completion, Request, Sampling
from infer.errors import ServerFailed, UserError
from infer.generate.openai import OpenAIGenerator
from tests.fake_server import (
    Json,
    Server,
    completion,
    events,
    hang,
    in_turn,
    listening,
    reset_within_body,
    send,
    spell_runs,
)

GREEDY = Sampling(temperature=0.0)


@asynccontextmanager
async def connected(server: Server, **options: Any) -> AsyncIterator[OpenAIGenerator]:
    options = {"model": "tiny", "timeout": 2.0, "retries": 2, "backoff": 0.001, **options}
    async with listening(server) as url:
        generator = await OpenAIGenerator.connect(url, **options)
        try:
            yield generator
        finally:
            await generator.close()


async def one(generator: OpenAIGenerator, **request: Any) -> Completion:
    fields = {"prompt": "2+2=", "sampling": GREEDY, "max_tokens": 8, **request}
    return (await generator.generate(Request(**fields)))[0]


# Connecting


async def test_nothing_listens() -> None:
    listening = await asyncio.start_server(Server(), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    listening.close()
    await listening.wait_closed()
    with pytest.raises(UserError, match=rf"no server answers at http://127.0.0.1:{port}/v1 .*start a server"):
        await OpenAIGenerator.connect(f"http://127.0.0.1:{port}/v1")


async def test_not_a_url() -> None:
    with pytest.raises(UserError, match="is no server's address"):
        await OpenAIGenerator.connect("127.0.0.1:8000/v1")


async def test_a_proxy_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = await asyncio.start_server(Server(), "127.0.0.1", 0)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    monkeypatch.setenv("no_proxy", "other.test")
    with pytest.raises(UserError, match="no server answers"):
        await OpenAIGenerator.connect("http://other.test/v1")
    generator = await OpenAIGenerator.connect("http://models.test/v1", "tiny")
    assert (await one(generator)).text == "fine"
    await generator.close()
    proxy.close()


async def test_wrong_path() -> None:
    server = Server()
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    with pytest.raises(UserError, match=r"lists no models.*usually ends in /v1"):
        await OpenAIGenerator.connect(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    listening.close()


async def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"does not serve 'tinny': did you mean tiny\?"):
        async with connected(Server(), model="tinny"):
            pass


async def test_no_model_named_where_two_are_served() -> None:
    with pytest.raises(UserError, match="serves 2 models, name one of them: tiny, small"):
        async with connected(Server(), model=None):
            pass


async def test_describe() -> None:
    async with connected(Server(token_exact=True), max_context=99) as generator:
        described = generator.describe()
    assert (described["server_version"], described["token_exact"], described["max_context"]) == ("1.2.3", True, 99)


# By text


async def test_text_mode_counts_by_usage() -> None:
    server = Server()
    async with connected(server) as generator:
        server.answer = in_turn(completion("4", "stop", charged=2))
        got = await one(generator)
    assert got == Completion([], 2, "4", "end", None, 5, 0)
    assert server.bodies[0].keys() == {"model", "prompt", "max_tokens", "temperature", "top_p"}


async def test_sampling_is_sent_where_it_is_on() -> None:
    server = Server()
    async with connected(server) as generator:
        sampling = Sampling(temperature=0.5, top_p=0.9, top_k=5, min_p=0.1, stop=("END",))
        server.answer = in_turn(completion("4", logprobs={"token_logprobs": [-0.5]}))
        await generator.generate(Request("x", sampling, 8, n=3, seed=40, delimiter="\n\n", logprobs=True))
    assert sorted(body["seed"] for body in server.bodies) == [40, 41, 42]
    body = server.bodies[0]
    assert (body["top_k"], body["min_p"], body["top_p"], body["stop"]) == (5, 0.1, 0.9, ["\n\n", "END"])


@pytest.mark.parametrize(
    ("reply", "text", "finish"),
    [
        (completion("step", "stop", stop_reason="\n\n"), "step\n\n", "step"),
        (completion("step\n\n", "stop", stop_reason="\n\n"), "step\n\n", "step"),
        (completion("x", "stop", matched_stop="END"), "xEND", "end"),
        (completion("x", "stop", stop_reason=None), "x", "end"),
        (completion("x", "stop", stop_reason=2), "x", "end"),
        (completion("x", "stop"), "x\n\n", "step"),
        (completion("xEND", "stop"), "xEND", "end"),
        (completion("", "stop"), "", "end"),
        (completion("x", "content_filter"), "x", "end"),
        (completion("x", "length"), "x", "length"),
    ],
)
async def test_stop_string_cut_by_the_server_is_put_back(reply: Json, text: str, finish: str) -> None:
    server = Server()
    async with connected(server) as generator:
        server.answer = in_turn(reply)
        got = await one(generator, delimiter="\n\n", sampling=Sampling(0.0, stop=("END",)))
    assert (got.text, got.finish) == (text, finish)


async def test_text_mode_takes_no_ids_and_encodes_plainly(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(Server()) as generator:
        for _ in range(2):
            assert await generator.encode([{"role": "user", "content": "Why?"}]) == "Why?\n\n"
        with pytest.raises(UserError, match="takes no token ids"):
            await one(generator, prompt=[1, 2])
    assert [record.getMessage() for record in caplog.records if "chat template" in record.getMessage()] != []
    assert len(caplog.records) == 1


async def test_a_server_that_can_not_be_read_says_why() -> None:
    async with connected(Server()) as generator:
        with pytest.raises(
            UserError, match=r"/v1 takes no token ids and reports no probabilities .* --backend vllm or"
        ):
            generator.reader(("Yes", "No"))
    async with connected(Server(token_exact=True)) as generator:
        with pytest.raises(UserError, match="the tokenizer of tiny can't be loaded: ") as error:
            generator.reader(("Yes", "No"))
        assert "\n" not in str(error.value)


# Token for token


async def test_token_mode_sends_everything_that_a_server_would_fill_in() -> None:
    server = Server(token_exact=True)
    async with connected(server) as generator:
        assert await one(generator, prompt=[7, 8]) == Completion([11], 1, "fine", "length", None, 2, 0)
    body = server.bodies[0]
    assert (body["prompt"], body["top_k"], body["min_p"], body["repetition_penalty"]) == ([7, 8], 0, 0.0, 1.0)
    assert body["return_token_ids"]
    assert body["include_stop_str_in_output"]
    assert "seed" not in body


async def test_the_token_that_completes_the_delimiter_is_kept_whole() -> None:
    """`one\\n` + `\\n\\nTwo`: the delimiter ends after the second token's first character."""
    server = Server(token_exact=True)
    async with connected(server) as generator:
        server.answer = in_turn(completion("one\n\n", "stop", tokens=[12, 13], stop_reason="\n\n"))
        got = await one(generator, prompt=[7], delimiter="\n\n")
    assert (got.text, got.finish, got.num_tokens) == ("one\n\n\nTwo", "step", 2)


async def test_a_character_cut_in_two_comes_whole_with_its_second_half() -> None:
    """After half a character vLLM's detokenizer (0.32) starts over, so its text begins with the prompt's text."""
    server = Server(token_exact=True)
    async with connected(server) as generator:
        server.answer = in_turn(
            completion("fine", tokens=[11, 14]),
            completion("abfine\u00e9", tokens=[15], finish="length"),
            completion("abfine", "stop", tokens=[15], stop_reason="a"),
            completion("abfine\u00e9fine", "stop", tokens=[15, 11, 2], stop_reason=None),
        )
        first = await one(generator, prompt=[7, 8])
        ids = [7, 8, *first.tokens]
        assert (first.text, (await one(generator, prompt=ids)).text) == ("fine", "\u00e9")
        early = await one(generator, prompt=ids, delimiter="a")
        assert (early.text, early.finish) == ("\u00e9", "length")  # the stop string was the prompt's
        ended = await one(generator, prompt=ids)
        assert (ended.text, ended.finish, ended.num_tokens) == ("\u00e9fine", "end", 3)


@pytest.mark.parametrize("whole", [0, 1, 2, 9])
async def test_a_character_cut_in_two_after_others_of_bytes(whole: int) -> None:
    """With byte fallback, half a character garbles the characters before it in its run of bytes.

    Those were reported already, so they must not come again.
    """
    server = Server(token_exact=True)
    server.spell = spell_runs
    async with connected(server) as generator:
        run = [14, 15] * whole
        server.answer = in_turn(
            completion("\u00e9" * whole, tokens=[*run, 14]),
            completion("ab\ufffd", tokens=[15, 14]),
            completion("ab\ufffd", tokens=[15, 11]),
        )
        ids, texts = [7, 8], list[str]()
        for _ in range(3):
            got = await one(generator, prompt=ids, max_tokens=32)
            ids, texts = ids + got.tokens, [*texts, got.text]
    assert texts == ["\u00e9" * whole, "\u00e9", "\u00e9fine"]


async def test_the_token_that_completes_a_stop_string_of_many_tokens_is_kept_whole() -> None:
    server = Server(token_exact=True)
    async with connected(server) as generator:
        stop = "\u00e9" * 9
        server.answer = in_turn(completion(f"fine{stop}", "stop", tokens=[11, *[14, 15] * 8, 14, 16], stop_reason=stop))
        got = await one(generator, prompt=[7], delimiter=stop, max_tokens=32)
    assert (got.text, got.finish) == (f"fine{stop}!", "step")


async def test_a_prompt_without_room_is_refused() -> None:
    async with connected(Server(token_exact=True), max_context=4) as generator:
        for prompt in ([], [7] * 4):
            with pytest.raises(UserError, match=f"a prompt of {len(prompt)} tokens; it takes 1 to 3"):
                await one(generator, prompt=prompt)


async def test_token_mode_without_a_chat_template(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(Server(token_exact=True)) as generator:
        assert await generator.encode([{"role": "user", "content": "Why?"}]) == [7, 8, 9]
    assert "prompts are plain text" in caplog.text


async def test_cached_tokens_are_told_apart() -> None:
    server = Server(token_exact=True)
    async with connected(server) as generator:
        reply = completion("fine", tokens=[11])
        reply["usage"]["prompt_tokens_details"] = {"cached_tokens": 3}
        server.answer = in_turn(reply)
        got = await one(generator, prompt=[7] * 5)
    assert (got.prefill, got.cached) == (2, 3)


async def test_the_deadline_returns_what_has_come() -> None:
    server = Server(token_exact=True)
    async with connected(server) as generator:
        piece: Json = {"choices": [{"text": "fine", "token_ids": [11], "logprobs": {"token_logprobs": [-0.5]}}]}
        server.answer = in_turn(events(piece, piece, then=None))
        got = await one(generator, prompt=[7, 8], deadline=time.monotonic() + 0.1, logprobs=True)
        await asyncio.sleep(0.01)
        assert server.hung_up == 1
        assert got == Completion([11, 11], 2, "finefine", "length", [-0.5, -0.5], 2, 0)
        assert await one(generator, prompt=[7, 8], deadline=time.monotonic() - 1) == Completion(
            [], 0, "", "length", None, 0, 0
        )


async def test_the_deadline_before_the_usage_counts_chunks() -> None:
    server = Server()
    async with connected(server) as generator:
        pieces: list[Json] = [{"choices": [{"text": "do"}]}, {"choices": [{"text": "ne.", "finish_reason": "stop"}]}]
        server.answer = in_turn(events(*pieces, then=None), events(*pieces))
        got = await one(generator, deadline=time.monotonic() + 0.2)
        assert got == Completion([], 2, "done.", "end", None, 0, 0)
        got = await one(generator, deadline=time.monotonic() + 5)
        assert got == Completion([], 2, "done.", "end", None, 0, 0)


async def test_a_stream_that_ends_before_the_deadline_is_whole() -> None:
    server = Server(token_exact=True)
    async with connected(server) as generator:
        whole = completion("fine", "stop", tokens=[11, 2], stop_reason=None, prompt=2)
        server.answer = in_turn(events(then=""), events({"error": {"message": "busy"}}), events(whole))
        got = await one(generator, prompt=[7, 8], deadline=time.monotonic() + 2)
    assert got == Completion([11, 2], 2, "fine", "end", None, 2, 0)
    assert len(server.bodies) == 3


# Failures


@pytest.mark.parametrize(
    "failure",
    [
        lambda writer: send(writer, 500, "boom"),
        lambda writer: send(writer, 503, {"error": {"message": "loading"}}),
        reset_within_body,
        lambda writer: writer.transport.abort(),
    ],
)
async def test_a_failure_that_passes_is_tried_again(failure: Any) -> None:
    server = Server()
    async with connected(server) as generator:
        server.answer = in_turn(failure, failure, completion("4"))
        assert (await one(generator)).text == "4"
    assert len(server.bodies) == 3


async def test_retry_after_is_honoured() -> None:
    server = Server()
    async with connected(server) as generator:
        server.answer = in_turn(lambda writer: send(writer, 429, "slow down", Retry_After="0.2"), completion("4"))
        assert (await one(generator)).text == "4"
    assert server.times[1] - server.times[0] >= 0.2


async def test_a_hanging_server_times_out() -> None:
    server = Server()
    async with connected(server, timeout=0.05, retries=1) as generator:
        server.answer = in_turn(hang, hang)
        with pytest.raises(ServerFailed, match="tried 2 times: no answer in time"):
            await one(generator)


async def test_retries_are_used_up() -> None:
    server = Server()
    async with connected(server) as generator:
        server.answer = in_turn(*[lambda writer: send(writer, 500, "boom")] * 3)
        with pytest.raises(ServerFailed, match="/v1/completions failed, tried 3 times: HTTP 500: boom"):
            await one(generator)
    assert len(server.bodies) == 3


async def test_a_server_that_dies() -> None:
    """The server drops its connections, and then nothing listens."""
    server = Server()
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    generator = await OpenAIGenerator.connect(url, "tiny", retries=1, backoff=0.001)

    def die(writer: asyncio.StreamWriter) -> None:
        listening.close()
        writer.transport.abort()

    server.answer = in_turn(die, die)
    errors = await asyncio.gather(*(one(generator) for _ in range(2)), return_exceptions=True)
    assert [type(error) for error in errors] == [ServerFailed] * 2
    assert all(str(error).startswith(f"{url}/completions failed, tried ") for error in errors)
    await generator.close()


async def test_a_refusal_is_not_tried_again() -> None:
    server = Server()
    async with connected(server) as generator:
        too_long = {"error": {"message": "maximum context\nlength is 16"}}
        server.answer = in_turn(lambda writer: send(writer, 400, too_long), lambda writer: send(writer, 401, "who?"))
        with pytest.raises(UserError, match=r"\(HTTP 400\): maximum context length is 16"):
            await one(generator)
        with pytest.raises(UserError, match=r"refused the API key \(HTTP 401: who\?\)"):
            await one(generator)
    assert len(server.bodies) == 2


async def test_the_first_error_ends_all_completions_of_a_request() -> None:
    server = Server()
    async with connected(server, concurrency=1) as generator:
        server.answer = in_turn(completion("4"), lambda writer: send(writer, 400, "no"), hang, hang)
        with pytest.raises(UserError, match="no"):
            await one(generator, n=4)
        await server.idle()


# Concurrency


async def test_no_more_requests_are_open_than_allowed() -> None:
    server = Server()

    async def slow(body: Json, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.005)
        send(writer, 200, completion(body["prompt"]))

    async with connected(server, concurrency=3) as generator:
        server.answer = slow
        requests = [generator.generate(Request(f"p{i}", GREEDY, 8, n=2)) for i in range(8)]
        results = await asyncio.gather(*requests)
    assert [[c.text for c in result] for result in results] == [[f"p{i}"] * 2 for i in range(8)]
    assert server.most_open == 3


async def test_decoding_does_not_wait_for_completions() -> None:
    server = Server(token_exact=True)
    async with connected(server, concurrency=1) as generator:
        server.answer = in_turn(completion("one\n\n", "stop", tokens=[12, 13], stop_reason="\n\n"), hang)
        first, second = (asyncio.create_task(one(generator, prompt=[7], delimiter="\n\n")) for _ in range(2))
        assert (await asyncio.wait_for(first, 1)).text == "one\n\n\nTwo"
        second.cancel()


async def test_cancellation_closes_the_connection() -> None:
    server = Server()
    async with connected(server) as generator:
        server.answer = in_turn(hang, completion("4"))
        call = asyncio.create_task(one(generator))
        await server.arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.idle()
        assert server.hung_up == 1
        assert (await one(generator)).text == "4"  # its turn was given back


async def test_closing_fails_those_who_wait() -> None:
    server = Server()
    async with connected(server, concurrency=1) as generator:
        server.answer = in_turn(hang, hang)
        calls = [asyncio.create_task(one(generator)) for _ in range(2)]
        await server.arrived.wait()
        await generator.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [RuntimeError, RuntimeError]
        with pytest.raises(RuntimeError, match="is closed"):
            await one(generator)
