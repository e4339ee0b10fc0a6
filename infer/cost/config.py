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

from infer.cost.families import FAMILIES
from infer.cost.family import Family, layers_of, norm_of
from infer.cost.fields import Fields
from infer.cost.model import BYTES, Embedding, Head, ModelSpec, linear
from infer.errors import UserError

logger = logging.getLogger(__name__)

PUBLIC: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("configs.json").read_text())
"""Configs of some public models by hub id, for estimates: the part of `config.json` that determines sizes."""

REWARD_HEADS = {"Qwen2ForRewardModel": 1, "Qwen2ForProcessRewardModel": 2}
"""Architectures whose head is Linear, ReLU, Linear, with the number of its scores."""


def read_spec(config: Any, *, dtype: str | None = None, kv_dtype: str | None = None) -> ModelSpec:
    """Reads the spec from a Hugging Face config: the dict of a `config.json`, or a transformers config object.

    `dtype` is that of the loaded weights: by default the config's own, or bfloat16 where it has none. Quantized weights
    of 8 or 4 bits are counted as such. `kv_dtype` is that of the cache, by default `dtype`. Only the language model is
    counted in models for images or sound. Raises UserError for a type of model whose layers are not known exactly.
    """
    if not isinstance(config, Mapping):
        config = config.to_dict()
    return _spec(config, dtype, kv_dtype)


def known_spec(config: Any, dtype: str | None, name: str) -> ModelSpec | None:
    """The spec of a loaded model; None, with a warning, for an architecture whose costs can't be counted."""
    try:
        return read_spec(config, dtype=dtype)
    except UserError as error:
        logger.warning("%s: its costs are not counted: %s", name, error)
        return None


SAME_TYPE = {
    "kimi_k2": "deepseek_v3",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
}
"""Types built as another one: later versions, and the language models in models for images."""


def _spec(config: Mapping[str, Any], dtype: str | None, kv_dtype: str | None) -> ModelSpec:
    text = config.get("text_config")
    inner: dict[str, Any] = {**config, **text} if isinstance(text, Mapping) else dict(config)
    name = str(inner.get("model_type", "?"))
    kind = SAME_TYPE.get(name, name)
    if kind not in FAMILIES:
        raise UserError(f"model type {name} is not known to the cost model (docs/models.md lists those that are)")
    c, family = Fields(inner, kind), FAMILIES[kind]
    stored = _known(str(dtype or c.get("dtype", "torch_dtype") or "bfloat16").removeprefix("torch."))
    vocab, hidden, width = c.need("vocab_size"), c.hidden, family.width(c)
    rows, columns = family.table(c)
    positions = family.positions(c) * hidden
    kinds = Counter(layers_of(family, c))
    streams = c.size("parscale_n") or 1
    weight_bytes, expert_bytes, matrix_dtype = _quantized(config.get("quantization_config") or {}, stored)
    return ModelSpec(
        hidden=hidden,
        vocab=vocab,
        embedding=Embedding(
            vocab * width + positions + rows * columns, width + hidden * bool(positions) + columns * bool(rows)
        ),
        layers=tuple(kinds.items()),
        head=_head(config, c, family),
        outside=family.outside(c) + norm_of(family, c) * family.last_norm(c),
        dtype=stored,
        matrix_dtype=matrix_dtype,
        weight_bytes=weight_bytes,
        expert_bytes=expert_bytes,
        kv_bytes=BYTES[_known(kv_dtype or stored)],
        streams=streams,
        prefix=c.size("parscale_n_tokens") if streams > 1 else 0,
    )


def _head(config: Mapping[str, Any], c: Fields, family: Family) -> Head:
    """The head by architecture: of a language model, or of a reward model."""
    architecture = str((config.get("architectures") or ["?"])[0])
    labels = c.size("num_labels") or len(c.get("id2label") or (0, 1))
    hidden = c.hidden
    if architecture in REWARD_HEADS:
        labels = REWARD_HEADS[architecture]
        weights = linear(hidden, hidden, True) + linear(hidden, labels, True)
    elif architecture.endswith("ForSequenceClassification"):
        weights = linear(hidden, labels)
    elif architecture.endswith("ForTokenClassification"):
        weights = linear(hidden, labels, True)
    else:
        weights = linear(family.width(c), c.need("vocab_size"), c.flag(family.head_bias))
        # of a model for images, the whole model's config says it
        tied = config.get(family.tied, c.get(family.tied)) if isinstance(family.tied, str) else family.tied
        return Head(weights.matrices, weights.others if tied else weights.params, weights.params)
    return Head(weights.matrices, weights.params, weights.params)


def _quantized(how: Mapping[str, Any], dtype: str) -> tuple[float, float | None, str | None]:
    """Bytes of a parameter of the layers, and of experts if they differ; dtype of the products with matrices.

    Scales, and layers that are left unquantized, count like the rest. Raises UserError for a method that is not known.
    """
    if not how:
        return BYTES[dtype], None, None
    method = str(how.get("quant_method", "")).lower()
    if method == "mxfp4":  # experts alone: 4 bits, and a scale of 8 for each 32 (gpt-oss)
        return BYTES[dtype], 4.25 / 8, None
    bits = how.get("bits") or how.get("weight_bits")
    if method == "bitsandbytes" or "load_in_4bit" in how:
        bits = 4 if how.get("load_in_4bit") else 8
    products = None
    if "fp8" in method or str(how.get("quant_algo", "")).lower() == "fp8":
        bits, products = 8, "float8"
    groups = [group for group in (how.get("config_groups") or {}).values() if isinstance(group, Mapping)]
    if groups:  # compressed-tensors
        weights, inputs = groups[0].get("weights") or {}, groups[0].get("input_activations")
        bits = weights.get("num_bits")
        if inputs and bits == 8:
            products = "float8" if weights.get("type") == "float" else "int8"
    if not isinstance(bits, int | float) or bits not in (2, 3, 4, 5, 6, 8):
        raise UserError(
            f"quantization_config of this config.json: method {method or '?'} is not known to the cost model"
        )
    return bits / 8, None, products


def _known(dtype: str) -> str:
    if dtype not in BYTES:
        raise UserError(f"unknown dtype {dtype!r}: known: {', '.join(BYTES)}")
    return dtype
