"""The examples of CONTRIBUTING.md do what it says. tests/strategies/test_find.py installs its first strategy."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from infer.core.problem import Problem
from infer.nano import checkpoint
from infer.testing import GeneratorLaws
from infer.testing.toy import ToyGenerator

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


async def test_the_backend_and_its_laws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's own test opens the example's generator, and is a class of laws."""
    modules = {name: ModuleType(name) for name in ("my_package", "my_package.engine", "backend")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    opened: list[tuple[str, dict[str, Any]]] = []

    def generator(model: str, **how: Any) -> ToyGenerator:
        opened.append((model, how))
        return ToyGenerator()

    vars(modules["my_package.engine"])["MyGenerator"] = generator
    vars(modules["backend"]).update(example("backend.py"))
    laws = example("test_mine.py")["TestMine"]
    assert issubclass(laws, GeneratorLaws)
    assert isinstance(await laws().open(), ToyGenerator)
    assert opened == [(str(checkpoint("nano-xs")), {"dtype": "auto", "max_context": None})]
