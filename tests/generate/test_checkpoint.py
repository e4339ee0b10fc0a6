"""Checkpoints that something is wrong with: one line before an engine starts, which names folder, file and field."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from infer.errors import UserError
from infer.generate import checkpoint
from infer.generate.checkpoint import check_model, read_config
from infer.generate.template_worker import render
from infer.runs.models import packaged
from tests.damage import CONFIGS, DAMAGED, Damage, copied, fields, index, inner_template, pickled, template, weights
from tests.verifiers.checkpoints import LLAMA_CHAT, QWEN_CHAT, R1_CHAT, llama_tokenizer


@pytest.mark.parametrize(("damage", "says"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_checkpoint_is_told(
    damage: Damage, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "TEMPLATE_SECONDS", 1)
    folder = copied(tmp_path / "model")
    damage(folder)
    with pytest.raises(UserError, match=says) as error:
        check_model(folder)
    assert re.match(rf"model {re.escape(str(folder))}\b", str(error.value))
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 400 + len(str(folder))


SIZES = {name: case for name, case in CONFIGS.items() if not case[1].startswith("generation_config")}


@pytest.mark.parametrize(("damage", "says"), SIZES.values(), ids=SIZES)
def test_a_damaged_config_is_told_where_only_sizes_are_asked_for(damage: Damage, says: str, tmp_path: Path) -> None:
    folder = copied(tmp_path / "model")
    damage(folder)
    with pytest.raises(UserError, match=says):
        read_config(folder / "config.json")


def gpt2_names(tensors: dict[str, Any]) -> None:
    for name in list(tensors):
        tensors[name.replace("model.layers.", "transformer.h.").replace("embed_tokens", "wte")] = tensors.pop(name)


def with_a_vision_tower(tensors: dict[str, Any]) -> None:
    for name in list(tensors):
        tensors[f"language_{name}"] = tensors.pop(name)
    tensors["vision_tower.layers.11.weight"] = tensors["language_model.norm.weight"].copy()


def told_within(folder: Path) -> None:
    """A model for images: the language model's sizes stand in text_config."""
    config = json.loads((folder / "config.json").read_text())
    fields(text_config=config, hidden_size=7, num_hidden_layers=11, vocab_size=5)(folder)
    weights(with_a_vision_tower)(folder)


def sharded(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(where.values()):
        save_file({name: tensors[name] for name in tensors if where[name] == file}, folder / file)
    index(**where)(folder)


SOUND: dict[str, Damage] = {
    "untouched": lambda folder: None,
    "sizes left out": lambda folder: (folder / "config.json").write_text('{"model_type": "mamba"}'),
    "sizes of each layer": fields(intermediate_size=[96] * 4),
    "null for a size": fields(num_key_value_heads=None, head_dim=None, text_config=None, eos_token_id=None),
    "fields that nobody knows": fields(new={"deep": [{"er": 1}]}),
    "GPT-2's names": weights(gpt2_names),
    "a model for images": told_within,
    "layers that predict tokens ahead": fields(num_hidden_layers=3, num_nextn_predict_layers=1),
    "packed embeddings": fields(vocab_size=512, quantization_config={"bits": 4}),
    "shards": sharded,
    "pickled weights beside the others": lambda folder: shutil.copy(
        folder / "model.safetensors", folder / "pytorch_model.bin"
    ),
    "no tokenizer.json": lambda folder: (folder / "tokenizer.json").unlink(),
    "no chat template": template(""),
    "named templates": inner_template([{"name": "tool_use", "template": "{{ 1 // 0 }}"}]),
    "a template that breaks": template("{% for m in messages %}{% if m.content %}{% break %}{% endif %}{% endfor %}"),
    "a template of today": template("{{ bos_token + strftime_now('%Y') + messages | tojson(indent=1) }}"),
    "tokens with properties": lambda folder: [
        fields("tokenizer_config.json", bos_token={"content": "<s>", "lstrip": False})(folder),
        template("{{ raise_exception('no') if bos_token != '<s>' }}")(folder),
    ],
}


@pytest.mark.parametrize("change", SOUND.values(), ids=SOUND)
def test_unusual_checkpoints_pass(change: Damage, tmp_path: Path) -> None:
    folder = copied(tmp_path / "model")
    change(folder)
    check_model(folder)


@pytest.mark.parametrize("name", packaged())
def test_packaged_models_pass(name: str, tmp_path: Path) -> None:
    check_model(copied(tmp_path / "model", name))


def test_layers_without_use_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = copied(tmp_path / "model")
    fields(num_hidden_layers=3)(folder)
    check_model(folder)
    assert f"model {folder} uses 3 of the 4 layers that it has weights for" in caplog.text


GENERATION = (
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}{{ messages | tojson }}"
)


@pytest.mark.parametrize("text", [QWEN_CHAT, LLAMA_CHAT, R1_CHAT, GENERATION])
def test_a_template_is_tried_as_transformers_renders_it(text: str) -> None:
    tokenizer = llama_tokenizer()
    messages = [{"role": "user", "content": "∀x"}]
    expected = tokenizer.apply_chat_template(messages, chat_template=text, tokenize=False, add_generation_prompt=True)
    assert render(text, tokenizer.special_tokens_map, messages) == expected


def test_pickled_weights_are_converted_as_the_error_says(tmp_path: Path) -> None:
    folder = copied(tmp_path / "model")
    pickled(folder)
    with pytest.raises(UserError, match="in Python: ") as error:
        check_model(folder)
    exec(str(error.value).partition("in Python: ")[2], {})
    check_model(folder)
