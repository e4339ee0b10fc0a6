"""Rescoring stored solutions: against the strategies' own choice, and with a verifier whose scores are known."""

import asyncio
import io
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from infer.analysis import read
from infer.analysis.rescore import grader_of, problems_of, rescore, rescore_run, rescore_tree
from infer.cli import run
from infer.cli.display import print_summary
from infer.core.choice import Choice
from infer.core.grading import Verdict, described_grader
from infer.core.options import ScoredOptions
from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.search import Search
from infer.core.solution import Candidate, Solution
from infer.core.solve import Failure
from infer.core.tally import Tally
from infer.core.trace import Trace, read_trace, trace_path
from infer.core.tree import Aggregation, Finish, Node, aggregate
from infer.core.verifier import Scores
from infer.cost.model import ModelSpec
from infer.errors import BudgetSpent, ServerFailed, TooLong, UserError
from infer.evalsets.graders.mathematics import Mathematics
from infer.runs.run import read_solutions
from infer.strategies.astar import AStarOptions, astar
from infer.testing import toy
from tests.analysis.synthetic import REFERENCE, random_solutions, solution, write_run


class Lengths:
    """A verifier whose score of a step is a function of the text so far."""

    aggregation: Aggregation = "mean"
    stepwise = True
    spec: ModelSpec | None = None

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        self.calls.append((problem.prompt, len(steps)))
        await asyncio.sleep(0)
        values = [(len(problem.prompt + "".join(steps[: end + 1])) % 17) / 17 for end in range(known, len(steps))]
        return Scores(values, [Call(None, len(values), known, 0)])

    async def most(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> list[Call]:
        return [Call(None, len(steps), 0, 0)]

    def describe(self) -> dict[str, Any]:
        return {"family": "lengths", "aggregation": self.aggregation}

    async def close(self) -> None: ...


class Short(Lengths):
    """A `Lengths` whose context has room for one step only."""

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        if len(steps) > 1:
            raise TooLong("a solution of two steps")
        return await super().score(problem, steps, known, finished)


def problems(**prompts: str) -> dict[str, Problem]:
    return {name: Problem(name, prompt, REFERENCE) for name, prompt in prompts.items()}


async def collect(solutions: Sequence[Solution], **how: Any) -> list[Solution]:
    async with Mathematics("exact") as checker:
        return [one async for one in rescore(solutions, checker, **how)]


async def test_without_anything_new_nothing_changes() -> None:
    solutions = random_solutions(10, 4)
    assert await collect(solutions) == solutions


@pytest.mark.parametrize("how", ["prm", "majority", "weighted", "logprob"])
@pytest.mark.parametrize("aggregation", ["last", "min", "prod", "mean"])
async def test_the_choice_is_the_one_that_a_search_would_make(how: Choice, aggregation: Aggregation) -> None:
    """Rescoring chooses as `choose` does on equal nodes, some of them unfinished, some without a score."""
    async with Mathematics("exact") as checker:
        for seed in range(12):
            stored = random_solutions(1, 5, seed)[0]
            candidates = [
                one.model_copy(update={"finished": (seed + place) % 3 > 0, "logprob": -(place * 7 % 5) / 5})
                for place, one in enumerate(stored.candidates)
            ]
            if seed % 4 == 0:
                lacking = {"scores": None, "logprob": None}
                candidates = [one.model_copy(update=lacking) if one.scores != [0.5] else one for one in candidates]
            stored = stored.model_copy(update={"candidates": candidates, "chosen": None})
            search = await toy.search(toy.setting(grader=checker), options=ScoredOptions(aggregation=aggregation))
            nodes = [node_of(search, one) for one in candidates]
            expected = await search.choose(nodes, how)
            assert expected is not None
            (found,) = [one async for one in rescore([stored], checker, choose=how, aggregation=aggregation)]
            assert found.chosen == nodes.index(expected)
            assert found.usage.discarded == stored.usage.discarded - expected.num_tokens


def node_of(search: Search, candidate: Candidate) -> Node:
    finish: Finish = "end" if candidate.finished else "length"
    logprobs = None if candidate.logprob is None else [candidate.logprob]
    node = Node(search.root, 0, [1], candidate.num_tokens, candidate.text, finish, True, logprobs, candidate.scores)
    search._keep(node)
    return node


async def test_another_verifier_scores_every_step_once(tmp_path: Path) -> None:
    stored = [solution("p", ["1", "7", None], scores=[[0.1, 0.2], [0.3], []], chosen=0), solution("q", [], chosen=None)]
    folder = write_run(tmp_path / "old", stored, aggregation="last")
    verifier = Lengths()
    async with Mathematics("exact") as checker:
        texts = problems(p="one", q="two")
        again: dict[str, Any] = {"verifier": verifier, "prm": "lengths", "choose": "prm", "problems": texts}
        assert await rescore_run(folder, tmp_path / "new", checker, **again) == 2
        assert await rescore_run(folder, tmp_path / "new", checker, **again) == 0  # done already
    runs = read([tmp_path / "new", folder])
    assert runs.runs.loc["new", ["prm", "aggregation"]].tolist() == ["lengths", "mean"]
    assert verifier.calls == [("one", 2), ("one", 1)]
    scores = [[len("one" + "so\n\n") % 17 / 17, len("one" + "so\n\nthen\n\n") % 17 / 17], [len("oneso\n\n") % 17 / 17]]
    candidates = runs.candidates(["score", "chosen"])
    assert candidates["score"][:2].tolist() == pytest.approx([aggregate(own, "mean") for own in scores])
    assert candidates["score"][:3].isna().tolist() == [False, False, True]
    best = max(range(2), key=lambda index: aggregate(scores[index], "mean"))
    assert candidates["chosen"][:3].tolist() == [index == best for index in range(3)]
    problem = runs.problems.iloc[0]
    assert (problem["passes"], problem["verifier_prefill"], problem["correct"]) == (3, 3, float(best == 1))
    assert math.isnan(problem["eflops"])  # the verifier's sizes are not known


async def test_a_solution_too_long_for_the_verifier_loses_its_scores() -> None:
    stored = solution("p", ["1", "7", None], scores=[[0.1, 0.2], [0.3], []], chosen=0)
    (again,) = await collect([stored], verifier=Short(), choose="prm", problems=problems(p="one"))
    assert [candidate.scores for candidate in again.candidates] == [None, [len("oneso\n\n") % 17 / 17], []]
    assert (again.chosen, again.answer, again.usage.passes) == (1, "7", 1)


@pytest.mark.parametrize(
    ("values", "message"), [([math.nan], "not in"), ([1.5], "not in"), ([0.5, 0.5], "2 scores where 1 were due")]
)
async def test_scores_that_are_none_are_refused(values: list[float], message: str) -> None:
    class Torn(Lengths):
        async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
            return Scores(values, [])

    stored = solution("1", ["7"], scores=[[0.5]])
    with pytest.raises(UserError, match=message):
        await collect([stored], verifier=Torn(), problems=problems(**{"1": "?"}))


async def test_problems_that_a_server_fails_are_left_out_and_tried_again(tmp_path: Path) -> None:
    class Served(Lengths):
        failing = {"p1", "p3"}

        async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
            if problem.id in self.failing:
                raise ServerFailed("no answer")
            return await super().score(problem, steps, known, finished)

    stored, verifier, failures = random_solutions(5, 2), Served(), list[Failure]()
    write_run(tmp_path / "run", stored)
    texts = {each.problem_id: Problem(each.problem_id, "?", each.reference) for each in stored}
    verifier.failing = {stored[1].problem_id, stored[3].problem_id}
    async with Mathematics("exact") as checker:
        how: dict[str, Any] = {"verifier": verifier, "problems": texts}
        with pytest.raises(ServerFailed):
            await rescore_run(tmp_path / "run", tmp_path / "first", checker, **how)
        assert await rescore_run(tmp_path / "run", tmp_path / "new", checker, **how, failed=failures.append) == 3
        assert {failure.problem.id for failure in failures} == verifier.failing
        verifier.failing = set()
        assert await rescore_run(tmp_path / "run", tmp_path / "new", checker, **how, failed=failures.append) == 2
    assert {each.problem_id for each in read_solutions(tmp_path / "new")} == texts.keys()


async def test_a_second_verifier_is_charged_in_place_of_the_first() -> None:
    stored = random_solutions(3, 2)
    texts = problems(**{one.problem_id: "7" for one in stored})
    once = await collect(stored, verifier=toy.ToyVerifier(), problems=texts)
    twice = await collect(once, verifier=toy.ToyVerifier(), problems=texts)
    for first, second, original in zip(once, twice, stored, strict=True):
        assert first.usage.flops == second.usage.flops
        assert first.usage.verifier_prefill == second.usage.verifier_prefill > 0
        assert first.usage.generated == original.usage.generated
        assert first.usage.eflops is not None
        assert second.usage.eflops is None  # the first verifier's share is not stored separately


async def test_a_run_judged_by_a_second_verifier_is_shown(tmp_path: Path) -> None:
    """FLOPs are still known, but eFLOPs and device time are not."""
    texts = problems(**{f"p{index}": "7" for index in range(3)})
    first = await collect(random_solutions(3, 2), verifier=toy.ToyVerifier(), problems=texts)
    folder = write_run(tmp_path / "a", first)
    async with Mathematics("exact") as checker:
        await rescore_run(folder, tmp_path / "b", checker, verifier=toy.ToyVerifier(), problems=texts)
    tally = Tally()
    for one in read_solutions(tmp_path / "b"):
        tally.add(one)
    screen = Console(file=io.StringIO(), width=80)
    print_summary(screen, tally, path=tmp_path / "b")
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "FLOPs" in text
    assert "eFLOPs" not in text


async def test_a_run_judged_again_twice_stays_as_it_was_judged_first(tmp_path: Path) -> None:
    """The mean chooses the first candidate, with scores 0.9 and 0.1. The minimum chooses the second, with 0.4 twice."""
    folder = write_run(tmp_path / "a", [solution("p", ["1", "7"], scores=[[0.9, 0.1], [0.4, 0.4]], chosen=1)])
    async with Mathematics() as checker:
        await rescore_run(folder, tmp_path / "mean", checker, aggregation="mean", choose="prm")
        await rescore_run(tmp_path / "mean", tmp_path / "again", checker, choose="prm")
        await rescore_run(tmp_path / "again", tmp_path / "kept", checker)
        await rescore_run(tmp_path / "kept", tmp_path / "min", checker, aggregation="min", choose="weighted")
    runs = read([tmp_path / name for name in ("mean", "again", "kept", "min")])
    assert runs.runs["aggregation"].tolist() == ["mean", "mean", "mean", "min"]
    assert runs.problems["answer"].tolist() == ["1", "1", "1", "7"]
    found = {name: record["config"]["rescored"] for name, record in runs.records.items()}
    assert found["kept"] == {**found["mean"], "from": str(tmp_path / "again")}
    assert found["min"] == {**found["mean"], "from": str(tmp_path / "kept"), "aggregation": "min", "choose": "weighted"}


@pytest.mark.parametrize("choose", ["prm", "weighted", "logprob"])
async def test_a_run_that_has_nothing_to_choose_by_is_refused(choose: Choice, tmp_path: Path) -> None:
    stored = [solution("p", ["7", "1"]), solution("q", ["1", "7"], scores=[[], []])]
    folder = write_run(tmp_path / "a", stored, prm=None)
    what = "log-probabilities" if choose == "logprob" else "scores"
    async with Mathematics() as checker:
        with pytest.raises(UserError, match=f"a has no {what} to choose by"):
            await rescore_run(folder, tmp_path / "b", checker, choose=choose)
        assert not (tmp_path / "b").exists()
        if choose != "logprob":  # a verifier gives scores, and stored scores of one problem are enough
            texts = problems(p="why?", q="why?")
            await rescore_run(folder, tmp_path / "b", checker, choose=choose, verifier=Lengths(), problems=texts)
            write_run(folder, [solution("r", ["7"], scores=[[0.5]])], prm=None)
            assert await rescore_run(folder, tmp_path / "c", checker, choose=choose) == 3


@pytest.mark.parametrize("damage", ["no solutions", "an older version"])
async def test_an_unreadable_run_makes_no_new_run(damage: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", random_solutions(2, 2))
    if damage == "no solutions":
        (folder / "solutions.jsonl").unlink()
    else:
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**record, "version": 0}))
    async with Mathematics() as checker:
        with pytest.raises(UserError, match="has no solutions" if damage == "no solutions" else "older infer"):
            await rescore_run(folder, tmp_path / "b", checker)
    assert not (tmp_path / "b").exists()


async def test_another_checker_grades_again() -> None:
    (stored,) = [solution("p", ["7.0"], reference="7")]
    (graded,) = await collect([stored])
    assert not stored.correct
    assert graded.correct
    (open_ended,) = await collect([solution("p", ["7"], reference=None)])
    assert open_ended.correct is None


async def test_rescored_runs_are_configurations_of_their_own(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"run{seed}", random_solutions(5, 3, seed), seed=seed) for seed in (0, 1)]
    async with Mathematics("exact") as exact, Mathematics() as checker:
        for folder in folders:
            await rescore_run(folder, tmp_path / f"{folder.name}-vote", checker, choose="majority")
            await rescore_run(folder, tmp_path / f"{folder.name}-min", exact, choose="prm", aggregation="min")
    runs = read([tmp_path / f"run{seed}{how}" for seed in (0, 1) for how in ("", "-vote", "-min")]).runs
    vote, least = "rescored.choose=majority", "rescored.aggregation=min rescored.answers=exact rescored.choose=prm"
    assert runs["configuration"].to_dict() == {
        name: "best-of-n" + extra
        for seed in (0, 1)
        for name, extra in ((f"run{seed}", ""), (f"run{seed}-vote", f" {vote}"), (f"run{seed}-min", f" {least}"))
    }
    assert runs.loc["run0-min", "aggregation"] == "min"
    assert runs.loc["run0-vote", "aggregation"] == "last"


class Noting(Mathematics):
    """Gives a note for the answer 1, and needs the problem's text."""

    async def grade(self, problem: Problem, answer: str) -> Verdict:
        assert problem.prompt == "one"
        verdict = await super().grade(problem, answer)
        return Verdict(verdict.right, "not sure" if answer == "1" else None)


async def test_the_note_is_of_the_answer_that_was_chosen() -> None:
    stored = solution("p", ["1", "7"], scores=[[0.1], [0.9]])
    async with Noting("exact") as grader:
        for chosen in (0, 1):
            kept = stored.model_copy(update={"chosen": chosen, "answer": ["1", "7"][chosen]})
            (found,) = [one async for one in rescore([kept], grader, problems=problems(p="one"))]
            assert (found.answer, found.note) == (["1", "7"][chosen], ["not sure", None][chosen])
            (found,) = [one async for one in rescore([kept], grader, choose="prm", problems=problems(p="one"))]
            assert (found.answer, found.correct, found.note) == ("7", True, None)


async def test_notes_on_scores_are_the_new_verifiers() -> None:
    stored = solution("p", ["1", "7"], scores=[[0.1, 0.2], [0.3]])
    (once,) = await collect([stored], verifier=Short(), problems=problems(p="one"))
    assert once.note == "1 times not scored: a solution of two steps"
    (twice,) = await collect([once], verifier=Lengths(), problems=problems(p="one"))
    assert twice.note is None


async def test_a_grader_of_another_kind_is_given_the_problems(tmp_path: Path) -> None:
    class Prompts:
        extract = staticmethod(Mathematics.extract)

        async def grade(self, problem: Problem, answer: str) -> Verdict:
            return Verdict(answer == {"86/2*6=?": "258"}[problem.prompt])

        async def group(self, problem: Problem, answers: Sequence[str | None]) -> list[int]:
            return [-1 if answer is None else answers.index(answer) for answer in answers]

        def describe(self) -> dict[str, Any]:
            return {}

        async def close(self) -> None: ...

    folder = write_run(tmp_path / "a", [solution("nano-L1-0000", ["7", "258"], reference="258")], on="nano")
    await rescore_run(folder, tmp_path / "b", Prompts(), choose="majority")
    (found,) = read_solutions(tmp_path / "b")
    assert [candidate.correct for candidate in found.candidates] == [False, True]
    gone = write_run(tmp_path / "c", [solution("p", ["7"])], on="nano")
    with pytest.raises(UserError, match="problem p is not in the evaluation set"):
        await rescore_run(gone, tmp_path / "d", Prompts())
    changed = write_run(tmp_path / "e", [solution("nano-L1-0000", ["7"], reference="7")], on="nano")
    with pytest.raises(UserError, match=r"nano-L1-0000 has another reference in the evaluation set .* '258' and '7'"):
        await rescore_run(changed, tmp_path / "f", Prompts())
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    assert record["config"]["rescored"]["answers"].endswith("Prompts"), "another configuration than the run"
    assert isinstance(grader_of(folder), Mathematics), "the set's own"


async def test_choices_and_further_right_answers_are_judged_again_by_the_run_alone(tmp_path: Path) -> None:
    several = solution("a", ["8", "9", "7"], reference="6").model_copy(update={"also": ("8", "7")})
    choice = solution("b", ["A", "two", "3"], reference="B").model_copy(update={"choices": ("one", "two", "3")})
    folder = write_run(tmp_path / "a", [several, choice])
    async with Mathematics() as checker:
        await rescore_run(folder, tmp_path / "b", checker)
    one, two = read_solutions(tmp_path / "b")
    assert [candidate.correct for candidate in one.candidates] == [True, False, True]
    assert [candidate.correct for candidate in two.candidates] == [False, True, False]
    assert (one.also, two.choices) == (several.also, choice.choices)


async def test_a_run_graded_by_earlier_rules_becomes_a_configuration_of_its_own(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [solution("p", ["7"])], on="gone.jsonl")
    record = json.loads((folder / "run.json").read_text())
    record["facts"][-1]["grader"] = {"class": described_grader(Mathematics())["class"], "answers": "math"}
    (folder / "run.json").write_text(json.dumps(record))
    grader = grader_of(folder)
    assert isinstance(grader, Mathematics), "today's rules, though the set is gone"
    await rescore_run(folder, tmp_path / "b", grader)
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    assert record["config"]["rescored"]["answers"] == "math"


async def test_results_keep_their_order_with_few_at_once() -> None:
    solutions = random_solutions(20, 3)
    texts = problems(**{one.problem_id: one.problem_id * (index % 5) for index, one in enumerate(solutions)})
    found = await collect(solutions, verifier=Lengths(), problems=texts, choose="weighted", concurrency=3)
    assert [one.problem_id for one in found] == [one.problem_id for one in solutions]


async def test_a_problem_without_its_text_is_named() -> None:
    with pytest.raises(UserError, match="problem p0 is not in the evaluation set"):
        await collect(random_solutions(1, 2), verifier=Lengths(), problems={})


def test_texts_come_from_the_evaluation_set() -> None:
    assert problems_of({"question": "why?"}) == {"question": Problem("question", "why?")}
    found = problems_of({"on": "nano"})
    assert len(found) > 100
    assert all(problem.prompt for problem in found.values())


async def test_a_tree_is_scored_as_its_search_scored_it(tmp_path: Path) -> None:
    """The same verifier on a trace gives the scores that the search stored, step by step."""
    setting = toy.setting("200tok", step_tokens=3, watch=partial(Trace, tmp_path))
    search = await toy.search(setting)
    with suppress(BudgetSpent):
        await astar(search, AStarOptions(k=3))
    tree = read_trace(trace_path(tmp_path, "p7"))
    nodes = [tree.roots[0]]
    for node in nodes:
        nodes += node.children
    stored = {node.id: node.scores for node in nodes}
    for node in nodes:
        node.scores = None
    usage = await rescore_tree(tree, search.problem, toy.ToyVerifier(), setting.delimiter, pricing=setting.pricing)
    scored = [node for node in nodes if stored[node.id] is not None]
    assert len(scored) > 10
    assert [node.scores for node in scored] == [stored[node.id] for node in scored]
    assert usage.passes >= search.ledger.usage.passes

    class ShortToy(toy.ToyVerifier):
        async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
            if len(steps) > 1:
                raise TooLong("a solution of two steps")
            return await super().score(problem, steps, known, finished)

    await rescore_tree(tree, search.problem, ShortToy(), setting.delimiter, pricing=setting.pricing)
    assert {node.scores is None for node in nodes} == {True, False}
    for node in nodes:  # the second step and all after it
        deep = node.parent is not None and node.parent.parent is not None and "\n\n" in node.parent.text
        assert not deep or node.scores is None


@pytest.fixture
def solved(tmp_path: Path) -> Path:
    """A run of four solved problems."""
    folder = tmp_path / "a"
    words = ["solve", "--strategy", "astar", "--limit", "4", "--backend", "transformers", "--run", str(folder)]
    assert run(words) == 0
    return folder


@pytest.mark.models
async def test_the_same_reward_model_gives_the_stored_scores_again(solved: Path, tmp_path: Path) -> None:
    """Scores from `infer solve`, step by step, equal scores computed at once from the stored solutions."""
    from tests.engines import open_verifier

    verifier = await open_verifier("nano-prm-s", "transformers")
    async with Mathematics() as checker:
        added = await rescore_run(solved, tmp_path / "b", checker, verifier=verifier, prm="nano-prm-s")
    await verifier.close()
    assert added == 4
    runs = read([solved, tmp_path / "b"])
    scores = runs.candidates(["score_mean", "chosen"])
    half = len(scores) // 2
    first, again = scores["score_mean"][:half].to_numpy(), scores["score_mean"][half:].to_numpy()
    known = first == first  # of several equal steps A* scores one
    assert known.sum() >= 4
    assert again[known].tolist() == pytest.approx(first[known].tolist(), abs=1e-4)
    assert scores["chosen"][:half].tolist() == scores["chosen"][half:].tolist()
    assert runs.problems["correct"][:4].tolist() == runs.problems["correct"][4:].tolist()
    assert (runs.problems["passes"][4:] > 0).all()
