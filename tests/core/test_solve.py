"""`solve`, which runs a strategy on many problems."""

import asyncio
import gc
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from infer.core.generator import Completion, Message, Request
from infer.core.grading import Verdict, graded
from infer.core.problem import Problem
from infer.core.solution import Solution
from infer.core.solve import IN_A_ROW, Failure, solve
from infer.core.verifier import Scores
from infer.errors import ServerDown, ServerFailed, UserError
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


class Served(ToyGenerator):
    """As one on a server that fails some problems, by the number that their prompt is."""

    def __init__(self, fails: Callable[[int], Exception | None]) -> None:
        super().__init__()
        self.fails = fails

    async def encode(self, messages: Sequence[Message]) -> list[int]:
        if (error := self.fails(int(messages[0]["content"]))) is not None:
            raise error
        return await super().encode(messages)


async def outcomes_of(count: int, fails: Callable[[int], Exception | None], concurrency: int) -> list[Any]:
    """The ids of what was solved, the errors of what failed, and the error that ended the run."""
    outcomes: list[Any] = []

    def record(outcome: Solution | Failure) -> None:
        outcomes.append(outcome.problem_id if isinstance(outcome, Solution) else outcome.error)

    greedy = find("greedy")
    try:
        await solve(
            [Problem(f"p{i}", str(i)) for i in range(count)],
            lambda problem: [{"role": "user", "content": problem.prompt}],
            setting(generator=Served(fails)),
            greedy,
            greedy.configure(()),
            record,
            concurrency=concurrency,
        )
    except ServerDown as error:
        outcomes.append(error)
    return outcomes


@pytest.mark.parametrize("concurrency", [1, 7, 64])
async def test_problems_that_a_server_fails_end_no_run(concurrency: int) -> None:
    failed = ServerFailed("no answer")
    found = await outcomes_of(60, lambda i: failed if i % 3 else None, concurrency)
    assert found.count(failed) == 40
    assert {each for each in found if isinstance(each, str)} == {f"p{i}" for i in range(0, 60, 3)}


@pytest.mark.parametrize("concurrency", [1, 7, 64])
async def test_a_run_stops_where_a_server_fails_too_many_problems_in_a_row(concurrency: int) -> None:
    """Those in flight come to their ends first: what was nearly solved is kept, and shows that the server answers."""
    failed = ServerFailed("no answer")
    found = await outcomes_of(2000, lambda i: failed if i >= 5 else None, concurrency)
    assert sorted(each for each in found if isinstance(each, str)) == [f"p{i}" for i in range(5)]
    assert isinstance(found[-1], ServerDown)
    assert found[-1 - IN_A_ROW : -1] == [failed] * IN_A_ROW
    assert IN_A_ROW <= found.count(failed) <= 6 * (IN_A_ROW + concurrency - 1)


async def test_failures_alone_at_the_end_of_the_problems_end_no_run() -> None:
    failed = ServerFailed("no answer")
    assert await outcomes_of(30, lambda i: failed, 64) == [failed] * 30


@pytest.mark.parametrize("between", [None, UserError("refused")])
async def test_any_answer_of_the_server_between_failures_counts(between: Exception | None) -> None:
    failed = ServerFailed("no answer")
    found = await outcomes_of(64, lambda i: failed if i % IN_A_ROW else between, 1)
    assert len(found) == 64
    assert found.count(failed) == 60


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
