"""The one rule for which candidate wins: for strategies, for a search that was cut off, and for stored solutions.

prm        argmax_i r(y_i)                                   (best-of-N, Cobbe et al. 2110.14168)
logprob    argmax_i of the mean log p of y_i's tokens
majority   the answer a with the most y_i that give it       (self-consistency, Wang et al. 2203.11171)
weighted   argmax_a of the sum of w_i over y_i that give a   (w_i = r(y_i): Li et al. 2206.02336, or given)
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from infer.core.tree import Aggregation, Node, aggregate

Choice = Literal["prm", "majority", "weighted", "logprob"]


class Ballot(NamedTuple):
    """The properties of a candidate that decide."""

    finished: bool
    scores: Sequence[float] | None
    """Of its steps, by the verifier; None or empty where it has none."""
    logprob: float | None
    """Mean log-probability of its tokens."""
    length: int
    """Its number of tokens."""

    @classmethod
    def of(cls, node: Node) -> "Ballot":
        """Of the trajectory that ends in a node."""
        return cls(node.finished, node.step_scores if node.scored else None, node.logprob(), node.length)

    def value(self, aggregation: Aggregation) -> float | None:
        """Its scores as one number; None where it has none."""
        return aggregate(self.scores, aggregation) if self.scores else None


def strength(ballot: Ballot, how: Choice, aggregation: Aggregation) -> float | None:
    """The weight of a candidate's vote, or its rank; None where it lacks the scores or log-probabilities it needs."""
    match how:
        case "majority":
            return 1.0
        case "logprob":
            return ballot.logprob
        case "prm" | "weighted":
            return ballot.value(aggregation)


def pick(
    ballots: Sequence[Ballot],
    how: Choice,
    aggregation: Aggregation,
    groups: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
) -> int | None:
    """The index of the candidate that wins, of equals the earliest; None where none counts: take the `best` then.

    Unfinished candidates count only where none is finished. One without the scores or log-probabilities that `how`
    needs does not count. A vote needs `groups`: one number for each candidate, the same for equal answers, below zero
    for no answer. `weights` take the place of the PRM scores in a weighted vote: one for each candidate, finite and not
    below zero. Where all votes are zero, or no candidate gives an answer, the first of the strongest candidates wins.
    """
    if weights is None:
        strengths = [strength(ballot, how, aggregation) for ballot in ballots]
    elif how != "weighted" or not all(0 <= weight < math.inf for weight in weights):
        raise ValueError(f"weights are for a weighted vote, finite and not below zero: {how}, {weights}")
    else:
        strengths = list(weights)
    some_finished = any(ballot.finished for ballot in ballots)
    pool = {
        index: strength
        for index, (ballot, strength) in enumerate(zip(ballots, strengths, strict=True))
        if strength is not None and (ballot.finished or not some_finished)
    }
    if not pool:
        return None
    if how in ("majority", "weighted"):
        assert groups is not None, "a vote needs groups"
        first: dict[int, int] = {}  # a group is known by its first member in the pool
        owners = [first.setdefault(groups[index], index) if groups[index] >= 0 else -1 for index in pool]
        votes = tally(owners, list(pool.values()))
        if votes:
            pool = {index: pool[index] for index, owner in zip(pool, owners, strict=True) if owner == leader(votes)}
    return max(pool, key=pool.__getitem__)


def best(ballots: Sequence[Ballot], aggregation: Aggregation) -> int | None:
    """The index of the best candidate by `rank`, the earliest of equals; None without candidates."""
    return max(range(len(ballots)), key=lambda index: rank(ballots[index], aggregation), default=None)


def rank(ballot: Ballot, aggregation: Aggregation) -> tuple[bool, bool, float, float, int]:
    """The order of candidates where a search is cut off.

    Finished ones come before unfinished ones, scored before unscored; then by score, log-probability, length.
    """
    value = ballot.value(aggregation)
    logprob = -math.inf if ballot.logprob is None else ballot.logprob
    return ballot.finished, value is not None, value or 0.0, logprob, ballot.length


def tally(groups: Sequence[int], weights: Sequence[float]) -> dict[int, float]:
    """The votes of each group of equal answers; a group below zero (no answer) has none."""
    votes: dict[int, float] = {}
    for group, weight in zip(groups, weights, strict=True):
        if group >= 0:
            votes[group] = votes.get(group, 0.0) + weight
    return votes


def leader(votes: Mapping[int, float]) -> int:
    """The group with the most votes; of equals the one of the least number, which was seen first."""
    return min(votes, key=lambda group: (-votes[group], group))
