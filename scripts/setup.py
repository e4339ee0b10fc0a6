#!/usr/bin/env python3
"""Sets up .venv for this machine, and prints its choice in one line. Needs only Python and its venv module.

Tries in order: vLLM, if there is an NVIDIA GPU; vLLM's CPU build from the package index; the same with PyTorch's index
of CPU wheels; the transformers backend alone, without vLLM. Where uv is installed, it tries uv first and then pip.
Does nothing if nothing has changed since the last time.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
READY = VENV / "ready"
"""Holds the fingerprint of the last setup, and its choice. The Makefile compares its date."""
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
MEDIA = ("torchvision", "torchaudio", "torchcodec")
EVERY_SEC = 30.0
"""How often an installation without a progress bar prints its latest line."""


def main() -> int:
    if sys.version_info < (3, 11):
        print(f"setup: Python 3.11 or newer is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    gpu = has_gpu()
    now = fingerprint(gpu)
    if READY.exists() and READY.read_text().startswith(now):
        READY.touch()
        print(f"setup: nothing has changed since it chose {READY.read_text().splitlines()[1]}")
        return 0
    READY.unlink(missing_ok=True)
    if not PYTHON.exists():
        print(f"setup: making {VENV} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    for choice, command in attempts(gpu, shutil.which("uv")):
        print(f"setup: trying {choice} ...", flush=True)
        problem = install(command)
        if problem is None:
            remove_broken_media()
            READY.write_text(f"{now}\n{choice}\n")
            print(f"setup: chose {choice}", flush=True)
            return 0
        print(f"setup: that failed: {problem}", flush=True)
    return 1


def fingerprint(gpu: bool) -> str:
    """A hash of everything that decides what is installed."""
    parts = [(ROOT / "pyproject.toml").read_bytes(), Path(__file__).read_bytes(), sys.version.encode(), bytes([gpu])]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is present and responds."""
    tool = shutil.which("nvidia-smi")
    return tool is not None and subprocess.run([tool, "-L"], check=False, capture_output=True).stdout.startswith(b"GPU")


def attempts(gpu: bool, uv: str | None) -> Iterator[tuple[str, list[str]]]:
    """The installations to try in turn: the name and the command of each."""

    def with_uv(extras: str, *arguments: str) -> list[str]:
        return [str(uv), "pip", "install", "--python", str(PYTHON), "--editable", f"{ROOT}[{extras}]", *arguments]

    def with_pip(extras: str, *arguments: str) -> list[str]:
        return [str(PYTHON), "-m", "pip", "install", "--editable", f"{ROOT}[{extras}]", *arguments]

    # without a GPU uv would install torch's CUDA build; only PyTorch's index has the torch for vLLM's CPU build
    torch = [] if gpu else ["--torch-backend", "cpu"]
    if gpu:
        if uv:
            yield "vLLM on the GPU, with uv", with_uv("gpu,dev")
        yield "vLLM on the GPU", with_pip("gpu,dev")
    if uv:
        yield "vLLM's CPU build, with uv", with_uv("cpu,dev", "--torch-backend", "cpu")
    yield "vLLM's CPU build", with_pip("cpu,dev")
    yield "vLLM's CPU build with PyTorch's CPU wheels", with_pip("cpu,dev", "--extra-index-url", TORCH_CPU_INDEX)
    if uv:
        yield "no vLLM: the transformers backend alone, with uv", with_uv("dev", *torch)
    yield "no vLLM: the transformers backend alone", with_pip("dev")


def install(command: list[str]) -> str | None:
    """Runs an installer, and returns why it failed, or None if it succeeded.

    On a terminal the installer shows its own progress. Elsewhere its latest line is printed now and then.
    """
    if sys.stdout.isatty():
        return None if subprocess.run(command, check=False).returncode == 0 else "see above"
    start = time.monotonic()
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:

        def lines() -> list[str]:
            return [line.strip() for line in Path(log.name).read_text(errors="replace").splitlines() if line.strip()]

        with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process:
            while process.poll() is None:
                try:
                    process.wait(EVERY_SEC)
                except subprocess.TimeoutExpired:
                    print(f"setup: {time.monotonic() - start:.0f} s: {''.join(lines()[-1:])[:100]}", flush=True)
        if process.returncode == 0:
            return None
        errors = [line for line in lines() if line.lower().startswith("error")]
        return (errors or lines()[-1:] or ["it said nothing"])[0]


def remove_broken_media() -> None:
    """Removes vLLM's image and sound packages if they don't fit the installed torch.

    torchvision may come as a CUDA build beside a CPU torch. Then its import fails, and with it every model import of
    transformers. This project does not need these packages.
    """
    code = "import importlib.util, sys\nif importlib.util.find_spec('torchvision'): import torchvision"
    if subprocess.run([str(PYTHON), "-c", code], check=False, capture_output=True).returncode:
        subprocess.run([str(PYTHON), "-m", "pip", "uninstall", "--quiet", "--yes", *MEDIA], check=True)
        print(f"setup: removed {', '.join(MEDIA)}: they do not fit the installed torch", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
