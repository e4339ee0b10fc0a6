"""Greedy decoding: the baseline that spends the least."""

from infer.core.options import Options, Shape
from infer.core.search import Search
from infer.core.solution import Solution


class GreedyOptions(Options):
    """Greedy decoding has no options."""

    def shape(self) -> Shape:
        return Shape(1)


async def greedy(search: Search, options: GreedyOptions) -> Solution:
    """The model's most likely token at every position, once."""
    (leaf,) = await search.sample(search.root, until="end", temperature=0)
    return search.solution(leaf)
