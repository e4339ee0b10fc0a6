"""A real model on a whole problem file: checks that every problem is solved and that the ledger is exact.

    python benchmarks/real_model.py MODEL PROBLEMS.jsonl [--limit 100]

Runs `infer solve` with majority voting at 1,000 tokens a problem. Then checks its run: each problem comes once, none
failed, none exceeded its budget, and the ledger's tokens equal those of the candidates.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUDGET = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or hub id")
    parser.add_argument("problems", help="a problem file or a set that infer knows")
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "infer", "solve", "--model", arguments.model, "--on", arguments.problems]
        command += ["--strategy", "best-of-n", "-o", "choose=majority", "--budget", str(BUDGET), "--run", str(run)]
        command += ["--limit", str(arguments.limit)] if arguments.limit else []
        start = time.monotonic()
        subprocess.run([*command, "--json"], check=True, stdout=subprocess.DEVNULL)  # exit code 2 for any failure
        seconds = time.monotonic() - start
        solutions = [json.loads(line) for line in (run / "solutions.jsonl").read_text().splitlines()]
    spent = [solution["usage"]["generated"] for solution in solutions]
    assert len({solution["problem_id"] for solution in solutions}) == len(solutions)
    assert max(spent) <= BUDGET
    assert spent == [sum(c["num_tokens"] for c in solution["candidates"]) for solution in solutions]
    right = sum(bool(solution["correct"]) for solution in solutions)
    print(f"{len(solutions)} problems, no failure, {right} right; {sum(spent):,} tokens in {seconds:,.0f} s")


if __name__ == "__main__":
    main()
