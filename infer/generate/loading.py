"""Tokenizers and reward models loaded by transformers. Its errors become UserErrors of one line."""

import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infer.errors import UserError
from infer.generate.chat import check_tokenizer


def load_reward_model(
    model: str | Path, model_class: str, *, dtype: str = "auto", revision: str | None = None
) -> tuple[Any, Any]:
    """A model, on the GPU if there is one, and its tokenizer. `model_class` is `module:Class`. Raises UserError."""
    import torch

    tokenizer = load_tokenizer(model, revision)
    disable_cudnn_attention()
    with _loading(f"reward model {model}"):
        load = pkgutil.resolve_name(model_class).from_pretrained
        loaded, report = load(model, dtype=dtype, revision=revision, output_loading_info=True)
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"reward model {model} lacks {len(missing)} weights ({missing[0]}, ...): is it of this family?")
    return loaded.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def load_tokenizer(model: str | Path, revision: str | None) -> Any:
    """Raises UserError where there is none, or a broken one."""
    from transformers import AutoTokenizer

    with _loading(f"the tokenizer of {model}"):
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    check_tokenizer(tokenizer)
    return tokenizer


def disable_cudnn_attention() -> None:
    """Keeps torch from cuDNN's attention, in the whole process: it plans for each new shape, 90 ms on an H200.

    torch prefers it for 16 bits on a GPU of Hopper's, and here nearly every token and every score is of a new shape.
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


@contextmanager
def _loading(what: str) -> Iterator[None]:
    """Turns the errors of transformers and safetensors for an incomplete checkpoint into a UserError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        why = (str(error).split("\n")[0] or type(error).__name__).rstrip(".")
        raise UserError(f"{what} can't be loaded: {why}") from error
