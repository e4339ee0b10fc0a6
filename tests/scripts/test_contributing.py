"""The examples of CONTRIBUTING.md do what it says. tests/strategies/test_find.py installs its first strategy."""

import re
from pathlib import Path
from typing import Any

import pytest

from infer.core.problem import Problem

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


def example(name: str) -> dict[str, Any]:
    """The names defined by the Python block that begins with this comment."""
    block = re.search(rf"```python\n# {re.escape(name)}\n(.*?)```", CONTRIBUTING.read_text(), re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {"__name__": "example"}
    exec(block[1], names)
    return names


async def test_the_verifier() -> None:
    verifier = example("arithmetic.py")["Arithmetic"]()
    steps = ["12/4=3\n\n", "3*2=7\n\n", "7-9=-2\n\n", "so it is 5"]
    assert (await verifier.score(Problem("p", "12/4*2-9=?"), steps, 1, True)).values == [0.0, 1.0, 0.5]


def test_the_evaluation_set() -> None:
    doubles = example("my_package/sets.py")["DOUBLES"]
    problems = list(doubles.load())
    assert len({problem.id for problem in problems}) == 100
    assert all(problem.answer == str(eval(problem.prompt.removesuffix("=?"))) for problem in problems)


@pytest.mark.parametrize(("answer", "right"), [("paris", True), ("Paris.", True), ("Rome", False)])
async def test_the_grader(answer: str, right: bool) -> None:
    grader = example("words.py")["Words"]()
    assert grader.extract(f"Let me see.\n{answer}\n") == answer
    assert (await grader.grade(Problem("p", "The capital of France?", "Paris"), answer)).right == right


async def test_the_grader_groups_equal_answers() -> None:
    grader = example("words.py")["Words"]()
    assert await grader.group(Problem("p", ""), ["Rome", None, "Paris.", "rome", "paris"]) == [0, -1, 2, 0, 2]
