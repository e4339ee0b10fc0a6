"""Tokenizers and models loaded by transformers, for every backend. Its errors become UserErrors of one line.

**The code of a checkpoint is never run.** transformers asks on standard input where it is not told so: this is the one
place that loads anything by it, and it always tells.
"""

import importlib.util
import os
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infer.cost.hardware import cache_folder
from infer.errors import UserError, first_line
from infer.generate.chat import check_tokenizer
from infer.generate.checkpoint import check_model

# what torch compiles is a cache: its own default is the temporary folder
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "torchinductor"))

_NO_CODE: dict[str, Any] = {"trust_remote_code": False}
_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def load_causal(model: str | Path, *, dtype: str, revision: str | None, device: str | None = None) -> tuple[Any, Any]:
    """A language model and its tokenizer. `device` is the GPU if there is one. Raises UserError."""
    what = f"model {model}"
    config = _load_config(what, model, revision)
    names = config.architectures or []
    if names and not any(name.endswith(_CAUSAL) for name in names):
        raise UserError(f"{model} is a {names[0]}, not a causal language model: give one that generates text")
    return _load(what, model, config, "transformers:AutoModelForCausalLM", dtype, revision, device)


def load_reward_model(
    model: str | Path, model_class: str, *, dtype: str = "auto", revision: str | None = None
) -> tuple[Any, Any]:
    """A model, on the GPU if there is one, and its tokenizer. `model_class` is `module:Class`. Raises UserError."""
    what = f"reward model {model}"
    return _load(what, model, _load_config(what, model, revision), model_class, dtype, revision, None)


def _load_config(what: str, model: str | Path, revision: str | None) -> Any:
    from transformers import AutoConfig

    check_model(model, revision)
    with _loading(what):
        return AutoConfig.from_pretrained(model, revision=revision, **_NO_CODE)


def _load(
    what: str, model: str | Path, config: Any, model_class: str, dtype: str, revision: str | None, device: str | None
) -> tuple[Any, Any]:
    import torch

    tokenizer = load_tokenizer(model, revision)
    disable_cudnn_attention()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with _loading(what):
        loaded, report = pkgutil.resolve_name(model_class).from_pretrained(
            model,
            dtype=dtype,
            revision=revision,
            # said here, since a config.json may name a kernel of the hub, which is code
            attn_implementation=_attention(device, config.dtype if dtype == "auto" else dtype),
            use_safetensors=True,
            output_loading_info=True,
            **_NO_CODE,
        )
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"{what} lacks {len(missing)} weights ({missing[0]}, ...): is it complete, and of this kind?")
    return loaded.to(device).eval(), tokenizer


def load_tokenizer(model: str | Path, revision: str | None) -> Any:
    """Raises UserError where there is none, or a broken one."""
    from transformers import AutoTokenizer

    with _loading(f"the tokenizer of {model}"):
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, **_NO_CODE)
    check_tokenizer(tokenizer)
    return tokenizer


def refused(what: str, error: Exception) -> UserError:
    """The error for a model that a library can't load."""
    if "trust_remote_code" in str(error):
        return UserError(
            f"{what} needs Python code of its own, and the code of a checkpoint is never run: choose a model that "
            "transformers or vLLM has a class for"
        )
    fix = "give a complete Hugging Face model folder, or the id of a hub model that is cached or can be reached"
    why = first_line(error)
    return UserError(f"{what} can't be loaded: {why}" + (f": {fix}" if isinstance(error, OSError) else ""))


@contextmanager
def _loading(what: str) -> Iterator[None]:
    """Whatever transformers and safetensors raise for a damaged checkpoint becomes a UserError."""
    try:
        yield
    except Exception as error:
        raise refused(what, error) from error


def disable_cudnn_attention() -> None:
    """Keeps torch from cuDNN's attention, in the whole process: it plans for each new shape, 90 ms on an H200.

    torch prefers it for 16 bits on a GPU of Hopper's, and here nearly every token and every score is of a new shape.
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def _attention(device: str, dtype: Any) -> str:
    """FlashAttention where it is installed and can be used: on a GPU, with 16 bits."""
    usable = device.startswith("cuda") and str(dtype).removeprefix("torch.") in ("float16", "bfloat16")
    return "flash_attention_2" if usable and importlib.util.find_spec("flash_attn") is not None else "sdpa"
