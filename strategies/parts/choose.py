"""The final answer among the trajectories of a search: the one place where all strategies choose it.

prm        argmax_i r(y_i)                                   (best-of-N, Cobbe et al. 2110.14168)
logprob    argmax_i of the mean log p of y_i's tokens
majority   the answer a with the most y_i that give it       (self-consistency, Wang et al. 2203.11171)
weighted   argmax_a of the sum of w_i over y_i that give a   (w_i = r(y_i): Li et al. 2206.02336, or given)
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from infer.core.search import Search
from infer.core.tree import Aggregation, Node

Choice = Literal["prm", "majority", "weighted", "logprob"]


async def choose(
    search: Search,
    candidates: Sequence[Node],
    how: Choice,
    aggregation: Aggregation | None = None,
    weights: Sequence[float] | None = None,
) -> Node | None:
    """The candidate that is the answer; of equals the earliest.

    Unfinished candidates count only where none is finished; one that lacks what `how` asks for (scores,
    log-probabilities) does not count, and where none counts the answer is `search.best()`. `weights` take the place of
    the PRM scores in a weighted vote: one for each candidate, finite and not below zero. If all votes are zero, or
    nobody gives an answer, the first of the strongest candidates wins.
    """
    if weights is None:
        strengths = [_strength(search, node, how, aggregation) for node in candidates]
    else:
        if how != "weighted" or not all(0 <= weight < math.inf for weight in weights):
            raise ValueError(f"weights are for a weighted vote, finite and not below zero: {how}, {weights}")
        strengths = list(weights)
    finished = any(node.finished for node in candidates)
    pool = [
        (node, strength)
        for node, strength in zip(candidates, strengths, strict=True)
        if strength is not None and (node.finished or not finished)
    ]
    if not pool:
        return search.best(aggregation)
    if how in ("majority", "weighted"):
        groups = await search.group([node for node, _ in pool])
        votes = tally(groups, [strength for _, strength in pool])
        if votes:
            pool = [vote for vote, group in zip(pool, groups, strict=True) if group == leader(votes)]
    return max(pool, key=lambda vote: vote[1])[0]


def tally(groups: Sequence[int], weights: Sequence[float]) -> dict[int, float]:
    """The votes of each class of equal answers, under its first member's index; `groups` as of `Search.group`."""
    votes: dict[int, float] = {}
    for group, weight in zip(groups, weights, strict=True):
        if group >= 0:
            votes[group] = votes.get(group, 0.0) + weight
    return votes


def leader(votes: Mapping[int, float]) -> int:
    """The class with the most votes; of equals the one that was seen first."""
    return min(votes, key=lambda group: (-votes[group], group))


def value(search: Search, node: Node, aggregation: Aggregation | None = None) -> float | None:
    """The PRM's value of a trajectory; None for one without scores, or without a step that could have one."""
    return search.value(node, aggregation) if node.scored and node.step_scores else None


def _strength(search: Search, node: Node, how: Choice, aggregation: Aggregation | None) -> float | None:
    match how:
        case "majority":
            return 1.0
        case "logprob":
            return node.logprob()
        case "prm" | "weighted":
            return value(search, node, aggregation)
