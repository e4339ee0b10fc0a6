"""Rules that stop a vote: once its winner is certain, or probable enough."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from infer.core.choice import leader

Rule = Literal["certain", "beta", "dirichlet", "never"]

Votes = Mapping[int, float]
"""The votes of each answer, under the index of the first solution that gave it. One solution has at most one vote."""


def stops(votes: Votes, coming: float, rule: Rule, threshold: float) -> bool:
    """Whether sampling ends here, with so many samples still to come."""
    if rule == "never" or not votes:
        return False
    if certain(votes, coming):
        return True
    match rule:
        case "beta":
            return posterior(sorted(votes.values())[-2:]) >= threshold
        case "dirichlet":
            return posterior(sorted(votes.values())) >= threshold
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
    """The most that votes can grow to: each sum of fractions is rounded, by half a unit in the last place at most."""
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


def soonest_stop(votes: Votes, coming: float, most: int, rule: Rule, threshold: float) -> int:
    """The fewest more samples, at most `most`, after which sampling may end: if all of them vote for the leader."""
    if rule == "never":
        return most
    first = leader(votes) if votes else 0
    for more in range(1, most):
        if stops({**votes, first: votes.get(first, 0.0) + more}, coming - more, rule, threshold):
            return more
    return most
