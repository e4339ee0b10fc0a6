"""Peak memory of a run against its number of problems: 1,000 and 10,000 nano problems, same settings.

    python benchmarks/memory.py

Each run is a separate process, `infer solve` as a user starts it. The peak is the kernel's count of its resident set,
with vLLM's engine and KV cache.
"""

import json
import os
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

from infer.evalsets.nano import load

SIZES = (1_000, 10_000)


def peak(folder: Path, size: int) -> float:
    """Peak resident set of one run, in MiB."""
    problems = folder / f"{size}.jsonl"
    with problems.open("w") as file:
        for problem in islice(load(size=max(SIZES)), size):
            file.write(json.dumps({"id": problem.id, "problem": problem.prompt, "answer": problem.answer}) + "\n")
    command = [sys.executable, "-m", "infer", "solve", "--on", str(problems), "--model", "nano-xs"]
    process = subprocess.Popen([*command, "--run", str(folder / f"run-{size}")], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    solved = sum(1 for _ in (folder / f"run-{size}" / "solutions.jsonl").open())
    assert solved == size, solved
    return usage.ru_maxrss / 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        peaks = [peak(Path(folder), size) for size in SIZES]
    for size, mebibytes in zip(SIZES, peaks, strict=True):
        print(f"{size:>7,} problems   peak {mebibytes:,.0f} MiB")
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
