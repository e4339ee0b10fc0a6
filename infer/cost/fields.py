"""The fields of a `config.json`, read as transformers reads them: with its defaults and its other names for fields.

Both are kept in `types.json`, made from transformers' config classes by `scripts/model_types.py`.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infer.errors import UserError

Flag = bool | str
"""Yes or no, or the field of the config that says so."""

_UNDECLARED = {
    "architectures",
    "dtype",
    "id2label",
    "model_type",
    "num_labels",
    "parscale_n",
    "parscale_n_tokens",
    "torch_dtype",
    # these no config class declares, but transformers reads them where they are
    "block_ff_dim",
    "first_k_dense_replace",
    "full_attention_interval",
    "global_head_dim",
    "head_dim",
    "hybrid_override_pattern",
    "index_skip_topk_offset",
    "index_topk_freq",
    "index_topk_pattern",
    "linear_attn_config",
    "num_global_key_value_heads",
    "num_hidden_layers",
    "per_layer_config",
    "sliding_window_pattern",
    "tie_word_embeddings",
    "_remove_final_layer_norm",
}
"""Fields that are read for any type. Others count only where they belong to the type, as in transformers."""


@functools.cache
def _types() -> dict[str, dict[str, dict[str, Any]]]:
    """For each type the defaults of its fields, and their names in files for those in code: `n_embd` for `hidden_size`.

    Read when first needed: `scripts/model_types.py` imports the families before it has written the file.
    """
    types: dict[str, dict[str, dict[str, Any]]] = json.loads(Path(__file__).with_name("types.json").read_text())
    return types


class Fields:
    """The fields of one config.json of a known type of model."""

    def __init__(self, config: Mapping[str, Any], kind: str) -> None:
        known = _types()[kind]
        self.type = kind
        self._names, defaults = known["names"], known["defaults"]
        given = {self._names.get(key, key): value for key, value in config.items()}
        own = {key: value for key, value in given.items() if key in defaults or key in _UNDECLARED}
        self._values: dict[str, Any] = {**defaults, **own}

    def get(self, *names: str) -> Any:
        """The value of the first of these fields that is set; None where none is."""
        values = (self._values.get(self._names.get(name, name)) for name in names)
        return next((value for value in values if value is not None), None)

    def need(self, *names: str) -> int:
        """The first of these fields that is set, a size. Raises UserError where none is, or where it is no size."""
        value = self.get(*names)
        if value is None:
            raise UserError(
                f"this config.json (model type {self.type}) has no {names[0]}: it is not of a language model"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**63 or value % 1:
            raise UserError(f"this config.json (model type {self.type}) has {names[0]} {value!r}: not a size")
        return int(value)

    def size(self, *names: str) -> int:
        """The first of these fields that is set, a size or 0; 0 where none is. Raises UserError where it is neither."""
        return self.need(*names) if self.get(*names) not in (None, 0, False) else 0

    def flag(self, flag: Flag) -> bool:
        return bool(self.get(flag)) if isinstance(flag, str) else flag

    def listed(self, *names: str) -> list[Any] | None:
        """A list with an entry for each layer; None where there is none. Raises UserError for one too short."""
        values = self.get(*names)
        if not isinstance(values, list | tuple | str) or not values:
            return None
        if len(values) < self.layers:
            raise UserError(f"this config.json has {self.layers} layers, but {names[0]} names {len(values)}")
        return list(values)

    @property
    def hidden(self) -> int:
        return self.need("hidden_size")

    @property
    def layers(self) -> int:
        """The number of layers."""
        pattern = self.get("layer_types", "hybrid_override_pattern")  # nemotron_h counts no layers
        return len(pattern) if pattern and self.get("num_hidden_layers") is None else self.need("num_hidden_layers")
