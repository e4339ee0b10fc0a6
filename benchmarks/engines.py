"""vLLM's engines on this machine: greedy tokens against transformers, and seeded samples alone and in a crowd.

    python benchmarks/engines.py
    python benchmarks/engines.py nano-l --dtype bfloat16

Runs one engine inside this process and one in its own processes. Each completes packaged problems greedily, and the
tokens are compared with the transformers backend on the same device. Then each samples 16 completions of each problem,
and those of a few problems once more with nothing else in flight. Prints how many were the same, and tokens/s.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from itertools import islice

import torch

from infer.core.generator import Completion, Generator, Request, Sampling
from infer.evalsets.nano import load
from infer.generate.engine import start_engine
from infer.generate.transformers import TransformersGenerator
from infer.generate.vllm import VLLMGenerator
from infer.nano import checkpoint

GREEDY, SAMPLED = Sampling(temperature=0), Sampling(temperature=1.0)
ALONE = 6
"""Problems that are sampled once more, one after the other."""


async def complete(
    generator: Generator, prompts: Sequence[list[int]], sampling: Sampling, n: int
) -> list[list[Completion]]:
    return await asyncio.gather(
        *(generator.generate(Request(prompt, sampling, 128, n=n, seed=100 * i)) for i, prompt in enumerate(prompts))
    )


def same(ours: list[list[Completion]], theirs: list[list[Completion]]) -> str:
    pairs = [pair for one, other in zip(ours, theirs, strict=False) for pair in zip(one, other, strict=True)]
    return f"{sum(one.tokens == other.tokens for one, other in pairs)} of {len(pairs)}"


async def check(model: str, dtype: str, problems: int, in_process: bool) -> None:
    start = time.perf_counter()
    engine = start_engine(checkpoint(model), "generate", dtype=dtype, memory_fraction=0.3, in_process=in_process)
    started = time.perf_counter() - start
    generator = VLLMGenerator(engine)
    prompts = [
        await generator.encode([{"role": "user", "content": problem.prompt}]) for problem in islice(load(), problems)
    ]
    greedy = await complete(generator, prompts, GREEDY, 1)
    start = time.perf_counter()
    crowd = await complete(generator, prompts, SAMPLED, 16)
    seconds = time.perf_counter() - start
    alone = []
    for i, prompt in enumerate(prompts[:ALONE]):
        alone.append(await generator.generate(Request(prompt, SAMPLED, 128, n=16, seed=100 * i)))
    plain = TransformersGenerator(
        checkpoint(model), dtype=dtype, device="cuda" if torch.cuda.is_available() else "cpu", max_batch=64
    )
    reference = await complete(plain, prompts, GREEDY, 1)
    facts = engine.describe()
    tokens = sum(completion.num_tokens for completions in crowd for completion in completions)
    print(
        f"{model} {dtype}, {facts['device']}, {facts['engine']}: started in {started:.1f} s; greedy as transformers "
        f"{same(greedy, reference)}; seeded samples alone as in a crowd of {len(prompts) * 16} {same(alone, crowd)}; "
        f"{tokens / seconds:,.0f} tokens/s",
        flush=True,
    )
    await plain.close()
    await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["nano-s"])
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--problems", type=int, default=32)
    args = parser.parse_args()
    for model in args.models:
        for dtype in args.dtype:
            for in_process in (True, False):
                asyncio.run(check(model, dtype, args.problems, in_process))


if __name__ == "__main__":
    main()
