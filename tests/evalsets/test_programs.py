"""Programs: found in what models write, judged by hidden tests, grouped by what they do."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from infer.errors import UserError
from infer.evalsets import find
from infer.evalsets.graders.programs import Programs, examples, extract

F = "def f(x):\n    return x + 1"
G = "def f(x):\n    return x + 2"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (f"Here it is:\n\n```python\n{F}\n```\nIt adds one.", F),
        (f"```\n{F}\n```", F),
        (f"```py\n{F}\n```", F),
        (f"```Python3\n{F}\n```", F),
        (f"- a list\n\n   ```python\n   {F.replace(chr(10), chr(10) + '   ')}\n   ```", F),
        # several blocks: the mended one, not the usage, not the shell's
        (f"```python\n{F}\n```\nWait, that is wrong.\n```python\n{G}\n```", G),
        (f"```python\n{F}\n```\nUse it:\n```python\nprint(f(1))\n```", F),
        (f"```bash\npip install x\n```\n```python\n{F}\n```\n```\n2\n```", F),
        ("```python\nprint(input())\n```", "print(input())"),
        # cut off at the end of the budget: as far as it is whole
        (f"```python\n{F}\n\ndef g(x):\n    return (x +", F),
        (f"```python\nimport math\n{F}", f"import math\n{F}"),
        ("```python\ndef f(x:", None),
        # no block at all
        (f"The function:\n\n{F}\n\nThis adds one to x.", F),
        (f"from typing import List\n\n{F}", f"from typing import List\n\n{F}"),
        ("    return x + 1", "    return x + 1"),
        ("I cannot do that.", None),
        ("", None),
        # long answers, for which every line was once parsed with all lines after it
        (f"{F}\n\n" + "This is prose, and goes on.\n" * 3000, F),
        ("import this, and explain that\n" * 3000, None),
        ("```\n" * 3000, None),
        # thoughts are no answer
        (f"<think>\n```python\n{G}\n```\n</think>\n```python\n{F}\n```", F),
        (f"<think>\n```python\n{F}\n```\n", None),
        # no Python, and far too long
        ("```python\ndef f(x) return x\n```", None),
        ("```python\n" + "(" * 200_000 + "\n```", None),
        ("```python\n" + "-" * 90_000 + "1\n```", None),
    ],
)
def test_the_program_in_a_text(text: str, program: str | None) -> None:
    found = extract(text)
    assert (found.strip() if found and program and not program.startswith(" ") else found) == program


def test_the_examples_of_a_problem() -> None:
    prompt = 'def f(x):\n    """Adds one.\n    >>> f(1)\n    2\n    >>> f(2) + \\\n    ... f(3)\n    7\n    """\n'
    assert examples(prompt) == ["f(1)", "f(2) + \\\nf(3)"]
    assert examples("Write f.\n\nassert f(1) == 2\nassert f(2) == 3") == ["assert f(1) == 2", "assert f(2) == 3"]


HUMAN = {
    "task_id": "T/1",
    "prompt": (
        "import math\n\ndef helper(x):\n    return x\n\n"
        'def f(x: int) -> int:\n    """Adds one.\n    >>> f(1)\n    2\n    """\n'
    ),
    "entry_point": "f",
    "canonical_solution": "    return x + 1\n",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(-1) == helper(0)\n",
}
MBPP = {
    "task_id": 2,
    "text": "Write a function to add one.",
    "test_list": ["assert set([f(1)]) == {2}", "assert f(2) == 3"],
    "test_setup_code": "",
    "challenge_test_list": ["assert f(10**30) == 10**30 + 1"],
}


def _file(tmp_path: Path, *rows: dict[str, Any]) -> str:
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest_asyncio.fixture
async def grader() -> AsyncIterator[Programs]:
    async with Programs() as grader:
        yield grader


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (F, True),
        (G, False),
        ("    return x + 1\n", True),  # the body alone
        ("return x + 1", True),
        ("    y = x + 1\n    return y", True),
        ("y = x + 1\n    return y", True),  # as it comes when its first line was stripped
        ("    return math.floor(helper(x)) + 1", True),  # with what the problem gives
        ("def g(x): return x + 1", False),
        ("def f(x): raise ValueError", False),
        ("import os\nos._exit(0)", False),
    ],
)
async def test_human_eval_from_a_file(tmp_path: Path, grader: Programs, answer: str, right: bool) -> None:
    evalset = find(_file(tmp_path, HUMAN))
    (problem,) = evalset.load()
    assert evalset.grader is Programs
    assert (await grader.grade(problem, answer)).right is right


def test_the_function_is_the_one_of_that_name(tmp_path: Path) -> None:
    """One whose name only begins so comes before it."""
    prompt = "def f_twice(x):\n    return 2 * f(x)\n\n" + HUMAN["prompt"]
    (problem,) = find(_file(tmp_path, {**HUMAN, "prompt": prompt})).load()
    assert problem.answer is not None
    assert json.loads(problem.answer)["setup"].endswith("def helper(x):\n    return x\n\n")


async def test_mbpp_from_a_file(tmp_path: Path, grader: Programs) -> None:
    (problem,) = find(_file(tmp_path, MBPP)).load()
    assert "assert f(2) == 3" in problem.prompt
    assert "10**30" not in problem.prompt  # a test that the problem does not show
    assert (await grader.grade(problem, F)).right
    assert not (await grader.grade(problem, "def f(x): return {1: 2, 2: 3}[x]")).right


async def test_programs_are_grouped_by_the_examples_of_the_problem(tmp_path: Path, grader: Programs) -> None:
    """Hidden tests take no part: `y` fails one of them, and behaves as `x` does on the examples."""
    (problem,) = find(_file(tmp_path, HUMAN)).load()
    x, y, z = F, "def f(x): return 2", "def f(x): return x"
    assert await grader.group(problem, [x, z, None, y, x, "    return 1 + x"]) == [0, 1, -1, 0, 0, 0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**HUMAN, "test": ""}, "test: String should have at least 1 character"),
        ({**HUMAN, "prompt": 3}, "prompt: Input should be a valid string"),
        ({**MBPP, "test_list": []}, "test_list: List should have at least 1 item"),
        ({**MBPP, "test_list": ["assert f("]}, "'(' was never closed"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=r"set\.jsonl, line 1: ") as error:
        find(_file(tmp_path, row))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_id_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 2: id 'T/1' occurs twice"):
        find(_file(tmp_path, HUMAN, HUMAN))


async def test_tests_that_a_model_wrote(tmp_path: Path, grader: Programs) -> None:
    (problem,) = find(_file(tmp_path, HUMAN)).load()
    text = "Tests:\n```python\nassert f(1) == 2\nassert f(2) == 4\n  assert f(\nprint(f(1))\nassert f(0) == 1\n```"
    tests = grader.tests(problem, text)
    assert tests == ["assert f(1) == 2", "assert f(2) == 4", "assert f(0) == 1"]
    assert await grader.passes(problem, [F, G], tests) == [[True, False, True], [False, True, False]]
