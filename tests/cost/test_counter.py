"""FLOPs equal what torch.utils.flop_counter sees in real forward passes, bytes the tensors' sizes.

Eager attention multiplies every query with every key it is given, so prefill is compared with `causal=False`.
"""

from dataclasses import replace
from typing import Any

import pytest

from infer.cost.config import read_spec
from infer.cost.formulas import decode_cost, prefill_cost
from infer.cost.model import Indexer, LatentAttention, ModelSpec, Weights
from infer.nano import checkpoint
from infer.runs.models import packaged

pytestmark = pytest.mark.models

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LATENT = {
    "q_lora_rank": 20,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 6, "mamba_n_groups": 2}
# full and sliding layers in turn
MIXED = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-bias": {"model_type": "llama", "attention_bias": True, "tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "qwen3-moe": {"model_type": "qwen3_moe", "head_dim": 16, **EXPERTS},
    "qwen2-moe": {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 28, **EXPERTS},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "mistral": {"model_type": "mistral", "sliding_window": 6},
    "gemma3": {"model_type": "gemma3_text", "head_dim": 16, **MIXED},
    # plain MLPs, biases, positions, a gate of attention, keys and values of other sizes, and borrowed ones
    "starcoder2": {"model_type": "starcoder2"},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 96},
    "gpt-neox": {"model_type": "gpt_neox"},
    "phi": {"model_type": "phi"},
    "falcon": {"model_type": "falcon", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4},
    "apertus": {"model_type": "apertus"},
    "glm4-moe": {"model_type": "glm4_moe", **LATENT},
    "gpt-oss": {"model_type": "gpt_oss", "head_dim": 16, "num_local_experts": 4, **MIXED},
    "afmoe": {"model_type": "afmoe", "num_dense_layers": 1, "head_dim": 16, **EXPERTS, **MIXED},
    "minimax-m2": {"model_type": "minimax_m2", "num_local_experts": 4, "num_experts_per_tok": 2},
    "mimo": {
        "model_type": "mimo_v2_flash",
        "head_dim": 12,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        **MIXED,
    },
}
RECURRENT: dict[str, dict[str, Any]] = {
    "qwen3-next": {"model_type": "qwen3_next", **LINEAR, **EXPERTS, "shared_expert_intermediate_size": 28},
    "qwen3.5": {"model_type": "qwen3_5_text", **LINEAR},
    "olmo-hybrid": {"model_type": "olmo_hybrid", **LINEAR},
    "bamba": {"model_type": "bamba", "attn_layer_indices": [1], **MAMBA},
    "falcon-h1": {"model_type": "falcon_h1", "mamba_d_ssm": 64, **MAMBA},
    "granite-hybrid": {
        "model_type": "granitemoehybrid",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": LINEAR["layer_types"],
        **MAMBA,
    },
    "lfm2": {"model_type": "lfm2", "full_attn_idxs": [1], "block_multiple_of": 8},
    "minimax": {"model_type": "minimax", "num_local_experts": 4, "layer_types": LINEAR["layer_types"]},
}
LATENTS: dict[str, dict[str, Any]] = {
    "deepseek-v2": {"model_type": "deepseek_v2", **LATENT},
    "deepseek-v3": {"model_type": "deepseek_v3", **LATENT},
}


def build(config: dict[str, Any]) -> tuple[Any, ModelSpec]:
    import torch
    import transformers

    torch.manual_seed(0)
    made = transformers.AutoConfig.for_model(**{**TINY, **config})
    made._attn_implementation = "eager"
    made._experts_implementation = "eager"  # a product for each expert that is hit: the counter knows no grouped ones
    model = transformers.AutoModelForCausalLM.from_config(made).eval()
    return model, read_spec(model.config, dtype="float32")


def flops_of(counter: Any) -> int:
    """The counted FLOPs without the angles of rotary embeddings, which some versions of transformers compute."""
    angles = (ops for module, ops in counter.get_flop_counts().items() if module.endswith("rotary_emb"))
    return int(counter.get_total_flops() - sum(sum(ops.values()) for ops in angles))


def counted(model: Any, tokens: int, cache: Any = None, **options: Any) -> tuple[int, Any]:
    """FLOPs of a forward pass over so many tokens, and the cache after it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.arange(tokens)[None] % 50
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, **options)
    return flops_of(counter), output.past_key_values


def check(model: Any, spec: ModelSpec) -> None:
    """Checks prefill, prefill after cached tokens, and decode after both. The tokens exceed the windows on the way."""
    flops, cache = counted(model, 11, logits_to_keep=1)
    assert flops == prefill_cost(spec, 11, causal=False).flops
    flops, cache = counted(model, 4, cache)
    assert flops == prefill_cost(spec, 4, 11, logits=4, causal=False).flops
    total = 0
    for _ in range(3):
        flops, cache = counted(model, 1, cache)
        total += flops
    assert total == decode_cost(spec, 15, 3).flops


@pytest.mark.parametrize("name", VARIANTS)
def test_flops(name: str) -> None:
    check(*build(VARIANTS[name]))


@pytest.mark.parametrize("name", RECURRENT)
def test_flops_and_bytes_of_recurrent_layers(name: str) -> None:
    """All matrix products of a decode step but those with the state, which transformers partly multiplies out.

    The state is as large as transformers keeps it, after any number of tokens.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, spec = build(RECURRENT[name])
    _, cache = counted(model, 11)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones(1, 1, dtype=torch.long), past_key_values=cache, use_cache=True)
    modules = dict(model.named_modules())
    recurrent = {name.rpartition(".")[0] for name, module in modules.items() if isinstance(module, torch.nn.Conv1d)}
    recurrent |= {name for name, module in modules.items() if "Lightning" in type(module).__name__}
    products = torch.ops.aten.mm, torch.ops.aten.addmm
    flops = flops_of(counter)
    for module, ops in counter.get_flop_counts().items():
        if module.partition(".")[2] in recurrent:
            flops -= sum(count for op, count in ops.items() if op not in products)
    kernels = [module.weight for module in modules.values() if isinstance(module, torch.nn.Conv1d)]
    states = sum(recurrence.flops * layers for recurrence, layers in spec.recurrences)
    assert flops == decode_cost(spec, 11, 1).flops - states - 2 * sum(p.numel() for p in kernels)
    kept = spec.state_size - sum(p.shape[0] * (p.shape[-1] - 1) for p in kernels)
    layers = [getattr(layer, "recurrent_states", {}) for layer in cache.layers]
    if name == "minimax":
        layers = [dict(enumerate(cache.linear_cache))]
    assert kept == sum(
        state.numel() for states in layers for state in states.values() if isinstance(state, torch.Tensor)
    )


def test_flops_of_recurrences() -> None:
    """One token, written out: a decayed state is written by an outer product, and read (by the delta rule twice)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    heads, keys, values = 4, 8, 6
    state = torch.randn(heads, keys, values)
    key, query, value = torch.randn(heads, keys, 1), torch.randn(heads, 1, keys), torch.randn(heads, 1, values)
    with FlopCounterMode(display=False) as plain:
        _ = query @ (0.9 * state + key @ value)
    with FlopCounterMode(display=False) as delta:
        decayed = 0.9 * state
        _ = query @ (decayed + key @ (value - key.mT @ decayed))
    spec = read_spec({**TINY, **RECURRENT["qwen3.5"]})
    assert delta.get_total_flops() == spec.recurrences[0][0].flops == 3 * 2 * state.numel()
    spec = read_spec({**TINY, **RECURRENT["bamba"]})
    assert spec.recurrences[0][0].flops == 2 * 2 * (8 * 8 * 6)
    assert plain.get_total_flops() == 2 * 2 * state.numel()


def test_flops_of_an_indexer() -> None:
    """DeepSeek-V3.2, written out: scores of all cached tokens for their choice, then latents of the chosen ones."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    context, heads, rank, rope, topk = 9, 4, 12, 4, 5
    index = Indexer(heads=3, dim=16, topk=topk)
    attention = LatentAttention(Weights(), heads, rank, 8, rope, 6, index)
    queries, keys, weigh = (
        torch.randn(index.heads, index.dim),
        torch.randn(context, index.dim),
        torch.randn(1, index.heads),
    )
    absorbed, latents, rotated = torch.randn(heads, rank + rope), torch.randn(context, rank), torch.randn(context, rope)
    with FlopCounterMode(display=False) as scores:
        chosen = (weigh @ (queries @ keys.T).relu())[0].topk(topk).indices
    with FlopCounterMode(display=False) as attended:
        cached = torch.cat([latents, rotated], dim=1)[chosen]
        _ = (absorbed @ cached.T).softmax(-1) @ latents[chosen]
    assert scores.get_total_flops() == index.score_flops * context
    assert attended.get_total_flops() == attention.decode_flops * topk


@pytest.mark.parametrize("name", [name for name in packaged() if "prm" not in name])
def test_flops_of_packaged_models(name: str) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint(name), attn_implementation="eager")
    spec = read_spec(model.config)
    assert spec.params == model.num_parameters()
    check(model, spec)


@pytest.mark.parametrize("name", [name for name in packaged() if "prm" in name])
def test_flops_of_packaged_reward_models(name: str) -> None:
    """All positions go through transformers' head, one through an engine's."""
    import torch
    import transformers
    from torch.utils.flop_counter import FlopCounterMode

    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        checkpoint(name), attn_implementation="eager"
    )
    spec = read_spec(model.config)
    assert spec.params == model.num_parameters()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones(1, 9, dtype=torch.long))
    assert flops_of(counter) == prefill_cost(spec, 9, logits=9, causal=False).flops


@pytest.mark.parametrize("name", LATENTS)
def test_flops_of_latent_attention(name: str) -> None:
    """transformers expands all latents in every pass: what prefill does in an engine, with a cached prefix too."""
    model, spec = build(LATENTS[name])
    flops, cache = counted(model, 11, logits_to_keep=1)
    assert flops == prefill_cost(spec, 11, causal=False).flops
    flops, cache = counted(model, 4, cache, logits_to_keep=1)
    assert flops == prefill_cost(spec, 4, 11, causal=False).flops


def test_absorbed_decode_of_latent_attention() -> None:
    """A decode step written out: query and output go through the expansion, attention runs over the latents."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    context, heads, rank, nope, rope, v_dim = 9, 4, 12, 8, 4, 6
    attention = LatentAttention(Weights(), heads, rank, nope, rope, v_dim)
    query = torch.randn(heads, 1, nope)
    query_rope = torch.randn(heads, 1, rope)
    keys, keys_rope = torch.randn(heads, context, nope), torch.randn(context, rope)
    latents = torch.randn(context, rank)
    up_k, up_v = torch.randn(heads, nope, rank), torch.randn(heads, rank, v_dim)
    with FlopCounterMode(display=False) as counter:
        absorbed = query @ up_k
        weights = (absorbed @ latents.T + query_rope @ keys_rope.T).softmax(-1)
        output = (weights @ latents) @ up_v
    assert counter.get_total_flops() == attention.decode_flops * context + attention.expand_flops
    # the same as with keys and values expanded
    keys = torch.einsum("tr,hnr->htn", latents, up_k)
    expanded = (query @ keys.mT + query_rope @ keys_rope.T).softmax(-1) @ (latents @ up_v)
    torch.testing.assert_close(output, expanded, rtol=1e-4, atol=1e-4)


def test_flops_of_parallel_streams() -> None:
    """ParScale written out: a batch of P streams, each after its prefix. A network weights them for one head."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, spec = build(VARIANTS["qwen3"])
    streams, prefix, tokens = 3, 5, 7
    spec = replace(spec, streams=streams, prefix=prefix)
    aggregation = torch.nn.Sequential(
        torch.nn.Linear(streams * spec.hidden, spec.hidden), torch.nn.SiLU(), torch.nn.Linear(spec.hidden, streams)
    )
    with torch.no_grad():
        cache = model.model(torch.ones(streams, prefix, dtype=torch.long), use_cache=True).past_key_values

        def step(ids: Any) -> int:
            with FlopCounterMode(display=False) as counter:
                hidden = model.model(ids.expand(streams, -1), past_key_values=cache).last_hidden_state[:, -1:]
                weights = aggregation(hidden.transpose(0, 1).reshape(1, 1, -1)).softmax(-1)
                model.lm_head((weights.permute(2, 0, 1) * hidden).sum(0, keepdim=True))
            return flops_of(counter)

        # the prefix of the cache itself cost no pass
        assert step(torch.ones(1, tokens, dtype=torch.long)) == prefill_cost(spec, tokens, causal=False).flops
        assert step(torch.ones(1, 1, dtype=torch.long)) == decode_cost(spec, tokens, 1).flops
    trained = sum(p.numel() for p in model.parameters()) + sum(p.numel() for p in aggregation.parameters())
    assert spec.params == trained + streams * prefix * spec.kv_size


@pytest.mark.parametrize("name", [*VARIANTS, *LATENTS])
def test_bytes(name: str) -> None:
    """A pass reads all weights (of the embedding the tokens' rows), and leaves the KV cache it was charged for."""
    model, spec = build({**VARIANTS, **LATENTS}[name])
    tables = [model.get_input_embeddings(), *filter(None, [getattr(model.base_model, "wpe", None)])]
    outside = {id(p) for module in (*tables, model.get_output_embeddings()) for p in module.parameters()}
    body = sum(p.nbytes for p in model.parameters() if id(p) not in outside)
    head = sum(p.nbytes for p in model.get_output_embeddings().parameters())
    rows = 1000 * spec.hidden * 4 * len(tables)
    cost = prefill_cost(spec, 1000)  # so many that every expert is hit
    assert cost.weights.bytes == pytest.approx(body + rows)
    assert cost.logits.bytes == head
    _, cache = counted(model, 4)  # within the windows: of what slides out of one, transformers keeps nothing
    assert prefill_cost(spec, 4).kv.bytes == cached_bytes(cache)
    _, cache = counted(model, 1, cache)
    assert decode_cost(spec, 4, 1).kv.bytes == cached_bytes(cache)


def cached_bytes(cache: Any) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
