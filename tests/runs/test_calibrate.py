"""Calibration: its device, and a real engine.

`tests/cost` tests the fit, and `benchmarks/calibration.py` measures its accuracy.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from infer.cli import run
from infer.core.generator import Sampling
from infer.cost import hardware
from infer.cost.hardware import Hardware
from infer.cost.runtime import group_cost
from infer.errors import UserError
from infer.generate.vllm import sampling_options
from infer.runs.calibrate import GRID, calibrate, check_device
from infer.runs.models import ModelRef


@pytest.mark.parametrize(
    ("on", "here"),
    [
        *(("h100", name) for name in ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H100 NVL")),
        *(("h200", "NVIDIA H200"), ("b200", "NVIDIA B200"), ("a100", "NVIDIA A100-SXM4-80GB")),
        *(("l40s", "NVIDIA L40S"), ("rtx4090", "NVIDIA GeForce RTX 4090"), ("RTX 4090", "NVIDIA GeForce RTX 4090")),
        *(("mi300x", "AMD Instinct MI300X OAM"), ("cpu", "cpu")),
    ],
)
def test_the_device_that_is_calibrated_is_the_one_here(on: str, here: str) -> None:
    check_device(on, here)
    for other in set(hardware.HARDWARE) | {"cpu"}:
        if other != on.lower().replace(" ", ""):
            with pytest.raises(UserError, match=f"^--on {other}: vLLM runs on {here} here: "):
                check_device(other, here)


@pytest.mark.models
def test_another_device_is_refused_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vllm")
    from infer.generate import engine

    other = "h100" if engine.device_name() == "cpu" else "cpu"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run(["hardware", "--calibrate", "nano-s", "--on", other]) == 2
    assert f"--on {other}: vLLM runs on {engine.device_name()} here: " in capsys.readouterr().err
    assert run(["hardware", "--calibrate", "nano-s", "--on", "h1000"]) == 2
    assert "did you mean h100" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.models
def test_calibration_of_a_real_engine(nano_engine: Any) -> None:
    spec = ModelRef.named("nano-s").spec()
    machine = Hardware("this", {"float32": 5e10}, 1e10, 1e9)
    sampling = sampling_options(nano_engine, Sampling(temperature=1.0), 0)
    runtime = asyncio.run(calibrate(nano_engine, spec, machine, sampling, rounds=1))
    times = [runtime.seconds(group_cost(spec, group)) for group in GRID]
    assert all(time > 0 for time in times)
    assert times[2] > times[1] > times[0]  # 33, 9 and 1 tokens after the same prompt
