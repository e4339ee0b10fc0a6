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
from infer.cost.model import Attention, LatentAttention, ModelSpec, Recurrence
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
DEEPSEEK = {
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
LATENT = read_spec({"model_type": "deepseek_v3", **DEEPSEEK})
INDEXED = read_spec(
    {"model_type": "deepseek_v32", **DEEPSEEK}
    | {"q_lora_rank": 8, "index_n_heads": 2, "index_head_dim": 6, "index_topk": 5}
)
CHUNKED = read_spec(
    {
        "model_type": "llama4_text",
        **TINY,
        "attention_chunk_size": 5,
        "no_rope_layer_interval": 3,
        "num_local_experts": 4,
        "intermediate_size_mlp": 20,
    }
)
HYBRID = read_spec(
    {
        "model_type": "qwen3_5_text",
        **TINY,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 6,
        "linear_value_head_dim": 4,
        "full_attention_interval": 3,
    }
)
BORROWED = read_spec(
    {"model_type": "gemma4_text", **TINY, "num_hidden_layers": 6, "num_kv_shared_layers": 2, "sliding_window": 5}
)
SPECS = {
    "dense": DENSE,
    "local": LOCAL,
    "moe": MOE,
    "streams": STREAMS,
    "latent": LATENT,
    "indexed": INDEXED,
    "chunked": CHUNKED,
    "hybrid": HYBRID,
    "borrowed": BORROWED,
}


def reach(attention: Attention | LatentAttention, query: int) -> range:
    """The positions that the token at this position attends to."""
    if attention.window is None:
        return range(query + 1)
    if isinstance(attention, Attention) and attention.chunked:
        return range(query // attention.window * attention.window, query + 1)
    return range(max(0, query + 1 - attention.window), query + 1)


def pass_cost(spec: ModelSpec, queries: range, logits: int, serving: Serving, *, decode: bool, shared: int) -> Cost:
    """One pass over the tokens at these positions, with each pair of query and key visited."""
    flops = 0.0
    numbers = 0.0
    for mixer, count in [(mixer, count) for layer, count in spec.layers for mixer in layer.mixers]:
        if isinstance(mixer, Recurrence):
            for query in queries:
                flops += count * mixer.flops
                numbers += count * mixer.state * (query == queries[-1])  # written at the pass's end
            numbers += count * mixer.state * (queries[0] > 0)
            continue
        index = mixer.indexer if isinstance(mixer, LatentAttention) else None
        seen = [reach(mixer, query) for query in queries]
        pair = mixer.decode_flops if decode or index else mixer.prefill_flops
        touched = set().union(*seen) | set(queries)
        new = set(queries) if mixer.cache_size else set()  # written; those of a layer that borrows are not
        read: dict[int, float] = dict.fromkeys(touched if decode else touched - set(queries) | new, 1.0)
        chosen = [len(keys) for keys in seen]
        if decode:
            read = {key: 1 / serving.sharers if key < shared else 1.0 for key in touched}
        if index:
            chosen = [min(index.topk, len(keys)) for keys in seen]
            flops += count * index.score_flops * sum(len(keys) for keys in seen)
            numbers += count * index.dim * sum(read.values())
            if decode:
                numbers += count * mixer.kv_size * chosen[0]
                read = {}
        elif decode and not isinstance(spec.decode, Dense) and mixer.window is None:
            assert isinstance(mixer, Attention)
            keys = sorted(touched)
            match spec.decode:
                case TopK(k, free):
                    chosen = [min(k, len(keys))]
                    scanned = 0 if free else sum(read.values())
                    if not free:  # the scan has read the keys: of the chosen tokens only values are read
                        flops += count * mixer.score_flops * len(keys)
                        pair -= mixer.score_flops
                    numbers += count * mixer.kv_size / 2 * (scanned + chosen[0] * (2 if free else 1))
                case BlockTopK(k, block, local):
                    chosen = [min(local + k * block, len(keys))]
                    blocks = [keys[i : i + block] for i in range(0, len(keys), block)]
                    flops += count * mixer.score_flops * len(blocks)
                    scanned = sum(1 / serving.sharers if b[-1] < shared and len(b) == block else 1 for b in blocks)
                    numbers += count * mixer.kv_size * (chosen[0] + scanned / 2)
            read = {}
        flops += count * pair * sum(chosen)
        numbers += count * mixer.kv_size * sum(read.values())
        # the trained prefix of a stream
        flops += count * mixer.decode_flops * len(queries) * spec.prefix
        numbers += count * mixer.kv_size * spec.prefix
        if not decode and not index:
            flops += count * mixer.expand_flops * len(touched - set(queries))
    tokens = len(queries)
    weights = spec.body_bytes(tokens * serving.batch * spec.streams) / serving.batch
    head = (spec.head.read + spec.aggregation_params) / serving.batch
    return Cost(
        Work(2.0 * spec.matrix_params * tokens * spec.streams, weights + tokens * spec.embedding.row * 2),
        Work(spec.streams * flops, spec.streams * numbers * spec.kv_bytes),
        Work(2.0 * (spec.head.matrix_params + spec.aggregation_matrix_params) * logits, head * 2),
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
    spec = replace(SPECS[name], decode=kind if name not in ("latent", "indexed") else Dense())
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
        queries = range(cached, cached + tokens)
        index = attention.indexer if isinstance(attention, LatentAttention) else None
        rectangle = itertools.product(queries, {*reach(attention, cached), *queries})
        pairs = sum(k not in reach(attention, q) for q, k in rectangle)
        masked += layers * pairs * (index.score_flops if index else attention.prefill_flops)
    assert full.flops - causal.flops == spec.streams * masked
    assert full.bytes == causal.bytes


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("tokens", "cached", "passes"), [(3, 0, 4), (1, 7, 9), (6, 2, 3), (5, 5, 2), (4, 1, 1)])
def test_passes_one_after_the_other(name: str, tokens: int, cached: int, passes: int) -> None:
    """As a reward model reads a solution step by step: each pass costs what it costs after the ones before."""
    spec = SPECS[name]
    steps = [prefill_cost(spec, tokens, cached + index * tokens) for index in range(passes)]
    assert parts(prefill_cost(spec, tokens, cached, passes=passes)) == pytest.approx(parts(sum(steps, Cost())))


@pytest.mark.parametrize("name", SPECS)
def test_cache(name: str) -> None:
    """Token by token: those that one more token can still attend to, and the states."""
    spec, prompt, own, samples = SPECS[name], 7, 6, 3
    numbers = samples * spec.state_size
    for attention, layers in spec.attentions:
        kept = range(prompt + own) if attention.window is None else range(prompt + own - attention.window, prompt + own)
        shared = sum(0 <= position < prompt for position in kept)
        numbers += layers * attention.cache_size * (shared + samples * sum(position >= prompt for position in kept))
    assert spec.cache_bytes(own, prompt, samples) == numbers * spec.streams * spec.kv_bytes
    assert spec.cache_bytes(200) - spec.cache_bytes(100) == pytest.approx(
        100 * sum(a.cache_size * n for a, n in spec.attentions if a.window is None) * spec.streams * spec.kv_bytes
    )


def test_a_prefill_in_two_parts_makes_the_same_pairs() -> None:
    whole = prefill_cost(LOCAL, 20)
    first, second = prefill_cost(LOCAL, 9), prefill_cost(LOCAL, 11, 9)
    assert whole.weights.flops == first.weights.flops + second.weights.flops
    assert whole.kv.flops == first.kv.flops + second.kv.flops


def test_decoding_makes_the_pairs_of_prefill() -> None:
    """Decoding token by token takes the same FLOPs as one prefill, in attention and in the matrices."""
    for spec in (DENSE, LOCAL, MOE, STREAMS, CHUNKED, HYBRID, BORROWED, INDEXED):
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
    name=st.sampled_from(sorted(SPECS)),
    amount=st.floats(0, 3e9),
    prefill=st.integers(1, 50),
    most=st.integers(0, 300),
    unit=st.sampled_from(["flops", "bytes", "eflops"]),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_affordable_tokens(name: str, amount: float, prefill: int, most: int, unit: str) -> None:
    """The result is the largest number of tokens that fits: so budgets of FLOPs and dollars hold for every kind."""
    spec = SPECS[name]

    def measure(cost: RequestCost) -> float:
        return {"flops": cost.flops, "bytes": cost.bytes, "eflops": cost.eflops(100)}[unit]

    n = affordable_tokens(spec, amount, measure, prefill=prefill, cached=3, most=most)
    prices = [measure(request_cost(spec, prefill, 3, i)) for i in range(1, most + 1)]
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
