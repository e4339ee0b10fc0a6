"""What a model is made of, as far as its cost goes: read from a Hugging Face `config.json`, no weights needed.

    spec = ModelSpec.from_config(json.loads(Path("config.json").read_text()))
    spec.params, spec.active_params     # 30_532_122_624, 3_352_...

Parameters are counted matrix by matrix and equal those of the loaded model. Layers that are alike are kept once, with
their number.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from infer.errors import UserError

logger = logging.getLogger(__name__)

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1, "int4": 0.5}
"""Bytes of one number, by dtype."""

PUBLIC: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("configs.json").read_text())
"""Configs of some public models by hub id, for work on paper: what their `config.json` says about sizes."""

REWARD_HEADS = {"Qwen2ForRewardModel": 1, "Qwen2ForProcessRewardModel": 2}
"""Architectures whose head is Linear, ReLU, Linear, and how many scores it gives."""


@dataclass(frozen=True, slots=True)
class Attention:
    """Grouped-query attention: multi-head where `kv_heads` is `heads`, multi-query where it is 1."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    """A token attends to so many, itself included; None: to all before it."""
    qkv_bias: bool = False
    out_bias: bool = False
    norm_params: int = 0
    """Of the norms of queries and keys."""

    @property
    def matrix_params(self) -> int:
        """Of the matrices that each token is multiplied with."""
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def params(self) -> int:
        biases = self.head_dim * (self.heads + 2 * self.kv_heads) * self.qkv_bias + self.hidden * self.out_bias
        return self.matrix_params + biases + self.norm_params

    @property
    def kv_size(self) -> int:
        """Numbers that one token leaves in the KV cache."""
        return 2 * self.kv_heads * self.head_dim

    @property
    def score_flops(self) -> int:
        """FLOPs of one query's scores for one key: q k, in all heads."""
        return 2 * self.heads * self.head_dim

    @property
    def decode_flops(self) -> int:
        """FLOPs of one query with one key and its value: q k and p v, in all heads."""
        return 4 * self.heads * self.head_dim

    @property
    def prefill_flops(self) -> int:
        return self.decode_flops

    @property
    def expand_flops(self) -> int:
        """FLOPs that each cached token costs once more in a prefill behind it."""
        return 0


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, 2405.04434, section 2.1): the cache holds one latent for all heads.

    A prefill expands latents into keys and values of all heads, those of the cached prefix again; a decode step
    multiplies the expansion into query and output instead ("absorbed") and attends to the latents themselves, as vLLM
    does.
    """

    hidden: int
    heads: int
    q_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int
    bias: bool = False
    window: None = None

    @property
    def matrix_params(self) -> int:
        query_size = self.heads * (self.nope_dim + self.rope_dim)
        query = self.hidden * query_size
        if self.q_rank is not None:
            query = self.q_rank * (self.hidden + query_size)
        latent = self.hidden * (self.kv_rank + self.rope_dim)
        return query + latent + self.expand_flops // 2 + self.heads * self.v_dim * self.hidden

    @property
    def params(self) -> int:
        norms = (self.q_rank or 0) + self.kv_rank
        biases = self.bias * ((self.q_rank or 0) + self.kv_rank + self.rope_dim + self.hidden)
        return self.matrix_params + norms + biases

    @property
    def kv_size(self) -> int:
        return self.kv_rank + self.rope_dim

    @property
    def decode_flops(self) -> int:
        return 2 * self.heads * (2 * self.kv_rank + self.rope_dim)

    @property
    def prefill_flops(self) -> int:
        return 2 * self.heads * (self.nope_dim + self.rope_dim + self.v_dim)

    @property
    def expand_flops(self) -> int:
        return 2 * self.kv_rank * self.heads * (self.nope_dim + self.v_dim)


@dataclass(frozen=True, slots=True)
class MLP:
    """A gated feed-forward network: three matrices."""

    hidden: int
    inner: int
    bias: bool = False

    @property
    def active_matrix_params(self) -> int:
        return 3 * self.hidden * self.inner

    @property
    def params(self) -> int:
        return self.active_matrix_params + self.bias * (2 * self.inner + self.hidden)


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of gated experts: a router picks `active` of `count` for each token; shared experts serve them all."""

    hidden: int
    inner: int
    count: int
    active: int
    shared_inner: int = 0
    shared_gate: bool = False

    @property
    def expert_params(self) -> int:
        """Of one expert."""
        return 3 * self.hidden * self.inner

    @property
    def _always(self) -> int:
        """The router and the shared experts."""
        return self.hidden * (self.count + self.shared_gate + 3 * self.shared_inner)

    @property
    def active_matrix_params(self) -> int:
        return self.active * self.expert_params + self._always

    @property
    def params(self) -> int:
        return self.count * self.expert_params + self._always

    def hit(self, tokens: float) -> float:
        """Experts that a pass of so many tokens reads, expected: a token leaves one out with probability
        1 - active/count, so count (1 - (1 - active/count)^tokens). Assumes that tokens choose independently and all
        experts alike; the choices of real routers go together within a text, and hit fewer."""
        missed: float = (1 - self.active / self.count) ** tokens
        return self.count * (1 - missed)


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer."""

    attention: Attention | LatentAttention
    mlp: MLP | Experts
    norm_params: int

    @property
    def params(self) -> int:
        return self.attention.params + self.mlp.params + self.norm_params

    @property
    def matrix_params(self) -> int:
        """Of the matrices that each token is multiplied with."""
        return self.attention.matrix_params + self.mlp.active_matrix_params


@dataclass(frozen=True, slots=True)
class Head:
    """What turns a hidden state into logits, or into the scores of a reward model."""

    matrix_params: int
    params: int
    """Those of its own: none for a head that is tied to the embedding."""
    read: int
    """Parameters read in a pass."""


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only transformer's sizes: all that its cost depends on.

    `streams` are the parallel streams of ParScale (2505.10475): each token goes through the layers so many times, with
    `prefix` trained tokens in front of the KV cache of each stream, and a small network weighs their outputs. Try it
    on any model with `dataclasses.replace(spec, streams=4, prefix=48)`.
    """

    hidden: int
    vocab: int
    layers: tuple[tuple[Layer, int], ...]
    """Each kind of layer with the number of layers of its kind."""
    head: Head
    dtype: str = "bfloat16"
    """Of the arithmetic; weights and KV cache may be stored in fewer bytes."""
    weight_bytes: float = 2
    kv_bytes: float = 2
    streams: int = 1
    prefix: int = 0

    @classmethod
    def from_config(cls, config: Any, *, dtype: str | None = None, kv_dtype: str | None = None) -> "ModelSpec":
        """The spec of a Hugging Face config: the dict of a `config.json`, or a transformers config object.

        `dtype` is what the weights are loaded in: by default the config's own (bfloat16 where it has none; weights
        quantized to 8 or 4 bits take that). `kv_dtype` is the cache's, by default the arithmetic's. Of models with
        images or sound only the language model is counted. Raises UserError for a config that is no decoder-only
        transformer's.
        """
        if not isinstance(config, Mapping):
            config = config.to_dict()
        return _Reader(config).spec(dtype, kv_dtype)

    @cached_property
    def embedding_params(self) -> int:
        return self.vocab * self.hidden

    @cached_property
    def stream_params(self) -> int:
        """What ParScale adds: prefixes of keys and values, and Linear(P h, h), Linear(h, P) to weigh the streams."""
        if self.streams == 1:
            return 0
        return self.streams * self.prefix * self.kv_size + self.aggregation_params

    @cached_property
    def aggregation_params(self) -> int:
        return self.aggregation_matrix_params + self.hidden + self.streams if self.streams > 1 else 0

    @cached_property
    def aggregation_matrix_params(self) -> int:
        return self.streams * self.hidden * (self.hidden + 1) if self.streams > 1 else 0

    @cached_property
    def body_params(self) -> int:
        """All layers and the last norm."""
        return sum(layer.params * count for layer, count in self.layers) + self.hidden

    @cached_property
    def params(self) -> int:
        """All parameters, tied ones once."""
        return self.embedding_params + self.body_params + self.head.params + self.stream_params

    @cached_property
    def active_params(self) -> int:
        """Parameters that serve one token: `params` without the experts it is not sent to."""
        idle = sum(
            (layer.mlp.params - layer.mlp.active_matrix_params) * count
            for layer, count in self.layers
            if isinstance(layer.mlp, Experts)
        )
        return self.params - idle

    @cached_property
    def matrix_params(self) -> int:
        """Of the matrices in the layers that each token is multiplied with, head and embedding apart."""
        return sum(layer.matrix_params * count for layer, count in self.layers)

    @cached_property
    def kv_size(self) -> int:
        """Numbers that one token of one stream leaves in the KV cache, all layers."""
        return sum(layer.attention.kv_size * count for layer, count in self.layers)

    @cached_property
    def attentions(self) -> tuple[tuple[Attention | LatentAttention, int], ...]:
        """Each kind of attention with the number of layers that have it."""
        counts: Counter[Attention | LatentAttention] = Counter()
        for layer, count in self.layers:
            counts[layer.attention] += count
        return tuple(counts.items())

    @cached_property
    def _experts(self) -> tuple[tuple[Experts, int], ...]:
        """Each kind of mixture with all parameters of its experts' matrices, one of each layer."""
        kinds = ((layer.mlp, layers) for layer, layers in self.layers if isinstance(layer.mlp, Experts))
        return tuple((mlp, mlp.expert_params * layers) for mlp, layers in kinds)

    @cached_property
    def _always_read(self) -> int:
        return self.body_params - sum(mlp.count * size for mlp, size in self._experts)

    def body_read(self, tokens: float) -> float:
        """Parameters of the layers read in a pass of so many tokens (all streams): of experts only those hit."""
        read: float = self._always_read
        for experts, size in self._experts:
            read += experts.hit(tokens) * size
        return read


_FAMILIES: dict[str, dict[str, Any]] = {
    # what a config.json may leave out, and `_` what it does not say: which parts have biases, how many norms
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


class _Reader:
    """Reads one config."""

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
                f"{', '.join(_FAMILIES)} and models built like them"
            )

    def need(self, *keys: str) -> int:
        """The first of these that is set. Raises UserError where none is."""
        value = self.get(*keys)
        if value is None:
            raise UserError(f"this config.json (model type {self.family}) is no language model's: it has no {keys[0]}")
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
        """Each layer's sliding window."""
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
        """By the architecture: a language model's, or a reward model's."""
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
        """Bytes of a weight in a quantized checkpoint, its scales and what is left unquantized not counted."""
        quantization = self.outer.get("quantization_config") or {}
        if bits := quantization.get("bits") or quantization.get("weight_bits"):
            return float(bits) / 8
        return 1.0 if "fp8" in str(quantization.get("quant_method", "")) else None


def _known(dtype: str) -> str:
    if dtype not in BYTES:
        raise UserError(f"dtype {dtype!r} is not known: {', '.join(BYTES)}")
    return dtype


def known_spec(config: Any, dtype: str | None, name: str) -> ModelSpec | None:
    """The spec of a model that is loaded; None, and said, for an architecture whose costs can't be counted."""
    try:
        return ModelSpec.from_config(config, dtype=dtype)
    except UserError as error:
        logging.getLogger(__name__).warning("%s: its costs are not counted: %s", name, error)
        return None
