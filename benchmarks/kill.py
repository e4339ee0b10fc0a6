"""Kills a run of 200 problems with SIGKILL at random moments, resumes it each time, and checks what it kept.

    python benchmarks/kill.py

The moments are drawn from the seconds in which problems are being solved: after each start the script waits for the
first new solution and then a random time. Every solution that was on disk when the process died must still be there,
unchanged; at the end there must be each problem exactly once.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROBLEMS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        solutions = run / "solutions.jsonl"
        command = [sys.executable, "-m", "infer", "solve", "--limit", str(PROBLEMS), "--run", str(run)]
        command += ["--strategy", "best-of-n", "-o", "n=16", "-o", "choose=majority", "--concurrency", "4"]

        def lines() -> list[bytes]:
            return solutions.read_bytes().split(b"\n")[:-1] if solutions.exists() else []

        killed = 0
        while killed < kills:
            before = lines()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while len(lines()) <= len(before) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.random() * 0.2)
            process.send_signal(signal.SIGKILL)
            process.wait()
            after = lines()
            assert after[: len(before)] == before, "a solution was lost or changed"
            killed += 1
            print(f"killed {killed:>2}: {len(after)} of {PROBLEMS} solved", flush=True)
            if len(after) == PROBLEMS:
                print("all were solved before the last kill: fewer kills than asked for")
                break
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ids = [json.loads(line)["problem_id"] for line in lines()]
    assert len(ids) == len(set(ids)) == PROBLEMS, (len(ids), len(set(ids)))
    print(f"{killed} kills: {len(ids)} problems, each once")


if __name__ == "__main__":
    main()
