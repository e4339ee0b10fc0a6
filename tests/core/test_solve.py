"""`solve`, which runs a strategy on many problems."""

import asyncio
import gc
import re
from typing import Any

import pytest

from infer.core.generator import Completion, Request
from infer.core.grading import Verdict, graded
from infer.core.problem import Problem
from infer.core.solve import solve
from infer.core.verifier import Scores
from infer.errors import UserError
from infer.strategies import find
from infer.testing.toy import ToyGenerator, ToyGrader, ToyVerifier, setting
from infer.testing.toy import search as toy_search


class Dying(ToyGenerator):
    """Fails all its requests together once there are eight, as an engine does that dies."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[asyncio.Future[list[Completion]]] = []

    async def generate(self, request: Request) -> list[Completion]:
        self.waiting.append(asyncio.get_running_loop().create_future())
        if len(self.waiting) == 8:
            for waiting in self.waiting:
                waiting.set_exception(RuntimeError("the engine died"))
        return await self.waiting[-1]


async def test_an_engine_that_dies_under_many_problems_is_one_error() -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))

    problems = [Problem(f"p{i}", "7") for i in range(8)]
    greedy = find("greedy")
    with pytest.raises(RuntimeError, match="the engine died"):
        await solve(
            problems,
            lambda problem: [{"role": "user", "content": problem.prompt}],
            setting(generator=Dying()),
            greedy,
            greedy.configure(()),
            print,
        )
    gc.collect()
    assert said == []


async def test_every_candidate_is_graded_and_grouped_and_a_note_is_given_once() -> None:
    class Slow(ToyGrader):
        async def grade(self, problem: Problem, answer: str) -> Verdict:
            return Verdict(answer == problem.answer, "it took long")

    search = await toy_search(setting())
    nodes = await search.sample(search.root, 9, until="end")
    solution = search.solution(nodes[2]).model_copy(update={"note": "1 times not scored"})
    problem = Problem("p7", "7", answer=solution.candidates[0].answer)
    once = await graded(solution, problem, Slow())
    again = await graded(once, problem, Slow())
    assert again == once
    assert once.note == "1 times not scored; it took long"
    answers = [candidate.answer for candidate in once.candidates]
    assert [candidate.group for candidate in once.candidates] == [answers.index(answer) for answer in answers]
    assert [candidate.correct for candidate in once.candidates] == [answer == answers[0] for answer in answers]
    assert once.correct == (once.answer == answers[0])
    ungraded = await graded(solution, Problem("p7", "7"), Slow())
    assert {candidate.correct for candidate in ungraded.candidates} == {ungraded.correct} == {None}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"grade": lambda problem, answer: Verdict(True)}, "TypeError"),
        ({"grade": "raises"}, "ValueError: cannot parse"),
        ({"grade": "bool"}, "TypeError: grade returned a bool, not a Verdict"),
        ({"group": "far"}, "ValueError: group returned .* not the index of the first equal one"),
        ({"group": None}, "TypeError"),
    ],
)
async def test_a_grader_that_fails_leaves_the_solution_ungraded_with_the_reason(
    wrong: dict[str, Any], says: str
) -> None:
    async def raises(problem: Problem, answer: str) -> Verdict:
        raise ValueError("cannot parse")

    async def as_bool(problem: Problem, answer: str) -> Any:
        return True

    async def far(problem: Problem, answers: Any) -> list[int]:
        return [239] * len(answers)

    grader = ToyGrader()
    for name, how in wrong.items():
        setattr(grader, name, {"raises": raises, "bool": as_bool, "far": far}.get(how, how))
    search = await toy_search(setting())
    solution = search.solution((await search.sample(search.root, 4, until="end"))[0])
    found = await graded(solution, Problem("p7", "7", answer="3"), grader)
    assert found.correct is None
    assert found.note is not None
    assert re.search(f"not graded: ToyGrader failed: .*{says}", found.note)
    answers = [candidate.answer for candidate in found.candidates]
    assert [candidate.group for candidate in found.candidates] == [answers.index(answer) for answer in answers]


@pytest.mark.parametrize("values", [[0.5], [0.5] * 99, [1.5], [-0.1], [float("nan")]])
async def test_scores_that_are_not_one_for_each_step_in_range_fail_the_problem(values: list[float]) -> None:
    class Odd(ToyVerifier):
        async def score(self, problem: Problem, steps: Any, known: int, finished: bool) -> Scores:
            count = len(steps) - known
            fit = len(values) == 1 and values != [0.5]
            return Scores(values * count if fit else values, [])

    search = await toy_search(setting(verifier=Odd()), "11")
    nodes = [node for node in await search.sample(search.root, 20, until="end") if node.text.count("\n\n") >= 1]
    with pytest.raises(
        UserError, match=r"problem p11: the reward model (scored a step with .* not in|gave \d+ scores)"
    ):
        await search.score(nodes)
