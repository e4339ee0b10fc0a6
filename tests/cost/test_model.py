"""Parameters counted from a config equal those of the model that transformers builds from it, and published totals."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from infer.cost.attention import TopK
from infer.cost.config import PUBLIC, read_spec
from infer.cost.model import Attention, Experts, LatentAttention, Weights
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


def sizes(kind: str, hidden: int, layers: int, **others: int) -> dict[str, Any]:
    return {"model_type": kind, "hidden_size": hidden, "num_hidden_layers": layers, **others}


PYTHIA = sizes("gpt_neox", 2048, 24, intermediate_size=8192, num_attention_heads=16, vocab_size=50304)
PHI_2 = sizes("phi", 2560, 32, intermediate_size=10240, num_attention_heads=32)


@pytest.mark.parametrize(
    ("config", "total"),
    [
        # exact counts of well-known checkpoints that have biases, plain MLPs, embeddings of positions, ...
        ({"model_type": "gpt2", "n_embd": 768, "n_layer": 12}, 124_439_808),
        ({"model_type": "gptj", "n_embd": 4096, "n_layer": 28}, 6_050_882_784),
        (sizes("gpt_neox", 6144, 44, vocab_size=50432), 20_554_567_680),
        (PYTHIA, 1_414_647_808),  # EleutherAI/pythia-1.4b
        (sizes("opt", 768, 12), 125_239_296),
        ({"model_type": "bloom", "hidden_size": 1024, "n_layer": 24, "n_head": 16}, 559_214_592),
        (PHI_2, 2_779_683_840),  # microsoft/phi-2
        (sizes("starcoder2", 3072, 30), 3_030_371_328),
        (sizes("gpt_oss", 2880, 36), 116_829_156_672),
        (sizes("mamba", 768, 24), 129_135_360),  # state-spaces/mamba-130m-hf
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_published_totals_of_other_types(config: dict[str, Any], total: int) -> None:
    """Fields that a config.json leaves out have transformers' defaults."""
    assert read_spec(config).params == total


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

    experts = Experts(Weights(3), count=4, active=2)
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
    with pytest.raises(UserError, match="bfloat17"):
        read_spec(config, dtype="bfloat17")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "qwen3"}, "has no hidden_size"),
        ({"hidden_size": 0}, "has hidden_size 0: not a size"),
        ({"num_attention_heads": 0}, "has num_attention_heads 0: not a size"),
        ({"hidden_size": "4096"}, "has hidden_size '4096': not a size"),
        ({"hidden_size": 4096.5}, "not a size"),
        ({"num_hidden_layers": True}, "not a size"),
        ({"intermediate_size": -1}, "not a size"),
        ({"vocab_size": 1e300}, "not a size"),
        ({"layer_types": ["full_attention"]}, "layer_types names 1"),
        ({"layer_types": ["new_attention"] * 36}, "layer 0 is of the kind 'new_attention'"),
        ({"layer_types": [1] * 36}, "layer 0 is of the kind '1'"),
        ({"layer_types": [["full_attention"]] * 36}, "layer 0 is of the kind"),
        # never a guess for what is not known: the layers of another type may be anything
        ({"model_type": "new"}, "model type new is not known"),
        ({"model_type": None}, "model type None is not known"),
        ({"quantization_config": {"quant_method": "new"}}, "method new is not known"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_bad_configs(config: dict[str, Any], message: str) -> None:
    whole = config if config == {"model_type": "qwen3"} else {**PUBLIC["Qwen/Qwen3-8B"], **config}
    with pytest.raises(UserError, match=message):
        read_spec(whole)


def of_8_bits(kind: str) -> dict[str, Any]:
    """Weights and inputs of 8 bits, as compressed-tensors has them."""
    group = {"weights": {"num_bits": 8, "type": kind}, "input_activations": {"num_bits": 8}}
    return {"quant_method": "compressed-tensors", "config_groups": {"g": group}}


@pytest.mark.parametrize(
    ("how", "weight_bytes", "expert_bytes", "products"),
    [
        ({"quant_method": "awq", "bits": 4}, 0.5, None, None),
        ({"quant_method": "gptq", "bits": 8}, 1, None, None),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5, None, None),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 1, None, None),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1, None, "float8"),
        ({"quant_method": "fbgemm_fp8"}, 1, None, "float8"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, 1, None, "float8"),
        ({"quant_method": "mxfp4"}, 2, 4.25 / 8, None),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4}}}}, 0.5, None, None),
        (of_8_bits("float"), 1, None, "float8"),
        (of_8_bits("int"), 1, None, "int8"),
    ],
    ids=lambda value: value.get("quant_method") if isinstance(value, dict) else "",
)
def test_quantized(how: dict[str, Any], weight_bytes: float, expert_bytes: float | None, products: str | None) -> None:
    """Layers are in few bits, embedding and head are not. Weights of 8 bits with inputs of 8 bits are multiplied so."""
    spec = read_spec({**PUBLIC["Qwen/Qwen3-0.6B"], "quantization_config": how})
    assert (spec.dtype, spec.weight_bytes, spec.expert_bytes, spec.matrix_dtype) == (
        "bfloat16",
        weight_bytes,
        expert_bytes,
        products,
    )
    assert spec.weight_memory == spec.body_params * weight_bytes + spec.embedding_params * 2


def test_gpt_oss_on_disk() -> None:
    """The model card: 20.9 billion parameters, 3.61 active without the embedding; a checkpoint of 12.8 GiB."""
    config = sizes("gpt_oss", 2880, 24, num_local_experts=32)
    spec = read_spec({**config, "quantization_config": {"quant_method": "mxfp4"}})
    assert spec.params == 20_914_757_184
    assert (spec.active_params - spec.embedding_params) / 1e9 == pytest.approx(3.61, abs=0.005)
    assert spec.weight_memory / 2**30 == pytest.approx(12.8, abs=0.05)


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


def test_specs_are_found_again() -> None:
    """Equal specs have equal hashes, so that costs of one are found by the other; any difference makes them unequal."""
    spec, again = (read_spec(PUBLIC["Qwen/Qwen3-8B"]) for _ in range(2))
    assert (again, hash(again)) == (spec, hash(spec))
    others = [read_spec(PUBLIC["Qwen/Qwen3-8B"], kv_dtype="float8"), replace(spec, decode=TopK(8))]
    assert len({spec, again, *others}) == 3


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
