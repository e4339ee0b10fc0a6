"""Idealized runtime: the roofline by hand, and the fit on times made from known lines."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from infer.cost.config import PUBLIC, read_spec
from infer.cost.estimate import Row, estimate
from infer.cost.formulas import RequestCost, Serving, decode_cost, prefill_cost, request_cost
from infer.cost.hardware import HARDWARE, Hardware, find
from infer.cost.model import ModelSpec
from infer.cost.runtime import Line, Runtime, Shape, fit, group_cost
from infer.errors import UserError
from infer.runs.calibrate import GRID

SPEC = read_spec(PUBLIC["Qwen/Qwen3-0.6B"])
MOE = read_spec(PUBLIC["Qwen/Qwen3-30B-A3B"])
H100 = find("h100")


def test_roofline_by_hand() -> None:
    """Llama-3.1-8B on an H100. A decode step at batch 1 is bound by memory: 15.0 GB of weights (all but the embedding)
    at 3.35 TB/s is 4.48 ms. 8,192 tokens of prefill are bound by compute: 2 x 6.98e9 x 8192 FLOPs of the layers,
    4 x 4096 x 32 x 8192^2 / 2 of attention, at 989 TFLOP/s."""
    spec = read_spec(PUBLIC["meta-llama/Llama-3.1-8B"])
    runtime = Runtime(H100, "bfloat16")
    step = RequestCost(decode=decode_cost(spec, 0, 1))
    assert runtime.seconds(step) == pytest.approx(4.48e-3, rel=2e-3)
    prefill = RequestCost(prefill=prefill_cost(spec, 8192))
    assert runtime.seconds(prefill) == pytest.approx(
        (2 * 6.979e9 * 8192 + 4 * 4096 * 32 * 8192**2 / 2) / 989.4e12, rel=2e-3
    )
    assert runtime.dollars(step) == pytest.approx(runtime.seconds(step) * 2.69 / 3600)
    with pytest.raises(UserError, match="no price"):
        Runtime(replace(H100, price=None), "bfloat16").dollars(step)


def test_lines() -> None:
    cost = request_cost(SPEC, 100, 0, 51)
    roof = Runtime(H100, "bfloat16")
    slow = Runtime(H100, "bfloat16", Line(0.5, 2), Line(0.25, 3))
    prefill, decode = RequestCost(prefill=cost.prefill), RequestCost(decode=cost.decode)
    assert slow.seconds(cost) == pytest.approx(0.5 + 2 * roof.seconds(prefill) + 50 * 0.25 + 3 * roof.seconds(decode))
    assert slow.eflops(cost) == cost.flops + 989.4e12 / 3.35e12 * cost.bytes


@pytest.mark.parametrize("spec", [SPEC, MOE], ids=["dense", "experts"])
def test_group_cost_goes_step_by_step(spec: ModelSpec) -> None:
    """The cost equals the sum over steps, in each of which the running requests share the weights."""
    shapes = [Shape(9, 0, 1), Shape(4, 2, 6), Shape(7, 0, 6), Shape(3, 0, 12)]
    cost = group_cost(spec, shapes)
    flops = bytes_ = 0.0
    for step in range(1, 12):
        running = [s for s in shapes if s.generated > step]
        for s in running:
            alone = decode_cost(spec, s.prefill + s.cached + step - 1, 1, serving=Serving(batch=len(running)))
            flops += alone.flops
            bytes_ += alone.bytes
    assert cost.decode.flops == pytest.approx(flops)
    assert cost.decode.bytes == pytest.approx(bytes_)
    assert cost.decode.passes == pytest.approx(11)
    assert cost.prefill.passes == pytest.approx(1)
    assert cost.prefill.flops == sum(prefill_cost(spec, s.prefill, s.cached).flops for s in shapes)


def test_fit_recovers_lines() -> None:
    """The fit recovers lines from times with 2% noise. Without a slowdown it gives zero, never a negative one."""
    draw = random.Random(0)
    cpu = Hardware("cpu", {"bfloat16": 1e11}, 2e10, 1e9)
    truth = Runtime(cpu, "bfloat16", Line(0.004, 3.0), Line(0.006, 2.0))
    times = [truth.seconds(group_cost(SPEC, group)) * draw.gauss(1, 0.02) for group in GRID]
    found = fit(SPEC, cpu, GRID, times)
    assert found.prefill.slowdown == pytest.approx(3, rel=0.1)
    assert found.decode.slowdown == pytest.approx(2, rel=0.1)
    mix = [Shape(100, 0, 80), Shape(30, 0, 20), Shape(200, 0, 50)]
    assert found.seconds(group_cost(SPEC, mix)) == pytest.approx(truth.seconds(group_cost(SPEC, mix)), rel=0.03)
    constant = fit(SPEC, cpu, GRID, [group_cost(SPEC, group).decode.passes + 1.0 for group in GRID])
    assert (constant.decode.overhead, constant.decode.slowdown) == pytest.approx((1.0, 0.0), abs=1e-9)


def test_calibrations_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match="run infer hardware --calibrate Qwen/Qwen3-0"):
        Runtime.kept("Qwen/Qwen3-0.6B")
    runtime = Runtime(H100, "bfloat16", Line(0.1, 2), Line(0.2, 3))
    runtime.keep("Qwen/Qwen3-0.6B")
    assert Runtime.kept("Qwen/Qwen3-0.6B") == runtime
    fp8 = replace(runtime, matrix_dtype="float8")
    fp8.keep("Qwen/Qwen3-0.6B")
    assert Runtime.kept("Qwen/Qwen3-0.6B") == fp8
    (tmp_path / "infer" / "calibration-Qwen-Qwen3-0.6B.json").write_text("{}")
    with pytest.raises(UserError, match="another version"):
        Runtime.kept("Qwen/Qwen3-0.6B")


def test_estimate_of_best_of_n() -> None:
    """32 samples of 8k tokens from Qwen3-0.6B with the 7B reward model, part by part."""
    prm = read_spec(PUBLIC["Qwen/Qwen2.5-Math-PRM-7B"])
    paper = estimate(SPEC, H100, samples=32, tokens=8000, prompt=256, verifier=prm)
    prefill, decode, verifier, total = paper.rows
    assert [row.part for row in paper.rows] == ["generator prefill", "generator decode", "verifier", "total"]
    assert (prefill.tokens, decode.tokens, verifier.tokens) == (256, 256_000, 256_256)
    # 2 FLOPs for each parameter of layers and head, and attention over 4,256 tokens on average
    linear = 2 * (SPEC.params - SPEC.embedding_params + SPEC.head.matrix_params) * 256_000
    attention = 4 * 16 * 128 * 28 * 4256.5 * 256_000
    assert decode.flops == pytest.approx(linear + attention, rel=1e-3)
    # weights once for 32 samples in each of 8,000 steps; keys and values for each
    weights = 2 * SPEC.params * 8000
    cache = 2 * SPEC.kv_size * 4256.5 * 256_000
    assert decode.bytes == pytest.approx(weights + cache, rel=1e-3)
    assert decode.seconds == pytest.approx(decode.bytes / 3.35e12)  # memory-bound
    assert verifier.seconds == pytest.approx(verifier.flops / 989.4e12, rel=0.02)  # compute-bound
    assert total.eflops == pytest.approx(total.flops + 295.34 * total.bytes, rel=1e-4)
    assert total.dollars == pytest.approx(total.seconds * 2.69 / 3600)
    assert paper.memory == 2 * (SPEC.params + prm.params + SPEC.kv_size * (256 + 256_000))


def test_estimate_of_branches() -> None:
    """Two next steps for each of four beams: twice the tokens of four samples, at the same contexts."""
    search = estimate(SPEC, H100, samples=4, tokens=1000, branches=2)
    voting = estimate(SPEC, H100, samples=4, tokens=1000, serving=Serving(batch=8))
    assert search.memory == voting.memory  # of the four that are kept
    beams, samples = search.rows[1], voting.rows[1]
    assert beams.tokens == 2 * samples.tokens
    assert beams.flops == 2 * samples.flops
    assert beams.bytes == pytest.approx(2 * samples.bytes)


def test_estimate_of_a_verifier_that_scores_each_step() -> None:
    """2,000 tokens in steps of 40: the reward model's weights are read for the prompt and for 50 steps, not twice."""
    prm = read_spec(PUBLIC["Qwen/Qwen2.5-Math-PRM-7B"])
    read = (prm.body_params + prm.head.params) * 2

    def scored(step: int | None) -> Row:
        return estimate(SPEC, H100, samples=1, tokens=2000, step=step, verifier=prm).rows[2]

    whole, steps = scored(None), scored(40)
    assert whole.bytes == pytest.approx(2 * read, rel=0.02)
    assert steps.bytes == pytest.approx(51 * read, rel=0.02)
    assert steps.flops == pytest.approx(whole.flops, rel=0.02)  # as many pairs; more scores
    assert scored(2000) == whole
    # a last step of 500 tokens goes on where the first has ended
    passes = prefill_cost(prm, 256), prefill_cost(prm, 1500, 256), prefill_cost(prm, 500, 1756)
    assert scored(1500).flops == pytest.approx(sum(cost.flops for cost in passes))
    # 51 steps of 39 tokens, and a last one of 11
    assert scored(39).bytes == pytest.approx(53 * read, rel=0.02)
    assert estimate(SPEC, H100, samples=1, tokens=0, step=40, verifier=prm).rows[2].tokens == 256


def test_memory_of_windows_and_states() -> None:
    """Gemma 3 27B with 32 sequences of 32,000 tokens, as vLLM keeps them: 10 layers whole, 52 within 1,024 tokens."""
    gemma = read_spec(PUBLIC["google/gemma-3-27b-it"])
    paper = estimate(gemma, H100, samples=32, tokens=32_000, prompt=0)
    layer = 2 * 16 * 128 * 2
    assert paper.memory == 2 * gemma.params + 32 * layer * (10 * 32_000 + 52 * 1024)
    assert paper.memory / 1e9 == pytest.approx(152, abs=1)
    hybrid = read_spec({"model_type": "qwen3_next", "hidden_size": 2048, "num_hidden_layers": 48})
    grown = hybrid.cache_bytes(20_000) - hybrid.cache_bytes(10_000)
    assert grown == 12 * 2 * 2 * 256 * 2 * 10_000  # of the full layers alone
    assert hybrid.state_size == 36 * (32 * 128 * 128 + 3 * 8192)


def test_products_in_8_bits() -> None:
    """Weights and inputs of 8 bits are multiplied at the rate of 8 bits; attention and the head are not."""
    config = PUBLIC["Qwen/Qwen3-8B"]
    plain = read_spec(config)
    fp8 = read_spec({**config, "quantization_config": {"quant_method": "fp8"}})
    cost = request_cost(fp8, 4096, 0, 1)
    work = cost.prefill
    seconds = work.weights.flops / 1978.9e12 + (work.kv.flops + work.logits.flops) / 989.4e12
    assert Runtime.of(fp8, H100).seconds(cost) == pytest.approx(seconds)
    assert seconds < 0.6 * Runtime.of(plain, H100).seconds(request_cost(plain, 4096, 0, 1))
    # an A100 has no rate for it: weights are unpacked
    a100 = find("a100")
    assert Runtime.of(fp8, a100).seconds(cost) == pytest.approx(cost.flops / 312e12)
    deepseek = read_spec(PUBLIC["deepseek-ai/DeepSeek-V3"])
    assert Runtime.of(deepseek, H100).matrix_dtype == "float8"


def test_estimate_without_a_price() -> None:
    assert estimate(SPEC, replace(HARDWARE["h100"], price=None), samples=1, tokens=10).rows[-1].dollars is None
