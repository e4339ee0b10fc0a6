"""Throughput of strategies against one bare `vllm.LLM.generate` call, turn by turn.

    python benchmarks/throughput.py nano-s
    python benchmarks/throughput.py DIR --n 4 --max-tokens 160 --k 4 --step-tokens 40 --budget 640

`best-of-n` is compared with one call that has the same prompts, n and limit. `astar` is compared with one call that
generates as many tokens from the same prompts. A hash that costs nothing replaces its reward model, and new problems
keep the number in flight constant. Ours seeds every sample. The bare call does so only in a second comparison. On a CPU
all runs in this process, and chunked prefill is off for the bare call, since vLLM's CPU build crashes on seeds with it.
On a GPU each has vLLM's own processes and settings, and 0.4 of the memory. Prints tokens/s of both and their ratio, as
median and range over the repetitions, and ends with one JSON line.
"""

import argparse
import asyncio
import inspect
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

from benchmarks.common import FreeVerifier
from infer.core.generator import Sampling
from infer.core.ledger import Budget
from infer.core.problem import Problem
from infer.core.search import Setting
from infer.core.solution import Solution
from infer.core.solve import Failure, solve
from infer.evalsets.base import MATHEMATICS, PLAIN
from infer.evalsets.nano import load
from infer.generate.engine import InProcessEngine, start_engine
from infer.generate.vllm import VLLMGenerator
from infer.runs.models import ModelRef
from infer.strategies import find
from infer.testing.toy import ToyGrader


def run(
    loop: asyncio.Runner,
    setting: Setting,
    problems: list[Problem],
    nano: bool,
    strategy: str,
    options: list[str],
    in_flight: int,
) -> int:
    """Solves all problems, with a limited number in flight. Returns the number of generated tokens."""
    found = find(strategy)
    tokens = 0

    def record(outcome: Solution | Failure) -> None:
        nonlocal tokens
        assert isinstance(outcome, Solution)
        tokens += outcome.usage.generated

    messages = (PLAIN if nano else MATHEMATICS).messages
    given = found.configure(options)
    loop.run(solve(problems, messages, setting, found, given, record, concurrency=in_flight))
    return tokens


def compare(
    name: str,
    ours: Callable[[], int],
    bare: Callable[[int], int],
    reset: Callable[[], None],
    repeats: int,
) -> dict[str, Any]:
    """Takes turns of ours and of the bare call, which gets the number of tokens that ours made.

    The first turn warms both up.
    """
    rates: list[tuple[float, float]] = []
    for turn in range(repeats + 1):
        reset()
        start = time.perf_counter()
        tokens = ours()
        middle = time.perf_counter()
        bare_tokens = bare(tokens)
        end = time.perf_counter()
        if turn:
            rates.append((tokens / (middle - start), bare_tokens / (end - middle)))
    ratios = sorted(a / b for a, b in rates)
    result = {
        "name": name,
        "tokens": tokens,
        "ours_tokens_per_sec": round(statistics.median(a for a, _ in rates)),
        "bare_tokens_per_sec": round(statistics.median(b for _, b in rates)),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)],
    }
    print(
        f"{name:<20} {tokens:>8,} tokens   ours {result['ours_tokens_per_sec']:>7,} tok/s   "
        f"bare {result['bare_tokens_per_sec']:>7,} tok/s   ratio {result['ratio']:.3f} "
        f"({ratios[0]:.3f} to {ratios[-1]:.3f}, {repeats} turns)",
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--n", type=int, default=16, help="samples of best-of-n")
    parser.add_argument("--max-tokens", type=int, default=256, help="limit of a sample of best-of-n")
    parser.add_argument("--k", type=int, default=4, help="next steps of an expansion of astar")
    parser.add_argument("--step-tokens", type=int, default=None, help="length of a step; default: the model's")
    parser.add_argument("--budget", type=int, default=640, help="tokens of astar for each problem")
    parser.add_argument(
        "--rounds", type=int, default=4, help="astar solves so many times --problems, that many in flight"
    )
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    model = ModelRef.named(args.model)
    nano, where, dtype = model.packaged, model.where, model.profile.dtype
    loop = asyncio.Runner()

    async def start() -> Any:
        return start_engine(where, "generate", dtype=dtype, memory_fraction=0.4)

    engine = loop.run(start())
    from vllm import LLM, SamplingParams

    same: dict[str, Any] = {"gpu_memory_utilization": 0.4, "enable_prefix_caching": True, "disable_log_stats": True}
    if isinstance(engine, InProcessEngine):
        same = {"enforce_eager": True, "enable_chunked_prefill": False, "block_size": 32, "max_num_seqs": 256}
        same["kv_cache_memory_bytes"] = 2 << 30
    llm = LLM(where, dtype=dtype, **same)
    print(f"{args.model} on {engine.describe()['device']}, {engine.describe()['engine']}", flush=True)
    stream = list(islice(load(size=10_000), args.problems * args.rounds))
    problems = stream[: args.problems]
    template = PLAIN if nano else MATHEMATICS
    generator = VLLMGenerator(engine)
    prompts = [{"prompt_token_ids": loop.run(generator.encode(template.messages(problem)))} for problem in problems]
    sampling = Sampling(temperature=1.0, max_tokens=args.max_tokens)

    def reset() -> None:
        forgotten = engine._engine.reset_prefix_cache()
        if inspect.iscoroutine(forgotten):
            loop.run(forgotten)
        llm.reset_prefix_cache()

    def generate(seeded: bool = False, **changes: Any) -> int:
        seeds = [100 * i if seeded else None for i in range(len(prompts))]
        sampling = [SamplingParams(temperature=1.0, seed=seed, **changes) for seed in seeds]
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
        return sum(len(sample.token_ids) for output in outputs for sample in output.outputs)

    def bare(seeded: bool) -> Callable[[int], int]:
        return lambda tokens: generate(seeded, n=args.n, max_tokens=args.max_tokens)

    best_of_n = Setting(generator, FreeVerifier(), ToyGrader(lambda text: text[-8:]), sampling)
    samples = [f"n={args.n}", "choose=majority"]
    results = [
        compare(
            name,
            lambda: run(loop, best_of_n, problems, nano, "best-of-n", samples, args.problems),
            bare(seeded),
            reset,
            args.repeats,
        )
        for name, seeded in (("best-of-n", False), ("... bare with seeds", True))
    ]
    stepwise = replace(
        best_of_n,
        sampling=Sampling(temperature=1.0, max_tokens=2048),
        budget=Budget(args.budget, "tokens"),
        step_tokens=args.step_tokens or 512,
        delimiter="\x00" if args.step_tokens else "\n\n",
    )
    results.append(
        compare(
            "astar",
            lambda: run(loop, stepwise, stream, nano, "astar", [f"k={args.k}"], args.problems),
            lambda tokens: generate(n=args.k, ignore_eos=True, max_tokens=round(tokens / args.k / len(problems))),
            reset,
            args.repeats,
        )
    )
    loop.run(engine.close())
    loop.close()
    print(json.dumps({"model": args.model, "problems": args.problems, "results": results}))


if __name__ == "__main__":
    main()
