"""A* against exhaustive search of the same tree."""

from collections.abc import Iterator
from typing import Any

import pytest

from infer.core.generator import Sampling
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Aggregation, Node, aggregate
from infer.errors import UserError
from infer.strategies import find
from infer.strategies.astar import AStarOptions, astar
from infer.testing import toy
from tests.strategies.test_beam import worth
from tests.strategies.test_laws import run


async def all_paths(search: Search, k: int) -> list[list[Node]]:
    """Every path to a finished node, in the tree with k sampled steps after each node."""
    finished, frontier = [], [search.root]
    while frontier:
        node = frontier.pop()
        if node.finished:
            finished.append(node.trajectory)
        elif not node.full:
            distinct: dict[str, Node] = {}
            for child in await search.sample(node, k):
                distinct.setdefault(child.text, child)  # of equal steps, the first
            children = list(distinct.values())
            await search.score(children)
            frontier += children
    return finished


def path_costs(path: list[Node], aggregation: Aggregation) -> Iterator[float]:
    """f along a path, by its definition: f = g + h, where g is the sum of max(0, h(parent) - h(child))."""
    g = h_parent = 0.0
    for node in path:
        h = 1 - (aggregate(node.step_scores, aggregation) if node.step_scores else 0)  # without a step, no reward
        g += max(0.0, h_parent - h)
        h_parent = h
        yield g + h


@pytest.mark.parametrize("aggregation", ["last", "min", "mean"])
@pytest.mark.parametrize("width", [1, 3])
async def test_astar_finds_the_cheapest_finished_path(aggregation: Aggregation, width: int) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=18)
    searched = exhaustive = 0
    for digits in map(str, range(40)):
        tree = await toy.search(toy.setting(sampling=sampling), digits)
        paths = await all_paths(tree, 2)
        costs = {tuple(node.index for node in path): list(path_costs(path, aggregation)) for path in paths}
        for along in costs.values():
            assert along == sorted(along), "f must never fall along a path"

        options = AStarOptions(k=2, width=width, aggregation=aggregation)
        search = await toy.search(toy.setting(sampling=sampling), digits, options)
        solution = await astar(search, options)
        if not costs:
            assert not solution.finished
            continue
        assert solution.finished
        assert solution.chosen is not None
        found = costs[solution.candidates[solution.chosen].address][-1]
        assert found == pytest.approx(min(along[-1] for along in costs.values()))
        searched += search.ledger.usage.generated
        exhaustive += tree.ledger.usage.generated
    assert searched < exhaustive / 2, "A* must not expand everything"


async def test_astar_expands_equal_siblings_once() -> None:
    """At a temperature of zero all k next steps are the same: the search must walk straight to the end."""
    for digits in map(str, range(20)):
        search = await toy.search(toy.setting(sampling=Sampling(temperature=0, max_tokens=60)), digits)
        solution = await astar(search, AStarOptions(k=4))
        assert solution.chosen is not None
        chosen = solution.candidates[solution.chosen]
        assert search.ledger.usage.generated == 4 * chosen.num_tokens
        assert search.ledger.usage.passes == len(chosen.steps)


async def test_astar_expands_states_in_the_order_of_f() -> None:
    """The generator sees the expansions in the order of a sorted frontier."""
    setting = toy.setting(sampling=Sampling(temperature=1.0, max_tokens=40))
    generator: Any = setting.generator
    expanded: list[list[int]] = []
    whole = generator.generate

    async def recording(request: Any) -> Any:
        expanded.append(request.prompt)
        return await whole(request)

    generator.generate = recording
    for digits in map(str, range(10)):
        expanded.clear()
        search = await toy.search(setting, digits)
        await astar(search, AStarOptions(k=3, aggregation="last"))
        costs = []
        for prompt in expanded[1:]:
            text = toy.decode(prompt[len(digits) :])
            steps = [step + "\n\n" for step in text.split("\n\n")[:-1]]
            g = h_parent = 0.0
            for i in range(len(steps)):
                h = 1 - toy.reward("".join(steps[: i + 1]))
                g, h_parent = g + max(0.0, h_parent - h), h
            costs.append(g + h_parent)
        assert costs == sorted(costs)


SHORT = Sampling(temperature=1.0, max_tokens=18)
Costs = dict[tuple[int, ...], list[float]]


async def all_costs(digits: str) -> Costs:
    """f along each path to a finished node, in the tree with two sampled steps after each node."""
    search = await toy.search(toy.setting(sampling=SHORT), digits)
    paths = await all_paths(search, 2)
    return {tuple(node.index for node in path): list(path_costs(path, "last")) for path in paths}


def chosen(solution: Solution) -> tuple[int, ...]:
    assert solution.chosen is not None
    return solution.candidates[solution.chosen].address


async def test_weighted_astar_costs_at_most_its_weight_times_the_least() -> None:
    """The cost keeps Pohl's bound, and a larger weight expands fewer states."""
    spent = []
    for weight in (1, 1.5, 5):
        total = 0
        for digits in map(str, range(30)):
            costs = await all_costs(digits)
            search = await toy.search(toy.setting(sampling=SHORT), digits)
            solution = await astar(search, AStarOptions(k=2, weight=weight, aggregation="last"))
            total += search.ledger.usage.generated
            if costs:
                assert solution.finished
                assert costs[chosen(solution)][-1] <= weight * min(along[-1] for along in costs.values()) + 1e-12
        spent.append(total)
    assert spent == sorted(spent, reverse=True)
    assert spent[0] > spent[-1]


async def best_first(search: Search, k: int, key: Any) -> Node | None:
    """The first finished node of best-first search over a plain list that is sorted again before each expansion."""
    frontier: list[tuple[Node, int]] = [(search.root, 0)]
    met: set[tuple[str, Any]] = set()
    number = 0
    while frontier:
        frontier.sort(key=lambda entry: key(*cost_along(entry[0]), len(entry[0].trajectory), entry[1]))
        node, _ = frontier.pop(0)
        if node.finished:
            return node
        if node.full:
            continue
        for child in await search.sample(node, k):
            if (child.completion, child.finish) not in met:
                met.add((child.completion, child.finish))
                number += 1
                frontier.append((child, number))
    return None


def cost_along(node: Node) -> tuple[float, float]:
    """g and h of a node, computed from texts alone."""
    g = h = 0.0
    for part in node.trajectory:
        below = 1 - worth(part.completion)
        g, h = g + max(0.0, h - below), below
    return g, h


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"order": "greedy"}, lambda g, h, depth, number: (h, -depth, number)),
        ({"order": "greedy", "ties": "oldest"}, lambda g, h, depth, number: (h, number)),
        ({"ties": "oldest"}, lambda g, h, depth, number: (g + h, number)),
        ({"ties": "newest"}, lambda g, h, depth, number: (g + h, -number)),
        ({}, lambda g, h, depth, number: (g + h, -depth, number)),
        ({"weight": 3}, lambda g, h, depth, number: (g + 3 * h, -depth, number)),
    ],
)
async def test_each_order_is_that_of_a_frontier_sorted_by_hand(
    options: dict[str, Any], key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rewards are whole eighths, so sums are exact. Equal f are common, so the rule for ties decides."""
    whole = toy.reward
    monkeypatch.setattr(toy, "reward", lambda text: round(whole(text) * 8) / 8)
    for digits in map(str, range(25)):
        search = await toy.search(toy.setting(sampling=SHORT), digits)
        solution = await astar(search, AStarOptions(k=3, **options))
        plain = await toy.search(toy.setting(sampling=SHORT), digits)
        node = await best_first(plain, 3, key)
        if node is None:
            assert not solution.finished
        else:
            assert chosen(solution) == node.address
        assert search.ledger.usage.generated == plain.ledger.usage.generated


async def test_a_depth_limit_bounds_every_path() -> None:
    reached = 0
    for digits in map(str, range(30)):
        free = await run(toy.setting(), "astar", ["k=2"], digits)
        solution = await run(toy.setting(), "astar", ["k=2", "depth=2"], digits)
        assert all(len(candidate.address) <= 2 for candidate in solution.candidates)
        if free.finished and len(chosen(free)) <= 2:
            assert chosen(solution) == chosen(free)
        reached += not solution.finished
    assert reached > 0, "where nothing finishes within the limit the best so far is returned"


async def test_states_of_equal_text_are_expanded_apart_if_asked() -> None:
    """With a greedy model, copies kept and the oldest first, all 2^d copies of step d are expanded."""
    for digits in map(str, range(8)):
        cold = toy.setting(sampling=Sampling(temperature=0, max_tokens=60))
        search = await toy.search(cold, digits)
        lengths = []
        node = search.root
        while not node.final:
            (node,) = await search.sample(node)
            lengths.append(node.num_tokens)
        once = await run(cold, "astar", ["k=2", "ties=oldest"], digits)
        apart = await run(cold, "astar", ["k=2", "ties=oldest", "duplicates=yes"], digits)
        assert once.usage.generated == sum(2 * length for length in lengths)
        assert apart.usage.generated == sum(2**depth * length for depth, length in enumerate(lengths, 1))
        assert apart.answer == once.answer


@pytest.mark.parametrize("how", ["majority", "weighted", "prm"])
async def test_nodes_of_the_frontier_vote_if_asked(how: str) -> None:
    differ = 0
    for digits in map(str, range(16)):
        for budget in (None, "60tok"):
            first = await run(toy.setting(budget), "astar", ["k=6"], digits)
            voted = await run(toy.setting(budget), "astar", ["k=6", f"choose={how}"], digits)
            assert voted.usage.generated == first.usage.generated, "the search is the same, the answer may be another"
            # each finished and scored state votes once: copies do not vote, nor do states that the budget left unscored
            states = {c.text: c for c in reversed(voted.candidates) if c.finished and c.scores}
            if not states:
                continue
            votes: dict[str | None, float] = {}
            for state in states.values():
                weight = {"majority": 1.0, "weighted": worth(state.text), "prm": 0.0}[how]
                votes[state.answer] = votes.get(state.answer, 0.0) + weight
            if how == "prm":
                assert worth(voted.candidates[chosen_index(voted)].text) == max(map(worth, states))
            else:
                assert votes[voted.answer] == pytest.approx(max(votes.values()))
            differ += voted.answer != first.answer
    assert differ > 0


def chosen_index(solution: Solution) -> int:
    assert solution.chosen is not None
    return solution.chosen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["order=greedy", "weight=2"], "option weight=2 of astar: order=greedy has no weight"),
        (["weight=0.5"], "weight=0.5"),
        (["weight=inf"], "weight=inf"),
        (["weight=nan"], "weight=nan"),
        (["ties=random"], "ties=random"),
        (["depth=0"], "depth=0"),
        (["k=0"], "k=0"),
        (["choose=last"], "choose=last"),
    ],
)
def test_bad_options(options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find("astar").configure(options)


@pytest.mark.parametrize("budget", ["5prm", "9prm", "15prm", "1e6flops"])
async def test_a_choice_is_among_all_that_were_scored_before_the_budget_ended(budget: str) -> None:
    counted = 0
    for digits in map(str, range(40)):
        solution = await run(toy.setting(budget), "astar", ["choose=prm"], digits)
        scores = [candidate.scores[-1] for candidate in solution.candidates if candidate.finished and candidate.scores]
        if scores:
            counted += 1
            assert solution.chosen is not None
            chosen = solution.candidates[solution.chosen].scores
            assert chosen is not None
            assert chosen[-1] == max(scores)
    assert counted > 5
