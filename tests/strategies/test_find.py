"""Strategies of other packages are found like our own. The tests install the example of CONTRIBUTING.md."""

import re
from pathlib import Path

import pytest

from infer.errors import UserError
from infer.strategies import find, names
from infer.testing.toy import setting
from tests.packages import install
from tests.strategies.test_laws import run

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


async def test_the_example_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"```python\n# strategies/shortest.py\n(.*?)```", CONTRIBUTING.read_text(), re.DOTALL)
    assert example is not None
    install(tmp_path, monkeypatch, "infer.strategies", "shortest = elsewhere:shortest", example[1])

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
    install(tmp_path, monkeypatch, "infer.strategies", "favourite = elsewhere:favourite", example[1])

    solution = await run(setting(budget), "favourite", ["n=3", "aggregation=last"])
    assert solution.chosen is not None
    if budget is None:
        last = [candidate.scores[-1] for candidate in solution.candidates if candidate.finished and candidate.scores]
        assert solution.finished
        assert (solution.candidates[solution.chosen].scores or [])[-1:] == [max(last)]
    else:
        assert 0 < solution.usage.generated <= 12


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("greedy = elsewhere:plain", "'greedy' is offered by elsewhere:plain and infer.strategies"),
        ("broken = nowhere:shortest", "'broken' can't be loaded from nowhere:shortest: ModuleNotFoundError"),
        ("broken = elsewhere:missing", "'broken' can't be loaded from elsewhere:missing"),
        ("broken = elsewhere:plain", "'broken' can't be loaded .* takes a Search and its Options"),
    ],
)
def test_an_unfit_one_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, says: str
) -> None:
    install(tmp_path, monkeypatch, "infer.strategies", entry, "async def plain(search, options): ...")
    with pytest.raises(UserError, match=says):
        find(entry.split(" ")[0])
