"""The tree of Monte Carlo tree search: visits and values, upper confidence bounds, progressive widening.

    uct    Q(s') + c sqrt(log N(s) / N(s'))                  Kocsis and Szepesvari 2006
    puct   Q(s') + c P(s' | s) sqrt(N(s)) / (1 + N(s'))      Silver et al. 2017

Simulations in flight count as `virtual_loss` visits of value 0 each (Chaslot et al. 2008). A state visited N times may
have k N^alpha samples, its share (Coulom 2007). A finished state is closed. Any other is closed once its share is used
and all its children are closed, so a selection always finds one to sample from, or says that there is none.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from infer.core.tree import Node


@dataclass(eq=False, slots=True)
class State:
    """A node of the tree with its statistics: N `visits`, W `total`, and simulations `in_flight` through it."""

    node: Node
    parent: "State | None"
    value: float = 0.0
    visits: int = 0
    total: float = 0.0
    in_flight: int = 0
    samples: int = 0
    """Next steps requested, equal ones included."""
    pending: int = 0
    """Of those, the ones not backed up yet."""
    children: "list[State]" = field(default_factory=list)
    closed: bool = False
    """Nothing is left to sample here or below, within the shares."""

    @property
    def path(self) -> "list[State]":
        """From this state to the root."""
        path = [self]
        while (parent := path[-1].parent) is not None:
            path.append(parent)
        return path


class Tree:
    """States under their shares; `bound` ranks the children of a state."""

    def __init__(self, root: Node, width: int, alpha: float, bound: Callable[[State], float]) -> None:
        self.root = State(root, None)
        self._width = width  # k as it stands
        self._alpha = alpha
        self._bound = bound
        self._new = 0  # states since k was last changed

    def select(self) -> State | None:
        """The state that the next simulation expands; None where all that could be is closed or in flight."""
        stack = [self.root]
        while stack:
            state = stack.pop()
            if state.samples < self._share(state):
                return state
            # the best child last, to be next; the others serve where everything below it is in flight
            stack += sorted((child for child in state.children[::-1] if not child.closed), key=self._bound)
        return None

    def widen(self) -> bool:
        """Doubles the shares, unless the last time brought no new state."""
        if not self._new:
            return False
        self._width, self._new = 2 * self._width, 0
        stack = [self.root]
        while stack:
            state = stack.pop()
            state.closed = state.node.final
            stack += state.children
        return True

    def launch(self, state: State) -> None:
        """A simulation from this state is in flight."""
        state.samples += 1
        state.pending += 1
        for above in state.path:
            above.in_flight += 1

    def land(self, state: State) -> None:
        """A simulation from this state has ended."""
        state.pending -= 1
        for above in state.path:
            above.in_flight -= 1

    def add(self, parent: State, node: Node, value: float) -> State:
        """A new child."""
        state = State(node, parent, value=value, closed=node.final)
        parent.children.append(state)
        self._new += 1
        return state

    def visit(self, state: State, value: float) -> None:
        """Adds one visit of this value from a state up to the root, and closes what has nothing left to sample."""
        for above in state.path:
            above.visits += 1
            above.total += value
        for above in state.path[1:]:
            had_share = not above.pending and above.samples >= self._share(above)
            above.closed = had_share and all(child.closed for child in above.children)

    def _share(self, state: State) -> float:
        """How many next steps a state may have sampled."""
        return float(self._width * max(1, state.visits + state.in_flight) ** self._alpha)


def uct(state: State, c: float, virtual_loss: float) -> float:
    """The upper confidence bound of a child, simulations in flight counted as losses."""
    visits, above = _visits(state, virtual_loss)
    return state.total / visits + c * math.sqrt(math.log(above) / visits)


def puct(state: State, c: float, virtual_loss: float, prior: Callable[[State], float]) -> float:
    """The same with a prior, normalized over the siblings that were sampled so far."""
    assert state.parent is not None
    visits, above = _visits(state, virtual_loss)
    share = prior(state) / math.fsum(map(prior, state.parent.children))
    return state.total / visits + c * share * math.sqrt(above) / (1 + visits)


def twin(node: Node, siblings: Sequence[State]) -> State | None:
    """The first sibling of equal text, if there is one."""
    return next((s for s in siblings if (s.node.text, s.node.finish) == (node.text, node.finish)), None)


def likelihood(state: State) -> float:
    """The geometric mean of the step's token probabilities: in (0, 1] however long the step."""
    logprobs = state.node.logprobs
    return math.exp(math.fsum(logprobs) / len(logprobs)) if logprobs else 1.0


def _visits(state: State, virtual_loss: float) -> tuple[float, float]:
    assert state.parent is not None
    return state.visits + virtual_loss * state.in_flight, state.parent.visits + virtual_loss * state.parent.in_flight
