"""Monte Carlo tree search over reasoning steps (UCT: Kocsis & Szepesvari 2006; PUCT: Silver et al. 2017).

    repeat   select    s <- root; while s has had its share of samples, s <- the child s' with the largest
                           Q(s') + c sqrt(log N(s) / N(s'))                  formula = uct
                           Q(s') + c P(s' | s) sqrt(N(s)) / (1 + N(s'))      formula = puct
             expand    sample a next step of s; its share is k N(s)^alpha samples
                       (progressive widening, Coulom 2007; alpha = 0: exactly k), k = `width`
             evaluate  v <- the PRM's score of a solution finished from there, or of the path so far, or the solution's
                       share of the votes
             back up   N <- N + 1, W <- W + v from the new node to the root; Q = W / N

Several simulations are in flight, and are backed up in the order of their launch: the tree does not depend on timing.
Equal steps after the same node are one child; to sample it again is one more visit of it. When nothing is left to
sample within the shares, k doubles; the search ends where doubling found nothing new. See `parts/uct.py`.
"""

import math
from functools import partial
from typing import Literal

from pydantic import Field

from infer.core.choice import Choice, tally
from infer.core.options import MOST, Count, ScoredOptions
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Node
from infer.strategies.parts.simulate import simulate
from infer.strategies.parts.uct import State, Tree, likelihood, puct, twin, uct

WITHOUT_BUDGET = 64
"""Simulations where neither `simulations` nor a budget says how many."""


class MCTSOptions(ScoredOptions):
    simulations: Count | None = Field(
        None, ge=1, description="simulations; by default as many as the budget allows (64 without one)"
    )
    formula: Literal["uct", "puct"] = Field("uct", description="how the next child is selected")
    c: float = Field(0.5, ge=0, le=1e6, description="weight of exploration")
    prior: Literal["logprob", "uniform"] = Field(
        "logprob", description="P of puct: softmax over siblings of a step's mean token log-probability, or uniform"
    )
    values: Literal["rollout", "prm", "vote"] = Field(
        "rollout",
        description="value of a new step: PRM score of a solution finished from it, PRM score of the path up to it, "
        "or the share of all such solutions with the same answer (needs no PRM)",
    )
    greedy_rollouts: bool = Field(False, description="finish solutions greedily instead of sampling")
    width: Count = Field(1, ge=1, description="k: a node visited N times gets k N^alpha next steps")
    alpha: float = Field(0.5, ge=0, lt=1, description="how progressively it widens; 0: k next steps for each node")
    parallel: Count = Field(
        4,
        ge=1,
        description="simulations in flight, as long as the budget covers all; one where it is of flops, eflops, "
        "dollars or (with rollouts) passes, as what a simulation costs is not known before",
    )
    virtual_loss: float = Field(
        1.0, ge=0, le=1e6, description="visits of value 0 that a simulation in flight counts for"
    )
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

    @property
    def scores_steps(self) -> bool:
        return self.values == "prm"


class Found:
    """Finished solutions, each with the state that it was found from, and with its share of the votes if they count."""

    def __init__(self) -> None:
        self.solutions: list[tuple[Node, State]] = []
        self.votes: list[float] = []

    async def add(self, search: Search, leaf: Node, state: State, *, vote: bool) -> None:
        """Adds a solution. With `vote` its value, and that of all others, becomes the share of those that agree."""
        self.solutions.append((leaf, state))
        if not vote:
            return
        groups = await search.group([node for node, _ in self.solutions])
        counts = tally(groups, [1.0] * len(groups))
        shares = [counts.get(group, 0.0) / len(groups) for group in groups]
        for (_, found_from), old, new in zip(self.solutions, [*self.votes, 0.0], shares, strict=True):
            for above in found_from.path:
                above.total += new - old
        self.votes = shares


async def mcts(search: Search, options: MCTSOptions) -> Solution:
    """Monte Carlo tree search over steps by UCT or PUCT; values from the PRM, from rollouts or from their votes."""
    _, found = await grow(search, options)
    solutions = [node for node, _ in found.solutions]
    how: Choice = "majority" if options.values == "vote" else "weighted"
    if options.choose == "visits":
        visits = [[(above.visits, above.total) for above in state.path[::-1]] for _, state in found.solutions]
        solutions = [node for node, path in zip(solutions, visits, strict=True) if path == max(visits)]
    elif options.choose is not None:
        how = options.choose
    return search.solution(await search.choose(solutions, how))


async def grow(search: Search, options: MCTSOptions) -> tuple[Tree, Found]:
    """Simulates until all simulations are done, or nothing is left to sample, or to spend."""
    bound = partial(uct, c=options.c, virtual_loss=options.virtual_loss)
    if options.formula == "puct":
        prior = likelihood if options.prior == "logprob" else lambda state: 1.0
        bound = partial(puct, c=options.c, virtual_loss=options.virtual_loss, prior=prior)
    tree, found = Tree(search.root, options.width, options.alpha, bound), Found()

    async def select(idle: bool) -> State | None:
        state = tree.select()
        while state is None and idle and tree.widen():
            state = tree.select()
        if state is not None:
            tree.launch(state)
        return state

    async def back_up(parent: State, sampled: list[Node]) -> None:
        tree.land(parent)
        child, leaf = sampled[0], sampled[-1]
        value, state = _value(search, leaf, options), twin(child, parent.children)
        if state is None:
            state = tree.add(parent, child, value)
        else:  # an equal step was sampled before
            search.share_scores(child, state.node)
            search.prune([child])
        tree.visit(state, state.value if leaf is child else value)
        if leaf.finished:
            await found.add(search, leaf, state, vote=options.values == "vote")

    step = options.values == "prm"  # else a step and the rollout after it, which are one solution
    await simulate(
        search,
        select,
        lambda state: _expand(search, state, list(state.children), options),
        back_up,
        width=options.parallel,
        limit=options.simulations or (MOST if search.bounded else WITHOUT_BUDGET),
        tokens=search.limit(search.root, "step" if step else "end"),
        passes=1.0 if step else math.inf,
    )
    return tree, found


async def _expand(search: Search, state: State, known: list[State], options: MCTSOptions) -> list[Node]:
    """A next step of the state, and the rollout from there if there is one; scored unless a known step equals it."""
    sampled = await search.sample(state.node)
    (child,) = sampled
    if options.values != "prm" and not child.final:
        sampled += await search.sample(child, until="end", temperature=0.0 if options.greedy_rollouts else None)
    leaf = sampled[-1]
    repeated = leaf is child and twin(child, known) is not None
    if options.needs_verifier and not _dead(leaf) and not repeated:
        await search.score([leaf])
    return sampled


def _value(search: Search, leaf: Node, options: MCTSOptions) -> float:
    """The value of a simulation's end; 0 for one that ran out of room, and for votes, which are not counted yet."""
    return 0.0 if options.values == "vote" or _dead(leaf) else search.value(leaf) or 0.0


def _dead(leaf: Node) -> bool:
    """Whether it ran out of room."""
    return leaf.full and not leaf.finished
