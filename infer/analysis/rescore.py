"""Stored solutions judged again, without generating: another reward model, aggregation, vote or answer checker.

    async with AnswerChecker() as checker:
        await rescore_run(Path("runs/a"), Path("runs/a-mean"), checker, choose="weighted", aggregation="mean")

What comes out is a run like any other, read and compared with the rest. Its candidates are those that were found under
the reward model of the search: one that would have steered the search elsewhere is not done justice by re-scoring.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from infer.analysis.frames import aggregation_of
from infer.core.pricing import Pricing
from infer.core.solution import Candidate, Solution
from infer.core.tasks import gather_or_cancel
from infer.core.trace import TracedNode, TracedSearch
from infer.core.tree import Aggregation, aggregate, split_steps
from infer.core.usage import Usage
from infer.core.verifier import Scores, Verifier
from infer.cost import hardware
from infer.cost.formulas import Serving
from infer.errors import TooLong, UserError
from infer.evalsets import find as find_evalset
from infer.evalsets.graders.mathematics import AnswerChecker
from infer.runs.run import Run, load_record, read_solutions
from infer.strategies.parts.choose import Choice, leader, tally


async def rescore_run(
    run: Path,
    out: Path,
    checker: AnswerChecker,
    *,
    verifier: Verifier | None = None,
    pricing: Pricing | None = None,
    prm: str | None = None,
    aggregation: Aggregation | None = None,
    choose: Choice | None = None,
    questions: Mapping[str, str] | None = None,
    concurrency: int = 64,
) -> int:
    """Writes a run with the solutions of another one judged again, and says how many it added; see `rescore`.

    `prm` names the verifier in the new run's record; `pricing` is by default that of the run. `questions` are the
    problems' texts by id; by default those of the run's evaluation set. What is not said anew stays as the run has it,
    also where that was judged again itself. A run that was cut off goes on where it stopped. Raises UserError, before
    there is a new run, where the old one can't be read or has nothing to choose by.
    """
    record = load_record(run)
    config, facts = record["config"], {**record["facts"][-1]}
    facts.pop("since", None)
    stored = read_solutions(run)
    if choose is not None and (verifier is None or choose == "logprob"):
        _check_choice(run, choose)
    before = config.get("rescored") or {}
    how = {
        "from": str(run),
        "choose": choose or before.get("choose"),
        "aggregation": aggregation or before.get("aggregation"),
        "answers": checker.method if checker.method != "math" else None,
    }
    config = {**config, "rescored": how}
    if verifier is not None:
        config["prm"] = prm or "unnamed"
        facts["verifier"] = verifier.describe()
        if questions is None:
            questions = questions_of(config)
        if pricing is None and "hardware" in config:
            pricing = Pricing(hardware.find(config["hardware"]), Serving(batch=config["batch"]))
    added = 0
    with Run.open(out, config, facts) as fresh:
        async for solution in rescore(
            (solution for solution in stored if solution.problem_id not in fresh.done),
            checker,
            verifier=verifier,
            pricing=pricing,
            aggregation=aggregation_of(config, facts.get("verifier") or {}),
            choose=choose,
            questions=questions or {},
            concurrency=concurrency,
        ):
            fresh.append(solution)
            added += 1
    return added


async def rescore(
    solutions: Iterable[Solution],
    checker: AnswerChecker,
    *,
    verifier: Verifier | None = None,
    pricing: Pricing | None = None,
    aggregation: Aggregation = "last",
    choose: Choice | None = None,
    questions: Mapping[str, str] | None = None,
    concurrency: int = 64,
) -> AsyncIterator[Solution]:
    """The same candidates, judged again; in their order, `concurrency` problems at once.

    With a verifier every step of every candidate is scored by it, and its usage takes the place of the first one's, at
    the cost that `pricing` says (default: on an H100); without, the stored scores stay. With `choose` the answer is
    chosen anew, by this aggregation; without, the chosen candidate stays. Either way it is compared with the reference
    by `checker`. Raises UserError where a problem's text is needed and is not among `questions`.
    """

    async def one(solution: Solution) -> Solution:
        if verifier is not None:
            solution = await _scored(solution, verifier, pricing or Pricing(hardware.HARDWARE["h100"]), questions or {})
        if choose is not None:
            chosen = await _choose(solution.candidates, choose, aggregation, checker)
            solution = _with_choice(solution, chosen)
        if solution.reference is None or solution.answer is None:
            return solution.model_copy(update={"correct": None if solution.reference is None else False})
        verdict = await checker.equal(solution.reference, solution.answer)
        return solution.model_copy(update={"correct": verdict.equal})

    waiting: list[asyncio.Task[Solution]] = []
    try:
        for solution in solutions:
            waiting.append(asyncio.create_task(one(solution)))
            if len(waiting) >= concurrency:
                yield await waiting.pop(0)
        while waiting:
            yield await waiting.pop(0)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def rescore_tree(
    tree: TracedSearch, question: str, verifier: Verifier, delimiter: str = "\n\n", *, pricing: Pricing
) -> Usage:
    """Puts another verifier's scores on all nodes of the problem's own tree, and says what they cost.

    Parents are scored before their children, so a causal verifier computes each step once. What is too long for it has
    no scores.
    """

    async def score(node: TracedNode, before: str) -> Usage:
        text = before + node.text
        known = _complete_steps(before, node.parent, delimiter)
        steps = split_steps(text, delimiter)
        usage = Usage()
        if len(steps) > known:
            try:
                scores = await verifier.score(question, steps, known, node.finish == "end")
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
    """Takes the scores of a node and of all behind it away."""
    node.scores = None
    for child in node.children:
        _forget(child)


def questions_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a run's problems by id, from its evaluation set. Raises UserError where that is gone."""
    if config.get("question") is not None:
        return {"question": config["question"]}
    names = ("problem_column", "answer_column", "id_column", "split")
    evalset = find_evalset(config["on"], **{name: config.get(name) for name in names})
    return {problem.id: problem.prompt for problem in evalset.load()}


def _check_choice(run: Path, choose: Choice) -> None:
    """Raises UserError where no candidate of the run has what `choose` asks for. Most runs have it in their first."""
    candidates = (candidate for solution in read_solutions(run) for candidate in solution.candidates)
    if all(_strength(candidate, choose, "last") is None for candidate in candidates):
        what = "log-probabilities" if choose == "logprob" else "scores"
        raise UserError(f"{run} has no {what} to choose by: choose otherwise, or score it with a reward model")


def _without_verifier(usage: Usage) -> Usage:
    """What the generator spent. eFLOPs and device time are of both models together: not known where there were two."""
    own: dict[str, Any] = {field.name: 0 for field in fields(Usage) if field.name.startswith("verifier_")}
    if usage.verifier_prefill or usage.verifier_generated:
        own |= {"eflops": None, "device_picoseconds": None}
    return replace(usage, passes=0, dollars=0.0, **own)


async def _scored(solution: Solution, verifier: Verifier, pricing: Pricing, questions: Mapping[str, str]) -> Solution:
    question = questions.get(solution.problem_id)
    if question is None:
        raise UserError(f"problem {solution.problem_id} is not in the evaluation set any more: give its text")

    async def score(candidate: Candidate) -> Scores | TooLong:
        if not candidate.steps:
            return Scores([], [])
        try:
            return await verifier.score(question, candidate.steps, 0, candidate.finished)
        except TooLong as error:
            return error

    results = await gather_or_cancel(score(candidate) for candidate in solution.candidates)
    candidates, spent = [], Usage()
    for candidate, scores in zip(solution.candidates, results, strict=True):
        values = scores.values if isinstance(scores, Scores) else None
        candidates.append(candidate.model_copy(update={"scores": values}))
        spent += pricing.judging(scores.calls, len(values or ()))
    usage = _without_verifier(solution.usage) + spent
    usage = replace(usage, dollars=pricing.dollars(usage))
    return solution.model_copy(update={"candidates": candidates, "usage": usage})


def _with_choice(solution: Solution, chosen: int | None) -> Solution:
    old, new = (
        solution.candidates[index].num_tokens if index is not None else 0 for index in (solution.chosen, chosen)
    )
    candidate = solution.candidates[chosen] if chosen is not None else None
    update = {
        "chosen": chosen,
        "answer": candidate.answer if candidate else None,
        "finished": candidate is not None and candidate.finished,
        "usage": replace(solution.usage, discarded=solution.usage.discarded + old - new),
    }
    return solution.model_copy(update=update)


async def _choose(
    candidates: Sequence[Candidate], how: Choice, aggregation: Aggregation, checker: AnswerChecker
) -> int | None:
    """The index that `infer.strategies.parts.choose.choose` would choose."""
    strengths = [_strength(candidate, how, aggregation) for candidate in candidates]
    finished = any(candidate.finished for candidate in candidates)
    pool = [
        (index, strength)
        for index, strength in enumerate(strengths)
        if strength is not None and (candidates[index].finished or not finished)
    ]
    if not pool:  # as `Search.best`
        ranks = [
            (
                candidate.finished,
                bool(candidate.scores),
                aggregate(candidate.scores, aggregation) if candidate.scores else 0.0,
                -float("inf") if candidate.logprob is None else candidate.logprob,
                candidate.num_tokens,
            )
            for candidate in candidates
        ]
        return max(range(len(candidates)), key=ranks.__getitem__, default=None)
    if how in ("majority", "weighted"):
        groups = await checker.group([candidates[index].answer for index, _ in pool])
        votes = tally(groups, [strength for _, strength in pool])
        if votes:
            pool = [vote for vote, group in zip(pool, groups, strict=True) if group == leader(votes)]
    return max(pool, key=lambda vote: vote[1])[0]


def _strength(candidate: Candidate, how: Choice, aggregation: Aggregation) -> float | None:
    match how:
        case "majority":
            return 1.0
        case "logprob":
            return candidate.logprob
        case "prm" | "weighted":
            return aggregate(candidate.scores, aggregation) if candidate.scores else None


def _complete_steps(text: str, node: TracedNode | None, delimiter: str) -> int:
    """Steps that ended before a node's child begins; one cut off in its middle goes on in the child."""
    steps = split_steps(text, delimiter)
    return len(steps) - bool(steps and node is not None and node.finish == "length")
