"""The cost model's roofline against a GPU's clock: single passes of real architectures, prefill and decode.

    python benchmarks/roofline.py Qwen/Qwen3-0.6B Qwen/Qwen3-4B --hardware h100
    python benchmarks/roofline.py nano-s --hardware cpu --context 64 256 --batch 1 4

Builds a model from its config with random bfloat16 weights, since time does not depend on their values. Plain
transformers runs it with torch's attention. On a GPU a decode pass is replayed as a CUDA graph, so that the device is
timed and not Python. Prints two times for each pass: the roofline's, FLOPs or bytes over the data sheet's peak, and the
measured one, the median of repetitions. Then prints, for prefill and for decode, the line that
`infer hardware --calibrate` fits, seconds = overhead + slowdown x roofline, and how well it predicts each pass when
fitted to all the others. The peaks of a large matrix product and a large copy on this device are printed beside the
data sheet's. Works for Qwen3 configs, whose masks transformers takes as given. Ends with one JSON line.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from transformers import AutoConfig, AutoModelForCausalLM

from infer.cost.config import PUBLIC
from infer.cost.formulas import Cost, Serving, decode_cost, prefill_cost
from infer.cost.hardware import Hardware, find
from infer.runs.models import ModelRef

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median time of a call on the device."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        if DEVICE.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            work()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        else:
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def peaks(repeats: int) -> tuple[float, float]:
    """FLOP/s of a large bfloat16 matrix product, and bytes/s of a large copy, with reads and writes."""
    size = 8192 if DEVICE.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randint(0, 255, ((4 << 30) if DEVICE.type == "cuda" else (256 << 20),), dtype=torch.uint8)
    source = source.to(DEVICE)
    target = torch.empty_like(source)
    flops = 2 * size**3 / seconds(lambda: a @ b, repeats)
    return flops, 2 * source.nbytes / seconds(lambda: target.copy_(source), repeats)


class Cache:
    """Keys and values of `context` tokens and room for one more. transformers' own caches copy or require a mask."""

    def __init__(self, config: Any, batch: int, context: int) -> None:
        shape = (config.num_hidden_layers, 2, batch, config.num_key_value_heads, context + 1, config.head_dim)
        self._pairs = torch.randn(shape, device=DEVICE, dtype=torch.bfloat16)
        self._context = context

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._pairs[layer]
        keys[:, :, self._context :], values[:, :, self._context :] = key, value
        return keys, values

    def get_seq_length(self, *_: Any) -> int:
        return self._context


def prefill(model: Any, batch: int, tokens: int) -> Callable[[], Any]:
    ids = torch.randint(model.config.vocab_size, (batch, tokens), device=DEVICE)

    def run() -> Any:
        return model(input_ids=ids, attention_mask={"full_attention": None}, logits_to_keep=1, use_cache=False)

    return run


def decode(model: Any, batch: int, context: int) -> Callable[[], Any]:
    """Decodes one more token after `context` cached ones, for each sequence of the batch."""
    ids = torch.randint(model.config.vocab_size, (batch, 1), device=DEVICE)
    cache = Cache(model.config, batch, context)
    position = torch.full((batch, 1), context, device=DEVICE)

    def run() -> Any:
        return model(
            input_ids=ids,
            attention_mask={"full_attention": None},
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        )

    if DEVICE.type != "cuda":
        return run
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def predictions(roofline: list[float], measured: list[float]) -> tuple[float, float, list[float]]:
    """Overhead and slowdown with the least squared relative error, and each time predicted by a fit to the others."""

    def line(chosen: list[int]) -> tuple[float, float]:
        rows = np.array([(1 / measured[i], roofline[i] / measured[i]) for i in chosen])
        overhead, slowdown = nnls(rows, np.ones(len(chosen)))[0]
        return float(overhead), float(slowdown)

    every = list(range(len(measured)))
    others = [line([j for j in every if j != i]) for i in every]
    return *line(every), [overhead + slowdown * roofline[i] for i, (overhead, slowdown) in enumerate(others)]


def run(name: str, hardware: Hardware, args: argparse.Namespace) -> list[dict[str, Any]]:
    found = ModelRef.named(name)
    spec = found.spec("bfloat16")
    config = AutoConfig.for_model(**PUBLIC[name]) if name in PUBLIC else AutoConfig.from_pretrained(found.where)
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    assert sum(p.numel() for p in model.parameters()) == spec.params

    def of_pass(cost: Cost) -> tuple[float, str]:
        compute, memory = cost.flops / hardware.flops_per_second("bfloat16"), cost.bytes / hardware.bandwidth
        return max(compute, memory), "FLOPs" if compute > memory else "bytes"

    def cost_of(phase: str, batch: int, tokens: int) -> Cost:
        if phase == "prefill":
            return prefill_cost(spec, tokens, 0, serving=Serving(batch=batch))
        return decode_cost(spec, tokens, 1, serving=Serving(batch=batch))

    results = []
    for phase, start in (("prefill", prefill), ("decode", decode)):
        shapes = [(batch, tokens) for tokens in args.context for batch in args.batch]
        shapes = [shape for shape in shapes if shape[0] * shape[1] <= args.most_tokens[phase == "decode"]]
        rooflines, measured, bounds = [], [], []
        for batch, tokens in shapes:
            roofline, bound = of_pass(cost_of(phase, batch, tokens) * batch)
            rooflines.append(roofline)
            bounds.append(bound)
            measured.append(seconds(start(model, batch, tokens), args.repeats))
        overhead, slowdown, predicted = predictions(rooflines, measured)
        errors = [abs(p / m - 1) for p, m in zip(predicted, measured, strict=True)]
        print(f"\n{name}, {phase} in bfloat16\n  batch  tokens   bound     roofline     measured   ratio   predicted")
        for (batch, tokens), bound, r, m, p in zip(shapes, bounds, rooflines, measured, predicted, strict=True):
            print(
                f"  {batch:>5} {tokens:>7}   {bound}  {r * 1e3:>8.3f} ms  {m * 1e3:>8.3f} ms {m / r:>7.2f} "
                f"{p * 1e3:>8.3f} ms ({p / m - 1:+.0%})"
            )
        print(
            f"  {overhead * 1e3:.3f} ms + {slowdown:.2f} x roofline; error of the others' fit: "
            f"median {statistics.median(errors):.1%}, most {max(errors):.1%}",
            flush=True,
        )
        results.append(
            {
                "model": name,
                "phase": phase,
                "shapes": shapes,
                "roofline_sec": rooflines,
                "measured_sec": measured,
                "predicted_sec": predicted,
                "overhead": overhead,
                "slowdown": slowdown,
                "median_error": statistics.median(errors),
            }
        )
    return results


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--hardware", required=True, help="the data sheet of this device")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--context", type=int, nargs="+", default=[256, 1024, 4096, 16384], help="tokens")
    parser.add_argument(
        "--most-tokens", type=int, nargs=2, default=[65536, 300_000], help="of a pass: in prefill, cached in decode"
    )
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()

    hardware = find(args.hardware)
    flops, bandwidth = peaks(args.repeats)
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "this CPU"
    of_compute, of_memory = flops / hardware.flops_per_second("bfloat16"), bandwidth / hardware.bandwidth
    print(
        f"{device}, torch {torch.__version__}; of {hardware.name}'s peaks: products {of_compute:.0%} "
        f"({flops / 1e12:.1f} TFLOP/s), copies {of_memory:.0%} ({bandwidth / 1e9:,.0f} GB/s)"
    )
    results = [result for name in args.models for result in run(name, hardware, args)]
    print(json.dumps({"device": device, "flops": flops, "bandwidth": bandwidth, "results": results}))


if __name__ == "__main__":
    main()
