"""Writes `infer/cost/types.json` and `docs/models.md` from the installed transformers.

    python scripts/model_types.py            fails if they are not up to date
    python scripts/model_types.py --write

types.json has, for each type of model that the cost model knows, the fields of its config class with their defaults,
and transformers' other names for them. docs/models.md lists the types that are known, and those that are refused.
"""

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COST = ROOT / "infer" / "cost"
TYPES = COST / "types.json"
PAGE = ROOT / "docs" / "models.md"

REQUIRED = ("hidden_size", "num_hidden_layers")
"""Fields without a default: a config.json that lacks them is of no language model."""

HEADER = """\
# Types of models that costs are counted for

Parameters of {known} types (`model_type` in a `config.json`) equal transformers' own count to the parameter, whatever
their config says: `tests/cost/test_census.py` builds them with transformers {version}, changes each flag and each size,
and compares. FLOPs and bytes follow from the same matrices ([the cost model](cost-model.md)). A config with a
`text_config` of one of these types, as models for images have, is counted by it. Other types are refused: `infer cost`
says so, and a run of such a model counts tokens but not FLOPs, eFLOPs or dollars.

This page is made by `scripts/model_types.py`.

| type | layers attend by | MLP |
|---|---|---|
"""

REFUSED = """
## Refused

Types of causal language models in transformers {version} whose layers are not modelled ({count}): {names}.
"""


def table() -> str:
    """types.json."""
    rows = (f"{json.dumps(kind)}: {json.dumps(record)}" for kind, record in sorted(types().items()))
    return "{\n" + ",\n".join(rows) + "\n}\n"


def types() -> dict[str, dict[str, Any]]:
    """Fields, defaults and names of each type that is known."""
    from transformers import CONFIG_MAPPING

    from infer.cost.families import FAMILIES

    readers = ("families.py", "family.py", "recurrences.py", "fields.py", "config.py")
    source = "".join((COST / name).read_text() for name in readers)
    read = set(re.findall(r'"([A-Za-z_][A-Za-z0-9_]+)"', source))  # words in quotes: all fields, and some more
    found: dict[str, dict[str, Any]] = {}
    for kind in FAMILIES:
        names = dict(CONFIG_MAPPING[kind].attribute_map)
        wanted = read | {names[name] for name in read & names.keys()}
        declared = {names.get(field.name, field.name): field for field in dataclasses.fields(CONFIG_MAPPING[kind])}
        required = {names.get(name, name) for name in REQUIRED}
        found[kind] = {
            "names": {name: real for name, real in sorted(names.items()) if name in read},
            "defaults": {
                name: None if name in required else _plain(declared[name].default)
                for name in sorted(wanted & declared.keys())
            },
        }
    return found


def _plain(value: Any) -> Any:
    """A default as JSON; None where there is none."""
    return value if isinstance(value, bool | int | str | list | tuple) else None


def page() -> str:
    """docs/models.md."""
    from transformers import CONFIG_MAPPING, __version__
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as REGISTRY

    from infer.cost.config import SAME_TYPE, read_spec
    from infer.cost.families import FAMILIES

    sys.path.insert(0, str(ROOT))
    from tests.cost.census import small

    rows = []
    for kind in sorted(FAMILIES):
        spec = read_spec(small(kind))
        rows.append(f"| `{kind}` | {_mixers(spec)} | {_mlp(FAMILIES[kind], spec)} |\n")
    same: dict[str, list[str]] = {}
    for name, kind in SAME_TYPE.items():
        same.setdefault(kind, []).append(f"`{name}`")
    also = "; ".join(f"{', '.join(names)} as `{kind}`" for kind, names in same.items())
    outer = {kind for kind in REGISTRY if getattr(_text_type(CONFIG_MAPPING[kind]), "model_type", "") in FAMILIES}
    within = ", ".join(f"`{kind}`" for kind in sorted(outer - set(FAMILIES)))
    refused = sorted(set(REGISTRY) - set(FAMILIES) - set(SAME_TYPE) - outer)
    names = ", ".join(f"`{kind}`" for kind in refused)
    return (
        HEADER.format(known=len(FAMILIES), version=__version__)
        + "".join(rows)
        + f"\nAlso counted: {also}; by their language models {within}.\n"
        + REFUSED.format(version=__version__, count=len(refused), names=names)
    )


def _text_type(config: Any) -> Any:
    """The config class of the language model within one for images; None where there is none."""
    return (getattr(config, "sub_configs", None) or {}).get("text_config")


def _mixers(spec: Any) -> str:
    """The kinds of mixers of a model, in words."""
    from infer.cost.model import LatentAttention, Recurrence

    kinds: dict[str, None] = {}
    for mixer, _ in spec.mixers:
        if isinstance(mixer, Recurrence):
            kinds["a recurrence" if mixer.flops else "a convolution or gates"] = None
        elif isinstance(mixer, LatentAttention):
            kinds["latents chosen by an indexer" if mixer.indexer else "latents"] = None
        elif mixer.window:
            kinds["chunks" if mixer.chunked else "windows"] = None
        else:
            kinds["full attention"] = None
    return ", ".join(kinds)


def _mlp(family: Any, spec: Any) -> str:
    if family.alone and not family.moe:
        return "none"
    return ("gated" if family.gated else "plain") + (", experts" if spec.experts else "")


FILES = {TYPES: table, PAGE: page}
"""In this order: the page is made by what types.json says."""


def main() -> None:
    sys.path.insert(0, str(ROOT))
    for path, made in FILES.items():
        text = made()
        if path.is_file() and path.read_text() == text:
            continue
        if "--write" not in sys.argv[1:]:
            sys.exit(f"{path.name} is not up to date: run scripts/model_types.py --write")
        path.write_text(text)


if __name__ == "__main__":
    main()
