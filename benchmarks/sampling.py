"""The cost of drawing the next tokens of a batch: ours, seeded, against vLLM's sampler without seeds and with them.

    OMP_NUM_THREADS=1 python benchmarks/sampling.py
    python benchmarks/sampling.py --rows 64 --vocabulary 151936 --repeats 50

On a CPU, vLLM's sampler is the one of its runner. On a GPU, or without vLLM, the same method in torch stands in for it:
exponential noise over the whole vocabulary, from one generator or from one for each row. Logits are random, at
temperature 1, without top-k, top-p or min-p. The samplers take turns. Prints medians in milliseconds, and the ratios to
ours with their range over the turns. Ends with one JSON line.
"""

import argparse
import importlib
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from infer.core.generator import Sampling
from infer.generate.sampling import Sampler

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def milliseconds(work: Callable[[], Any]) -> float:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def theirs(logits: torch.Tensor, generators: dict[int, torch.Generator]) -> Callable[[], Any]:
    if DEVICE == "cpu" and importlib.util.find_spec("vllm"):
        from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

        importlib.import_module("vllm._custom_ops")  # loads the kernels
        sampler = TopKTopPSampler()
        return lambda: sampler.forward_cpu(logits, generators, None, None)

    def noise() -> torch.Tensor:
        weights = logits.softmax(-1)
        exponential = torch.empty_like(weights)
        if not generators:
            exponential.exponential_()
        for row, generator in generators.items():
            exponential[row].exponential_(generator=generator)
        return weights.div_(exponential).argmax(-1)

    return noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[128, 49_152, 151_936])
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()

    results = []
    for rows in args.rows:
        for size in args.vocabulary:
            logits = torch.randn(rows, size, device=DEVICE) * 3
            sampler = Sampler()
            sampler.set_rows([(Sampling(temperature=1.0), seed) for seed in range(rows)], DEVICE)
            seeded = {row: torch.Generator(device=DEVICE).manual_seed(row) for row in range(rows)}
            ways: dict[str, Callable[[], Any]] = {
                "ours": partial(sampler.draw, logits, range(rows)),
                "theirs": theirs(logits, {}),
                "theirs_seeded": theirs(logits, seeded),
            }
            times: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(args.repeats + 3):
                for name, way in ways.items():
                    spent = milliseconds(way)
                    if turn >= 3:  # earlier turns warm up
                        times[name].append(spent)
            result: dict[str, Any] = {"rows": rows, "vocabulary": size}
            line = f"{rows:>4} rows of {size:>7,}: ours {statistics.median(times['ours']):7.3f} ms"
            for name, label in (("theirs", "unseeded"), ("theirs_seeded", "seeded")):
                ratios = sorted(a / b for a, b in zip(times[name], times["ours"], strict=True))
                result[name] = statistics.median(ratios)
                line += (
                    f"   {label} {statistics.median(times[name]):7.3f} ms, {result[name]:.2f} times ours "
                    f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
                )
            results.append(result | {"ours_ms": statistics.median(times["ours"])})
            print(line, flush=True)
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    print(json.dumps({"device": device, "results": results}))


if __name__ == "__main__":
    main()
