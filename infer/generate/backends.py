"""Backends by name: how models are opened, each in an engine on this machine or on a server.

Ours are `vllm`, `transformers` and `openai`. Another package adds one by an entry point in the group `infer.backends`
that names a `Backend`. Engines are imported only when a model is opened.
"""

import importlib.util
import math
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from infer.core import plugins
from infer.core.generator import Generator, Request, Sampling
from infer.core.reader import Reader
from infer.core.tasks import closed_on_error
from infer.cost.model import ModelSpec
from infer.generate.checkpoint import not_numbers
from infer.generate.engine import Engine

GROUP = "infer.backends"

REQUESTS = 256
"""Open at once with a server, as many as a vLLM server runs at once by default. Many problems are in flight, and each
of them has several requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArgs:
    """A model to open, and how to run it. Each backend reads the fields that concern it."""

    model: str | None
    """Folder or hub id. On a server: the name that it has there; None: the only one."""
    revision: str | None = None
    dtype: str = "auto"
    max_context: int | None = None
    """Tokens of prompt and completion; None: the model's own."""
    tensor_parallel: int = 1
    data_parallel: int = 1
    memory_fraction: float = 0.9
    """Of a GPU's memory, for weights and KV cache."""
    base_url: str | None = None
    api_key: str | None = None
    timeout: float = 600.0
    """Seconds that a server may take for one whole reply."""
    spec_of: Callable[[str], ModelSpec | None] = lambda name: None
    """The sizes of a model by the name that a server has it under, where they are known on this machine."""


class OpenReader(Protocol):
    async def __call__(self, args: ModelArgs, pair: tuple[str, str] | None, model_class: str | None) -> Reader:
        """A reader of two tokens as the next one (`pair`), or of a classification head (None).

        `model_class` is `module:Class`, for a model that the backend has no class for. Raises UserError for a model
        that can't be loaded, or read like this.
        """
        ...


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to run models."""

    name: str
    open_generator: Callable[[ModelArgs], Awaitable[Generator]]
    """Raises UserError for a model that can't be opened. `infer list backends` shows its docstring."""
    open_reader: OpenReader | None = None
    """For reward models. None: they run on the default backend."""
    local: bool = True
    """Whether it loads models here. False: it connects to a server, which --base-url names."""
    ignores: frozenset[str] = frozenset()
    """Fields of `ModelArgs` that it does not read: the command line refuses a setting of one."""
    device_memory: Callable[[], float | None] | None = None
    """Returns the bytes of one device, None for a CPU. For a backend whose models claim their `memory_fraction` as they
    are loaded: generator and reward model then have to share."""


def names() -> list[str]:
    """All backends that are registered, whether or not they can run here."""
    return plugins.names(GROUP)


def find(name: str) -> Backend:
    """The backend of this name. Raises UserError: unknown, with the nearest names; offered twice; not to be loaded."""
    return plugins.load(GROUP, "backend", name, plugins.of_type(Backend))


def default() -> str:
    """vLLM where it is installed."""
    return "vllm" if importlib.util.find_spec("vllm") else "transformers"


async def _vllm_generator(args: ModelArgs) -> Generator:
    """vLLM on this machine, with one continuously batched engine."""
    from infer.generate.vllm import VLLMGenerator

    engine = _engine(args, "generate")
    async with closed_on_error(engine):
        return await _warm(VLLMGenerator(engine), args)


async def _vllm_reader(args: ModelArgs, pair: tuple[str, str] | None, model_class: str | None) -> Reader:
    from infer.generate.readers import VLLMHead, VLLMTokens

    architecture = _register_with_vllm(model_class) if model_class is not None else None
    engine = _engine(args, "pooling" if pair is None else "generate", architecture)
    async with closed_on_error(engine):
        return await _warm_reader(VLLMHead(engine) if pair is None else VLLMTokens(engine, pair), args)


def _engine(args: ModelArgs, role: Literal["generate", "pooling"], architecture: str | None = None) -> Engine:
    from infer.generate.engine import start_engine

    assert args.model is not None
    return start_engine(
        args.model,
        role,
        dtype=args.dtype,
        revision=args.revision,
        architecture=architecture,
        max_context=args.max_context,
        tensor_parallel=args.tensor_parallel,
        data_parallel=args.data_parallel,
        memory_fraction=args.memory_fraction,
    )


def _register_with_vllm(model_class: str) -> str:
    """Gives vLLM the class itself, in this process: by name alone, it would start another process only to look at it.

    vLLM's other processes learn of it through a plugin (entry point `vllm.general_plugins`). Returns the class's name.
    """
    from infer.generate.engine import quiet_environment

    quiet_environment()
    from vllm import ModelRegistry

    found = pkgutil.resolve_name(model_class)
    ModelRegistry.register_model(found.__name__, found)
    return str(found.__name__)


def _vllm_memory() -> float | None:
    from infer.generate.engine import device_memory

    return device_memory()


async def _transformers_generator(args: ModelArgs) -> Generator:
    """Plain transformers on this machine: the reference, and the fallback."""
    from infer.generate.transformers import TransformersGenerator

    assert args.model is not None
    generator = TransformersGenerator(
        args.model, dtype=args.dtype, revision=args.revision, max_context=args.max_context
    )
    async with closed_on_error(generator):
        return await _warm(generator, args)


async def _transformers_reader(args: ModelArgs, pair: tuple[str, str] | None, model_class: str | None) -> Reader:
    from infer.generate.loading import load_reward_model
    from infer.generate.readers import TransformersHead, TransformersTokens

    assert args.model is not None
    auto = "transformers:AutoModelFor" + ("SequenceClassification" if pair is None else "CausalLM")
    model, tokenizer = load_reward_model(args.model, model_class or auto, dtype=args.dtype, revision=args.revision)
    reader: Reader = TransformersHead(model, tokenizer) if pair is None else TransformersTokens(model, tokenizer, pair)
    return await _warm_reader(reader, args)


async def _warm(generator: Generator, args: ModelArgs) -> Generator:
    """Has it answer once, drawn and with log-probabilities, so that nothing lazy is left to a problem's own time.

    Raises UserError for a model that computes NaN: nearly all damage to weights shows in the first log-probability.
    """
    prompt = await generator.tokenize("1+1=?")
    assert not isinstance(prompt, str)
    request = Request(prompt[: generator.max_context - 2], Sampling(temperature=1.0), 2, logprobs=True)
    (completion,) = await generator.generate(request)
    if not all(map(math.isfinite, completion.logprobs or ())):
        raise not_numbers(str(args.model))
    return generator


async def _warm_reader(reader: Reader, args: ModelArgs) -> Reader:
    """As `_warm`."""
    tokens = reader.tokenizer.encode("1+1=?")[: reader.max_context]
    scores = await reader.read(tokens, [len(tokens)])
    if not all(map(math.isfinite, scores.values)):
        raise not_numbers(str(args.model))
    return reader


async def _openai_generator(args: ModelArgs) -> Generator:
    """A server with OpenAI's API, which --base-url names."""
    from infer.generate.openai import OpenAIGenerator

    assert args.base_url is not None
    generator = await OpenAIGenerator.connect(
        args.base_url,
        args.model,
        api_key=args.api_key,
        max_context=args.max_context,
        concurrency=REQUESTS,
        timeout=args.timeout,
    )
    generator.spec = args.spec_of(generator.model)
    return generator


_DEVICES = frozenset({"tensor_parallel", "data_parallel", "memory_fraction"})

VLLM = Backend("vllm", _vllm_generator, _vllm_reader, device_memory=_vllm_memory)
TRANSFORMERS = Backend("transformers", _transformers_generator, _transformers_reader, ignores=_DEVICES)
OPENAI = Backend("openai", _openai_generator, local=False, ignores=_DEVICES | {"revision"})
