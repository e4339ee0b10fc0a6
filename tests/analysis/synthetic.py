"""Synthetic runs for tests, written as `infer solve` writes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infer.core.solution import Candidate, Solution
from infer.core.usage import Usage
from infer.runs.run import Run

REFERENCE = "7"


def solution(
    name: str,
    answers: Sequence[str | None],
    *,
    scores: Sequence[Sequence[float] | None] | None = None,
    finished: Sequence[bool] | None = None,
    chosen: int | None = 0,
    reference: str | None = REFERENCE,
    tokens: int = 10,
    level: str | None = "1",
) -> Solution:
    """A solution whose candidates give these answers. A candidate has a step for each score, or two without scores."""
    scores = scores or [None] * len(answers)
    finished = finished or [True] * len(answers)
    candidates = [
        Candidate(
            address=(index,),
            tokens=[],
            num_tokens=tokens,
            text=f"so\n\n\\boxed{{{answer}}}" if answer is not None else "hm\n\n",
            answer=answer,
            finished=done,
            steps=["so\n\n", "then\n\n", "there\n\n", "\\boxed{}"][: len(own) if own is not None else 2],
            scores=list(own) if own is not None else None,
            group=answers.index(answer) if answer is not None else -1,
            correct=answer == reference if reference is not None else None,
        )
        for index, (answer, own, done) in enumerate(zip(answers, scores, finished, strict=True))
    ]
    answer = answers[chosen] if chosen is not None else None
    total = tokens * len(answers)
    return Solution(
        problem_id=name,
        level=level,
        reference=reference,
        answer=answer,
        correct=answer == reference if reference is not None else None,
        finished=True,
        chosen=chosen,
        candidates=candidates,
        usage=Usage(generated=total, discarded=total - (tokens if chosen is not None else 0), passes=2 * len(answers)),
        seconds=0.5,
    )


def write_run(folder: Path, solutions: Sequence[Solution], aggregation: str = "last", **config: Any) -> Path:
    settings: dict[str, Any] = {
        "model": "m",
        "prm": "r",
        "strategy": "best-of-n",
        "options": {"n": 4},
        "budget": None,
        "seed": 0,
        "on": "set",
    }
    with Run.open(folder, {**settings, **config}, {"verifier": {"aggregation": aggregation}}) as run:
        for one in solutions:
            run.append(one)
    return folder


def random_solutions(problems: int, samples: int, seed: int = 0) -> list[Solution]:
    """Solutions with answers 7 (right), 1, 2 or none. Scores are multiples of 1/4, so some tie."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(problems):
        answers = [[REFERENCE, "1", "2", None][kind] for kind in rng.integers(0, 4, samples)]
        scores = [list(rng.integers(0, 5, 2) / 4) for _ in range(samples)]
        made.append(
            solution(f"p{index}", answers, scores=scores, tokens=int(rng.integers(5, 50)), level=str(index % 3 + 1))
        )
    return made
