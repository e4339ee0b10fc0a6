"""Engines that many tests share: started once, when the first test asks."""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

from infer.nano import checkpoint
from tests.engines import TESTED
from tests.servers import Server, vllm_server

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# models this small are slower on several threads, and far slower where the cores are busy: threads wait in a loop
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # a pinned thread would wait for what runs on its core


@pytest.fixture(scope="session")
def nano_engine() -> Iterator[Any]:
    """nano-s in vLLM, with vLLM's own counters kept."""
    pytest.importorskip("vllm")
    from infer.generate.engine import start_engine

    engine = start_engine(checkpoint("nano-s"), "generate", **TESTED)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def nano_prm_engine() -> Iterator[Any]:
    """nano-prm-s in vLLM, with vLLM's own counters kept."""
    pytest.importorskip("vllm")
    from infer.generate.engine import start_engine

    engine = start_engine(checkpoint("nano-prm-s"), "pooling", **TESTED)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture
def our_draws(nano_engine: Any) -> None:
    """Skips where vLLM samples by itself, not as `infer.generate.sampling` does."""
    if nano_engine.describe()["device"] != "cpu":
        pytest.skip("on a GPU vLLM draws by itself")
    assert nano_engine.draws


@pytest.fixture(scope="session")
def nano_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """nano-s behind a vLLM server."""
    pytest.importorskip("vllm")
    with vllm_server(checkpoint("nano-s"), tmp_path_factory.mktemp("server") / "log") as server:
        yield server
