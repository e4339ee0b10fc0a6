"""Damaged checkpoints, made from packaged ones: what is done to its files, and what has to be said of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from infer.nano import checkpoint

Damage = Callable[[Path], object]


def copied(folder: Path, name: str = "nano-xs") -> Path:
    """A copy of a packaged model, to be damaged."""
    shutil.copytree(checkpoint(name), folder)
    return folder


def fields(file: str = "config.json", **changes: Any) -> Damage:
    """Other values in a JSON file."""
    return lambda folder: (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **changes}))


def contents(file: str, data: str | bytes) -> Damage:
    def write(folder: Path) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(data.encode() if isinstance(data, str) else data)

    return write


def cut(file: str, share: float) -> Damage:
    """The first part of a file."""
    return lambda folder: (folder / file).write_bytes(
        (folder / file).read_bytes()[: int((folder / file).stat().st_size * share)]
    )


def without(file: str) -> Damage:
    return lambda folder: (folder / file).unlink()


def weights(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Other tensors in model.safetensors."""

    def rewrite(folder: Path) -> None:
        tensors = {name: tensor.copy() for name, tensor in load_file(folder / "model.safetensors").items()}
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def pickled(folder: Path) -> None:
    """The same weights as old checkpoints have them."""
    import torch
    from safetensors.torch import load_file as load

    torch.save(load(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def index(**weight_map: str) -> Damage:
    return contents("model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": weight_map}))


def template(text: str) -> Damage:
    return contents("chat_template.jinja", text)


def inner_template(value: Any) -> Damage:
    """In tokenizer_config.json, as older checkpoints have it."""

    def write(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        fields("tokenizer_config.json", chat_template=value)(folder)

    return write


def together(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


CODE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification
"""


def code(mark: Path, **changes: Any) -> Damage:
    """A Python file that leaves a mark where it runs, named for everything that transformers may load."""
    names = {
        "AutoConfig": "planted.Qwen3Config",
        "AutoModel": "planted.Qwen3ForCausalLM",
        "AutoModelForCausalLM": "planted.Qwen3ForCausalLM",
        "AutoModelForSequenceClassification": "planted.Qwen3ForSequenceClassification",
        "AutoTokenizer": ["planted.PreTrainedTokenizerFast", "planted.PreTrainedTokenizerFast"],
    }
    return together(
        contents("planted.py", CODE.format(mark=str(mark))),
        contents("custom_generate/generate.py", CODE.format(mark=str(mark))),
        fields(auto_map=names, **changes),
        fields("tokenizer_config.json", auto_map=names),
    )


def nan_for(token: int) -> Damage:
    """NaN as the input embedding of one token, and nowhere else: the head has embeddings of its own."""

    def untie(tensors: dict[str, Any]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
        tensors["model.embed_tokens.weight"][token] = float("nan")

    return together(weights(untie), fields(tie_word_embeddings=False))


DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
CONFIGS: dict[str, tuple[Damage, str]] = {
    "config.json missing": (without("config.json"), "is not a Hugging Face checkpoint: it has no config.json"),
    "config.json empty": (contents("config.json", ""), "config.json: can't be read: EOF"),
    "config.json cut": (cut("config.json", 0.5), "config.json: can't be read: "),
    "config.json binary": (contents("config.json", b"\x00\xff\xfe" * 9), "config.json: can't be read: "),
    "config.json UTF-16": (contents("config.json", "{}".encode("utf-16")), "config.json: can't be read: "),
    "config.json HTML": (contents("config.json", "<html>429</html>"), "config.json: can't be read: "),
    "config.json a git-lfs pointer": (contents("config.json", "version https://git-lfs"), "config.json: can't be read"),
    "config.json null": (contents("config.json", "null"), "config.json: holds None, not an object"),
    "config.json a list": (contents("config.json", "[1, 2]"), r"config.json: holds \[1, 2\], not an object"),
    "config.json a number": (contents("config.json", "7"), "config.json: holds 7, not an object"),
    "config.json too deep": (contents("config.json", DEEP), "config.json: can't be read: recursion limit exceeded"),
    "config.json a folder": (
        together(without("config.json"), lambda folder: (folder / "config.json").mkdir()),
        "config.json: can't be read: ",
    ),
    "0 heads": (fields(num_attention_heads=0), "config.json: num_attention_heads is 0: .* greater than 0"),
    "0 KV heads": (fields(num_key_value_heads=0), "config.json: num_key_value_heads is 0"),
    "KV heads that divide no heads": (
        fields(num_key_value_heads=3),
        "config.json: num_attention_heads is 2, no multiple of num_key_value_heads, 3",
    ),
    "0 layers": (fields(num_hidden_layers=0), "config.json: num_hidden_layers is 0"),
    "a negative size": (fields(hidden_size=-32), "config.json: hidden_size is -32: .* greater than 0"),
    "a negative head": (fields(head_dim=-1), "config.json: head_dim is -1"),
    "a text for a size": (fields(hidden_size="32"), "config.json: hidden_size is '32': .* valid integer"),
    "a fraction for a size": (fields(head_dim=32.5), "config.json: head_dim is 32.5"),
    "true for a size": (fields(num_hidden_layers=True), "config.json: num_hidden_layers is True"),
    "a list for a size": (fields(vocab_size=[128]), r"config.json: vocab_size is \[128\]"),
    "NaN for a size": (
        lambda folder: (folder / "config.json").write_text('{"hidden_size": NaN}'),
        "config.json: hidden_size is nan",
    ),
    "a size beyond all memory": (fields(intermediate_size=10**30), "config.json: intermediate_size is 1000"),
    "a context beyond all memory": (fields(max_position_embeddings=10**9), "config.json: max_position_embeddings is"),
    "a nested size": (fields(text_config={"num_attention_heads": 0}), "text_config.num_attention_heads is 0"),
    "text_config a list": (fields(text_config=[1]), r"config.json: text_config is \[1\]"),
    "architectures a text": (fields(architectures="Qwen3ForCausalLM"), "config.json: architectures is 'Qwen3"),
    "architectures of numbers": (fields(architectures=[3]), "config.json: architectures.0 is 3"),
    "model_type a number": (fields(model_type=3), "config.json: model_type is 3"),
    "layer_types a text": (fields(layer_types="full"), "config.json: layer_types is 'full'"),
    "id2label a list": (fields(id2label=["a", "b"]), "config.json: id2label is"),
    "an end token of text": (fields(eos_token_id="<|end|>"), "config.json: eos_token_id is '<|end|>'"),
    "quantization_config a text": (fields(quantization_config="fp8"), "config.json: quantization_config is 'fp8'"),
    "a kernel of the hub": (
        fields(_attn_implementation="owner/kernel"),
        "config.json: _attn_implementation is 'owner/kernel': it names code of the hub",
    ),
    "kernels of the hub": (
        fields(text_config={"attn_implementation": {"": "a/b:c"}}),
        "config.json: attn_implementation is .*: it names code of the hub",
    ),
    "generation_config.json cut": (cut("generation_config.json", 0.5), "generation_config.json: can't be read"),
    "generation_config.json a list": (contents("generation_config.json", "[]"), "generation_config.json: holds"),
    "an end token of text to generate with": (
        fields("generation_config.json", eos_token_id=["x"]),
        r"generation_config.json: eos_token_id is \['x'\]",
    ),
}
WEIGHTS: dict[str, tuple[Damage, str]] = {
    "no weights": (without("model.safetensors"), "has no weights: it lacks model.safetensors"),
    "weights empty": (contents("model.safetensors", b""), "model.safetensors: can't be read: "),
    "weights cut in the header": (cut("model.safetensors", 0.001), "model.safetensors: can't be read: "),
    "weights cut": (cut("model.safetensors", 0.5), "model.safetensors: can't be read: .*incomplete"),
    "weights a git-lfs pointer": (
        contents("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"),
        "can't",
    ),
    "weights with a header beyond the file": (contents("model.safetensors", b"\xff" * 7 + b"\x00{}"), "can't be read"),
    "weights with bytes too many": (
        lambda folder: (folder / "model.safetensors").open("ab").write(b"\x00" * 9),
        "model.safetensors: can't be read: ",
    ),
    "pickled weights alone": (
        pickled,
        "pytorch_model.bin is not loaded: pickled weights can hold code.*save_pretrained",
    ),
    "more layers than weights": (
        fields(num_hidden_layers=40, layer_types=["full_attention"] * 40),
        "config.json: num_hidden_layers is 40, but the weights hold 4",
    ),
    "half of a fused weight": (
        weights(lambda tensors: tensors.pop("model.layers.2.mlp.up_proj.weight")),
        "its weights lack model.layers.2.mlp.up_proj.weight, though they hold model.layers.2.mlp.gate_proj.weight",
    ),
    "another vocabulary": (fields(vocab_size=200), "config.json: vocab_size is 200, .* embedding has 128"),
    "another width": (fields(hidden_size=64), "config.json: hidden_size is 64, .* embedding has 32"),
    "an index of a file that is not there": (
        index(**{"model.norm.weight": "model-00001-of-00001.safetensors"}),
        "model-00001-of-00001.safetensors: can't be read: ",
    ),
    "an index of a weight that is not there": (
        index(**{"model.layers.9.x": "model.safetensors"}),
        "model.safetensors.index.json: names model.layers.9.x in model.safetensors, which lacks it",
    ),
    "an index that leaves the folder": (index(x="../../x.safetensors"), r"index.json: weight_map.x is '../../x"),
    "an index without a map": (
        contents("model.safetensors.index.json", '{"metadata": {}}'),
        "index.json: it has no weight_map",
    ),
    "an index cut": (contents("model.safetensors.index.json", '{"weight_map": {'), "index.json: can't be read"),
}
TOKENIZERS: dict[str, tuple[Damage, str]] = {
    "tokenizer.json cut": (cut("tokenizer.json", 0.5), "tokenizer.json: can't be read: "),
    "tokenizer.json empty": (contents("tokenizer.json", ""), "tokenizer.json: can't be read: "),
    "tokenizer.json null": (contents("tokenizer.json", "null"), "tokenizer.json: can't be read: "),
    "tokenizer.json of no model": (contents("tokenizer.json", '{"version": "1.0"}'), "tokenizer.json: can't be read: "),
    "tokenizer.json of an unknown model": (fields("tokenizer.json", model={"type": "Magic"}), "tokenizer.json: can't"),
    "tokenizer_config.json cut": (cut("tokenizer_config.json", 0.5), "tokenizer_config.json: can't be read"),
    "tokenizer_config.json a list": (contents("tokenizer_config.json", "[]"), "tokenizer_config.json: holds"),
}
TEMPLATES: dict[str, tuple[Damage, str]] = {
    "a template that does not parse": (template("{% for %}"), "chat_template.jinja: .* fails: TemplateSyntaxError: "),
    "a template with an unknown filter": (template("{{ 1|magic }}"), "fails: TemplateAssertionError: .*magic"),
    "a template of an unknown tag": (template("{% magic %}"), "fails: TemplateSyntaxError: .*magic"),
    "a template that raises": (template("{{ raise_exception('no, \n never') }}"), "fails: TemplateError: no,"),
    "a template that divides by zero": (template("{{ 1 // 0 }}"), "fails: ZeroDivisionError"),
    "a template with an undefined name": (template("{{ magic.word.more }}"), "fails: UndefinedError: .*magic"),
    "a template that is no text": (contents("chat_template.jinja", b"\xff\xfe\x00"), "chat_template.jinja: can't be"),
    "a template that includes a file": (template("{% include '/etc/passwd' %}"), "fails: TypeError: no loader"),
    "a template that recurses": (template("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"), "fails: RecursionError"),
    "a template nested too deep": (template("{{ " + "(" * 50_000 + " }}"), "fails: RecursionError"),
    "a template that leaves the sandbox": (
        template("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        "fails: SecurityError: ",
    ),
    "a template that leaves by a method": (template("{{ raise_exception.__globals__.os }}"), "fails: SecurityError: "),
    "a template that leaves by a format": (template("{{ '{0.__class__.__mro__}'.format(1) }}"), "fails: SecurityError"),
    "a template that changes its messages": (template("{{ messages.append(1) }}"), "fails: SecurityError"),
    "a template that loops": (template(LOOP), "chat_template.jinja: its chat template took over 1 s"),
    "a template that computes for ever": (template("{{ 3 ** (10 ** 8) }}"), "its chat template took over 1 s"),
    "a template that takes all memory": (template("{{ 'a' * 10**11 }}"), "fails: MemoryError"),
    "a template that repeats itself": (
        template("{% for a in range(99999) %}{{ 'a' * 99999 }}{% endfor %}"),
        "fails: MemoryError|took over 1 s",
    ),
    "an older template that raises": (
        inner_template("{{ raise_exception('never') }}"),
        "tokenizer_config.json: its chat template fails: TemplateError: never",
    ),
    "a named template that raises": (
        inner_template([{"name": "default", "template": "{{ 1 // 0 }}"}]),
        "tokenizer_config.json: its chat template fails: ZeroDivisionError",
    ),
    "a template that is a number": (inner_template(3), "tokenizer_config.json: chat_template is 3"),
}
DAMAGED = {**CONFIGS, **WEIGHTS, **TOKENIZERS, **TEMPLATES}
