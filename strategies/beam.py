"""Beam search over steps, guided by a process reward model (Snell et al. 2408.03314, section 5.2).

    beams <- {prompt}
    repeat   sample N next steps, equally many for each beam; what is left over goes to the best
             value each by the PRM: its own score, or that of a greedy rollout k steps ahead (lookahead search)
             the finished ones are candidates; of the others the N / M best are the beams
    until    N candidates are finished, or after so many iterations: the last one samples all the rest
    return   the best candidate

N, M (`width`), k, iterations and duplicates are those of search-and-learn (Beeching et al. 2024). As there, finished
candidates leave the race, and where fewer than N / M beams are left each of them gets more of the N samples.
"""

from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Node
from infer.strategies.parts.steps import StepSearchOptions, distinct, rate


class BeamOptions(StepSearchOptions):
    """N, M, lookahead, iterations and duplicates."""


async def beam(search: Search, options: BeamOptions) -> Solution:
    """Beam search over steps: the N/M steps that the PRM likes best are each continued M times."""
    candidates: list[Node] = []
    beams = [search.root]
    with search.until_spent():
        for iteration in range(1, options.iterations + 1):
            shares = [beams[i] for i in sorted(sample % len(beams) for sample in range(options.n))]
            steps = await search.sample(shares, until="end" if iteration == options.iterations else "step")
            considered = steps if options.duplicates else distinct(steps)
            candidates += [step for step in considered if step.final]
            values = await rate(search, considered, options.lookahead)
            ranked = sorted((step for step in considered if not step.final), key=values.__getitem__, reverse=True)
            beams = ranked[: options.n // options.width]
            search.prune(step for step in steps if not step.final and step not in beams)
            if not beams or len(candidates) >= options.n:
                break
    return search.solution(await search.choose(candidates, options.choose))
