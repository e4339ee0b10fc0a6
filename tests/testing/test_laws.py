"""The packaged laws: another package's strategies and generators can be tested by them, and broken ones fail."""

import asyncio
import itertools
import math
import os
import random
import re
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infer.core.generator import Completion, Message, Request, Sampling
from infer.core.options import Options, ScoredOptions
from infer.core.pricing import Call
from infer.core.reader import Reader
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.usage import Usage
from infer.core.verifier import Scores
from infer.cost.model import ModelSpec
from infer.testing import GeneratorLaws, StrategyLaws, generator_laws, toy
from infer.testing.toy import ToyGenerator

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


class TestToyGenerator(GeneratorLaws):
    prompts = ("48", "27", "265")

    async def open(self) -> ToyGenerator:
        return ToyGenerator()

    def held(self, generator: ToyGenerator) -> int:
        return generator.in_flight


LAWS = """
from dataclasses import replace

import pytest_asyncio
from elsewhere import shortest
from infer.testing import GeneratorLaws, StrategyLaws
from infer.testing.toy import ToyGenerator


class TestTheFunction(StrategyLaws):
    strategy = shortest


class TestMine(GeneratorLaws):
    prompts = ["48", "27", "265"]

    async def open(self):
        return ToyGenerator()


class Texts(ToyGenerator):
    async def encode(self, messages):
        return "".join(message["content"] for message in messages)

    async def tokenize(self, text):
        return text

    async def generate(self, request):
        ids = await super().tokenize(request.prompt)
        return [replace(done, tokens=[]) for done in await super().generate(replace(request, prompt=ids))]


class TestTexts(TestMine):
    token_ids = False

    @pytest_asyncio.fixture
    async def generator(self):
        yield await self.open()

    async def open(self):
        return Texts()
"""


def example(name: str) -> str:
    """The Python block of CONTRIBUTING.md that begins with this comment."""
    found = re.search(rf"^( *)```python\n *# {re.escape(name)}\n(.*?)^\1```", CONTRIBUTING.read_text(), re.M | re.S)
    assert found is not None
    return textwrap.dedent(found[2])


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_another_package_runs_them(tmp_path: Path, mode: str) -> None:
    """The first strategy of CONTRIBUTING.md and its test run as another package, in a folder without settings."""
    (tmp_path / "elsewhere.py").write_text(example("strategies/shortest.py"))
    installed = tmp_path / "elsewhere-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[infer.strategies]\nshortest = elsewhere:shortest\n")
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_shortest.py").write_text(example("test_shortest.py"))
    (tests / "test_mine.py").write_text(LAWS)

    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", f"--asyncio-mode={mode}"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{CONTRIBUTING.parent}"}
    done = subprocess.run(command, cwd=tests, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout
    passed = set(re.findall(r"^PASSED \S+?::(\w+::\w+)", done.stdout, re.M))
    laws = {
        f"{name}::{law}"
        for name, base in (
            ("TestShortest", StrategyLaws),
            ("TestTheFunction", StrategyLaws),
            ("TestMine", GeneratorLaws),
        )
        for law in vars(base)
        if law.startswith("test_")
    }
    scored = "test_a_trajectory_too_long_for_the_verifier_is_not_scored_and_noted"
    assert laws - passed == {
        f"TestShortest::{scored}",  # the strategy asks for no scores
        f"TestTheFunction::{scored}",
        "TestMine::test_a_reader_gives_the_probability_of_one_token_over_another",  # a toy can't be read
    }


# Broken strategies

count = itertools.count()


async def fickle(search: Search, options: Options) -> Solution:
    """Its result depends on what ran before."""
    samples = await search.sample(search.root, 1 + next(count), until="end")
    return search.solution(samples[0])


async def greedy(search: Search, options: Options) -> Solution:
    """Its result does not depend on the seed."""
    (node,) = await search.sample(search.root, until="end", temperature=0)
    return search.solution(node)


async def free(search: Search, options: Options) -> Solution:
    """Reports no usage."""
    (node,) = await search.sample(search.root, until="end")
    return search.solution(node).model_copy(update={"usage": Usage()})


async def behind_the_ledger(search: Search, options: Options) -> Solution:
    """Calls the generator directly, so the ledger does not count it."""
    prompt = search.root.prefix()
    await search.setting.generator.generate(Request(prompt, search.setting.sampling, 100))
    return search.solution((await search.sample(search.root, until="end"))[0])


async def stubborn(search: Search, options: Options) -> Solution:
    """Continues when it is cancelled."""

    async def sample() -> Solution:
        nodes = [search.root]
        while nodes:
            nodes = [node for node in await search.sample(nodes, 2) if not node.final][:20]
        return search.solution(search.best())

    return await asyncio.shield(asyncio.create_task(sample()))


async def blind(search: Search, options: ScoredOptions) -> Solution:
    """Its options say that it scores, but it does not."""
    (node,) = await search.sample(search.root, until="end")
    return search.solution(node)


async def inventive(search: Search, options: Options) -> Solution:
    """Makes a node itself, not through the search."""
    (node,) = await search.sample(search.root)
    return search.solution(node.child(tokens=[1, 11], num_tokens=2, text="1", finish="end"))


@pytest.mark.parametrize(
    ("strategy", "law", "arguments"),
    [
        (fickle, "test_the_same_seed_gives_the_same_result_whatever_else_is_in_flight", {"budget": None}),
        (greedy, "test_another_seed_gives_another_result", {}),
        (free, "test_the_budget_is_never_exceeded_and_usage_is_what_the_models_did", {"budget": "1k"}),
        (behind_the_ledger, "test_the_budget_is_never_exceeded_and_usage_is_what_the_models_did", {"budget": "60tok"}),
        (stubborn, "test_a_cancelled_search_leaves_nothing_in_flight", {}),
        (blind, "test_a_trajectory_too_long_for_the_verifier_is_not_scored_and_noted", {"budget": None}),
        (inventive, "test_the_trace_has_the_whole_tree", {"budget": None}),
    ],
)
async def test_a_broken_strategy_fails(
    strategy: Callable[..., Awaitable[Solution]], law: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    class Laws(StrategyLaws):
        pass

    Laws.strategy = strategy
    given = {**arguments, "scored" if strategy is blind else "options": []}
    if strategy is inventive:
        given["tmp_path"] = tmp_path
    with pytest.raises((AssertionError, LookupError)):
        await getattr(Laws(), law)(**given)


# Broken generators


class Changed(ToyGenerator):
    """A toy generator that subclasses break, by a change to its requests or completions."""

    def request(self, request: Request) -> Request:
        return request

    def completion(self, done: Completion, request: Request) -> Completion:
        return done

    async def generate(self, request: Request) -> list[Completion]:
        return [self.completion(done, request) for done in await super().generate(self.request(request))]


class Forgetful(Changed):
    def request(self, request: Request) -> Request:
        return replace(request, prompt=request.prompt[-8:])


class OneSeed(Changed):
    async def generate(self, request: Request) -> list[Completion]:
        return [(await super(Changed, self).generate(replace(request, n=1)))[0] for _ in range(request.n)]


class Crowded(Changed):
    def request(self, request: Request) -> Request:
        return replace(request, seed=request.seed + self.in_flight)


class WithoutStops(Changed):
    def completion(self, done: Completion, request: Request) -> Completion:
        return replace(done, text=done.text[:-1]) if request.sampling.stop or request.delimiter else done


class Generous(Changed):
    def request(self, request: Request) -> Request:
        return replace(request, max_tokens=request.max_tokens + 1)


class Stingy(Changed):
    def request(self, request: Request) -> Request:
        room = self.max_context - len(request.prompt)
        return replace(request, max_tokens=min(request.max_tokens, room - 1))


class Uncounted(Changed):
    def completion(self, done: Completion, request: Request) -> Completion:
        return replace(done, cached=0)


class Certain(Changed):
    def completion(self, done: Completion, request: Request) -> Completion:
        return replace(done, logprobs=[0.1] * done.num_tokens) if request.logprobs else done


class Untruncated(Changed):
    def request(self, request: Request) -> Request:
        return replace(request, sampling=replace(request.sampling, top_k=0))


class Late(Changed):
    def request(self, request: Request) -> Request:
        return replace(request, deadline=None)


class Retrospective(Changed):
    """Finds the delimiter in the prompt too."""

    def request(self, request: Request) -> Request:
        return replace(request, max_tokens=1) if self._met(request) else request

    def completion(self, done: Completion, request: Request) -> Completion:
        return replace(done, finish="step") if self._met(request) else done

    def _met(self, request: Request) -> bool:
        assert not isinstance(request.prompt, str)
        return request.delimiter is not None and request.delimiter in toy.decode(request.prompt)


class Reversed(Changed):
    async def generate(self, request: Request) -> list[Completion]:
        return (await super().generate(request))[::-1]


class Endless(Changed):
    def completion(self, done: Completion, request: Request) -> Completion:
        return replace(done, finish="length")


class WithoutEnd(Changed):
    def completion(self, done: Completion, request: Request) -> Completion:
        if done.finish != "end":
            return done
        return replace(done, tokens=done.tokens[:-1], num_tokens=done.num_tokens - 1)


class EndShown(Changed):
    def completion(self, done: Completion, request: Request) -> Completion:
        return replace(done, text=f"{done.text}<end>") if done.finish == "end" else done


class Unbounded(Changed):
    def _complete(self, request: Request, prompt: list[int], seed: int) -> Completion:
        if len(prompt) >= self.max_context:
            return super()._complete(request, prompt, seed)
        return ToyGenerator(max_context=10**6)._complete(request, prompt, seed)


class Crowding(Unbounded):
    """Has no room, and does not say so."""

    def _complete(self, request: Request, prompt: list[int], seed: int) -> Completion:
        return ToyGenerator(max_context=10**6)._complete(request, prompt, seed)


class Cached(Changed):
    def completion(self, done: Completion, request: Request) -> Completion:
        return replace(done, prefill=0, cached=done.prefill + done.cached)


class Logprobs(Changed):
    def change(self, value: float, sampling: Sampling) -> float:
        raise NotImplementedError

    def completion(self, done: Completion, request: Request) -> Completion:
        return replace(done, logprobs=[self.change(value, request.sampling) for value in done.logprobs or []])


class Binary(Logprobs):
    def change(self, value: float, sampling: Sampling) -> float:
        return value / math.log(2)


class Constant(Logprobs):
    def change(self, value: float, sampling: Sampling) -> float:
        return -1.0


class OfTheTruncated(Logprobs):
    def change(self, value: float, sampling: Sampling) -> float:
        return 0.0 if sampling.top_k == 1 else value


class OfTheHeated(Logprobs):
    def change(self, value: float, sampling: Sampling) -> float:
        return value / (sampling.temperature or 1)


class Lukewarm(Changed):
    def request(self, request: Request) -> Request:
        return replace(request, sampling=replace(request.sampling, temperature=1.0))


class Inverted(Changed):
    def request(self, request: Request) -> Request:
        return replace(request, sampling=replace(request.sampling, temperature=1 / request.sampling.temperature))


class TwoMore(Changed):
    def request(self, request: Request) -> Request:
        return replace(request, sampling=replace(request.sampling, top_k=2 * request.sampling.top_k - 1))


class OneAlone(Changed):
    def request(self, request: Request) -> Request:
        return replace(request, sampling=replace(request.sampling, top_k=1))


class Whole(Changed):
    def request(self, request: Request) -> Request:
        return replace(request, sampling=replace(request.sampling, top_p=1.0, min_p=0.0))


class Unsized(ToyGenerator):
    def __init__(self) -> None:
        super().__init__()
        self.spec = None


class Amnesiac(ToyGenerator):
    async def encode(self, messages: Sequence[Message]) -> list[int]:
        return await super().encode(messages[-1:])


class Marking(ToyGenerator):
    async def tokenize(self, text: str) -> list[int]:
        return [0, *await super().tokenize(text)]


DRAWS, CUT = "test_tokens_are_drawn_as_their_log_probabilities_say", "test_a_truncation_leaves_the_likeliest_tokens"


@pytest.mark.parametrize(
    ("generator", "law", "arguments"),
    [
        (Forgetful, "test_greedy_in_steps_is_greedy_in_one_go", {"size": 3}),
        (Forgetful, "test_greedy_in_steps_is_greedy_in_one_go", {"size": None}),
        (OneSeed, "test_n_completions_are_those_of_successive_seeds", {}),
        (Crowded, "test_a_seed_gives_the_same_alone_and_in_a_crowd", {}),
        (WithoutStops, "test_a_stop_string_ends_a_completion_and_stays_in_it", {"finish": "end"}),
        (WithoutStops, "test_a_stop_string_ends_a_completion_and_stays_in_it", {"finish": "step"}),
        (Generous, "test_a_limit_of_tokens_cuts", {}),
        (Stingy, "test_the_whole_context_can_be_used_and_no_more", {}),
        (Uncounted, "test_every_token_is_counted", {}),
        (Certain, "test_every_token_is_counted", {}),
        (Retrospective, "test_greedy_in_steps_is_greedy_in_one_go", {"size": None}),
        (Reversed, "test_a_token_is_that_of_its_seed", {}),
        (Endless, "test_the_end_token_is_counted_and_not_shown", {}),
        (WithoutEnd, "test_the_end_token_is_counted_and_not_shown", {}),
        (EndShown, "test_the_end_token_is_counted_and_not_shown", {}),
        (Unbounded, "test_the_whole_context_can_be_used_and_no_more", {}),
        (Crowding, "test_the_whole_context_can_be_used_and_no_more", {}),
        (Cached, "test_a_new_prompt_is_computed", {}),
        (Binary, DRAWS, {"sampling": Sampling(temperature=1.0)}),
        (Constant, DRAWS, {"sampling": Sampling(temperature=1.0)}),
        (Lukewarm, DRAWS, {"sampling": Sampling(temperature=0.5)}),
        (Inverted, DRAWS, {"sampling": Sampling(temperature=2.0)}),
        (TwoMore, CUT, {"sampling": Sampling(temperature=2.0, top_k=2)}),
        (OneAlone, CUT, {"sampling": Sampling(temperature=2.0, top_k=2)}),
        (Whole, CUT, {"sampling": Sampling(temperature=1.0, top_p=0.5)}),
        (Whole, CUT, {"sampling": Sampling(temperature=1.0, min_p=0.3)}),
        (OfTheTruncated, "test_a_truncation_to_one_token_is_greedy", {"only_one": {"top_k": 1}}),
        (OfTheHeated, "test_a_truncation_to_one_token_is_greedy", {"only_one": {"top_k": 1}}),
        (Unsized, "test_its_sizes_are_known", {}),
        (Amnesiac, "test_a_chat_is_encoded_whole_and_ready_for_the_answer", {}),
        (Marking, "test_a_chat_is_encoded_whole_and_ready_for_the_answer", {}),
        (Untruncated, "test_a_truncation_to_one_token_is_greedy", {"only_one": {"top_k": 1}}),
        (Late, "test_a_deadline_leaves_the_beginning_of_what_would_have_come", {}),
    ],
)
async def test_a_broken_generator_fails(generator: type[ToyGenerator], law: str, arguments: dict[str, Any]) -> None:
    laws = TestToyGenerator()
    await getattr(laws, law)(ToyGenerator(), **arguments)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await getattr(laws, law)(generator(), **arguments)


class TestNoisyToy(TestToyGenerator):
    reproducible = False


class Unseeded(Changed):
    def request(self, request: Request) -> Request:
        return replace(request, seed=random.randrange(2**62))


@pytest.mark.parametrize("generator", [Unseeded, Reversed, OneSeed])
async def test_a_generator_may_be_noisy_and_has_to_use_its_seeds(generator: type[ToyGenerator]) -> None:
    with pytest.raises(AssertionError, match="of 32 tokens drawn together"):
        await TestNoisyToy().test_a_token_is_that_of_its_seed(generator())


class Open(ToyGenerator):
    """Closing it does nothing."""

    async def close(self) -> None: ...


class Cancelling(ToyGenerator):
    """Those who wait are cancelled."""

    async def generate(self, request: Request) -> list[Completion]:
        try:
            return await super().generate(request)
        except RuntimeError:
            raise asyncio.CancelledError from None


class Forsaking(ToyGenerator):
    """Those who wait wait for ever."""

    async def generate(self, request: Request) -> list[Completion]:
        try:
            return await super().generate(request)
        except RuntimeError:
            await asyncio.Event().wait()
            raise


@pytest.mark.parametrize(
    ("generator", "says"),
    [
        (Open, "closing it let all calls go on"),
        (Cancelling, "looks like a cancellation"),
        (Forsaking, "5 s after it was closed, [0-9]+ calls still wait"),
    ],
)
async def test_a_generator_that_does_not_end_its_calls_fails(
    generator: type[ToyGenerator], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator_laws, "PATIENCE", 0.05 if generator is Forsaking else 5)

    class Laws(TestToyGenerator):
        async def open(self) -> ToyGenerator:
            return generator()

    with pytest.raises(AssertionError, match=says.replace("5 s", "0.05 s")):
        await Laws().test_closing_fails_those_who_wait()


class Holding(ToyGenerator):
    """What a cancelled call held stays held."""

    async def generate(self, request: Request) -> list[Completion]:
        before = self.in_flight
        try:
            return await super().generate(request)
        except asyncio.CancelledError:
            self.in_flight = before + 1
            raise


class Blocking(ToyGenerator):
    """Lets nothing else run."""

    async def generate(self, request: Request) -> list[Completion]:
        assert not isinstance(request.prompt, str)
        return [self._complete(request, request.prompt, request.seed + i) for i in range(request.n)]


@pytest.mark.parametrize(
    ("generator", "says"), [(Holding, "after the call was cancelled, `held` is still 1"), (Blocking, "event loop")]
)
async def test_a_generator_that_can_not_be_cancelled_fails(
    generator: type[ToyGenerator], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator_laws, "PATIENCE", 0.05)
    with pytest.raises(AssertionError, match=says):
        await TestToyGenerator().test_a_cancelled_call_frees_what_it_held(generator())


class ToyReader:
    """Reads a toy: implements `Reader`."""

    tokenizer = None
    max_context = 200
    spec: ModelSpec | None = toy.SPEC

    def __init__(self, pair: tuple[str, str], read: Callable[[float, float], float]) -> None:
        self._pair, self._read = pair, read

    def most(self, ends: Sequence[int]) -> list[Call]:
        return [Call(toy.SPEC, ends[-1], 0, 0)]

    async def read(self, tokens: list[int], ends: Sequence[int]) -> Scores:
        one, other = map(toy.TEXT.index, self._pair)
        weights = [toy.probabilities(tokens[:end]) for end in ends]
        return Scores([self._read(each[one], each[other]) for each in weights], self.most(ends))

    def describe(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("read", "right"),
    [
        (lambda one, other: one / (one + other), True),
        (lambda one, other: other / (one + other), False),
        (lambda one, other: one, False),
        (lambda one, other: 0.5, False),
        (lambda one, other: 7.5, False),
    ],
)
async def test_a_reader_that_misreads_fails(read: Callable[[float, float], float], right: bool) -> None:
    class Readable(ToyGenerator):
        def reader(self, pair: tuple[str, str]) -> Reader:
            return ToyReader(pair, read)

    law = TestToyGenerator().test_a_reader_gives_the_probability_of_one_token_over_another
    with nullcontext() if right else pytest.raises(AssertionError):
        await law(Readable())
