"""Judges stored solutions again, without generating: another reward model, aggregation, vote or grader.

    await rescore_run(Path("runs/a"), Path("runs/a-mean"), Mathematics(), choose="weighted", aggregation="mean")

The result is a run like any other. Its candidates are those that the search found with its own reward model: another
model would have steered the search elsewhere, so rescoring can underrate it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from infer.analysis.frames import aggregation_of
from infer.core import choice
from infer.core.choice import Ballot, Choice
from infer.core.grading import Grader, described_grader, graded
from infer.core.pricing import Pricing
from infer.core.problem import Problem
from infer.core.records import OnBad
from infer.core.solution import Candidate, Solution
from infer.core.solve import Failure
from infer.core.tasks import gather_or_cancel
from infer.core.trace import TracedNode, TracedSearch
from infer.core.tree import Aggregation, ended_steps, split_steps
from infer.core.usage import Usage
from infer.core.verifier import Scores, Verifier, ask, not_scored
from infer.cost import hardware
from infer.cost.formulas import Serving
from infer.errors import ServerFailed, TooLong, UserError
from infer.evalsets import find as find_evalset
from infer.evalsets.base import EvalSet
from infer.evalsets.graders.mathematics import Mathematics
from infer.runs.run import Run, load_record, read_solutions

MATHEMATICS = described_grader(Mathematics())
"""In the record of runs without a grader's own, too: nothing in them is graded yet."""


async def rescore_run(
    run: Path,
    out: Path,
    grader: Grader,
    *,
    verifier: Verifier | None = None,
    pricing: Pricing | None = None,
    prm: str | None = None,
    aggregation: Aggregation | None = None,
    choose: Choice | None = None,
    problems: Mapping[str, Problem] | None = None,
    failed: Callable[[Failure], None] | None = None,
    concurrency: int = 64,
    on_bad: OnBad | None = None,
) -> int:
    """Writes a run with the solutions of another one judged again (see `rescore`). Returns how many it added.

    `prm` names the verifier in the new run's record; `pricing` is by default that of the run. `problems` by their ids
    are by default those of the run's evaluation set, which is read where the verifier or the grader needs it. Arguments
    left out keep the run's own values, also those of an earlier judging. A new run that was cut off goes on where it
    stopped.

    A problem on which a server failed stays out of the new run and goes to `failed`; without `failed`, the first such
    problem raises ServerFailed. Lines that are no solutions stay out too and go to `on_bad`; without it, the first
    raises BadLine. Raises UserError, before there is a new run, where the old one can't be read or has nothing to
    choose by.
    """
    record = load_record(run)
    config, facts = record["config"], {**record["facts"][-1]}
    facts.pop("since", None)
    stored = read_solutions(run, on_bad)
    if choose is not None and (verifier is None or choose == "logprob"):
        _check_choice(run, choose, on_bad)
    before = config.get("rescored") or {}
    how = {
        "from": str(run),
        "choose": choose or before.get("choose"),
        "aggregation": aggregation or before.get("aggregation"),
        "answers": None,
    }
    described = described_grader(grader)
    if described != facts.get("grader", MATHEMATICS):  # another configuration: not to be pooled with the run
        how["answers"] = described.get("answers") or described["class"]
    config = {**config, "rescored": how}
    facts["grader"] = described
    if problems is None and (verifier is not None or not isinstance(grader, Mathematics)):
        problems = problems_of(config)  # Mathematics needs the references alone, which the run has
    if verifier is not None:
        config["prm"] = prm or "unnamed"
        facts["verifier"] = verifier.describe()
        if pricing is None and config.get("hardware") is not None:
            pricing = Pricing(hardware.find(config["hardware"]), Serving(batch=config.get("batch") or 1))
    added = 0
    with Run.open(out, config, facts) as fresh:
        async for solution in rescore(
            (solution for solution in stored if solution.problem_id not in fresh.done),
            grader,
            verifier=verifier,
            pricing=pricing,
            aggregation=aggregation_of(config, facts.get("verifier") or {}),
            choose=choose,
            problems=problems,
            failed=failed,
            concurrency=concurrency,
        ):
            fresh.append(solution)
            added += 1
    return added


async def rescore(
    solutions: Iterable[Solution],
    grader: Grader,
    *,
    verifier: Verifier | None = None,
    pricing: Pricing | None = None,
    aggregation: Aggregation = "last",
    choose: Choice | None = None,
    problems: Mapping[str, Problem] | None = None,
    failed: Callable[[Failure], None] | None = None,
    concurrency: int = 64,
) -> AsyncIterator[Solution]:
    """Yields the solutions with their candidates judged again, in their order, `concurrency` problems at once.

    A verifier scores every step of every candidate, and its usage replaces that of the run's own, at the cost that
    `pricing` gives (default: on an H100); without one, the stored scores stay. `choose` chooses the answer again, by
    this aggregation; without it, the chosen candidate stays. Either way `grader` grades and groups all answers.
    `problems` by their ids are for the verifier and the grader; by default they get what the solutions store, which
    lacks the text. Raises UserError for a problem that is not among them. A problem that a server failed is handed to
    `failed` and left out; without it, this raises ServerFailed.
    """

    def problem_of(solution: Solution) -> Problem:
        if problems is None and verifier is None:
            return Problem(
                *(solution.problem_id, "", solution.reference, solution.level),
                also=solution.also,
                choices=solution.choices,
            )
        found = (problems or {}).get(solution.problem_id)
        if found is None:
            raise UserError(f"problem {solution.problem_id} is not in the evaluation set any more: give its text")
        if found.answer != solution.reference:
            raise UserError(
                f"problem {solution.problem_id} has another reference in the evaluation set than in the run: "
                f"{found.answer!r} and {solution.reference!r}"
            )
        return found

    async def one(solution: Solution) -> Solution | None:
        problem = problem_of(solution)
        if verifier is not None:
            try:
                solution = await _scored(solution, problem, verifier, pricing or Pricing(hardware.HARDWARE["h100"]))
            except ServerFailed as error:
                if failed is None:
                    raise
                failed(Failure(problem, error))
                return None
        if choose is not None:
            solution = _with_choice(solution, await _choose(solution, problem, grader, choose, aggregation))
        return await graded(solution, problem, grader)

    waiting: list[asyncio.Task[Solution | None]] = []
    try:
        for solution in solutions:
            waiting.append(asyncio.create_task(one(solution)))
            if len(waiting) >= concurrency and (judged := await waiting.pop(0)) is not None:
                yield judged
        while waiting:
            if (judged := await waiting.pop(0)) is not None:
                yield judged
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def rescore_tree(
    tree: TracedSearch, problem: Problem, verifier: Verifier, delimiter: str = "\n\n", *, pricing: Pricing
) -> Usage:
    """Puts another verifier's scores on all nodes of the problem's own tree, and returns their cost.

    Parents are scored before their children, so a causal verifier computes each step once. Nodes that are too long for
    it have no scores.
    """

    async def score(node: TracedNode, before: str) -> Usage:
        text = before + node.text
        known = ended_steps(before, node.parent.finish if node.parent is not None else None, delimiter)
        steps = split_steps(text, delimiter)
        usage = Usage()
        if len(steps) > known:
            try:
                scores = await ask(verifier, problem, steps, known, node.finish == "end")
            except TooLong as error:
                _forget(node)
                return pricing.judging(error.calls)
            node.scores = scores.values
            usage = pricing.judging(scores.calls, len(scores.values))
        elif node.parent is not None:
            node.scores = []
        for child in await gather_or_cancel(score(child, text) for child in node.children):
            usage += child
        return usage

    return await score(tree.roots[0], "")


def _forget(node: TracedNode) -> None:
    """Removes the scores of a node and of all below it."""
    node.scores = None
    for child in node.children:
        _forget(child)


def problems_of(config: Mapping[str, Any]) -> dict[str, Problem]:
    """A run's problems by id, from its evaluation set. Raises UserError where the set is gone."""
    if config.get("question") is not None:
        return {"question": Problem("question", config["question"])}
    return {problem.id: problem for problem in _evalset_of(config).problems()}


def grader_of(run: Path) -> Grader:
    """The grader of a run's evaluation set. Raises UserError where the set is gone, unless it was Mathematics."""
    record = load_record(run)
    if record["config"].get("question") is not None:
        return Mathematics()
    try:
        return _evalset_of(record["config"]).grader()
    except UserError:
        if record["facts"][-1].get("grader", MATHEMATICS).get("class") != MATHEMATICS["class"]:
            raise
        return Mathematics()


def _evalset_of(config: Mapping[str, Any]) -> EvalSet:
    if config.get("on") is None:
        raise UserError("the run's record does not name its problems (config: on): restore it")
    names = ("problem_column", "answer_column", "id_column", "split")
    return find_evalset(config["on"], **{name: config.get(name) for name in names})


def _check_choice(run: Path, choose: Choice, on_bad: OnBad | None) -> None:
    """Raises UserError where no candidate has the scores or log-probabilities that `choose` needs.

    Reads on until one has them: most runs have them in the first.
    """
    candidates = (candidate for solution in read_solutions(run, on_bad) for candidate in solution.candidates)
    if all(choice.strength(_ballot(candidate), choose, "last") is None for candidate in candidates):
        what = "log-probabilities" if choose == "logprob" else "scores"
        raise UserError(f"{run} has no {what} to choose by: choose otherwise, or score it with a reward model")


def _without_verifier(usage: Usage) -> Usage:
    """The generator's share of the usage; eFLOPs and device time are unknown where they also include a verifier."""
    own: dict[str, Any] = {field.name: 0 for field in fields(Usage) if field.name.startswith("verifier_")}
    if usage.verifier_prefill or usage.verifier_generated:
        own |= {"eflops": None, "device_picoseconds": None}
    return replace(usage, passes=0, dollars=0.0, **own)


async def _scored(solution: Solution, problem: Problem, verifier: Verifier, pricing: Pricing) -> Solution:
    async def score(candidate: Candidate) -> Scores | TooLong:
        if not candidate.steps:
            return Scores([], [])
        try:
            return await ask(verifier, problem, candidate.steps, 0, candidate.finished)
        except TooLong as error:
            return error

    results = await gather_or_cancel(score(candidate) for candidate in solution.candidates)
    candidates, spent = [], Usage()
    too_long = [result for result in results if isinstance(result, TooLong)]
    for candidate, scores in zip(solution.candidates, results, strict=True):
        values = scores.values if isinstance(scores, Scores) else None
        candidates.append(candidate.model_copy(update={"scores": values}))
        spent += pricing.judging(scores.calls, len(values or ()))
    usage = _without_verifier(solution.usage) + spent
    usage = replace(usage, dollars=pricing.dollars(usage))
    update = {"candidates": candidates, "usage": usage, "note": not_scored(too_long)}
    return solution.model_copy(update=update)


async def _choose(
    solution: Solution, problem: Problem, grader: Grader, how: Choice, aggregation: Aggregation
) -> int | None:
    """The index of the candidate that wins by `infer.core.choice`, as in a search."""
    ballots = [_ballot(candidate) for candidate in solution.candidates]
    groups = None
    if how in ("majority", "weighted"):
        groups = await grader.group(problem, [candidate.answer for candidate in solution.candidates])
    index = choice.pick(ballots, how, aggregation, groups)
    return choice.best(ballots, aggregation) if index is None else index


def _ballot(candidate: Candidate) -> Ballot:
    return Ballot(candidate.finished, candidate.scores, candidate.logprob, candidate.num_tokens)


def _with_choice(solution: Solution, chosen: int | None) -> Solution:
    """The solution with another candidate chosen, not graded yet."""
    old, new = (solution.candidates[index] if index is not None else None for index in (solution.chosen, chosen))
    discarded = solution.usage.discarded + (old.num_tokens if old else 0) - (new.num_tokens if new else 0)
    discarded = max(0, discarded)  # forced tokens count in `num_tokens`, though nobody sampled them
    update = {
        "chosen": chosen,
        "answer": new.answer if new else None,
        "finished": new is not None and new.finished,
        "usage": replace(solution.usage, discarded=discarded),
    }
    return solution.model_copy(update=update)
