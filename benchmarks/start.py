"""The time from a command to its first token, against a bare vLLM script that starts the same engine.

    python benchmarks/start.py

Times whole processes, from start to exit, in turns. The first is `infer solve` of one question with one token to
generate. The second is a script that imports vLLM, starts the same model with the same settings and generates one
token. The third is `infer solve --strategy astar`, which also starts a reward model. Prints medians and ranges.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from infer.nano import checkpoint

BARE = f"""
import os
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
from vllm import LLM, SamplingParams
llm = LLM(
    {str(checkpoint("nano-s"))!r}, dtype="float32", enforce_eager=True, block_size=32, kv_cache_memory_bytes=1 << 30
)
print(llm.generate("1+1=?", SamplingParams(max_tokens=1))[0].outputs[0].text)
"""
COMMANDS = {
    "bare vLLM script": ["-c", BARE],
    "infer solve": ["-m", "infer", "solve", "1+1=?", "--max-tokens", "1"],
    "infer solve --strategy astar": ["-m", "infer", "solve", "1+1=?", "--max-tokens", "1", "--strategy", "astar"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(repeats + 1):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)
            if turn:  # the first turn warms the file cache
                seconds[name].append(time.perf_counter() - start)
    bare = seconds["bare vLLM script"]
    for name, taken in seconds.items():
        ratios = sorted(a / b for a, b in zip(taken, bare, strict=True))
        print(
            f"{name:<30} {statistics.median(taken):5.1f} s ({min(taken):.1f} to {max(taken):.1f})   "
            f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
