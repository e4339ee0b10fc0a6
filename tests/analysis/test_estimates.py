"""Intervals: their coverage by simulation, and their values against textbook formulas."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from infer.analysis import accuracy, auroc, compare, mean, read, reliability, share
from infer.analysis.estimates import mcnemar, paired, percentiles, resamples
from infer.core.tally import wilson
from infer.errors import UserError
from tests.analysis.synthetic import random_solutions, solution, write_run

DRAWS = 2000


@pytest.mark.parametrize(
    ("problems", "seeds", "a", "b"),
    [(100, 1, 1, 1), (500, 1, 8, 2), (30, 4, 2, 2), (100, 3, 0.5, 0.5), (50, 8, 5, 5), (100, 5, 6, 1)],
)
def test_coverage_of_accuracy(problems: int, seeds: int, a: float, b: float) -> None:
    """With several runs of problems of random difficulty, 93 to 97% of the intervals contain the mean difficulty."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(problems), seeds)
    covered = 0
    for _ in range(DRAWS):
        right = rng.random((problems, seeds)) < rng.beta(a, b, (problems, 1))
        estimate = share(right.ravel(), ids)
        covered += estimate.low <= a / (a + b) <= estimate.high
    assert 0.93 <= covered / DRAWS <= 0.97


def test_an_interval_that_ignores_the_clusters_would_fail_this() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(DRAWS):
        right = rng.random((30, 4)) < rng.beta(0.5, 0.5, (30, 1))
        low, high = wilson_of(int(right.sum()), 120)
        covered += low <= 0.5 <= high
    assert covered / DRAWS < 0.85


def wilson_of(correct: int, total: int) -> tuple[float, float]:
    p, z = correct / total, 1.959963984540054
    centre, half = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + z * z / (4 * total**2))
    return (centre - half) / (1 + z * z / total), (centre + half) / (1 + z * z / total)


def test_coverage_of_uneven_clusters_when_values_weigh_the_same() -> None:
    """With the ratio estimator, problems with many values count for more."""
    rng = np.random.default_rng(1)
    sizes = np.repeat([1, 2, 4, 8], 25)
    difficulty = np.repeat([0.2, 0.4, 0.6, 0.8], 25)
    truth = float((difficulty * sizes).sum() / sizes.sum())
    covered = 0
    for _ in range(DRAWS):
        chosen = rng.integers(0, 100, 100)
        values = [rng.random(sizes[one]) < difficulty[one] for one in chosen]
        estimate = share(np.concatenate(values), np.repeat(np.arange(100), sizes[chosen]), weigh="values")
        covered += estimate.low <= truth <= estimate.high
    assert 0.93 <= covered / DRAWS <= 0.97


def test_coverage_of_means_and_of_the_bootstrap() -> None:
    rng = np.random.default_rng(2)
    weights = resamples(60, 500)
    student = bootstrap = 0
    for _ in range(DRAWS):
        costs = rng.gamma(4.0, 25.0, 60)
        estimate = mean(costs, np.arange(60))
        student += estimate.low <= 100 <= estimate.high
        low, high = percentiles(weights @ costs)
        bootstrap += low <= 100 <= high
    assert 0.93 <= student / DRAWS <= 0.97
    assert 0.925 <= bootstrap / DRAWS <= 0.97  # intervals from percentiles of a skewed mean are a little short


@pytest.mark.parametrize("weigh", ["problems", "values"])
def test_one_run_of_each_problem_has_wilsons_interval(weigh: Literal["problems", "values"]) -> None:
    """`infer show` and `infer report` give the same interval for a run."""
    for correct, total in ((69, 80), (1, 3), (430, 500), (1900, 2000), (0, 30), (30, 30)):
        estimate = share(np.arange(total) < correct, np.arange(total), weigh=weigh)
        assert (estimate.low, estimate.high) == pytest.approx(wilson(correct, total), abs=1e-12)


@pytest.mark.parametrize(("problems", "chance"), [(20, 0.5), (50, 0.85), (80, 0.9), (300, 0.97)])
def test_coverage_of_one_run_of_each_problem(problems: int, chance: float) -> None:
    """The coverage is exact, summed over all counts. Wilson's is a little off for some numbers of problems."""
    from scipy.stats import binom

    counts = np.arange(problems + 1)
    intervals = [share(np.arange(problems) < count, np.arange(problems)) for count in counts]
    held = np.array([one.low <= chance <= one.high for one in intervals])
    assert 0.92 <= float(binom.pmf(counts, problems, chance) @ held) <= 0.98


def test_seeds_of_a_problem_are_no_new_problems() -> None:
    right = np.arange(50) % 3 == 0
    once = share(right, np.arange(50))
    thrice = share(np.tile(right, 3), np.tile(np.arange(50), 3))
    assert (thrice.mean, thrice.low, thrice.high) == pytest.approx((once.mean, once.low, once.high))
    assert (thrice.problems, thrice.values) == (50, 150)


def test_missing_values_are_counted_and_left_out() -> None:
    estimate = share([1, np.nan, 0, np.nan], ["a", "a", "b", "c"])
    assert (estimate.mean, estimate.problems, estimate.values, estimate.missing) == (0.5, 2, 2, 2)
    nothing = share([np.nan], ["a"])
    assert math.isnan(nothing.mean)
    assert (nothing.low, nothing.high, nothing.missing) == (0, 1, 1)
    assert mean([3.0], ["a"]).high == math.inf
    same = share(np.full(30, 1 / 3), np.arange(30))  # no spread except for rounding
    assert same.high - same.low > 0.2


def test_accuracy_by_columns(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", random_solutions(30, 2), seed=0)
    b = write_run(tmp_path / "b", random_solutions(30, 2, seed=1), seed=1)
    runs = read([a, b])
    table = accuracy(runs)
    assert table.loc["best-of-n", "mean"] == pytest.approx(runs.problems["correct"].mean())
    assert table.loc["best-of-n", ["problems", "values"]].tolist() == [30, 60]
    assert accuracy(runs, ["run", "level"]).loc[("a", "1"), "problems"] == 10


def test_paired_differences(tmp_path: Path) -> None:
    """The difference has Bonett and Price's interval on the counts, and the p-value of the exact McNemar test."""
    rng = np.random.default_rng(3)
    first, second = rng.random(40) < 0.4, rng.random(40) < 0.6
    paths = []
    for name, right, tokens in (("a", first, 10), ("b", second, 30)):
        answers = ["7" if one else "1" for one in right]
        made = [solution(f"p{index}", [answer], tokens=tokens) for index, answer in enumerate(answers)]
        paths.append(write_run(tmp_path / name, [*made, solution(f"only-{name}", ["7"])], strategy=name))
    difference = compare(read(paths), "a", "b")
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    only_b, only_a = (gained + 1) / 42, (lost + 1) / 42
    half = 1.959963984540054 * math.sqrt((only_b + only_a - (only_b - only_a) ** 2) / 42)
    assert difference.problems == 40
    assert difference.mean == pytest.approx(second.mean() - first.mean())
    assert (difference.low, difference.high) == pytest.approx((only_b - only_a - half, only_b - only_a + half))
    assert abs(difference.bootstrap_low - difference.low) < 0.03
    assert (difference.cost_a, difference.cost_b) == (10, 30)
    assert (difference.gained, difference.lost) == (gained, lost)
    tail = sum(math.comb(gained + lost, i) for i in range(min(gained, lost) + 1)) / 2 ** (gained + lost)
    assert difference.mcnemar_p == pytest.approx(min(1, 2 * tail))
    assert mcnemar(0, 0) == 1
    with pytest.raises(UserError, match="no graded problems of configuration 'c': there are a, b"):
        compare(read(paths), "a", "c")
    runs = read([paths[0], write_run(tmp_path / "c", [solution("other", ["7"])], strategy="c")])
    with pytest.raises(UserError, match="no problem in common"):
        compare(runs, "a", "c")


def test_a_difference_is_at_most_one(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path / name, [solution(f"p{index}", [answer]) for index in range(3)], strategy=name)
        for name, answer in (("a", "1"), ("b", "7"))
    ]
    runs = read(paths)
    up, down = compare(runs, "a", "b"), compare(runs, "b", "a")
    assert (up.mean, up.high) == (1, 1)
    assert (down.mean, down.low) == (-1, -1)
    assert up.low == -down.high < 0.5


def test_configurations_that_agree_on_all_problems_may_still_differ(tmp_path: Path) -> None:
    solutions = [solution(f"p{index}", ["7"]) for index in range(50)]
    runs = read([write_run(tmp_path / name, solutions, strategy=name) for name in "ab"])
    difference = compare(runs, "a", "b")
    assert difference.mean == 0
    assert difference.low == pytest.approx(-difference.high)
    assert 0.03 < difference.high < 0.1


@pytest.mark.parametrize(("problems", "gain", "loss"), [(80, 0.2, 0.1), (100, 0.1, 0.04), (400, 0.03, 0.03)])
def test_coverage_of_paired_differences(problems: int, gain: float, loss: float) -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(DRAWS):
        draw = rng.random(problems)
        low, high = paired((draw < gain).astype(float) - (draw > 1 - loss))
        covered += low <= gain - loss <= high
    assert 0.93 <= covered / DRAWS <= 0.97


def test_reliability_and_auroc_are_what_counting_gives() -> None:
    rng = np.random.default_rng(3)
    score = np.append(rng.integers(0, 11, 300) / 10, math.nan)
    right = np.append((rng.random(300) < 0.3 + 0.4 * score[:-1]).astype(float), 1.0)
    right[0] = math.nan
    problems = np.arange(301) % 40
    table = reliability(score, right, problems, bins=4)
    known = [(s, r) for s, r in zip(score, right, strict=True) if s == s and r == r]
    assert table["size"].sum() == pytest.approx(1)
    row: Any
    for row in table.itertuples():
        own = [(s, r) for s, r in known if row.left <= s < row.right or s == row.right == 1]
        assert row.size == pytest.approx(len(own) / len(known))
        assert row.score == pytest.approx(sum(s for s, _ in own) / len(own))
        assert row.mean == pytest.approx(sum(r for _, r in own) / len(own))
        assert row.low < row.mean < row.high
    pairs = [(good, bad) for good, r in known if r for bad, q in known if not q]
    wins = sum((good > bad) + (good == bad) / 2 for good, bad in pairs)
    assert auroc(score, right) == pytest.approx(wins / len(pairs))
    assert math.isnan(auroc([0.1, 0.2], [1, 1]))
