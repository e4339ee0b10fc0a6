"""The search: other conversations, forced text, what both cost, scores, and wrong arguments."""

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from infer.core.generator import Completion, Request, Sampling
from infer.core.options import ScoredOptions
from infer.core.search import Until
from infer.core.tree import Node
from infer.errors import BudgetSpent, UserError
from infer.testing import toy


def spent(search: Any) -> tuple[int, int]:
    generator = search.setting.generator
    assert search.ledger.usage.generated == generator.generated
    assert search.ledger.usage.prefill + search.ledger.usage.cached == generator.prompt_tokens
    return generator.generated, generator.prompt_tokens


async def test_another_conversation_is_charged_and_is_no_answer() -> None:
    search = await toy.search(toy.setting())
    (answer,) = await search.sample(search.root, until="end")
    critique = await search.chat([{"role": "user", "content": "99"}])
    (aside,) = await search.sample(critique, until="end")
    assert aside.prefix() == [9, 9, *aside.tokens]
    assert spent(search) == (answer.num_tokens + aside.num_tokens, 3)
    rewriting = await search.chat([{"role": "user", "content": "98"}], answers=True)
    (second,) = await search.sample(rewriting, until="end")
    solution = search.solution(second)
    assert [candidate.text for candidate in solution.candidates] == [answer.text, second.text]
    assert solution.usage.discarded == answer.num_tokens + aside.num_tokens


async def test_seeds_of_a_conversation_depend_on_what_it_says_alone() -> None:
    first, second = await toy.search(toy.setting()), await toy.search(toy.setting())
    one = await first.chat([{"role": "user", "content": "12"}])
    await second.chat([{"role": "user", "content": "34"}])
    other = await second.chat([{"role": "user", "content": "12"}])
    alike = [await s.sample(root, 3, until="end") for s, root in ((first, one), (second, other))]
    assert [node.tokens for node in alike[0]] == [node.tokens for node in alike[1]]
    assert await first.chat([{"role": "user", "content": "12"}]) is one
    more = await first.sample(one, 3, until="end")
    assert {tuple(node.tokens) for node in more} != {tuple(node.tokens) for node in alike[0]}


async def test_a_conversation_without_room_is_final() -> None:
    search = await toy.search(toy.setting(generator=toy.ToyGenerator(max_context=20)))
    assert (await search.chat([{"role": "user", "content": "1" * 20}])).final
    assert not (await search.chat([{"role": "user", "content": "1" * 19}])).final


@pytest.mark.parametrize("until", ["step", "end"])
async def test_no_more_is_asked_for_than_the_context_has_room_for(until: Until) -> None:
    asked: list[int] = []

    class Toy(toy.ToyGenerator):
        async def generate(self, request: Request) -> list[Completion]:
            asked.append(len(request.prompt) + request.max_tokens)
            return await super().generate(request)

    search = await toy.search(toy.setting(generator=Toy(max_context=16)), "1234")
    nodes = [search.root]
    while nodes := [node for node in nodes if not node.final]:
        nodes = await search.sample(nodes, 2, until=until)
    assert max(asked) == 16


async def test_forced_text_is_part_of_the_trajectory_and_not_generated() -> None:
    search = await toy.search(toy.setting())
    step = next(node for node in await search.sample(search.root, 9) if node.finish == "step")
    others = search.ledger.usage.generated - step.num_tokens
    forced = await search.extend(step, "42")
    assert forced.prefix() == [7, *step.tokens, 4, 2]
    assert forced.length == step.num_tokens + 2
    (rest,) = await search.sample(forced, until="end")
    assert spent(search) == (others + step.num_tokens + rest.num_tokens, 9 + len(forced.prefix()))
    solution = search.solution(rest)
    assert solution.usage.discarded == others
    assert solution.chosen is not None
    assert solution.candidates[solution.chosen].text == step.text + "42" + rest.text


@pytest.mark.parametrize("start", range(12))
async def test_the_end_is_taken_back(start: int) -> None:
    search = await toy.search(toy.setting(), str(start))
    (whole,) = await search.sample(search.root, until="end")
    assert whole.finished
    assert whole.tokens[-1] == toy.END
    forced = await search.extend(whole, "3")
    assert forced.prefix() == [*map(int, str(start)), *whole.tokens[:-1], 3]
    assert forced.completion == whole.text + "3"
    assert search.solution(forced).usage.discarded == 1


async def test_a_delimiter_is_taken_back() -> None:
    search = await toy.search(toy.setting())
    steps = await search.sample(search.root, 20)
    ended = next(step for step in steps if step.finish == "step")
    forced = await search.extend(ended, "5", without="\n\n")
    assert forced.prefix() == [7, *ended.tokens[:-1], 5]
    kept = await search.extend(ended, "5", without="9")
    assert kept.prefix() == [7, *ended.tokens, 5]


async def test_a_delimiter_inside_a_token_cannot_be_taken_back() -> None:
    search = await toy.search(toy.setting())
    node = Node(search.root, 0, [10], 1, "12\n\n", "step")
    with pytest.raises(UserError, match="not a token of its own"):
        await search.extend(node, "5", without="2\n\n")


async def test_nothing_is_sampled_after_forced_text_that_fills_the_room() -> None:
    search = await toy.search(toy.setting(sampling=Sampling(temperature=1.0, max_tokens=3)))
    assert (await search.extend(search.root, "123")).final
    assert not (await search.extend(search.root, "12")).final


async def test_a_node_named_twice_has_distinct_children() -> None:
    twice, once = await toy.search(toy.setting()), await toy.search(toy.setting())
    children = await twice.sample([twice.root, twice.root], 3)
    assert [child.index for child in children] == list(range(6))
    assert [child.tokens for child in children] == [child.tokens for child in await once.sample(once.root, 6)]


async def test_limits_and_delimiters_of_a_call() -> None:
    search = await toy.search(replace(toy.setting(), delimiter="no such"))
    nodes = await search.sample(search.root, 30, until="end", delimiter="\n\n", max_tokens=4)
    assert max(node.num_tokens for node in nodes) == 4
    assert {node.finish for node in nodes} == {"step", "end", "length"}
    assert all(node.text.endswith("\n\n") == (node.finish == "step") for node in nodes)


@pytest.mark.parametrize(
    ("stop", "missed"),
    [("\nQ:", True), ("\n\n4", True), ("a\n\nb", True), ("Q:\n", False), ("\n\n", False), ("4", False)],
)
async def test_a_stop_string_that_could_lie_across_steps_is_refused_in_steps(stop: str, missed: bool) -> None:
    search = await toy.search(toy.setting(sampling=Sampling(temperature=1.0, max_tokens=100, stop=(stop,))))
    await search.sample(search.root, until="end")
    if missed:
        with pytest.raises(UserError, match=r"--stop .* may begin in one step"):
            await search.sample(search.root)
    else:
        await search.sample(search.root)


@pytest.mark.parametrize("budget", ["60tok", "30prm", "2e5flops", "3e6eflops"])
async def test_cancelled_calls_give_back_what_was_reserved(budget: str) -> None:
    """Several workers share one search. Some are cancelled after a random number of turns, and the others finish."""
    for seed in range(30):
        chance = random.Random(seed)
        search = await toy.search(toy.setting(budget, seed=seed))

        async def work(number: int, search: Any = search, seed: int = seed) -> None:
            own, node = random.Random(100 * seed + number), search.root
            with suppress(BudgetSpent):
                while not node.final:
                    children = await search.sample(node, own.randrange(1, 4), until=own.choice(["step", "end"]))
                    await search.score(children)
                    node = own.choice(children)

        workers = [asyncio.create_task(work(number)) for number in range(6)]
        for _ in range(chance.randrange(25)):
            await asyncio.sleep(0)
        for worker in chance.sample(workers, 3):
            worker.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(*workers, return_exceptions=True)
        assert search.ledger._reserved == search.ledger._in_flight == 0
        assert search.left >= 0


async def test_a_limit_of_no_tokens_is_an_error_and_not_the_whole_rest() -> None:
    """`max_tokens=0` was once taken for None, and a completion of full length came back."""
    search = await toy.search(toy.setting())
    for arguments in ({"max_tokens": 0}, {"max_tokens": -1}, {"n": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            await search.sample(search.root, until="end", **arguments)  # type: ignore[arg-type]
    assert search.ledger.usage.generated == 0


async def test_without_nodes_there_are_no_children() -> None:
    """`sample([])` once failed in `min([])`."""
    search = await toy.search(toy.setting("60tok"))
    assert await search.sample([]) == []
    await search.score([])


async def test_scores_of_a_leaf_include_those_of_the_nodes_above_it() -> None:
    """Scoring a leaf also scores its unscored ancestors, so a strategy need not collect them."""
    apart, together = await toy.search(toy.setting()), await toy.search(toy.setting())
    leaves = []
    for search in (apart, together):
        node = search.root
        while not node.final:
            (node,) = await search.sample(node)
            if search is apart:
                await search.score([node])
        await search.score([node])
        leaves.append(node)
    assert leaves[0].step_scores == leaves[1].step_scores
    assert apart.ledger.usage.passes == together.ledger.usage.passes == len(leaves[0].step_scores)


async def test_a_node_that_is_scored_is_not_scored_again() -> None:
    search = await toy.search(toy.setting())
    (leaf,) = await search.sample(search.root, until="end")
    await search.score([leaf])
    passes = search.ledger.usage.passes
    await search.score([leaf, leaf])
    assert search.ledger.usage.passes == passes


async def test_a_search_cut_off_chooses_by_the_strategys_aggregation() -> None:
    """The runner's own choice once used the verifier's aggregation instead."""
    for aggregation in ("min", "max"):
        search = await toy.search(toy.setting(), options=ScoredOptions(aggregation=aggregation))
        nodes = await search.sample(search.root, 12, until="end")
        await search.score(nodes)
        finished = [node for node in nodes if node.finished and node.step_scores]
        worth = {"min": min, "max": max}[aggregation]
        best = search.best()
        assert best is not None
        assert worth(best.step_scores) == max(worth(node.step_scores) for node in finished)


async def test_a_misspelled_end_is_an_error() -> None:
    search = await toy.search(toy.setting())
    with pytest.raises(ValueError, match="until is 'step' or 'end': 'ends'"):
        await search.sample(search.root, until="ends")  # type: ignore[arg-type]
