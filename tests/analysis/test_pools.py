"""Results of k of n samples: against enumeration of all subsets, and against simulation."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infer.analysis import at_k, best_at_k, independent, majority_at_k, pass_at_k, read, share, weighted_at_k
from infer.analysis.pools import How, powers
from infer.errors import UserError
from tests.analysis.synthetic import REFERENCE, random_solutions, solution, write_run

Array = np.ndarray[Any, Any]


def enumerate_subsets(n: int, k: int, value: Callable[[Sequence[int]], float]) -> float:
    values = [value(subset) for subset in itertools.combinations(range(n), k)]
    return math.fsum(values) / len(values)


def winners_share(votes: dict[int, float], members: dict[int, list[int]], correct: Array) -> float:
    """The share of right members in the leading class, averaged over tied classes; 0 without votes.

    `members` has only samples of the subset.
    """
    if not votes:
        return 0.0
    top = max(votes.values())
    leading = [kind for kind, vote in votes.items() if abs(vote - top) < 1e-9]
    return float(np.mean([np.mean(correct[members[kind]]) for kind in leading]))


def vote(correct: Array, group: Array, weight: Array) -> Callable[[Sequence[int]], float]:
    def value(subset: Sequence[int]) -> float:
        if np.isnan(weight).all():
            return math.nan
        votes: dict[int, float] = {}
        members: dict[int, list[int]] = {}
        for index in subset:
            if group[index] >= 0 and not math.isnan(weight[index]):
                votes[group[index]] = votes.get(group[index], 0.0) + weight[index]
                members.setdefault(group[index], []).append(index)
        return winners_share(votes, members, correct)

    return value


def right(correct: Array) -> Callable[[Sequence[int]], float]:
    return lambda subset: float(correct[list(subset)].max())


def best(correct: Array, score: Array) -> Callable[[Sequence[int]], float]:
    def value(subset: Sequence[int]) -> float:
        if np.isnan(score).all():
            return math.nan
        known = [-math.inf if math.isnan(score[index]) else score[index] for index in subset]
        return float(np.mean([correct[i] for i, own in zip(subset, known, strict=True) if own == max(known)]))

    return value


def pools(count: int) -> list[tuple[Array, Array, Array]]:
    """Small pools with ties, samples without an answer, missing scores, and classes in which only some are right."""
    rng = np.random.default_rng(1)
    made = []
    for index in range(count):
        n = int(rng.integers(1, 10))
        group = rng.integers(-1, rng.integers(1, 6), n)
        correct = (group == 0).astype(float) if index % 2 else (rng.random(n) < 0.5).astype(float)
        score = np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 4, n) / 4)
        made.append((correct, group, score))
    return made


def test_pass_best_and_majority_equal_the_mean_over_all_subsets() -> None:
    for correct, group, score in pools(40):
        n = len(correct)
        ks = list(range(1, n + 1))
        exact = {
            "pass": pass_at_k(correct[None], ks)[0],
            "best": best_at_k(correct[None], score[None], ks)[0],
            "majority": majority_at_k(correct[None], group[None], ks)[0],
        }
        for k in ks:
            expected = {
                "pass": enumerate_subsets(n, k, right(correct)),
                "best": enumerate_subsets(n, k, best(correct, score)),
                "majority": enumerate_subsets(n, k, vote(correct, group, np.ones(n))),
            }
            for how, value in expected.items():
                assert exact[how][k - 1] == pytest.approx(value, abs=1e-12, nan_ok=True), (how, k)


def test_weighted_votes_are_those_of_all_subsets_within_the_error_of_resampling() -> None:
    draws = 2000
    rng = np.random.default_rng(2)
    off = []
    for correct, group, score in pools(25):
        n = len(correct)
        ks = list(range(1, n + 1))
        found = weighted_at_k(correct[None], group[None], score[None], ks, draws=draws, rng=rng)[0]
        off += [found[k - 1] - enumerate_subsets(n, k, vote(correct, group, score)) for k in ks]
        assert np.isnan(found).all() == np.isnan(score).all()
        assert not abs(off[-n]) > 1e-12  # for one sample it is exact
    assert np.nanmax(np.abs(off)) < 5 * 0.5 / math.sqrt(draws)  # five standard errors at most
    assert abs(np.nanmean(off)) < 4 * 0.5 / math.sqrt(draws * 25)


def test_weighted_votes_of_equal_weight_are_majority_votes() -> None:
    rng = np.random.default_rng(3)
    group = rng.integers(-1, 4, (60, 12))
    correct = (group == 0).astype(float)
    ks = [1, 2, 3, 5, 8, 12]
    weighted = weighted_at_k(correct, group, np.full((60, 12), 0.1), ks, draws=1000, rng=rng).mean(axis=0)
    assert weighted == pytest.approx(majority_at_k(correct, group, ks).mean(axis=0), abs=5 * 0.5 / math.sqrt(60 * 1000))


def test_many_pools_at_once_are_the_same_as_each_alone() -> None:
    rng = np.random.default_rng(4)
    group = rng.integers(-1, 9, (700, 10))
    correct = (group == 0).astype(float)
    ks = [1, 3, 7, 10]
    together = majority_at_k(correct, group, ks)
    for row in range(0, 700, 97):
        assert together[row] == pytest.approx(majority_at_k(correct[row][None], group[row][None], ks)[0], abs=1e-12)


def test_large_pools_do_not_overflow() -> None:
    """Of 1,200 samples 55% are right, and the rest share one wrong answer: a hypergeometric tail for k = 63 and 64."""
    from scipy.stats import hypergeom

    n, right = 1200, 660
    correct = (np.arange(n) < right).astype(float)[None]
    group = (1 - correct).astype(int)
    found = majority_at_k(correct, group, [63, 64])[0]
    counts = [hypergeom(n, right, k) for k in (63, 64)]
    assert found[0] == pytest.approx(counts[0].sf(31), rel=1e-9)
    assert found[1] == pytest.approx(counts[1].sf(32) + counts[1].pmf(32) / 2, rel=1e-9)
    assert pass_at_k(correct, [64])[0, 0] == pytest.approx(1 - counts[1].pmf(0), rel=1e-12)


def test_fewer_than_k_samples_are_not_a_number_and_counted(tmp_path: Path) -> None:
    solutions = [solution("a", [REFERENCE] * 4), solution("b", [REFERENCE] * 2), solution("c", [None, "1"])]
    runs = read([write_run(tmp_path / "a", solutions)])
    for how in ("pass", "majority"):
        values = at_k(runs, how, [1, 2, 3, 4, 5])
        assert values[3].isna().tolist() == [False, True, True]
        assert values[5].isna().all()
        assert values[2].tolist() == [1, 1, 0]
    estimate = share(at_k(runs, "pass", [3])[3], runs.problems["problem_id"])
    assert (estimate.mean, estimate.problems, estimate.missing) == (1, 1, 2)
    with pytest.raises(UserError, match="no score"):
        at_k(runs, "best", [1])


def test_ungraded_problems_are_not_a_number(tmp_path: Path) -> None:
    solutions = [solution("a", ["1", "7"], reference=None, scores=[[0.1], [0.2]]), *random_solutions(1, 2)]
    runs = read([write_run(tmp_path / "a", solutions)])
    for how in ("pass", "best", "majority", "weighted"):
        values = at_k(runs, how, [1, 2], draws=10)
        assert values.isna().to_numpy().tolist() == [[True, True], [False, False]]


def test_the_whole_pool_chooses_as_the_strategy_did(tmp_path: Path) -> None:
    """For k = n, unfinished candidates do not vote and the best score wins, as in the strategy."""
    scores = [[0.2], [0.9], [0.3], [0.3]]
    one = solution("a", ["7", "1", "7", "1"], scores=scores, finished=[True, False, True, True])
    runs = read([write_run(tmp_path / "a", [one])])
    assert at_k(runs, "majority", [4]).iloc[0, 0] == 1
    assert at_k(runs, "weighted", [4], draws=5).iloc[0, 0] == 1
    assert at_k(runs, "best", [4]).iloc[0, 0] == 0.5  # two tie at 0.3


def test_one_sample_alone_gives_the_same_however_it_is_chosen(tmp_path: Path) -> None:
    """Samples that were cut off have no vote, and here they are wrong as well."""
    solutions = random_solutions(40, 8)
    cut_off = {"finished": False, "answer": None}
    candidates = [one.model_copy(update=cut_off) for one in solutions[0].candidates[:3]]
    solutions[0] = solutions[0].model_copy(update={"candidates": [*candidates, *solutions[0].candidates[3:]]})
    runs = read([write_run(tmp_path / "a", solutions)])
    expected = at_k(runs, "pass", [1])[1].tolist()
    for how in ("best", "majority", "weighted"):
        assert at_k(runs, how, [1], draws=3)[1].tolist() == pytest.approx(expected, abs=1e-12)


def test_without_any_score_there_is_nothing_to_choose_by(tmp_path: Path) -> None:
    """A run without scores gives NaN beside one with scores. A pool that was scored but cut off gives a number."""
    scored = [solution("a", ["7", "1"], scores=[[0.9], [0.1]], finished=[done, done]) for done in (True, False)]
    scored[1] = scored[1].model_copy(update={"problem_id": "b"})
    voted = [solution("a", ["7", "1"]), solution("b", ["7", "7"])]
    runs = read([write_run(tmp_path / "scored", scored), write_run(tmp_path / "voted", voted, options={"n": 2})])
    expected: dict[How, list[float]] = {"best": [1, 0.5], "weighted": [1, 0]}
    for how, values in expected.items():
        found = at_k(runs, how, [1, 2], draws=3)
        assert found[2].tolist() == pytest.approx([*values, math.nan, math.nan], nan_ok=True)
        assert found[1].isna().tolist() == [False, False, True, True]


def test_only_samples_drawn_in_one_piece_are_independent(tmp_path: Path) -> None:
    drawn = random_solutions(2, 3)
    searched = [
        one.model_copy(
            update={"candidates": [c.model_copy(update={"address": (0, *c.address)}) for c in one.candidates]}
        )
        for one in drawn
    ]
    paths = [
        write_run(tmp_path / "drawn", drawn),
        write_run(tmp_path / "searched", searched, strategy="astar"),
        write_run(tmp_path / "greedy", [solution("a", ["7"])], strategy="greedy"),
        write_run(tmp_path / "empty", [], strategy="greedy"),
    ]
    assert independent(read(paths)).to_dict() == {"drawn": True, "searched": False, "greedy": False, "empty": False}


def test_powers() -> None:
    assert [powers(n) for n in (0, 1, 2, 6, 8)] == [[1], [1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


@pytest.mark.parametrize("how", ["pass", "best", "majority"])
def test_coverage_of_what_k_samples_give(how: str) -> None:
    """There are 100 problems with pools of 8 samples. Success rates p follow Beta(2, 2), so the truths are moments.

    pass@4: 1 - E[(1 - p)^4]. majority@3 of two answers: E[3 p^2 - 2 p^3]. best-of-2, with scores N(1, 1) if right and
    N(0, 1) if wrong: E[p^2] + 2 E[p (1 - p)] P(N(1, 2) > 0).
    """
    from scipy.special import ndtr

    draws, problems, n = 2000, 100, 8
    rng = np.random.default_rng(5)
    square, cube, fourth = 0.3, 0.2, 1 / 7  # moments of Beta(2, 2), of p and of 1 - p
    right = (rng.random((draws * problems, n)) < rng.beta(2, 2, (draws * problems, 1))).astype(float)
    match how:
        case "pass":
            values, truth = pass_at_k(right, [4]), 1 - fourth
        case "majority":
            values, truth = majority_at_k(right, (1 - right).astype(int), [3]), 3 * square - 2 * cube
        case _:
            values = best_at_k(right, right + rng.normal(size=right.shape), [2])
            truth = square + 2 * (0.5 - square) * float(ndtr(1 / math.sqrt(2)))
    estimates = [share(part, np.arange(problems)) for part in values.reshape(draws, problems)]
    assert np.mean([one.mean for one in estimates]) == pytest.approx(truth, abs=0.003)
    assert 0.93 <= np.mean([one.low <= truth <= one.high for one in estimates]) <= 0.97
