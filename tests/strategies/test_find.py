"""Strategies of other packages are found like our own: the example of CONTRIBUTING.md, installed for real."""

import importlib
import re
from pathlib import Path

import pytest

from infer.strategies import find, names
from tests.test_laws import run
from tests.toy import setting

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


async def test_the_example_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"```python\n# strategies/shortest.py\n(.*?)```", CONTRIBUTING.read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "elsewhere_shortest.py").write_text(example[1])
    installed = tmp_path / "elsewhere-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[infer.strategies]\nshortest = elsewhere_shortest:shortest\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()

    assert "shortest" in names()
    assert find("shortest").summary == "The shortest of N independent samples that were finished."
    solution = await run(setting(), "shortest", ["n=5"])
    assert len(solution.candidates) == 5
    assert solution.chosen is not None
    finished = [candidate.num_tokens for candidate in solution.candidates if candidate.finished]
    assert solution.candidates[solution.chosen].num_tokens == min(finished)
