"""Diverse verifier tree search (Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models").

    beams <- N / M times the prompt: the roots of independent subtrees
    repeat   sample M next steps behind each beam
             value each by the PRM
             the best step behind a beam takes its place, in each subtree for itself; a finished one ends its subtree
    return   the best of all finished steps

Where beam search soon holds the descendants of one step only, the subtrees here never compete.
"""

from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Node
from infer.core.usage import BudgetSpent
from infer.strategies.beam import StepSearchOptions, distinct, rate
from infer.strategies.parts.choose import choose


class DVTSOptions(StepSearchOptions):
    """As of beam search: N, M, lookahead, iterations and duplicates (within a subtree)."""


async def dvts(search: Search, options: DVTSOptions) -> Solution:
    """Diverse verifier tree search: N/M independent subtrees, in each the best of M next steps again and again."""
    candidates: list[Node] = []
    beams = [search.root] * (options.n // options.width)
    try:
        for iteration in range(1, options.iterations + 1):
            steps = await search.sample(
                beams,
                options.width,
                until="end" if iteration == options.iterations else "step",
                logprobs=options.choose == "logprob",
            )
            subtrees = [steps[first : first + options.width] for first in range(0, len(steps), options.width)]
            if not options.duplicates:
                subtrees = [distinct(subtree) for subtree in subtrees]
            considered = [step for subtree in subtrees for step in subtree]
            candidates += [step for step in considered if step.final]
            values = await rate(search, considered, options.lookahead, options.aggregation)
            best = [max(subtree, key=values.__getitem__) for subtree in subtrees]
            search.prune(step for step in steps if not step.final and step not in best)
            beams = [step for step in best if not step.final]
            if not beams:
                break
    except BudgetSpent:
        pass  # choose among what there is
    return search.solution(await choose(search, candidates, options.choose, options.aggregation))
