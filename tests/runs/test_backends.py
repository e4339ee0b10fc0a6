"""Backends by name: ours, and those of other packages."""

import subprocess
import sys
from pathlib import Path

import pytest

from infer.core.problem import Problem
from infer.core.solution import Solution
from infer.errors import UserError
from infer.generate import backends
from infer.runs.job import Job, Machine, Plan
from tests.packages import install

MINE = """
from infer.generate.backends import Backend
from infer.testing.toy import ToyGenerator

asked = []

async def open_toy(args):
    asked.append(args)
    return ToyGenerator()

TOY = Backend("toy", open_toy)
SERVED = Backend("served", open_toy, local=False)
"""


async def test_a_backend_of_another_package_solves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "infer.backends", "toy = elsewhere:TOY\nserved = elsewhere:SERVED", MINE)
    assert {"openai", "toy", "transformers", "vllm"} <= set(backends.names())
    solved: list[Solution] = []
    plan = Plan(Job(backend="toy", on="nano", max_tokens=40, max_context=77))
    async with plan.open(Machine(tensor_parallel=2)) as session:
        await session.solve(iter([Problem("a", "12"), Problem("b", "7")]), solved.append)  # type: ignore[arg-type]
    assert len(solved) == 2
    assert session.describe()["generator"] == {"backend": "toy"}
    (args,) = sys.modules["elsewhere"].asked
    assert Path(args.model).name == "s"  # nano-s, the default
    assert (args.max_context, args.tensor_parallel, args.dtype) == (77, 2, "float32")

    with pytest.raises(UserError, match="--backend served needs --base-url"):
        Plan(Job(backend="served", on="nano"))
    served = Plan(Job(backend="served", base_url="http://127.0.0.1:9", model="any name", on="nano"))
    async with served.open(Machine(api_key="key")):
        pass
    args = sys.modules["elsewhere"].asked[-1]
    assert (args.model, args.base_url, args.api_key) == ("any name", "http://127.0.0.1:9", "key")
    assert args.spec_of("nano-s").hidden == 64
    assert args.spec_of("owner/never-seen") is None


def test_an_unknown_backend_gets_the_nearest_names() -> None:
    with pytest.raises(UserError, match=r"unknown backend 'vlm': did you mean vllm\?"):
        Plan(Job(backend="vlm", on="nano"))


def test_an_object_of_another_type_is_no_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "infer.backends", "toy = elsewhere:open_toy", MINE)
    with pytest.raises(
        UserError, match=r"backend 'toy' can't be loaded from elsewhere:open_toy: .* a function, not infer"
    ):
        Plan(Job(backend="toy", on="nano"))


def test_a_plan_loads_no_engine() -> None:
    """A plan names any backend without importing torch or an engine."""
    code = """
import sys
from infer.generate import backends
from infer.runs.job import Job, Plan
assert {"openai", "transformers", "vllm"} <= set(backends.names())
for name in ("transformers", "vllm"):
    Plan(Job(backend=name, strategy="astar"))
Plan(Job(backend="openai", base_url="http://127.0.0.1:9", on="nano", prm="gen-prm:owner/name", strategy="astar"))
sys.exit(", ".join({"torch", "transformers", "vllm"} & sys.modules.keys()) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
