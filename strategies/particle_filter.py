"""Particle filtering over steps, guided by a process reward model (Puri et al. 2502.01618, algorithm 1).

    y_i <- prompt, for n particles
    repeat   y_i <- y_i and a next step sampled behind it          (a finished particle stays as it is)
             w_i <- its weight, from the PRM's score r(y_i);  W <- w / sum w
             unless all are finished:
             a_1 .. a_n ~ W;  y_i <- y_{a_i}                       (at each step, or where 1 / sum W_i^2 < ess n)
    return   one of them: the best, the vote's, or a draw from W

There are two modes, and they are not samplers of the same thing.

`mode=paper` weighs a particle by its current score alone, W = softmax(logit r / T): w = (r / (1 - r))^(1/T), whatever
it weighed before. The score acts again at every resampling, so what is sampled is p(y) times the product of these odds
over all steps that were resampled at: a good prefix counts once for each step it is good at, and a finished particle
once more for each step that others still take. It is a search: it concentrates fast, and its weights estimate nothing.

`mode=smc` is sequential Monte Carlo for one fixed target (Del Moral, Doucet and Jasra 2006): p(y) r(y)^(1/T), the model
conditioned on being right if r is the probability of that. A step multiplies the weight by r_t / r_{t-1}, with r_0 = 1,
so the scores on the way cancel and only say where to look; a finished particle's weight no longer changes. Whatever n,
the scheme and the times of resampling, sum w_i f(y_i) / n is an unbiased estimate of sum_y p(y) r(y)^(1/T) f(y), and
the mean weight one of the normalizing constant: for T = 1, of the mean score of plain samples.

`anneal_from` begins with another temperature, which falls linearly to T: a hot start keeps early scores, the least
reliable ones, from deciding. The target of `smc` stays that of T: what a temperature gives, the next takes back.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from infer.core.options import Options, Shape
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Aggregation, Node
from infer.core.usage import BudgetSpent
from infer.strategies.parts.choose import choose, value
from infer.strategies.parts.resampling import (
    RESAMPLING,
    Floats,
    Indices,
    Resampling,
    effective_sample_size,
    log_mean,
    multinomial,
    normalized,
)

Mode = Literal["paper", "smc"]

ROUNDING = 1e-7
"""Scores are taken to lie this far from 0 and 1: one of exactly 0 or 1 was rounded, and is no certainty."""


class ParticleOptions(Options):
    """What the particle methods have in common."""

    n: int = Field(8, ge=1, description="particles")
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False, description="of the weights: scores act with power 1/T")
    ess: float = Field(
        1.0, gt=0, le=1, description="resample where fewer than this fraction of n effectively count; 1: at every step"
    )
    choose: Literal["prm", "weighted", "draw"] = Field(
        "prm", description="the answer: best PRM score, vote with the particles' weights, or one drawn by weight"
    )
    aggregation: Aggregation | None = Field(None, description="of a path's step scores; default: the verifier's own")

    @property
    def needs_verifier(self) -> bool:
        return True


class ParticleFilterOptions(ParticleOptions):
    mode: Mode = Field(
        "paper", description="weights: the current score's odds (paper), or exact sequential Monte Carlo (smc)"
    )
    resampling: Resampling = Field("multinomial", description="how particles are redrawn by weight")
    anneal_from: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="temperature of the first step; it falls in a line to that of the weights",
    )
    anneal_steps: int = Field(10, ge=1, description="steps that this takes")

    def shape(self) -> Shape:
        return Shape(self.n)

    def temperature_at(self, step: int) -> float:
        """The temperature of the weights after this step, counted from 0."""
        if self.anneal_from is None or step >= self.anneal_steps:
            return self.temperature
        return self.anneal_from + (self.temperature - self.anneal_from) * step / self.anneal_steps


@dataclass(eq=False, slots=True)
class Particles:
    """Weighted trajectories: particle i is nodes[i] with the weight exp(log_weights[i]), not normalized."""

    nodes: list[Node]
    log_potentials: Floats
    """What the score of each particle is worth by itself."""
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

    def weigh(self, search: Search, mode: Mode, temperature: float, aggregation: Aggregation | None) -> None:
        """Gives the particles the weights of their present scores."""
        before = self.log_potentials
        self.log_potentials = np.array([_log_potential(search, node, mode, aggregation) for node in self.nodes])
        self.log_potentials /= temperature
        self.log_weights = self.log_potentials if mode == "paper" else self.log_weights + self.log_potentials - before


def _log_potential(search: Search, node: Node, mode: Mode, aggregation: Aggregation | None) -> float:
    """The log odds of the score, or its logarithm.

    A beginning without a step is neutral. An empty answer is wrong, and what is too long to be scored counts as wrong.
    """
    score = value(search, node, aggregation)
    if score is None:
        if not node.final and node.scored:
            return 0.0
        score = 0.0
    score = min(max(score, ROUNDING), 1 - ROUNDING)
    return math.log(score) - (math.log1p(-score) if mode == "paper" else 0.0)


async def particle_filter(search: Search, options: ParticleFilterOptions) -> Solution:
    """Particles take steps in parallel and are resampled by the PRM's scores; as in the paper, or exactly."""
    particles = Particles.start(search.root, options.n)
    try:
        await run_filter(search, options, particles)
    except BudgetSpent:
        if not any(node.finished for node in particles.nodes):
            raise
    solution = search.solution(await select(search, options, particles.nodes, particles.weights))
    evidence = particles.log_evidence if options.mode == "smc" and particles.final else None
    return weighted(solution, particles.nodes, particles.weights, evidence)


async def run_filter(search: Search, options: ParticleFilterOptions, particles: Particles) -> None:
    """Moves particles from the prompt to their ends; where the budget is spent they stay as they were last weighed."""
    resample = RESAMPLING[options.resampling]
    step = 0
    while not particles.final:
        if step and due(particles, options.ess):
            particles.resample(search, resample(particles.weights, len(particles.nodes), search.rng))
        while (n := covered(search, particles.nodes)) < len(particles.nodes):
            particles.resample(search, resample(particles.weights, n, search.rng))
        await particles.advance(search)
        particles.weigh(search, options.mode, options.temperature_at(step), options.aggregation)
        step += 1
    particles.weigh(search, options.mode, options.temperature, options.aggregation)


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
        return await choose(search, nodes, options.choose, options.aggregation, votes)
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
