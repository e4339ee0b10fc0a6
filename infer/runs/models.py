"""Models by name: where they lie, how they are best prompted, their sizes, and how two of them share a device."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from infer.cost.config import PUBLIC, read_spec
from infer.cost.model import ModelSpec
from infer.errors import UserError, nearest
from infer.nano import CHECKPOINTS, checkpoint

DEFAULT_MODEL = "nano-s"
DEFAULT_PRM = "nano-prm-s"

SEQUENCE = 4096
"""Tokens of a sequence, by which two models' needs of memory are compared."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How a model is used unless the user says otherwise."""

    delimiter: str = "\n\n"
    """Ends a step."""
    temperature: float = 0.8
    max_tokens: int = 2048
    step_tokens: int = 512
    dtype: str = "auto"


# float32, as it was trained: vLLM's own "auto" would round a float32 checkpoint to bfloat16
NANO = Profile(temperature=1.0, max_tokens=256, step_tokens=64, dtype="float32")


@dataclass(frozen=True)
class ModelRef:
    """A model that the user named. Its config.json is read once, when something first needs it."""

    name: str
    """As it was given."""
    where: str
    """Folder or hub id."""
    revision: str | None = None
    """On the hub."""
    download: bool = True
    """Whether the hub is asked for what is not in the local cache."""

    @classmethod
    def named(cls, name: str, revision: str | None = None, *, download: bool = True) -> "ModelRef":
        """The model of this name. Nothing is read or downloaded. Raises UserError for what can be no model's name."""
        return cls(name, _locate(name), revision, download)

    @property
    def packaged(self) -> bool:
        """Whether this is one of the models that come with the package, by name or by folder."""
        return self.name in packaged() or CHECKPOINTS in Path(self.name).resolve().parents

    @property
    def profile(self) -> Profile:
        return NANO if self.packaged else Profile()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's config.json. Raises UserError where it can't be read."""
        path = Path(self.where) / "config.json"
        if not path.is_file():
            path = self._from_hub("config.json")
        try:
            config: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"model {self.where}: its config.json can't be read: {error}") from None
        return config

    def spec(self, dtype: str | None = None) -> ModelSpec:
        """Its sizes in `dtype` (None: its profile's). Raises UserError where they are not known, or too unusual."""
        dtype = dtype or self.profile.dtype
        config = PUBLIC.get(self.name) or self.config
        try:
            return read_spec(config, dtype=dtype if dtype != "auto" else None)
        except UserError as error:
            raise UserError(f"model {self.name}: {error}") from None

    def spec_if_known(self, dtype: str | None = None) -> ModelSpec | None:
        """Its sizes, where its config can be read and is of a known kind."""
        try:
            return self.spec(dtype)
        except UserError:
            return None

    def _from_hub(self, file: str) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.where, file, revision=self.revision, local_files_only=not self.download))
        except LocalEntryNotFoundError:
            raise UserError(f"model {self.where} is not in the local cache, and the hub can't be reached") from None
        except HfHubHTTPError as error:
            raise UserError(
                f"model {self.where} is not on the hub, or not open to you: {error.__class__.__name__}"
            ) from None


def packaged() -> list[str]:
    """Names of the models that come with the package, reward models included."""
    return sorted(f"nano-{path.parent.name}" for path in CHECKPOINTS.glob("*/config.json"))


def served_spec(name: str, dtype: str | None) -> ModelSpec | None:
    """The sizes of a model by the name that a server has it under, where this machine knows them. No download."""
    try:
        return ModelRef.named(name, download=False).spec(dtype)
    except UserError:
        return None


def share_memory(
    generator: ModelSpec | None, verifier: ModelSpec | None, fraction: float, device: float | None
) -> tuple[float, float]:
    """The shares of one device's memory for generator and verifier, together `fraction`.

    Both get what their weights take of the `device` (bytes, the sum if they are split over several; None: weights lie
    elsewhere, as on a CPU), and split the rest by what sequences of `SEQUENCE` tokens leave in their caches. 3 to 2
    where sizes are not known. Raises UserError where the weights do not fit.
    """
    if generator is None or verifier is None:
        return 0.6 * fraction, 0.4 * fraction
    kv = [spec.cache_bytes(SEQUENCE) for spec in (generator, verifier)]
    if device is None:
        return fraction * kv[0] / sum(kv), fraction * kv[1] / sum(kv)
    weights = [spec.weight_memory / device for spec in (generator, verifier)]
    rest = fraction - sum(weights)
    if rest <= 0:
        sizes = " and ".join(f"{share * device / 1e9:.1f} GB" for share in weights)
        raise UserError(
            f"the weights of generator and reward model ({sizes}) do not fit into {fraction:.0%} of {device / 1e9:.0f} "
            "GB: serve the reward model elsewhere and name it by its URL (--prm http://...), choose a smaller one, or "
            "split both over more GPUs (--tensor-parallel)"
        )
    return weights[0] + rest * kv[0] / sum(kv), weights[1] + rest * kv[1] / sum(kv)


def _locate(model: str) -> str:
    """The folder or hub id of a model. Raises UserError for a name that can be neither."""
    if model in packaged():
        return str(checkpoint(model))
    path = Path(model).expanduser()
    if path.exists():
        if not (path / "config.json").is_file():
            raise UserError(f"model {model} is not a Hugging Face checkpoint: it has no config.json")
        return str(path)
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return model
    if "/" in model:
        raise UserError(f"model {model}: there is no such folder")
    raise UserError(f"unknown model {model!r}: {nearest(model, packaged())}, or a folder, or a hub id owner/name")
