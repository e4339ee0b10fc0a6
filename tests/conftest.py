"""Engines that many tests share. Each starts once, when the first test asks for it."""

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from infer.nano import checkpoint
from tests.engines import TESTED
from tests.servers import Server, vllm_server

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # jobs in a shell's background ignore Ctrl-C, and tests inherit that
os.environ.pop("COLUMNS", None)  # pytest -n sets it; without it, tables are as wide as in a pipe
# models this small are slower on several threads, and far slower on busy cores, where threads wait in a loop
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # a pinned thread would wait for others on its core


TOGETHER = {
    "tests/cli/test_cli.py::test_a_server_generates": "engines",
    "tests/evalsets/test_pairs.py": "pairs",
    "tests/generate/": "engines",
    "tests/nano/test_training.py": "training",
    "tests/sandbox/": "sandbox",
    "tests/evalsets/test_programs.py": "sandbox",
    "tests/strategies/test_tested.py": "sandbox",
    "tests/runs/test_calibrate.py": "engines",
    "tests/strategies/test_real_laws.py": "engines",
    "tests/verifiers/test_families.py": "families",
    "tests/verifiers/test_judges.py": "judges",
    "tests/verifiers/test_served.py": "engines",
}
"""The start of a test id, and the group of tests with which it shares an engine, a server or another costly fixture."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers (pytest -n), runs tests that share an engine in one worker, so that it starts once."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((group for start, group in TOGETHER.items() if nodeid.startswith(start)), nodeid)

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def nano_engine() -> Iterator[Any]:
    """nano-s in vLLM, with vLLM's own counters on."""
    pytest.importorskip("vllm")
    from infer.generate.engine import start_engine

    engine = start_engine(checkpoint("nano-s"), "generate", **TESTED)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def nano_prm_engine() -> Iterator[Any]:
    """nano-prm-s in vLLM, with vLLM's own counters on."""
    pytest.importorskip("vllm")
    from infer.generate.engine import start_engine

    engine = start_engine(checkpoint("nano-prm-s"), "pooling", **TESTED)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture
def our_draws(nano_engine: Any) -> None:
    """Skips the test where vLLM uses its own sampler and not `infer.generate.sampling`."""
    if nano_engine.describe()["device"] != "cpu":
        pytest.skip("on a GPU vLLM draws by itself")
    assert nano_engine.draws


@pytest.fixture(scope="session")
def nano_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A vLLM server that serves nano-s."""
    pytest.importorskip("vllm")
    with vllm_server(checkpoint("nano-s"), tmp_path_factory.mktemp("server") / "log") as server:
        yield server
