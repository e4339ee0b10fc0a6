"""Laws that hold for every strategy, on models that can be counted exactly."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from infer.core.generator import Sampling
from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.search import Search, Setting
from infer.core.solution import Solution
from infer.core.solve import Failure, solve, solve_one
from infer.core.usage import Usage
from infer.core.verifier import Scores
from infer.cost.formulas import request_cost
from infer.cost.hardware import HARDWARE
from infer.errors import TooLong
from infer.strategies import find, names
from infer.testing import toy

VARIANTS = [
    ("greedy", []),
    ("best-of-n", ["n=1"]),
    ("best-of-n", ["n=7"]),
    ("best-of-n", ["n=5", "choose=majority"]),
    ("best-of-n", ["n=5", "choose=weighted", "aggregation=min"]),
    ("best-of-n", ["n=4", "choose=logprob"]),
    ("best-of-n", ["n=4", "choose=tournament", "verdict_tokens=5"]),
    ("best-of-n", ["n=3", "level=step"]),
    ("self-consistency", ["n=9"]),
    ("self-consistency", ["n=9", "weights=prm", "aggregation=min"]),
    ("self-consistency", ["n=7", "weights=logprob", "wave=2"]),
    ("self-consistency", ["n=20", "stop=beta", "threshold=0.8"]),
    ("self-consistency", ["n=20", "stop=dirichlet"]),
    ("beam", ["n=6", "width=2"]),
    ("beam", ["n=4", "width=2", "lookahead=2", "duplicates=yes", "iterations=3", "choose=weighted"]),
    ("dvts", ["n=6", "width=3"]),
    ("dvts", ["n=4", "width=2", "lookahead=1", "iterations=2", "choose=majority"]),
    ("astar", []),
    ("astar", ["k=2", "width=3", "heuristic=log", "aggregation=prod"]),
    ("astar", ["order=greedy", "ties=newest", "duplicates=yes", "depth=3", "choose=majority"]),
    ("astar", ["k=3", "weight=2.5", "ties=oldest", "choose=logprob"]),
    ("mcts", []),
    ("mcts", ["simulations=40", "formula=puct", "values=prm", "alpha=0", "choose=visits"]),
    ("mcts", ["simulations=25", "values=vote", "greedy_rollouts=true"]),
    ("ab-mcts", ["n=9"]),
    ("ab-mcts", ["n=6", "posterior=beta", "aggregation=mean"]),
    ("self-refine", ["rounds=3"]),
    ("self-refine", ["rounds=2", "keep=last"]),
    ("self-refine", ["keep=majority"]),
    ("budget-forcing", ["answer=10", "final=7"]),
    ("budget-forcing", ["thinking=12", "answer=10", "waits=3", "wait=5", "final=7"]),
    ("particle-filter", []),
    ("particle-filter", ["mode=smc", "n=5", "resampling=systematic", "ess=0.5", "choose=weighted"]),
    ("particle-filter", ["n=3", "anneal_from=4", "anneal_steps=3", "choose=draw", "aggregation=min"]),
    ("particle-gibbs", ["n=3"]),
    ("particle-gibbs", ["n=4", "iterations=2", "ess=0.7", "choose=draw"]),
]
BUDGETS = ["1tok", "7tok", "23tok", "60tok", "200tok", "1k", "1prm", "5prm", "30prm"]
BUDGETS += ["1e4flops", "3e5flops", "2e6flops", "3e7eflops", "2e8eflops", "1e-10usd"]


def test_every_installed_strategy_is_under_these_laws() -> None:
    assert {name for name, _ in VARIANTS} == set(names())


async def run(setting: Setting, name: str, options: list[str], digits: str = "7") -> Solution:
    strategy = find(name)
    problem = Problem(f"p{digits}", digits, answer="3")
    messages = [{"role": "user", "content": digits}]
    return await solve_one(problem, messages, setting, strategy, strategy.configure(options))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(("name", "options"), VARIANTS)
async def test_budget_is_never_exceeded_and_usage_is_what_the_models_did(
    name: str, options: list[str], budget: str
) -> None:
    for digits in ("1", "22", "345"):
        setting = toy.setting(budget)
        solution = await run(setting, name, options, digits)
        generator: Any = setting.generator
        verifier: Any = setting.verifier
        assert setting.budget is not None
        usage = solution.usage
        spent = {"tokens": generator.generated, "prm": verifier.passes, "flops": usage.flops, "eflops": usage.eflops}
        assert {**spent, "dollars": usage.dollars}[setting.budget.unit] <= setting.budget.amount
        assert_cost(usage, generator.log, verifier.log)
        assert usage.generated == generator.generated
        assert usage.prefill + usage.cached == generator.prompt_tokens
        assert usage.passes == verifier.passes
        if solution.chosen is None:  # one token can't be shared by the steps of an expansion
            assert usage.generated == 0
            assert budget == "1e4flops" or (budget == "1tok" and name not in ("greedy", "self-consistency"))
            continue
        chosen = solution.candidates[solution.chosen]
        forced = usage.discarded - (generator.generated - chosen.num_tokens)  # in the chosen one, but not sampled
        assert forced == 0 or (name == "budget-forcing" and forced > 0)
        assert chosen.text == toy.decode(chosen.tokens)
        assert "".join(chosen.steps).strip() == chosen.text.strip()
        assert solution.finished == chosen.finished == (chosen.tokens[-1] == toy.END)
        if setting.budget.unit == "tokens" and name == "best-of-n" and find(name).configure(options).needs_verifier:
            assert all(candidate.scores is not None for candidate in solution.candidates), "what was paid for is scored"
        if chosen.scores is not None:
            assert chosen.scores == [toy.reward("".join(chosen.steps[: i + 1])) for i in range(len(chosen.steps))]


class Short(toy.ToyVerifier):
    """Takes solutions of 12 characters at most."""

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        if len("".join(steps)) > 12:
            call = Call(toy.SPEC, 5, 0, 2)  # a judge that had begun
            self.log.append(call)
            raise TooLong("a solution of 13 tokens", [call])
        return await super().score(problem, steps, known, finished)


SCORED = [(name, options) for name, options in VARIANTS if find(name).configure(options).needs_verifier]


@pytest.mark.parametrize("budget", [None, "1k", "30prm", "2e6flops"])
@pytest.mark.parametrize(("name", "options"), SCORED)
async def test_what_is_too_long_for_the_verifier_is_not_scored_and_said(
    name: str, options: list[str], budget: str | None
) -> None:
    noted = 0
    for digits in map(str, range(4)):
        setting = toy.setting(budget, verifier=Short())
        solution = await run(setting, name, options, digits)
        generator: Any = setting.generator
        verifier: Any = setting.verifier
        assert_cost(solution.usage, generator.log, verifier.log)
        assert solution.usage.generated == generator.generated
        for candidate in solution.candidates:
            assert candidate.scores is None or len("".join(candidate.steps)) <= 12
        noted += solution.note is not None and "not scored: a solution of 13 tokens" in solution.note
    assert noted


def assert_cost(usage: Usage, generator: list[Call], verifier: list[Call]) -> None:
    """The ledger is the sum over the requests that the models got, each rounded down."""
    for role, calls in (("", generator), ("verifier_", verifier)):
        costs = [request_cost(toy.SPEC, call.prefill, call.cached, call.generated) for call in calls]
        for phase in ("prefill", "decode"):
            for amount in ("flops", "bytes"):
                total = sum(int(getattr(getattr(cost, phase), amount)) for cost in costs)
                assert getattr(usage, f"{role}{phase}_{amount}") == total
    h100 = HARDWARE["h100"]
    assert usage.flops is not None
    assert usage.bytes is not None
    assert usage.eflops == pytest.approx(usage.flops + h100.peak["bfloat16"] / h100.bandwidth * usage.bytes, rel=1e-3)


@pytest.mark.parametrize("budget", [None, "60tok", "200tok", "20prm", "1e6flops"])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
async def test_same_seed_gives_the_same_result_whatever_else_is_in_flight(
    name: str, options: list[str], budget: str | None
) -> None:
    alone = await run(toy.setting(budget), name, options)
    crowd = toy.setting(budget, seed=99)  # calls end in another order
    together = await asyncio.gather(*(run(crowd, name, options, digits) for digits in ("5", "7", "61", "7")))
    for solution in (together[1], together[3]):
        assert solution.model_copy(update={"seconds": 0}) == alone.model_copy(update={"seconds": 0})
    if name != "greedy":
        other = await run(toy.setting(budget, seed=0), name, options, digits="8")
        assert other.candidates != alone.candidates


@pytest.mark.parametrize(("name", "options"), [v for v in VARIANTS if v[0] != "greedy"])
async def test_another_seed_gives_another_result(name: str, options: list[str]) -> None:
    first = [await run(toy.setting("200tok"), name, options, digits) for digits in "123"]
    changed = Setting(**{**_fields(toy.setting("200tok")), "seed": 1})
    second = [await run(changed, name, options, digits) for digits in "123"]
    assert [s.candidates for s in first] != [s.candidates for s in second]


def _fields(setting: Setting) -> dict[str, Any]:
    return {name: getattr(setting, name) for name in Setting.__slots__}


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


@pytest.mark.parametrize(("name", "options"), VARIANTS)
async def test_cancelled_searches_leave_nothing_in_flight(name: str, options: list[str]) -> None:
    setting = toy.setting("1k")
    task = asyncio.create_task(run(setting, name, options))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    generator: Any = setting.generator
    assert generator.in_flight == 0


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
            # one problem too long for the context, in the middle: the others are solved all the same
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


async def test_a_deadline_ends_the_search() -> None:
    setting = toy.setting("0.05s", sampling=Sampling(max_tokens=100))
    solution = await asyncio.wait_for(run(setting, "best-of-n", []), 5)
    assert 0.05 <= solution.seconds < 1
    assert isinstance(await toy.search(setting), Search)
