"""The laws of strategies, on models that can be counted exactly."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from infer.core.generator import Completion, Request
from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.strategy import Strategy
from infer.core.trace import Trace, TracedNode, Watch, read_trace, trace_path
from infer.core.tree import Node
from infer.core.usage import Usage
from infer.core.verifier import Scores
from infer.cost.formulas import request_cost
from infer.cost.hardware import HARDWARE
from infer.errors import TooLong
from infer.strategies import find
from infer.testing import toy

BUDGETS = ["1tok", "7tok", "23tok", "60tok", "200tok", "1k", "1prm", "5prm", "30prm"]
BUDGETS += ["1e4flops", "3e5flops", "2e6flops", "3e7flops", "2e8eflops", "1e-10usd"]


class StrategyLaws:
    """Laws that every strategy keeps: pytest runs them on a class derived from this one.

        class TestShortest(StrategyLaws):
            strategy = "shortest"
            options = [["n=1"], ["n=7"]]

    The models are those of `infer.testing.toy`. To leave a law out, set its name to None in the class.
    """

    strategy: ClassVar[str | Callable[[Search, Any], Awaitable[Solution]]]
    """The name of an installed strategy, or the async function itself."""
    options: ClassVar[Sequence[Sequence[str]]] = [[]]
    """Each law is checked with each of these lists of `key=value`."""
    draws: ClassVar[bool] = True
    """Whether the result depends on the seed."""
    too_small: ClassVar[Collection[str]] = BUDGETS
    """Which of `BUDGETS` may be too small to sample anything, so that there is no answer."""

    @classmethod
    @cache
    def subject(cls) -> Strategy:
        """The strategy under test."""
        given = cls.strategy
        return find(given) if isinstance(given, str) else Strategy(getattr(given, "__name__", "strategy"), given)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Makes one test of each list of options; for `scored`, of those that need a verifier."""
        for name in {"options", "scored"}.intersection(metafunc.fixturenames):
            configure = self.subject().configure
            lists = [given for given in self.options if name == "options" or configure(given).needs_verifier]
            variants = [pytest.param(given, id=" ".join(given) or "default") for given in lists]
            none = pytest.param([], marks=pytest.mark.skip(reason="it needs no verifier"))
            metafunc.parametrize(name, variants or [none])

    @pytest.mark.asyncio
    @pytest.mark.parametrize("budget", BUDGETS)
    async def test_the_budget_is_never_exceeded_and_usage_is_what_the_models_did(
        self, options: Sequence[str], budget: str
    ) -> None:
        for digits in ("1", "22", "345"):
            ends: list[Node] = []
            setting = toy.setting(budget, watch=partial(_Chosen, ends))
            solution = await toy.solve(setting, self.subject(), options, digits)
            generator: Any = setting.generator
            verifier: Any = setting.verifier
            assert setting.budget is not None
            usage = solution.usage
            spent = {"tokens": generator.generated, "prm": verifier.passes, "flops": usage.flops}
            spent |= {"eflops": usage.eflops, "dollars": usage.dollars}
            assert spent[setting.budget.unit] <= setting.budget.amount
            assert_cost(usage, generator.log, verifier.log)
            assert usage.generated == generator.generated
            assert usage.prefill + usage.cached == generator.prompt_tokens
            assert usage.passes == verifier.passes
            if solution.chosen is None:
                assert usage.generated == 0, "something was sampled, and nothing was chosen of it"
                assert budget in self.too_small, "this budget should buy an answer: see StrategyLaws.too_small"
                continue
            chosen = solution.candidates[solution.chosen]
            kept = sum(node.num_tokens for node in ends[-1].trajectory if not node.forced)
            assert usage.discarded == generator.generated - kept
            assert chosen.text == toy.decode(chosen.tokens)
            assert "".join(chosen.steps).strip() == chosen.text.strip()
            assert solution.finished == chosen.finished == (chosen.tokens[-1] == toy.END)
            if chosen.scores is not None:
                assert chosen.scores == [toy.reward("".join(chosen.steps[: i + 1])) for i in range(len(chosen.steps))]

    @pytest.mark.asyncio
    @pytest.mark.parametrize("budget", [None, "1k", "30prm", "2e6flops"])
    async def test_a_trajectory_too_long_for_the_verifier_is_not_scored_and_noted(
        self, scored: Sequence[str], budget: str | None
    ) -> None:
        noted = 0
        for digits in map(str, range(4)):
            setting = toy.setting(budget, verifier=_Short())
            solution = await toy.solve(setting, self.subject(), scored, digits)
            generator: Any = setting.generator
            verifier: Any = setting.verifier
            assert_cost(solution.usage, generator.log, verifier.log)
            assert solution.usage.generated == generator.generated
            for candidate in solution.candidates:
                assert candidate.scores is None or len("".join(candidate.steps)) <= _Short.characters
            noted += solution.note is not None and "not scored: a solution of 13 tokens" in solution.note
        assert noted, "no solution was too long: the strategy says that it needs a verifier, and scores none"

    @pytest.mark.asyncio
    @pytest.mark.parametrize("budget", [None, "60tok", "200tok", "20prm", "1e6flops"])
    async def test_the_same_seed_gives_the_same_result_whatever_else_is_in_flight(
        self, options: Sequence[str], budget: str | None
    ) -> None:
        strategy = self.subject()
        alone = await toy.solve(toy.setting(budget), strategy, options)
        crowd = toy.setting(budget, seed=99)  # calls end in another order
        together = await asyncio.gather(
            *(toy.solve(crowd, strategy, options, digits) for digits in ("5", "7", "61", "7"))
        )
        for solution in (together[1], together[3]):
            assert solution.model_copy(update={"seconds": 0}) == alone.model_copy(update={"seconds": 0})
        other = await toy.solve(toy.setting(budget), strategy, options, digits="8")
        assert other.candidates != alone.candidates

    @pytest.mark.asyncio
    async def test_another_seed_gives_another_result(self, options: Sequence[str]) -> None:
        first, second = [
            [await toy.solve(replace(toy.setting("200tok"), seed=seed), self.subject(), options, d) for d in "123"]
            for seed in (0, 1)
        ]
        same = [s.candidates for s in first] == [s.candidates for s in second]
        assert same != self.draws, "the seed changes nothing" if self.draws else "the seed changes the result"

    @pytest.mark.asyncio
    async def test_a_cancelled_search_leaves_nothing_in_flight(self, options: Sequence[str]) -> None:
        setting = toy.setting("1k")
        task = asyncio.create_task(toy.solve(setting, self.subject(), options))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        generator: Any = setting.generator
        assert generator.in_flight == 0

    @pytest.mark.asyncio
    async def test_a_deadline_ends_the_search(self, options: Sequence[str]) -> None:
        """While a completion is awaited: what the others gave is kept."""
        setting = toy.setting("0.05s", generator=_Slow())
        solution = await asyncio.wait_for(toy.solve(setting, self.subject(), options), 5)
        generator: Any = setting.generator
        assert solution.usage.generated == generator.generated > 0
        assert solution.chosen is not None

    @pytest.mark.asyncio
    @pytest.mark.parametrize("budget", [None, "90tok", "7prm"])
    async def test_the_trace_has_the_whole_tree(
        self, options: Sequence[str], budget: str | None, tmp_path: Path
    ) -> None:
        setting = toy.setting(budget, watch=partial(Trace, tmp_path))
        solution = await toy.solve(setting, self.subject(), options)
        trace = read_trace(trace_path(tmp_path, solution.problem_id))
        assert (trace.problem, trace.prompt) == (solution.problem_id, [7])
        generator: Any = setting.generator
        verifier: Any = setting.verifier
        nodes = [node for root in trace.roots for node in _below(root)[1:]]
        sampled = sum(node.num_tokens or 0 for node in nodes if not node.forced)
        if any(node.forced for node in nodes):  # `Search.extend` repeats a finished node without its end
            assert sampled >= generator.generated
        else:
            assert sampled == generator.generated
        assert sum(len(node.scores or []) for node in nodes) == verifier.passes
        assert trace.complete
        if solution.chosen is None:
            assert trace.chosen is None
            return
        path = [node for root in trace.roots for node in _below(root) if node.id in trace.best_path]
        assert "".join(node.text for node in path) == solution.candidates[solution.chosen].text
        assert path[-1] is trace.chosen


def assert_cost(usage: Usage, generator: Sequence[Call], verifier: Sequence[Call]) -> None:
    """The costs are the sum over the requests that the models got, each rounded down."""
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


class _Chosen(Watch):
    """Adds the node that is chosen to a list."""

    def __init__(self, ends: list[Node], problem: Problem, root: Node) -> None:
        self._ends = ends

    def chosen(self, node: Node | None) -> None:
        if node is not None:
            self._ends.append(node)


class _Short(toy.ToyVerifier):
    """Takes solutions of 12 characters at most."""

    characters = 12

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        if len("".join(steps)) > self.characters:
            call = Call(toy.SPEC, 5, 0, 2)  # a judge that had begun
            self.log.append(call)
            raise TooLong("a solution of 13 tokens", [call])
        return await super().score(problem, steps, known, finished)


class _Slow(toy.ToyGenerator):
    """Its third call and all after it take until their deadline, and have one token each by then."""

    async def generate(self, request: Request) -> list[Completion]:
        if self.calls < 2:
            return await super().generate(request)
        cut = await super().generate(replace(request, max_tokens=1))
        assert request.deadline is not None
        await asyncio.sleep(max(0.0, request.deadline - time.monotonic()))
        return cut


def _below(node: TracedNode) -> list[TracedNode]:
    return [node, *(deeper for child in node.children for deeper in _below(child))]
