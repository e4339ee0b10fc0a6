"""Particle Gibbs over steps: iterated conditional sequential Monte Carlo (Andrieu, Doucet and Holenstein 2010).

    y*     <- a draw from the particles of one filter
    repeat   run a filter in which particle 1 is y*: it takes y*'s own steps, and resampling does not drop it
             y* <- a draw from this filter's particles, by weight
    return   one of all filters' particles: the best, the vote's, or a draw

The filter is the exact one (`mode=smc` of `particle_filter`), with multinomial resampling. One iteration leaves the
posterior, p(y) r(y)^(1/T) normalized, as it is, whatever n: where one filter has too few particles, iterations bring
its samples as near to the posterior as one likes. Puri et al. (2502.01618) iterate so with the weights of `mode=paper`,
whose target changes with the number of steps that the particles happen to take: there is no posterior that those
iterations leave alone.

Ancestor sampling (Lindsten, Jordan and Schön 2014) lets what is left of y* go on from another particle's prefix, drawn
in proportion to W_i p(rest | y_i) r(y_i and rest) / r(y_i). A language model's steps depend on the whole prefix, so p
would have to be asked of the model for each prefix, except in one case, in which it is done here: once y* has ended,
the rest is empty, certain after a trajectory that has ended and impossible after another. So y* then gives its place
to one of the ended particles, drawn by weight. Before that it goes on from its own prefix, which is exact as well.

The reference's steps are on the tree already: an iteration samples and scores those of n - 1 particles only.
"""

import numpy as np
from pydantic import Field

from infer.core.options import MOST, Count
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Node
from infer.errors import BudgetSpent
from infer.strategies.parts.particles import ParticleOptions, Particles, due, run_filter, select, weighted
from infer.strategies.parts.resampling import Floats, multinomial, normalized

WITHOUT_BUDGET = 4
"""Iterations when neither `iterations` nor a budget says how many."""


class ParticleGibbsOptions(ParticleOptions):
    n: Count = Field(8, ge=2, description="particles of each iteration, the reference among them")
    iterations: Count | None = Field(
        None, ge=1, description="filters run; by default as many as the budget allows (4 without one)"
    )


async def particle_gibbs(search: Search, options: ParticleGibbsOptions) -> Solution:
    """Exact particle filters, one after the other, each around a trajectory drawn from the one before."""
    nodes: list[Node] = []
    weights: list[Floats] = []
    iterations = options.iterations or (MOST if search.bounded else WITHOUT_BUDGET)
    particles = Particles.start(search.root, options.n)
    try:
        await run_filter(search, particles, "smc", options.ess, multinomial, lambda step: options.temperature)
        for iteration in range(1, iterations + 1):
            nodes += particles.nodes
            weights.append(particles.weights)
            if iteration == iterations:
                break
            particles = await sweep(search, options, draw(search, particles).trajectory)
    except BudgetSpent:
        if not nodes:  # cut off in the first filter
            nodes, weights = particles.nodes, [particles.weights]
        if not any(node.finished for node in nodes):
            raise
    shares = np.concatenate(weights) / len(weights)
    return weighted(search.solution(await select(search, options, nodes, shares)), nodes, shares)


async def sweep(search: Search, options: ParticleGibbsOptions, reference: list[Node]) -> Particles:
    """Conditional sequential Monte Carlo: a filter around a reference."""
    particles = Particles.start(search.root, options.n)
    while True:
        await particles.advance(search, reference)
        particles.weigh(search, "smc", options.temperature)
        if particles.final:
            return particles
        if due(particles, options.ess):
            others = multinomial(particles.weights, options.n - 1, search.rng)
            particles.resample(search, np.array([ancestor(search, particles), *others]))


def ancestor(search: Search, particles: Particles) -> int:
    """The particle that the reference goes on from: itself; once it has ended, a draw from all that have."""
    if not particles.nodes[0].final:
        return 0
    ended = np.where([node.final for node in particles.nodes], particles.log_weights, -np.inf)
    return int(multinomial(normalized(ended), 1, search.rng)[0])


def draw(search: Search, particles: Particles) -> Node:
    """One of the particles, by weight."""
    return particles.nodes[int(multinomial(particles.weights, 1, search.rng)[0])]
