"""DVTS against separate searches of its subtrees."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from infer.core.search import Search
from infer.core.trace import Trace, read_trace, trace_path
from infer.core.tree import Node
from infer.testing import toy
from tests.core.test_trace import below
from tests.strategies.test_beam import setting, worth
from tests.strategies.test_laws import run


async def subtree(search: Search, index: int, width: int, iterations: int) -> list[Node]:
    """All final nodes of one subtree, searched alone: of `width` next steps it keeps the best, again and again."""
    search.root.num_children = index * width  # the samples of the subtrees before this one
    final: list[Node] = []
    node = search.root
    for iteration in range(iterations):
        steps = await search.sample(node, width, until="end" if iteration == iterations - 1 else "step")
        final += [step for step in steps if step.final]
        node = max(steps, key=lambda step: worth(step.completion))
        if node.final:
            break
    return final


@pytest.mark.parametrize(("n", "width", "iterations"), [(6, 2, 40), (9, 3, 2), (4, 4, 40), (3, 1, 40)])
async def test_subtrees_are_independent(n: int, width: int, iterations: int) -> None:
    """DVTS finds the union of the solutions that its subtrees find alone, and answers with the best."""
    for digits in map(str, range(12)):
        solution = await run(setting(), "dvts", [f"n={n}", f"width={width}", f"iterations={iterations}"], digits)
        alone: list[Node] = []
        for index in range(n // width):
            alone += await subtree(await toy.search(setting(), digits), index, width, iterations)
        assert {candidate.address for candidate in solution.candidates} == {node.address for node in alone}
        assert solution.chosen is not None
        best = max((node for node in alone if node.finished), key=lambda node: worth(node.completion), default=None)
        assert best is None or solution.candidates[solution.chosen].text == best.completion


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dvts", ["n=6", "width=3"]),
        ("dvts", ["n=4", "width=2", "lookahead=1"]),
        ("best-of-n", ["n=3", "level=step"]),
        ("beam", ["n=6", "width=2", "duplicates=no"]),
        ("astar", ["k=3"]),
    ],
)
async def test_a_trace_tells_what_was_pruned(name: str, options: list[str], tmp_path: Path) -> None:
    """A pruned node is never continued. Where no frontier is left, each unfinished leaf of the tree was pruned."""
    total = 0
    for digits in map(str, range(12)):
        solution = await run(replace(toy.setting(), watch=partial(Trace, tmp_path)), name, options, digits)
        trace = read_trace(trace_path(tmp_path, f"p{digits}"))
        nodes = {node.id: node for node in below(trace.roots[0])}
        pruned = [node for node in nodes.values() if node.pruned_at is not None]
        total += len(pruned)
        for node in pruned:
            assert node.id not in trace.best_path
            if "lookahead=1" not in options:
                assert not node.children
        assert solution.finished
        if name in ("dvts", "best-of-n"):
            open_ends = [node for node in nodes.values() if not node.children and node.finish != "end"]
            assert {node.id for node in open_ends} <= {node.id for node in pruned}
    assert total > 0
