"""The final choice against its definition, on constructed candidates."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.core.choice import Choice
from infer.core.search import Search
from infer.core.tree import Finish, Node
from infer.testing import toy


@dataclass(frozen=True)
class Sample:
    answer: str
    finished: bool = True
    score: float | None = 0.5
    logprob: float | None = None

    def node(self, root: Node, index: int) -> Node:
        finish: Finish = "end" if self.finished else "length"
        scores = None if self.score is None else [self.score]
        logprobs = None if self.logprob is None else [self.logprob]
        return Node(root, index, [index], 1, self.answer, finish, logprobs=logprobs, scores=scores)


samples = st.lists(
    st.builds(
        Sample,
        st.sampled_from(["1", "2", "3", " "]),  # the extractor finds no answer in a space
        st.booleans(),
        st.sampled_from([None, 0.0, 0.25, 0.5, 1.0]),
        st.sampled_from([None, 0.0, -0.5, -2.0]),
    ),
    min_size=1,
    max_size=9,
)


async def searched() -> Search:
    return await toy.search(toy.setting(grader=toy.ToyGrader(lambda text: text.strip() or None)))


def defined(given: list[Sample], how: Choice) -> int | None:
    """The choice by its definition: the index of the winner, or None if no candidate counts."""
    key = {"prm": "score", "weighted": "score", "logprob": "logprob"}.get(how)
    counting = [i for i, sample in enumerate(given) if sample.finished] or list(range(len(given)))
    counting = [i for i in counting if key is None or getattr(given[i], key) is not None]
    if not counting:
        return None
    strength = {i: 1.0 if key is None else getattr(given[i], key) for i in counting}
    if how in ("majority", "weighted"):
        answers = [given[i].answer for i in counting if given[i].answer != " "]
        if answers:
            votes = {a: math.fsum(strength[i] for i in counting if given[i].answer == a) for a in answers}
            winner = next(a for a in answers if votes[a] == max(votes.values()))
            counting = [i for i in counting if given[i].answer == winner]
    return next(i for i in counting if strength[i] == max(strength[j] for j in counting))


@pytest.mark.parametrize("how", ["prm", "majority", "weighted", "logprob"])
@given(given_samples=samples)
async def test_the_choice_is_the_one_defined(how: Choice, given_samples: list[Sample]) -> None:
    search = await searched()
    nodes = [sample.node(search.root, index) for index, sample in enumerate(given_samples)]
    expected = defined(given_samples, how)
    chosen = await search.choose(nodes, how)
    assert chosen is (None if expected is None else nodes[expected])  # this search sampled nothing, so it has no best


@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from([0.0, 0.25, 0.5, 7.0])), min_size=1, max_size=9))
async def test_given_weights_are_the_votes(votes: list[tuple[str, float]]) -> None:
    search = await searched()
    nodes = [Sample(answer, score=None).node(search.root, i) for i, (answer, _) in enumerate(votes)]
    chosen = await search.choose(nodes, "weighted", weights=[weight for _, weight in votes])
    totals = {answer: sum(weight for other, weight in votes if other == answer) for answer, _ in votes}
    winner = next(answer for answer, _ in votes if totals[answer] == max(totals.values()))
    heaviest = max(weight for answer, weight in votes if answer == winner)
    assert chosen is nodes[votes.index((winner, heaviest))]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1])
async def test_weights_that_are_no_votes_are_refused(bad: float) -> None:
    search = await searched()
    nodes = [Sample("1").node(search.root, 0), Sample("2").node(search.root, 1)]
    with pytest.raises(ValueError, match="finite and not below zero"):
        await search.choose(nodes, "weighted", weights=[1.0, bad])
    with pytest.raises(ValueError, match="weighted vote"):
        await search.choose(nodes, "majority", weights=[1.0, 1.0])


async def test_a_node_that_stands_for_two_particles_votes_twice() -> None:
    search = await searched()
    one, other = Sample("1").node(search.root, 0), Sample("2").node(search.root, 1)
    assert await search.choose([one, other, other], "weighted", weights=[1.5, 1.0, 1.0]) is other
    assert await search.choose([one, other, other], "majority") is other


async def test_without_candidates_the_best_so_far_is_chosen() -> None:
    search = await toy.search(toy.setting())
    sampled = await search.sample(search.root, 5, until="end")
    assert await search.choose([], "majority") is search.best()
    assert await search.choose(sampled, "prm") is search.best()  # not one was scored
