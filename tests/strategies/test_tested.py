"""Programs chosen by tests, end to end: a scripted model, the real sandbox, and matrices worked out by hand."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from infer.core.generator import Completion, Message, Request
from infer.core.ledger import Budget
from infer.core.problem import Problem
from infer.core.solution import Solution
from infer.core.solve import solve_one
from infer.errors import UserError
from infer.evalsets.graders.programs import HiddenTests, Programs
from infer.strategies import find
from infer.strategies.parts.tested import BEGUN
from infer.testing import toy

RIGHT = "def f(x):\n    return abs(x)"
WRONG = ["def f(x):\n    return x", "def f(x):\n    return -x", "def f(x):\n    return 0"]
TESTS = "assert f(-1) == 1\nassert f(2) == 2\nassert f(-3) == 3\nassert f(4) == 5"
"""Of RIGHT the first three pass; of WRONG the second; the first and third; none. The last test is wrong itself."""
PROBLEM = Problem(
    "abs", "Write f.", HiddenTests(entry="f", codes=("assert candidate(-5) == 5 == candidate(5)",)).model_dump_json()
)


class Author(toy.ToyGenerator):
    """Writes these programs, one after the other, and these tests. A token is a character."""

    def __init__(self, programs: Sequence[str], tests: str) -> None:
        super().__init__(max_context=100_000)
        self.programs, self.written = programs, tests
        self.asked: list[str] = []

    async def encode(self, messages: Sequence[Message]) -> list[int]:
        return [ord(character) for character in messages[-1]["content"]]

    async def generate(self, request: Request) -> list[Completion]:
        prompt = "".join(map(chr, request.prompt))  # type: ignore[arg-type]
        self.asked.append(prompt)
        if "Do not solve it" in prompt:
            assert prompt.endswith(BEGUN)
            return [self._completion(f"```python\n{self.written}\n```".removeprefix(BEGUN), request)]
        programs = [f"```python\n{self._program()}\n```" for _ in range(request.n)]
        return [self._completion(program, request) for program in programs]

    async def tokenize(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def _program(self) -> str:
        text = self.programs[0]
        self.programs = [*self.programs[1:], text]
        return text

    @staticmethod
    def _completion(text: str, request: Request) -> Completion:
        cut = text[: request.max_tokens]
        finish: Any = "end" if cut == text else "length"
        return Completion([ord(c) for c in cut], len(cut), cut, finish, None, prefill=len(request.prompt), cached=0)


@pytest_asyncio.fixture
async def grader() -> AsyncIterator[Programs]:
    async with Programs() as grader:
        yield grader


async def solve(grader: Any, author: Author, *options: str, budget: str | None = None) -> Solution:
    strategy = find("best-of-n")
    setting = toy.setting(budget, generator=author, grader=grader, verifier=None, step_tokens=1000)
    setting = replace(setting, sampling=replace(setting.sampling, max_tokens=1000))
    messages = [{"role": "user", "content": PROBLEM.prompt}]
    return await solve_one(PROBLEM, messages, setting, strategy, strategy.configure(options))


@pytest.mark.parametrize(
    ("how", "programs", "chosen"),
    [
        ("max-pass", [*WRONG, RIGHT], RIGHT),  # 1, 2, 0 and 3 tests
        ("codet", [*WRONG, RIGHT], RIGHT),  # 1, 2, 0, 3
        ("codet", [WRONG[1], WRONG[1] + "\n", WRONG[1] + "\n#", RIGHT], WRONG[1]),  # sqrt(3) x 2 against 1 x 3
        ("max-pass", [WRONG[1], WRONG[1] + "\n", WRONG[1] + "\n#", RIGHT], RIGHT),
        ("mbr-exec", [WRONG[0], RIGHT, RIGHT + "\n", WRONG[1]], RIGHT),  # two behave alike
        ("b4", [*WRONG, RIGHT, RIGHT + "\n"], RIGHT),
    ],
)
async def test_the_program_that_the_tests_choose(grader: Programs, how: str, programs: list[str], chosen: str) -> None:
    solution = await solve(grader, Author(programs, TESTS), f"choose={how}", f"n={len(programs)}")
    assert solution.answer is not None
    assert solution.answer.strip() == chosen
    assert solution.correct is (chosen == RIGHT)
    assert solution.usage.executions == 4 * len(programs)


async def test_programs_of_equal_text_are_run_once_and_count_once(grader: Programs) -> None:
    author = Author([WRONG[1], WRONG[1], WRONG[1], RIGHT], TESTS)
    solution = await solve(grader, author, "choose=codet", "n=4")
    assert solution.answer is not None
    assert solution.answer.strip() == RIGHT  # 1 x 2 against 1 x 3
    assert solution.usage.executions == 4 * 2


async def test_the_hidden_tests_reach_no_prompt(grader: Programs) -> None:
    author = Author([RIGHT], TESTS)
    await solve(grader, author, "choose=b4", "n=2")
    assert len(author.asked) == 2
    assert not any("-5" in prompt for prompt in author.asked)


@pytest.mark.parametrize("tests", ["I would rather not.", "assert f(", ""])
async def test_without_a_test_the_first_program_is_taken(grader: Programs, tests: str) -> None:
    solution = await solve(grader, Author([*WRONG, RIGHT], tests), "choose=b4", "n=4")
    assert solution.answer is not None
    assert solution.answer.strip() == WRONG[0]
    assert solution.usage.executions == 0


async def test_tokens_of_the_tests_are_charged_and_no_candidates(grader: Programs) -> None:
    solution = await solve(grader, Author([RIGHT], TESTS), "choose=b4", "n=1")
    program, tests = (len(f"```python\n{text}\n```") for text in (RIGHT, TESTS))
    tests -= len(BEGUN)  # which the model did not write
    assert solution.usage.generated == program + tests
    assert solution.usage.discarded == tests
    assert len(solution.candidates) == 1


@pytest.mark.parametrize(("budget", "executions"), [("8runs", 8), ("7runs", 0)])
async def test_a_budget_of_runs_covers_all_executions_or_none(grader: Programs, budget: str, executions: int) -> None:
    solution = await solve(grader, Author([WRONG[0], RIGHT], TESTS), "choose=b4", "n=2", budget=budget)
    assert solution.usage.executions == executions
    assert solution.answer is not None  # the best without tests


async def test_a_budget_of_tokens_is_spent_on_tests_first(grader: Programs) -> None:
    solution = await solve(grader, Author([RIGHT], TESTS), "choose=b4", "tests_tokens=200", budget="300")
    assert solution.usage.generated <= 300
    assert solution.correct


async def test_answers_that_are_no_programs_are_refused() -> None:
    with pytest.raises(UserError, match="tests choose among programs only"):
        await solve(toy.ToyGrader(), Author([RIGHT], TESTS), "choose=b4", "n=2")


def test_the_unit_of_executions_is_one_row() -> None:
    assert str(Budget.parse("100runs")) == "100runs"
