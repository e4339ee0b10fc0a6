"""Monte Carlo tree search over reasoning steps (UCT: Kocsis & Szepesvari 2006; PUCT: Silver et al. 2017).

    repeat   select    s <- root; while s has had its share of samples, s <- the child s' with the largest
                           Q(s') + c sqrt(log N(s) / N(s'))                  formula = uct
                           Q(s') + c P(s' | s) sqrt(N(s)) / (1 + N(s'))      formula = puct
             expand    sample a next step of s; its share is k N(s)^alpha samples
                       (progressive widening, Coulom 2007; alpha = 0: exactly k), k = `width`
             evaluate  v <- the PRM's score of a solution finished from there, or of the path so far, or the solution's
                       share of the votes
             back up   N <- N + 1, W <- W + v from the new node to the root; Q = W / N

Several simulations are in flight: one counts as `virtual_loss` visits of value 0 until it is backed up (Chaslot et al.
2008). They are backed up in the order of their launch, whichever returns first, so the tree does not depend on timing.

Equal steps after the same node are one child; to sample it again is one more visit of it. A finished step is closed.
Any other node is closed once its share is used and all its children are closed, so every simulation samples. When the
root closes, k doubles; the search ends where doubling found nothing new.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from infer.core.choice import Choice, tally
from infer.core.options import ScoredOptions
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Node
from infer.strategies.parts.simulate import simulate

WITHOUT_BUDGET = 64
"""Simulations where neither `simulations` nor a budget says how many."""


class MCTSOptions(ScoredOptions):
    simulations: int | None = Field(
        None, ge=1, description="simulations; by default as many as the budget allows (64 without one)"
    )
    formula: Literal["uct", "puct"] = Field("uct", description="how the next child is selected")
    c: float = Field(0.5, ge=0, description="weight of exploration")
    prior: Literal["logprob", "uniform"] = Field(
        "logprob", description="P of puct: softmax over siblings of a step's mean token log-probability, or uniform"
    )
    values: Literal["rollout", "prm", "vote"] = Field(
        "rollout",
        description="value of a new step: PRM score of a solution finished from it, PRM score of the path up to it, "
        "or the share of all such solutions with the same answer (needs no PRM)",
    )
    greedy_rollouts: bool = Field(False, description="finish solutions greedily instead of sampling")
    width: int = Field(1, ge=1, description="k: a node visited N times gets k N^alpha next steps")
    alpha: float = Field(0.5, ge=0, lt=1, description="how progressively it widens; 0: k next steps for each node")
    parallel: int = Field(
        4,
        ge=1,
        description="simulations in flight, as long as the budget covers all; one where it is of flops, eflops, "
        "dollars or (with rollouts) passes, as what a simulation costs is not known before",
    )
    virtual_loss: float = Field(1.0, ge=0, description="visits of value 0 that a simulation in flight counts for")
    choose: Choice | Literal["visits"] | None = Field(
        None,
        description="the answer: best PRM score (prm), a vote (weighted, majority), the likeliest (logprob), or the "
        "solution at the end of the path of most visits; default: weighted, majority where values = vote",
    )

    @property
    def needs_verifier(self) -> bool:
        return self.values != "vote" or self.choose in ("prm", "weighted")

    @property
    def needs_logprobs(self) -> bool:
        return (self.formula == "puct" and self.prior == "logprob") or self.choose == "logprob"


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


@dataclass(eq=False, slots=True)
class Tree:
    """The tree that the simulations backed up so far have built."""

    root: State
    width: int
    """k as it stands."""
    new: int = 0
    """States since k was last changed."""
    solutions: list[tuple[Node, State]] = field(default_factory=list)
    """Finished solutions, each with the state that it was found from."""
    votes: list[float] = field(default_factory=list)
    """With values = vote, the value of each solution as it stands in the states' totals."""


async def mcts(search: Search, options: MCTSOptions) -> Solution:
    """Monte Carlo tree search over steps by UCT or PUCT; values from the PRM, from rollouts or from their votes."""
    tree = Tree(State(search.root, None), options.width)
    await grow(search, tree, options)
    solutions = [node for node, _ in tree.solutions]
    how: Choice = "majority" if options.values == "vote" else "weighted"
    if options.choose == "visits":
        visits = [[(above.visits, above.total) for above in state.path[::-1]] for _, state in tree.solutions]
        solutions = [node for node, path in zip(solutions, visits, strict=True) if path == max(visits)]
    elif options.choose is not None:
        how = options.choose
    return search.solution(await search.choose(solutions, how))


async def grow(search: Search, tree: Tree, options: MCTSOptions) -> None:
    """Simulates until all simulations are done, or nothing is left to sample, or to spend."""

    async def launch(idle: bool) -> State | None:
        while (state := select(tree, options)) is None:
            if not idle or not _widen(tree):
                return None
        state.samples += 1
        state.pending += 1
        for above in state.path:
            above.in_flight += 1
        return state

    async def land(state: State, sampled: list[Node]) -> None:
        state.pending -= 1
        for above in state.path:
            above.in_flight -= 1
        await _back_up(search, tree, state, sampled[0], sampled[-1], options)

    a_step = options.values == "prm"  # else a step and the rollout after it, which are one solution
    await simulate(
        search,
        launch,
        lambda state: _expand(search, state, list(state.children), options),
        land,
        width=options.parallel,
        limit=options.simulations or (math.inf if search.bounded else WITHOUT_BUDGET),
        tokens=search.limit(search.root, "step" if a_step else "end"),
        passes=1.0 if a_step else math.inf,
    )


def select(tree: Tree, options: MCTSOptions) -> State | None:
    """The state that the next simulation expands; None where all that could be is closed or in flight."""
    stack = [tree.root]
    while stack:
        state = stack.pop()
        if state.samples < _share(tree, state, options):
            return state
        # the best child last, to be next; the others serve where everything below it is in flight
        stack += sorted((child for child in state.children[::-1] if not child.closed), key=lambda s: _bound(s, options))
    return None


def _share(tree: Tree, state: State, options: MCTSOptions) -> float:
    """How many next steps a state may have sampled."""
    return float(tree.width * max(1, state.visits + state.in_flight) ** options.alpha)


def _widen(tree: Tree) -> bool:
    """Doubles the shares, unless the last time brought no new state."""
    if not tree.new:
        return False
    tree.width, tree.new = 2 * tree.width, 0
    stack = [tree.root]
    while stack:
        state = stack.pop()
        state.closed = state.node.final
        stack += state.children
    return True


def _bound(state: State, options: MCTSOptions) -> float:
    """The child's upper confidence bound, simulations in flight counted as losses."""
    assert state.parent is not None
    visits, above = (s.visits + options.virtual_loss * s.in_flight for s in (state, state.parent))
    q = state.total / visits
    if options.formula == "uct":
        return q + options.c * math.sqrt(math.log(above) / visits)
    return q + options.c * _prior(state, options) * math.sqrt(above) / (1 + visits)


def _prior(state: State, options: MCTSOptions) -> float:
    """P(s' | s), normalized over the siblings that were sampled so far."""
    assert state.parent is not None
    siblings = state.parent.children
    if options.prior == "uniform":
        return 1 / len(siblings)
    return _likelihood(state.node) / math.fsum(_likelihood(sibling.node) for sibling in siblings)


def _likelihood(node: Node) -> float:
    """The geometric mean of the step's token probabilities: in (0, 1] however long the step."""
    return math.exp(math.fsum(node.logprobs) / len(node.logprobs)) if node.logprobs else 1.0


async def _expand(search: Search, state: State, known: list[State], options: MCTSOptions) -> list[Node]:
    """A next step of the state, and the rollout from there if there is one; scored."""
    sampled = await search.sample(state.node)
    (child,) = sampled
    if options.values != "prm" and not child.final:
        sampled += await search.sample(child, until="end", temperature=0.0 if options.greedy_rollouts else None)
    leaf = sampled[-1]
    if options.needs_verifier and not _dead(leaf) and not (leaf is child and _twin(child, known)):
        await search.score([leaf])
    return sampled


async def _back_up(search: Search, tree: Tree, parent: State, child: Node, leaf: Node, options: MCTSOptions) -> None:
    """Enters a simulation into the tree: its step, if it is new there, and its value."""
    state = _twin(child, parent.children)
    if state is not None:
        search.share_scores(child, state.node)
        search.prune([child])
    else:
        state = State(child, parent, value=_value(search, leaf, options), closed=child.final)
        parent.children.append(state)
        tree.new += 1
    value = state.value if leaf is child else _value(search, leaf, options)
    for above in state.path:
        above.visits += 1
        above.total += value
    for above in parent.path:
        had_share = not above.pending and above.samples >= _share(tree, above, options)
        above.closed = had_share and all(child.closed for child in above.children)
    if leaf.finished:
        tree.solutions.append((leaf, state))
        if options.values == "vote":
            await _count_votes(search, tree)


def _twin(node: Node, states: list[State]) -> State | None:
    """The state of an equal step."""
    return next((state for state in states if (state.node.text, state.node.finish) == (node.text, node.finish)), None)


def _value(search: Search, leaf: Node, options: MCTSOptions) -> float:
    """The value of a simulation's end; 0 for one that ran out of room, and for votes, which are not counted yet."""
    return 0.0 if options.values == "vote" or _dead(leaf) else search.value(leaf) or 0.0


def _dead(leaf: Node) -> bool:
    return leaf.full and not leaf.finished


async def _count_votes(search: Search, tree: Tree) -> None:
    """Makes the value of every solution the share of all solutions that give its answer."""
    groups = await search.group([node for node, _ in tree.solutions])
    votes = tally(groups, [1.0] * len(groups))
    shares = [votes.get(group, 0.0) / len(groups) for group in groups]
    for (_, state), old, new in zip(tree.solutions, [*tree.votes, 0.0], shares, strict=True):
        for above in state.path:
            above.total += new - old
    tree.votes = shares
