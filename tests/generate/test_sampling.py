"""Drawing tokens: against the definitions, brute force and the published generator, alone and in batches."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from infer.core.generator import Sampling
from infer.generate.sampling import Sampler, pick, streams, uniforms


def allowed(logits: list[float], sampling: Sampling) -> dict[int, float]:
    """The tokens that may be drawn and their probabilities, by the definitions."""
    weights = {i: math.exp(x / sampling.temperature) for i, x in enumerate(logits)}

    def normal(kept: dict[int, float]) -> dict[int, float]:
        total = math.fsum(kept.values())
        return {i: w / total for i, w in kept.items()}

    p = normal(weights)
    p = normal({i: w for i, w in p.items() if w >= sampling.min_p * max(p.values())})
    best = sorted(p, key=lambda i: -p[i])
    p = normal({i: p[i] for i in best[: sampling.top_k or len(best)]})
    nucleus: dict[int, float] = {}
    for i in sorted(p, key=lambda i: -p[i]):
        if math.fsum(nucleus.values()) >= sampling.top_p:
            break
        nucleus[i] = p[i]
    return normal(nucleus)


SAMPLINGS = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.6),
    Sampling(temperature=1.3, top_k=3),
    Sampling(temperature=1.0, top_k=100),
    Sampling(temperature=0.9, top_p=0.7),
    Sampling(temperature=1.0, top_p=0.001),
    Sampling(temperature=1.0, min_p=0.2),
    Sampling(temperature=1.5, top_p=0.8, top_k=6, min_p=0.05),
]


def sampler(samplings: list[Sampling], seeds: list[int] | None = None) -> Sampler:
    found = Sampler()
    found.set_rows(list(zip(samplings, seeds or [0] * len(samplings), strict=True)))
    return found


def stream(seed: int, count: int) -> NDArray[np.float64]:
    return uniforms(streams([seed] * count), np.arange(count, dtype=np.uint64))


def splitmix(state: int) -> tuple[int, int]:
    """The generator as its authors published it. Returns the next state and a number of 64 bits."""
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    z = state
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return state, z ^ (z >> 31)


def test_the_numbers_are_those_of_splitmix64() -> None:
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    state, found = 1234567, []
    for _ in known:
        state, number = splitmix(state)
        found.append(number)
    assert found == known  # published test vector

    for seed in (0, 1, 2**62 + 3, 2**64 - 1, -5, 2**64):
        state = splitmix((seed - 0x9E3779B97F4A7C15) % 2**64)[1]  # the finalizer alone
        expected = []
        for _ in range(5):
            state, number = splitmix(state)
            expected.append((number >> 11) / 2**53)
        assert stream(seed, 5).tolist() == expected


def test_numbers_are_uniform_over_seeds_and_positions_and_in_pairs() -> None:
    """Five tests on fixed seeds. Uniform numbers fail each test with probability 1e-4."""
    side = 400
    seeds, positions = np.meshgrid(np.arange(side, dtype=np.uint64), np.arange(side, dtype=np.uint64), indexing="ij")
    table = uniforms(streams(seeds.ravel().tolist()), positions.ravel()).reshape(side, side)
    assert stats.kstest(table.ravel(), "uniform").pvalue > 1e-4
    neighbours = [
        (table[:, :-1], table[:, 1:]),  # successive tokens
        (table[:-1], table[1:]),  # successive seeds
        (table[:-1, 1:], table[1:, :-1]),  # a seed's next token and the next seed's
        (table[:-1, :-1], table[1:, 1:]),
    ]
    for a, b in neighbours:
        cells = np.histogram2d(a.ravel(), b.ravel(), bins=16, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(cells.ravel()).pvalue > 1e-4


@pytest.mark.parametrize("size", [1, 20, 255, 256, 257, 512, 1000, 50_000])
def test_the_token_picked_is_that_of_the_cumulative_distribution(size: int) -> None:
    random = np.random.default_rng(size)
    weights = random.exponential(size=(200, size)).astype(np.float32) ** 4
    weights[random.random(weights.shape) < 0.5] = 0
    weights[:, random.integers(size)] = 1  # so that no row is all zeros
    uniform = np.concatenate([[0.0, np.nextafter(1, 0)], random.random(198)])
    tokens = pick(torch.from_numpy(weights), torch.from_numpy(uniform)).numpy()
    for row, token in enumerate(tokens):
        cumulative = np.cumsum(weights[row].astype(np.float64)) / weights[row].sum(dtype=np.float64)
        assert weights[row, token] > 0
        assert cumulative[token] >= uniform[row] - 1e-6
        assert cumulative[token] - weights[row, token] / weights[row].sum(dtype=np.float64) <= uniform[row] + 1e-6


def test_probabilities_are_those_of_the_definitions_in_any_company() -> None:
    logits = torch.randn(len(SAMPLINGS), 20, generator=torch.Generator().manual_seed(0)) * 2
    together = sampler(SAMPLINGS).probabilities(logits)
    for row, sampling in enumerate(SAMPLINGS):
        expected = allowed(logits[row].tolist(), sampling)
        exact = torch.tensor([expected.get(i, 0.0) for i in range(20)])
        torch.testing.assert_close(together[row], exact)
        torch.testing.assert_close(sampler([sampling]).probabilities(logits[row : row + 1])[0], exact)


def test_low_temperatures_are_raised_as_vllm_raises_them() -> None:
    vllm = pytest.importorskip("vllm")
    logits = torch.tensor([[1.0, 0.99, 0.9]])
    for temperature in (1e-6, 0.002, 0.01, 0.02):
        raised = vllm.SamplingParams(temperature=temperature).temperature
        torch.testing.assert_close(
            sampler([Sampling(temperature=temperature)]).probabilities(logits), (logits / raised).softmax(-1)
        )
        tokens = sampler([Sampling(temperature=temperature)] * 200).draw(logits.expand(200, -1), range(200))
        assert set(tokens.tolist()) >= {0, 1}


def test_draws_follow_the_probabilities() -> None:
    """A chi-square test over 20,000 draws on fixed seeds. A right sampler fails it with probability 1e-4."""
    logits = torch.randn(1, 20, generator=torch.Generator().manual_seed(1))
    count = 20_000
    tokens = sampler([Sampling(temperature=0.7)] * count, [2] * count).draw(logits.expand(count, -1), range(count))
    observed = tokens.bincount(minlength=20).numpy()
    expected = (logits[0].double() / 0.7).softmax(-1).numpy() * count
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_a_row_depends_on_its_own_seed_and_position_only() -> None:
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(3))
    samplings = [Sampling(temperature=1.0, top_p=0.9), Sampling(temperature=0.5)] * 4
    seeds, positions = list(range(8)), [5, 0, 3, 9, 1, 1, 2, 7]
    together = sampler(samplings, seeds).draw(logits, positions).tolist()
    for i in range(8):
        alone = sampler(samplings[i : i + 1], seeds[i : i + 1]).draw(logits[i : i + 1], positions[i : i + 1])
        assert alone.tolist() == together[i : i + 1]


@pytest.mark.parametrize("size", [100, 256, 300, 1000])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_broken_row_is_some_token_and_spoils_no_other(size: int, broken: float) -> None:
    logits = torch.randn(3, size, generator=torch.Generator().manual_seed(4))
    samplings, positions = [Sampling(temperature=0.9)] * 3, [0, 1, 2]
    whole = sampler(samplings).draw(logits, positions).tolist()
    logits[1] = broken
    first, middle, last = sampler(samplings).draw(logits, positions).tolist()
    assert [first, last] == [whole[0], whole[2]]
    assert 0 <= middle < size
