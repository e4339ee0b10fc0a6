"""The laws of strategies for each of ours, and the laws of the search, on toy models with exact counts."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from infer.core.generator import Sampling
from infer.core.problem import Problem
from infer.core.search import Setting
from infer.core.solution import Solution
from infer.core.solve import Failure, solve
from infer.core.usage import Usage
from infer.strategies import find, names
from infer.testing import StrategyLaws, toy


class Laws(StrategyLaws):
    too_small = ["1tok", "1e4flops"]  # the steps of an expansion can't share one token


class TestGreedy(Laws):
    strategy = "greedy"
    draws = False
    too_small = ["1e4flops"]


class TestBestOfN(Laws):
    strategy = "best-of-n"
    options = [
        ["n=1"],
        ["n=7"],
        ["n=5", "choose=majority"],
        ["n=5", "choose=weighted", "aggregation=min"],
        ["n=4", "choose=logprob"],
        ["n=4", "choose=tournament", "verdict_tokens=5"],
        ["n=3", "level=step"],
    ]

    @pytest.mark.parametrize("budget", ["1tok", "7tok", "23tok", "60tok", "200tok", "1k"])
    async def test_samples_paid_for_are_scored(self, scored: Sequence[str], budget: str) -> None:
        for digits in ("1", "22", "345"):
            solution = await toy.solve(toy.setting(budget), self.subject(), scored, digits)
            assert all(candidate.scores is not None for candidate in solution.candidates)


class TestSelfConsistency(Laws):
    strategy = "self-consistency"
    too_small = ["1e4flops"]
    options = [
        ["n=9"],
        ["n=9", "weights=prm", "aggregation=min"],
        ["n=7", "weights=logprob", "wave=2"],
        ["n=20", "stop=beta", "threshold=0.8"],
        ["n=20", "stop=dirichlet"],
    ]


class TestBeam(Laws):
    strategy = "beam"
    options = [
        ["n=6", "width=2"],
        ["n=4", "width=2", "lookahead=2", "duplicates=yes", "iterations=3", "choose=weighted"],
    ]


class TestDVTS(Laws):
    strategy = "dvts"
    options = [["n=6", "width=3"], ["n=4", "width=2", "lookahead=1", "iterations=2", "choose=majority"]]


class TestAStar(Laws):
    strategy = "astar"
    options = [
        [],
        ["k=2", "width=3", "heuristic=log", "aggregation=prod"],
        ["order=greedy", "ties=newest", "duplicates=yes", "depth=3", "choose=majority"],
        ["k=3", "weight=2.5", "ties=oldest", "choose=logprob"],
    ]


class TestMCTS(Laws):
    strategy = "mcts"
    options = [
        [],
        ["simulations=40", "formula=puct", "values=prm", "alpha=0", "choose=visits"],
        ["simulations=25", "values=vote", "greedy_rollouts=true"],
    ]


class TestABMCTS(Laws):
    strategy = "ab-mcts"
    options = [["n=9"], ["n=6", "posterior=beta", "aggregation=mean"]]


class TestSelfRefine(Laws):
    strategy = "self-refine"
    options = [["rounds=3"], ["rounds=2", "keep=last"], ["keep=majority"]]


class TestBudgetForcing(Laws):
    strategy = "budget-forcing"
    options = [["answer=10", "final=7"], ["thinking=12", "answer=10", "waits=3", "wait=5", "final=7"]]


class TestParticleFilter(Laws):
    strategy = "particle-filter"
    options = [
        [],
        ["mode=smc", "n=5", "resampling=systematic", "ess=0.5", "choose=weighted"],
        ["n=3", "anneal_from=4", "anneal_steps=3", "choose=draw", "aggregation=min"],
    ]


class TestParticleGibbs(Laws):
    strategy = "particle-gibbs"
    options = [["n=3"], ["n=4", "iterations=2", "ess=0.7", "choose=draw"]]


VARIANTS = [(str(laws.strategy), list(options)) for laws in Laws.__subclasses__() for options in laws.options]


def test_every_installed_strategy_is_under_these_laws() -> None:
    assert {name for name, _ in VARIANTS} == set(names())


installed = cache(find)  # finding a strategy takes longer than many tests


async def run(setting: Setting, name: str, options: list[str], digits: str = "7") -> Solution:
    return await toy.solve(setting, installed(name), options, digits)


async def test_one_sample_of_best_of_n_is_plain_sampling() -> None:
    search = await toy.search(toy.setting())
    (plain,) = await search.sample(search.root, until="end")
    solution = await run(toy.setting(), "best-of-n", ["n=1"])
    assert solution.candidates[0].tokens == plain.tokens


async def test_more_samples_begin_with_the_fewer() -> None:
    few = await run(toy.setting(), "best-of-n", ["n=3"])
    many = await run(toy.setting(), "best-of-n", ["n=9"])
    assert [c.tokens for c in many.candidates[:3]] == [c.tokens for c in few.candidates]


async def test_waves_under_a_budget_draw_the_same_samples_as_one_wave() -> None:
    free = await run(toy.setting(), "best-of-n", ["n=9"])
    spent = sum(candidate.num_tokens for candidate in free.candidates)
    tight = await run(toy.setting(f"{spent + 100}tok"), "best-of-n", ["n=9"])
    assert [c.tokens for c in tight.candidates] == [c.tokens for c in free.candidates]


async def test_steps_of_greedy_decoding_are_greedy_decoding() -> None:
    for digits in map(str, range(20)):
        search = await toy.search(toy.setting(), digits)
        (whole,) = await search.sample(search.root, until="end", temperature=0)
        node = search.root
        while not node.final:
            (node,) = await search.sample(node, temperature=0)
        assert node.completion == whole.text
        assert [token for part in node.trajectory for token in part.tokens] == whole.tokens


async def test_concurrent_calls_of_one_search_share_its_budget() -> None:
    for amount in range(1, 80, 3):
        setting = toy.setting(f"{amount}tok")
        search = await toy.search(setting)
        calls = (search.sample(search.root, 2, until="end") for _ in range(5))
        await asyncio.gather(*calls, return_exceptions=True)
        generator: Any = setting.generator
        assert generator.generated == search.ledger.usage.generated <= amount
        assert search.left == amount - search.ledger.usage.generated


async def test_a_step_cut_by_the_budget_goes_on_and_is_scored_once_more() -> None:
    search = await toy.search(toy.setting(step_tokens=1))
    node = search.root
    while not node.final:
        (node,) = await search.sample(node)
        await search.score([node])
        assert len(node.step_scores) == len([step for step in node.completion.split("\n\n") if step])
    assert node.step_scores[-1] == toy.reward(node.completion)


async def test_runner_records_every_problem_once_and_keeps_only_so_many_in_flight() -> None:
    setting = toy.setting("60tok")
    outcomes: list[Solution | Failure] = []
    opened: list[str] = []

    def problems() -> Any:
        for i in range(50):
            opened.append(str(i))
            assert len(opened) - len(outcomes) <= 5
            # one problem in the middle is too long for the context; the others are still solved
            yield Problem(f"p{i}", "9" * 300 if i == 25 else str(i), answer="3")

    strategy = find("astar")
    await solve(
        problems(),
        lambda problem: [{"role": "user", "content": problem.prompt}],
        setting,
        strategy,
        strategy.configure([]),
        outcomes.append,
        concurrency=5,
    )
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert [failure.problem.id for failure in failures] == ["p25"]
    assert "300 tokens" in str(failures[0].error)
    solved = [outcome.problem_id for outcome in outcomes if isinstance(outcome, Solution)]
    assert sorted(solved) == sorted(f"p{i}" for i in range(50) if i != 25)


async def test_an_engine_that_breaks_stops_the_run_and_keeps_what_was_recorded() -> None:
    setting = toy.setting()
    generator: Any = setting.generator
    whole = generator.generate

    async def breaking(request: Any) -> Any:
        if generator.calls == 10:
            raise RuntimeError("the engine is gone")
        return await whole(request)

    generator.generate = breaking
    outcomes: list[Solution | Failure] = []
    strategy = find("greedy")
    with pytest.raises(RuntimeError, match="gone"):
        await solve(
            (Problem(f"p{i}", str(i)) for i in range(50)),
            lambda problem: [{"role": "user", "content": problem.prompt}],
            setting,
            strategy,
            strategy.configure([]),
            outcomes.append,
            concurrency=2,
        )
    assert 7 <= len(outcomes) <= 10
    assert generator.in_flight == 0


async def test_a_score_that_is_no_number_fails_its_problem_only() -> None:
    setting = toy.setting()
    verifier: Any = setting.verifier
    whole = verifier.score

    async def torn(problem: Problem, steps: Any, known: int, finished: bool) -> Any:
        scores = await whole(problem, steps, known, finished)
        return replace(scores, values=[float("nan")] * len(scores.values)) if problem.prompt == "2" else scores

    verifier.score = torn
    outcomes: list[Solution | Failure] = []
    strategy = find("best-of-n")
    await solve(
        (Problem(f"p{i}", str(i)) for i in range(4)),
        lambda problem: [{"role": "user", "content": problem.prompt}],
        setting,
        strategy,
        strategy.configure(["n=3"]),
        outcomes.append,
    )
    assert [outcome.problem.id for outcome in outcomes if isinstance(outcome, Failure)] == ["p2"]
    assert len(outcomes) == 4


def test_usage_adds() -> None:
    assert Usage(1, 2, 3) + Usage(10, 20, 30, 40) == Usage(11, 22, 33, 40)


async def test_best_of_n_goes_on_until_its_deadline() -> None:
    setting = toy.setting("0.05s", sampling=Sampling(max_tokens=100))
    solution = await asyncio.wait_for(run(setting, "best-of-n", []), 5)
    assert 0.05 <= solution.seconds < 1
    assert solution.chosen is not None
