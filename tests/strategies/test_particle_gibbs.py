"""Particle Gibbs: its transition matrix, from an enumeration of all random choices, against the posterior."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from infer.core.search import Search
from infer.core.tree import Finish, Node
from infer.errors import BudgetSpent
from infer.strategies import particle_gibbs as module
from infer.strategies.particle_filter import ParticleFilterOptions, particle_filter
from infer.strategies.particle_gibbs import ParticleGibbsOptions, ancestor, draw, particle_gibbs, sweep
from infer.strategies.parts.particles import Particles, run_filter
from infer.strategies.parts.resampling import multinomial
from infer.testing import toy
from tests import tree_model
from tests.enumeration import Choices, enumerated, runs
from tests.tree_model import Tokens


async def grow(search: Search, tokens: Tokens) -> list[Node]:
    """Adds a trajectory to the tree and scores it."""
    node, nodes = search.root, list[Node]()
    for token in tokens:
        finish: Any = "end" if token == tree_model.END else "step"
        full = len(nodes) + 1 == search.setting.sampling.max_tokens
        node = Node(node, node.num_children, [token], 1, tree_model.TEXT[token], finish, full)
        nodes.append(node)
    await search.score(nodes)
    return nodes


async def transitions(
    monkeypatch: pytest.MonkeyPatch, options: ParticleGibbsOptions, depth: int, start: Tokens
) -> dict[Tokens, float]:
    """The probability of each next reference, given the reference `start`."""

    async def run(choices: Choices) -> Tokens:
        monkeypatch.setattr(module, "multinomial", enumerated(multinomial, choices))
        search = await tree_model.search(choices, depth)
        reference = await grow(search, start)
        particles = await sweep(search, options, reference)
        node = draw(search, particles)
        monkeypatch.undo()
        return tree_model.tokens(node)

    row: dict[Tokens, float] = defaultdict(float)
    async for probability, end in runs(run):
        row[end] += probability
    return row


@pytest.mark.parametrize(
    ("depth", "options"),
    [
        (3, ParticleGibbsOptions(n=2)),
        (3, ParticleGibbsOptions(n=2, ess=0.9, temperature=0.5)),
        (2, ParticleGibbsOptions(n=3)),  # an ended reference can give its place away here
    ],
)
async def test_one_iteration_leaves_the_posterior_as_it_is(
    monkeypatch: pytest.MonkeyPatch, depth: int, options: ParticleGibbsOptions
) -> None:
    posterior, _ = tree_model.posterior(1 / options.temperature, depth)
    names = list(posterior)
    rows = [await transitions(monkeypatch, options, depth, start) for start in names]
    kernel = np.array([[row[end] for end in names] for row in rows])
    before = np.array([posterior[name] for name in names])
    assert kernel.sum(axis=1) == pytest.approx(1)
    assert before @ kernel == pytest.approx(before)
    assert kernel.min() > 0, "every trajectory can be reached from every other"


@pytest.mark.parametrize("digits", list("0123456789"))
async def test_the_reference_is_kept_and_not_sampled_again(monkeypatch: pytest.MonkeyPatch, digits: str) -> None:
    search = await toy.search(toy.setting(), digits)
    options = ParticleGibbsOptions(n=4)
    particles = Particles.start(search.root, 4)
    await run_filter(search, particles, "smc", options.ess, multinomial, lambda step: options.temperature)
    reference = draw(search, particles).trajectory
    particles = Particles.start(search.root, 4)
    sampled: list[int] = []
    sample = search.sample

    async def recording(nodes: list[Node]) -> list[Node]:
        sampled.append(len(nodes))
        return await sample(nodes)

    monkeypatch.setattr(search, "sample", recording)
    for node in reference:
        await particles.advance(search, reference)
        assert particles.nodes[0] is node
        particles.weigh(search, "smc", 1.0)
        particles.resample(search, np.array([0, *multinomial(particles.weights, 3, search.rng)]))
    assert sampled[0] == max(sampled) == 3


async def test_a_reference_that_has_ended_gives_its_place_to_one_of_the_ended() -> None:
    """10,000 ancestors are drawn by weight. A chi-square this large has probability 1e-6."""
    search = await toy.search(toy.setting())
    ends: list[Finish] = ["end", "step", "end", "end"]
    nodes = [Node(search.root, i, [i], 1, str(i), finish) for i, finish in enumerate(ends)]
    particles = Particles(nodes, np.zeros(4), np.log([0.1, 0.4, 0.2, 0.3]))
    drawn = Counter(ancestor(search, particles) for _ in range(10_000))
    expected = {0: 10_000 / 6, 2: 20_000 / 6, 3: 30_000 / 6}
    assert set(drawn) == set(expected)
    assert sum((drawn[i] - e) ** 2 / e for i, e in expected.items()) < 27.7
    outweighed = Particles(nodes[:2], np.zeros(2), np.array([-5000.0, 0.0]))
    assert ancestor(search, outweighed) == 0, "nobody else has ended"
    unfinished = Particles([nodes[1], *nodes], np.zeros(5), np.zeros(5))
    assert {ancestor(search, unfinished) for _ in range(100)} == {0}


async def test_iterations_are_run_until_the_budget_is_spent() -> None:
    few = await particle_gibbs(await toy.search(toy.setting()), ParticleGibbsOptions(n=3, iterations=1))
    search = await toy.search(toy.setting("2k"))
    many = await particle_gibbs(search, ParticleGibbsOptions(n=3))
    assert search.ledger.usage.generated > 1900
    assert len(many.candidates) > 3 * len(few.candidates)
    assert [c.tokens for c in many.candidates[: len(few.candidates)]] == [c.tokens for c in few.candidates]
    assert many.finished


async def test_a_budget_spent_before_anything_is_finished_is_noted() -> None:
    with pytest.raises(BudgetSpent):
        await particle_gibbs(await toy.search(toy.setting("8tok")), ParticleGibbsOptions(n=4))


async def test_the_answer_is_the_best_of_all_iterations() -> None:
    for digits in map(str, range(10)):
        search = await toy.search(toy.setting(), digits)
        # without resampling no particle is dropped: all candidates are particles of some iteration
        solution = await particle_gibbs(search, ParticleGibbsOptions(n=3, iterations=5, ess=1e-9))
        scores = [c.scores[-1] for c in solution.candidates if c.finished and c.scores]
        assert solution.chosen is not None
        chosen = solution.candidates[solution.chosen]
        assert chosen.finished
        assert chosen.scores is not None
        assert chosen.scores[-1] == max(scores)


async def test_a_budget_that_ends_in_the_first_filter_leaves_its_vote() -> None:
    counted = 0
    for budget in ("1e6flops", "2e6flops", "3e6flops"):
        for digits in map(str, range(20)):
            filtered = ParticleFilterOptions(n=8, mode="smc", choose="weighted")
            try:
                expected = await particle_filter(await toy.search(toy.setting(budget), digits), filtered)
            except BudgetSpent:
                continue
            options = ParticleGibbsOptions(n=8, choose="weighted", iterations=1)
            solution = await particle_gibbs(await toy.search(toy.setting(budget), digits), options)
            counted += 1
            assert solution.answer == expected.answer
    assert counted > 10
