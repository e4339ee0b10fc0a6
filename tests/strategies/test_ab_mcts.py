"""AB-MCTS-A: posteriors against closed formulas, choices against their probabilities, and a recount of the tree."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from scipy import stats

from infer.core.generator import Message
from infer.core.problem import Problem
from infer.core.search import Search, Setting
from infer.core.tree import Node
from infer.core.verifier import Scores
from infer.errors import BudgetSpent
from infer.strategies.ab_mcts import ABMCTSOptions, Answer, ab_mcts, back_up, grow, select
from infer.strategies.parts.posteriors import Beta, Gaussian, Posterior
from infer.testing import toy

SCORES = np.random.default_rng(1).uniform(size=(5, 12))


@pytest.mark.parametrize("scores", [row[: 1 + 2 * i] for i, row in enumerate(SCORES)])
def test_posteriors_have_their_closed_form(scores: np.ndarray) -> None:
    """The formulas take all observations at once (Murphy, Probabilistic Machine Learning: Advanced Topics, 3.4.3.3)."""
    beta, gaussian = Beta(), Gaussian()
    for score in scores:
        beta.observe(score)
        gaussian.observe(score)
    n, mean = len(scores), scores.mean()
    assert (beta.a, beta.b) == pytest.approx((0.5 + scores.sum(), 0.5 + n - scores.sum()))
    assert (gaussian.kappa, gaussian.nu) == (1 + n, 1 + n)
    assert gaussian.m == pytest.approx(n * mean / (1 + n))
    squares = 0.1 + ((scores - mean) ** 2).sum() + n / (1 + n) * mean**2
    assert gaussian.tau2 == pytest.approx(squares / (1 + n))


def mean_distribution(posterior: Posterior) -> Any:
    """The distribution of the mean under a posterior. For a Gaussian with unknown variance it is Student's t."""
    if isinstance(posterior, Beta):
        return stats.beta(posterior.a, posterior.b)
    assert isinstance(posterior, Gaussian)
    return stats.t(posterior.nu, posterior.m, (posterior.tau2 / posterior.kappa) ** 0.5)


@pytest.mark.parametrize("kind", [Beta, Gaussian])
def test_draws_come_from_the_posterior(kind: type[Beta] | type[Gaussian]) -> None:
    """A Kolmogorov-Smirnov test on a fixed seed; a right sampler fails it with probability 1e-3."""
    posterior, rng = kind(), np.random.default_rng(0)
    for score in SCORES[0][:4]:
        posterior.observe(score)
    draws = [posterior.draw(rng) for _ in range(4000)]
    assert stats.kstest(draws, mean_distribution(posterior).cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", [Beta, Gaussian])
async def test_choices_have_the_probabilities_of_thompson_sampling(kind: type[Beta] | type[Gaussian]) -> None:
    """P(GEN) and each child's share come from integration. Each count is within 4 standard errors.

    A right sampler exceeds that with probability 6e-5.
    """
    search = await toy.search(toy.setting())
    root = answer(None, None, kind)
    root.conversation = search.root
    nodes = await search.sample(search.root, 3, until="end")
    await search.score(nodes)
    children = [answer(node, root, kind) for node in nodes]
    for child, scores in zip(children, SCORES, strict=False):
        back_up(root, child, scores[0])
        for score in scores[1:4]:
            back_up(child, answer(nodes[0], child, kind), score)
        child.children.clear()  # leaves again, so that the walk ends at them; their posteriors stay
    gen, cont, *own = (mean_distribution(p) for p in (root.gen, root.cont, *(child.own for child in children)))
    p_gen = gen.expect(cont.cdf)
    largest = [
        a.expect(lambda x, b=b, c=c: b.cdf(x) * c.cdf(x)) for a, b, c in (own, own[1:] + own[:1], own[2:] + own[:2])
    ]
    assert sum(largest) == pytest.approx(1, abs=1e-3)

    tries, chosen = 4000, [await select(search, root) for _ in range(4000)]
    for target, p in zip([root, *children], [p_gen, *((1 - p_gen) * p for p in largest)], strict=True):
        assert 0.01 < p < 0.99
        assert chosen.count(target) / tries == pytest.approx(p, abs=4 * (p * (1 - p) / tries) ** 0.5)


def answer(node: Node | None, parent: Answer | None, kind: type[Beta] | type[Gaussian]) -> Answer:
    return Answer(node, parent, own=kind(), gen=kind(), cont=kind())


def descendants(answer: Answer) -> Iterator[Answer]:
    for child in answer.children:
        yield child
        yield from descendants(child)


async def run(setting: Setting, options: ABMCTSOptions, digits: str = "7") -> tuple[Search, Answer]:
    search = await toy.search(setting, digits)
    root = answer(None, None, Gaussian if options.posterior == "gaussian" else Beta)
    root.conversation = search.root
    with suppress(BudgetSpent):
        await grow(search, root, [], options)
    return search, root


@pytest.mark.parametrize("posterior", ["beta", "gaussian"])
async def test_scores_reach_the_posteriors_that_they_concern(posterior: Any) -> None:
    """GEN observes the children's scores, CONT those of all nodes below the children.

    A node's own posterior observes its score and those of all nodes below it.
    """
    depths = set()
    for digits in map(str, range(10)):
        search, root = await run(toy.setting(), ABMCTSOptions(n=25, posterior=posterior), digits)
        assert len(list(descendants(root))) == 25
        for node in [root, *descendants(root)]:
            below, children = [score(search, a) for a in descendants(node)], [score(search, a) for a in node.children]
            expected = {
                "gen": children,
                "cont": [score(search, a) for child in node.children for a in descendants(child)],
            }
            if node.node is not None:
                expected["own"] = [score(search, node), *below]
            for name, scores in expected.items():
                fresh = Gaussian() if posterior == "gaussian" else Beta()
                for value in scores:
                    fresh.observe(value)
                assert parameters(getattr(node, name)) == pytest.approx(parameters(fresh))
            depths.add(depth(node))
    assert max(depths) >= 3, "it went deeper, not only wider"


def score(search: Search, answer: Answer) -> float:
    node = answer.node
    assert node is not None
    return toy.reward(node.completion) if node.finished and node.completion.strip() else 0.0


def parameters(posterior: Beta | Gaussian) -> list[float]:
    return [getattr(posterior, name) for name in posterior.__slots__]


def depth(answer: Answer) -> int:
    return 0 if answer.parent is None else 1 + depth(answer.parent)


async def test_an_answer_is_refined_in_a_conversation_about_it() -> None:
    setting = toy.setting(verifier=toy.ToyVerifier("mean"))
    generator: Any = setting.generator
    chats: list[Sequence[Message]] = []
    encode = generator.encode

    async def listening(messages: Sequence[Message]) -> list[int]:
        chats.append(messages)
        return await encode(messages)

    generator.encode = listening
    search, root = await run(setting, ABMCTSOptions(n=30))
    assert [message["content"] for message in chats[0]] == ["7"]
    refined = [node for node in descendants(root) if node.children]
    assert len(refined) >= 2
    for answer in refined:
        assert answer.node is not None
        worst = min(answer.node.step_scores)
        step = list(filter(None, answer.node.completion.split("\n\n")))[answer.node.step_scores.index(worst)]
        (chat,) = [chat for chat in chats if len(chat) == 3 and chat[1]["content"] == answer.node.completion][:1]
        assert [message["role"] for message in chat] == ["user", "assistant", "user"]
        assert f"{search.value(answer.node):.2f} of 1" in chat[2]["content"]
        assert f"with {worst:.2f}, is:\n\n{step}\n\n" in chat[2]["content"]
        for child in answer.children:
            assert child.node is not None
            assert child.node.root.tokens == await encode(chat)


async def test_an_outcome_reward_model_names_no_weakest_step() -> None:
    class Outcome(toy.ToyVerifier):
        stepwise = False

        async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
            return await super().score(problem, ["".join(steps)], 0, finished)

    setting = toy.setting(verifier=Outcome())
    generator: Any = setting.generator
    asked: list[str] = []
    encode = generator.encode

    async def listening(messages: Sequence[Message]) -> list[int]:
        asked.append(messages[-1]["content"])
        return await encode(messages)

    generator.encode = listening
    await run(setting, ABMCTSOptions(n=20))
    assert len(asked) > 3
    assert all("of 1." in text and "step" not in text for text in asked[1:])


async def test_the_best_answer_is_chosen() -> None:
    for digits in map(str, range(20)):
        solution = await ab_mcts(await toy.search(toy.setting(), digits), ABMCTSOptions(n=8))
        assert len(solution.candidates) == 8
        assert solution.chosen is not None
        best = max(c.scores[-1] for c in solution.candidates if c.finished and c.scores)
        chosen = solution.candidates[solution.chosen]
        assert chosen.scores is not None
        assert chosen.scores[-1] == best


async def test_where_no_conversation_fits_the_context_answers_are_generated_side_by_side() -> None:
    setting = toy.setting(generator=toy.ToyGenerator(max_context=8))
    _, root = await run(setting, ABMCTSOptions(n=20))
    assert len(root.children) > 10
    assert len(list(descendants(root))) == 20


async def test_the_tree_does_not_depend_on_timing() -> None:
    for budget in (None, "300tok", "15prm"):
        trees = set()
        for seed in range(5):
            setting = toy.setting(budget, generator=toy.ToyGenerator(seed=seed))
            search, root = await run(setting, ABMCTSOptions(n=20, parallel=4))
            addresses = tuple(a.node.address for a in descendants(root) if a.node is not None)
            trees.add((addresses, search.ledger.usage))
        assert len(trees) == 1
