"""Calibration on a real engine. `tests/cost` tests the fit, and `benchmarks/calibration.py` measures its accuracy."""

import asyncio
from typing import Any

import pytest

from infer.core.generator import Sampling
from infer.cost.hardware import Hardware
from infer.cost.runtime import group_cost
from infer.generate.vllm import sampling_options
from infer.runs.calibrate import GRID, calibrate
from infer.runs.models import ModelRef


@pytest.mark.models
def test_calibration_of_a_real_engine(nano_engine: Any) -> None:
    spec = ModelRef.named("nano-s").spec()
    machine = Hardware("this", {"float32": 5e10}, 1e10, 1e9)
    sampling = sampling_options(nano_engine, Sampling(temperature=1.0), 0)
    runtime = asyncio.run(calibrate(nano_engine, spec, machine, sampling, rounds=1))
    times = [runtime.seconds(group_cost(spec, group)) for group in GRID]
    assert all(time > 0 for time in times)
    assert times[2] > times[1] > times[0]  # 33, 9 and 1 tokens after the same prompt
