#!/usr/bin/env python3
"""Runs the examples of README.md, CONTRIBUTING.md and docs/: each line of their `sh` blocks, and their `python` blocks.

Blocks marked `skip` are left out: they need a download, a GPU, a server, or a file of the reader's. `make test` is left
out too, since CI runs it separately. Each page runs from top to bottom in its own empty folder, as a reader would run
it, except that `make` runs in the checkout. A Python block that begins with the comment `# name.py` is also saved under
that name, so that later blocks can import it. Stops at the first command that fails.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    environment = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
    count = 0
    for page in pages:
        with tempfile.TemporaryDirectory() as folder:
            for command in commands(page.read_text(encoding="utf-8")):
                print(f"{page.name} $ {command}", flush=True)
                start = time.monotonic()
                here = ROOT if command.startswith("make ") else folder
                done = subprocess.run(command, shell=True, cwd=here, env=environment, check=False)
                print(f"  ({time.monotonic() - start:.0f} s)", flush=True)
                if done.returncode:
                    print(f"{page.name}: failed with {done.returncode}: {command}", file=sys.stderr)
                    return 1
                count += 1
    print(f"{count} commands and programs of {len(pages)} pages work")
    return 0


def commands(page: str) -> Iterator[str]:
    """The commands of a page, in order. A backslash at the end of a line joins the next line."""
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", page, re.M | re.S):
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", block)
            run = f"tee {name[1]} <<'END' | python -" if name else "python - <<'END'"
            yield f"{run}\n{block}END"
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#") and line != "make test":
                yield line


if __name__ == "__main__":
    sys.exit(main())
