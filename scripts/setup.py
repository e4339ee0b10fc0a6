#!/usr/bin/env python3
"""Sets up .venv with what fits this machine, and says in one line what it chose. Needs only Python and its venv module.

Tried in order: with an NVIDIA GPU, vLLM; else vLLM's CPU build, as the package index gives it; the same with PyTorch's
index of CPU wheels; else no vLLM: the transformers backend alone.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
MEDIA = ("torchvision", "torchaudio", "torchcodec")


def main() -> int:
    if sys.version_info < (3, 11):
        print(f"setup: Python 3.11 or newer is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    attempts = [
        ("vLLM's CPU build", "cpu,dev", []),
        ("vLLM's CPU build with PyTorch's CPU wheels", "cpu,dev", ["--extra-index-url", TORCH_CPU_INDEX]),
        ("no vLLM: the transformers backend alone", "dev", []),
    ]
    if has_gpu():
        attempts.insert(0, ("vLLM on the GPU", "gpu,dev", []))
    for choice, extras, arguments in attempts:
        print(f"setup: trying {choice} ...", flush=True)
        command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[{extras}]", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            remove_broken_media()
            print(f"setup: chose {choice}", flush=True)
            return 0
        reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        print(f"setup: that failed: {reason[0] if reason else done.stderr.strip()[-300:]}", flush=True)
    return 1


def has_gpu() -> bool:
    """Whether an NVIDIA GPU answers."""
    tool = shutil.which("nvidia-smi")
    return tool is not None and subprocess.run([tool, "-L"], check=False, capture_output=True).stdout.startswith(b"GPU")


def remove_broken_media() -> None:
    """Removes vLLM's image and sound packages where they don't fit the installed torch.

    torchvision may come as a CUDA build beside a CPU torch; its import then fails, and with it every model import of
    transformers. Nothing here needs these packages.
    """
    code = "import importlib.util, sys\nif importlib.util.find_spec('torchvision'): import torchvision"
    if subprocess.run([str(PYTHON), "-c", code], check=False, capture_output=True).returncode:
        subprocess.run([str(PYTHON), "-m", "pip", "uninstall", "--quiet", "--yes", *MEDIA], check=True)
        print(f"setup: removed {', '.join(MEDIA)}: they do not fit the installed torch", flush=True)


if __name__ == "__main__":
    sys.exit(main())
