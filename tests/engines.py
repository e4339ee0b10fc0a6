"""How tests start engines, and open models by name."""

from typing import Any

from infer.core.generator import Generator
from infer.core.verifier import Verifier
from infer.generate import backends
from infer.generate.backends import ModelArgs
from infer.runs.verifiers import VerifierRef

TESTED: dict[str, Any] = {"dtype": "float32", "log_stats": True, "memory_fraction": 0.15, "in_process": True}
"""Options of `start_engine`: keep vLLM's own counters, and run inside this process on a GPU too."""


async def open_generator(model: str, backend: str, **args: Any) -> Generator:
    return await backends.find(backend).open_generator(ModelArgs(model=model, **args))


async def open_verifier(name: str, backend: str, **options: Any) -> Verifier:
    return await VerifierRef.named(name).open(backends.find(backend), **options)
