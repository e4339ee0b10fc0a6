"""scripts/readme.py: the commands of a page that it runs."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "readme.py"
spec = importlib.util.spec_from_file_location("readme", SCRIPT)
assert spec is not None
assert spec.loader is not None
readme = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme)

PAGE = """
```sh
# a comment
make solve
make test
infer solve \\
    --limit 3   # another
```
```sh skip
infer solve --model HUGE
```
```text
infer list
```
```python
# tools.py
ANSWER = 6 * 7
```
```python skip
raise SystemExit(1)
```
```python
from tools import ANSWER
assert ANSWER == 42
```
"""


def test_the_commands_of_a_page() -> None:
    first, second, *programs = readme.commands(PAGE)
    assert first == "make solve"
    assert second.split() == ["infer", "solve", "--limit", "3", "#", "another"]
    assert len(programs) == 2


def test_a_named_program_can_be_imported_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    *_, tools, user = readme.commands(PAGE)
    for program in (tools, user):
        subprocess.run(program, shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / "tools.py").read_text() == "# tools.py\nANSWER = 6 * 7\n"
    (tmp_path / "tools.py").write_text("ANSWER = 43\n")
    assert subprocess.run(user, shell=True, cwd=tmp_path, check=False, capture_output=True).returncode == 1
