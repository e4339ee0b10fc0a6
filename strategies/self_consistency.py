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
from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from infer.core.options import Options, Shape
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Aggregation, Node
from infer.core.usage import BudgetSpent
from infer.strategies.best_of_n import WITHOUT_BUDGET, affordable_wave, sample_and_score
from infer.strategies.parts.choose import choose, leader, tally, value

Votes = Mapping[int, float]
"""The votes of each answer, under the index of the first solution that gave it. One solution has at most one vote."""


class SelfConsistencyOptions(Options):
    n: int | None = Field(None, ge=1, description="samples; by default as many as the budget allows (16 without one)")
    weights: Literal["count", "prm", "logprob"] = Field(
        "count", description="of a vote: 1, the PRM score, or the mean probability of a token"
    )
    stop: Literal["certain", "beta", "dirichlet", "never"] = Field(
        "certain", description="before n samples: once the winner is certain, or by an adaptive posterior rule as well"
    )
    threshold: float = Field(0.95, gt=0.5, lt=1, description="posterior probability at which beta and dirichlet stop")
    wave: int | None = Field(None, ge=1, description="samples at once; default: as many as a stop would need")
    aggregation: Aggregation | None = Field(None, description="of a sample's step scores; default: the verifier's own")

    @field_validator("stop")
    @classmethod
    def _of_counts(cls, stop: str, info: ValidationInfo) -> str:
        if stop in ("beta", "dirichlet") and info.data.get("weights") != "count":
            raise PydanticCustomError("stop", "its posterior is one of counts: it needs weights=count")
        return stop

    @property
    def needs_verifier(self) -> bool:
        return self.weights == "prm"

    def shape(self) -> Shape | None:
        return Shape(self.n) if self.n is not None else None


async def self_consistency(search: Search, options: SelfConsistencyOptions) -> Solution:
    """The answer with the most votes of N samples; stops once the winner is certain."""
    samples: list[Node] = []
    ballots: dict[Node, float] = {}
    votes: Votes = {}
    n = options.n or (WITHOUT_BUDGET if search.setting.budget is None else None)
    try:
        while n is None or len(samples) < n:
            coming = _samples_to_come(search, options, math.inf if n is None else n - len(samples))
            if stops(votes, coming, options):
                break
            wave = affordable_wave(search, None if n is None else n - len(samples))
            wave = min(wave, options.wave or soonest_stop(votes, coming, wave, options))
            counted = len(samples)
            if options.needs_verifier:
                await sample_and_score(search, wave, samples)
            else:
                logprobs = options.weights == "logprob"
                samples += await search.sample(search.root, wave, until="end", logprobs=logprobs)
            ballots |= _ballots(search, samples[counted:], options)
            votes = tally(await search.group(list(ballots)), list(ballots.values()))
    except BudgetSpent:
        ballots = _ballots(search, samples, options)  # what there is, though a wave be scored in part
    if not ballots:
        return search.solution(await choose(search, samples, "majority"))
    return search.solution(await choose(search, list(ballots), "weighted", weights=list(ballots.values())))


def stops(votes: Votes, coming: float, options: SelfConsistencyOptions) -> bool:
    """Whether sampling ends here, with so many samples still to come."""
    if options.stop == "never" or not votes:
        return False
    if certain(votes, coming):
        return True
    match options.stop:
        case "beta":
            return posterior(sorted(votes.values())[-2:]) >= options.threshold
        case "dirichlet":
            return posterior(sorted(votes.values())) >= options.threshold
        case _:
            return False


def certain(votes: Votes, coming: float) -> bool:
    """Whether the leader stays the winner whatever answers `coming` more samples give.

    The most that a rival can get is all of their votes, 1 each. An answer that was not seen yet comes last among
    equals, one seen before the leader wins a tie.
    """
    first = leader(votes)
    rivals = [(index, rival) for index, rival in votes.items() if index != first] + [(math.inf, 0.0)]
    return all((_at_most(rival, coming), -index) < (votes[first], -first) for index, rival in rivals)


def _at_most(votes: float, coming: float) -> float:
    """What votes can grow to: each sum of fractions is rounded, by half a unit in the last place at most."""
    reach = votes + coming
    return reach if votes.is_integer() or math.isinf(reach) else reach + coming * math.ulp(reach)


def posterior(counts: list[float]) -> float:
    """The probability that the answer with the most votes is the most likely one, given the counts of all (or two).

    Under a uniform prior the answers' probabilities are Dirichlet(counts + 1) distributed: shares of independent Gamma
    variables. So this is E prod_i P(G_i < G_1), an integral over the quantiles of G_1. With two answers (or one, the
    other not seen yet) it is P(p_1 > 1/2) of a Beta distribution.
    """
    from scipy.special import betainc, gammainc, gammaincinv

    *others, most = sorted([0.0, *counts] if len(counts) == 1 else counts)
    if len(others) == 1:
        return float(betainc(others[0] + 1, most + 1, 0.5))
    nodes, weights = np.polynomial.legendre.leggauss(64)  # on [-1, 1]
    gamma = gammaincinv(most + 1, (nodes + 1) / 2)
    below = gammainc(np.array(others)[:, None] + 1, gamma)  # [answers - 1, nodes]
    return float(below.prod(axis=0) @ weights / 2)


def soonest_stop(votes: Votes, coming: float, most: int, options: SelfConsistencyOptions) -> int:
    """The fewest more samples, at most `most`, after which sampling may end: if all of them vote for the leader."""
    if options.stop == "never":
        return most
    first = leader(votes) if votes else 0
    for more in range(1, most):
        if stops({**votes, first: votes.get(first, 0.0) + more}, coming - more, options):
            return more
    return most


def _samples_to_come(search: Search, options: SelfConsistencyOptions, wanted: float) -> float:
    """How many more samples there can be: each takes at least a token, or a pass where they are scored."""
    budget = search.setting.budget
    if budget is not None and (budget.unit == "tokens" or (budget.unit == "prm" and options.needs_verifier)):
        return min(wanted, search.left)
    return wanted


def _ballots(search: Search, samples: list[Node], options: SelfConsistencyOptions) -> dict[Node, float]:
    return {node: weight for node in samples if node.finished and (weight := _weight(search, node, options))}


def _weight(search: Search, node: Node, options: SelfConsistencyOptions) -> float | None:
    match options.weights:
        case "count":
            return 1.0
        case "prm":
            return value(search, node, options.aggregation)
        case "logprob":
            logprob = node.logprob()
            return None if logprob is None else math.exp(logprob)
