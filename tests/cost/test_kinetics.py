"""Kinetics' formulas, against results by hand and published results, and where ours differ from them."""

from dataclasses import replace
from statistics import mean

import pytest

from infer.cost import kinetics
from infer.cost.attention import BlockTopK, TopK
from infer.cost.config import PUBLIC, read_spec
from infer.cost.formulas import Serving, decode_cost
from infer.cost.hardware import find
from infer.errors import UserError

# Qwen3-8B: 36 layers, 32 query and 8 key-value heads of 128
SPEC = read_spec(PUBLIC["Qwen/Qwen3-8B"])
QUERY, KEY_VALUE = 36 * 32 * 128, 36 * 8 * 128
PARAMS = 8.19e9  # as the script has it


def test_dense_by_hand() -> None:
    """One sample of 1,000 tokens after a prompt of 200:
    compute 2 x 8.19e9 x 1000 + 2 x (400 + 1000) x 1000 x 147,456 = 1.638e13 + 4.128768e11
    memory  2 x (400 + 1000) x 1000 x 36,864 = 1.0321920e11 bytes, x 562.5 = 5.80608e13
    """
    cost = kinetics.dense(SPEC, 200, 1000, params=PARAMS)
    assert cost.compute == pytest.approx(1.638e13 + 4.128768e11)
    assert cost.memory == pytest.approx(5.80608e13)
    assert cost.eflops == pytest.approx(7.48536768e13)


def test_trials_share_the_prompt() -> None:
    """Equation 4: N samples read the prompt's cache once, and each reads the cache of its own tokens."""
    one, four = kinetics.dense(SPEC, 200, 1000, 1), kinetics.dense(SPEC, 200, 1000, 4)
    assert four.compute == 4 * one.compute
    assert four.memory == pytest.approx(562.5 * 2 * (400 + 4000) * 1000 * KEY_VALUE)


def test_sparse_by_hand() -> None:
    """After a prompt of 200, each step attends to 1,024 tokens. The corner is 824^2 / 2 = 339,488 pairs."""
    pairs, corner = 1024 * 4000, 339_488
    top = kinetics.topk(SPEC, 200, 4000, 1024, params=PARAMS)
    assert top.compute == pytest.approx(2 * PARAMS * 4000 + 4 * (pairs + corner) * QUERY)
    assert top.memory == pytest.approx(562.5 * 4 * (pairs + corner) * KEY_VALUE)
    blocks = kinetics.block_topk(SPEC, 200, 4000, 64, 16, params=PARAMS)
    scored = (400 + 4000) // 16 * 4000  # 275 blocks on average
    assert blocks.compute == pytest.approx(2 * PARAMS * 4000 + 4 * (pairs - corner) * QUERY + scored * QUERY)
    assert blocks.memory == pytest.approx(562.5 * (4 * (pairs - corner) + scored) * KEY_VALUE)
    assert (top.compute - blocks.compute) + scored * QUERY == pytest.approx(8 * corner * QUERY)


# First problem of AIME 2024 in the authors' results (github.com/Infini-AI-Lab/Kinetics, cost_model/aime24/*/*.csv):
# lengths of 32 samples; compute and memory by number of trials, in 10^12, means over the samples. The files do not name
# the prompt's length; 155 tokens is the one integer that the first figure leaves.
PROMPT = 155
DENSE_06B = [13063, 22187, 16921, 9094, 11544, 10371, 14211, 24453, 10036, 12559, 20283, 6202, 9079, 10744, 30767, 7852]
DENSE_06B += [12486, 17052, 14432, 11699, 3822, 16273, 14984, 20838, 6687, 12773, 11685, 12518, 6197, 8365, 7970, 22637]
TOPK_8B = [12320, 10268, 14704, 11751, 8935, 15893, 11571, 14046, 27294, 11218, 11746, 10692, 23910, 10866, 29917]
TOPK_8B += [11260, 10587, 12120, 11975, 28787, 9209, 11009, 30767, 30316, 14303, 12242, 11536, 8893, 19008, 12998]
TOPK_8B += [30767, 26120]
BLOCK_8B = [10238, 30767, 11963, 12777, 9715, 16134, 16538, 11023, 10200, 30767, 14016, 13061, 11286, 14032, 13155]
BLOCK_8B += [9947, 11487, 30767, 12431, 15507, 12246, 11891, 15643, 20678, 13742, 11060, 28172, 11390, 9458, 17437]
BLOCK_8B += [30767, 9318]


def means(costs: list[kinetics.Published]) -> list[float]:
    return [mean(cost.compute for cost in costs) / 1e12, mean(cost.memory for cost in costs) / 1e12]


@pytest.mark.parametrize(
    ("trials", "compute", "memory"),
    [
        (1, 45.41593152256, 7092.02349072),
        (2, 90.83186304512, 14049.748077119999),
        (8, 363.32745218048, 55796.09559552),
        (32, 1453.30980872192, 222781.48566912),
    ],
)
def test_published_results_dense(trials: int, compute: float, memory: float) -> None:
    """Qwen3-0.6B, its head counted twice."""
    spec = read_spec(PUBLIC["Qwen/Qwen3-0.6B"])
    costs = [kinetics.dense(spec, PROMPT, g, trials, params=0.752e9) for g in DENSE_06B]
    assert means(costs) == pytest.approx([compute, memory], rel=1e-12)


@pytest.mark.parametrize(
    ("trials", "compute", "memory"),
    [(1, 274.63499027913593, 1403.617890816), (32, 8788.31968893235, 44915.772506112)],
)
def test_published_results_topk(trials: int, compute: float, memory: float) -> None:
    """Qwen3-8B, 1,024 tokens."""
    costs = [kinetics.topk(SPEC, PROMPT, g, 1024, trials, params=PARAMS) for g in TOPK_8B]
    assert means(costs) == pytest.approx([compute, memory], rel=1e-12)


@pytest.mark.parametrize(
    ("trials", "compute", "memory"),
    [(1, 267.02939694549593, 1731.620048976), (32, 8544.94070225587, 55222.19278164)],
)
def test_published_results_block_topk(trials: int, compute: float, memory: float) -> None:
    """Qwen3-8B, 64 blocks of 16: these results were made when the sign was wrong in this formula too."""
    costs = [kinetics.block_topk(SPEC, PROMPT, g, 64, 16, trials=trials, params=PARAMS) for g in BLOCK_8B]
    corner = (1024 - PROMPT) ** 2 / 2
    wrong = 2 * 4 * corner * trials / 1e12
    corrected = [compute - wrong * QUERY, memory - 562.5 * wrong * KEY_VALUE]
    assert means(costs) == pytest.approx(corrected, rel=1e-12)


def test_the_intensity_is_b200s_float8_rate() -> None:
    b200 = find("b200")
    assert b200.intensity("float8") == kinetics.INTENSITY
    assert b200.intensity("bfloat16") == kinetics.INTENSITY / 2


@pytest.mark.parametrize(("context", "generated", "trials"), [(200, 1000, 1), (200, 1000, 32), (3000, 500, 4)])
def test_ours_with_their_assumptions_dense(context: int, generated: int, trials: int) -> None:
    """Our attention costs differ from theirs only in that we sum over steps and they integrate.

    So each step of ours has half a key more than the middle of its interval.
    """
    ours = decode_cost(SPEC, context, generated, serving=Serving(batch=trials, sharers=trials)).kv * trials
    theirs = kinetics.dense(SPEC, context, generated, trials)
    linear = 2 * SPEC.params * generated * trials
    assert ours.flops - 4 * QUERY * generated / 2 * trials == pytest.approx(theirs.compute - linear)
    assert ours.bytes - 4 * KEY_VALUE * generated / 2 * trials == pytest.approx(theirs.memory / 562.5)


@pytest.mark.parametrize("context", [200, 5000])
def test_ours_with_their_assumptions_sparse(context: int) -> None:
    """Block top-k agrees up to the rounding of sums, and so does top-k once its sign is corrected."""
    generated, k, block = 4000, 64, 16
    corner = max(0, k * block - context) ** 2 / 2
    ours = decode_cost(replace(SPEC, decode=BlockTopK(k, block)), context, generated).kv
    theirs = kinetics.block_topk(SPEC, context, generated, k, block)
    linear = 2 * SPEC.params * generated
    assert ours.flops == pytest.approx(theirs.compute - linear, rel=2e-3)
    assert ours.bytes * 562.5 == pytest.approx(theirs.memory, rel=2e-3)
    ours = decode_cost(replace(SPEC, decode=TopK(k * block, free_choice=True)), context, generated).kv
    theirs = kinetics.topk(SPEC, context, generated, k * block)
    assert ours.flops == pytest.approx(theirs.compute - linear - 8 * corner * QUERY, rel=2e-4)
    assert ours.bytes * 562.5 == pytest.approx(theirs.memory - 562.5 * 8 * corner * KEY_VALUE, rel=2e-4)


def test_the_corner_is_cut_off_in_short_generations() -> None:
    """100 tokens after 200 attend to all tokens, 250 on average, since 1,024 are allowed.

    The published formulas give 4,419 and -2,370 a step.
    """
    ours = decode_cost(replace(SPEC, decode=BlockTopK(64, 16)), 200, 100).kv
    assert ours.flops == pytest.approx(4 * 250.5 * 100 * QUERY + 2 * QUERY * 16.2 * 100, rel=1e-3)
    linear = 2 * SPEC.params * 100
    assert kinetics.topk(SPEC, 200, 100, 1024).compute - linear == pytest.approx(4 * 4418.88 * 100 * QUERY)
    assert kinetics.block_topk(SPEC, 200, 100, 64, 16).compute - linear < 0


def test_weights_are_most_of_the_bytes_at_small_batches() -> None:
    """The published model omits weights. A lone sample of 4,000 tokens reads 40 times the cache's bytes in them."""
    alone = decode_cost(SPEC, 200, 4000)
    assert alone.weights.bytes / alone.kv.bytes > 30
    batched = decode_cost(SPEC, 200, 4000, serving=Serving(batch=256))
    assert batched.weights.bytes < 0.2 * batched.kv.bytes


def test_other_attention_is_refused() -> None:
    with pytest.raises(UserError, match="full grouped-query"):
        kinetics.dense(read_spec(PUBLIC["google/gemma-3-1b-it"]), 10, 10)
    assert kinetics.dense(replace(SPEC, vocab=1), 10, 10).eflops > 0
