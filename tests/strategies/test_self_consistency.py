"""Self-consistency: its early stop against all possible continuations, by brute force."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.core.choice import tally
from infer.core.generator import Sampling
from infer.errors import UserError
from infer.strategies import find
from infer.strategies.parts.stopping import certain, posterior, soonest_stop
from infer.strategies.self_consistency import SelfConsistencyOptions, self_consistency
from infer.testing import toy
from tests.strategies.test_laws import run

ANSWERS = ["a", "b", "c", None]


def votes_of(answers: Sequence[str | None], weights: Sequence[float] | None = None) -> dict[int, float]:
    groups = [-1 if answer is None else answers.index(answer) for answer in answers]
    return tally(groups, weights or [1.0] * len(answers))


def winner(answers: Sequence[str | None], weights: Sequence[float] | None = None) -> str | None:
    """The winner by its definition: the answer with the largest sum of votes; of equal sums, the one seen first."""
    totals: dict[str, float] = {}
    for answer, weight in zip(answers, weights or [1.0] * len(answers), strict=True):
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + weight
    return max(totals, key=lambda answer: totals[answer]) if totals else None


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_the_winner_is_certain_exactly_when_no_completion_changes_it(n: int) -> None:
    """The rule never stops too early and never continues needlessly, ties included."""
    for drawn in range(1, n + 1):
        completions = list(itertools.product([*ANSWERS, "new", "newer"], repeat=n - drawn))
        for answers in itertools.product(ANSWERS, repeat=drawn):
            if winner(answers) is None:
                continue
            same = {winner(answers + rest) for rest in completions} == {winner(answers)}
            assert certain(votes_of(answers), n - drawn) == same, answers


weighted = st.tuples(st.sampled_from(ANSWERS), st.floats(0, 1))


@given(st.lists(weighted, min_size=1, max_size=12), st.lists(weighted, max_size=6), st.sampled_from([*ANSWERS, "new"]))
def test_no_weights_to_come_change_a_certain_winner(
    drawn: list[tuple[str | None, float]], coming: list[tuple[str | None, float]], rival: str | None
) -> None:
    answers, weights = [a for a, _ in drawn], [w for _, w in drawn]
    if winner(answers, weights) is None or not certain(votes_of(answers, weights), len(coming)):
        return
    for rest in (coming, [(rival, 1.0)] * len(coming)):
        assert winner(answers + [a for a, _ in rest], weights + [w for _, w in rest]) == winner(answers, weights)


def test_rounding_of_sums_does_not_break_a_tie_too_early() -> None:
    """Ten times 0.1 sums to less than 1. So the rival's coming votes are added one by one, as the tally adds them."""
    for tenths in range(1, 40):
        rival = sum([0.1] * tenths)
        for coming in range(1, 30):
            grown = rival
            for _ in range(coming):
                grown += 1.0
            # the rival can just reach the leader's sum; it was seen first, so it wins that tie
            assert not certain({1: grown, 0: rival}, coming)


@pytest.mark.parametrize("options", [{"stop": "certain"}, {"stop": "beta", "threshold": 0.8}])
def test_a_wave_holds_no_sample_too_many_and_is_as_large_as_that_allows(options: dict[str, Any]) -> None:
    """Inside the wave no continuation makes the rule hold. At its end some continuation does."""
    configured = SelfConsistencyOptions(**options)
    n = 6

    def holds(answers: Sequence[str | None]) -> bool:
        votes = votes_of(answers)
        if not votes:
            return False
        top = sorted([0, 0, *votes.values()])[-2:]
        beta = options["stop"] == "beta" and beta_tail(int(top[1]), int(top[0])) >= 0.8
        return beta or certain(votes, n - len(answers))

    for drawn in (0, 2, 3):
        for answers in itertools.product(ANSWERS, repeat=drawn):
            if holds(answers):
                continue
            wave = soonest_stop(votes_of(answers), n - drawn, n - drawn, configured.stop, configured.threshold)
            for size in range(1, wave + 1):
                reached = any(holds(answers + rest) for rest in itertools.product([*ANSWERS, "new"], repeat=size))
                assert reached == (size == wave), (answers, size)


def beta_tail(most: int, second: int) -> float:
    """P(p > 1/2) for p ~ Beta(most + 1, second + 1), as a binomial tail."""
    total = most + second + 1
    return sum(math.comb(total, k) for k in range(most + 1)) / 2**total


def test_the_posterior_of_two_answers_is_the_beta_tail() -> None:
    for most in range(30):
        for second in range(most + 1):
            assert posterior([second, most]) == pytest.approx(beta_tail(most, second), rel=1e-12)
    assert posterior([4.0]) == pytest.approx(1 - 1 / 32)  # one answer, seen four times; no other yet


@pytest.mark.parametrize("answers", [3, 4, 10, 40])
@pytest.mark.parametrize("count", [0, 1, 5, 60])
def test_the_posterior_of_equal_counts_is_shared(answers: int, count: int) -> None:
    assert posterior([count] * answers) == pytest.approx(1 / answers, abs=1e-6)


@pytest.mark.parametrize("counts", [[1, 1, 4], [0, 2, 3, 5], [1, 1, 1, 1, 1, 6], [10, 20, 30]])
def test_the_posterior_of_many_answers_is_that_of_their_dirichlet(counts: list[float]) -> None:
    shares = np.random.default_rng(0).dirichlet(np.array(counts) + 1, size=200_000)
    frequency = (shares.argmax(axis=1) == len(counts) - 1).mean()
    assert posterior(counts) == pytest.approx(frequency, abs=5 * math.sqrt(0.25 / 200_000))  # five standard errors


@pytest.mark.parametrize("weights", ["count", "prm", "logprob"])
@pytest.mark.parametrize("n", [2, 5, 12])
async def test_stopping_early_gives_the_same_answer_from_fewer_samples(weights: str, n: int) -> None:
    # probable tokens, for probabilities as weights: a sample to come may have the weight 1
    sampling = Sampling(temperature=0.3 if weights == "logprob" else 1.0, max_tokens=100)
    fewer = 0
    for digits in map(str, range(25)):
        options = [f"n={n}", f"weights={weights}"]
        whole = await run(toy.setting(sampling=sampling), "self-consistency", [*options, "stop=never"], digits)
        early = await run(toy.setting(sampling=sampling), "self-consistency", options, digits)
        assert early.answer == whole.answer
        drawn = len(early.candidates)
        assert early.candidates == whole.candidates[:drawn]
        fewer += n - drawn
        if weights == "count":  # it also stops at the first sample that makes the winner certain
            answers = [c.answer if c.finished else None for c in whole.candidates]
            needed = next(
                m for m in range(1, n + 1) if m == n or ((votes := votes_of(answers[:m])) and certain(votes, n - m))
            )
            assert drawn == needed
    if n == 12:
        assert fewer > 0


async def test_the_weights_are_those_of_their_definition() -> None:
    differ = 0
    for digits in map(str, range(25)):
        plain = await run(toy.setting(), "self-consistency", ["n=12", "stop=never"], digits)
        scored = await run(
            toy.setting(), "self-consistency", ["n=12", "stop=never", "weights=prm", "aggregation=min"], digits
        )
        finished = [c for c in scored.candidates if c.finished and c.scores]
        answers = [c.answer for c in finished]
        assert plain.answer == winner(answers)  # a candidate without a step has no answer
        assert scored.answer == winner(answers, [min(c.scores or []) for c in finished])
        differ += plain.answer != scored.answer
    assert differ > 0


async def test_adaptive_rules_stop_at_their_threshold() -> None:
    """A greedy model repeats its answer, so P(p > 1/2) = 1 - 2^-(v+1) after v samples."""
    for threshold, needed in ((0.8, 2), (0.95, 4), (0.99, 6)):
        for stop in ("beta", "dirichlet"):
            setting = toy.setting(sampling=Sampling(temperature=0, max_tokens=60))
            search = await toy.search(setting, "3")
            options = SelfConsistencyOptions(n=40, stop=stop, threshold=threshold)
            solution = await self_consistency(search, options)
            assert len(solution.candidates) == needed


async def test_a_budget_bounds_what_can_still_come() -> None:
    """Without n, each remaining token could be a solution. The search stops when even so the leader can't lose."""
    stopped = 0
    for digits in map(str, range(12)):
        for amount in (30, 90):
            early = await run(toy.setting(f"{amount}tok"), "self-consistency", [], digits)
            whole = await run(toy.setting(f"{amount}tok"), "self-consistency", ["stop=never"], digits)
            assert early.answer == whole.answer
            stopped += early.usage.generated < whole.usage.generated
    assert stopped > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["stop=beta", "weights=prm"], "stop=beta of self-consistency: its posterior is one of counts"),
        (["threshold=0.4"], "threshold"),
        (["n=0"], "n=0"),
        (["wave=0"], "wave=0"),
        (["stop=soon"], "stop=soon"),
    ],
)
def test_bad_options(options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find("self-consistency").configure(options)


@pytest.mark.parametrize("budget", ["3prm", "8prm", "20prm", "40prm", "2e6flops"])
async def test_scores_that_were_paid_for_decide_though_the_budget_ends_in_a_wave(budget: str) -> None:
    counted = 0
    for digits in map(str, range(25)):
        solution = await run(toy.setting(budget), "self-consistency", ["weights=prm", "stop=never", "n=20"], digits)
        votes: dict[str, float] = {}
        for candidate in solution.candidates:
            if candidate.finished and candidate.scores and candidate.answer is not None:
                votes[candidate.answer] = votes.get(candidate.answer, 0.0) + candidate.scores[-1]
        if votes:
            counted += 1
            assert solution.answer is not None
            assert votes.get(solution.answer, 0.0) == pytest.approx(max(votes.values()))
    assert counted > 5
