"""The laws of generators."""

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import pytest_asyncio
from scipy import stats

from infer.core.generator import Completion, Generator, Request, Sampling
from infer.core.tasks import gather_or_cancel
from infer.errors import UserError

GREEDY = Sampling(temperature=0.0)
WARM = Sampling(temperature=1.0)
HOT = Sampling(temperature=2.0)  # servers take no more

UNLIKELY = 1e-6
"""A right sampler fails a statistical test with this probability."""
PATIENCE = 5
"""Seconds for a generator to end its calls."""


class GeneratorLaws:
    """Laws that every generator keeps: pytest runs them on a class derived from this one.

        class TestMine(GeneratorLaws):
            async def open(self):
                return await open_mine("DIR")

    Each law opens a generator and closes it. If a model takes long to load, override the fixture `generator` with one
    of a larger scope. To leave a law out, set its name to None in the class.
    """

    prompts: ClassVar[Sequence[str]] = ("23+54=?", "(12+30)*2-14=?", "((23+54)*2-88+89-99)*6=?")
    """The user messages that the laws send, two or more.

    Greedy answers have to be of more than three characters each, and one of them has to end within `max_tokens`.
    """
    max_tokens: ClassVar[int] = 60
    """Maximum tokens per completion."""
    token_ids: ClassVar[bool] = True
    """Whether prompts and completions are token ids. Without, what depends on ids is not checked."""
    reproducible: ClassVar[bool] = True
    """Whether a seed gives the same tokens in any company. Leave it True in float32.

    In 16 bits the noise of batching may change a token, and with it all that follow. With False, three quarters of
    single tokens have to be those of their seeds, and whole completions are not compared.
    """
    tolerance: ClassVar[float] = 1e-3
    """By how much a log-probability may differ between one request and several."""
    draws: ClassVar[int] = 400
    """How many single tokens each test of a distribution draws."""
    sized: ClassVar[bool] = True
    """Whether the cost model knows the sizes of the model under test (`Generator.spec`)."""

    async def open(self) -> Generator:
        """Opens the generator under test: override it."""
        raise NotImplementedError("give your class an async method `open` that returns a generator")

    @pytest_asyncio.fixture
    async def generator(self) -> AsyncIterator[Generator]:
        """The generator under test."""
        generator = await self.open()
        yield generator
        await generator.close()

    def held(self, generator: Any) -> int | None:
        """How many completions the generator has in the making; None where that can't be seen.

        With it, the laws see that a cancelled call frees what it held. Without it, they see only that later calls work.
        """
        return None

    @pytest.mark.asyncio
    @pytest.mark.parametrize("size", [None, 3], ids=["steps", "three tokens"])
    async def test_greedy_in_steps_is_greedy_in_one_go(self, generator: Generator, size: int | None) -> None:
        """Each piece is asked for from the tokens so far: tokens, texts and log-probabilities add up."""
        if not self.token_ids:
            pytest.skip("it needs token ids, and this generator returns text only")
        for request in await self._requests(generator, sampling=GREEDY, logprobs=True):
            (whole,) = await generator.generate(request)
            mark = None if size else _mark(whole.text)
            step = replace(request, delimiter=mark)
            pieces: list[Completion] = []
            while (count := sum(piece.num_tokens for piece in pieces)) < whole.num_tokens:
                prompt = [*request.prompt, *(token for piece in pieces for token in piece.tokens)]
                limit = min(size or self.max_tokens, self.max_tokens - count)
                (piece,) = await generator.generate(replace(step, prompt=prompt, max_tokens=limit))
                assert piece.num_tokens > 0, "no tokens: the one that completes the delimiter belongs to the step"
                assert piece.finish in ("length" if size else "step", whole.finish)
                if mark is not None:
                    assert (mark in piece.text) == (piece.finish == "step"), "the new text alone counts"
                pieces.append(piece)
            assert [token for piece in pieces for token in piece.tokens] == whole.tokens
            assert "".join(piece.text for piece in pieces) == whole.text
            logprobs = [value for piece in pieces for value in piece.logprobs or []]
            assert logprobs == pytest.approx(whole.logprobs, abs=self.tolerance)
            assert (pieces[-1].finish == "end") == (whole.finish == "end")

    @pytest.mark.asyncio
    async def test_n_completions_are_those_of_successive_seeds(self, generator: Generator) -> None:
        texts = set()
        for request in await self._requests(generator, n=4, seed=10):
            together = await generator.generate(request)
            alone = [await generator.generate(replace(request, n=1, seed=10 + i)) for i in range(4)]
            self._assert_same(together, [completion for (completion,) in alone])
            texts |= {completion.text for completion in together}
        assert len(texts) > len(self.prompts), "all seeds gave the same"

    @pytest.mark.asyncio
    async def test_a_token_is_that_of_its_seed(self, generator: Generator) -> None:
        """Drawn with others or alone, whichever comes first. Most are, even where batching makes noise."""
        request, count = await self._undecided(generator), 32
        together = await generator.generate(replace(request, n=count, seed=50))
        backwards = [replace(request, seed=50 + i) for i in reversed(range(count))]
        alone = [done for (done,) in await gather_or_cancel(map(generator.generate, backwards))]
        same = sum(map(_same_token, together, reversed(alone)))
        least = count if self.reproducible else 0.75 * count
        assert same >= least, f"of {count} tokens drawn together, {same} are those that their seeds give alone"

    @pytest.mark.asyncio
    async def test_a_seed_gives_the_same_alone_and_in_a_crowd(self, generator: Generator) -> None:
        requests = await self._requests(generator, n=2, seed=2**40)
        alone = [await generator.generate(request) for request in requests]
        hot = [replace(request, sampling=Sampling(temperature=1.5, top_p=0.9), n=3, seed=7) for request in requests]
        together = await asyncio.gather(*map(generator.generate, [*hot, *reversed(requests), *hot]))
        for one, other in zip(alone, reversed(together[len(hot) : -len(hot)]), strict=True):
            self._assert_same(one, other)

    @pytest.mark.asyncio
    @pytest.mark.parametrize("finish", ["end", "step"], ids=["stop string", "delimiter"])
    async def test_a_stop_string_ends_a_completion_and_stays_in_it(self, generator: Generator, finish: str) -> None:
        for request in await self._requests(generator, sampling=GREEDY):
            (whole,) = await generator.generate(request)
            mark = _mark(whole.text)
            sampling = replace(GREEDY, stop=(mark,)) if finish == "end" else GREEDY
            stopping = replace(request, sampling=sampling, delimiter=mark if finish == "step" else None)
            (stopped,) = await generator.generate(stopping)
            assert stopped.finish == finish
            assert mark in stopped.text
            assert whole.text.startswith(stopped.text)
            assert stopped.tokens == whole.tokens[: len(stopped.tokens)]
            # the last token completes it
            if stopped.num_tokens > 1:
                (shorter,) = await generator.generate(replace(stopping, max_tokens=stopped.num_tokens - 1))
                assert shorter.finish == "length"
                assert mark not in shorter.text

    @pytest.mark.asyncio
    async def test_the_end_token_is_counted_and_not_shown(self, generator: Generator) -> None:
        ended = 0
        for request in await self._requests(generator, sampling=GREEDY):
            (whole,) = await generator.generate(request)
            if whole.finish != "end":
                continue
            ended += 1
            (before,) = await generator.generate(replace(request, max_tokens=max(1, whole.num_tokens - 1)))
            assert whole.num_tokens == 1 or before.finish == "length", "the end token is not the last one"
            shown = whole.text.removeprefix(before.text).rstrip("\ufffd")  # bytes that nothing completes are shown
            assert whole.num_tokens == 1 or not shown, f"the end token is shown as {shown!r}"
            if self.token_ids:
                *tokens, end = whole.tokens
                assert end not in tokens
                # the tokens before it alone lead to it
                (last,) = await generator.generate(replace(request, prompt=[*request.prompt, *tokens], max_tokens=1))
                assert (last.tokens, last.finish) == ([end], "end"), "the last of the tokens is not the end token"
        assert ended, "no greedy completion ended by itself. If it knows its end tokens, give other `prompts`"

    @pytest.mark.asyncio
    async def test_a_limit_of_tokens_cuts(self, generator: Generator) -> None:
        for request in await self._requests(generator, sampling=GREEDY):
            (whole,) = await generator.generate(request)
            for limit in (1, 5):
                (cut,) = await generator.generate(replace(request, max_tokens=limit))
                assert cut.num_tokens == min(limit, whole.num_tokens)
                assert cut.finish == ("length" if limit < whole.num_tokens else whole.finish)
                assert cut.tokens == whole.tokens[:limit]
                assert whole.text.startswith(cut.text)

    @pytest.mark.asyncio
    async def test_the_whole_context_can_be_used_and_no_more(self, generator: Generator) -> None:
        if not self.token_ids:
            pytest.skip("it needs token ids, and this generator returns text only")
        if generator.max_context > 4096:
            pytest.skip("open it with a context of 4,096 tokens or less, and this law is checked")
        (request, *_) = await self._requests(generator, n=8)
        room = 3
        size = generator.max_context - room
        prompt = ([*request.prompt] * size)[:size]
        for limit in (room, room + 20):
            for completion in await generator.generate(replace(request, prompt=prompt, max_tokens=limit)):
                assert completion.num_tokens <= room, f"{limit} tokens were asked for, and there was room for {room}"
                assert completion.finish == "end" or (completion.num_tokens, completion.finish) == (room, "length")
                assert completion.prefill + completion.cached == size
        with pytest.raises(UserError):
            await generator.generate(replace(request, prompt=[*prompt, *request.prompt[:1] * room]))

    @pytest.mark.asyncio
    async def test_every_token_is_counted(self, generator: Generator) -> None:
        requests = await self._requests(generator, n=3, logprobs=True)
        plain = [replace(request, logprobs=False) for request in requests]
        results = await asyncio.gather(*map(generator.generate, [*requests, *plain]))
        for request, completions in zip([*requests, *plain], results, strict=True):
            for completion in completions:
                assert 0 < completion.num_tokens <= self.max_tokens
                assert completion.finish in ("end", "length")
                assert completion.prefill >= 0
                assert completion.cached >= 0
                if self.token_ids:
                    assert completion.num_tokens == len(completion.tokens)
                    assert completion.prefill + completion.cached == len(request.prompt)
                else:
                    assert completion.tokens == []
                    assert completion.prefill + completion.cached > 0
                if request.logprobs:
                    assert completion.logprobs is not None
                    assert len(completion.logprobs) == completion.num_tokens
                    assert all(value <= 0 for value in completion.logprobs)
                else:
                    assert completion.logprobs is None

    @pytest.mark.asyncio
    async def test_a_new_prompt_is_computed(self, generator: Generator) -> None:
        """Not all of it can be cached, though a chat template may begin like others."""
        content = list(self.prompts[-1] * 5)
        random.shuffle(content)
        prompt = await generator.encode([{"role": "user", "content": "".join(content)}])
        completions = await generator.generate(Request(prompt, WARM, 1, n=4))
        size = completions[0].prefill + completions[0].cached
        assert sum(completion.prefill for completion in completions) > size / 2

    @pytest.mark.asyncio
    @pytest.mark.parametrize("sampling", [WARM, Sampling(temperature=0.5), HOT], ids=["1", "half", "2"])
    async def test_tokens_are_drawn_as_their_log_probabilities_say(
        self, generator: Generator, sampling: Sampling
    ) -> None:
        """Those of a temperature are the model's own, to the power of its inverse and normalized: a chi-square test."""
        request = replace(await self._undecided(generator), n=self.draws)
        known = self._logprobs(await generator.generate(replace(request, seed=10**6)))
        assert len(known) > 1, "all tokens were the same: choose other `prompts`"
        total = math.fsum(map(math.exp, known.values()))
        assert total <= math.exp(self.tolerance), f"the probabilities of {len(known)} tokens add up to {total}"
        tokens = list(map(self._token, await generator.generate(replace(request, sampling=sampling, seed=2 * 10**6))))
        if sampling == WARM:
            expected = {token: math.exp(value) for token, value in known.items()} | {None: max(0.0, 1 - total)}
            counts = Counter(token if token in known else None for token in tokens)
        else:  # the probabilities of tokens that are not known would be needed, so it is among those that are
            expected = {token: math.exp(value / sampling.temperature) for token, value in known.items()}
            counts = Counter(token for token in tokens if token in known)
        likely = _fit(counts, expected)
        drawn = {token: (counts[token], round(counts.total() * share)) for token, share in _shares(expected).items()}
        assert likely > UNLIKELY, f"{sampling}: how often each token was drawn, and was to be expected: {drawn}"

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        "sampling",
        [replace(HOT, top_k=2), replace(WARM, top_p=0.5), replace(WARM, min_p=0.3)],
        ids=["top_k", "top_p", "min_p"],
    )
    async def test_a_truncation_leaves_the_likeliest_tokens(self, generator: Generator, sampling: Sampling) -> None:
        request = replace(await self._undecided(generator), n=self.draws)
        all_of_them = self._logprobs(await generator.generate(replace(request, seed=10**6)))
        kept = self._logprobs(await generator.generate(replace(request, sampling=sampling)))
        known = all_of_them | kept
        for token, own in kept.items():
            above = [math.exp(value) for value in known.values() if value > own + self.tolerance]
            told = f"{sampling}: {token} was drawn, of probability {math.exp(own):.3f}; above it: {sorted(above)}"
            assert not sampling.top_k or len(above) < sampling.top_k, told
            assert math.fsum(above) < sampling.top_p + self.tolerance, told
            assert math.exp(own + self.tolerance) >= sampling.min_p * math.exp(max(known.values())), told
        assert len(kept) > 1 or not sampling.top_k, f"{sampling}: a single token was drawn"

    @pytest.mark.asyncio
    @pytest.mark.parametrize("only_one", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}], ids=["k", "p", "min"])
    async def test_a_truncation_to_one_token_is_greedy(self, generator: Generator, only_one: dict[str, Any]) -> None:
        """Log-probabilities are the model's own, before temperature and truncation: they stay the same."""
        for request in await self._requests(generator, sampling=GREEDY, seed=5, logprobs=True):
            (greedy,) = await generator.generate(request)
            sampling = replace(GREEDY, temperature=1.5, **only_one)
            (truncated,) = await generator.generate(replace(request, sampling=sampling))
            self._assert_same([truncated], [greedy])
            if (truncated.tokens, truncated.text) == (greedy.tokens, greedy.text):
                assert truncated.logprobs == pytest.approx(greedy.logprobs, abs=self.tolerance)

    @pytest.mark.asyncio
    async def test_a_cancelled_call_frees_what_it_held(self, generator: Generator) -> None:
        (request, *_) = await self._requests(generator, sampling=GREEDY)
        before = await generator.generate(request)
        call = asyncio.create_task(generator.generate(replace(request, sampling=WARM, n=8)))
        await asyncio.sleep(0)
        while self.held(generator) == 0 and not call.done():  # noqa: ASYNC110  (it may be on a server)
            await asyncio.sleep(0.001)
        assert call.cancel(), f"it was done before it could be cancelled: {_BLOCKED}"
        with pytest.raises(asyncio.CancelledError):
            await call
        end = time.monotonic() + PATIENCE
        while (held := self.held(generator)) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not held, f"{PATIENCE} s after the call was cancelled, `held` is still {held}"
        self._assert_same(await generator.generate(request), before)

    @pytest.mark.asyncio
    async def test_closing_fails_those_who_wait(self) -> None:
        """With an error that can be caught, and not as if they had been cancelled themselves."""
        if type(self).open is GeneratorLaws.open:
            pytest.skip("give the class a method `open`, and this law is checked")
        generator = await self.open()
        try:
            requests = await self._requests(generator, n=16) * 4
            calls = [asyncio.create_task(generator.generate(request)) for request in requests]
            await asyncio.sleep(0)
            while self.held(generator) == 0 and not all(call.done() for call in calls):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert not all(call.done() for call in calls), f"all were done before it could be closed: {_BLOCKED}"
        finally:
            async with asyncio.timeout(PATIENCE):
                await generator.close()
        calls.append(asyncio.create_task(generator.generate(requests[0])))
        _, waiting = await asyncio.wait(calls, timeout=PATIENCE)
        for call in waiting:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert not waiting, f"{PATIENCE} s after it was closed, {len(waiting)} calls still wait"
        errors = [result for result in results if isinstance(result, BaseException)]
        assert len(errors) > 1, "closing it let all calls go on"
        assert all(isinstance(error, Exception) for error in errors), f"{errors[0]!r} looks like a cancellation"
        assert isinstance(results[-1], Exception), "it was closed, and took another call"

    @pytest.mark.asyncio
    async def test_a_deadline_leaves_the_beginning_of_what_would_have_come(self, generator: Generator) -> None:
        """Whenever it comes. Where it has passed, nothing more is asked of the model."""
        request = (await self._requests(generator, n=16, seed=3, logprobs=True))[-1]
        await generator.generate(request)  # a first call may take longer
        start = time.monotonic()
        whole = await generator.generate(request)
        seconds = time.monotonic() - start
        for wait in (-1.0, 0.1 * seconds, 0.5 * seconds, seconds + 60):
            cut = await generator.generate(replace(request, deadline=time.monotonic() + wait))
            assert len(cut) == request.n
            for completion, rest in zip(cut, whole, strict=True):
                assert completion.logprobs is not None
                if self.token_ids:
                    assert len(completion.logprobs) == completion.num_tokens == len(completion.tokens)
                if self.reproducible:
                    assert completion.num_tokens <= rest.num_tokens
                    assert completion.finish == "length" or completion.num_tokens == rest.num_tokens
                    assert completion.tokens == rest.tokens[: len(completion.tokens)]
                    assert rest.text.startswith(completion.text)
            count, most = (sum(completion.num_tokens for completion in results) for results in (cut, whole))
            if wait < 0:
                assert count <= request.n, f"the deadline had passed, and {count} tokens were sampled"
            elif wait < 0.5 * seconds and seconds > 0.1:
                assert count < most, f"the deadline came early, and all {count} tokens were sampled"
        self._assert_same(cut, whole)

    @pytest.mark.asyncio
    async def test_its_description_is_json_and_names_the_backend(self, generator: Generator) -> None:
        described = json.loads(json.dumps(generator.describe()))
        assert described["backend"]

    @pytest.mark.asyncio
    async def test_its_sizes_are_known(self, generator: Generator) -> None:
        if not self.sized:
            pytest.skip("the cost model does not know this model")
        assert generator.spec is not None, "read it by infer.cost.config.known_spec, or set `sized = False`"
        assert generator.spec.params > 0

    @pytest.mark.asyncio
    async def test_a_chat_is_encoded_whole_and_ready_for_the_answer(self, generator: Generator) -> None:
        """The assistant's first token comes next. It is as in a longer chat, where the answer stands there."""
        contents = [self.prompts[0], self.prompts[1], self.prompts[-1]]
        roles = ("user", "assistant", "user")
        chat = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        whole = await generator.encode(chat)
        for i, message in enumerate(chat):
            other = [*chat[:i], {**message, "content": message["content"] * 2}, *chat[i + 1 :]]
            assert await generator.encode(other) != whole, f"message {i + 1} of 3 is not in the prompt"
        begun, answer = await generator.encode(chat[:1]), await generator.tokenize(contents[1])
        if self.token_ids:
            expected = [*begun, *answer]
            assert whole[: len(expected)] == expected, "a prompt, and the answer's tokens, don't begin the longer chat"
        else:
            assert answer == contents[1]

    @pytest.mark.asyncio
    async def test_a_reader_gives_the_probability_of_one_token_over_another(self, generator: Generator) -> None:
        if not self.token_ids:
            pytest.skip("it needs token ids, and this generator returns text only")
        request = await self._undecided(generator)
        assert not isinstance(request.prompt, str)
        logprobs: dict[str, float] = {}
        for completion in await generator.generate(replace(request, n=64)):
            if await generator.tokenize(completion.text) == completion.tokens:
                logprobs[completion.text] = (completion.logprobs or [])[0]
        if len(logprobs) < 2:
            pytest.skip("fewer than two tokens were drawn that a text alone encodes to: choose other `prompts`")
        first, second, *_ = sorted(logprobs, key=lambda text: -logprobs[text])
        try:
            readers = [generator.reader(pair) for pair in ((first, second), (second, first))]
        except UserError as error:
            pytest.skip(f"it can't be read: {error}")
        size = len(request.prompt)
        scores = [await reader.read(request.prompt, [size // 2, size]) for reader in readers]
        for score, other in zip(*(each.values for each in scores), strict=True):
            assert 0 <= score <= 1
            assert score + other == pytest.approx(1, abs=self.tolerance)
        over = 1 / (1 + math.exp(logprobs[second] - logprobs[first]))
        assert scores[0].values == pytest.approx([scores[0].values[0], over], abs=self.tolerance)
        assert scores[0].prefill + scores[0].cached >= size

    async def _requests(self, generator: Generator, **changes: Any) -> list[Request]:
        """One request for each of the prompts."""
        messages = [[{"role": "user", "content": prompt}] for prompt in self.prompts]
        prompts = [await generator.encode(chat) for chat in messages]
        assert all(isinstance(prompt, list) == self.token_ids for prompt in prompts)
        return [Request(prompt, **{"sampling": WARM, "max_tokens": self.max_tokens, **changes}) for prompt in prompts]

    async def _undecided(self, generator: Generator) -> Request:
        """A request for one token, of log-probability too, where no token is nearly certain.

        That is after the beginning of a completion drawn hot, up to the token of a probability nearest to 0.4.
        """
        hot = (await self._requests(generator, sampling=HOT, n=8, logprobs=True))[-1]
        completions = await generator.generate(hot)
        distance, seed, count = min(
            (abs(math.exp(value) - 0.4), hot.seed + i, count)
            for i, completion in enumerate(completions)
            for count, value in enumerate(completion.logprobs or [])
        )
        assert distance < 0.35, "all tokens drawn hot were nearly certain or impossible: give other `prompts`"
        prompt = hot.prompt
        if count:
            (begun,) = await generator.generate(replace(hot, n=1, seed=seed, max_tokens=count))
            prompt = f"{prompt}{begun.text}" if isinstance(prompt, str) else [*prompt, *begun.tokens]
        return replace(hot, prompt=prompt, sampling=WARM, max_tokens=1, n=1)

    def _token(self, completion: Completion) -> Hashable:
        """The one token of a completion; its text where there are no ids."""
        return completion.tokens[0] if self.token_ids else completion.text

    def _logprobs(self, completions: Sequence[Completion]) -> dict[Hashable, float]:
        """The log-probability of each token that was drawn, of completions of one token."""
        found: dict[Hashable, float] = {}
        for completion in completions:
            (value,) = completion.logprobs or []
            found[self._token(completion)] = value
        return found

    def _assert_same(self, first: Sequence[Completion], second: Sequence[Completion]) -> None:
        """The same completions, where the generator is reproducible."""
        assert len(first) == len(second)
        if self.reproducible:
            kept = [[(c.tokens, c.num_tokens, c.text, c.finish) for c in results] for results in (first, second)]
            assert kept[0] == kept[1]


def _mark(text: str) -> str:
    """Two characters that stand in the middle of a text, and may be a stop string."""
    middle = len(text) // 2
    assert len(text) > 3, "a law needs a longer greedy completion: override `prompts`"
    return text[middle - 1 : middle + 1]


_BLOCKED = "does it block the event loop? Run the model on a thread, or await asyncio.sleep(0) between forward passes"


def _same_token(one: Completion, other: Completion) -> bool:
    return (one.tokens, one.text, one.finish) == (other.tokens, other.text, other.finish)


def _shares(weights: Mapping[Hashable, float]) -> dict[Hashable, float]:
    total = math.fsum(weights.values())
    return {token: weight / total for token, weight in weights.items()}


def _fit(counts: Counter[Hashable], weights: Mapping[Hashable, float]) -> float:
    """The p-value of a chi-square test of counts, against what the weights lead to expect."""
    cells: list[list[float]] = []  # rare tokens share one, so that at least 10 are expected in each
    for token, share in sorted(_shares(weights).items(), key=lambda item: item[1]):
        if not cells or cells[-1][1] >= 10:
            cells.append([0, 0])
        cells[-1][0] += counts[token]
        cells[-1][1] += counts.total() * share
    statistic = math.fsum((count - expected) ** 2 / expected for count, expected in cells)
    return float(stats.chi2.sf(statistic, len(cells) - 1)) if len(cells) > 1 else 1.0
