"""Choices from the matrix of passes, against their definitions, exact enumeration and numerical integration."""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from fractions import Fraction
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, stats

from infer.core.consensus import Prior, Selection, b4, codet, max_pass, mbr_exec, optimal, posterior

Matrix = NDArray[np.bool_]
Truth = tuple[tuple[bool, ...], tuple[bool, ...]]
CHOICES: list[Callable[[Matrix], Selection]] = [max_pass, codet, mbr_exec, b4, optimal]
TEN = Prior(10, 10)


def matrix(*rows: str) -> Matrix:
    return np.array([[mark == "1" for mark in row] for row in rows], dtype=np.bool_).reshape(len(rows), -1)


@st.composite
def matrices(draw: st.DrawFn, solutions: int = 4, tests: int = 4) -> Matrix:
    """Few different rows and columns, so that sets and ties are common."""
    width = draw(st.integers(0, tests))
    kinds = draw(st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=3))
    rows = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=solutions))
    return np.array(rows, dtype=np.bool_).reshape(len(rows), width)


priors = st.builds(Prior, st.sampled_from([0.5, 1, 2, 10, 1000]), st.sampled_from([0.25, 1, 10, 1e5]))


@cache
def rising(a: Fraction, k: int) -> Fraction:
    """a (a + 1) ... (a + k - 1)"""
    return math.prod((a + i for i in range(k)), start=Fraction(1))


@cache
def probability(ones: int, zeros: int, a: float, b: float) -> Fraction:
    """Of these outcomes in this order, whose rate is from Beta(a, b): each given those before it."""
    exact_a, exact_b = Fraction(a), Fraction(b)
    return rising(exact_a, ones) * rising(exact_b, zeros) / rising(exact_a + exact_b, ones + zeros)


def joint(passes: Matrix, truth: Truth, prior: Prior) -> Fraction:
    """p(passes, x, y), run by run from the definition of the model, in fractions."""
    x, y = truth
    runs = {(test, passed): 0 for test in (True, False) for passed in (True, False)}  # of wrong solutions
    for right, row in zip(x, passes.tolist(), strict=True):
        for test, passed in zip(y, row, strict=True):
            if not right:
                runs[test, passed] += 1
            elif passed != test:
                return Fraction(0)
    return (
        probability(sum(x), len(x) - sum(x), prior.alpha_xy, 1)
        * probability(sum(y), len(y) - sum(y), prior.alpha_xy, 1)
        * probability(runs[True, True], runs[True, False], 1, 1)
        * probability(runs[False, True], runs[False, False], 1, prior.beta_0)
    )


def truths(passes: Matrix) -> Iterator[Truth]:
    """All 2^N x 2^M of them."""
    solutions, tests = passes.shape
    yield from product(product((False, True), repeat=solutions), product((False, True), repeat=tests))


class Exact:
    """All that the posterior says, by enumeration."""

    def __init__(self, passes: Matrix, prior: Prior) -> None:
        table = {truth: joint(passes, truth, prior) for truth in truths(passes)}
        self.table = {truth: p for truth, p in table.items() if any(truth[0])}
        self.total = total(self.table.values())
        self.solutions = [total(p for (x, _), p in self.table.items() if x[i]) for i in range(passes.shape[0])]
        self.tests = [total(p for (_, y), p in self.table.items() if y[j]) for j in range(passes.shape[1])]
        rows = [tuple(row) for row in passes.tolist()]
        self.sets = {row: self.table[tuple(other == row for other in rows), row] for row in rows}
        """The density of each whole consensus set, by its row."""
        self.density = [self.sets[row] for row in rows]
        self.c = max(self.density) / self.total


def total(densities: Iterable[Fraction]) -> Fraction:
    return sum(densities, start=Fraction(0))


def best(scores: list[Any]) -> tuple[int, ...]:
    return tuple(i for i, score in enumerate(scores) if score == max(scores))


def log(p: Fraction) -> float:
    return math.log(p.numerator) - math.log(p.denominator)  # of whole numbers of any size


@given(matrices(), priors)
@settings(max_examples=60, deadline=None)
def test_the_posterior_equals_enumeration(passes: Matrix, prior: Prior) -> None:
    exact = Exact(passes, prior)
    found = posterior(passes, prior)
    np.testing.assert_allclose(found.solutions, [float(p / exact.total) for p in exact.solutions], rtol=1e-7)
    np.testing.assert_allclose(found.tests, [float(p / exact.total) for p in exact.tests], rtol=1e-7)
    assert optimal(passes, prior).solutions == best(exact.solutions)
    assert optimal(passes, prior).score == pytest.approx(float(max(exact.solutions) / exact.total), rel=1e-7, abs=1e-7)
    assert b4(passes, prior).solutions == best(exact.density)
    assert b4(passes, prior).score == pytest.approx(log(max(exact.density)), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("prior", [Prior(10, 10), Prior(2.5, 1.7), Prior(1, 30)])
@pytest.mark.parametrize("rows", [["1"], ["110", "110", "011"], ["10", "01", "11", "00"], ["0101", "0101", "1111"]])
def test_the_density_equals_numerical_integration(rows: list[str], prior: Prior) -> None:
    passes = matrix(*rows)

    def integral(outcomes: NDArray[Any], a: float, b: float) -> float:
        """Over the rate: the likelihood of the outcomes, one after the other, times its prior density."""

        def integrand(rate: float) -> float:
            return float(np.where(outcomes, rate, 1 - rate).prod() * stats.beta.pdf(rate, a, b))

        return float(integrate.quad(integrand, 0, 1, epsabs=0, epsrel=1e-7)[0])

    densities = []
    for y in np.unique(passes, axis=0):
        x = (passes == y).all(axis=1)
        of_rightness = integral(x, prior.alpha_xy, 1) * integral(y, prior.alpha_xy, 1)
        densities.append(of_rightness * integral(passes[~x][:, y], 1, 1) * integral(passes[~x][:, ~y], 1, prior.beta_0))
    assert b4(passes, prior).score == pytest.approx(math.log(max(densities)), abs=1e-7)


@given(matrices(), priors)
@settings(max_examples=60, deadline=None)
def test_whole_sets_are_enough_for_alpha_of_n_less_two(passes: Matrix, prior: Prior) -> None:
    prior = Prior(max(prior.alpha_xy, len(passes) - 2), prior.beta_0)
    exact = Exact(passes, prior)
    assert b4(passes, prior).score == pytest.approx(log(max(exact.table.values())), rel=1e-7, abs=1e-7)


def test_whole_sets_are_not_always_enough_below() -> None:
    """Where solutions are believed wrong, one of two alike may be right in the densest pair. N - 2 is 4 here."""
    passes, prior = matrix("10", "01", "00", "01", "00", "10"), Prior(0.25, 1)
    exact = Exact(passes, prior)
    assert max(exact.table.values()) == Fraction(12, 11) * max(exact.density)
    assert b4(passes, prior).score == pytest.approx(log(max(exact.density)))
    assert optimal(passes, prior).solutions == best(exact.solutions)  # it counts all subsets


@given(matrices(), priors)
@settings(max_examples=60, deadline=None)
def test_b4_takes_an_optimal_solution_where_its_set_is_more_likely_than_not(passes: Matrix, prior: Prior) -> None:
    exact = Exact(passes, prior)
    chosen, ideal = b4(passes, prior), optimal(passes, prior)
    if exact.c > 0.5:
        assert set(chosen.solutions) == set(ideal.solutions)
    for i in chosen.solutions:
        assert max(exact.solutions) - exact.solutions[i] <= max(Fraction(0), 1 - 2 * exact.c) * exact.total


def every_matrix(solutions: int, tests: int) -> Iterator[Matrix]:
    for marks in product((False, True), repeat=solutions * tests):
        yield np.array(marks, dtype=np.bool_).reshape(solutions, tests)


@pytest.mark.parametrize("shape", [(3, 2), (2, 3)])
@pytest.mark.parametrize(("true", "assumed"), [(TEN, TEN), (TEN, Prior(11, 9)), (Prior(4, 20), Prior(5, 18))])
def test_b4_is_near_the_optimum_under_a_wrong_prior(shape: tuple[int, int], true: Prior, assumed: Prior) -> None:
    """No sampling: the sums are over every matrix of this shape, each with its probability."""
    ideal = taken = slack = Fraction(0)
    agreed = likely = Fraction(0)
    for passes in every_matrix(*shape):
        p, q = Exact(passes, true), Exact(passes, assumed)
        choice = b4(passes, assumed).choice
        ideal += max(p.solutions)
        taken += p.solutions[choice]
        slack += q.total * max(Fraction(0), 1 - 2 * q.c)
        agreed += q.total * (choice in best(q.solutions))
        likely += q.total * (q.c > 0.5)
    assert agreed >= likely > 0  # at least as often as c > 1/2
    distance = 1 - math.prod(1 - variation(*pair) for pair in rates(true, assumed))  # at most: rates are independent
    assert ideal - taken <= 2 * distance + slack
    assert 2 * distance + slack < ideal  # the bound says something


def rates(one: Prior, other: Prior) -> list[tuple[Any, Any]]:
    """The priors of theta_x, theta_y and theta_0 in both; theta_1 has the same."""
    x = (stats.beta(one.alpha_xy, 1), stats.beta(other.alpha_xy, 1))
    return [x, x, (stats.beta(1, one.beta_0), stats.beta(1, other.beta_0))]


def variation(one: Any, other: Any) -> float:
    """The total variation distance of two distributions on [0, 1]."""
    return 0.5 * float(integrate.quad(lambda u: abs(one.pdf(u) - other.pdf(u)), 0, 1, limit=200)[0])


@given(matrices(solutions=7, tests=6))
def test_the_others_keep_their_definitions(passes: Matrix) -> None:
    rows = [tuple(row) for row in passes.tolist()]
    passed = [sum(row) for row in rows]
    alike = [sum(row == other for other in rows) for row in rows]
    assert max_pass(passes) == Selection(best(passed), max(passed))
    assert mbr_exec(passes) == Selection(best(alike), max(alike))
    risks = [sum(any(a != b for a, b in zip(row, other, strict=True)) for other in rows) for row in rows]
    assert mbr_exec(passes).score == len(rows) - min(risks)
    found = codet(passes)
    squares = [n * m**2 for n, m in zip(alike, passed, strict=True)]  # of sqrt(n) m, without rounding
    assert found.solutions == best(squares)
    assert found.score == pytest.approx(math.sqrt(max(squares)))


@given(matrices(solutions=7, tests=6), priors, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_does_not_matter(passes: Matrix, prior: Prior, random: Any) -> None:
    order = random.sample(range(passes.shape[0]), passes.shape[0])
    columns = random.sample(range(passes.shape[1]), passes.shape[1])
    shuffled = passes[order][:, columns]
    found, again = posterior(passes, prior), posterior(shuffled, prior)
    np.testing.assert_allclose(again.solutions, found.solutions[order], rtol=1e-7)
    np.testing.assert_allclose(again.tests, found.tests[columns], rtol=1e-7)
    for choose in (max_pass, codet, mbr_exec, partial(b4, prior=prior), partial(optimal, prior=prior)):
        before, after = choose(passes), choose(shuffled)
        assert {order[i] for i in after.solutions} == set(before.solutions)
        assert after.score == pytest.approx(before.score, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("choose", CHOICES)
@pytest.mark.parametrize(
    ("rows", "solutions"),
    [
        (["111", "111", "111"], (0, 1, 2)),  # all pass
        (["000", "000", "000"], (0, 1, 2)),  # all fail
        (["010"], (0,)),  # one solution
        (["", "", ""], (0, 1, 2)),  # no tests
        (["1", "1", "0"], (0, 1)),
        (["00", "11", "11"], (1, 2)),  # the choice is the earliest of the best, not the first row
    ],
)
def test_outcomes_at_the_edges(
    choose: Callable[[Matrix], Selection], rows: list[str], solutions: tuple[int, ...]
) -> None:
    found = choose(matrix(*rows))
    assert found.solutions == solutions
    assert found.choice == solutions[0]
    assert math.isfinite(found.score)


def test_ties_that_rounding_would_break_are_kept() -> None:
    """Equal densities of different terms: their logs differ in the last bits."""
    for passes, prior in [
        (matrix("11", "10"), Prior(0.5, 1)),
        (matrix("000", "110", "111", "111", "000"), Prior(2, 1)),
    ]:
        exact = Exact(passes, prior)
        assert len({passes[i].tobytes() for i in best(exact.density)}) == 2
        assert b4(passes, prior).solutions == best(exact.density)


def test_ties_of_two_sets_are_reported_whole() -> None:
    passes = matrix("1110", "0111", "1110", "0111", "0000")
    for choose in CHOICES:
        assert choose(passes).solutions == (0, 1, 2, 3)
    # 9 solutions x 2 tests against 4 x 3: the roots tie, 3 x 2 = 2 x 3
    assert codet(matrix(*["11000"] * 9, *["00111"] * 4)).solutions == tuple(range(13))


def test_copies_of_solutions_and_tests_count() -> None:
    passes = matrix("1100", "1100", "0011", "0110")
    assert codet(passes).solutions == mbr_exec(passes).solutions == (0, 1)
    more = passes[[0, 1, 2, 2, 2, 3]]
    assert codet(more).solutions == mbr_exec(more).solutions == b4(more).solutions == (2, 3, 4)
    wider = passes[:, [0, 1, 2, 3, 3, 3]]
    assert max_pass(passes).solutions == (0, 1, 2, 3)
    assert max_pass(wider).solutions == (2,)


def test_outputs_decide_where_they_are_given() -> None:
    passes = matrix("00", "00", "00", "10", "10")
    assert mbr_exec(passes).solutions == (0, 1, 2)
    outputs: list[Hashable] = [None, None, None, (1, "a"), (1, "a")]  # three crashed, and agree on nothing
    assert mbr_exec(passes, outputs) == Selection((3, 4), 2)
    assert mbr_exec(passes, [(1, 2), (1, 3), (1, 2), (4, 2), (5, 2)]) == Selection((0, 2), 2)
    with pytest.raises(ValueError, match="2 outputs for 5 solutions"):
        mbr_exec(passes, [1, 2])


@pytest.mark.parametrize("choose", [*CHOICES, posterior])
def test_other_arrays_than_matrices_of_passes_are_refused(choose: Callable[[Any], object]) -> None:
    empty: list[Any] = [[], np.zeros((0, 5), dtype=bool)]
    for nothing in empty:
        with pytest.raises(ValueError, match="no solutions to choose from"):
            choose(nothing)
    for other in ([[1, 0], [0, 1]], [[0.5]], [True, False], np.ones((2, 2, 2), dtype=bool)):
        with pytest.raises(ValueError, match=r"passes must be booleans \[solutions, tests\], not"):
            choose(other)


@pytest.mark.parametrize("values", [(0, 1), (1, -1), (math.nan, 1), (1, math.inf)])
def test_a_prior_has_positive_parameters(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="alpha_xy and beta_0 must be finite and above zero"):
        Prior(*values)


@pytest.mark.parametrize("prior", [Prior(), Prior(10, 10), Prior(1e3, 1e6)])
def test_large_matrices_keep_their_digits(prior: Prior) -> None:
    """The density of the planted set underflows a float by far; its log is compared with that of whole numbers."""
    rng = np.random.default_rng(7)
    x, y = rng.random(60) < 0.2, rng.random(80) < 0.6
    passes = np.where(x[:, None], y, rng.random((60, 80)) < np.where(y, 0.4, 0.05))
    found = b4(passes, prior)
    assert found.solutions == tuple(np.flatnonzero(x))
    truth = (tuple(x.tolist()), tuple(y.tolist()))
    assert found.score < -1000
    assert found.score == pytest.approx(log(joint(passes, truth, prior)), rel=1e-9)
    beliefs = posterior(passes, prior)
    np.testing.assert_allclose(beliefs.tests, y, atol=1e-9)
    np.testing.assert_allclose(beliefs.solutions, x, atol=1e-9)
