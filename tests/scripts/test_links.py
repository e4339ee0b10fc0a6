"""scripts/links.py on small checkouts: it finds planted dead links, and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "links.py"


def check(folder: Path, files: dict[str, str]) -> tuple[int, list[str]]:
    """Runs the script on a checkout of these tracked files. Returns the exit code and the printed lines."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    git = ["git", "-C", str(folder)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "--", *files], check=True)
    done = subprocess.run([sys.executable, str(SCRIPT), str(folder)], check=False, capture_output=True, text=True)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


GUIDE = """# The guide

## Costs, and `--json`: what's in it?

## Twice
## Twice

## Größe ändern
"""


def test_links_that_lead_somewhere_are_found(tmp_path: Path) -> None:
    page = """# Title

[a page](docs/guide.md), [a folder](docs), [up here](#title), [elsewhere](https://example.org/none.md#nowhere),
[punctuation](docs/guide.md#costs-and---json-whats-in-it), [the first](docs/guide.md#twice),
[the second](docs/guide.md#twice-1), [another script](docs/guide.md#größe-ändern), `infer/core.py` and
`python infer/core.py MODEL`, `read/write`, `my.py`, [reference], ![](docs/a%20picture.svg)

[reference]: docs/guide.md "with a title"

```sh
cat [not](a-link.md) `no/path.py`
```
"""
    back = "[back](../README.md#title), `guide.md`, `../docs/guide.md`, [line](../infer/core.py#L1)\n"
    pages = {"README.md": page, "docs/guide.md": GUIDE, "docs/b.md": back}
    assert check(tmp_path, pages | {"infer/core.py": "", "docs/a picture.svg": ""}) == (
        0,
        ["3 pages: every link and path in them leads somewhere"],
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[dead](docs/gone.md)", "docs/gone.md: no such file"),
        ("[dead](docs/gone.md#costs)", "docs/gone.md#costs: no such file"),
        ("![dead](gone.svg)", "gone.svg: no such file"),
        ("[dead](docs/guide.md#twice-2)", "docs/guide.md#twice-2: no such heading"),
        ("[dead](#nowhere)", "#nowhere: no such heading"),
        ("[dead](../outside.md)", "../outside.md: no such file"),
        ("[dead][here]\n\n[here]: gone.md", "gone.md: no such file"),
        ("run `python infer/gone.py MODEL`", "infer/gone.py: no such file"),
        ("| a | b |\n| --- | --- |\n| [dead](gone.md) | |", "gone.md: no such file"),
    ],
)
def test_a_dead_link_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path.parent / "outside.md").touch()
    code, lines = check(tmp_path, {"README.md": f"# Title\n\nfirst\n\n{text}\n", "docs/guide.md": GUIDE})
    assert code == 1
    [line] = lines
    place, _, said = line.partition(": ")
    assert said == problem
    assert place in ("README.md:5", "README.md:7")  # for a row of a table, its own line


def test_a_file_that_is_not_tracked_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "mine.md").touch()
    assert check(tmp_path, {"README.md": "[mine](mine.md)"}) == (1, ["README.md:1: mine.md: no such file"])


def test_all_of_a_page_is_told(tmp_path: Path) -> None:
    code, lines = check(tmp_path, {"a.md": "[x](gone.md)\n[y](b.md#c)\n", "b.md": "`d/e.toml`\n"})
    assert (code, lines) == (
        1,
        ["a.md:1: gone.md: no such file", "a.md:2: b.md#c: no such heading", "b.md:1: d/e.toml: no such file"],
    )


def test_rooms_that_are_links(tmp_path: Path) -> None:
    """infer/strategies is a link to strategies, so both names of a file are valid."""
    (tmp_path / "infer").mkdir()
    (tmp_path / "infer" / "strategies").symlink_to("../strategies")
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "astar.py").touch()
    files = {"README.md": "`infer/strategies/astar.py`, `strategies/astar.py`, `infer/strategies/gone.py`"}
    subprocess.run(["git", "-C", str(tmp_path), "init", "--quiet"], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    assert check(tmp_path, files) == (1, ["README.md:1: infer/strategies/gone.py: no such file"])


def test_notebooks(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "code", "source": ["# [dead](gone.md)"]},
        {"cell_type": "markdown", "source": ["# Runs\n", "[good](../README.md#title)\n", "[dead](gone.md)"]},
    ]
    files = {"README.md": "# Title\n[runs](notebooks/a.ipynb#runs)", "notebooks/a.ipynb": json.dumps({"cells": cells})}
    assert check(tmp_path, files) == (1, ["notebooks/a.ipynb, cell 1:3: gone.md: no such file"])
