"""Every type in transformers' registry of causal language models: counted to the parameter, or refused.

Small models are built on the meta device, without memory. `census.py` has their configs.
"""

import dataclasses
import importlib.util
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from infer.cost.config import read_spec
from infer.cost.families import FAMILIES
from infer.cost.model import ModelSpec
from infer.errors import UserError
from tests.cost.census import SMALL, VARIANTS, build, count, small

ROOT = Path(__file__).resolve().parents[2]
KINDS = sorted(FAMILIES)

models = pytest.mark.models


@models
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_those_of_transformers(kind: str) -> None:
    """From a config.json that has the given fields alone, the whole config, and what a checkpoint saves of it.

    Windows are those of transformers' list of layers.
    """
    config = small(kind)
    model = build(config)
    expected = count(model)
    for given in (config, model.config, model.config.to_diff_dict()):
        assert read_spec(given).params == expected
    kinds = Counter(getattr(model.config, "layer_types", None) or ())
    slide = kinds["chunked_attention"] + kinds["sliding_attention"] * bool(
        getattr(model.config, "sliding_window", None)
    )
    spec = read_spec(config)
    if kinds and model.config.num_hidden_layers == sum(kinds.values()):
        assert sum(layers for attention, layers in spec.attentions if attention.window) == slide
        assert (
            sum(layers for _, layers in spec.recurrences) == kinds["linear_attention"] + kinds["conv"] + kinds["hybrid"]
        )


@models
@pytest.mark.parametrize("config", VARIANTS, ids=lambda config: config["model_type"])
def test_variants(config: dict[str, Any]) -> None:
    assert read_spec(config).params == count(build(config))


IGNORED = re.compile(
    r"token_id|^use_cache|return_dict|output_|chunk_size|problem_type|label|architectures|dtype|dropout"
)
UNRUNNABLE = {
    # transformers builds these, but no pass goes through them
    *(("helium", name) for name in ("hidden_size", "num_attention_heads", "head_dim")),
    ("gemma4_text", "enable_moe_block"),  # without a number of active experts
}
UNCOUNTED = {"is_decoder", "is_encoder_decoder", "add_cross_attention", "use_bidirectional_attention"}


@models
@pytest.mark.parametrize("kind", KINDS)
def test_no_field_changes_a_model_unseen(kind: str) -> None:
    """Each flag turned over and each size changed, one by one: where transformers' count changes, so does ours."""
    from transformers import CONFIG_MAPPING

    base, cls = small(kind), CONFIG_MAPPING[kind]
    compared = 0
    for field in dataclasses.fields(cls):
        name = cls.attribute_map.get(field.name, field.name)
        if IGNORED.search(field.name) or field.name in UNCOUNTED:
            continue
        config = {**base, name: _other(base.get(name, field.default), str(field.type))}
        if config[name] is None:
            continue
        try:
            expected = count(build(config))
        except Exception:  # transformers has no such model either
            continue
        try:
            assert read_spec(config).params == expected, (name, config[name])
        except UserError:
            assert (kind, name) in UNRUNNABLE
        compared += 1
    assert compared >= 5


def _other(value: Any, annotation: str) -> Any:
    """Another value of a flag or a size; None for other fields."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value
    return {"int": 4, "bool": True}.get(annotation.partition(" ")[0]) if value is None else None


@models
@pytest.mark.parametrize("kind", KINDS)
def test_fields_of_other_types_count_for_nothing(kind: str) -> None:
    """A config.json may hold anything: what the type does not have is not read."""
    from transformers import CONFIG_MAPPING

    from infer.cost.fields import _UNDECLARED

    cls, base = CONFIG_MAPPING[kind], small(kind)
    own = {field.name for field in dataclasses.fields(cls)} | set(cls.attribute_map) | set(cls.attribute_map.values())
    strays = {name: value for name, value in SMALL.items() if name not in own | _UNDECLARED}
    strays |= {name: True for name in ("mlp_bias", "attention_bias", "use_bias", "qkv_bias") if name not in own}
    assert read_spec({**strays, **base}).params == read_spec(base).params


def test_types_that_are_not_known_are_refused() -> None:
    with pytest.raises(UserError, match=r"model type rwkv is not known to the cost model \(docs/models.md lists"):
        read_spec({"model_type": "rwkv", "hidden_size": 64, "num_hidden_layers": 2})


@models
def test_the_census_is_up_to_date() -> None:
    """types.json has transformers' defaults, docs/models.md lists the types; at least 100 are known."""
    spec = importlib.util.spec_from_file_location("model_types", ROOT / "scripts" / "model_types.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, made in module.FILES.items():
        assert path.read_text() == made(), f"{path.name}: run scripts/model_types.py --write"
    assert len(KINDS) >= 100


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ("gemma3", "gemma3_text"),
        ("llama4", "llama4_text"),
        ("qwen3_5", "qwen3_5_text"),
        ("mistral3", "mistral"),
        ("qwen2_5_vl", "qwen2_5_vl_text"),
        ("qwen3_vl", "qwen3_vl_text"),
    ],
)
def test_language_models_within_others(config: str, text: str) -> None:
    """Of a model for images the language model counts, the head as the whole config says."""
    inner = {"model_type": text, **{k: v for k, v in SMALL.items() if not k.startswith("num_experts")}}
    inner["head_dim"] = 12
    whole = {"model_type": config, "text_config": inner, "vision_config": {"hidden_size": 9}}
    assert read_spec(whole).params == read_spec(inner).params

    def tie(yes: bool) -> ModelSpec:
        return read_spec(
            {**whole, "tie_word_embeddings": yes, "text_config": {**inner, "tie_word_embeddings": not yes}}
        )

    tied, untied = tie(True), tie(False)
    assert untied.params - tied.params == SMALL["vocab_size"] * SMALL["hidden_size"]


@models
@pytest.mark.parametrize("kind", ["qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "qwen3_vl_moe_text"])
def test_types_that_are_others(kind: str) -> None:
    """Language models that transformers registers only within others: their layers, without a head."""
    import torch
    import transformers

    config = {**SMALL, "model_type": kind, "head_dim": 12, "tie_word_embeddings": True}
    made = transformers.AutoConfig.for_model(
        **config, rope_parameters={"rope_type": "default", "mrope_section": [2, 2, 2]}
    )
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(made)
    assert read_spec(config).params == count(model)
