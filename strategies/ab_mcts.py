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

Posteriors are Beta or Gaussian, see `parts/posteriors.py`.
"""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from infer.core.generator import Message
from infer.core.options import MOST, Count, ScoredOptions
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Node
from infer.strategies.parts.posteriors import Beta, Gaussian, Posterior
from infer.strategies.parts.simulate import simulate

WITHOUT_BUDGET = 16
"""Answers where neither `n` nor a budget says how many."""

SCORE = "A verifier gave this solution {score:.2f} of 1."
WEAKEST = "Its weakest step, with {score:.2f}, is:\n\n{step}"
REFINE = "Find what is wrong and write the whole solution again. Keep to the format asked for at first."


class ABMCTSOptions(ScoredOptions):
    n: Count | None = Field(None, ge=1, description="answers; by default as many as the budget allows (16 without one)")
    posterior: Literal["gaussian", "beta"] = Field("gaussian", description="model of the scores")
    parallel: Count = Field(
        4,
        ge=1,
        description="answers in flight, as long as the budget covers all; one where it is of passes, flops, eflops or "
        "dollars, as what an answer costs is not known before",
    )


@dataclass(eq=False, slots=True)
class Answer:
    """A node of the tree: an answer, or the root (no node). `own` is what its parent believes of it."""

    node: Node | None
    parent: "Answer | None"
    own: Posterior
    gen: Posterior
    cont: Posterior
    conversation: Node | None = None
    """The conversation in which it is refined; for the root, in which answers are generated."""
    children: "list[Answer]" = field(default_factory=list)


async def ab_mcts(search: Search, options: ABMCTSOptions) -> Solution:
    """Adaptive branching MCTS: Thompson sampling decides between new answers and refining those there are."""
    root = _answer(None, None, options)
    root.conversation = search.root
    answers: list[Node] = []
    await grow(search, root, answers, options)
    return search.solution(await search.choose(answers, "prm"))


async def grow(search: Search, root: Answer, answers: list[Node], options: ABMCTSOptions) -> None:
    """Appends to `answers` until all `n` are there, or nothing is left to spend."""

    async def expand(parent: Answer) -> list[Node]:
        assert parent.conversation is not None
        generated = await search.sample(parent.conversation, until="end")
        await search.score(generated)
        return generated

    async def enter(parent: Answer, generated: list[Node]) -> None:
        (node,) = generated
        answers.append(node)
        # nothing for an answer that was cut off, is empty, or too long for the verifier
        back_up(parent, _answer(node, parent, options), (node.finished and search.value(node)) or 0.0)

    await simulate(
        search,
        lambda _: select(search, root),
        expand,
        enter,
        width=options.parallel,
        limit=options.n or (MOST if search.bounded else WITHOUT_BUDGET),
        tokens=search.room(search.root),
    )


async def select(search: Search, root: Answer) -> Answer:
    """The node to generate the next answer from: the root, or an answer to refine."""
    answer = root
    while answer.children and answer.gen.draw(search.rng) < answer.cont.draw(search.rng):
        draws = [child.own.draw(search.rng) for child in answer.children]
        answer = answer.children[draws.index(max(draws))]
    if answer.conversation is None and answer.node is not None and search.value(answer.node) is not None:
        answer.conversation = await search.chat(_refine(search, answer.node), answers=True)
    # an answer that is empty, or too long for a model, gets a sibling instead
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


def _refine(search: Search, node: Node) -> list[Message]:
    """The conversation that asks for a better answer than this one."""
    feedback = [SCORE.format(score=search.value(node)), REFINE]
    if scored := search.scored_steps(node):
        step, score = min(scored, key=lambda scored: scored[1])
        feedback.insert(1, WEAKEST.format(score=score, step=step.strip()))
    return [
        *search.messages,
        {"role": "assistant", "content": node.completion},
        {"role": "user", "content": "\n\n".join(feedback)},
    ]
