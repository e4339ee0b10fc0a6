"""Search over steps with beams: equal steps, greedy look-ahead, and the options of such strategies."""

from collections.abc import Sequence

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from infer.core.choice import Choice
from infer.core.options import Count, ScoredOptions, Shape
from infer.core.search import Search
from infer.core.tree import Finish, Node


class StepSearchOptions(ScoredOptions):
    """The options that beam search and DVTS have in common."""

    n: Count = Field(8, ge=1, description="next steps sampled in each iteration, of all beams together")
    width: Count = Field(4, ge=1, description="next steps sampled for each beam (M); divides n", validate_default=True)
    lookahead: Count = Field(
        0, ge=0, description="greedy steps sampled ahead to value a step; paid for, then discarded"
    )
    iterations: Count = Field(40, ge=1, description="steps of a solution; the last of them goes on to its end")
    duplicates: bool = Field(False, description="score and keep next steps of equal text apart; false: as one")
    choose: Choice = Field("prm", description="the answer among all finished beams: as for best-of-n")

    @field_validator("width")
    @classmethod
    def _divides(cls, width: int, info: ValidationInfo) -> int:
        if (n := info.data.get("n")) and n % width:
            raise PydanticCustomError("width", "n={n} is not divisible by the width", {"n": n})
        return width

    @property
    def scores_steps(self) -> bool:
        return True

    def shape(self) -> Shape | None:
        return Shape(self.n // self.width, self.width) if not self.lookahead else None


def distinct(nodes: Sequence[Node]) -> list[Node]:
    """The first of each set of nodes with equal text from the root on, in their order."""
    first: dict[tuple[str, Finish | None], Node] = {}
    for node in nodes:
        first.setdefault((node.completion, node.finish), node)
    return list(first.values())


async def rate(search: Search, nodes: Sequence[Node], lookahead: int) -> dict[Node, float]:
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
    return {node: search.value(end) or 0.0 for node, end in ends.items()}
