"""The import contract can fail: each kind of wrong import, planted on purpose, breaks it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["strategies", "verifiers", "kernels", "evalsets"]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies the package's sources and its contract, without data."""
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "checkpoints", "*.safetensors")
    for name in ["infer", *ROOMS]:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def contract(folder: Path) -> tuple[int, str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", code, "--no-cache"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_it_holds(copy: Path) -> None:
    code, said = contract(copy)
    assert code == 0, said


@pytest.mark.parametrize(
    ("module", "line", "says"),
    [
        ("infer/cost/model.py", "from infer.core import tree", "infer.cost is not allowed to import infer.core"),
        ("infer/core/search.py", "from infer.strategies import greedy", "infer.core is not allowed to import"),
        ("strategies/greedy.py", "from infer.generate import chat", "infer.strategies is not allowed to import"),
        ("strategies/greedy.py", "from infer.evalsets import nano", "infer.strategies is not allowed to import"),
        ("strategies/greedy.py", "from infer.strategies import beam", "infer.strategies.greedy is not allowed to"),
        (
            "strategies/parts/steps.py",
            "from infer.strategies import greedy",
            "infer.strategies.parts is not allowed to",
        ),
        ("verifiers/prm.py", "from infer.runs import lock", "infer.verifiers is not allowed to import infer.runs"),
        ("infer/analysis/curves.py", "from infer.cli import app", "infer.analysis is not allowed to import infer.cli"),
        ("infer/cli/app.py", "from infer.testing import toy", "infer.cli.app -> infer.testing"),
        ("infer/core/tree.py", "def f():\n    from infer.core import search", "no cycles"),
        ("infer/newcomer.py", "", "infer.newcomer"),
    ],
)
def test_a_wrong_import_breaks_it(copy: Path, module: str, line: str, says: str) -> None:
    path = copy / module
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        code, said = contract(copy)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)
    assert code == 1, said
    assert says in " ".join(said.split()), said
