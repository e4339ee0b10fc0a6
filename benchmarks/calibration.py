"""How well the idealized runtime, fitted to a small grid, predicts mixes of prefill and decode it has not seen.

    OMP_NUM_THREADS=1 python benchmarks/calibration.py nano-s ~/models/smollm2 --plot calibration.png
    python benchmarks/calibration.py Qwen/Qwen3-0.6B --hardware h100

Starts each model in vLLM. Times it on the grid of `infer.runs.calibrate` and, in turn with it, on random groups of
requests of unequal lengths that start together. A time is the least of several rounds, since disturbances only add to
it. If other work keeps the machine busy throughout, count CPU time (`--cpu-time`, one thread). Without `--hardware`
this CPU is measured first. Prints the fitted lines, the median and 90th percentile of the relative error, and ends with
one JSON line.
"""

import argparse
import asyncio
import itertools
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np

from infer.core.generator import Sampling
from infer.cost.hardware import Hardware, find, measure
from infer.cost.runtime import Shape, fit, group_cost
from infer.generate.engine import start_engine
from infer.generate.vllm import sampling_options
from infer.runs.calibrate import GRID, time_groups
from infer.runs.models import ModelRef


def mixes(count: int, most_prompt: int, most_generated: int) -> list[list[Shape]]:
    """Random groups: 1 to 16 requests, all of them decode-heavy, prefill-heavy or mixed."""
    draw = random.Random(1)

    def shape() -> Shape:
        return Shape(draw.randint(16, most_prompt), 0, draw.randint(1, most_generated))

    return [[shape() for _ in range(draw.choice([1, 1, 2, 4, 8, 16]))] for _ in range(count)]


async def run(model: str, hardware: Hardware, args: argparse.Namespace) -> dict[str, Any]:
    found = ModelRef.named(model)
    engine: Any = start_engine(found.where, "generate", dtype=found.profile.dtype, memory_fraction=0.4)
    spec = engine.spec
    unseen = mixes(args.mixes, args.most_prompt, args.most_generated)

    sampling = sampling_options(engine, Sampling(temperature=1.0), 0)
    clock = time.process_time if args.cpu_time else time.perf_counter
    measured = await time_groups(engine, spec, [*GRID, *unseen], sampling, args.rounds, clock)
    await engine.close()
    runtime = fit(spec, hardware, GRID, measured[: len(GRID)])
    times = measured[len(GRID) :]
    predicted = [runtime.seconds(group_cost(spec, group)) for group in unseen]
    errors = np.abs(np.array(predicted) / np.array(times) - 1)
    result = {
        "model": Path(model).name,
        "dtype": spec.dtype,
        "params": spec.params,
        "prefill": [runtime.prefill.overhead, runtime.prefill.slowdown],
        "decode": [runtime.decode.overhead, runtime.decode.slowdown],
        "mixes": len(unseen),
        "median_error": round(float(np.median(errors)), 3),
        "p90_error": round(float(np.quantile(errors, 0.9)), 3),
    }
    phases = (("prefill", runtime.prefill), ("decode", runtime.decode))
    lines = ", ".join(f"{name} {p.overhead * 1e3:.2f} ms a pass + {p.slowdown:.2f} x roofline" for name, p in phases)
    print(
        f"{result['model']}: {lines}; error on {len(unseen)} mixes: "
        f"median {result['median_error']:.1%}, p90 {result['p90_error']:.1%}",
        flush=True,
    )
    return {**result, "predicted_sec": predicted, "measured_sec": times}


def plot(results: list[dict[str, Any]], path: str) -> None:
    """Predicted against measured seconds, one mark a mix."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    everything = [t for result in results for t in result["measured_sec"] + result["predicted_sec"]]
    ends = np.array([min(everything) / 1.3, max(everything) * 1.3])
    axes.fill_between(ends, ends / 1.2, ends * 1.2, color="0.9", label="within 20%")
    axes.plot(ends, ends, color="0.5", linewidth=1)
    looks = itertools.cycle([("o", "#0072B2"), ("s", "#D55E00"), ("D", "#009E73"), ("^", "#CC79A7"), ("v", "#000000")])
    for result, (marker, color) in zip(results, looks, strict=False):
        label = f"{result['model']}: median error {result['median_error']:.0%}"
        axes.plot(result["measured_sec"], result["predicted_sec"], marker, color=color, markersize=5, label=label)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="measured (s)", ylabel="idealized runtime (s)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.set_title("Unseen mixes of prefill and decode")
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--hardware", help="data sheet to use; default: this CPU, measured now")
    parser.add_argument("--rounds", type=int, default=5, help="the least time of so many counts")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count this process's time: for a busy machine and one thread"
    )
    parser.add_argument("--mixes", type=int, default=30)
    parser.add_argument("--most-prompt", type=int, default=192, help="tokens")
    parser.add_argument("--most-generated", type=int, default=64, help="tokens")
    parser.add_argument("--plot", help="write a calibration plot here (PNG or SVG)")
    args = parser.parse_args()

    hardware = find(args.hardware) if args.hardware else measure()
    rates = ", ".join(f"{rate / 1e9:.0f} GFLOP/s {dtype}" for dtype, rate in hardware.peak.items())
    print(f"{hardware.name}: {rates}, {hardware.bandwidth / 1e9:.1f} GB/s", flush=True)
    results = [asyncio.run(run(model, hardware, args)) for model in args.models]
    if args.plot:
        plot(results, args.plot)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
