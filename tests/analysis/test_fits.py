"""Fits: the ParScale law from its published losses, known curves, and other implementations' intervals."""

import numpy as np
import pandas as pd
import pytest

from infer.analysis import LOG_LINEAR, PARSCALE, SATURATING, Outcomes, fit, fit_curve, parscale_losses
from infer.analysis.fits import PARSCALE_PUBLISHED
from infer.errors import UserError


def test_the_parscale_table_is_whole() -> None:
    table = parscale_losses()
    assert len(table) == 48
    assert table.groupby(["dataset", "streams"]).size().eq(6).all()
    for _, part in table.groupby("dataset"):  # losses fall with parameters and with streams
        losses = part["loss"].to_numpy().reshape(4, 6)
        assert part["streams"].tolist() == [1] * 6 + [2] * 6 + [4] * 6 + [8] * 6
        assert (np.diff(losses, axis=0) < 0).all()
        assert (np.diff(losses, axis=1) < 0).all()


@pytest.mark.parametrize("dataset", ["stack-v2-python", "pile"])
def test_parscale_fit_recovers_the_papers_law(dataset: str) -> None:
    table = parscale_losses()
    part = table[table["dataset"] == dataset]
    law = fit(PARSCALE, [part["parameters"], part["streams"]], part["loss"])
    published = PARSCALE_PUBLISHED[dataset]
    assert round(law.parameters["k"], 2) == published["k"]
    assert round(law.r2, 4) == published["r2"]
    for name, value in law.parameters.items():
        low, high = law.intervals[name]
        assert low < value < high


def test_parscale_fit_predicts_what_the_authors_calculator_says() -> None:
    """The page is https://parscale-parallel-scaling-law.hf.space, for Stack-V2-Python, 2.8B parameters and P = 4."""
    table = parscale_losses()
    part = table[table["dataset"] == "stack-v2-python"]
    law = fit(PARSCALE, [part["parameters"], part["streams"]], part["loss"])
    assert law([2.8e9], [4])[0] == pytest.approx(1.01548, abs=1e-5)
    k = law.parameters["k"]
    equivalent = [2.8 * (1 + k * np.log(4)) / (1 + k * np.log(streams)) for streams in (1, 2, 8)]
    assert equivalent == pytest.approx([4.33, 3.4, 2.38], abs=0.005)


def test_log_linear_is_ordinary_least_squares() -> None:
    from scipy.stats import linregress, t

    rng = np.random.default_rng(0)
    cost = np.geomspace(100, 1e5, 9)
    accuracy = 0.2 + 0.1 * np.log10(cost) + rng.normal(0, 0.01, 9)
    found = fit(LOG_LINEAR, cost, accuracy)
    expected = linregress(np.log10(cost), accuracy)
    assert found.parameters == pytest.approx({"a": expected.intercept, "b": expected.slope})
    assert found.r2 == pytest.approx(expected.rvalue**2)
    errors = {"a": (expected.intercept, expected.intercept_stderr), "b": (expected.slope, expected.stderr)}
    for name, (value, error) in errors.items():
        half = t.ppf(0.975, 7) * error
        assert found.intervals[name] == pytest.approx((value - half, value + half), rel=1e-5)


def test_saturating_law_is_recovered() -> None:
    cost = np.geomspace(50, 5e4, 8)
    found = fit(SATURATING, cost, 0.8 - (50 / (cost * 4)) ** 0.6)
    assert found.parameters == pytest.approx({"top": 0.8, "scale": 12.5, "alpha": 0.6}, rel=1e-4)
    assert found.r2 == pytest.approx(1)
    assert found([100.0])[0] == pytest.approx(0.8 - 0.125**0.6, rel=1e-5)


def test_a_saturating_law_ends_at_all_problems_solved() -> None:
    """The curve does not bend yet, so a fit without a bound would let it end far above 1."""
    cost = np.geomspace(10, 1e4, 8)
    found = fit(SATURATING, cost, 0.1 + 0.2 * np.log10(cost))
    assert 0.9 < found.parameters["top"] <= 1
    assert found.intervals["top"][1] <= 1
    assert found.r2 > 0.95
    rows = 0.1 + 0.2 * np.log10(cost) + np.random.default_rng(3).normal(0, 0.02, (20, 8))
    assert fit(SATURATING, cost, rows[0], replicates=rows).intervals["top"][1] <= 1
    solved = fit(SATURATING, cost, np.append(1 - (2 / cost[:-1]) ** 0.8, 1.0))  # the last point is at the end itself
    assert solved.parameters["top"] == pytest.approx(1, abs=1e-3)


def test_a_positive_quantity_has_a_positive_interval() -> None:
    """The scale of a curve that saturates at once is known only to an order of magnitude."""
    cost = np.geomspace(50, 5e4, 8)
    noise = np.random.default_rng(0).normal(0, 0.02, 8)
    found = fit(SATURATING, cost, 0.8 - (5 / cost) ** 0.6 + noise)
    for name in ("scale", "alpha"):
        low, high = found.intervals[name]
        value = found.parameters[name]
        assert 0 < low < value < high
        assert low * high == pytest.approx(value**2)
    assert fit(SATURATING, [1, 10, 100], [0.1, 0.3, 0.4]).intervals["alpha"] == (0, np.inf)  # three points, exactly


def test_intervals_from_replicates_and_from_resampled_points() -> None:
    """All points shift together. Their scatter does not show that, but the replicates do."""
    rng = np.random.default_rng(1)
    cost = np.geomspace(10, 1e4, 6)
    line = 0.1 + 0.15 * np.log10(cost)
    shifts = rng.normal(0, 0.05, 200)
    alone = fit(LOG_LINEAR, cost, line)
    together = fit(LOG_LINEAR, cost, line, replicates=line + shifts[:, None])
    assert alone.intervals["a"][1] - alone.intervals["a"][0] < 1e-6
    low, high = np.quantile(shifts, [0.025, 0.975])
    assert together.intervals["a"] == pytest.approx((0.1 + low, 0.1 + high))
    assert together.intervals["b"] == pytest.approx((0.15, 0.15))
    noisy = line + rng.normal(0, 0.01, 6)
    low, high = fit(LOG_LINEAR, cost, noisy, bootstrap=200).intervals["b"]
    assert low < 0.15 < high


def test_a_curve_is_as_uncertain_as_its_problems() -> None:
    """All points come from one set of problems, so the line's height has the standard error of the problems' mean."""
    rng = np.random.default_rng(2)
    hard = rng.random(300) < 0.5
    costs = np.geomspace(10, 1000, 4)
    names = list("abcd")
    of = Outcomes(
        pd.DataFrame({name: hard.astype(float) for name in names}),
        pd.DataFrame({name: np.full(300, cost) for name, cost in zip(names, costs, strict=True)}),
        "tokens",
    )
    found = fit_curve(LOG_LINEAR, of, names, draws=1000)
    assert found.parameters == pytest.approx({"a": hard.mean(), "b": 0}, abs=1e-9)
    half = 1.96 * hard.std() / np.sqrt(300)
    assert found.intervals["a"] == pytest.approx((hard.mean() - half, hard.mean() + half), abs=0.1 * half)
    assert found.intervals["b"] == pytest.approx((0, 0), abs=1e-9)


def test_too_few_points() -> None:
    with pytest.raises(UserError, match="3 parameters: 2 points are too few"):
        fit(SATURATING, [1, 2], [0.1, 0.2])
    assert fit(LOG_LINEAR, [1, 10], [0.1, 0.2]).intervals["b"] == (-np.inf, np.inf)
