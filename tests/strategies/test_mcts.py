"""MCTS against a plain implementation of its formulas on the same tree, and against enumeration."""

import asyncio
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from infer.core.generator import Completion, Request, Sampling
from infer.core.problem import Problem
from infer.core.search import Search, Setting
from infer.core.tree import Node
from infer.strategies.mcts import Found, MCTSOptions, grow, mcts
from infer.strategies.parts.uct import State, Tree
from infer.testing import toy

Path = tuple[int, ...]

SHORT = Sampling(temperature=1.0, max_tokens=18)


class TellingToy(toy.ToyGenerator):
    """A toy that reports its real log-probabilities."""

    def _complete(self, request: Request, prompt: list[int], seed: int) -> Completion:
        done = super()._complete(request, prompt, seed)
        prefixes = [[*prompt, *done.tokens[:i]] for i in range(done.num_tokens)]
        logprobs = [math.log(toy.probabilities(p)[t]) for p, t in zip(prefixes, done.tokens, strict=True)]
        return Completion(done.tokens, done.num_tokens, done.text, done.finish, logprobs, done.prefill, done.cached)


def reward(node: Node) -> float:
    """The reward of a step: zero for a blank completion and for one that ran out of room before an answer."""
    useless = not node.completion.strip() or (node.full and not node.finished)
    return 0.0 if useless else toy.reward(node.completion)


class FixedTree:
    """The tree that MCTS samples from: the i-th next step of a node is always the same."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.nodes: dict[Path, Node] = {(): search.root}
        self.steps: dict[Path, list[Node]] = {}

    async def step(self, path: Path, i: int) -> Path:
        """The path of the i-th next step. Equal steps share the path of the first of them."""
        steps = self.steps.setdefault(path, [])
        while len(steps) <= i:
            steps += await self.search.sample(self.nodes[path])
        texts = [(node.text, node.finish) for node in steps]
        first = texts.index(texts[i])
        self.nodes[(*path, first)] = steps[first]
        return (*path, first)

    def final(self, path: Path) -> bool:
        return self.nodes[path].final

    def reward(self, path: Path) -> float:
        return reward(self.nodes[path])

    def likelihood(self, path: Path) -> float:
        logprobs = self.nodes[path].logprobs
        assert logprobs
        return math.prod(map(math.exp, logprobs)) ** (1 / len(logprobs))


async def reference(tree: FixedTree, options: MCTSOptions) -> dict[Path, int]:
    """Visits after `options.simulations` simulations, by the formulas. Tables hold N, W and the numbers in flight."""
    visits: dict[Path, int] = defaultdict(int)
    total: dict[Path, float] = defaultdict(float)
    flying: dict[Path, int] = defaultdict(int)
    asked: dict[Path, int] = defaultdict(int)
    children: dict[Path, list[Path]] = defaultdict(list)
    window: list[tuple[Path, Path]] = []
    width, seen = options.width, 0

    def prefixes(path: Path) -> Iterator[Path]:
        return (path[:i] for i in range(len(path) + 1))

    def takes_another(path: Path) -> bool:
        return asked[path] < width * max(1, visits[path] + flying[path]) ** options.alpha

    def open_(path: Path) -> bool:
        arriving = any(parent == path for parent, _ in window)
        return not tree.final(path) and (takes_another(path) or arriving or any(map(open_, children[path])))

    def score(path: Path) -> float:
        parent = path[:-1]
        n = visits[path] + options.virtual_loss * flying[path]
        above = visits[parent] + options.virtual_loss * flying[parent]
        if options.formula == "uct":
            return total[path] / n + options.c * (math.log(above) / n) ** 0.5
        likelihoods = {p: tree.likelihood(p) if options.prior == "logprob" else 1 for p in children[parent]}
        prior = likelihoods[path] / sum(likelihoods.values())
        return total[path] / n + options.c * prior * above**0.5 / (1 + n)

    def descend(path: Path) -> Path | None:
        if takes_another(path):
            return path
        for child in sorted(filter(open_, children[path]), key=lambda p: -score(p)):
            if (found := descend(child)) is not None:
                return found
        return None

    for _ in range(options.simulations or 0):
        while len(window) == options.parallel or (leaf := descend(())) is None:
            if window:
                land(window.pop(0), tree, visits, total, flying, children, prefixes)
            elif len(visits) == seen:
                return visits
            else:
                width, seen = 2 * width, len(visits)
        child = await tree.step(leaf, asked[leaf])
        window.append((leaf, child))
        asked[leaf] += 1
        for path in prefixes(leaf):
            flying[path] += 1
    while window:
        land(window.pop(0), tree, visits, total, flying, children, prefixes)
    return visits


def land(
    flight: tuple[Path, Path], tree: FixedTree, visits: Any, total: Any, flying: Any, children: Any, prefixes: Any
) -> None:
    leaf, child = flight
    for path in prefixes(leaf):
        flying[path] -= 1
    if child not in children[leaf]:
        children[leaf].append(child)
    for path in prefixes(child):
        visits[path] += 1
        total[path] += tree.reward(child)


def states(state: State) -> Iterator[State]:
    yield state
    for child in state.children:
        yield from states(child)


async def run(setting: Setting, options: MCTSOptions, digits: str = "7") -> tuple[Search, Tree, Found]:
    search = await toy.search(setting, digits, options)
    return search, *await grow(search, options)


def visits(tree: Tree) -> dict[Path, int]:
    return {state.node.address: state.visits for state in states(tree.root)}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"c": 2.0, "alpha": 0, "width": 3},
        {"alpha": 0.7, "width": 1, "parallel": 7, "virtual_loss": 0.5},
        {"formula": "puct", "c": 1.5},
        {"formula": "puct", "prior": "uniform", "alpha": 0, "width": 4, "parallel": 3, "virtual_loss": 3},
        {"parallel": 1, "c": 0.0},
    ],
)
async def test_visits_are_those_of_the_formula(given: dict[str, Any]) -> None:
    for digits in map(str, range(5)):
        for simulations in (2, 50):
            options = MCTSOptions(simulations=simulations, values="prm", **given)
            setting = toy.setting(sampling=SHORT, generator=TellingToy(seed=simulations))
            _, tree, _ = await run(setting, options, digits)
            fixed = FixedTree(await toy.search(toy.setting(sampling=SHORT, generator=TellingToy()), digits, options))
            assert visits(tree) == {path: n for path, n in (await reference(fixed, options)).items() if n}


@pytest.mark.parametrize("values", ["prm", "rollout", "vote"])
@pytest.mark.parametrize("parallel", [1, 6])
async def test_visits_and_values_are_conserved(values: Any, parallel: int) -> None:
    options = MCTSOptions(simulations=50, values=values, parallel=parallel, aggregation="last")
    for digits in map(str, range(5)):
        search, tree, found = await run(toy.setting(sampling=SHORT), options, digits)
        everything = list(states(tree.root))
        assert tree.root.visits == 50 == sum(state.samples for state in everything)
        for state in everything:
            assert state.in_flight == state.pending == 0, "virtual losses are taken back"
            own = [child.visits - sum(grandchild.visits for grandchild in child.children) for child in state.children]
            assert state.samples == sum(own), "every sample is one visit of the step it gave"
        if values == "prm":
            own_visits = [s.visits - sum(child.visits for child in s.children) for s in everything]
            rewards = [reward(state.node) for state in everything]
            assert tree.root.total == pytest.approx(sum(n * r for n, r in zip(own_visits, rewards, strict=True)))
        elif values == "rollout":
            assert tree.root.total == pytest.approx(sum(reward(node) for node, _ in found.solutions))
        else:
            answers = [search.answer(node) for node, _ in found.solutions]
            for state in everything:
                below = [a for a, (_, at) in zip(answers, found.solutions, strict=True) if state in at.path]
                shares = [answers.count(answer) / len(answers) for answer in below if answer is not None]
                assert state.total == pytest.approx(sum(shares))


async def test_the_best_leaf_is_found_as_simulations_grow() -> None:
    """Each node has a fixed number of next steps, so the tree is finite. The largest search sees all of it."""
    for digits in map(str, range(12)):
        full = await toy.search(toy.setting(sampling=SHORT), digits)
        samples, best, frontier = 0, 0.0, [full.root]
        while frontier:
            children = await full.sample(frontier.pop(), 2)
            samples += 2
            best = max([best, *(reward(child) for child in children if child.finished)])
            frontier += [
                child for child in {child.text: child for child in reversed(children)}.values() if not child.final
            ]
        found = []
        for simulations in (samples // 8 + 1, samples // 4 + 1, samples // 2 + 1, samples):
            search = await toy.search(toy.setting(sampling=SHORT), digits)
            options = MCTSOptions(simulations=simulations, alpha=0, width=2, parallel=1, values="prm", choose="prm")
            solution = await mcts(search, options)
            assert solution.chosen is not None
            chosen = solution.candidates[solution.chosen]
            found.append(toy.reward(chosen.text) if chosen.finished and chosen.text else 0.0)
        assert search.ledger.usage.generated == full.ledger.usage.generated, "each sample of the tree was drawn once"
        assert found == sorted(found)
        assert found[-1] == best


async def test_the_tree_does_not_depend_on_timing() -> None:
    for budget, values in itertools.product([None, "150tok", "20prm", "1prm"], ["prm", "rollout"]):
        options = MCTSOptions(values=values, parallel=5, simulations=40)
        trees = [await run(toy.setting(budget, generator=toy.ToyGenerator(seed=seed)), options) for seed in range(6)]
        assert len({tuple(visits(tree).items()) for _, tree, _ in trees}) == 1
        assert len({search.ledger.usage for search, _, _ in trees}) == 1


async def test_copies_of_a_step_are_one_child_and_scored_once() -> None:
    """At a temperature of zero there is one path. The shares double once, which finds nothing new."""
    for digits in map(str, range(10)):
        setting = toy.setting(sampling=Sampling(temperature=0, max_tokens=60))
        search, tree, _ = await run(
            setting, MCTSOptions(simulations=10_000, alpha=0, width=3, values="prm", parallel=1), digits
        )
        everything = list(states(tree.root))
        assert all(len(state.children) <= 1 for state in everything)
        assert tree.root.visits == 6 * (len(everything) - 1), "six next steps of each node that is not final"
        assert search.ledger.usage.passes == sum(reward(state.node) > 0 for state in everything)


@pytest.mark.parametrize(("values", "parallel"), [("prm", 1), ("rollout", 4)])
async def test_the_path_of_most_visits_is_chosen(values: Any, parallel: int) -> None:
    for digits in map(str, range(10)):
        options = MCTSOptions(simulations=60, choose="visits", parallel=parallel, values=values)
        solution = await mcts(await toy.search(toy.setting(sampling=SHORT), digits), options)
        _, tree, found = await run(toy.setting(sampling=SHORT), options, digits)
        assert solution.chosen is not None
        chosen = solution.candidates[solution.chosen]
        state = tree.root
        while below := [child for child in state.children if any(child in at.path for _, at in found.solutions)]:
            state = max(below, key=lambda child: (child.visits, child.total))
        assert chosen.address in [node.address for node, at in found.solutions if at is state]


async def test_more_simulations_in_flight_than_one() -> None:
    """The toy sees as many calls at once as `parallel` allows, and never more."""
    most = 0
    setting = toy.setting()
    generator: Any = setting.generator
    whole = generator.generate

    async def watching(request: Any) -> Any:
        nonlocal most
        most = max(most, generator.in_flight + 1)
        return await whole(request)

    generator.generate = watching
    await run(setting, MCTSOptions(simulations=60, parallel=5))
    assert most == 5


@pytest.mark.parametrize("turns", [3, 20, 80])
async def test_cancelled_or_broken_nothing_is_left_in_flight(turns: int) -> None:
    setting = toy.setting("10k")
    generator: Any = setting.generator
    task = asyncio.create_task(run(setting, MCTSOptions(parallel=6)))
    for _ in range(turns):
        await asyncio.sleep(0)
    assert generator.in_flight > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert generator.in_flight == 0

    whole = generator.generate

    async def breaking(request: Any) -> Any:
        if generator.calls > turns:
            raise RuntimeError("the engine is gone")
        return await whole(request)

    generator.generate = breaking
    with pytest.raises(RuntimeError, match="gone"):
        await run(setting, MCTSOptions(parallel=6))
    assert generator.in_flight == 0


async def test_time_that_is_up_ends_it_with_an_answer() -> None:
    solution = await mcts(await toy.search(toy.setting("0.05s")), MCTSOptions())
    assert solution.finished


async def test_an_outcome_model_is_asked_about_whole_solutions_only() -> None:
    class Outcome(toy.ToyVerifier):
        stepwise = False
        asked: list[bool]

        async def score(self, problem: Problem, steps: Any, known: int, finished: bool) -> Any:
            self.asked.append(finished)
            return await super().score(problem, ["".join(steps)], 0, finished)

    passes = 0
    for digits in map(str, range(8)):
        verifier = Outcome()
        verifier.asked = []
        solution = await mcts(await toy.search(toy.setting(verifier=verifier), digits), MCTSOptions(simulations=12))
        assert all(verifier.asked)
        assert solution.usage.passes == len(verifier.asked)
        passes += solution.usage.passes
    assert passes > 50


async def test_as_many_simulations_are_in_flight_as_the_budget_covers() -> None:
    """A simulation, a step with its rollout, takes at most 100 tokens."""

    class Peak(toy.ToyGenerator):
        peak = 0

        async def generate(self, request: Request) -> list[Completion]:
            completions = asyncio.create_task(super().generate(request))
            await asyncio.sleep(0)
            self.peak = max(self.peak, self.in_flight)
            return await completions

    for budget, most in (("199tok", 1), ("200tok", 2), ("400tok", 4)):
        generator = Peak()
        await mcts(await toy.search(toy.setting(budget, generator=generator)), MCTSOptions(width=4, simulations=4))
        assert generator.peak == most
