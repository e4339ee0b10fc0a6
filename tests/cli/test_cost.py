"""`infer cost`: the samples that it counts for a strategy's options."""

import json

import pytest

from infer.cli import run
from infer.core.options import MOST_TOKENS, Options, Shape
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.strategy import Strategy
from infer.strategies import find, names


def decoded(capsys: pytest.CaptureFixture[str], *arguments: str) -> int:
    """The decoded tokens that `infer cost` counts for trajectories of 100 tokens."""
    assert run(["cost", "--tokens", "100", *arguments, "--json"]) == 0
    rows = {row["part"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    return int(rows["generator decode"]["tokens"])


@pytest.mark.parametrize(
    ("arguments", "trajectories"),
    [
        ("-s greedy --n 32", 1),
        ("-s budget-forcing", 1),
        ("-s best-of-n", 16),
        ("-s best-of-n --n 32", 32),
        ("-s best-of-n -o level=step --n 8", 8),
        ("-s self-consistency --n 5", 5),
        ("-s particle-filter --n 3", 3),
        ("-s best-of-n -o n=8", 8),
        ("-s beam --n 8", 8),
        ("-s beam -o n=8", 8),
        ("-s dvts --n 8 --branches 2", 8),
    ],
)
def test_tokens_are_those_of_all_branches(
    arguments: str, trajectories: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decoded(capsys, *arguments.split()) == 100 * trajectories


def test_branches_of_one_trajectory_share_its_cache(capsys: pytest.CaptureFixture[str]) -> None:
    def memory(*arguments: str) -> float:
        assert run(["cost", "--n", "8", *arguments, "--json"]) == 0
        return float(json.loads(capsys.readouterr().out)["memory"])

    assert memory("-s", "beam", "--branches", "8") < memory("-s", "beam", "--branches", "2") < memory("-s", "best-of-n")


def test_a_reward_model_is_read_for_each_step_that_a_strategy_scores(capsys: pytest.CaptureFixture[str]) -> None:
    def read(*arguments: str) -> float:
        assert run(["cost", "--prm", "nano-prm-s", "--tokens", "400", "--n", "4", *arguments, "--json"]) == 0
        rows = {row["part"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
        return float(rows["verifier"]["bytes"])

    whole = read("-s", "best-of-n")
    for strategy in ("beam", "dvts", "particle-filter"):
        assert read("-s", strategy, "--step-tokens", "10") > 4 * whole
        assert (
            read("-s", strategy, "--step-tokens", "10")
            > read("-s", strategy)
            > read("-s", strategy, "--step-tokens", "400")
        )
    assert read("-s", "best-of-n", "-o", "level=step") > whole == read("-s", "best-of-n", "--step-tokens", "10")


@pytest.mark.parametrize(
    ("name", "options", "scores"),
    [
        ("beam", [], True),
        ("dvts", [], True),
        ("astar", [], True),
        ("particle-filter", [], True),
        ("particle-gibbs", [], True),
        ("best-of-n", [], False),
        ("best-of-n", ["level=step"], True),
        ("mcts", [], False),
        ("mcts", ["values=prm"], True),
        ("self-consistency", [], False),
        ("greedy", [], False),
    ],
)
def test_strategies_that_score_each_step(name: str, options: list[str], scores: bool) -> None:
    assert find(name).configure(options).scores_steps is scores


def test_shapes_of_the_strategies_as_they_are_configured() -> None:
    def shape(name: str, *options: str) -> Shape | None:
        return find(name).configure(options).shape()

    assert shape("beam", "n=12", "width=3") == shape("dvts", "n=12", "width=3") == Shape(4, 3)
    assert shape("best-of-n", "n=4", "level=step") == Shape(1, 4)
    # unknown in advance: as many samples as the budget allows, or as the results require
    assert shape("best-of-n") is shape("self-consistency") is None
    assert shape("best-of-n", "n=4", "choose=tournament") is shape("beam", "lookahead=1") is None
    declared = {name for name in names() if shape(name, *(["n=4"] if "n" in find(name).options.model_fields else []))}
    single, whole = {"greedy", "budget-forcing"}, {"best-of-n", "self-consistency", "particle-filter"}
    assert declared == single | whole | {"beam", "dvts"}


class Pairs(Options):
    pairs: int = 3

    def shape(self) -> Shape:
        return Shape(2 * self.pairs)


async def mine(search: Search, options: Pairs) -> Solution:
    raise NotImplementedError


def test_a_strategy_of_another_package_declares_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("infer.strategies.find", lambda name: Strategy(name, mine))
    assert decoded(capsys, "-s", "mine") == 600
    assert decoded(capsys, "-s", "mine", "-o", "pairs=5") == 1000
    assert run(["cost", "-s", "mine", "--branches", "2"]) == 2
    assert "--branches 2" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--tokens", "--prompt"])
def test_more_tokens_than_any_model_reads(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cost", option, str(MOST_TOKENS)]) == 0
    assert run(["cost", option, str(MOST_TOKENS + 1)]) == 2
    assert f"up to {MOST_TOKENS:,}" in capsys.readouterr().err
