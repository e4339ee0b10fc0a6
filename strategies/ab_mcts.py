"""AB-MCTS-A (Inoue et al. 2503.04412): wider or deeper, decided at each node by Thompson sampling.

    repeat   n <- root
             while n has children:
                 draw g from n's GEN posterior and c from its CONT posterior
                 if g >= c: break
                 n <- the child of n whose own posterior gives the largest draw
             n' <- a new answer (n is the root), or n's answer refined;  r <- score(n')
             observe r at GEN of n and at n' itself, and for n and each node m above it but the root, at m itself
             and at CONT of m's parent
    return   the answer with the best score

A node is a whole answer. CONT stands for all children of a node at once (node aggregation, the A in the name).
Refining is a conversation: the problem, the answer, and as feedback its score and its weakest step by the verifier.
AB-MCTS-M, the paper's other variant, fits a mixed model by MCMC at each step and is left out.

Posteriors are conjugate: Beta(1/2, 1/2), to which a score in [0, 1] counts as a fraction of a success; or Gaussian of
unknown mean and variance under a normal-inverse-chi-squared prior, with the parameters of the authors' TreeQuest.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from pydantic import Field

from infer.core.generator import Message
from infer.core.options import Options
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Aggregation, Node, split_steps
from infer.strategies.parts.choose import choose, value
from infer.strategies.parts.in_order import InOrder

WITHOUT_BUDGET = 16
"""Answers where neither `n` nor a budget says how many."""

SCORE = "A verifier gave this solution {score:.2f} of 1."
WEAKEST = "Its weakest step, with {score:.2f}, is:\n\n{step}"
REFINE = "Find what is wrong and write the whole solution again. Keep to the format asked for at first."


class ABMCTSOptions(Options):
    n: int | None = Field(None, ge=1, description="answers; by default as many as the budget allows (16 without one)")
    posterior: Literal["gaussian", "beta"] = Field("gaussian", description="model of the scores")
    parallel: int = Field(
        4,
        ge=1,
        description="answers in flight, as long as the budget covers all; one where it is of passes, flops, eflops or "
        "dollars, as what an answer costs is not known before",
    )
    aggregation: Aggregation | None = Field(None, description="of an answer's step scores; default: the verifier's own")

    @property
    def needs_verifier(self) -> bool:
        return True


class Posterior(Protocol):
    """The belief about an arm's mean score."""

    def observe(self, score: float) -> None: ...

    def draw(self, rng: np.random.Generator) -> float: ...


@dataclass(slots=True)
class Beta:
    """Beta(a, b), at first Jeffreys' prior."""

    a: float = 0.5
    b: float = 0.5

    def observe(self, score: float) -> None:
        self.a += score
        self.b += 1 - score

    def draw(self, rng: np.random.Generator) -> float:
        return float(rng.beta(self.a, self.b))


@dataclass(slots=True)
class Gaussian:
    """Mean and variance: s2 ~ inverse-chi-squared(nu, tau2), mu ~ N(m, s2 / kappa); draws are of mu."""

    m: float = 0.0
    kappa: float = 1.0
    nu: float = 1.0
    tau2: float = 0.1

    def observe(self, score: float) -> None:
        squares = self.nu * self.tau2 + self.kappa / (self.kappa + 1) * (score - self.m) ** 2
        self.m = (self.kappa * self.m + score) / (self.kappa + 1)
        self.kappa += 1
        self.nu += 1
        self.tau2 = squares / self.nu

    def draw(self, rng: np.random.Generator) -> float:
        variance = self.nu * self.tau2 / rng.chisquare(self.nu)
        return float(rng.normal(self.m, math.sqrt(variance / self.kappa)))


@dataclass(eq=False, slots=True)
class Answer:
    """A node of the tree: an answer, or the root (no node). `own` is what its parent believes of it."""

    node: Node | None
    parent: "Answer | None"
    own: Posterior
    gen: Posterior
    cont: Posterior
    conversation: Node | None = None
    """Where it is refined; the root: where answers are generated."""
    children: "list[Answer]" = field(default_factory=list)


async def ab_mcts(search: Search, options: ABMCTSOptions) -> Solution:
    """Adaptive branching MCTS: Thompson sampling decides between new answers and refining those there are."""
    root = _answer(None, None, options)
    root.conversation = search.root
    answers: list[Node] = []
    await grow(search, root, answers, options)
    return search.solution(await choose(search, answers, "prm", options.aggregation))


async def grow(search: Search, root: Answer, answers: list[Node], options: ABMCTSOptions) -> None:
    """Appends to `answers` until all `n` are there, or nothing is left to spend."""
    n = options.n or (WITHOUT_BUDGET if search.setting.budget is None else math.inf)
    async with InOrder[tuple[Answer, Node]](
        search, options.parallel, tokens=search.setting.sampling.max_tokens
    ) as flying:
        while True:
            while len(answers) + len(flying) < n and flying.has_room:
                flying.launch(_generate(search, await select(search, root, options)))
            if not flying:
                return
            generated = await flying.oldest()
            if generated is None:
                continue
            parent, node = generated
            flying.charge(node)
            answers.append(node)
            back_up(parent, _answer(node, parent, options), _score(search, node, options))


async def select(search: Search, root: Answer, options: ABMCTSOptions) -> Answer:
    """Where the next answer is generated: the root, or an answer to refine."""
    answer = root
    while answer.children and answer.gen.draw(search.rng) < answer.cont.draw(search.rng):
        draws = [child.own.draw(search.rng) for child in answer.children]
        answer = answer.children[draws.index(max(draws))]
    if answer.conversation is None and answer.node is not None and value(search, answer.node) is not None:
        answer.conversation = await search.chat(_refine(search, answer.node, options), answers=True)
    # what is empty, or too long for a model, gets a sibling instead
    while answer.conversation is None or answer.conversation.final:
        assert answer.parent is not None
        answer = answer.parent
    return answer


def back_up(parent: Answer, answer: Answer, score: float) -> None:
    """Adds a new answer to the tree and its score to the posteriors on its path."""
    parent.children.append(answer)
    parent.gen.observe(score)
    answer.own.observe(score)
    while parent.parent is not None:
        parent.own.observe(score)
        parent.parent.cont.observe(score)
        parent = parent.parent


def _answer(node: Node | None, parent: Answer | None, options: ABMCTSOptions) -> Answer:
    prior = Gaussian if options.posterior == "gaussian" else Beta
    return Answer(node, parent, own=prior(), gen=prior(), cont=prior())


async def _generate(search: Search, parent: Answer) -> tuple[Answer, Node]:
    assert parent.conversation is not None
    (node,) = await search.sample(parent.conversation, until="end")
    await search.score([node])
    return parent, node


def _score(search: Search, node: Node, options: ABMCTSOptions) -> float:
    """Nothing for an answer that was cut off, is empty, or too long for the verifier."""
    return (node.finished and value(search, node, options.aggregation)) or 0.0


def _refine(search: Search, node: Node, options: ABMCTSOptions) -> list[Message]:
    """The conversation that asks for a better answer than this one."""
    steps, scores = split_steps(node.completion, search.setting.delimiter), node.step_scores
    feedback = [SCORE.format(score=search.value(node, options.aggregation)), REFINE]
    assert search.setting.verifier is not None
    if search.setting.verifier.stepwise:
        score, step = min(zip(scores, steps, strict=True), key=lambda scored: scored[0])
        feedback.insert(1, WEAKEST.format(score=score, step=step.strip()))
    return [
        *search.messages,
        {"role": "assistant", "content": node.completion},
        {"role": "user", "content": "\n\n".join(feedback)},
    ]
