"""Strategies of other packages are found like our own: the example of CONTRIBUTING.md, installed for real."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from infer.errors import UserError
from infer.strategies import find, names
from infer.testing.toy import setting
from tests.strategies.test_laws import run

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, entries: str, source: str = "") -> None:
    (folder / "elsewhere_shortest.py").write_text(source)
    installed = folder / "elsewhere-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[infer.strategies]\n{entries}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "elsewhere_shortest", raising=False)  # another test's
    importlib.invalidate_caches()


async def test_the_example_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"```python\n# strategies/shortest.py\n(.*?)```", CONTRIBUTING.read_text(), re.DOTALL)
    assert example is not None
    install(tmp_path, monkeypatch, "shortest = elsewhere_shortest:shortest", example[1])

    assert "shortest" in names()
    assert find("shortest").summary == "The shortest of N independent samples that were finished."
    solution = await run(setting(), "shortest", ["n=5"])
    assert len(solution.candidates) == 5
    assert solution.chosen is not None
    finished = [candidate.num_tokens for candidate in solution.candidates if candidate.finished]
    assert solution.candidates[solution.chosen].num_tokens == min(finished)


@pytest.mark.parametrize("budget", [None, "12"])
async def test_the_scoring_example_of_the_documentation_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: str | None
) -> None:
    example = re.search(r"```python\n# strategies/favourite.py\n(.*?)```", CONTRIBUTING.read_text(), re.DOTALL)
    assert example is not None
    install(tmp_path, monkeypatch, "favourite = elsewhere_shortest:favourite", example[1])

    solution = await run(setting(budget), "favourite", ["n=3", "aggregation=last"])
    assert solution.chosen is not None
    if budget is None:
        last = [candidate.scores[-1] for candidate in solution.candidates if candidate.finished and candidate.scores]
        assert solution.finished
        assert solution.candidates[solution.chosen].scores[-1:] == [max(last)]
    else:
        assert 0 < solution.usage.generated <= 12


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("greedy = elsewhere_shortest:plain", "'greedy' is offered by elsewhere_shortest:plain and infer.strategies"),
        ("broken = nowhere:shortest", "'broken' can't be loaded from nowhere:shortest: ModuleNotFoundError"),
        ("broken = elsewhere_shortest:missing", "'broken' can't be loaded from elsewhere_shortest:missing"),
        ("broken = elsewhere_shortest:plain", "'broken' can't be loaded .* takes a Search and its Options"),
    ],
)
def test_an_unfit_one_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, says: str
) -> None:
    install(tmp_path, monkeypatch, entry, "async def plain(search, options): ...")
    with pytest.raises(UserError, match=says):
        find(entry.split(" ")[0])
