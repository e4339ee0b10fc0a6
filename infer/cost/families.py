"""How the models of each type are built: a table of what differs from Llama.

Every row is checked against the models that transformers builds (`tests/cost/test_census.py`). A type that is not in
the table is refused.
"""

from collections.abc import Callable
from dataclasses import replace

from infer.cost.family import Family, Place, Size, experts_of, grouped, instead, latent, norm_of, of, side_by_side
from infer.cost.fields import Fields
from infer.cost.model import Mixer, Weights, linear
from infer.cost.recurrences import (
    gated_delta,
    kimi_delta,
    lightning,
    linear_recurrent_unit,
    mamba1,
    mamba2,
    plain_heads,
    short_convolution,
)
from infer.errors import UserError

# rules: which layers are of which kind, and which have experts


def every(period: int, field: str = "", others: str = "sliding_attention") -> Callable[[Fields, int], str]:
    """Full attention in the last of each `period` layers (or of each as many as the field says)."""

    def rule(c: Fields, index: int) -> str:
        return others if (index + 1) % (c.size(field) or period) else "full_attention"

    return rule


def first_of(period: int) -> Callable[[Fields, int], str]:
    """Full attention in the first of each `period` layers."""
    return lambda c, index: "sliding_attention" if index % period else "full_attention"


def without_rotation(others: str) -> Callable[[Fields, int], str]:
    """Full attention in layers without rotary embeddings, by default in every fourth."""

    def rule(c: Fields, index: int) -> str:
        listed = c.listed("no_rope_layers")
        if listed:
            return others if listed[index] else "full_attention"
        return every(4, "no_rope_layer_interval", others)(c, index)

    return rule


def sliding(c: Fields, index: int) -> str:
    return "sliding_attention"


def recurrent(c: Fields, index: int) -> str:
    return "linear_attention"


def late(c: Fields, index: int) -> str:
    """Windows from the layer `max_window_layers` on."""
    return "sliding_attention" if index >= c.size("max_window_layers") else "full_attention"


def _alternating(c: Fields, index: int) -> str:
    """Windows in every second layer before the layer `max_window_layers`."""
    return "full_attention" if index % 2 or index >= c.size("max_window_layers") else "sliding_attention"


def _glm_indexes(c: Fields, index: int) -> bool:
    if listed := c.listed("indexer_types", "index_topk_pattern"):
        return str(listed[index]) in ("full", "F")
    offset = c.get("index_skip_topk_offset")
    return max(index + 1 - (2 if offset is None else int(offset)), 0) % (c.size("index_topk_freq") or 1) == 0


def _pattern(c: Fields, index: int) -> str:
    """Nemotron-H's letters."""
    letters = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}
    return letters.get((c.get("hybrid_override_pattern") or "")[index : index + 1], "?")


def _kimi_kinds(c: Fields, index: int) -> str:
    full = (c.get("linear_attn_config") or {}).get("full_attn_layers")  # counted from 1
    attends = index + 1 in full if full else index > 0 and index % 4 == 0
    return "full_attention" if attends else "linear_attention"


def _lfm2_kinds(c: Fields, index: int) -> str:
    listed = c.get("full_attn_idxs")
    return "full_attention" if listed is None or index in listed else "linear_attention"


def _jamba_kinds(c: Fields, index: int) -> str:
    attends = index % c.need("attn_layer_period") == c.need("attn_layer_offset")
    return "full_attention" if attends else "linear_attention"


def _gpt_neo_kinds(c: Fields, index: int) -> str:
    kinds = [kind for pattern, times in c.get("attention_types") or () for kind in pattern * times]
    return str(kinds[index]) if index < len(kinds) else "global"


def _griffin_kinds(c: Fields, index: int) -> str:
    kinds = c.get("block_types")
    return "linear_attention" if kinds[index % len(kinds)] == "recurrent" else "sliding_attention"


def after(*names: str, layers: int = 0) -> Callable[[Fields, int], bool]:
    """Experts in all but the first layers: as `mlp_layer_types` says, or as many as a field says."""

    def sparse(c: Fields, index: int) -> bool:
        kinds = c.listed("mlp_layer_types")
        return kinds[index] == "sparse" if kinds else index >= (c.size(*names) if names else layers)

    return sparse


def stepped(c: Fields, index: int) -> bool:
    return index not in (c.get("mlp_only_layers") or ()) and (index + 1) % (c.size("decoder_sparse_step") or 1) == 0


def _jamba_sparse(c: Fields, index: int) -> bool:
    return experts_of(c) > 1 and index % c.need("expert_layer_period") == c.need("expert_layer_offset")


def _ernie_sparse(c: Fields, index: int) -> bool:
    last = c.get("moe_layer_end_index")
    within = c.size("moe_layer_start_index") <= index <= (c.layers - 1 if last in (None, -1) else last)
    return within and (index + 1) % (c.size("moe_layer_interval") or 1) == 0


def _llama4_sparse(c: Fields, index: int) -> bool:
    listed = c.get("moe_layers")
    return index in listed if listed is not None else (index + 1) % (c.size("interleave_moe_layer_step") or 1) == 0


# sizes


def alike(c: Fields, place: Place) -> int:
    """Shared experts are as large as the others."""
    inner = c.need("moe_intermediate_size", "intermediate_size")
    return inner * c.size("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")


def fourfold(field: str = "") -> Size:
    """The size in this field, by default four times the hidden size."""
    return lambda c, place: (c.size(field) if field else 0) or 4 * c.hidden


def _lfm2_inner(c: Fields, place: Place) -> int:
    inner = c.need("block_ff_dim", "intermediate_size")
    if not c.flag("block_auto_adjust_ff_dim"):
        return inner
    inner = int((c.get("block_ffn_dim_multiplier") or 1) * int(2 * inner / 3))
    multiple = c.need("block_multiple_of")
    return multiple * -(-inner // multiple)


def equal_heads(c: Fields, place: Place) -> tuple[int, int, int, int]:
    """Heads that divide the hidden size, with keys and values of their own."""
    heads = c.need("num_attention_heads")
    return heads, heads, c.hidden // heads, c.hidden // heads


def _stablelm_heads(c: Fields, place: Place) -> tuple[int, int, int, int]:
    heads, _, dim, _ = equal_heads(c, place)
    return heads, c.size("num_key_value_heads") or heads, dim, dim


def _falcon_heads(c: Fields, place: Place) -> tuple[int, int, int, int]:
    heads, _, dim, _ = equal_heads(c, place)
    if c.flag("new_decoder_architecture"):
        return heads, c.size("num_kv_heads") or heads, dim, dim
    return heads, 1 if c.flag("multi_query") else heads, dim, dim


def _falcon_norms(c: Fields) -> int:
    if c.flag("new_decoder_architecture"):
        return c.size("num_ln_in_parallel_attn") or 2
    return 1 if c.flag("parallel_attn") else 2


def _laguna_heads(c: Fields, place: Place) -> tuple[int, int, int, int]:
    heads, kv_heads, dim, _ = plain_heads(c)
    listed = c.listed("num_attention_heads_per_layer")
    return int(listed[place.index]) if listed else heads, kv_heads, dim, dim


def _mimo_heads(c: Fields, place: Place) -> tuple[int, int, int, int]:
    heads, kv_heads, dim, _ = plain_heads(c)
    return heads, kv_heads * (2 if place.kind == "sliding_attention" else 1), dim, c.need("v_head_dim")


def _mimo(family: Family, c: Fields, place: Place) -> tuple[Mixer, ...]:
    return (grouped(replace(family, sinks=place.kind == "sliding_attention"), c, place),)


def _square_heads(c: Fields, place: Place) -> tuple[int, int, int, int]:
    heads, kv_heads, dim, _ = plain_heads(c)
    if heads * dim != c.hidden:
        raise UserError(f"this config.json has {heads} heads of {dim}, which do not make hidden_size {c.hidden}")
    return heads, kv_heads, dim, dim


def _opt_projections(c: Fields) -> Weights:
    """Between words of another width and hidden states."""
    width = c.size("word_embed_proj_dim") or c.hidden
    return linear(c.hidden, width) * 2 if width != c.hidden else Weights()


# Gemma 3n and 4


def _own_embedding(c: Fields, place: Place) -> Weights:
    """Each layer mixes in an embedding of each token of its own."""
    size = c.size("hidden_size_per_layer_input")
    return linear(c.hidden, size) * 2 + Weights(0, c.hidden) if size else Weights()


def _own_outside(c: Fields) -> Weights:
    size = c.size("hidden_size_per_layer_input")
    return linear(c.hidden, c.layers * size) + Weights(0, size)


def _own_table(c: Fields) -> tuple[int, int]:
    size = c.size("hidden_size_per_layer_input")
    return (c.size("vocab_size_per_layer_input"), c.layers * size) if size else (0, 0)


def _gemma3n_more(c: Fields, place: Place) -> Weights:
    """AltUp's parallel hidden states, LAuReL, and the layer's own embedding."""
    streams, rank = c.need("altup_num_inputs"), c.need("laurel_rank")
    altup = linear(c.hidden, streams) + linear(streams, streams + streams**2) + Weights(0, 2 * c.hidden)
    laurel = linear(c.hidden, rank) + linear(rank, c.hidden) + Weights(0, c.hidden)
    return altup + laurel + _own_embedding(c, place)


def _gemma3n_outside(c: Fields) -> Weights:
    return _own_outside(c) + linear(c.hidden, c.hidden) * (2 * (c.need("altup_num_inputs") - 1))


def _gemma4_more(c: Fields, place: Place) -> Weights:
    """The layer's own embedding; where it has experts, further norms and a scale."""
    return _own_embedding(c, place) + Weights(0, 4 * c.hidden * c.flag("enable_moe_block"))


def _gemma4_heads(c: Fields, place: Place) -> tuple[int, int, int, int]:
    heads, kv_heads, dim, _ = plain_heads(c)
    if place.kind == "full_attention":
        layers = c.get("per_layer_config") or {}
        own = layers.get(str(place.index)) or layers.get(f"{place.index:02}") or {}
        dim = own.get("head_dim") or c.size("global_head_dim") or 512
        fewer = c.size("num_global_key_value_heads") if c.flag("attention_k_eq_v") else 0
        kv_heads = own.get("num_key_value_heads") or fewer or kv_heads
    return heads, kv_heads, dim, dim


def _gemma_mixers(family: Family, c: Fields, place: Place) -> tuple[Mixer, ...]:
    """The last layers attend to keys and values of earlier ones. In some models values are keys."""
    attention = grouped(family, c, place)
    keys = linear(c.hidden, attention.kv_heads * attention.key_dim, c.flag(family.qkv_bias))
    if place.index >= c.layers - c.size("num_kv_shared_layers"):
        saved = keys * 2 + Weights(0, attention.key_dim)
        return (replace(attention, weights=attention.weights + saved * -1, stored=False),)
    if c.flag("attention_k_eq_v") and place.kind == "full_attention":
        return (replace(attention, weights=attention.weights + keys * -1),)
    return (attention,)


def _gemma_inner(c: Fields, place: Place) -> int:
    listed = c.listed("intermediate_size")
    inner = int(listed[place.index]) if listed else c.need("intermediate_size")
    wide = c.flag("use_double_wide_mlp") and place.index >= c.layers - c.size("num_kv_shared_layers")
    return 2 * inner if wide else inner


# families that several types share

_PLAIN = Family(gated=False)
_BIASED = Family(norm="weight+bias", gated=False, qkv_bias=True, out_bias=True, mlp_bias=True)
_GPT = replace(_BIASED, heads=equal_heads)
_GPT2 = replace(_GPT, inner=fourfold("n_inner"), positions=lambda c: c.need("n_positions"))
_GPTJ = replace(_BIASED, qkv_bias=False, out_bias=False, norms=lambda c: 1, inner=fourfold("n_inner"), head_bias=True)
_SLIDING = Family(kinds=sliding)
_MOE = Family(moe=True)
_GRANITE = replace(_MOE, shared_inner=of("shared_intermediate_size"))
_LATENT = Family(mixers=lambda family, c, place: (latent(family, c, place),))
_DEEPSEEK = replace(_LATENT, mlp_bias=False, moe=True, sparse=after("first_k_dense_replace"), shared_inner=alike)
_EXAONE = Family(qk_norm="head", kinds=every(4, "sliding_window_pattern"))
_GEMMA2 = Family(norms=lambda c: 4, kinds=every(2))
_GEMMA3 = replace(_GEMMA2, qk_norm="head", kinds=every(6, "sliding_window_pattern"))
_GEMMA3N = replace(_GEMMA3, kinds=every(5), mixers=_gemma_mixers, inner=_gemma_inner, table=_own_table)
_MAMBA = Family(kinds=recurrent, mixers=lambda family, c, place: (mamba1(c),), alone=True)
_QWEN2 = Family(qkv_bias=True, out_bias=False, kinds=late, slides="use_sliding_window")
_QWEN3 = Family(qk_norm="head", kinds=late, slides="use_sliding_window")
_QWEN3_NEXT = Family(
    qk_norm="head",
    gate=lambda c: "query",
    kinds=every(4, "full_attention_interval", "linear_attention"),
    mixers=instead(gated_delta),
)
_QWEN_SHARED = of("shared_expert_intermediate_size")

# fmt: off
FAMILIES: dict[str, Family] = {
    "afmoe": Family(qk_norm="head", gate=lambda c: "all", norms=lambda c: 4,
                    kinds=every(4, "global_attn_every_n_layers"), moe=True, sparse=after("num_dense_layers"),
                    shared_inner=alike, correction=True),
    "apertus": replace(_PLAIN, qk_norm="head", more=lambda c, place: Weights(0, 2)),
    "arcee": _PLAIN,
    "aria_text": replace(_MOE, shared_inner=alike),
    "axk1": replace(_DEEPSEEK, more=lambda c, place: norm_of(_DEEPSEEK, c) * _DEEPSEEK.sparse(c, place.index)),
    "bamba": Family(kinds=lambda c, i: "attention" if i in (c.get("attn_layer_indices") or ()) else "mamba",
                    mixers=instead(mamba2)),
    "biogpt": replace(_GPT, positions=lambda c: c.need("max_position_embeddings") + 2),
    "bitnet": Family(more=lambda c, place: Weights(0, c.hidden + c.need("intermediate_size"))),
    "bloom": replace(_GPT, inner=fourfold(), outside=lambda c: norm_of(_GPT, c)),
    "codegen": _GPTJ,
    "cohere": Family(norms=lambda c: 1, qk_norm="all", qk_normed="use_qk_norm"),
    "cohere2": Family(norms=lambda c: 1, kinds=every(4, "sliding_window_pattern")),
    "cohere2_moe": Family(norms=lambda c: 1, kinds=every(4, "sliding_window_pattern"), moe=True,
                          sparse=after("first_k_dense_replace"), inner=of("prefix_dense_intermediate_size"),
                          expert_inner=of("intermediate_size"), shared_inner=alike),
    "cwm": Family(qkv_bias=False, out_bias=False, kinds=first_of(4)),
    "deepseek_v2": replace(_DEEPSEEK, mlp_bias="mlp_bias"),
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _DEEPSEEK,
    "dots1": Family(qk_norm="head", kinds=late, moe=True, sparse=after("first_k_dense_replace"), shared_inner=alike),
    "ernie4_5": Family(qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias"),
    "ernie4_5_moe": Family(qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", head_bias="use_bias",
                           moe=True, sparse=_ernie_sparse, shared_inner=alike, correction=True),
    "exaone4": _EXAONE,
    "exaone_moe": replace(_EXAONE, moe=True, sparse=after("first_k_dense_replace"), shared_inner=alike),
    "falcon": replace(_GPT, qkv_bias="bias", out_bias="bias", mlp_bias="bias", norms=_falcon_norms,
                      heads=_falcon_heads, inner=fourfold("ffn_hidden_size")),
    "falcon_h1": Family(kinds=lambda c, index: "hybrid", mixers=side_by_side),
    "falcon_mamba": _MAMBA,
    "flex_olmo": replace(_MOE, qk_norm="all"),
    "gemma": Family(),
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "gemma3n_text": replace(_GEMMA3N, more=_gemma3n_more, outside=_gemma3n_outside),
    "gemma4_text": replace(_GEMMA3N, kinds=every(6), heads=_gemma4_heads, more=_gemma4_more, outside=_own_outside,
                           moe="enable_moe_block", correction=True, shared_inner=_gemma_inner),
    "glm": Family(out_bias=False),
    "glm4": Family(out_bias=False, norms=lambda c: 4),
    "glm4_moe": Family(out_bias=False, qk_norm="head", qk_normed="use_qk_norm", moe=True,
                       sparse=after("first_k_dense_replace"), shared_inner=alike),
    "glm4_moe_lite": replace(_DEEPSEEK, sparse=after(layers=1)),
    "glm_moe_dsa": replace(_DEEPSEEK, indexes=_glm_indexes),
    "gpt-sw3": _GPT2,
    "gpt2": _GPT2,
    "gpt_bigcode": replace(_GPT2, heads=_falcon_heads),
    "gpt_neo": replace(_GPT, qkv_bias=False, positions=lambda c: c.need("max_position_embeddings"),
                       inner=fourfold("intermediate_size"),
                       kinds=_gpt_neo_kinds, window="window_size"),
    "gpt_neox": replace(_GPT, qkv_bias="attention_bias", out_bias="attention_bias"),
    "gpt_oss": Family(kinds=every(2), sinks=True, moe=True, expert_inner=of("intermediate_size"), expert_bias=True,
                      router_bias=True),
    "gptj": _GPTJ,
    "granite": Family(),
    "granite_swa": Family(kinds=first_of(4), sinks=True),
    "granitemoe": _MOE,
    "granitemoe_swa": replace(_GRANITE, kinds=first_of(4), sinks=True),
    "granitemoehybrid": replace(_GRANITE, kinds=recurrent, mixers=instead(mamba2)),
    "granitemoeshared": _GRANITE,
    "helium": Family(out_bias=False, heads=_square_heads),
    "hunyuan_v1_dense": Family(qk_norm="head"),
    "hunyuan_v1_moe": Family(qk_norm="head", moe=True, expert_inner=of("intermediate_size"),
                             shared_inner=of("intermediate_size")),
    "hy_v3": Family(qk_norm="head", moe=True, sparse=after(layers=1), shared_inner=alike),
    "hyperclovax": Family(norms=lambda c: 2 + 2 * c.flag("use_post_norm")),
    "jais2": replace(_BIASED, qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias"),
    "jamba": Family(kinds=_jamba_kinds, mixers=instead(lambda c: mamba1(c, norms=True)), moe=True,
                    sparse=_jamba_sparse),
    "kimi_linear": replace(_DEEPSEEK, kinds=_kimi_kinds, mixers=instead(kimi_delta, latent), sparse=after(layers=1),
                           tied=False),
    "laguna": Family(qk_norm="head", gate=lambda c: "head" if c.get("gating") in (True, "per-head") else "all",
                     heads=_laguna_heads, moe=True, sparse=after(layers=1), shared_inner=_QWEN_SHARED, correction=True),
    "lfm2": Family(qk_norm="head", kinds=_lfm2_kinds, mixers=instead(short_convolution), inner=_lfm2_inner),
    "lfm2_moe": Family(qk_norm="head", mixers=instead(short_convolution), moe=True, sparse=after("num_dense_layers")),
    "llama": Family(),
    "llama4_text": Family(kinds=without_rotation("chunked_attention"), inner=of("intermediate_size_mlp"), moe=True,
                          sparse=_llama4_sparse, expert_inner=of("intermediate_size"),
                          shared_inner=of("intermediate_size")),
    "mamba": _MAMBA,
    "mamba2": replace(_MAMBA, mixers=lambda family, c, place: (mamba2(c),)),
    "mellum": Family(qk_norm="head", moe=True, sparse=after()),
    "mimo_v2_flash": Family(kinds=lambda c, i: "sliding_attention" if i and (i + 1) % 6 else "full_attention",
                            heads=_mimo_heads, out_bias=False, mixers=_mimo, moe=True, sparse=after(layers=1)),
    "minicpm3": _LATENT,
    "minimax": replace(_MOE, kinds=lambda c, i: "linear_attention" if i % 2 else "full_attention",
                       mixers=instead(lightning)),
    "minimax_m2": replace(_MOE, qk_norm="all"),
    "ministral": _SLIDING,
    "ministral3": _SLIDING,
    "mistral": _SLIDING,
    "mixtral": replace(_MOE, kinds=sliding),
    "mpt": replace(_PLAIN, inner=fourfold()),
    "nanochat": replace(_PLAIN, norm=""),
    "nemotron": replace(_PLAIN, norm="weight+bias"),
    "nemotron_h": replace(_PLAIN, kinds=_pattern, mixers=instead(mamba2), qkv_bias=False, out_bias=False, alone=True,
                          moe=True, shared_inner=of("moe_shared_expert_intermediate_size"),
                          expert_width=lambda c, place: c.size("moe_latent_size") or c.hidden, tied=False),
    "olmo": Family(norm=""),
    "olmo2": Family(qk_norm="all"),
    "olmo3": Family(qk_norm="all", kinds=every(4)),
    "olmo_hybrid": Family(qk_norm="all", kinds=every(4, others="linear_attention"), mixers=instead(gated_delta)),
    "olmoe": replace(_MOE, qk_norm="all"),
    "openai-gpt": replace(_GPT2, inner=fourfold(), last_norm=lambda c: False),
    "opt": replace(_GPT, qkv_bias="enable_bias", out_bias="enable_bias", mlp_bias="enable_bias",
                   inner=of("ffn_dim"), normed="layer_norm_elementwise_affine",
                   positions=lambda c: c.need("max_position_embeddings") + 2,
                   last_norm=lambda c: c.flag("do_layer_norm_before") and not c.flag("_remove_final_layer_norm"),
                   width=lambda c: c.size("word_embed_proj_dim") or c.hidden, outside=_opt_projections),
    "persimmon": replace(_GPT, qk_norm="head+bias", qk_normed="qk_layernorm"),
    "phi": replace(_BIASED, norms=lambda c: 1, qk_norm="head+bias", qk_normed="qk_layernorm", head_bias=True),
    "phi3": _SLIDING,
    "phimoe": replace(_MOE, norm="weight+bias", kinds=sliding, head_bias="lm_head_bias"),
    "qwen2": _QWEN2,
    "qwen2_moe": replace(_QWEN2, qkv_bias="qkv_bias", kinds=_alternating, moe=True, sparse=stepped,
                         shared_inner=_QWEN_SHARED, shared_gate=True),
    "qwen3": _QWEN3,
    "qwen3_5_moe_text": replace(_QWEN3_NEXT, moe=True, shared_inner=_QWEN_SHARED, shared_gate=True),
    "qwen3_5_text": _QWEN3_NEXT,
    "qwen3_moe": replace(_QWEN3, kinds=sliding, moe=True, sparse=stepped),
    "qwen3_next": replace(_QWEN3_NEXT, moe=True, sparse=stepped, shared_inner=_QWEN_SHARED, shared_gate=True),
    "recurrent_gemma": Family(out_bias=True, mlp_bias=True, inner=lambda c, place: c.need("intermediate_size") // 2,
                              window="attention_window_size", kinds=_griffin_kinds,
                              mixers=instead(linear_recurrent_unit)),
    "seed_oss": Family(out_bias="attention_out_bias"),
    "smollm3": Family(kinds=without_rotation("sliding_attention"), slides="use_sliding_window"),
    "solar_open": replace(_MOE, out_bias=False, shared_inner=alike),
    "stablelm": Family(norm="weight+bias", heads=_stablelm_heads, qkv_bias="use_qkv_bias", out_bias=False,
                       qk_norm="all", qk_normed="qk_layernorm", norms=lambda c: 2 - c.flag("use_parallel_residual")),
    "starcoder2": replace(_BIASED, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", kinds=sliding),
    "vaultgemma": Family(kinds=every(2)),
    "xglm": replace(_GPT, inner=of("ffn_dim")),
    "youtu": _LATENT,
}
# fmt: on
"""Each type of model that is known."""
