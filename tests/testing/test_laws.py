"""The packaged laws: another package's strategies and generators can be tested by them, and broken ones fail."""

import asyncio
import itertools
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infer.core.generator import Completion, Request
from infer.core.options import Options, ScoredOptions
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.usage import Usage
from infer.testing import GeneratorLaws, StrategyLaws
from infer.testing.toy import ToyGenerator

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


class TestToyGenerator(GeneratorLaws):
    prompts = ("48", "27", "265")

    @pytest.fixture
    def generator(self) -> ToyGenerator:
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

    @pytest_asyncio.fixture
    async def generator(self):
        generator = ToyGenerator()
        yield generator
        await generator.close()


class Texts(ToyGenerator):
    async def encode(self, messages):
        return messages[0]["content"]

    async def generate(self, request):
        ids = await self.tokenize(request.prompt)
        return [replace(done, tokens=[]) for done in await super().generate(replace(request, prompt=ids))]


class TestTexts(TestMine):
    token_ids = False

    @pytest_asyncio.fixture
    async def generator(self):
        yield Texts()
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
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
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
    scored = "test_what_is_too_long_for_the_verifier_is_not_scored_and_the_solution_says_so"
    assert laws - passed == {f"TestShortest::{scored}", f"TestTheFunction::{scored}"}  # the strategy asks for no scores


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
        (blind, "test_what_is_too_long_for_the_verifier_is_not_scored_and_the_solution_says_so", {"budget": None}),
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
        (Untruncated, "test_a_truncation_to_one_token_is_greedy", {"only_one": {"top_k": 1}}),
        (Late, "test_a_deadline_leaves_the_beginning_of_what_would_have_come", {}),
    ],
)
async def test_a_broken_generator_fails(generator: type[Changed], law: str, arguments: dict[str, Any]) -> None:
    laws = TestToyGenerator()
    await getattr(laws, law)(ToyGenerator(), **arguments)
    with pytest.raises(AssertionError):
        await getattr(laws, law)(generator(), **arguments)
