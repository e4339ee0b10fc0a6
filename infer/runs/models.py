"""Models by name: where they lie, how they are best prompted, and the engines that run them."""

import importlib.util
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from infer.core.generator import Generator
from infer.core.tree import Aggregation
from infer.core.verifier import Verifier
from infer.cost.config import PUBLIC, known_spec, read_spec
from infer.cost.model import ModelSpec
from infer.errors import UserError, nearest
from infer.nano import CHECKPOINTS, checkpoint
from infer.verifiers import families, readers
from infer.verifiers.classifier import CLASSIFIER, check_label_names
from infer.verifiers.ensemble import COMBINATIONS, Combination, Ensemble
from infer.verifiers.outcome import OUTCOME
from infer.verifiers.prm import Family, RewardModel, architecture, labels
from infer.verifiers.readers import Reader
from infer.verifiers.self_evaluation import SelfEvaluation
from infer.verifiers.vllm_plugin import register_loaded

Local = Literal["vllm", "transformers"]
Backend = Literal[Local, "openai"]

DEFAULT_MODEL = "nano-s"
DEFAULT_PRM = "nano-prm-s"
SELF = "self"
"""The name under which the generator is its own verifier."""


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


def profile(model: str | None) -> Profile:
    """The profile of a model (None: whatever a server serves)."""
    return NANO if model is not None and is_nano(model) else Profile()


def is_nano(model: str) -> bool:
    """Whether this is one of the packaged models, by name or by folder."""
    return model in packaged() or CHECKPOINTS in Path(model).resolve().parents


def packaged() -> list[str]:
    """Names of the models that come with the package, reward models included."""
    return sorted(f"nano-{path.parent.name}" for path in CHECKPOINTS.glob("*/config.json"))


def locate(model: str) -> str:
    """The folder or hub id behind a name. Raises UserError for a name that can be neither."""
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


def default_backend() -> Local:
    return "vllm" if importlib.util.find_spec("vllm") else "transformers"


def open_generator(
    model: str,
    backend: Local,
    *,
    dtype: str | None = None,
    revision: str | None = None,
    max_context: int | None = None,
    tensor_parallel: int = 1,
    data_parallel: int = 1,
    memory_fraction: float = 0.9,
) -> Generator:
    """Loads a model to generate with; `dtype` None is its profile's. Raises UserError where it can't be loaded."""
    where = locate(model)
    dtype = dtype or profile(model).dtype
    _read_config(where, revision)
    if backend == "transformers":
        from infer.generate.transformers import TransformersGenerator

        return TransformersGenerator(where, dtype=dtype, revision=revision, max_context=max_context)
    from infer.generate.engine import start_engine
    from infer.generate.vllm import VLLMGenerator

    engine = start_engine(
        where,
        "generate",
        dtype=dtype,
        revision=revision,
        max_context=max_context,
        tensor_parallel=tensor_parallel,
        data_parallel=data_parallel,
        memory_fraction=memory_fraction,
    )
    return VLLMGenerator(engine)


def spec(model: str, dtype: str | None = None, *, download: bool = True) -> ModelSpec:
    """The sizes of a model that need not be here. Raises UserError for one that is not known, or is too unusual."""
    dtype = dtype or profile(model).dtype
    config = PUBLIC.get(model) or _read_config(locate(model), None, download=download)
    try:
        return read_spec(config, dtype=dtype if dtype != "auto" else None)
    except UserError as error:
        raise UserError(f"model {model}: {error}") from None


def share_memory(
    generator: ModelSpec | None, verifier: ModelSpec | None, fraction: float, device: float | None
) -> tuple[float, float]:
    """The shares of one device's memory for generator and verifier, together `fraction`.

    Both get what their weights take of the `device` (bytes, the sum if they are split over several; None: weights lie
    elsewhere, as on a CPU), and split the rest by what a token leaves in their KV caches. 3 to 2 where sizes are not
    known. Raises UserError where the weights do not fit.
    """
    if generator is None or verifier is None:
        return 0.6 * fraction, 0.4 * fraction
    kv = [spec.kv_size * spec.kv_bytes * spec.streams for spec in (generator, verifier)]
    if device is None:
        return fraction * kv[0] / sum(kv), fraction * kv[1] / sum(kv)
    weights = [spec.params * spec.weight_bytes / device for spec in (generator, verifier)]
    rest = fraction - sum(weights)
    if rest <= 0:
        sizes = " and ".join(f"{share * device / 1e9:.1f} GB" for share in weights)
        raise UserError(
            f"the weights of generator and reward model ({sizes}) do not fit into {fraction:.0%} of {device / 1e9:.0f} "
            "GB: serve the reward model elsewhere and name it by its URL (--prm http://...), choose a smaller one, or "
            "split both over more GPUs (--tensor-parallel)"
        )
    return weights[0] + rest * kv[0] / sum(kv), weights[1] + rest * kv[1] / sum(kv)


def loads_verifier(prm: str) -> bool:
    """Whether --prm names a model to be loaded here: neither a server nor the generator itself."""
    return any(not member.remote and member.model != SELF for member in parse_verifier(prm)[1])


def verifier_spec(prm: str) -> ModelSpec | None:
    """The sizes of what --prm names, of the first of several; None for a server, or the generator itself."""
    _, (first, *_) = parse_verifier(prm)
    return None if first.remote or first.model == SELF else spec_if_known(first.model)


def spec_if_known(model: str, dtype: str | None = None, *, download: bool = True) -> ModelSpec | None:
    """The sizes of a model, where its config can be read and is of a known kind."""
    try:
        return spec(model, dtype, download=download)
    except UserError:
        return None


@dataclass(frozen=True, slots=True)
class Judging:
    """One verifier as the user names it: `[family:]model[#chains=N]`, where a model may be a URL, or `self`."""

    model: str
    family: str | None = None
    chains: int = 1

    @property
    def remote(self) -> bool:
        return self.model.startswith(("http://", "https://"))

    @classmethod
    def parse(cls, text: str) -> "Judging":
        """Raises UserError."""
        family, colon, model = text.partition(":")
        if not colon or family in ("http", "https"):
            family, model = "", text
        elif family not in families.NAMES:
            raise UserError(f"--prm {text}: unknown family {family!r}: {nearest(family, families.NAMES)}")
        model, _, option = model.partition("#")
        chains = 1
        if option:
            name, _, number = option.partition("=")
            if name != "chains" or not number.isdecimal() or int(number) < 1:
                raise UserError(
                    f"--prm {text}: #{option} is not #chains=N, the number of critiques that a judge writes"
                )
            chains = int(number)
        if not model:
            raise UserError(f"--prm {text}: no model is named")
        judging = cls(model, family or None, chains)
        if model != SELF and not judging.remote:
            locate(model)
        return judging


def parse_verifier(text: str) -> tuple[Combination, list[Judging]]:
    """`a`, `a,b` (their mean), `min:a,b`, `prod:a,b`: what --prm names. Raises UserError."""
    head, colon, rest = text.partition(":")
    combination: Combination = "mean"
    if colon and head in COMBINATIONS:
        combination, text = head, rest
    return combination, [Judging.parse(member.strip()) for member in text.split(",")]


async def open_verifier(
    text: str,
    backend: Local,
    *,
    generator: Generator | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    tensor_parallel: int = 1,
    memory_fraction: float = 0.9,
    api_key: str | None = None,
) -> Verifier:
    """Loads what `parse_verifier` reads; several share the memory equally.

    `generator` is the one that evaluates itself (`self`); `api_key` is sent to all servers among them. Raises UserError
    where a model can't be loaded, or is of an unknown family.
    """
    combination, members = parse_verifier(text)
    opened: list[Verifier] = []
    try:
        for member in members:
            if member.model == SELF:
                if generator is None:
                    raise UserError("--prm self: there is no generator to evaluate itself")
                opened.append(SelfEvaluation(generator))
            elif member.remote:
                opened.append(await _connect_verifier(member, revision, api_key))
            else:
                share = memory_fraction / len(members)
                opened.append(await _load_verifier(member, backend, dtype, revision, tensor_parallel, share))
        return opened[0] if len(opened) == 1 else Ensemble(opened, combination)
    except BaseException:
        for verifier in opened:
            await verifier.close()
        raise


async def _load_verifier(
    judging: Judging,
    backend: Local,
    dtype: str | None,
    revision: str | None,
    tensor_parallel: int,
    memory_fraction: float,
) -> Verifier:
    where = locate(judging.model)
    config = _read_config(where, revision)
    name = judging.family or families.recognize(judging.model, config)
    dtype = dtype or profile(judging.model).dtype
    if name in families.JUDGES:
        generator = open_generator(
            judging.model,
            backend,
            dtype=dtype,
            revision=revision,
            tensor_parallel=tensor_parallel,
            memory_fraction=memory_fraction,
        )
        async with _closed_on_error(generator):
            return families.JUDGES[name](generator, judging.chains)
    family = families.READ[name]
    _check_labels(judging.model, family, config)
    aggregation = _aggregation(judging.model, config)
    reader: Reader
    if backend == "transformers":
        model, tokenizer = readers.load_transformers(where, family.load, dtype=dtype, revision=revision)
        if family.reads == "head":
            reader = readers.TransformersHead(model, tokenizer)
        else:
            reader = readers.TransformersTokens(model, tokenizer, family.pair)
        return RewardModel(family, reader, aggregation, config)
    from infer.generate.engine import start_engine

    if family.vllm_architecture is not None:
        register_loaded(family.vllm_architecture)
    engine = start_engine(
        where,
        "pooling" if family.reads == "head" else "generate",
        dtype=dtype,
        revision=revision,
        architecture=family.vllm_architecture,
        tensor_parallel=tensor_parallel,
        memory_fraction=memory_fraction,
    )
    async with _closed_on_error(engine):
        reader = readers.VLLMHead(engine) if family.reads == "head" else readers.VLLMTokens(engine, family.pair)
        return RewardModel(family, reader, aggregation, config)


async def _connect_verifier(judging: Judging, revision: str | None, api_key: str | None) -> Verifier:
    from infer.verifiers.served import Connection, ServedHead, ServedTokens

    server = await Connection.connect(judging.model, api_key=api_key)
    async with _closed_on_error(server):
        where = locate(server.source)
        config = _read_config(where, revision)
        server.spec = known_spec(config, None, server.source)
        family = families.READ.get(judging.family or families.recognize(server.source, config))
        if family is None:
            raise UserError(f"{judging.model}: a judge that writes runs on this machine, not behind a URL")
        _check_labels(server.source, family, config)
        tokenizer = readers.load_tokenizer(where, revision)
        if family.reads == "head":
            reader: Reader = await ServedHead.probe(server, tokenizer)
        else:
            reader = ServedTokens(server, tokenizer, family.pair)
        return RewardModel(family, reader, _aggregation(server.source, config), config)


@asynccontextmanager
async def _closed_on_error(opened: Any) -> AsyncIterator[None]:
    """What was opened is closed again where it turns out unfit, such as by its tokenizer."""
    try:
        yield
    except BaseException:
        await opened.close()
        raise


def _check_labels(model: str, family: Family, config: dict[str, Any]) -> None:
    """That a classifier has its family's labels, in its order: the head would be read all the same."""
    if family in (CLASSIFIER, OUTCOME) and not family.recognizes("", config):
        raise UserError(
            f"reward model {model} is a {architecture(config)} with {labels(config)} labels: {family.name} needs a "
            f"...ForSequenceClassification with {1 if family is OUTCOME else 2}"
        )
    if family is CLASSIFIER:
        check_label_names(model, config)


def _aggregation(model: str, config: dict[str, Any]) -> Aggregation | None:
    """The one that a checkpoint of ours names for itself."""
    aggregation: Aggregation | None = config.get("prm_aggregation")
    if aggregation is not None and aggregation not in get_args(Aggregation):
        raise UserError(f"reward model {model} names an unknown prm_aggregation {aggregation!r} in its config.json")
    return aggregation


def _read_config(where: str, revision: str | None, *, download: bool = True) -> dict[str, Any]:
    """A checkpoint's config.json, from its folder or the hub. Raises UserError where there is none."""
    path = Path(where) / "config.json"
    if not path.is_file():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(where, "config.json", revision=revision, local_files_only=not download))
        except LocalEntryNotFoundError:
            raise UserError(f"model {where} is not in the local cache, and the hub can't be reached") from None
        except HfHubHTTPError as error:
            raise UserError(
                f"model {where} is not on the hub, or not open to you: {error.__class__.__name__}"
            ) from None
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"model {where}: its config.json can't be read: {error}") from None
    return config
