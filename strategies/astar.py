"""A*-decoding (Chatziveroglou 2505.13672): best-first search over partial solutions, guided by a process reward model.

    frontier <- {prompt}, g = 0, h = 0
    repeat   s <- state of the frontier with the least f = g + h
             if s is finished: return s
             for each s' of k sampled next steps of s that was not met before:
                 h(s') <- cost to go, from the reward r(s')
                 g(s') <- g(s) + max(0, h(s) - h(s'))
                 put s' into the frontier

The step cost is the fall of h, so h(s) <= cost(s, s') + h(s') always holds: the heuristic is consistent, f never falls
along a path, and the first finished state that is popped has the least f of all finished states reachable through
what was sampled. Equal texts are one state: without that, copies of a likely step, all with the same f, would each be
expanded before the search went on to the next step.

With a weight w > 1, f = g + w h (weighted A*, Pohl 1970): fewer states are expanded, and the path found costs at most w
times the least. Greedy best-first search has f = h.
"""

import heapq
import math
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from infer.core.choice import Choice
from infer.core.options import MOST, Count, ScoredOptions
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Finish, Node


class AStarOptions(ScoredOptions):
    k: Count = Field(4, ge=1, description="next steps sampled for each expansion")
    width: Count = Field(1, ge=1, description="states expanded at once")
    heuristic: Literal["linear", "log"] = Field("linear", description="cost to go from the reward r: 1 - r, or -log r")
    order: Literal["astar", "greedy"] = Field("astar", description="least g + weight * h first, or least h (greedy)")
    weight: float = Field(1, ge=1, le=1e6, description="of h in f: above 1 greedier, and less exact")
    ties: Literal["deepest", "oldest", "newest"] = Field("deepest", description="which of equal f goes first")
    duplicates: bool = Field(False, description="keep states of equal text, each with an expansion of its own")
    depth: Count | None = Field(None, ge=1, description="steps of a path; one that has so many is not expanded")
    choose: Literal["first", Choice] = Field(
        "first", description="the first finished state that is popped, or a choice among all finished ones met by then"
    )

    @field_validator("width")
    @classmethod
    def _at_once(cls, width: int, info: ValidationInfo) -> int:
        if (samples := info.data.get("k", 1) * width) > MOST:
            raise PydanticCustomError("width", "k * width is {n}, at most {most}", {"n": samples, "most": MOST})
        return width

    @field_validator("weight")
    @classmethod
    def _of_astar(cls, weight: float, info: ValidationInfo) -> float:
        if info.data.get("order") == "greedy":
            raise PydanticCustomError("weight", "order=greedy has no weight")
        return weight

    @property
    def scores_steps(self) -> bool:
        return True


@dataclass(order=True, slots=True)
class State:
    """A partial solution in the frontier: the least (f, tie, number) is popped first."""

    f: float
    tie: int
    number: int
    """How many states were met before this one."""
    depth: int = field(compare=False)
    total: float = field(compare=False)
    """g + h: the least that a solution through here can cost."""
    h: float = field(compare=False)
    node: Node = field(compare=False)


async def astar(search: Search, options: AStarOptions) -> Solution:
    """Best-first search over steps; the frontier is ordered by path cost plus the PRM's cost to go."""
    frontier = [State(f=0, tie=0, number=0, depth=0, total=0, h=0, node=search.root)]
    finished: list[Node] = []
    first: Node | None = None
    with search.until_spent():
        first = await _first_finished(search, frontier, finished, options)
    if options.choose == "first":
        return search.solution(first or search.best())
    # best first; those of an expansion that the budget cut off are in no frontier
    order = {state.node: place for place, state in enumerate(sorted(frontier))}
    finished.sort(key=lambda node: order.get(node, len(order)))
    return search.solution(await search.choose(finished, options.choose))


async def _first_finished(
    search: Search, frontier: list[State], finished: list[Node], options: AStarOptions
) -> Node | None:
    """The finished state that is the first to come up, left in the frontier; None where the frontier runs out.

    Adds all finished ones to `finished` as they are met.
    """
    met: set[tuple[str, Finish | None]] = set()
    number = 0
    while frontier:
        if frontier[0].node.finished:
            return frontier[0].node
        batch = _pop(frontier, options.width)
        parents = {state.node: state for state in batch if not state.node.full and state.depth != options.depth}
        search.prune(state.node for state in batch if state.node not in parents)
        children = await search.sample(list(parents), options.k)
        if not options.duplicates:
            children = _new(search, children, met)
        finished += [child for child in children if child.finished]
        await search.score(children)
        for child in children:
            assert child.parent is not None
            number += 1
            heapq.heappush(frontier, _state(child, parents[child.parent], search.value(child) or 0.0, number, options))
    return None


def _pop(frontier: list[State], width: int) -> list[State]:
    """The `width` best states, up to the first finished one: its turn comes once those before it are expanded."""
    batch: list[State] = []
    while frontier and len(batch) < width and not frontier[0].node.finished:
        batch.append(heapq.heappop(frontier))
    return batch


def _new(search: Search, children: list[Node], met: set[tuple[str, Finish | None]]) -> list[Node]:
    """The children whose text was not met before, which is then noted; the others are pruned."""
    new = []
    for child in children:
        state = child.completion, child.finish
        if state in met:
            search.prune([child])
        else:
            met.add(state)
            new.append(child)
    return new


def _state(child: Node, parent: State, reward: float, number: int, options: AStarOptions) -> State:
    """The state of a scored child."""
    h = 1 - reward if options.heuristic == "linear" else -math.log(max(reward, 1e-9))
    # g + h, as g grows by the fall of h; written so that rounding neither lets it fall nor tells equals apart
    total = parent.total + max(0.0, h - parent.h)
    f = h if options.order == "greedy" else total + (options.weight - 1) * h
    depth = parent.depth + 1
    tie = {"deepest": -depth, "oldest": number, "newest": -number}[options.ties]
    return State(f, tie, number, depth, total, h, child)
