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

Equal steps behind the same node are one child, and to sample it again is one more visit of it. What is finished is not
selected again, since its value would not change, nor is a node that has had its share above children that are all
finished so: every simulation samples. When nothing is left within the shares, k doubles, until that shows nothing new.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from infer.core.options import Options
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Aggregation, Node
from infer.strategies.parts.choose import Choice, choose, tally
from infer.strategies.parts.choose import value as prm_value
from infer.strategies.parts.in_order import InOrder

WITHOUT_BUDGET = 64
"""Simulations where neither `simulations` nor a budget says how many."""


class MCTSOptions(Options):
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
        description="the answer: best PRM score (prm), a vote (weighted, majority), the likeliest (logprob), or what "
        "lies at the end of the path of most visits; default: weighted, majority where values = vote",
    )
    aggregation: Aggregation | None = Field(None, description="of a path's step scores; default: the verifier's own")

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
    """Next steps asked for, equal ones included."""
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
    """What the simulations that were backed up have built."""

    root: State
    width: int
    """k as it stands."""
    new: int = 0
    """States since k was last changed."""
    solutions: list[tuple[Node, State]] = field(default_factory=list)
    """Finished solutions, each with the state that it was found from."""
    votes: list[float] = field(default_factory=list)
    """With values = vote, the value of each solution as it stands in the states' totals."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """A next step sampled behind a state, and the end of the rollout from there (without one, the step itself)."""

    state: State
    child: Node
    leaf: Node


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
    return search.solution(await choose(search, solutions, how, options.aggregation))


async def grow(search: Search, tree: Tree, options: MCTSOptions) -> None:
    """Simulates until all simulations are done, or nothing is left to sample, or to spend."""
    limit = options.simulations or (WITHOUT_BUDGET if search.setting.budget is None else math.inf)
    launched = 0
    # a step and the rollout behind it are one solution
    tokens, passes = search.room(search.root), math.inf
    if options.values == "prm":
        tokens, passes = min(tokens, search.setting.step_tokens), 1.0
    async with InOrder[Simulation](search, options.parallel, tokens=tokens, passes=passes) as flying:
        while True:
            while launched < limit and flying.has_room:
                state = select(tree, options)
                if state is None:
                    if flying or not _widen(tree):
                        break
                    continue
                launched += 1
                state.samples += 1
                state.pending += 1
                for above in state.path:
                    above.in_flight += 1
                flying.launch(_simulate(search, state, list(state.children), options))
            if not flying:
                return
            simulation = await flying.oldest()
            if simulation is None:
                continue
            simulation.state.pending -= 1
            for above in simulation.state.path:
                above.in_flight -= 1
            for node in {simulation.child, simulation.leaf}:
                flying.charge(node)
            await _back_up(search, tree, simulation, options)


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


async def _simulate(search: Search, state: State, known: list[State], options: MCTSOptions) -> Simulation:
    (child,) = await search.sample(state.node, logprobs=options.needs_logprobs)
    leaf = child
    if options.values != "prm" and not child.final:
        temperature = 0.0 if options.greedy_rollouts else None
        (leaf,) = await search.sample(child, until="end", temperature=temperature, logprobs=options.needs_logprobs)
    if options.needs_verifier and not _dead(leaf) and not (leaf is child and _twin(child, known)):
        unscored = [node for node in leaf.trajectory if node.scores is None]
        if search.setting.verifier is not None and not search.setting.verifier.stepwise:
            for node in unscored[:-1]:
                node.scores = []  # the leaf's score is that of the whole
            unscored = [leaf]
        await search.score(unscored)
    return Simulation(state, child, leaf)


async def _back_up(search: Search, tree: Tree, simulation: Simulation, options: MCTSOptions) -> None:
    """Enters a simulation into the tree: its step, if it is new there, and its value."""
    parent, child, leaf = simulation.state, simulation.child, simulation.leaf
    state = _twin(child, parent.children)
    if state is not None:
        if child.scores is None:
            child.scores, child.scored_from = state.node.scores, state.node.scored_from
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
    if options.values == "vote" or _dead(leaf):
        return 0.0
    return prm_value(search, leaf, options.aggregation) or 0.0


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
