"""Best-of-N by steps, and the knockout tournament in which the generator judges."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from infer.core.generator import Completion, Message, Request
from infer.core.tree import Node
from infer.errors import UserError
from infer.strategies import find
from infer.strategies.parts.tournament import tournament
from infer.testing import toy
from tests.strategies.test_beam import setting, worth
from tests.strategies.test_laws import run


async def test_by_steps_the_best_of_n_next_steps_is_kept() -> None:
    for digits in map(str, range(12)):
        solution = await run(setting(), "best-of-n", ["n=4", "level=step"], digits)
        search = await toy.search(setting(), digits)
        node = search.root
        while not node.final:
            node = max(await search.sample(node, 4), key=lambda step: worth(step.completion))
        assert solution.chosen is not None
        assert solution.candidates[solution.chosen].address == node.address


async def test_by_steps_it_is_a_search_with_one_subtree() -> None:
    for digits in map(str, range(12)):
        steps = await run(setting(), "best-of-n", ["n=4", "level=step"], digits)
        subtree = await run(setting(), "dvts", ["n=4", "width=4"], digits)
        assert steps.candidates == subtree.candidates
        assert steps.usage.generated == subtree.usage.generated


class Judge(toy.ToyGenerator):
    """Answers a comparison in six tokens by `prefer(a, b)`: "A" or "B"; any other text is no verdict."""

    def __init__(self, prefer: Callable[[str, str], str]) -> None:
        super().__init__()
        self.prefer = prefer
        self.asked: list[tuple[str, str]] = []
        self._pairs: dict[tuple[int, ...], tuple[str, str]] = {}

    async def encode(self, messages: Sequence[Message]) -> list[int]:
        text = messages[-1]["content"]
        if "Solution A:\n" not in text:
            return await super().encode(messages)
        a, b = text.split("Solution A:\n")[1].split("\n\nCheck both")[0].split("\n\nSolution B:\n")
        prompt = [1000 + len(self._pairs)]
        self._pairs[tuple(prompt)] = a, b
        return prompt

    def _complete(self, request: Request, prompt: list[int], seed: int) -> Completion:
        if tuple(prompt) not in self._pairs:
            return super()._complete(request, prompt, seed)
        self.asked.append(self._pairs[tuple(prompt)])
        text = f"[[B]] or [[A]]? [[{self.prefer(*self.asked[-1])}]]"  # the last verdict counts
        tokens = min(6, request.max_tokens)
        self.generated += tokens
        self.prompt_tokens += 1
        finish: Any = "end" if tokens == 6 else "length"
        return Completion([0] * tokens, tokens, text if tokens == 6 else "", finish, None, 1, 0)


def candidates(root: Node, texts: Sequence[str], logprobs: Sequence[float] | None = None) -> list[Node]:
    given = logprobs or [-1.0] * len(texts)
    return [
        Node(root, index, [index], 1, text, "end", logprobs=[logprob])
        for index, (text, logprob) in enumerate(zip(texts, given, strict=True))
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 10])
async def test_the_knockout_finds_the_condorcet_winner(n: int) -> None:
    """A candidate that beats every other one wins, whatever the judge says of the others."""
    rng = random.Random(n)
    texts = list("0123456789")[:n]
    for _ in range(20):
        best = rng.choice(texts)
        whims = {pair: rng.choice("AB?") for pair in ((a, b) for a in texts for b in texts)}

        def prefer(a: str, b: str, best: str = best, whims: dict[tuple[str, str], str] = whims) -> str:
            return "A" if a == best else "B" if b == best else whims[a, b]

        search = await toy.search(toy.setting(generator=Judge(prefer)))
        winner = await tournament(search, candidates(search.root, texts), 20)
        assert winner is not None
        assert winner.text == best


async def test_both_orders_are_asked_of_each_pair_and_charged() -> None:
    judge = Judge(lambda a, b: "A" if a < b else "B")
    search = await toy.search(toy.setting(generator=judge))
    winner = await tournament(search, candidates(search.root, list("71395")), 20)
    assert winner is not None
    assert winner.text == "1"
    assert sorted(judge.asked) == sorted(
        [("7", "1"), ("1", "7"), ("3", "9"), ("9", "3"), ("1", "3"), ("3", "1"), ("1", "5"), ("5", "1")]
    )
    assert search.ledger.usage.generated == judge.generated == 6 * 8
    assert search.solution(winner).candidates[0].text == "1", "verdicts are no candidates"
    assert len(search.solution(winner).candidates) == 1


async def test_a_judge_who_likes_a_position_decides_nothing() -> None:
    for position in "AB?":
        search = await toy.search(toy.setting(generator=Judge(lambda a, b, position=position: position)))  # type: ignore[misc]
        nodes = candidates(search.root, list("123456"), [-3, -2, -9, -1, -5, -4])
        winner = await tournament(search, nodes, 20)
        assert winner is nodes[3], "the likeliest"


async def test_a_tie_of_all_is_decided_by_coins() -> None:
    """Each of four equal candidates wins a quarter of 400 knockouts. Five standard errors are 43."""
    wins = dict.fromkeys("1234", 0)
    for seed in range(400):
        search = await toy.search(toy.setting(generator=Judge(lambda a, b: "?"), seed=0), str(seed))
        winner = await tournament(search, candidates(search.root, list("1234")), 20)
        assert winner is not None
        wins[winner.text] += 1
    assert all(abs(count - 100) < 43 for count in wins.values()), wins


async def test_solutions_with_equal_answers_are_not_compared() -> None:
    judge = Judge(lambda a, b: "B")
    search = await toy.search(toy.setting(generator=judge))
    nodes = candidates(search.root, ["5", "57", "58", "59"], [-2, -1, -4, -3])
    winner = await tournament(search, nodes, 20)
    assert winner is nodes[1]
    assert judge.asked == []


async def test_unfinished_solutions_compete_only_among_themselves() -> None:
    search = await toy.search(toy.setting(generator=Judge(lambda a, b: "A" if a > b else "B")))
    nodes = candidates(search.root, list("1298"))
    nodes[2].finish = nodes[3].finish = "length"
    assert await tournament(search, nodes, 20) is nodes[1]
    assert await tournament(search, nodes[2:], 20) is nodes[2]
    assert await tournament(search, [], 20) is None


async def test_comparisons_that_the_budget_does_not_cover_are_ties() -> None:
    """The budget covers the first round's verdicts, of six tokens each, and not the second round's."""
    judge = Judge(lambda a, b: "A" if a < b else "B")
    search = await toy.search(toy.setting("24tok", generator=judge))
    nodes = candidates(search.root, list("1234"), [-2, -9, -1, -9])
    winner = await tournament(search, nodes, 6)
    assert winner is nodes[2]
    assert judge.generated == 24


async def test_best_of_n_by_knockout_asks_the_model_that_solved() -> None:
    judge = Judge(lambda a, b: "A" if a < b else "B")
    solution = await run(toy.setting(generator=judge), "best-of-n", ["n=6", "choose=tournament"], "3")
    finished = [candidate.text.strip() for candidate in solution.candidates if candidate.finished]
    assert len(solution.candidates) == 6
    assert solution.chosen is not None
    chosen = solution.candidates[solution.chosen]
    rivals = [c.text.strip() for c in solution.candidates if c.finished and c.answer != chosen.answer]
    assert all(chosen.text.strip() < rival for rival in rivals)
    assert solution.usage.generated == judge.generated > sum(c.num_tokens for c in solution.candidates)
    assert len(finished) >= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["level=step", "choose=majority"], "choose=majority of best-of-n: a step is chosen by the PRM"),
        (["level=token"], "level=token"),
        (["choose=best"], "choose=best"),
        (["verdict_tokens=0"], "verdict_tokens=0"),
        (["n=0"], "n=0"),
    ],
)
def test_bad_options(options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find("best-of-n").configure(options)


async def test_a_budget_of_passes_is_not_outrun_by_samples() -> None:
    """Each sample takes at least one pass, so there are never more samples than passes."""
    for digits in map(str, range(12)):
        for passes in (1, 4, 8):
            solution = await run(toy.setting(f"{passes}prm"), "best-of-n", [], digits)
            assert len([candidate for candidate in solution.candidates if candidate.steps]) <= passes
