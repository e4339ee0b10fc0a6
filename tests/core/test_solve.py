"""The runner of many problems."""

import asyncio
import gc
from typing import Any

import pytest

from infer.core.generator import Completion, Request
from infer.core.grading import Verdict, graded
from infer.core.problem import Problem
from infer.core.solve import solve
from infer.strategies import find
from infer.testing.toy import ToyGenerator, ToyGrader, setting
from infer.testing.toy import search as toy_search


class Dying(ToyGenerator):
    """Fails all its requests at once, as a dead engine does, when there are eight of them."""

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
