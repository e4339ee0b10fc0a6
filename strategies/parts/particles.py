"""Weighted particles over steps, and the options and answers that the particle methods share."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from infer.core.options import Count, ScoredOptions
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Node
from infer.strategies.parts.resampling import (
    Floats,
    Indices,
    Resample,
    effective_sample_size,
    log_mean,
    multinomial,
    normalized,
)

Mode = Literal["paper", "smc"]
"""How scores become weights: the odds of the current score, or exact sequential Monte Carlo."""

ROUNDING = 1e-7
"""Scores are taken to lie this far from 0 and 1: one of exactly 0 or 1 was rounded, and is no certainty."""


class ParticleOptions(ScoredOptions):
    """The options that the particle methods have in common."""

    n: Count = Field(8, ge=1, description="particles")
    temperature: float = Field(1.0, ge=1e-6, le=1e6, description="of the weights: scores act with power 1/T")
    ess: float = Field(
        1.0, gt=0, le=1, description="resample where fewer than this fraction of n effectively count; 1: at every step"
    )
    choose: Literal["prm", "weighted", "draw"] = Field(
        "prm", description="the answer: best PRM score, vote with the particles' weights, or one drawn by weight"
    )

    @property
    def scores_steps(self) -> bool:
        return True


@dataclass(eq=False, slots=True)
class Particles:
    """Weighted trajectories: particle i is nodes[i] with the weight exp(log_weights[i]), not normalized."""

    nodes: list[Node]
    log_potentials: Floats
    """Of each particle's score by itself."""
    log_weights: Floats

    @classmethod
    def start(cls, root: Node, n: int) -> "Particles":
        return cls([root] * n, np.zeros(n), np.zeros(n))

    @property
    def weights(self) -> Floats:
        return normalized(self.log_weights)

    @property
    def log_evidence(self) -> float:
        """The logarithm of the mean weight: in exact weighting, of an unbiased estimate of sum_y p(y) r(y)^(1/T)."""
        return log_mean(self.log_weights)

    @property
    def final(self) -> bool:
        return all(node.final for node in self.nodes)

    def resample(self, search: Search, ancestors: Indices) -> None:
        """Particle i becomes a copy of particle ancestors[i]; all weigh the same, and their mean weight is kept."""
        survivors = [self.nodes[i] for i in ancestors]
        search.prune(node for node in dict.fromkeys(self.nodes) if node not in survivors)
        self.nodes = survivors
        self.log_potentials = self.log_potentials[ancestors]
        self.log_weights = np.full(len(ancestors), self.log_evidence)

    async def advance(self, search: Search, reference: list[Node] | None = None) -> None:
        """Every particle that can takes its next step, scored; particle 0 that of the reference, if there is one."""
        nodes = list(self.nodes)
        if reference is not None and not nodes[0].final:
            nodes[0] = reference[len(nodes[0].trajectory)]
        moving = [i for i, node in enumerate(nodes) if not node.final and (i or reference is None)]
        if moving:
            children = await search.sample([nodes[i] for i in moving])
            await search.score(children)
            for i, child in zip(moving, children, strict=True):
                nodes[i] = child
        self.nodes = nodes

    def weigh(self, search: Search, mode: Mode, temperature: float) -> None:
        """Gives the particles the weights of their present scores."""
        before = self.log_potentials
        self.log_potentials = np.array([_log_potential(search, node, mode) for node in self.nodes])
        self.log_potentials /= temperature
        self.log_weights = self.log_potentials if mode == "paper" else self.log_weights + self.log_potentials - before


def _log_potential(search: Search, node: Node, mode: Mode) -> float:
    """The log odds of the score, or its logarithm.

    A beginning without a step is neutral. An empty answer is wrong, and what is too long to be scored counts as wrong.
    """
    score = search.value(node)
    if score is None:
        if not node.final and node.scored:
            return 0.0
        score = 0.0
    score = min(max(score, ROUNDING), 1 - ROUNDING)
    return math.log(score) - (math.log1p(-score) if mode == "paper" else 0.0)


async def run_filter(
    search: Search,
    particles: Particles,
    mode: Mode,
    ess: float,
    resample: Resample,
    temperature_at: Callable[[float], float],
) -> None:
    """Moves particles from the prompt to their ends; where the budget is spent they stay as they were last weighed.

    `temperature_at` gives the temperature of the weights after each step, and at infinity that of the target.
    """
    step = 0
    while not particles.final:
        if step and due(particles, ess):
            particles.resample(search, resample(particles.weights, len(particles.nodes), search.rng))
        while (n := covered(search, particles.nodes)) < len(particles.nodes):
            particles.resample(search, resample(particles.weights, n, search.rng))
        await particles.advance(search)
        particles.weigh(search, mode, temperature_at(step))
        step += 1
    particles.weigh(search, mode, temperature_at(math.inf))


def covered(search: Search, nodes: list[Node]) -> int:
    """How many particles to go on with: fewer where the budget may not cover two more steps of all.

    All take their steps together, so all would be unfinished when it is spent; with half as many at each step from here
    on, some end. A step is taken to be as long as the longest of the last. The mean weight survives a change of the
    particles' number, and with it what is exact.
    """
    unfinished = [node for node in nodes if not node.final]
    if not unfinished:
        return len(nodes)
    tokens = max([1, *(node.num_tokens for node in unfinished if node.parent)])
    steps = search.affordable(max(unfinished, key=lambda node: node.length), tokens)
    return len(nodes) if steps is None else len(nodes) - max(0, len(unfinished) - max(1, steps // 2))


def due(particles: Particles, ess: float) -> bool:
    """Whether the particles are to be resampled."""
    return ess == 1 or effective_sample_size(particles.weights) < ess * len(particles.nodes)


async def select(search: Search, options: ParticleOptions, nodes: list[Node], weights: Floats) -> Node | None:
    """The particle that is the answer: a finished one, if there is any."""
    if options.choose != "draw":
        votes = weights.tolist() if options.choose == "weighted" else None
        return await search.choose(nodes, options.choose, votes)
    finished = weights * [node.finished for node in nodes]
    return nodes[int(multinomial(finished if finished.any() else weights, 1, search.rng)[0])]


def weighted(solution: Solution, nodes: list[Node], weights: Floats, log_evidence: float | None = None) -> Solution:
    """The solution with the weight of each candidate: that of all particles that ended in it."""
    shares: Counter[tuple[int, ...]] = Counter()
    for node, weight in zip(nodes, weights.tolist(), strict=True):
        shares[node.address] += weight
    candidates = [
        candidate.model_copy(update={"weight": shares[candidate.address]}) for candidate in solution.candidates
    ]
    return solution.model_copy(update={"candidates": candidates, "log_evidence": log_evidence})
