"""Particle filtering: exact expectations over all random choices, the paper's weights, degenerate scores."""

import math
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infer.core.generator import Completion, Sampling
from infer.core.problem import Problem
from infer.core.tree import Finish, Node
from infer.errors import BudgetSpent
from infer.strategies import particle_filter as strategy
from infer.strategies.particle_filter import ParticleFilterOptions, particle_filter
from infer.strategies.parts import particles as module
from infer.strategies.parts.particles import ROUNDING, Particles
from infer.strategies.parts.resampling import RESAMPLING, normalized
from infer.testing import toy
from tests import tree_model
from tests.enumeration import Choices, enumerated, runs

Masses = dict[tuple[int, ...], float]


async def run_filter(search: Any, options: ParticleFilterOptions, particles: Particles) -> None:
    resample = vars(strategy)["RESAMPLING"][options.resampling]  # a test may have replaced it
    await module.run_filter(search, particles, options.mode, options.ess, resample, options.temperature_at)


async def expectation(monkeypatch: pytest.MonkeyPatch, options: ParticleFilterOptions, **model: Any) -> Masses:
    """The exact expectation of each trajectory's estimated mass, sum_i w_i [y_i = y] / n."""

    async def run(choices: Choices) -> Particles:
        scheme = enumerated(RESAMPLING[options.resampling], choices)
        monkeypatch.setattr(strategy, "RESAMPLING", {options.resampling: scheme})
        particles = Particles.start((search := await tree_model.search(choices, **model)).root, options.n)
        await run_filter(search, options, particles)
        return particles

    mass: Masses = defaultdict(float)
    total = evidence = 0.0
    async for probability, particles in runs(run):
        total += probability
        evidence += probability * math.exp(particles.log_evidence)
        for node, weight in zip(particles.nodes, np.exp(particles.log_weights), strict=True):
            mass[tree_model.tokens(node)] += probability * weight / len(particles.nodes)
        monkeypatch.undo()
    assert total == pytest.approx(1)
    assert evidence == pytest.approx(math.fsum(mass.values()))
    return mass


@pytest.mark.parametrize("ess", [1.0, 0.8])
@pytest.mark.parametrize("resampling", sorted(RESAMPLING))
async def test_exact_mode_is_unbiased(monkeypatch: pytest.MonkeyPatch, resampling: Any, ess: float) -> None:
    options = ParticleFilterOptions(n=2, mode="smc", resampling=resampling, ess=ess)
    posterior, constant = tree_model.posterior()
    mass = await expectation(monkeypatch, options)
    assert mass == pytest.approx({y: constant * probability for y, probability in posterior.items()})


@pytest.mark.parametrize("anneal_from", [None, 5.0, 0.2])
async def test_a_temperature_is_a_power_of_the_reward_and_annealing_leaves_the_target(
    monkeypatch: pytest.MonkeyPatch, anneal_from: float | None
) -> None:
    options = ParticleFilterOptions(
        n=2, mode="smc", resampling="systematic", temperature=0.5, anneal_from=anneal_from, anneal_steps=7
    )
    posterior, constant = tree_model.posterior(power=2)
    mass = await expectation(monkeypatch, options)
    assert mass == pytest.approx({y: constant * probability for y, probability in posterior.items()})


async def test_exact_mode_goes_on_after_a_score_of_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ParticleFilterOptions(n=2, mode="smc", resampling="systematic")
    posterior, constant = tree_model.posterior()
    mass = await expectation(monkeypatch, options, zero=[(0,), (0, 1)])
    assert mass == pytest.approx({y: constant * probability for y, probability in posterior.items()})


@pytest.mark.parametrize("budget", ["5tok", "5prm"])
async def test_a_budget_that_thins_the_particles_leaves_exact_mode_unbiased(
    monkeypatch: pytest.MonkeyPatch, budget: str
) -> None:
    """The budget is five steps. Two particles take one each, and then one particle goes on unless one has ended."""
    options = ParticleFilterOptions(n=3, mode="smc", resampling="systematic")
    posterior, constant = tree_model.posterior(depth=2)
    mass = await expectation(monkeypatch, options, depth=2, budget=budget)
    assert mass == pytest.approx({y: constant * probability for y, probability in posterior.items()})


async def test_the_papers_mode_estimates_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    mass = await expectation(monkeypatch, ParticleFilterOptions(n=2, mode="paper"))
    posterior, _ = tree_model.posterior()
    total = math.fsum(mass.values())
    assert max(abs(mass[y] / total - posterior[y]) for y in posterior) > 0.05


def reference_filter(options: ParticleFilterOptions, choices: Choices) -> Masses:
    """The paper's pseudocode, over tuples of tokens. Returns the final softmax weights."""

    def ended(y: tuple[int, ...]) -> bool:
        return y not in {(), *((t[:k]) for t in tree_model.trajectories() for k in (1, 2) if len(t) > k)}

    def theta(particles: list[tuple[int, ...]]) -> list[float]:
        odds = [tree_model.score(y) / (1 - tree_model.score(y)) for y in particles]
        powers = [value ** (1 / options.temperature) for value in odds]
        return [power / sum(powers) for power in powers]

    def step(y: tuple[int, ...]) -> tuple[int, ...]:
        return y if ended(y) else (*y, choices.pick(tree_model.probabilities(y)))

    particles = [step(()) for _ in range(options.n)]
    while not all(map(ended, particles)):
        weights = theta(particles)
        drawn = [particles[choices.pick(weights)] for _ in particles]
        particles = [step(y) for y in drawn]
    final: Masses = defaultdict(float)
    for y, weight in zip(particles, theta(particles), strict=True):
        final[y] += weight
    return final


@pytest.mark.parametrize("temperature", [1.0, 0.4])
async def test_the_papers_mode_is_the_papers_algorithm(monkeypatch: pytest.MonkeyPatch, temperature: float) -> None:
    """Both give each trajectory the same expected final weight. All random choices are enumerated on both sides."""
    options = ParticleFilterOptions(n=2, temperature=temperature)

    async def ours(choices: Choices) -> Masses:
        monkeypatch.setattr(strategy, "RESAMPLING", {"multinomial": enumerated(RESAMPLING["multinomial"], choices)})
        particles = Particles.start((search := await tree_model.search(choices)).root, options.n)
        await run_filter(search, options, particles)
        monkeypatch.undo()
        final: Masses = defaultdict(float)
        for node, weight in zip(particles.nodes, particles.weights, strict=True):
            final[tree_model.tokens(node)] += weight
        return final

    async def theirs(choices: Choices) -> Masses:
        return reference_filter(options, choices)

    means = []
    for run in (ours, theirs):
        mean: Masses = defaultdict(float)
        async for probability, final in runs(run):
            for y, weight in final.items():
                mean[y] += probability * weight
        means.append(mean)
    assert means[0] == pytest.approx(means[1])


@pytest.mark.parametrize("mode", ["paper", "smc"])
async def test_one_particle_is_plain_sampling_in_steps(mode: Any) -> None:
    for digits in map(str, range(10)):
        solution = await particle_filter(await toy.search(toy.setting(), digits), ParticleFilterOptions(n=1, mode=mode))
        search = await toy.search(toy.setting(), digits)
        node = search.root
        while not node.final:
            (node,) = await search.sample(node)
        assert [candidate.text for candidate in solution.candidates] == [node.completion]


async def test_finished_particles_stay_as_they_are_and_take_part() -> None:
    """Copies of one prefix continue independently. A finished particle is neither sampled nor scored again."""
    for digits in map(str, range(20)):
        search = await toy.search(toy.setting(sampling=Sampling(temperature=1.0, max_tokens=60)), digits)
        particles = Particles.start(search.root, 6)
        seen: set[Node] = set()
        while not particles.final:
            before = list(particles.nodes)
            passes = search.ledger.usage.passes
            await particles.advance(search)
            new = [node for node in particles.nodes if node not in seen and node not in before]
            assert len(set(new)) == len(new) == sum(not node.final for node in before)
            assert search.ledger.usage.passes - passes <= len(new)
            for old, node in zip(before, particles.nodes, strict=True):
                assert node is old if old.final else node.parent is old
            seen |= set(new)
            particles.weigh(search, "paper", 1.0)
            particles.resample(search, RESAMPLING["multinomial"](particles.weights, 6, search.rng))


async def test_weights_of_the_modes() -> None:
    search = await tree_model.search(Choices())
    particles = Particles.start(search.root, 1)
    scores = []
    for _ in range(3):
        await particles.advance(search)
        scores.append(tree_model.score(tree_model.tokens(particles.nodes[0])))
        particles.weigh(search, "smc", 1.0)
        assert particles.log_evidence == pytest.approx(math.log(scores[-1]))
        particles.weigh(search, "paper", 2.0)
        assert particles.log_weights == pytest.approx([math.log(scores[-1] / (1 - scores[-1])) / 2])
        particles.weigh(search, "smc", 1.0)
        particles.log_weights = particles.log_potentials  # as if only this mode had set weights
    assert len(set(scores)) > 1


class Constant(toy.ToyVerifier):
    """Gives every step the same score."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    async def score(self, problem: Problem, steps: Any, known: int, finished: bool) -> Any:
        scores = await super().score(problem, steps, known, finished)
        scores.values[:] = [self.value] * len(scores.values)
        return scores


@pytest.mark.parametrize("choose", ["prm", "weighted", "draw"])
@pytest.mark.parametrize("mode", ["paper", "smc"])
@pytest.mark.parametrize("value", [0.0, 1.0])
async def test_scores_of_zero_and_one_are_no_certainty(value: float, mode: Any, choose: Any) -> None:
    """If all scores are 0 or all are 1, all particles weigh the same and the normalizing constant is finite."""
    setting = toy.setting(verifier=Constant(value))
    options = ParticleFilterOptions(n=4, mode=mode, choose=choose, temperature=0.01)
    search = await toy.search(setting)
    particles = Particles.start(search.root, 4)
    await run_filter(search, options, particles)
    assert particles.weights == pytest.approx([0.25] * 4)
    assert math.isfinite(particles.log_evidence)
    solution = await particle_filter(await toy.search(setting), options)
    assert solution.chosen is not None


async def test_an_answer_without_a_step_weighs_next_to_nothing() -> None:
    search = await toy.search(toy.setting())
    blank = Node(search.root, 0, [toy.END], 1, "", "end", scores=[])
    begun = Node(search.root, 1, [toy.DELIMITER], 1, "\n\n", "step", scores=[])
    particles = Particles([blank, begun], np.zeros(2), np.zeros(2))
    particles.weigh(search, "smc", 1.0)
    assert particles.log_weights == pytest.approx([math.log(ROUNDING), 0.0])


async def test_a_draw_is_by_weight_among_the_finished() -> None:
    """10,000 draws follow the weights of the finished particles. A chi-square this large has probability 1e-6."""
    search = await toy.search(toy.setting())
    ends: list[Finish] = ["end", "step", "end", "end"]
    nodes = [Node(search.root, i, [i], 1, str(i), finish) for i, finish in enumerate(ends)]
    weights = np.array([0.1, 0.4, 0.2, 0.3])
    options = ParticleFilterOptions(choose="draw")
    drawn = Counter([(await module.select(search, options, nodes, weights)) for _ in range(10_000)])
    expected = {nodes[i]: 10_000 * w for i, w in ((0, 1 / 6), (2, 2 / 6), (3, 3 / 6))}
    assert set(drawn) == set(expected)
    assert sum((drawn[node] - e) ** 2 / e for node, e in expected.items()) < 27.7
    weightless = await module.select(search, options, nodes, np.array([0.0, 1.0, 0.0, 0.0]))
    assert weightless is nodes[1], "nothing among the finished to draw from"


async def test_the_weighted_vote_adds_the_weights_of_equal_answers() -> None:
    search = await toy.search(toy.setting())
    nodes = [Node(search.root, i, [], 1, text, "end", scores=[0.5]) for i, text in enumerate("122")]
    vote = ParticleFilterOptions(choose="weighted")
    assert await module.select(search, vote, nodes, normalized(np.log([0.4, 0.3, 0.3]))) is nodes[1]
    assert await module.select(search, vote, nodes, normalized(np.log([0.6, 0.1, 0.3]))) is nodes[0]


async def test_dropped_particles_are_pruned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    search = await toy.search(toy.setting(sampling=Sampling(temperature=1.0, max_tokens=60)))
    pruned: list[Node] = []
    monkeypatch.setattr(search, "prune", pruned.extend)
    particles = Particles.start(search.root, 6)
    await run_filter(search, ParticleFilterOptions(n=6), particles)
    assert pruned
    assert len(set(pruned)) == len(pruned)
    ancestors = {part for node in particles.nodes for part in node.trajectory}
    assert not ancestors & set(pruned)


async def test_resampling_only_where_the_weights_are_uneven(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def counting(weights: Any, n: int, rng: Any) -> Any:
        calls.append(weights)
        return RESAMPLING_MULTINOMIAL(weights, n, rng)

    RESAMPLING_MULTINOMIAL = RESAMPLING["multinomial"]
    monkeypatch.setattr(strategy, "RESAMPLING", {"multinomial": counting})
    sizes = {}
    for ess in (1.0, 0.5, 1e-6):
        calls.clear()
        search = await toy.search(toy.setting(sampling=Sampling(temperature=1.0, max_tokens=60)))
        await particle_filter(search, ParticleFilterOptions(n=6, ess=ess))
        sizes[ess] = [1 / float(np.square(w).sum()) for w in calls]
    assert all(size < 0.5 * 6 for size in sizes[0.5])
    assert any(size >= 0.5 * 6 for size in sizes[1.0])
    assert sizes[0.5]
    assert not sizes[1e-6]
    for ess, resampled in ((1.0, True), (0.9, False)):
        calls.clear()
        await particle_filter(await toy.search(toy.setting(verifier=Constant(0.5))), ParticleFilterOptions(ess=ess))
        assert bool(calls) == resampled, "1 is at every step, even where all weigh the same"


def test_temperatures_fall_in_a_line() -> None:
    options = ParticleFilterOptions(temperature=1.0, anneal_from=3.0, anneal_steps=4)
    assert [options.temperature_at(step) for step in range(6)] == [3.0, 2.5, 2.0, 1.5, 1.0, 1.0]
    assert ParticleFilterOptions(temperature=0.7).temperature_at(0) == 0.7


class Even(toy.ToyGenerator):
    """Four steps of four tokens, whatever is drawn."""

    async def generate(self, request: Any) -> Any:
        size = min(4, request.max_tokens)
        self.generated += request.n * size
        last = len(request.prompt) == 1 + 3 * 4
        tokens = [3] * (size - 1) + [toy.END if last else toy.DELIMITER]
        done = Completion(tokens, size, toy.decode(tokens), "end" if last else "step", None, 1, 0)
        return [done if size == 4 else replace(done, finish="length")] * request.n


async def test_a_scarce_budget_is_left_to_fewer_particles() -> None:
    """Eight particles need 128 tokens, and all end at the same step. With fewer tokens, none of eight would finish."""
    for amount in range(44, 128):
        search = await toy.search(toy.setting(f"{amount}tok", generator=Even()))
        solution = await particle_filter(search, ParticleFilterOptions(n=8))
        assert solution.finished
        assert solution.usage.generated > 0.7 * amount


@pytest.mark.parametrize("unit", ["flops", "eflops", "usd"])
async def test_a_priced_budget_keeps_all_particles_or_lets_some_end(unit: str) -> None:
    ample = toy.setting(generator=Even())
    usage = (await particle_filter(await toy.search(ample), ParticleFilterOptions(n=8))).usage
    cost = {"flops": usage.flops, "eflops": usage.eflops, "usd": usage.dollars}[unit]
    assert cost is not None
    for share in (100, 4, 0.9, 0.7, 0.5):
        search = await toy.search(toy.setting(f"{cost * share:.20f}{unit}", generator=Even()))
        solution = await particle_filter(search, ParticleFilterOptions(n=8))
        assert solution.finished
        finished = sum(candidate.finished for candidate in solution.candidates)
        assert finished == 8 if share > 1 else 0 < finished < 8


async def test_how_many_particles_a_budget_covers() -> None:
    search = await toy.search(toy.setting("39tok"))
    assert module.covered(search, [search.root] * 30) == 19
    steps = [Node(search.root, i, [], size, "", "step") for i, size in enumerate((2, 8, 5, 3))]
    done = Node(search.root, 4, [], 9, "", "end")
    assert module.covered(search, [*steps, done]) == 3, "two more steps of eight tokens for two, and the finished one"
    assert module.covered(search, [done, steps[0]]) == 2
    passes = await toy.search(toy.setting("7prm"))
    assert module.covered(passes, [*steps, done]) == 4
    for budget in (None, "9s"):
        free = await toy.search(toy.setting(budget))
        assert module.covered(free, [*steps, done]) == 5


async def test_a_budget_spent_before_anything_is_finished_is_noted() -> None:
    with pytest.raises(BudgetSpent):
        await particle_filter(await toy.search(toy.setting("1tok")), ParticleFilterOptions(n=4))


async def test_the_solution_tells_the_weights_and_the_evidence() -> None:
    options = ParticleFilterOptions(n=6, mode="smc")
    for digits in map(str, range(10)):
        solution = await particle_filter(await toy.search(toy.setting(), digits), options)
        again = Particles.start((search := await toy.search(toy.setting(), digits)).root, 6)
        await run_filter(search, options, again)
        expected: Masses = defaultdict(float)
        for node, weight in zip(again.nodes, again.weights, strict=True):
            expected[node.address] += weight
        told = {candidate.address: candidate.weight for candidate in solution.candidates if candidate.weight}
        assert told == pytest.approx(expected)
        assert solution.log_evidence == pytest.approx(again.log_evidence)
    paper = await particle_filter(await toy.search(toy.setting()), ParticleFilterOptions(n=6))
    assert paper.log_evidence is None
    assert sum(candidate.weight or 0.0 for candidate in paper.candidates) == pytest.approx(1)
