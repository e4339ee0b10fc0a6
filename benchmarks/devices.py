"""The transformers backend on a GPU against a CPU: equal tokens for equal seeds, and times with cuDNN and without.

    python benchmarks/devices.py
    python benchmarks/devices.py nano-l --dtype bfloat16 --problems 16

Samples packaged problems at temperatures 0, 0.7 and 1 on both devices and counts the completions that are the same
token for token. Then samples them once more on the GPU with cuDNN's attention, which makes a plan for every new shape
(`infer.generate.loading.disable_cudnn_attention` turns it off). Without a GPU only the CPU is timed.
"""

import argparse
import asyncio
import time
from itertools import islice

import torch

from infer.core.generator import Completion, Request, Sampling
from infer.evalsets.nano import load
from infer.generate.transformers import TransformersGenerator
from infer.nano import checkpoint


async def sample(
    model: str, dtype: str, device: str, problems: int, *, cudnn: bool = False
) -> tuple[list[Completion], float]:
    """Samples four completions of each problem at each temperature. Returns them and the seconds that they took."""
    generator = TransformersGenerator(checkpoint(model), dtype=dtype, device=device, max_batch=512)
    torch.backends.cuda.enable_cudnn_sdp(cudnn)
    prompts = [
        await generator.encode([{"role": "user", "content": problem.prompt}]) for problem in islice(load(), problems)
    ]
    requests = [
        Request(prompt, Sampling(temperature=temperature), 128, n=4, seed=100 * i)
        for i, prompt in enumerate(prompts)
        for temperature in (0.0, 0.7, 1.0)
    ]
    start = time.perf_counter()
    completions = await asyncio.gather(*(generator.generate(request) for request in requests))
    seconds = time.perf_counter() - start
    await generator.close()
    return [completion for group in completions for completion in group], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["nano-s", "nano-l"])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--problems", type=int, default=64)
    args = parser.parse_args()
    for model in args.models:
        for dtype in args.dtype:
            here, seconds = asyncio.run(sample(model, dtype, "cpu", args.problems))
            line = f"{model} {dtype}: {sum(one.num_tokens for one in here):,} tokens, CPU {seconds:.1f} s"
            if torch.cuda.is_available():
                there, seconds = asyncio.run(sample(model, dtype, "cuda", args.problems))
                _, planned = asyncio.run(sample(model, dtype, "cuda", args.problems, cudnn=True))
                same = sum(one.tokens == other.tokens for one, other in zip(here, there, strict=True))
                line += f", {torch.cuda.get_device_name()} {seconds:.1f} s, with cuDNN's attention {planned:.1f} s"
                line += f" ({planned / seconds:.1f} times); {same} of {len(here)} completions the same"
            print(line, flush=True)


if __name__ == "__main__":
    main()
