"""The laws of `test_laws` on real engines: the ledger's numbers equal the engine's own counts."""

import asyncio
from typing import Any

import pytest

from infer.core.generator import Sampling
from infer.core.ledger import Budget
from infer.core.problem import Problem
from infer.core.search import Search, Setting
from infer.core.solution import Solution
from infer.core.solve import solve_one
from infer.core.usage import Usage
from infer.generate.openai import OpenAIGenerator
from infer.generate.readers import VLLMHead
from infer.generate.vllm import VLLMGenerator
from infer.nano import checkpoint
from infer.strategies import find
from infer.strategies.best_of_n import BestOfNOptions
from infer.testing.toy import ToyGrader
from infer.verifiers.classifier import CLASSIFIER
from infer.verifiers.prm import RewardModel
from tests.engines import open_verifier
from tests.servers import Server

pytestmark = pytest.mark.models

PROBLEMS = ["23+54=?", "(12+30)*2-14=?", "((23+54)*2-88+89-99)*6=?", "(((23+54)*2-88+89-99)*6+28)/2=?"]
VARIANTS = [
    ("greedy", []),
    ("best-of-n", ["n=6"]),
    ("best-of-n", ["n=6", "choose=majority"]),
    ("best-of-n", ["n=6", "choose=weighted"]),
    ("best-of-n", ["n=6", "choose=logprob"]),
    ("astar", []),
    ("astar", ["k=3", "width=2"]),
]
BUDGETS = [None, "50tok", "400tok", "12prm"]
SCORED = [("best-of-n", ["n=6", "choose=weighted"]), ("astar", ["k=3", "width=2"])]
"""Strategies that use both models: one that samples from one prompt, and one that samples from many."""


@pytest.fixture(scope="session")
def vllm_pair(nano_engine: Any, nano_prm_engine: Any) -> tuple[Any, Any]:
    return VLLMGenerator(nano_engine), RewardModel(CLASSIFIER, VLLMHead(nano_prm_engine))


@pytest.fixture(scope="session")
def transformers_pair() -> tuple[Any, Any]:
    from infer.generate.transformers import TransformersGenerator

    prm = asyncio.run(open_verifier("nano-prm-s", "transformers"))
    return TransformersGenerator(checkpoint("nano-s"), dtype="float32"), prm


@pytest.fixture(params=["vllm", "transformers"])
def pair(request: Any) -> tuple[Any, Any]:
    found: tuple[Any, Any] = request.getfixturevalue(f"{request.param}_pair")
    return found


def setting(pair: tuple[Any, Any], budget: str | None, **changes: Any) -> Setting:
    values: dict[str, Any] = {
        "generator": pair[0],
        "verifier": pair[1],
        "grader": ToyGrader(),
        "sampling": Sampling(temperature=1.0, max_tokens=150),
        "budget": Budget.parse(budget) if budget else None,
    }
    return Setting(**{**values, **changes})


async def run(setting: Setting, name: str, options: list[str], prompt: str) -> Solution:
    strategy = find(name)
    messages = [{"role": "user", "content": prompt}]

    return await solve_one(Problem(prompt, prompt), messages, setting, strategy, strategy.configure(options))


async def open_search(setting: Setting, prompt: str) -> Search:
    """A search whose samples have log-probabilities."""
    options = BestOfNOptions(choose="logprob")
    return await Search.open(setting, Problem(prompt, prompt), [{"role": "user", "content": prompt}], options)


def chosen_text(solution: Solution) -> str:
    assert solution.chosen is not None
    return solution.candidates[solution.chosen].text


class Counted:
    """vLLM's own statistics of an engine's steps, summed inside the `with` block."""

    def __init__(self, engine: Any) -> None:
        self.generated = self.prompt = self.cached = 0
        self._manager = engine._engine.logger_manager
        self._record = self._manager.record

    def __enter__(self) -> "Counted":
        def record(iteration_stats: Any = None, **others: Any) -> None:
            if iteration_stats is not None:
                self.generated += iteration_stats.num_generation_tokens
                self.prompt += iteration_stats.prompt_token_stats.total
                self.cached += iteration_stats.prompt_token_stats.local_cache_hit
            self._record(iteration_stats=iteration_stats, **others)

        self._manager.record = record
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.record = self._record


@pytest.mark.parametrize("budget", BUDGETS)
async def test_usage_is_what_vllm_counted_and_budgets_hold(
    nano_engine: Any, nano_prm_engine: Any, vllm_pair: tuple[Any, Any], budget: str | None
) -> None:
    given = setting(vllm_pair, budget)
    for name, options in VARIANTS:
        with Counted(nano_engine) as engine, Counted(nano_prm_engine) as prm:
            solutions = await asyncio.gather(*(run(given, name, options, prompt) for prompt in PROBLEMS))
        usage = sum((solution.usage for solution in solutions), Usage())
        assert usage.generated == engine.generated > 0
        assert (usage.prefill + usage.cached, usage.cached) == (engine.prompt, engine.cached)
        if any(solution.usage.passes for solution in solutions):
            assert prm.prompt > 0
        assert (usage.verifier_prefill + usage.verifier_cached, usage.verifier_cached) == (prm.prompt, prm.cached)
        for solution in solutions:
            spent = solution.usage.passes if budget == "12prm" else solution.usage.generated
            assert given.budget is None or spent <= given.budget.amount


@pytest.mark.parametrize(("name", "options"), SCORED)
async def test_same_seed_gives_the_same_result_whatever_else_is_in_flight(
    pair: tuple[Any, Any], name: str, options: list[str]
) -> None:
    given = setting(pair, "300tok")
    alone = [await run(given, name, options, prompt) for prompt in PROBLEMS]
    together = await asyncio.gather(*(run(given, name, options, prompt) for prompt in PROBLEMS * 2))
    for first, second in zip(alone * 2, together, strict=True):
        assert [candidate.tokens for candidate in first.candidates] == [c.tokens for c in second.candidates]
        assert first.answer == second.answer
        # batching adds noise to scores, so another one of several equal candidates may be chosen
        assert chosen_text(first) == chosen_text(second)


async def test_over_http_everything_is_the_same_and_counted(
    nano_server: Server, vllm_pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vLLM server gives the same solutions as the engine in process, and the ledger equals the server's own count.

    The server uses vLLM's own seeded sampler, so the engine uses it here too.
    """
    monkeypatch.setattr(vllm_pair[0]._engine, "draws", False)
    here = VLLMGenerator(vllm_pair[0]._engine), vllm_pair[1]
    generator = await OpenAIGenerator.connect(nano_server.url)
    counted = [f"vllm:{kind}_total" for kind in ("generation_tokens", "prompt_tokens", "prefix_cache_hits")]
    for name, options in SCORED:
        before = [nano_server.metric(kind) for kind in counted]
        given = setting((generator, vllm_pair[1]), "300tok")
        remote = await asyncio.gather(*(run(given, name, options, prompt) for prompt in PROBLEMS))
        usage = sum((solution.usage for solution in remote), Usage())
        spent = [nano_server.metric(kind) - start for kind, start in zip(counted, before, strict=True)]
        assert [usage.generated, usage.prefill + usage.cached, usage.cached] == spent
        local = await asyncio.gather(*(run(setting(here, "300tok"), name, options, p) for p in PROBLEMS))
        for one, other in zip(remote, local, strict=True):
            assert [(c.tokens, c.text) for c in one.candidates] == [(c.tokens, c.text) for c in other.candidates]
            assert chosen_text(one) == chosen_text(other)
    await generator.close()


@pytest.mark.usefixtures("our_draws")
async def test_every_strategy_finds_the_same_on_both_backends(
    vllm_pair: tuple[Any, Any], transformers_pair: tuple[Any, Any]
) -> None:
    """The same seed samples the same tokens, so candidates and choice are the same."""
    for name, options in VARIANTS:
        left, right = [
            await asyncio.gather(*(run(setting(pair, "300tok"), name, options, p) for p in PROBLEMS))
            for pair in (vllm_pair, transformers_pair)
        ]
        for one, other in zip(left, right, strict=True):
            assert [(c.tokens, c.text) for c in one.candidates] == [(c.tokens, c.text) for c in other.candidates]
            assert chosen_text(one) == chosen_text(other)
            assert one.usage.generated == other.usage.generated


async def test_backends_agree(vllm_pair: tuple[Any, Any], transformers_pair: tuple[Any, Any]) -> None:
    """Both give the same greedy tokens, log-probabilities and step rewards."""
    solutions = []
    for pair in (vllm_pair, transformers_pair):
        given = setting(pair, None)
        for prompt in PROBLEMS:
            search = await open_search(given, prompt)
            (leaf,) = await search.sample(search.root, until="end", temperature=0)
            await search.score([leaf])
            solutions.append(search.solution(leaf).candidates[0])
    for left, right in zip(solutions[: len(PROBLEMS)], solutions[len(PROBLEMS) :], strict=True):
        assert left.tokens == right.tokens
        assert left.logprob == pytest.approx(right.logprob, abs=1e-3)
        assert left.scores == pytest.approx(right.scores, abs=1e-3)


async def test_scores_do_not_depend_on_how_the_steps_were_asked_for(pair: tuple[Any, Any]) -> None:
    """Scores are the same step by step as for all steps of a completion at once."""
    given = setting(pair, None)
    for prompt in PROBLEMS:
        search = await Search.open(given, Problem(prompt, prompt), [{"role": "user", "content": prompt}])
        node = search.root
        while not node.final:
            (node,) = await search.sample(node)
            await search.score([node])
        again = await pair[1].score(search.problem, search.solution(node).candidates[-1].steps, 0, node.finished)
        assert node.step_scores == pytest.approx(again.values, abs=1e-4)


async def test_scoring_a_child_computes_its_own_tokens_only(vllm_pair: tuple[Any, Any]) -> None:
    """Each scored step may compute up to one more block of the prefix cache."""
    given = setting(vllm_pair, None)
    search = await Search.open(given, Problem("x", PROBLEMS[3]), [{"role": "user", "content": PROBLEMS[3]}])
    node, steps = search.root, 0
    while not node.final:
        (node,) = await search.sample(node, temperature=0)
        await search.score([node])
        steps += 1
    block = 32
    assert search.ledger.usage.passes == steps
    assert search.ledger.usage.verifier_prefill <= len(search.root.tokens) + node.length + steps * block
