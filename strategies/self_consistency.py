"""Self-consistency (Wang et al. 2203.11171): the answer that most sampled solutions give; it stops once that is known.

    repeat   sample solutions, in waves
             v_a <- votes of each answer a: 1 for each solution (count), its PRM score (prm), or its probability per
                    token, exp of the mean log p (logprob: equation 1 of the paper)
    until    N solutions are drawn, or the rule says stop
    return   argmax_a v_a, of equal ones the first that was seen

Rules: `certain` stops once no votes of the solutions still to come could change the winner, so it only ever saves
tokens. `beta` and `dirichlet` (Adaptive-Consistency, Aggarwal et al. 2305.11860) also stop where the leading answer is
the model's most likely one with posterior probability `threshold`.

A wave is as large as it can be without a sample too many: the rule could hold after its last sample (if all of them
vote for the leader), and not before. So batching costs no tokens.
"""

import math
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from infer.core.choice import tally
from infer.core.options import MOST, Count, ScoredOptions, Shape
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Node
from infer.errors import BudgetSpent
from infer.strategies.parts.stopping import Rule, Votes, soonest_stop, stops
from infer.strategies.parts.waves import WITHOUT_BUDGET, affordable_wave, sample_wave, samples_to_come


class SelfConsistencyOptions(ScoredOptions):
    n: Count | None = Field(None, ge=1, description="samples; by default as many as the budget allows (16 without one)")
    weights: Literal["count", "prm", "logprob"] = Field(
        "count", description="of a vote: 1, the PRM score, or the mean probability of a token"
    )
    stop: Rule = Field(
        "certain", description="before n samples: once the winner is certain, or by an adaptive posterior rule as well"
    )
    threshold: float = Field(0.95, gt=0.5, lt=1, description="posterior probability at which beta and dirichlet stop")
    wave: Count | None = Field(None, ge=1, description="samples at once; default: as many as a stop would need")

    @field_validator("stop")
    @classmethod
    def _of_counts(cls, stop: str, info: ValidationInfo) -> str:
        if stop in ("beta", "dirichlet") and info.data.get("weights") != "count":
            raise PydanticCustomError("stop", "its posterior is one of counts: it needs weights=count")
        return stop

    @property
    def needs_verifier(self) -> bool:
        return self.weights == "prm"

    @property
    def needs_logprobs(self) -> bool:
        return self.weights == "logprob"

    def shape(self) -> Shape | None:
        return Shape(self.n) if self.n is not None else None


async def self_consistency(search: Search, options: SelfConsistencyOptions) -> Solution:
    """The answer with the most votes of N samples; stops once the winner is certain."""
    samples: list[Node] = []
    ballots: dict[Node, float] = {}
    votes: Votes = {}
    n = options.n or (None if search.bounded else WITHOUT_BUDGET)
    most = n or MOST
    try:
        while len(samples) < most:
            coming = samples_to_come(search, most - len(samples), scored=options.needs_verifier)
            if stops(votes, coming, options.stop, options.threshold):
                break
            wave = affordable_wave(search, n, len(samples))
            wave = min(wave, options.wave or soonest_stop(votes, coming, wave, options.stop, options.threshold))
            counted = len(samples)
            await sample_wave(search, wave, samples, scored=options.needs_verifier)
            ballots |= _ballots(search, samples[counted:], options)
            votes = tally(await search.group(list(ballots)), list(ballots.values()))
    except BudgetSpent:
        ballots = _ballots(search, samples, options)  # all that there are, though a wave be scored in part
    if not ballots:
        return search.solution(await search.choose(samples, "majority"))
    return search.solution(await search.choose(list(ballots), "weighted", weights=list(ballots.values())))


def _ballots(search: Search, samples: list[Node], options: SelfConsistencyOptions) -> dict[Node, float]:
    """The finished samples that have a vote, each with its weight."""
    return {node: weight for node in samples if node.finished and (weight := _weight(search, node, options))}


def _weight(search: Search, node: Node, options: SelfConsistencyOptions) -> float | None:
    match options.weights:
        case "count":
            return 1.0
        case "prm":
            return search.value(node)
        case "logprob":
            logprob = node.logprob()
            return None if logprob is None else math.exp(logprob)
