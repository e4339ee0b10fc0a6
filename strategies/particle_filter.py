"""Particle filtering over steps, guided by a process reward model (Puri et al. 2502.01618, algorithm 1).

    y_i <- prompt, for n particles
    repeat   y_i <- y_i and a next step sampled after it          (a finished particle stays as it is)
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

from pydantic import Field

from infer.core.options import Count, Shape
from infer.core.search import Search
from infer.core.solution import Solution
from infer.errors import BudgetSpent
from infer.strategies.parts.particles import Mode, ParticleOptions, Particles, run_filter, select, weighted
from infer.strategies.parts.resampling import RESAMPLING, Resampling


class ParticleFilterOptions(ParticleOptions):
    mode: Mode = Field(
        "paper", description="weights: the current score's odds (paper), or exact sequential Monte Carlo (smc)"
    )
    resampling: Resampling = Field("multinomial", description="how particles are redrawn by weight")
    anneal_from: float | None = Field(
        None,
        ge=1e-6,
        le=1e6,
        description="temperature of the first step; it falls in a line to that of the weights",
    )
    anneal_steps: Count = Field(10, ge=1, description="steps that this takes")

    def shape(self) -> Shape:
        return Shape(self.n)

    def temperature_at(self, step: float) -> float:
        """The temperature of the weights after this step, counted from 0."""
        if self.anneal_from is None or step >= self.anneal_steps:
            return self.temperature
        return self.anneal_from + (self.temperature - self.anneal_from) * step / self.anneal_steps


async def particle_filter(search: Search, options: ParticleFilterOptions) -> Solution:
    """Particles take steps in parallel and are resampled by the PRM's scores; as in the paper, or exactly."""
    particles = Particles.start(search.root, options.n)
    try:
        resample = RESAMPLING[options.resampling]
        await run_filter(search, particles, options.mode, options.ess, resample, options.temperature_at)
    except BudgetSpent:
        if not any(node.finished for node in particles.nodes):
            raise
    solution = search.solution(await select(search, options, particles.nodes, particles.weights))
    evidence = particles.log_evidence if options.mode == "smc" and particles.final else None
    return weighted(solution, particles.nodes, particles.weights, evidence)
