"""Small models of every type in transformers' registry of causal language models, built without memory."""

import dataclasses
from typing import Any

SMALL: dict[str, Any] = {
    # sizes that differ from one another, so that no two can be taken for each other
    "vocab_size": 104,
    "hidden_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 14,
    "intermediate_size": 80,
    "intermediate_size_mlp": 72,
    "prefix_dense_intermediate_size": 72,
    "ffn_dim": 80,
    "ffn_hidden_size": 80,
    "max_position_embeddings": 64,
    "sliding_window": 6,
    "moe_intermediate_size": 28,
    "shared_expert_intermediate_size": 36,
    "shared_intermediate_size": 36,
    "moe_shared_expert_intermediate_size": 36,
    "num_experts": 8,
    "num_local_experts": 8,
    "n_routed_experts": 8,
    "moe_num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 2,
    "num_dense_layers": 2,
    "q_lora_rank": 20,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "index_n_heads": 3,
    "index_head_dim": 16,
    "index_topk": 5,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 10,
    "linear_value_head_dim": 12,
    "linear_num_heads": 3,
    "linear_head_dim": 10,
    "mamba_n_heads": 12,
    "mamba_num_heads": 12,
    "mamba_d_head": 8,
    "mamba_head_dim": 8,
    "mamba_d_state": 10,
    "ssm_state_size": 10,
    "state_size": 10,
    "mamba_dt_rank": 7,
    "mamba_n_groups": 2,
    "n_groups": 2,
    "pad_token_id": 0,
}
"""Values of fields, where a config class has them."""

SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [2, 5]},
    "falcon_h1": {"mamba_d_ssm": 96},
    "gemma3n_text": {
        "vocab_size_per_layer_input": 100,
        "hidden_size_per_layer_input": 9,
        "laurel_rank": 5,
        "num_kv_shared_layers": 2,
        "num_hidden_layers": 10,
    },
    "gemma4_text": {
        "vocab_size_per_layer_input": 100,
        "hidden_size_per_layer_input": 9,
        "num_kv_shared_layers": 2,
        "num_hidden_layers": 12,
        "global_head_dim": 24,
    },
    "helium": {"head_dim": 12},
    "gpt_neo": {"attention_types": [[["global", "local"], 3]], "window_size": 6},
    "lfm2": {"full_attn_idxs": [2, 5], "block_multiple_of": 8},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention"] * 2},
    "llama4_text": {"attention_chunk_size": 6, "interleave_moe_layer_step": 2},
    "mamba2": {"num_heads": 12, "head_dim": 8},
    "mimo_v2_flash": {
        "swa_num_key_value_heads": 4,
        "swa_head_dim": 14,
        "swa_v_head_dim": 6,
        "swa_num_attention_heads": 4,
    },
    "nemotron_h": {"layer_types": ["linear_attention", "moe", "full_attention", "mlp", "linear_attention", "moe"]},
    "opt": {"word_embed_proj_dim": 32},
    "recurrent_gemma": {"lru_width": 40, "attention_window_size": 6},
}
"""Further values by type."""

_GEMMA4 = {"model_type": "gemma4_text", "hidden_size": 48, "num_hidden_layers": 12, "intermediate_size": 80}
_GLM = {"model_type": "glm_moe_dsa", "hidden_size": 48, "num_hidden_layers": 4, "n_routed_experts": 8}
VARIANTS: list[dict[str, Any]] = [
    # what takes more than one field
    {**_GEMMA4, "enable_moe_block": True, "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 28},
    {**_GEMMA4, "attention_k_eq_v": True, "num_global_key_value_heads": 1, "hidden_size_per_layer_input": 0},
    {**_GEMMA4, "use_double_wide_mlp": True, "num_kv_shared_layers": 4},
    {"model_type": "falcon", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 8, "num_kv_heads": 2}
    | {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1, "bias": True},
    {"model_type": "gpt_bigcode", "n_embd": 48, "n_layer": 3, "n_head": 4, "multi_query": False, "n_inner": 80},
    {"model_type": "nemotron_h", "hidden_size": 48, "hybrid_override_pattern": "M-M*E", "moe_latent_size": 12},
    {"model_type": "kimi_linear", "hidden_size": 48, "num_hidden_layers": 4, "num_experts": 8}
    | {"linear_attn_config": {"full_attn_layers": [2, 4], "kda_layers": [1, 3], "num_heads": 3, "head_dim": 10}},
    {**_GLM, "indexer_types": ["full", "shared", "full", "shared"]},
    {**_GLM, "index_topk_pattern": "FSSF"},
    {**_GLM, "index_topk_freq": 2, "index_skip_topk_offset": 1},
    {"model_type": "minimax", "hidden_size": 48, "num_hidden_layers": 3, "layer_types": ["linear_attention"] * 3},
]


def small(kind: str) -> dict[str, Any]:
    """The fields of a small model of a type, as its config.json would have them."""
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[kind]
    real = {config.attribute_map.get(field.name, field.name) for field in dataclasses.fields(config)}
    given: dict[str, Any] = {}
    for name, value in SMALL.items():
        name = config.attribute_map.get(name, name)
        if name in real:
            given.setdefault(name, value)
    return {"model_type": kind, **given, **SPECIAL.get(kind, {})}


def build(config: dict[str, Any]) -> Any:
    """The model that transformers builds, its parameters without memory."""
    import torch
    import transformers

    made = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(made)


def count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
