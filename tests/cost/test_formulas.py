"""The closed forms against sums over tokens, one by one, and against laws."""

import itertools
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer.cost.attention import BlockTopK, Dense, TopK
from infer.cost.config import PUBLIC, read_spec
from infer.cost.formulas import (
    ALONE,
    Cost,
    RequestCost,
    Serving,
    Work,
    affordable_tokens,
    decode_cost,
    prefill_cost,
    request_cost,
)
from infer.cost.model import Attention, LatentAttention, ModelSpec
from infer.errors import UserError

TINY: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 50,
}
DENSE = read_spec({"model_type": "llama", **TINY})
LOCAL = read_spec({"model_type": "gemma3_text", **TINY, "sliding_window": 5, "sliding_window_pattern": 3})
MOE = read_spec(
    {"model_type": "qwen3_moe", **TINY, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
)
STREAMS = replace(DENSE, streams=3, prefix=4)
LATENT = read_spec(
    {
        "model_type": "deepseek_v3",
        **TINY,
        "kv_lora_rank": 6,
        "qk_nope_head_dim": 4,
        "qk_rope_head_dim": 2,
        "v_head_dim": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 8,
        "first_k_dense_replace": 1,
    }
)
SPECS = {"dense": DENSE, "local": LOCAL, "moe": MOE, "streams": STREAMS, "latent": LATENT}


def pass_cost(spec: ModelSpec, queries: range, logits: int, serving: Serving, *, decode: bool, shared: int) -> Cost:
    """One pass over the tokens at these positions, with each pair of query and key visited."""
    flops = 0.0
    numbers = 0.0
    for layer, count in spec.layers:
        attention = layer.attention
        seen = [range(0 if attention.window is None else max(0, q + 1 - attention.window), q + 1) for q in queries]
        pair = attention.decode_flops if decode else attention.prefill_flops
        touched = set().union(*seen) | set(queries)
        read: dict[int, float] = dict.fromkeys(touched, 1.0)  # the queries' own are written instead
        scanned = 0.0
        chosen = [len(keys) for keys in seen]
        if decode:
            read = {key: 1 / serving.sharers if key < shared else 1.0 for key in touched}
            if not isinstance(spec.decode, Dense) and attention.window is None:
                assert isinstance(attention, Attention)
                keys = sorted(touched)
                match spec.decode:
                    case TopK(k, free):
                        chosen = [min(k, len(keys))]
                        scanned = 0 if free else sum(read.values())
                        if not free:  # the scan has read the keys: of the chosen tokens only values are read
                            flops += count * attention.score_flops * len(keys)
                            pair -= attention.score_flops
                        numbers += count * attention.kv_size / 2 * (scanned + chosen[0] * (2 if free else 1))
                    case BlockTopK(k, block, local):
                        chosen = [min(local + k * block, len(keys))]
                        blocks = [keys[i : i + block] for i in range(0, len(keys), block)]
                        flops += count * attention.score_flops * len(blocks)
                        scanned = sum(1 / serving.sharers if b[-1] < shared and len(b) == block else 1 for b in blocks)
                        numbers += count * attention.kv_size * (chosen[0] + scanned / 2)
                read = {}
        flops += count * pair * sum(chosen)
        numbers += count * attention.kv_size * sum(read.values())
        # the trained prefix of a stream
        flops += count * attention.decode_flops * len(queries) * spec.prefix
        numbers += count * attention.kv_size * spec.prefix
        if not decode:
            flops += count * attention.expand_flops * len(touched - set(queries))
    tokens = len(queries)
    params = spec.body_read(tokens * serving.batch * spec.streams) / serving.batch + tokens * spec.hidden
    head = (spec.head.read + spec.aggregation_params) / serving.batch
    return Cost(
        Work(2.0 * spec.matrix_params * tokens * spec.streams, params * spec.weight_bytes),
        Work(spec.streams * flops, spec.streams * numbers * spec.kv_bytes),
        Work(
            2.0 * (spec.head.matrix_params + spec.aggregation_matrix_params) * logits,
            head * spec.weight_bytes,
        ),
        1 / serving.batch,
    )


def parts(cost: Cost) -> list[float]:
    works = (cost.weights, cost.kv, cost.logits)
    return [value for work in works for value in (work.flops, work.bytes)] + [cost.passes]


@pytest.mark.parametrize("name", SPECS)
@given(
    prefill=st.integers(0, 12),
    cached=st.integers(0, 12),
    generated=st.integers(0, 20),
    batch=st.sampled_from([1, 4]),
    sharers=st.sampled_from([1, 4]),
    kind=st.sampled_from([Dense(), TopK(3), TopK(4, free_choice=True), BlockTopK(2, 3), BlockTopK(1, 4, local=2)]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_closed_forms_equal_loops(
    name: str, prefill: int, cached: int, generated: int, batch: int, sharers: int, kind: Any
) -> None:
    spec = replace(SPECS[name], decode=kind if name != "latent" else Dense())
    serving = Serving(batch, sharers)
    prompt = prefill + cached
    cost = request_cost(spec, prefill, cached, generated, serving=serving)
    loop = Cost()
    if prefill:
        loop = pass_cost(spec, range(cached, prompt), 1, serving, decode=False, shared=0)
    assert parts(cost.prefill) == pytest.approx(parts(loop))
    loop = Cost()
    for position in range(prompt, prompt + generated - 1):
        loop += pass_cost(spec, range(position, position + 1), 1, serving, decode=True, shared=prompt)
    assert parts(cost.decode) == pytest.approx(parts(loop))
    assert cost.flops == pytest.approx(cost.prefill.flops + loop.flops)


@pytest.mark.parametrize("name", SPECS)
def test_causal_pairs(name: str) -> None:
    """The full count visits the whole rectangle of queries and keys in reach, the causal one its lower triangle."""
    spec = SPECS[name]
    tokens, cached = 7, 4
    full = prefill_cost(spec, tokens, cached, causal=False)
    causal = prefill_cost(spec, tokens, cached)
    masked = 0
    for attention, layers in spec.attentions:
        window = attention.window or 100
        rectangle = itertools.product(
            range(cached, cached + tokens), range(max(0, cached - window + 1), cached + tokens)
        )
        masked += layers * attention.prefill_flops * sum(not q - window < k <= q for q, k in rectangle)
    assert full.flops - causal.flops == spec.streams * masked
    assert full.bytes == causal.bytes


def test_a_prefill_in_two_parts_makes_the_same_pairs() -> None:
    whole = prefill_cost(LOCAL, 20)
    first, second = prefill_cost(LOCAL, 9), prefill_cost(LOCAL, 11, 9)
    assert whole.weights.flops == first.weights.flops + second.weights.flops
    assert whole.kv.flops == first.kv.flops + second.kv.flops


def test_decoding_makes_the_pairs_of_prefill() -> None:
    """Decoding token by token takes the same FLOPs as one prefill, in attention and in the matrices."""
    for spec in (DENSE, LOCAL, MOE, STREAMS):
        assert decode_cost(spec, 0, 15).kv.flops == prefill_cost(spec, 15).kv.flops
        assert decode_cost(spec, 0, 15).weights.flops == prefill_cost(spec, 15).weights.flops


def test_serving() -> None:
    spec = read_spec(PUBLIC["Qwen/Qwen3-8B"])
    alone = request_cost(spec, 1000, 0, 500)
    batched = request_cost(spec, 1000, 0, 500, serving=Serving(batch=32))
    shared = request_cost(spec, 1000, 0, 500, serving=Serving(batch=32, sharers=32))
    assert alone.flops == batched.flops == shared.flops
    layers = spec.body_params * 2
    assert alone.decode.weights.bytes - batched.decode.weights.bytes == pytest.approx(layers * 499 * 31 / 32)
    assert batched.decode.kv.bytes - shared.decode.kv.bytes == spec.kv_size * 2 * 1000 * 499 * 31 / 32
    assert request_cost(spec, 1000, 0, 500, serving=ALONE) == alone


def test_experts_in_a_batch_read_more_but_less_each() -> None:
    read = [decode_cost(MOE, 10, 1, serving=Serving(batch=n)).weights.bytes * n for n in (1, 2, 8, 1000)]
    assert read == sorted(read)
    everything = (MOE.body_params + 1000 * MOE.hidden) * 2
    assert read[-1] == pytest.approx(everything)
    assert read[1] < 2 * read[0]


@given(
    amount=st.floats(0, 3e9),
    prefill=st.integers(1, 50),
    most=st.integers(0, 300),
    unit=st.sampled_from(["flops", "bytes", "eflops"]),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_affordable_tokens(amount: float, prefill: int, most: int, unit: str) -> None:
    """The result is the largest number of tokens that fits."""

    def measure(cost: RequestCost) -> float:
        return {"flops": cost.flops, "bytes": cost.bytes, "eflops": cost.eflops(100)}[unit]

    n = affordable_tokens(LOCAL, amount, measure, prefill=prefill, cached=3, most=most)
    prices = [measure(request_cost(LOCAL, prefill, 3, i)) for i in range(1, most + 1)]
    assert n == sum(price <= amount for price in prices)
    assert prices == sorted(prices)


def test_adding_and_scaling() -> None:
    cost = request_cost(LOCAL, 9, 2, 7)
    assert (cost + cost).flops == (cost * 2).flops == 2 * cost.flops
    assert (cost + RequestCost()).bytes == cost.bytes
    assert cost.eflops(3) == cost.flops + 3 * cost.bytes
    assert request_cost(LOCAL, 0, 5, 0) == request_cost(LOCAL, 0, 5, 1) == RequestCost()


def test_reward_model_reads_one_position() -> None:
    spec = read_spec(PUBLIC["Qwen/Qwen2.5-Math-PRM-7B"])
    cost = request_cost(spec, 300, 100, 0)
    assert cost.decode == Cost()
    assert cost.prefill.logits.flops == 2 * (3584 * 3584 + 3584 * 2)


def test_sparse_latents_are_refused() -> None:
    assert isinstance(LATENT.attentions[0][0], LatentAttention)
    with pytest.raises(UserError, match="latent"):
        decode_cost(replace(LATENT, decode=TopK(4)), 10, 2)


def test_paper_needs_no_torch() -> None:
    """The ledger prices every request, and `infer cost` answers at once: nothing heavy is imported."""
    modules = "infer.cost.estimate, infer.cost.kinetics, infer.cost.runtime"
    heavy = "{'torch', 'transformers', 'vllm', 'numpy', 'scipy'}"
    code = f"import sys, {modules}; sys.exit(', '.join({heavy} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
