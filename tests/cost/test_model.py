"""Parameters counted from a config equal those of the model that transformers builds from it, and published totals."""

import logging
from collections import Counter
from typing import Any

import pytest

from infer.cost.config import PUBLIC, read_spec
from infer.cost.model import Attention, Experts, LatentAttention
from infer.errors import UserError


@pytest.mark.parametrize(
    ("name", "total"),
    [
        # exact counts as the hub shows for the checkpoints' safetensors (tied heads once)
        ("Qwen/Qwen3-0.6B", 596_049_920),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
        ("Qwen/Qwen3-4B", 4_022_468_096),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen3-14B", 14_768_307_200),
        ("Qwen/Qwen3-32B", 32_762_123_264),
        ("Qwen/Qwen3-30B-A3B", 30_532_122_624),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("mistralai/Mixtral-8x7B-v0.1", 46_702_792_704),
        ("google/gemma-3-1b-it", 999_885_952),
    ],
)
def test_published_totals(name: str, total: int) -> None:
    assert read_spec(PUBLIC[name]).params == total


@pytest.mark.parametrize(
    ("name", "embedding", "rest"),
    # Gemma 3 technical report (2503.19786), table 1, in millions; the vision encoder apart
    [
        ("google/gemma-3-1b-it", 302, 698),
        ("google/gemma-3-4b-it", 675, 3209),
        ("google/gemma-3-12b-it", 1012, 10759),
        ("google/gemma-3-27b-it", 1416, 25600),
    ],
)
def test_gemma_report(name: str, embedding: int, rest: int) -> None:
    spec = read_spec(PUBLIC[name])
    assert spec.embedding_params / 1e6 == pytest.approx(embedding, rel=0.006)
    assert (spec.params - spec.embedding_params) / 1e6 == pytest.approx(rest, rel=0.006)


def test_deepseek_v3_report() -> None:
    """2412.19437: 671B parameters, 37B of them active; 8-bit weights; the cache holds 576 numbers a layer."""
    spec = read_spec(PUBLIC["deepseek-ai/DeepSeek-V3"])
    assert round(spec.params / 1e9) == 671
    assert spec.active_params / 1e9 == pytest.approx(37, abs=0.7)
    assert (spec.weight_bytes, spec.kv_bytes, spec.kv_size) == (1, 2, 61 * 576)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen/Qwen3-30B-A3B", 3.3),
        ("mistralai/Mixtral-8x7B-v0.1", 12.9),
        ("Qwen/Qwen3-8B", 8.2),
        ("deepseek-ai/DeepSeek-V3", 37.6),
    ],
)
def test_active_parameters(name: str, billions: float) -> None:
    """Active parameters are as the models' cards say. Of a dense model all are active."""
    assert read_spec(PUBLIC[name]).active_params / 1e9 == pytest.approx(billions, abs=0.06)


def test_windows() -> None:
    def windows(config: dict[str, Any]) -> dict[int | None, int]:
        return {attention.window: count for attention, count in read_spec(config).attentions}

    assert windows(PUBLIC["google/gemma-3-1b-it"]) == {512: 22, None: 4}  # every sixth layer is global
    assert windows(PUBLIC["google/gemma-3-4b-it"]) == {1024: 29, None: 5}
    assert windows(PUBLIC["mistralai/Mistral-7B-v0.1"]) == {4096: 32}
    assert windows(PUBLIC["Qwen/Qwen3-8B"]) == {None: 36}
    late = {**PUBLIC["Qwen/Qwen3-8B"], "use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 28}
    assert windows(late) == {None: 28, 4096: 8}
    named = {
        **PUBLIC["Qwen/Qwen3-8B"],
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"] * 18,
    }
    assert windows({**named, "use_sliding_window": True}) == {None: 18, 64: 18}


def test_experts_read() -> None:
    """The expected number of experts hit equals brute force in small passes, and is all of them in a large one."""
    import itertools

    experts = Experts(hidden=1, inner=1, count=4, active=2)
    draws = list(itertools.combinations(range(4), 2))
    for tokens in (1, 2, 3):
        hit = [len(set().union(*choice)) for choice in itertools.product(draws, repeat=tokens)]
        assert experts.hit(tokens) == pytest.approx(sum(hit) / len(hit))
    assert experts.hit(1000) == pytest.approx(4)


def test_dtypes() -> None:
    config = PUBLIC["Qwen/Qwen3-0.6B"]
    assert read_spec(config).weight_bytes == 2
    spec = read_spec({**config, "dtype": "float32"}, kv_dtype="float8")
    assert (spec.dtype, spec.weight_bytes, spec.kv_bytes) == ("float32", 4, 1)
    awq = read_spec({**config, "quantization_config": {"quant_method": "awq", "bits": 4}})
    assert (awq.dtype, awq.weight_bytes) == ("bfloat16", 0.5)
    with pytest.raises(UserError, match="bfloat17"):
        read_spec(config, dtype="bfloat17")


def test_bad_configs(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="hidden_size"):
        read_spec({"model_type": "clip"})
    with pytest.raises(UserError, match="linear_attention"):
        read_spec({**PUBLIC["Qwen/Qwen3-8B"], "model_type": "x", "layer_types": ["linear_attention"]})
    with pytest.raises(UserError, match="num_experts"):
        read_spec({**PUBLIC["Qwen/Qwen3-30B-A3B"], "model_type": "another_moe"})
    with pytest.raises(UserError, match="layer_types names 1"):
        read_spec({**PUBLIC["Qwen/Qwen3-8B"], "layer_types": ["full_attention"]})
    with caplog.at_level(logging.WARNING):
        unknown = read_spec({**PUBLIC["meta-llama/Llama-3.1-8B"], "model_type": "new"})
    assert "new is not known" in caplog.text
    assert unknown.params == 8_030_261_248


@pytest.mark.models
@pytest.mark.parametrize("name", [name for name in PUBLIC if "text_config" not in PUBLIC[name] and "PRM" not in name])
def test_public_models_as_transformers_builds_them(name: str) -> None:
    """Whole models, on the meta device: shapes without memory."""
    import torch
    import transformers

    given = {key: value for key, value in PUBLIC[name].items() if key != "quantization_config"}
    config = transformers.AutoConfig.for_model(**given)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert read_spec(given).params == sum(p.numel() for p in model.parameters())


TINY = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "pad_token_id": 0,
}
MOE = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
LATENT = {
    "q_lora_rank": 20,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "n_group": 1,
    "topk_group": 1,
    **MOE,
}
VARIANTS: list[dict[str, Any]] = [
    {"model_type": "llama"},
    {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    {"model_type": "mistral", "sliding_window": 8, "head_dim": 16},
    {"model_type": "qwen2"},
    {"model_type": "qwen3", "head_dim": 16, "attention_bias": True},
    {"model_type": "olmo2"},
    {"model_type": "phi3"},
    {"model_type": "smollm3"},
    {"model_type": "granite"},
    {"model_type": "gemma", "head_dim": 16},
    {"model_type": "gemma2", "head_dim": 16},
    {"model_type": "gemma3_text", "head_dim": 16},
    {"model_type": "mixtral", "num_local_experts": 4},
    {"model_type": "olmoe", "num_experts": 8, "num_experts_per_tok": 2},
    {"model_type": "qwen2_moe", "num_experts": 8, "shared_expert_intermediate_size": 28, **MOE},
    {"model_type": "qwen3_moe", "num_experts": 8, "head_dim": 16, "decoder_sparse_step": 2, **MOE},
    {"model_type": "qwen3_moe", "num_experts": 8, "mlp_only_layers": [1], **MOE},
    {"model_type": "deepseek_v2", "n_shared_experts": 2, "first_k_dense_replace": 1, **LATENT},
    {"model_type": "deepseek_v3", "n_shared_experts": 1, "first_k_dense_replace": 2, **LATENT},
    {"model_type": "deepseek_v3", "n_shared_experts": 1, **LATENT, "q_lora_rank": None, "attention_bias": True},
]


@pytest.mark.models
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant["model_type"])
@pytest.mark.parametrize("task", ["CausalLM", "SequenceClassification", "TokenClassification"])
def test_tiny_models(variant: dict[str, Any], task: str) -> None:
    """From the config as an object, and from the dict that would be its config.json."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(**{**TINY, **variant}, num_labels=3)
    auto: Any = getattr(transformers, f"AutoModelFor{task}")
    if type(config) not in auto._model_mapping:
        pytest.skip(f"transformers has no {task} of {variant['model_type']}")
    with torch.device("meta"):
        model = auto.from_config(config)
    count = sum(p.numel() for p in model.parameters())
    model.config.architectures = [type(model).__name__]
    assert read_spec(model.config).params == count
    assert read_spec(model.config.to_diff_dict()).params == count


def test_process_reward_model_head() -> None:
    """Linear(h, h), ReLU, Linear(h, 2) on the hidden states; the embedding is only looked up in."""
    spec = read_spec(PUBLIC["Qwen/Qwen2.5-Math-PRM-7B"])
    hidden = 3584
    assert spec.head.params == hidden * hidden + hidden + 2 * hidden + 2
    language_model = read_spec({**PUBLIC["Qwen/Qwen2.5-Math-PRM-7B"], "architectures": ["Qwen2ForCausalLM"]})
    assert language_model.params == 7_615_616_512  # Qwen2.5-7B
    assert spec.params == language_model.params - 152064 * hidden + spec.head.params


def test_kinds_of_attention() -> None:
    (latent, layers), *_ = read_spec(PUBLIC["deepseek-ai/DeepSeek-V3"]).attentions
    assert isinstance(latent, LatentAttention)
    assert layers == 61
    (grouped, _), *_ = read_spec(PUBLIC["meta-llama/Llama-3.1-8B"]).attentions
    assert isinstance(grouped, Attention)
    assert grouped.kv_size == 2 * 8 * 128


@pytest.mark.models
@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gemma2"},
        {"model_type": "gemma3_text", "sliding_window": 64},
        {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 3},
        {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 5},
        {"model_type": "qwen3", "use_sliding_window": False, "sliding_window": 64},
    ],
    ids=lambda config: config["model_type"],
)
def test_window_rules_are_those_of_transformers(config: dict[str, Any]) -> None:
    """Which layers slide, from a config.json that does not list them (as older ones), against transformers' list."""
    import transformers

    made = transformers.AutoConfig.for_model(**{**TINY, "num_hidden_layers": 8, **config})
    expected = Counter(made.sliding_window if kind == "sliding_attention" else None for kind in made.layer_types)
    unlisted = {key: value for key, value in made.to_dict().items() if key != "layer_types"}
    assert {a.window: count for a, count in read_spec(unlisted).attentions} == expected
