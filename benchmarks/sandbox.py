"""The sandbox's speed: trivial tests, and HumanEval's own programs.

    python benchmarks/sandbox.py
    python benchmarks/sandbox.py --human-eval CLONE --problems humaneval.jsonl

Prints, with every layer on and a worker for each core: trivial tests a second, the time from a test's start to its
verdict, and the CPU time of a test, here and in the program's process. In turns with it runs a fresh interpreter a test
(`python -I -S`), which has no layer at all. With `--human-eval`, a clone of https://github.com/openai/human-eval, its
executor and ours judge the canonical programs of `--problems`, in turns, each with as many workers.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import starmap
from pathlib import Path
from typing import Any

from infer.core.problem import Problem
from infer.evalsets import find
from infer.evalsets.graders.programs import Programs
from infer.sandbox.pool import Call, Sandbox

PROGRAM = "def f(x):\n    return sorted(x)\n"
TEST = Call("f", ([3, 1],), [1, 3])
BARE = f"{PROGRAM}\nassert f([3, 1]) == [1, 3]\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=2000, help="trivial tests a turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--human-eval", type=Path, help="a clone of the peer, for the comparison with its executor")
    parser.add_argument("--problems", help="HumanEval's problems as JSONL")
    arguments = parser.parse_args()
    asyncio.run(trivial(arguments.tests, arguments.repeats))
    if arguments.human_eval is not None:
        text = Path(arguments.problems).read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        asyncio.run(human_eval(arguments.human_eval, rows, list(find(arguments.problems).load()), arguments.repeats))


async def trivial(tests: int, repeats: int) -> None:
    ours: list[float] = []
    bare: list[float] = []
    waits: list[float] = []
    programs: list[float] = []
    here = 0.0
    workers = os.cpu_count() or 1
    async with Sandbox() as sandbox:
        print(f"layers on: {', '.join((await sandbox.layers())['on'])}; {workers} workers")
        await asyncio.gather(*(sandbox.run(PROGRAM, [TEST]) for _ in range(workers)))
        for _ in range(repeats):
            left = iter(range(tests))

            async def one_after_the_other(left: Any = left) -> None:
                for _ in left:
                    start = time.perf_counter()
                    (result,) = await sandbox.run(PROGRAM, [TEST])
                    waits.append(time.perf_counter() - start)
                    programs.append(result.cpu)
                    assert result.outcome == "passed"

            start, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(one_after_the_other() for _ in range(workers)))
            ours.append(tests / (time.perf_counter() - start))
            here += (time.process_time() - cpu) / tests / repeats
            start = time.perf_counter()
            with ThreadPoolExecutor(workers) as pool:
                assert all(code == 0 for code in pool.map(_fresh, range(tests // 20)))
            bare.append(tests // 20 / (time.perf_counter() - start))
    waits.sort()
    p50, p99 = (waits[int(len(waits) * share)] * 1000 for share in (0.5, 0.99))
    print(f"trivial tests           {_spread(ours)} a second; p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    program = statistics.median(programs) * 1000
    print(f"CPU time of one         {here * 1000:.2f} ms here, {program:.2f} ms in the program's process")
    print(f"... a fresh interpreter {_spread(bare)} a second")
    print(f"ratio                   {_spread([a / b for a, b in zip(ours, bare, strict=True)])}")


def _fresh(_: int) -> int:
    return subprocess.run([sys.executable, "-I", "-S", "-c", BARE], check=False).returncode


async def human_eval(clone: Path, rows: list[dict[str, Any]], found: list[Problem], repeats: int) -> None:
    """Ours against the peer's `check_correctness`, each with a worker a core, on the canonical programs."""
    spec = importlib.util.spec_from_file_location("execution", clone / "human_eval" / "execution.py")
    assert spec is not None
    assert spec.loader is not None
    execution = importlib.util.module_from_spec(spec)
    sys.modules["execution"] = execution
    spec.loader.exec_module(execution)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(repeats):
        async with Programs() as grader:
            start = time.perf_counter()
            pairs = zip(found, rows, strict=True)
            verdicts = await asyncio.gather(*starmap(lambda p, r: grader.grade(p, r["canonical_solution"]), pairs))
            ours.append(len(rows) / (time.perf_counter() - start))
        assert all(verdict.right for verdict in verdicts)
        start = time.perf_counter()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            programs = [row["canonical_solution"] for row in rows]
            found_right = pool.map(execution.check_correctness, rows, programs, [5.0] * len(rows))
            assert all(verdict["passed"] for verdict in found_right)
        theirs.append(len(rows) / (time.perf_counter() - start))
    print(f"HumanEval's programs    {_spread(ours)} a second, the start of the sandbox included")
    print(f"... its own executor    {_spread(theirs)} a second")
    print(f"ratio                   {_spread([a / b for a, b in zip(ours, theirs, strict=True)])}")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):8,.1f} ({min(values):,.1f} to {max(values):,.1f})"


if __name__ == "__main__":
    main()
