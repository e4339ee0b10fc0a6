"""Devices: their rates of arithmetic and memory traffic, and the price of an hour.

hardware = find("h100")
hardware.intensity("bfloat16")      # 295 FLOPs in the time of one byte
cost.eflops(hardware.intensity(spec.dtype))
"""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infer.errors import UserError, nearest

_TERA, _GIGA = 1e12, 1e9

SAME_RATE = {"float16": "bfloat16", "int4": "bfloat16"}
"""Dtypes with the rate of another: data sheets give one figure for both, or they are unpacked to it."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One device. Rates are the peaks of its data sheet; engines reach less, see `runtime`."""

    name: str
    peak: Mapping[str, float]
    """FLOP/s of dense matrix products by dtype. Data sheets often quote twice that, for sparse matrices."""
    bandwidth: float
    """Bytes/s between memory and chip."""
    memory: float
    """Bytes."""
    price: float | None = None
    """US dollars an hour; None: unknown. The figures in `HARDWARE` are examples: prices change, so give your own."""

    def flops_per_second(self, dtype: str) -> float:
        """Peak FLOP/s. Raises UserError for a dtype without one."""
        rate = self.peak.get(dtype) or self.peak.get(SAME_RATE.get(dtype, ""))
        if rate is None:
            raise UserError(f"{self.name} has no peak for {dtype}: {', '.join(self.peak)}")
        return rate

    def intensity(self, dtype: str) -> float:
        """FLOPs in the time of one byte: the ridge of the roofline, and the weight of bytes in Kinetics' eFLOPs.

        Raises UserError for a dtype without a peak.
        """
        return self.flops_per_second(dtype) / self.bandwidth


HARDWARE = {
    "h100": Hardware(
        # NVIDIA H100 Tensor Core GPU data sheet, SXM: FP16/BF16 1,979 and FP8 3,958 TFLOPS "with sparsity"; FP32 67
        name="H100 SXM",
        peak={"bfloat16": 989.4 * _TERA, "float8": 1978.9 * _TERA, "int8": 1978.9 * _TERA, "float32": 66.9 * _TERA},
        bandwidth=3.35 * _TERA,
        memory=80 * _GIGA,
        price=2.69,  # RunPod, list price, March 2026
    ),
    "h200": Hardware(
        # NVIDIA H200 Tensor Core GPU data sheet, SXM: arithmetic as H100, 141 GB at 4.8 TB/s
        name="H200 SXM",
        peak={"bfloat16": 989.4 * _TERA, "float8": 1978.9 * _TERA, "int8": 1978.9 * _TERA, "float32": 66.9 * _TERA},
        bandwidth=4.8 * _TERA,
        memory=141 * _GIGA,
        price=3.59,  # RunPod, list price, March 2026
    ),
    "b200": Hardware(
        # NVIDIA DGX B200 data sheet, an eighth of it: FP8 72 PFLOPS "with sparsity" in all, 1,440 GB, 64 TB/s
        name="B200",
        peak={"bfloat16": 2250 * _TERA, "float8": 4500 * _TERA, "int8": 4500 * _TERA, "float32": 75 * _TERA},
        bandwidth=8 * _TERA,
        memory=180 * _GIGA,
        price=5.98,  # RunPod, list price, March 2026
    ),
    "a100": Hardware(
        # NVIDIA A100 Tensor Core GPU data sheet, 80GB SXM: BF16 312, INT8 624, FP32 19.5
        name="A100 80GB SXM",
        peak={"bfloat16": 312 * _TERA, "int8": 624 * _TERA, "float32": 19.5 * _TERA},
        bandwidth=2.039 * _TERA,
        memory=80 * _GIGA,
        price=1.39,  # RunPod, list price, March 2026
    ),
    "l40s": Hardware(
        # NVIDIA L40S data sheet: BF16 362.05 (733 with sparsity), FP8 733, INT8 733, FP32 91.6
        name="L40S",
        peak={"bfloat16": 362.05 * _TERA, "float8": 733 * _TERA, "int8": 733 * _TERA, "float32": 91.6 * _TERA},
        bandwidth=864 * _GIGA,
        memory=48 * _GIGA,
        price=0.79,  # RunPod, list price, March 2026
    ),
    "rtx4090": Hardware(
        # NVIDIA Ada GPU architecture white paper, table 2: BF16 165.2 and FP8 330.3 with FP32 sums, INT8 660.6
        name="RTX 4090",
        peak={"bfloat16": 165.2 * _TERA, "float8": 330.3 * _TERA, "int8": 660.6 * _TERA, "float32": 82.6 * _TERA},
        bandwidth=1008 * _GIGA,
        memory=24 * _GIGA,
        price=0.34,  # RunPod, list price, March 2026
    ),
    "mi300x": Hardware(
        # AMD Instinct MI300X data sheet: BF16 1,307.4, FP8 2,614.9, INT8 2,614.9, FP32 matrix 163.4
        name="MI300X",
        peak={"bfloat16": 1307.4 * _TERA, "float8": 2614.9 * _TERA, "int8": 2614.9 * _TERA, "float32": 163.4 * _TERA},
        bandwidth=5.3 * _TERA,
        memory=192 * _GIGA,
        price=1.99,  # DigitalOcean, list price, 2025
    ),
    "tpu-v5e": Hardware(
        # Google Cloud documentation, "TPU v5e": BF16 197 and INT8 393 TFLOPS a chip, 16 GB at 819 GB/s
        name="TPU v5e",
        peak={"bfloat16": 197 * _TERA, "int8": 393 * _TERA},
        bandwidth=819 * _GIGA,
        memory=16 * _GIGA,
        price=1.20,  # Google Cloud, us-central1, list price, 2025
    ),
}
"""Devices by the names that users give. Prices are examples with their dates."""

THIS_CPU = "cpu"


def cache_folder() -> Path:
    """The folder of measurements: `$XDG_CACHE_HOME/infer`, by default `~/.cache/infer`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "infer"


def find(name: str) -> Hardware:
    """Finds a device by name; "cpu" is this machine as measured by `measure`. Raises UserError."""
    key = name.lower().replace(" ", "").replace("_", "-")
    if key == THIS_CPU:
        return _measured()
    if key not in HARDWARE:
        raise UserError(f"unknown hardware {name!r}: {nearest(key, [*HARDWARE, THIS_CPU])}")
    return HARDWARE[key]


def measure(seconds: float = 1.0) -> Hardware:
    """Measures this machine's CPU with torch, on as many threads as torch uses, and stores the result for `find`.

    FLOP/s are the best of repeated products of 1,024 x 1,024 matrices, for float32 and bfloat16. Bytes/s are the best
    of repeated copies of 256 MB, read and written. Each figure takes about `seconds`. They are stored in
    `cache_folder()/hardware.json`.
    """
    import torch

    def best(work: Callable[[], Any]) -> float:
        work()
        times: list[float] = []
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    size = 1024
    peak = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.randn(size, size).to(dtype)
        peak[str(dtype).removeprefix("torch.")] = 2 * size**3 / best(lambda m=matrix: m @ m)  # type: ignore[misc]
    source = torch.ones(256 << 20, dtype=torch.uint8)
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / best(lambda: target.copy_(source))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    threads = torch.get_num_threads()
    name = f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"
    hardware = Hardware(name, peak, bandwidth, memory)
    keep("hardware.json", asdict(hardware))
    return hardware


def keep(name: str, record: dict[str, Any]) -> Path:
    """Writes a measurement into the cache folder, complete or not at all. Returns its path."""
    path = cache_folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(record, indent=1))
    draft.replace(path)
    return path


def kept(name: str, command: str) -> dict[str, Any]:
    """Reads a measurement. Raises UserError, which names the command that makes it, where there is none."""
    path = cache_folder() / name
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"there is no measurement yet in {path}: run {command}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}): run {command} again") from None
    return record


def _measured() -> Hardware:
    command = "infer hardware --measure"
    record = kept("hardware.json", command)
    try:
        return Hardware(**record)
    except TypeError:
        raise UserError(f"{cache_folder() / 'hardware.json'} is of another version: run {command} again") from None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
