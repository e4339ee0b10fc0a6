"""The generator against servers with other habits than vLLM's: the same answers, the same counts."""

import time
from dataclasses import replace
from typing import Any

import pytest

from infer.core.generator import Completion, Request, Sampling
from infer.errors import UserError
from infer.generate.openai import OpenAIGenerator
from tests.fake_server import HABITS, STEPS, WORDS, Habits, Server
from tests.generate.test_openai import connected

QUESTION = [{"role": "user", "content": "1+1=?"}]
GREEDY = Sampling(temperature=0.0)
STEPPING = {name: habits for name, habits in HABITS.items() if habits.completions or habits.continues}


async def complete(generator: OpenAIGenerator, prompt: Any, **fields: Any) -> Completion:
    (done,) = await generator.generate(Request(**{"prompt": prompt, "sampling": GREEDY, "max_tokens": 32, **fields}))
    return done


@pytest.mark.parametrize("deadline", [False, True])
@pytest.mark.parametrize("habits", HABITS.values(), ids=HABITS)
async def test_a_whole_answer(habits: Habits, deadline: bool) -> None:
    async with connected(Server(habits=habits)) as generator:
        prompt = await generator.encode(QUESTION)
        cut = time.monotonic() + 60 if deadline else None
        whole = await complete(generator, prompt, deadline=cut)
        short = await complete(generator, prompt, max_tokens=3, deadline=cut)
    assert (whole.text, whole.finish) == ("".join(STEPS), "end")
    end = 1 if habits.usage else 0  # pieces are counted: the end token is none
    if habits.usage or habits.streams != "never":
        assert whole.num_tokens == len(WORDS) + end
    assert (short.text, short.finish, short.num_tokens) == ("One and one", "length", 3)


@pytest.mark.parametrize("deadline", [False, True])
@pytest.mark.parametrize("habits", STEPPING.values(), ids=STEPPING)
async def test_an_answer_in_steps(habits: Habits, deadline: bool) -> None:
    """Where a server neither tells nor keeps the stop string, the steps after the first are streamed and cut here."""
    async with connected(Server(habits=habits)) as generator:
        prompt, texts, tokens = await generator.encode(QUESTION), list[str](), 0
        while True:
            cut = time.monotonic() + 60 if deadline else None
            step = await complete(generator, f"{prompt}{''.join(texts)}", delimiter="\n\n", deadline=cut)
            tokens += step.num_tokens
            if step.finish == "end":
                break
            assert step.finish == "step"
            texts.append(step.text)
        texts.append(step.text)
    assert texts[:2] == list(STEPS[:2])
    assert texts == list(STEPS)
    if habits.streams != "never":  # which goes on after each step
        # no pieces of a stream: the end token, and a token that was cut off whole
        assert len(WORDS) - (not habits.usage) <= tokens <= len(WORDS) + 1


@pytest.mark.parametrize(
    "habits", [habits for habits in HABITS.values() if not habits.continues and not habits.completions]
)
async def test_steps_where_a_chat_does_not_continue_are_refused_with_the_reason(habits: Habits) -> None:
    async with connected(Server(habits=habits)) as generator:
        prompt = await generator.encode(QUESTION)
        step = await complete(generator, prompt, delimiter="\n\n")
        assert step.text == STEPS[0]
        with pytest.raises(
            UserError, match="a chat endpoint alone, which does not continue an answer: no search in steps"
        ):
            await complete(generator, f"{prompt}{step.text}", delimiter="\n\n")


@pytest.mark.parametrize("habits", HABITS.values(), ids=HABITS)
async def test_several_answers_are_several_requests(habits: Habits) -> None:
    """No server here knows `n`."""
    server = Server(habits=habits)
    async with connected(server) as generator:
        prompt = await generator.encode(QUESTION)
        done = await generator.generate(Request(prompt, Sampling(temperature=1.0), 32, n=5, seed=7))
    assert [each.text for each in done] == ["".join(STEPS)] * 5
    assert sorted(body["seed"] for body in server.bodies) == [7, 8, 9, 10, 11]


@pytest.mark.parametrize("habits", HABITS.values(), ids=HABITS)
async def test_log_probabilities_in_either_form_or_refused(habits: Habits) -> None:
    async with connected(Server(habits=habits)) as generator:
        prompt = await generator.encode(QUESTION)
        if habits.logprobs is not None:
            done = await complete(generator, prompt, logprobs=True)
            assert done.logprobs == [-0.5] * len(WORDS)
        else:
            with pytest.raises(UserError, match="reports no log-probabilities"):
                await complete(generator, prompt, logprobs=True)


async def test_a_chats_prompt_is_its_messages_and_what_was_written() -> None:
    server = Server(habits=HABITS["SGLang, chat alone"])
    messages = [{"role": "system", "content": 'a\n"b"'}, {"role": "user", "content": "1+1=?\né"}]
    async with connected(server) as generator:
        prompt = await generator.encode(messages)
        assert not isinstance(prompt, list)
        await complete(generator, prompt)
        await complete(generator, prompt + STEPS[0])
        described = generator.describe()
    assert (described["endpoint"], described["token_exact"]) == ("chat/completions", False)
    first, second = server.bodies
    assert first["messages"] == messages
    assert "continue_final_message" not in first
    assert second["messages"] == [*messages, {"role": "assistant", "content": STEPS[0]}]
    assert (second["continue_final_message"], second["add_generation_prompt"]) == (True, False)


async def test_a_stream_that_ends_without_done_is_whole_where_it_said_why_it_stopped() -> None:
    habits = replace(HABITS["TGI"], streams="always")
    async with connected(Server(habits=habits)) as generator:
        done = await complete(generator, await generator.encode(QUESTION))
    assert (done.text, done.finish) == ("".join(STEPS), "end")
