"""Devices by name, and this one measured."""

import json
from pathlib import Path

import pytest

from infer.cost.hardware import HARDWARE, THIS_CPU, cache_folder, find, measure
from infer.errors import UserError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "infer"


def test_find() -> None:
    assert find("H100") is HARDWARE["h100"]
    assert find("RTX 4090") is HARDWARE["rtx4090"]
    assert find("tpu_v5e") is HARDWARE["tpu-v5e"]
    with pytest.raises(UserError, match="unknown hardware 'h1000': did you mean h100"):
        find("h1000")


@pytest.mark.parametrize(
    ("name", "flops_per_byte"), [("h100", 295), ("h200", 206), ("b200", 281), ("a100", 153), ("rtx4090", 164)]
)
def test_intensity(name: str, flops_per_byte: float) -> None:
    """Where the bfloat16 roofline bends, as worked out from the data sheets by hand."""
    hardware = find(name)
    assert hardware.intensity("bfloat16") == pytest.approx(flops_per_byte, abs=0.6)
    assert hardware.intensity("float16") == hardware.intensity("int4") == hardware.intensity("bfloat16")


def test_data_sheets_count_dense_rates() -> None:
    """8-bit products are twice as fast as 16-bit ones on each device that has them, not four times (sparsity)."""
    for hardware in HARDWARE.values():
        for dtype in ("float8", "int8"):
            if dtype in hardware.peak and hardware.name != "RTX 4090":  # int8 sums cost it less than float ones
                assert hardware.peak[dtype] / hardware.peak["bfloat16"] == pytest.approx(2, rel=0.02)


def test_a_dtype_without_a_peak() -> None:
    with pytest.raises(UserError, match="A100 80GB SXM has no peak for float8: bfloat16, int8, float32"):
        find("a100").flops_per_second("float8")


@pytest.mark.models  # loads torch
def test_measurements_are_kept(cache: Path) -> None:
    with pytest.raises(UserError, match="infer hardware --measure"):
        find(THIS_CPU)
    measured = measure(seconds=0.01)
    assert cache_folder() == cache
    assert find("cpu") == measured
    assert {"float32", "bfloat16"} <= measured.peak.keys()
    assert measured.price is None
    (cache / "hardware.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(UserError, match="another version"):
        find("cpu")
    (cache / "hardware.json").write_text('{"name": ')
    with pytest.raises(UserError, match="can't be read"):
        find("cpu")
