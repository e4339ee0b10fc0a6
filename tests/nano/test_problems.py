"""The generator of problems: its guarantees for values, splits, labels and determinism."""

import itertools
import random
import re
from fractions import Fraction

import pytest

from infer.nano import problems
from infer.nano.problems import Chain


def evaluate(expression: str) -> Fraction:
    """The value of the expression by Python's precedence, in exact fractions."""
    return Fraction(eval(re.sub(r"\d+", r"Fraction(\g<0>)", expression), {"Fraction": Fraction}))


@pytest.mark.parametrize("level", problems.LEVELS)
def test_a_level_s_problems_keep_their_bounds_and_their_answers_are_the_expressions_values(level: int) -> None:
    for chain in itertools.islice(problems.held_out(level), 300):
        assert len(chain.operations) == problems.LEVELS[level]
        assert chain.level == level
        assert 2 <= chain.start <= 99
        assert all(1 <= value <= problems.LARGEST for value in chain.values)
        assert all(2 <= b <= (99 if op in "+-" else 9) for op, b in chain.operations)
        assert evaluate(chain.expression) == chain.answer
        assert chain.prompt == f"{chain.expression}=?"


def test_steps_replay_the_chain() -> None:
    for chain in itertools.islice(problems.training(1), 300):
        value = str(chain.start)
        *worked, answer = chain.steps
        for (operator, operand), step in zip(chain.operations, worked, strict=True):
            left, _, right = step.partition("=")
            assert left == f"{value}{operator}{operand}"
            assert evaluate(left) == int(right)
            value = right
        assert answer == f"Answer: \\boxed{{{chain.answer}}}"
        assert problems.label_steps(chain, chain.steps) == [True] * len(chain.steps)


def test_parentheses_stand_only_where_precedence_needs_them() -> None:
    chain = Chain(23, (("+", 54), ("*", 2), ("-", 88), ("/", 3), ("*", 4)))
    assert chain.expression == "((23+54)*2-88)/3*4"
    assert chain.steps == ["23+54=77", "77*2=154", "154-88=66", "66/3=22", "22*4=88", "Answer: \\boxed{88}"]


def test_training_never_draws_a_held_out_problem() -> None:
    held_out = {c.expression for level in problems.LEVELS for c in itertools.islice(problems.held_out(level), 2000)}
    drawn = list(itertools.islice(problems.training(7), 20_000))
    assert {len(chain.operations) for chain in drawn} == set(range(2, 11))
    assert not any(chain.is_held_out for chain in drawn)
    assert held_out.isdisjoint(chain.expression for chain in drawn)


def test_the_same_seed_draws_the_same_problems_everywhere() -> None:
    assert [c.prompt for c in itertools.islice(problems.held_out(3), 2)] == [
        "((27/3-5)*4+10)/2*2=?",
        "43*5/5*4*3/3+55=?",
    ]
    one, other = problems.training(3), problems.training(4)
    assert list(itertools.islice(problems.training(3), 50)) == list(itertools.islice(one, 50))
    assert list(itertools.islice(problems.training(3), 50)) != list(itertools.islice(other, 50))


def test_held_out_problems_differ_from_each_other() -> None:
    chains = list(itertools.islice(problems.held_out(1), 3000))
    assert len({chain.expression for chain in chains}) == 3000


CHAIN = Chain(8, (("+", 2), ("/", 3), ("*", 4)))  # an inexact division, as after a mistake


@pytest.mark.parametrize(
    ("steps", "labels"),
    [
        (["8+2=9", "9/3=3", "3*4=12", "Answer: \\boxed{12}"], [False, True, True, True]),
        (["8+2=10", "10/3=3", "3*4=12", "Answer: \\boxed{12}"], [True, False, True, True]),
        (["8+2=9", "8/3=3", "3*4=12", "Answer: \\boxed{13}"], [False, False, True, False]),
        (["8+2=9", "9/3=3", "Answer: \\boxed{3}"], [False, True, False]),
        (["8+2=9", "9*4=36"], [False, False]),
        (["8+2=", "9/3=3"], [False, False]),
        (["8+2=9", "9/3=3", "3*4=12", "12*4=48", "Answer: \\boxed{48}"], [False, True, True, False, False]),
        (["Answer: \\boxed{8}"], [False]),
        ([""], [False]),
    ],
)
def test_steps_are_judged_in_themselves(steps: list[str], labels: list[bool]) -> None:
    assert problems.label_steps(CHAIN, steps) == labels


def test_slips_make_wrong_steps_and_no_slips_none() -> None:
    rng = random.Random(0)
    chains = list(itertools.islice(problems.training(2), 500))
    assert all(problems.corrupt(chain, rng, 0.0, 0.0) == chain.steps for chain in chains)
    labels = [label for c in chains for label in problems.label_steps(c, problems.corrupt(c, rng, 0.1, 0.1))]
    assert 0.1 < labels.count(False) / len(labels) < 0.35
