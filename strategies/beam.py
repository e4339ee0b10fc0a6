"""Beam search over steps, guided by a process reward model (Snell et al. 2408.03314, section 5.2).

    beams <- {prompt}
    repeat   sample N next steps, equally many behind each beam; what is left over goes to the best
             value each by the PRM: its own score, or that of a greedy rollout k steps ahead (lookahead search)
             the finished ones are candidates; of the others the N / M best are the beams
    until    N candidates are finished, or after so many iterations: the last one samples all the rest
    return   the best candidate

N, M (`width`), k, iterations and duplicates are those of search-and-learn (Beeching et al. 2024). As there, finished
candidates leave the race, and where fewer than N / M beams are left each of them gets more of the N samples.
"""

from collections.abc import Sequence

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from infer.core.options import Options, Shape
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Aggregation, Finish, Node
from infer.core.usage import BudgetSpent
from infer.strategies.parts.choose import Choice, choose, value


class StepSearchOptions(Options):
    """What beam search and DVTS have in common."""

    n: int = Field(8, ge=1, description="next steps sampled in each iteration, of all beams together")
    width: int = Field(4, ge=1, description="next steps sampled behind each beam (M); divides n", validate_default=True)
    lookahead: int = Field(0, ge=0, description="greedy steps sampled ahead to value a step; paid for, then discarded")
    iterations: int = Field(40, ge=1, description="steps of a solution; the last of them goes on to its end")
    duplicates: bool = Field(False, description="score and keep next steps of equal text apart; false: as one")
    choose: Choice = Field("prm", description="the answer among all finished beams: as for best-of-n")
    aggregation: Aggregation | None = Field(None, description="of a path's step scores; default: the verifier's own")

    @field_validator("width")
    @classmethod
    def _divides(cls, width: int, info: ValidationInfo) -> int:
        if (n := info.data.get("n")) and n % width:
            raise PydanticCustomError("width", "n={n} is not divisible by the width", {"n": n})
        return width

    @property
    def needs_verifier(self) -> bool:
        return True

    def shape(self) -> Shape | None:
        return Shape(self.n // self.width, self.width) if not self.lookahead else None


class BeamOptions(StepSearchOptions):
    """N, M, lookahead, iterations and duplicates."""


async def beam(search: Search, options: BeamOptions) -> Solution:
    """Beam search over steps: the N/M steps that the PRM likes best are each continued M times."""
    candidates: list[Node] = []
    beams = [search.root]
    try:
        for iteration in range(1, options.iterations + 1):
            steps = await search.sample(
                [beams[i] for i in sorted(sample % len(beams) for sample in range(options.n))],
                until="end" if iteration == options.iterations else "step",
                logprobs=options.choose == "logprob",
            )
            considered = steps if options.duplicates else distinct(steps)
            candidates += [step for step in considered if step.final]
            values = await rate(search, considered, options.lookahead, options.aggregation)
            ranked = sorted((step for step in considered if not step.final), key=values.__getitem__, reverse=True)
            beams = ranked[: options.n // options.width]
            search.prune(step for step in steps if not step.final and step not in beams)
            if not beams or len(candidates) >= options.n:
                break
    except BudgetSpent:
        pass  # choose among what there is
    return search.solution(await choose(search, candidates, options.choose, options.aggregation))


async def rate(
    search: Search, nodes: Sequence[Node], lookahead: int, aggregation: Aggregation | None
) -> dict[Node, float]:
    """The value of each node: the PRM's, after up to `lookahead` more greedy steps; nodes and rollouts go in step."""
    await search.score(nodes)
    ends = {node: node for node in nodes}
    for _ in range(lookahead):
        unfinished = [node for node, end in ends.items() if not end.final]
        if not unfinished:
            break
        ahead = await search.sample([ends[node] for node in unfinished], temperature=0)
        await search.score(ahead)
        search.prune(ahead)
        ends.update(zip(unfinished, ahead, strict=True))
    return {node: value(search, end, aggregation) or 0.0 for node, end in ends.items()}


def distinct(nodes: Sequence[Node]) -> list[Node]:
    """The first of each set of nodes with equal text from the root on, in their order."""
    first: dict[tuple[str, Finish | None], Node] = {}
    for node in nodes:
        first.setdefault((node.completion, node.finish), node)
    return list(first.values())
