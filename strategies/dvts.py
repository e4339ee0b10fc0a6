"""Diverse verifier tree search (Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models").

    beams <- N / M times the prompt: the roots of independent subtrees
    repeat   sample M next steps for each beam
             value each by the PRM
             the best step of a beam takes its place, in each subtree for itself; a finished one ends its subtree
    return   the best of all finished steps

Where beam search soon holds the descendants of one step only, the subtrees here never compete.
"""

from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Node
from infer.strategies.parts.steps import StepSearchOptions, distinct, rate


class DVTSOptions(StepSearchOptions):
    """As of beam search: N, M, lookahead, iterations and duplicates (within a subtree)."""


async def dvts(search: Search, options: DVTSOptions) -> Solution:
    """Diverse verifier tree search: N/M independent subtrees, in each the best of M next steps again and again."""
    candidates: list[Node] = []
    beams = [search.root] * (options.n // options.width)
    with search.until_spent():
        for iteration in range(1, options.iterations + 1):
            last = iteration == options.iterations
            steps = await search.sample(beams, options.width, until="end" if last else "step")
            subtrees = [steps[first : first + options.width] for first in range(0, len(steps), options.width)]
            if not options.duplicates:
                subtrees = [distinct(subtree) for subtree in subtrees]
            considered = [step for subtree in subtrees for step in subtree]
            candidates += [step for step in considered if step.final]
            values = await rate(search, considered, options.lookahead)
            best = [max(subtree, key=values.__getitem__) for subtree in subtrees]
            search.prune(step for step in steps if not step.final and step not in best)
            beams = [step for step in best if not step.final]
            if not beams:
                break
    return search.solution(await search.choose(candidates, options.choose))
