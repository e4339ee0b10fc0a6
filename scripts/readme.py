#!/usr/bin/env python3
"""Runs every command of the README: each line of its `sh` blocks, but for those marked `sh skip` (they need a download,
a GPU or a server) and `make test` (which this is part of), and each `python` block, also those of docs/reference.md.
Stops at the first that fails.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def commands(text: str) -> list[str]:
    """Lines of the blocks to run; a backslash at the end of a line joins the next one."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#") and line != "make test"]


def programs(text: str) -> list[str]:
    """The Python blocks of a text, as commands."""
    return [f"python - <<'END'\n{block}END" for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)]


def main() -> int:
    environment = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    text, reference = ((ROOT / name).read_text() for name in ("README.md", "docs/reference.md"))
    found = commands(text) + programs(text) + programs(reference)
    with tempfile.TemporaryDirectory() as elsewhere:
        for command in found:
            print(f"$ {command}", flush=True)
            start = time.monotonic()
            # those that need the checkout's files run in it, the others in an empty folder, as a user would
            folder = ROOT if command.startswith(("make ", "python benchmarks")) else elsewhere
            done = subprocess.run(command, shell=True, cwd=folder, env=environment, check=False)
            print(f"  ({time.monotonic() - start:.0f} s)", flush=True)
            if done.returncode:
                print(f"README command failed with {done.returncode}: {command}", file=sys.stderr)
                return 1
    print(f"{len(found)} commands of the README and the reference work")
    return 0


if __name__ == "__main__":
    sys.exit(main())
