"""A checkpoint's files, read and checked before any engine reads them. Imports no engine.

An engine reports a damaged file late, in its own words, or not at all. Here each is a UserError of one line that names
the folder, the file and the field. A checkpoint is data: pickled weights can hold code, so they are never loaded, and
a chat template is first tried in a process of its own, with little memory and time.
"""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from infer.errors import UserError, first_line

logger = logging.getLogger(__name__)

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
INDEX = "model.safetensors.index.json"
TEMPLATE_SECONDS = 5
"""Of a processor, for a chat template to render one short message. It takes a millisecond, its process a tenth."""

Size = Annotated[int, Field(strict=True, gt=0, lt=1 << 31)]
Token = Annotated[int, Field(strict=True, lt=1 << 31)]


class _Sizes(BaseModel):
    """The sizes of a language model that everything here relies on. Each may be left out."""

    hidden_size: Size | None = None
    intermediate_size: Size | list[Size] | None = None
    num_hidden_layers: Size | None = None
    num_attention_heads: Size | None = None
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    vocab_size: Size | None = None
    max_position_embeddings: Annotated[Size, Field(lt=1 << 26)] | None = None
    layer_types: list[str] | None = None


class _Config(_Sizes):
    """config.json."""

    model_type: str | None = None
    architectures: list[str] | None = None
    auto_map: dict[str, Any] | None = None
    text_config: _Sizes | None = None
    quantization_config: dict[str, Any] | None = None
    id2label: dict[str, str] | None = None
    num_labels: Size | None = None
    name_or_path: str | None = Field(None, alias="_name_or_path")
    eos_token_id: Token | list[Token] | None = None


class _GenerationConfig(BaseModel):
    """generation_config.json."""

    eos_token_id: Token | list[Token] | None = None


class _TokenizerConfig(BaseModel):
    """tokenizer_config.json."""

    class Named(BaseModel):
        name: str
        template: str

    chat_template: str | list[Named] | None = None


class _Index(BaseModel):
    """model.safetensors.index.json: the file of each weight."""

    weight_map: dict[str, Annotated[str, Field(pattern=r"^[^/\\]+\.safetensors$")]]


def read_config(file: Path) -> dict[str, Any]:
    """A config.json, its sizes checked. Raises UserError, which names the folder, the file and the field."""
    config = _read(file, _Config)
    sizes = {**config, **(config.get("text_config") or {})}
    heads, shared = sizes.get("num_attention_heads"), sizes.get("num_key_value_heads")
    if heads and shared and heads % shared:
        raise _damaged(file, f"num_attention_heads is {heads}, no multiple of num_key_value_heads, {shared}")
    for field, value in _fields(config):
        if field.endswith("_implementation") and "/" in str(value):
            raise _damaged(file, f"{field} is {_short(value)}: it names code of the hub, and none is run: remove it")
    return config


def check_model(model: str | Path, revision: str | None = None) -> None:
    """Checks what an engine is about to read: configs, weights, tokenizer, chat template. Raises UserError.

    Of the weights only the headers are read: names, shapes, and whether the files are whole. Of a hub model the config
    is checked, and of the rest what is in the local cache, but no weights: the hub's client compares their hashes.
    """
    if Path(model).is_dir():
        folder = Path(model)
    elif isinstance(model, Path):
        raise UserError(f"no such model folder: {model}")
    else:
        from huggingface_hub import hf_hub_download

        try:
            folder = Path(hf_hub_download(model, "config.json", revision=revision)).parent
        except Exception:
            return  # whoever loads it says why it can't be had
    config = read_config(folder / "config.json")
    if (folder / "generation_config.json").is_file():
        _read(folder / "generation_config.json", _GenerationConfig)
    if folder == Path(model):
        _check_sizes(folder, config, _read_shapes(folder))
    _check_tokenizer(folder / "tokenizer.json")
    _check_template(folder)


def not_numbers(model: str) -> UserError:
    """The error for a model whose logits are no numbers."""
    return UserError(
        f"model {model} computes NaN where logits should be: its weights are damaged, or too large for this dtype "
        "(try --dtype float32)"
    )


def _read(file: Path, schema: type[BaseModel]) -> dict[str, Any]:
    """A JSON file whose fields fit. Raises UserError."""
    from pydantic_core import from_json

    try:
        found = from_json(file.read_bytes())  # it also stops at 200 levels, where json.loads recurses
    except FileNotFoundError:
        raise UserError(f"model {file.parent} is not a Hugging Face checkpoint: it has no {file.name}") from None
    except (OSError, ValueError) as error:
        raise _damaged(file, f"can't be read: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise _damaged(file, f"holds {_short(found)}, not an object of fields")
    try:
        schema.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "missing":
            raise _damaged(file, f"it has no {first['loc'][-1]}") from None
        why = first["msg"][0].lower() + first["msg"][1:]
        raise _damaged(file, f"{_field(found, first['loc'])} is {_short(first['input'])}: {why}") from None
    return found


def _field(found: Any, where: Sequence[str | int]) -> str:
    """A field's name, such as `text_config.head_dim`; of a union pydantic also names the member that did not fit."""
    parts = []
    for part in where:
        try:
            found = found[part]
        except (KeyError, IndexError, TypeError):
            break
        parts.append(str(part))
    return ".".join(parts)


def _fields(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All fields and their values, those of nested objects after their own."""
    for field, value in config.items():
        yield field, value
        if isinstance(value, dict):
            yield from _fields(value)


def _read_shapes(folder: Path) -> dict[str, list[int]]:
    """The weights' shapes, by name. Raises UserError: there are none, pickled ones alone, or torn ones."""
    from safetensors import SafetensorError, safe_open

    index = folder / INDEX
    weight_map: dict[str, str] = _read(index, _Index)["weight_map"] if index.is_file() else {}
    files = sorted(set(weight_map.values())) or sorted(file.name for file in folder.glob("*.safetensors"))
    if not files:
        raise _no_weights(folder)
    shapes: dict[str, list[int]] = {}
    for name in files:
        try:
            with safe_open(folder / name, framework="numpy") as weights:
                shapes |= {key: list(weights.get_slice(key).get_shape()) for key in weights.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise _damaged(folder / name, f"can't be read: {first_line(error)}") from None
    for first, second in _FUSED:
        for key in shapes:
            other = key.removesuffix(first) + second
            if key.endswith(first) and other not in shapes:
                raise UserError(f"model {folder}: its weights lack {other}, though they hold {key}")
    if lacking := sorted(weight_map.keys() - shapes.keys()):
        raise _damaged(index, f"names {lacking[0]} in {weight_map[lacking[0]]}, which lacks it")
    return shapes


def _no_weights(folder: Path) -> UserError:
    pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
    if not pickled:
        return UserError(f"model {folder} has no weights: it lacks model.safetensors")
    return UserError(
        f"model {folder}: {pickled[0]} is not loaded: pickled weights can hold code. If you trust it, convert it to "
        "safetensors, in Python: import transformers; "
        f"transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
    )


_FUSED = ((".gate_proj.weight", ".up_proj.weight"), (".up_proj.weight", ".down_proj.weight"))
"""Weights that come together. vLLM loads some of them into one tensor, and says nothing where half of it is missing."""
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|embed_in|tok_embeddings)\.weight$")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def _check_sizes(folder: Path, config: Mapping[str, Any], shapes: Mapping[str, list[int]]) -> None:
    """Holds config.json against the weights, where their names tell. Raises UserError."""
    sizes = {**config, **(config.get("text_config") or {})}
    file, told = folder / "config.json", sizes.get("num_hidden_layers")
    layers: dict[str, int] = {}
    for name in shapes:
        if found := _LAYER.search(name):
            stack = name[: found.start(1)]
            layers[stack] = max(layers.get(stack, 0), int(found[1]) + 1)
    if told and layers and told > max(layers.values()):
        raise _damaged(file, f"num_hidden_layers is {told}, but the weights hold {max(layers.values())}")
    if told and len(layers) == 1 and told + (sizes.get("num_nextn_predict_layers") or 0) < max(layers.values()):
        logger.warning("model %s uses %d of the %d layers that it has weights for", folder, told, max(layers.values()))
    embeddings = [shape for name, shape in shapes.items() if _EMBEDDING.search(name)]
    if len(embeddings) == 1 and len(embeddings[0]) == 2 and not config.get("quantization_config"):
        for field, held in zip(("vocab_size", "hidden_size"), embeddings[0], strict=True):
            if sizes.get(field) not in (None, held):
                raise _damaged(file, f"{field} is {sizes[field]}, but the weights' embedding has {held}")


def _check_tokenizer(file: Path) -> None:
    """Raises UserError for a damaged tokenizer.json. Other kinds of tokenizers are left to the engine."""
    from tokenizers import Tokenizer

    if not file.is_file():
        return
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # of no class of their own
        raise _damaged(file, f"can't be read: {first_line(error)}") from None


def _check_template(folder: Path) -> None:
    """Renders one message. Raises UserError for a template that fails, or does not come to an end."""
    file = folder / "tokenizer_config.json"
    config = _read(file, _TokenizerConfig) if file.is_file() else {}
    template = config.get("chat_template")
    if (folder / "chat_template.jinja").is_file():
        file = folder / "chat_template.jinja"
        try:
            template = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise _damaged(file, f"can't be read: {first_line(error)}") from None
    elif isinstance(template, list):
        template = next((each["template"] for each in template if each["name"] == "default"), None)
    if not template:
        return
    tokens = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "")  # the class may know them
    for name, value in config.items():
        token = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(token, str):
            tokens[name] = token
    # a fresh interpreter: a thread can't be stopped, and a fork of one that has threads is unsafe
    command = [sys.executable, "-P", str(Path(__file__).with_name("template_worker.py"))]
    asked = json.dumps([template, tokens, [{"role": "user", "content": "1+1=?"}], TEMPLATE_SECONDS])
    try:
        done = subprocess.run(command, input=asked.encode(), capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        raise _damaged(file, "its chat template took over a minute for one message") from None
    if done.returncode < 0:
        raise _damaged(file, f"its chat template took over {TEMPLATE_SECONDS} s for one message, or too much memory")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise _damaged(file, f"its chat template fails: {said[0]}")


def _damaged(file: Path, why: str) -> UserError:
    return UserError(f"model {file.parent}: {file.name}: {why}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
