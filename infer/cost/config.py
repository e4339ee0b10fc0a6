"""A model's sizes from its Hugging Face `config.json`; no weights needed.

spec = read_spec(json.loads(Path("config.json").read_text()))
spec.params, spec.active_params     # 30_532_122_624, 3_352_...
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infer.cost.model import MLP, Attention, Experts, Head, LatentAttention, Layer, ModelSpec
from infer.errors import UserError

logger = logging.getLogger(__name__)

PUBLIC: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("configs.json").read_text())
"""Configs of some public models by hub id, for estimates: the part of `config.json` that determines sizes."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1, "int4": 0.5}
"""Bytes of one number, by dtype."""

REWARD_HEADS = {"Qwen2ForRewardModel": 1, "Qwen2ForProcessRewardModel": 2}
"""Architectures whose head is Linear, ReLU, Linear, with the number of its scores."""


def read_spec(config: Any, *, dtype: str | None = None, kv_dtype: str | None = None) -> ModelSpec:
    """Reads the spec from a Hugging Face config: the dict of a `config.json`, or a transformers config object.

    `dtype` is that of the loaded weights: by default the config's own, or bfloat16 where it has none. Quantized weights
    of 8 or 4 bits are counted as such. `kv_dtype` is that of the cache, by default `dtype`. Only the language model is
    counted in models for images or sound. Raises UserError for a config that is not of a decoder-only transformer.
    """
    if not isinstance(config, Mapping):
        config = config.to_dict()
    return _Config(config).spec(dtype, kv_dtype)


def known_spec(config: Any, dtype: str | None, name: str) -> ModelSpec | None:
    """The spec of a loaded model; None, with a warning, for an architecture whose costs can't be counted."""
    try:
        return read_spec(config, dtype=dtype)
    except UserError as error:
        logger.warning("%s: its costs are not counted: %s", name, error)
        return None


_FAMILIES: dict[str, dict[str, Any]] = {
    # values that a config.json may omit, and with `_` those that it never has: biases, number of norms, ...
    "llama": {},
    "granite": {},
    "smollm3": {"tie_word_embeddings": True},
    "mistral": {"_window": "all"},
    "phi3": {"_window": "all"},
    "qwen2": {"_qkv_bias": True, "_window": "late"},
    "qwen3": {"_qk_norm": "head", "_window": "late"},
    "olmo2": {"_qk_norm": "all"},
    "gemma": {"tie_word_embeddings": True},
    "gemma2": {
        "tie_word_embeddings": True,
        "_norms": 4,
        "_window": "alternate",
        "sliding_window": 4096,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 256_000,
    },
    "gemma3_text": {
        "tie_word_embeddings": True,
        "_norms": 4,
        "_window": "pattern",
        "_qk_norm": "head",
        "sliding_window": 4096,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262_208,
        "_sliding_window_pattern": 6,
    },
    "mixtral": {"_window": "all", "num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen2_moe": {"_qkv_bias": True, "_window": "late", "_shared_gate": True, "decoder_sparse_step": 1},
    "qwen3_moe": {"_qk_norm": "head", "_window": "late", "decoder_sparse_step": 1},
    "olmoe": {"_qk_norm": "all"},
    "deepseek_v2": {"first_k_dense_replace": 0},
    "deepseek_v3": {"first_k_dense_replace": 3},
}


class _Config:
    """One config, completed with the defaults of its family."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        text = config.get("text_config")
        self.outer = config
        self.config: dict[str, Any] = {**config, **text} if isinstance(text, Mapping) else dict(config)
        self.family = str(self.config.get("model_type", "?"))
        if self.family not in _FAMILIES:
            self._refuse_unlike_llama()
            logger.warning("model type %s is not known: it is counted as a Llama of its sizes", self.family)
        self.config = {**_FAMILIES.get(self.family, {}), **self.config}

    def _refuse_unlike_llama(self) -> None:
        layer_types = set(self.config.get("layer_types") or ())
        strange = [key for key in self.config if "expert" in key or "ssm" in key or "mamba" in key or "linear_" in key]
        strange += sorted(layer_types - {"full_attention", "sliding_attention"})
        if self.config.get("is_encoder_decoder"):
            strange.append("is_encoder_decoder")
        if strange:
            raise UserError(
                f"model type {self.family} has {strange[0]}, which the cost model does not know; it knows "
                f"{', '.join(_FAMILIES)} and models of the same architectures"
            )

    def need(self, *keys: str) -> int:
        """The value of the first of these keys that is set. Raises UserError where none is."""
        value = self.get(*keys)
        if value is None:
            raise UserError(
                f"this config.json (model type {self.family}) is not of a language model: it has no {keys[0]}"
            )
        return int(value)

    def get(self, *keys: str) -> Any:
        return next((self.config[key] for key in keys if self.config.get(key) is not None), None)

    def spec(self, dtype: str | None, kv_dtype: str | None) -> ModelSpec:
        hidden, count = self.need("hidden_size"), self.need("num_hidden_layers")
        norms = self.get("_norms") or 2
        kinds = Counter(
            Layer(self.attention(hidden, window), self.mlp(hidden, index), norms * hidden)
            for index, window in enumerate(self.windows(count))
        )
        stored = str(self.get("dtype", "torch_dtype") or "bfloat16").removeprefix("torch.")
        dtype = _known(dtype or stored)
        return ModelSpec(
            hidden=hidden,
            vocab=self.need("vocab_size"),
            layers=tuple(kinds.items()),
            head=self.head(hidden),
            dtype=dtype,
            weight_bytes=self.quantized_bytes() or BYTES[dtype],
            kv_bytes=BYTES[_known(kv_dtype or dtype)],
            streams=self.get("parscale_n") or 1,
            prefix=(self.get("parscale_n_tokens") or 0) if (self.get("parscale_n") or 1) > 1 else 0,
        )

    def windows(self, count: int) -> list[int | None]:
        """Each layer's sliding window; None: attention to all tokens."""
        size = self.get("sliding_window")
        rule = self.get("_window")
        if rule == "late" and not self.get("use_sliding_window"):
            size = None
        if types := self.get("layer_types"):
            if len(types) < count:
                raise UserError(f"this config.json has {count} layers, but layer_types names {len(types)}")
            slides = [kind == "sliding_attention" for kind in types[:count]]
        else:
            every = self.get("sliding_window_pattern", "_sliding_window_pattern") or 6
            first = self.get("max_window_layers") or 0
            slides = [
                (rule == "all")
                or (rule == "late" and index >= first)
                or (rule == "alternate" and index % 2 == 0)
                or (rule == "pattern" and (index + 1) % every != 0)
                for index in range(count)
            ]
        return [size if slide else None for slide in slides]

    def attention(self, hidden: int, window: int | None) -> Attention | LatentAttention:
        heads = self.need("num_attention_heads")
        bias = bool(self.get("attention_bias"))
        if self.get("kv_lora_rank"):
            return LatentAttention(
                hidden=hidden,
                heads=heads,
                q_rank=self.get("q_lora_rank"),
                kv_rank=self.need("kv_lora_rank"),
                nope_dim=self.need("qk_nope_head_dim"),
                rope_dim=self.need("qk_rope_head_dim"),
                v_dim=self.need("v_head_dim"),
                bias=bias,
            )
        kv_heads = int(self.get("num_key_value_heads") or heads)
        head_dim = int(self.get("head_dim") or hidden // heads)
        normed = {"head": 2 * head_dim, "all": (heads + kv_heads) * head_dim}
        return Attention(
            hidden=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            window=window,
            qkv_bias=bias or bool(self.config.get("qkv_bias", self.get("_qkv_bias"))),
            out_bias=bias,
            norm_params=normed.get(self.get("_qk_norm"), 0),
        )

    def mlp(self, hidden: int, index: int) -> MLP | Experts:
        experts = self.get("n_routed_experts", "num_local_experts", "num_experts")
        dense = (
            not experts
            or index < (self.get("first_k_dense_replace") or 0)
            or index in (self.get("mlp_only_layers") or ())
            or (index + 1) % (self.get("decoder_sparse_step") or 1) != 0
        )
        if dense:
            return MLP(hidden, self.need("intermediate_size"), bias=bool(self.get("mlp_bias")))
        inner = self.need("moe_intermediate_size", "intermediate_size")
        return Experts(
            hidden=hidden,
            inner=inner,
            count=int(experts),
            active=self.need("num_experts_per_tok"),
            shared_inner=int(
                self.get("shared_expert_intermediate_size") or inner * (self.get("n_shared_experts") or 0)
            ),
            shared_gate=bool(self.get("_shared_gate")),
        )

    def head(self, hidden: int) -> Head:
        """The head by architecture: of a language model, or of a reward model."""
        architecture = str((self.outer.get("architectures") or ["?"])[0])
        labels = self.get("num_labels") or len(self.get("id2label") or (0, 1))
        if architecture in REWARD_HEADS:
            labels = REWARD_HEADS[architecture]
            matrices = hidden * hidden + hidden * labels
            params = matrices + hidden + labels
        elif architecture.endswith("ForSequenceClassification"):
            matrices = params = hidden * labels
        elif architecture.endswith("ForTokenClassification"):
            matrices, params = hidden * labels, hidden * labels + labels
        else:
            matrices = hidden * self.need("vocab_size")
            tied = self.outer.get("tie_word_embeddings", self.get("tie_word_embeddings"))
            return Head(matrices, 0 if tied else matrices, matrices)
        return Head(matrices, params, params)

    def quantized_bytes(self) -> float | None:
        """Bytes of a weight in a quantized checkpoint, without scales and unquantized weights; None: not quantized."""
        quantization = self.outer.get("quantization_config") or {}
        if bits := quantization.get("bits") or quantization.get("weight_bits"):
            return float(bits) / 8
        return 1.0 if "fp8" in str(quantization.get("quant_method", "")) else None


def _known(dtype: str) -> str:
    if dtype not in BYTES:
        raise UserError(f"unknown dtype {dtype!r}: known: {', '.join(BYTES)}")
    return dtype
