"""The laws of generators."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from infer.core.generator import Completion, Generator, Request, Sampling

GREEDY = Sampling(temperature=0.0)
WARM = Sampling(temperature=1.0)


class GeneratorLaws:
    """Laws that every generator keeps: pytest runs them on a class derived from this one.

        class TestMine(GeneratorLaws):
            @pytest_asyncio.fixture
            async def generator(self):
                generator = await open_mine("DIR")
                yield generator
                await generator.close()

    Many completions are asked for at once: give the fixture a larger scope if a model takes long to load. To leave a
    law out, set its name to None in the class.
    """

    prompts: ClassVar[Sequence[str]] = ("23+54=?", "(12+30)*2-14=?", "((23+54)*2-88+89-99)*6=?")
    """The user messages that the laws send. Choose some with a greedy answer of more than three characters."""
    max_tokens: ClassVar[int] = 60
    """Maximum tokens per completion."""
    token_ids: ClassVar[bool] = True
    """Whether prompts and completions are token ids. Without, what depends on ids is not checked."""
    reproducible: ClassVar[bool] = True
    """Whether a seed gives the same tokens in any company. In 16 bits the noise of batching may change a token."""
    tolerance: ClassVar[float] = 1e-3
    """By how much a log-probability may differ between one request and several."""

    @pytest.fixture
    def generator(self) -> Any:
        """The generator under test: override it."""
        raise NotImplementedError("give your class a fixture `generator`")

    def held(self, generator: Any) -> int | None:
        """How many completions the generator has in the making; None where that can't be seen."""
        return None

    @pytest.mark.asyncio
    @pytest.mark.parametrize("size", [None, 3], ids=["steps", "three tokens"])
    async def test_greedy_in_steps_is_greedy_in_one_go(self, generator: Generator, size: int | None) -> None:
        """Each piece is asked for from the tokens so far: tokens, texts and log-probabilities add up."""
        if not self.token_ids:
            pytest.skip("it needs token ids, and this generator returns text only")
        for request in await self._requests(generator, sampling=GREEDY, logprobs=True):
            (whole,) = await generator.generate(request)
            step = replace(request, delimiter=None if size else _mark(whole.text))
            pieces: list[Completion] = []
            while (count := sum(piece.num_tokens for piece in pieces)) < whole.num_tokens:
                prompt = [*request.prompt, *(token for piece in pieces for token in piece.tokens)]
                limit = min(size or self.max_tokens, self.max_tokens - count)
                (piece,) = await generator.generate(replace(step, prompt=prompt, max_tokens=limit))
                assert piece.num_tokens > 0
                assert piece.finish in ("length" if size else "step", whole.finish)
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
        for completion in await generator.generate(replace(request, prompt=prompt, max_tokens=room)):
            assert completion.num_tokens <= room
            assert completion.finish == "end" or completion.num_tokens == room
            assert completion.prefill + completion.cached == size

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
    @pytest.mark.parametrize("only_one", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}], ids=["k", "p", "min"])
    async def test_a_truncation_to_one_token_is_greedy(self, generator: Generator, only_one: dict[str, Any]) -> None:
        for request in await self._requests(generator, sampling=GREEDY, seed=5):
            (greedy,) = await generator.generate(request)
            sampling = replace(GREEDY, temperature=1.5, **only_one)
            (truncated,) = await generator.generate(replace(request, sampling=sampling))
            self._assert_same([truncated], [greedy])

    @pytest.mark.asyncio
    async def test_a_cancelled_call_frees_what_it_held(self, generator: Generator) -> None:
        (request, *_) = await self._requests(generator, sampling=GREEDY)
        before = await generator.generate(request)
        call = asyncio.create_task(generator.generate(replace(request, sampling=WARM, n=8)))
        await asyncio.sleep(0)
        while self.held(generator) == 0 and not call.done():  # noqa: ASYNC110  (it may be on a server)
            await asyncio.sleep(0.001)
        assert call.cancel(), "it was done before it could be cancelled"
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(5):
            while self.held(generator):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        self._assert_same(await generator.generate(request), before)

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
                assert count <= request.n
            elif wait < 0.5 * seconds and seconds > 0.1:
                assert count < most
        self._assert_same(cut, whole)

    @pytest.mark.asyncio
    async def test_its_description_is_json_and_names_the_backend(self, generator: Generator) -> None:
        described = json.loads(json.dumps(generator.describe()))
        assert described["backend"]

    async def _requests(self, generator: Generator, **changes: Any) -> list[Request]:
        """One request for each of the prompts."""
        messages = [[{"role": "user", "content": prompt}] for prompt in self.prompts]
        prompts = [await generator.encode(chat) for chat in messages]
        assert all(isinstance(prompt, list) == self.token_ids for prompt in prompts)
        return [Request(prompt, **{"sampling": WARM, "max_tokens": self.max_tokens, **changes}) for prompt in prompts]

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
