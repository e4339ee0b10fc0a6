"""Curves, frontiers and allocations: against brute force, and on known curves."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from infer.analysis import Outcomes, allocation, at_equal_cost, at_k, curve, frontier, outcomes, read, sampled
from infer.analysis.curves import families
from infer.analysis.pools import How
from infer.core.pricing import Call, Pricing
from infer.cost.config import PUBLIC, read_spec
from infer.cost.formulas import Serving
from infer.cost.hardware import HARDWARE
from infer.errors import UserError
from tests.analysis.synthetic import random_solutions, solution, write_run


def made(costs: list[float], accuracies: list[float], problems: int = 200) -> Outcomes:
    """Configurations a, b, ... Each solves the first problems, as many as its accuracy says, at one cost for all."""
    names = [chr(ord("a") + index) for index in range(len(costs))]
    correct = {
        name: (np.arange(problems) < round(accuracy * problems)).astype(float)
        for name, accuracy in zip(names, accuracies, strict=True)
    }
    cost = {name: np.full(problems, price) for name, price in zip(names, costs, strict=True)}
    return Outcomes(pd.DataFrame(correct), pd.DataFrame(cost), "tokens")


def test_frontier_is_what_no_other_beats() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        costs = rng.integers(1, 6, 7).astype(float).tolist()
        accuracies = (rng.integers(0, 6, 7) / 5).tolist()
        of = made(costs, accuracies, problems=5)
        best, steps = frontier(of, draws=20, points=40)
        kept = sorted(zip(best["cost"], best["accuracy"], strict=True))
        everything = list(zip(costs, accuracies, strict=True))
        beaten = {(c, a) for c, a in everything if any(d <= c and b >= a and (d, b) != (c, a) for d, b in everything)}
        assert kept == sorted(point for point in everything if point not in beaten)  # equal points are all kept
        assert set(costs) <= set(steps["cost"])
        for cost, accuracy in zip(steps["cost"], steps["accuracy"], strict=True):
            assert accuracy == max(a for c, a in everything if c <= cost)
        assert (steps["low"] <= steps["accuracy"]).all()
        assert (steps["high"] >= steps["accuracy"]).all()


def test_configurations_that_are_equal_are_on_the_frontier_together() -> None:
    best, steps = frontier(made([10, 20, 20, 20, 30], [0.5, 0.6, 0.6, 0.55, 0.6]), draws=200)
    assert best["configuration"].tolist() == ["a", "b", "c"]
    assert best["chosen"].tolist() == [1, 1, 1]
    at = steps.set_index("cost")["accuracy"]
    assert at[[10, 20, 30]].tolist() == [0.5, 0.6, 0.6]  # the line goes through its points


def test_a_frontier_of_one_point() -> None:
    best, steps = frontier(made([10.0], [0.5]))
    assert best[["configuration", "cost", "accuracy", "chosen"]].to_numpy().tolist() == [["a", 10.0, 0.5, 1.0]]
    assert len(steps) == 1
    assert 0.4 < steps["low"][0] < 0.5 < steps["high"][0] < 0.6
    one = allocation(made([10.0], [0.5]), [5, 10])
    assert one["configuration"].isna().tolist() == [True, False]
    assert one["chosen"][1] == 1
    free, _ = frontier(made([0.0, 1.0], [0.5, 0.6]))  # a cost of zero has no logarithm
    assert free["configuration"].tolist() == ["a", "b"]


def test_allocation_takes_the_best_that_is_affordable_and_says_how_sure_that_is() -> None:
    of = made([10, 20, 20, 40], [0.5, 0.6, 0.6, 0.55])
    table = allocation(of, [9, 10, 20, 100], draws=500)
    assert table["configuration"].tolist()[1:] == ["a", "b", "b"]
    rng = np.random.default_rng(1)
    noisy = Outcomes(
        pd.DataFrame({"a": (rng.random(300) < 0.5).astype(float), "b": (rng.random(300) < 0.5).astype(float)}),
        pd.DataFrame({"a": np.ones(300), "b": np.ones(300)}),
        "tokens",
    )
    row = allocation(noisy, [2.0], draws=2000).iloc[0]
    other = ({"a", "b"} - {row["configuration"]}).pop()
    gap = noisy.correct[row["configuration"]] - noisy.correct[other]
    from scipy.stats import norm

    expected = norm.cdf(gap.mean() / (gap.std() / np.sqrt(300)))
    assert row["chosen"] == pytest.approx(expected, abs=0.04)
    assert row["runner_up"] == other


def test_equal_cost_is_met_by_mixing_two_configurations() -> None:
    of = made([10, 30, 20, 40], [0.4, 0.6, 0.3, 0.7])
    table = at_equal_cost(of, ["a", "b"], ["c", "d"], [15, 20, 25, 30, 40, 50], draws=500)
    assert np.isnan(table["difference"][0])  # c is dearer
    expected = [0.3 - 0.5, 0.4 - 0.55, 0.5 - 0.6, 0.7 - 0.6, 0.7 - 0.6]
    assert table["difference"][1:].tolist() == pytest.approx(expected)
    assert (table["low"] <= table["difference"])[1:].all()
    assert (table["difference"] <= table["high"])[1:].all()
    falling = made([10, 20, 30, 20], [0.4, 0.2, 0.6, 0.4])  # b is skipped: a is cheaper and better
    assert at_equal_cost(falling, ["a", "b", "c"], ["d"], [20, 25])["difference"].tolist() == pytest.approx([0, -0.1])


def test_paired_bands_are_narrower_than_the_sum_of_both() -> None:
    """The same problems are hard for both, so the difference is known far better than either accuracy."""
    rng = np.random.default_rng(2)
    hard = rng.random(400) < 0.5
    flips = rng.random(400) < 0.02
    frame = pd.DataFrame({"a": hard.astype(float), "b": (hard | flips).astype(float)})
    of = Outcomes(frame, pd.DataFrame({"a": np.ones(400), "b": np.ones(400)}), "tokens")
    table = at_equal_cost(of, ["a"], ["b"], [1.0])
    points = curve(of)
    assert table["high"][0] - table["low"][0] < 0.3 * (points["high"] - points["low"]).min()


def test_outcomes_hold_the_problems_that_all_have(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", [solution("p", ["7"]), solution("q", ["1"])], options={"n": 1})
    again = write_run(tmp_path / "again", [solution("p", ["1"])], options={"n": 1}, seed=1)
    b = write_run(tmp_path / "b", [solution("p", ["7"] * 3), solution("r", ["7"])], options={"n": 3}, seed=0)
    runs = read([a, again, b])
    of = outcomes(runs)
    assert of.left_out == 2
    assert of.correct.loc["p"].to_dict() == {"best-of-n n=1": 0.5, "best-of-n n=3": 1}
    assert of.cost.loc["p"].to_dict() == {"best-of-n n=1": 10, "best-of-n n=3": 30}
    assert families(runs) == {"best-of-n": ["best-of-n n=1", "best-of-n n=3"]}
    other = write_run(tmp_path / "other", [solution("z", ["7"])], strategy="greedy")
    with pytest.raises(UserError, match="no graded problem in common"):
        outcomes(read([a, other]))
    with pytest.raises(UserError, match="no problem was graded"):
        outcomes(read([write_run(tmp_path / "none", [solution("z", ["7"], reference=None)])]))


def test_samples_as_configurations(tmp_path: Path) -> None:
    runs = read([write_run(tmp_path / "a", random_solutions(12, 6))])
    of = sampled(runs, ["majority", "pass"], [1, 3, 7])
    assert list(of.correct.columns) == [f"best-of-n, {how}@{k}" for how in ("majority", "pass") for k in (1, 3)]
    values = at_k(runs, "majority", [3])[3]
    assert of.correct["best-of-n, majority@3"].tolist() == values.tolist()
    assert of.cost["best-of-n, pass@3"].tolist() == (runs.problems["generated"] / 2).tolist()
    assert (sampled(runs, ["majority"], [3], "prm").cost.to_numpy() == 0).all()  # a vote needs no verifier
    assert (sampled(runs, ["best"], [3], "prm").cost.to_numpy() == 6).all()
    both = outcomes(runs) + of
    assert both.correct.shape == (12, 5)
    with pytest.raises(UserError, match="that many"):
        sampled(runs, ["pass"], [7])
    with pytest.raises(ValueError, match="do not compare"):
        outcomes(runs, "seconds") + of


def test_a_vote_is_not_charged_the_verifier(tmp_path: Path) -> None:
    model = read_spec(PUBLIC["Qwen/Qwen3-0.6B"], dtype="float32")
    reward = read_spec(PUBLIC["Qwen/Qwen3-1.7B"], dtype="bfloat16")
    pricing = Pricing(HARDWARE["h100"], Serving(batch=8))
    sampling = pricing.usage(Call(model, 30, 0, 100))
    scoring = pricing.usage(Call(reward, 130, 0, 0), "verifier_")
    solutions = [one.model_copy(update={"usage": sampling + scoring}) for one in random_solutions(5, 4)]
    folder = write_run(tmp_path / "a", solutions)
    record = json.loads((folder / "run.json").read_text())
    record["facts"][-1] |= {"hardware": asdict(pricing.hardware)}
    record["facts"][-1]["verifier"]["dtype"] = "bfloat16"
    (folder / "run.json").write_text(json.dumps(record))
    runs = read([folder])
    for unit in ("flops", "bytes", "eflops"):
        alone, both = getattr(sampling, unit), getattr(sampling + scoring, unit)
        expected: dict[How, Any] = {"majority": alone, "pass": alone, "weighted": both, "best": both}
        for how, spent in expected.items():
            cost = sampled(runs, [how], [3], unit).cost.to_numpy()
            assert cost == pytest.approx(spent * 3 / 4, rel=1e-6)
