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
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from infer.core.options import Options
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Aggregation, Finish, Node
from infer.core.usage import BudgetSpent
from infer.strategies.parts.choose import Choice, choose, value


class AStarOptions(Options):
    k: int = Field(4, ge=1, description="next steps sampled for each expansion")
    width: int = Field(1, ge=1, description="states expanded at once")
    heuristic: Literal["linear", "log"] = Field("linear", description="cost to go from the reward r: 1 - r, or -log r")
    order: Literal["astar", "greedy"] = Field("astar", description="least g + weight * h first, or least h (greedy)")
    weight: float = Field(1, ge=1, allow_inf_nan=False, description="of h in f: above 1 greedier, and less exact")
    ties: Literal["deepest", "oldest", "newest"] = Field("deepest", description="which of equal f goes first")
    duplicates: bool = Field(False, description="keep states of equal text, each with an expansion of its own")
    depth: int | None = Field(None, ge=1, description="steps of a path; one that has so many is not expanded")
    choose: Literal["first", Choice] = Field(
        "first", description="the first finished state that is popped, or a choice among all finished ones met by then"
    )
    aggregation: Aggregation | None = Field(None, description="of a path's step scores; default: the verifier's own")

    @field_validator("weight")
    @classmethod
    def _of_astar(cls, weight: float, info: ValidationInfo) -> float:
        if info.data.get("order") == "greedy":
            raise PydanticCustomError("weight", "order=greedy has no weight")
        return weight

    @property
    def needs_verifier(self) -> bool:
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
    try:
        first = await _first_finished(search, frontier, finished, options)
    except BudgetSpent:
        first = None
    if options.choose == "first":
        return search.solution(first or search.best(options.aggregation))
    # best first; those of an expansion that the budget cut off are in no frontier
    order = {state.node: place for place, state in enumerate(sorted(frontier))}
    finished.sort(key=lambda node: order.get(node, len(order)))
    return search.solution(await choose(search, finished, options.choose, options.aggregation))


async def _first_finished(
    search: Search, frontier: list[State], finished: list[Node], options: AStarOptions
) -> Node | None:
    """The finished state that is the first to come up, left in the frontier; None where the frontier runs out.

    Adds all finished ones to `finished` as they are met.
    """
    number = 0
    met: set[tuple[str, Finish | None]] = set()
    while frontier:
        if frontier[0].node.finished:
            return frontier[0].node
        batch = _pop(frontier, options.width)
        parents = {state.node: state for state in batch if not state.node.full and state.depth != options.depth}
        search.prune(state.node for state in batch if state.node not in parents)
        if not parents:
            continue
        children = await search.sample(list(parents), options.k, logprobs=options.choose == "logprob")
        if not options.duplicates:
            children = _new(search, children, met)
        finished += [child for child in children if child.finished]
        await search.score(children)
        for child in children:
            assert child.parent is not None
            parent = parents[child.parent]
            h = _cost_to_go(value(search, child, options.aggregation) or 0.0, options.heuristic)
            # g + h, as g grows by the fall of h; written so that rounding neither lets it fall nor tells equals apart
            total = parent.total + max(0.0, h - parent.h)
            f = h if options.order == "greedy" else total + (options.weight - 1) * h
            number += 1
            depth = parent.depth + 1
            tie = {"deepest": -depth, "oldest": number, "newest": -number}[options.ties]
            heapq.heappush(frontier, State(f, tie, number, depth, total, h, child))
    return None


def _pop(frontier: list[State], width: int) -> list[State]:
    """The `width` best states, up to the first finished one: its turn comes once those before it are expanded."""
    batch: list[State] = []
    while frontier and len(batch) < width and not frontier[0].node.finished:
        batch.append(heapq.heappop(frontier))
    return batch


def _new(search: Search, children: Sequence[Node], met: set[tuple[str, Finish | None]]) -> list[Node]:
    """The children whose text was not met before, which is then noted; the others are pruned."""
    new = []
    for child in children:
        state = child.completion, child.finish
        if state not in met:
            met.add(state)
            new.append(child)
        else:
            search.prune([child])
    return new


def _cost_to_go(reward: float, heuristic: Literal["linear", "log"]) -> float:
    return 1 - reward if heuristic == "linear" else -math.log(max(reward, 1e-9))
