"""The Python interface: `infer.solve`, which blocks, and `infer.solve_async`."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import infer
from infer.cli import run
from infer.core.generator import Completion, Request
from infer.errors import UserError
from infer.evalsets.graders.mathematics import Mathematics
from infer.runs.job import Machine, Models, Plan
from infer.testing.toy import ToyGenerator, ToyVerifier


class Opened:
    """Loads toys in place of models, and records each load."""

    def __init__(self) -> None:
        self.plans: list[tuple[Plan, Machine]] = []
        self.closed = 0
        self.generator = ToyGenerator()

    @asynccontextmanager
    async def open(self, plan: Plan, machine: Machine, *, with_verifier: bool) -> AsyncIterator[Models]:
        self.plans.append((plan, machine))
        try:
            async with Mathematics() as checker:
                yield Models(self.generator, ToyVerifier() if with_verifier else None, checker)
        finally:
            self.closed += 1


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    opened = Opened()
    monkeypatch.setattr("infer.runs.job.open_models", opened.open)
    return opened


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import infer, sys; print([name for name in sys.modules if name.partition('.')[0] in ('infer', 'pydantic')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['infer']\n"


def test_the_door_loads_no_engine() -> None:
    code = "import infer, sys; infer.solve; print({'torch', 'vllm', 'transformers', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_public_names() -> None:
    assert {"solve", "solve_async", "Problem", "Solution"} <= set(dir(infer))
    with pytest.raises(AttributeError, match="no attribute 'solves'"):
        _ = infer.solves


def test_a_question_gives_its_solution(opened: Opened) -> None:
    solution = infer.solve("23+54=?", strategy="best-of-n", options={"n": 3}, budget="1k", seed=5, concurrency=2)
    assert isinstance(solution, infer.Solution)
    assert len(solution.candidates) == 3
    assert solution.correct is None
    ((plan, machine),) = opened.plans
    job = plan.job
    assert (job.question, job.options, job.budget, job.seed) == ("23+54=?", ("n=3",), "1k", 5)
    assert machine == Machine(concurrency=2)
    assert opened.closed == 1


def test_options_are_texts_or_a_dictionary(opened: Opened) -> None:
    texts, words = (
        infer.solve("1+2", strategy="beam", options=options)
        for options in (["n=4", "width=2", "duplicates=true"], {"n": 4, "width": 2, "duplicates": True})
    )
    assert texts.model_copy(update={"seconds": 0}) == words.model_copy(update={"seconds": 0})


def test_many_share_the_models_and_keep_their_order(opened: Opened) -> None:
    graded = infer.Problem("own", "7", answer="12345")
    solutions = infer.solve(["1", "2", graded, "1"], strategy="best-of-n", options={"n": 2}, concurrency=3)
    assert [solution.problem_id for solution in solutions] == ["question 1", "question 2", "own", "question 4"]
    assert [solution.correct for solution in solutions] == [None, None, False, None]
    first, *_, last = solutions
    assert first.candidates != last.candidates  # the same question again gets new samples
    assert len(opened.plans) == opened.closed == 1
    assert infer.solve([]) == []


async def test_it_works_where_an_event_loop_runs(opened: Opened) -> None:
    blocking = infer.solve("1+2", strategy="best-of-n")
    awaited = await infer.solve_async("1+2", strategy="best-of-n")
    assert blocking.model_copy(update={"seconds": 0}) == awaited.model_copy(update={"seconds": 0})
    assert [each.problem_id for each in await infer.solve_async(["1", "2"])] == ["question 1", "question 2"]


@pytest.mark.parametrize(
    ("question", "settings", "says"),
    [
        ("1", {"strateg": "astar"}, r"^infer.solve has no setting 'strateg': did you mean strategy"),
        ("1", {"limit": 3}, r"^infer.solve has no setting 'limit'"),
        ("1", {"temperature": 9}, r"^temperature 9: .* less than or equal to 2$"),
        ("1", {"memory_fraction": 0}, r"^memory_fraction 0: .* 0.05$"),
        ("1", {"backend": "vlm"}, r"^unknown backend 'vlm': did you mean vllm\?$"),
        ("1", {"strategy": "astr"}, r"^unknown strategy 'astr': did you mean astar"),
        ("1", {"strategy": "astar", "options": {"k": 0}}, r"^option k=0 of astar: "),
        ("1", {"options": "k=0"}, r"^options k=0: "),
        ("1", {"budget": "4z"}, r"^budget '4z'"),
        ("1", {"on": "nano"}, r"a question and --on, not both$"),
        (" ", {}, r"^question is empty$"),
        (["1", ""], {}, r"^question 2 is empty$"),
        (["1", "\ud800?"], {}, r"^question 2 has half a character in it"),
        ([infer.Problem("a", "1"), infer.Problem("a", "2")], {}, r"^2 problems have the id 'a'"),
    ],
)
def test_a_setting_that_does_not_fit_is_one_line_before_anything_is_loaded(
    question: Any, settings: dict[str, Any], says: str, opened: Opened
) -> None:
    with pytest.raises(UserError, match=says) as error:
        infer.solve(question, **settings)
    assert "\n" not in str(error.value)
    assert opened.plans == []


def test_a_problem_that_cannot_be_tried_is_an_error(opened: Opened) -> None:
    with pytest.raises(UserError, match="problem question 2: its prompt of 300 tokens leaves no room"):
        infer.solve(["1", "1" * 300])
    assert opened.closed == 1


class Endless(ToyGenerator):
    async def generate(self, request: Request) -> list[Completion]:
        threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("in_a_loop", [False, True])
def test_ctrl_c_closes_the_models(in_a_loop: bool, opened: Opened) -> None:
    def script() -> None:
        infer.solve("1")

    async def notebook() -> None:
        infer.solve("1")

    opened.generator = Endless()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(notebook()) if in_a_loop else script()
    assert opened.closed == 1


@pytest.mark.models
def test_it_solves_as_the_command_does(capfd: pytest.CaptureFixture[str]) -> None:
    code = """
import asyncio, infer

async def notebook():
    return infer.solve("23+54=?", strategy="astar", budget="1k")

if __name__ == "__main__":
    print(asyncio.run(notebook()).model_dump_json())
"""
    here = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert here.returncode == 0, here.stderr
    assert run(["solve", "23+54=?", "--strategy", "astar", "--budget", "1k", "--json"]) == 0
    solutions = json.loads(here.stdout.splitlines()[-1]), json.loads(capfd.readouterr().out)["solution"]
    assert solutions[0]["answer"] == solutions[1]["answer"] == "77"
    for name in ("candidates", "chosen", "finished"):
        assert solutions[0][name] == solutions[1][name]
