"""Hostile command lines: each is refused in one line with exit code 2, before any model is loaded."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import infer
from infer.cli import run
from infer.cli.terminal import LONGEST
from infer.errors import UserError
from infer.runs.job import Job, Machine, Plan

VALUES = {
    "empty": "",
    "blank": " ",
    "huge": "9" * 400,
    "beyond-64-bits": str(2**64),
    "below-64-bits": str(-(2**64)),
    "nan": "nan",
    "inf": "inf",
    "overflow": "1e309",
    "word": "several",
    "unicode": "\u0664\u00b2\u202e",
    "surrogate": "4\udcff",
    "control": "\x1b[31m4\x1b]0;title\x07\x9b2J",
    "lines": "4\n5\r6",
    "path": "/no/such/place",
    "long": "x" * 100_000,
}
NUMBERS = ["--limit", "--seed", "--temperature", "--top-p", "--top-k", "--min-p", "--max-tokens", "--step-tokens"]
NUMBERS += ["--max-context", "--batch", "--concurrency", "--tensor-parallel", "--data-parallel", "--gpu-memory"]
WORDS = ["--on", "--strategy", "--option", "--budget", "--model", "--prm", "--backend", "--dtype", "--hardware"]

FILES = ["--problem-column", "--answer-column", "--id-column", "--split", "--base-url"]
"""Refused as they stand: problems come from a registered set, from no server."""

OTHERS = {
    "compare": ["--strategy", "--budget", "--seed", "--model"],
    "sweep": ["--strategy", "--budget", "--seed", "--model", "--temperature"],
    "cost": [
        "--model",
        "--strategy",
        "--n",
        "--branches",
        "--option",
        "--tokens",
        "--prompt",
        "--prm",
        "--dtype",
        "--hardware",
        "--batch",
    ],
    "list": [""],
    "list strategies": ["--show"],
    "list evalsets": ["--show"],
    "list verifiers": ["--show"],
    "list models": ["--show"],
    "show": [""],
    "report": ["", "--format"],
    "rescore --out new": ["", "--aggregation", "--choose", "--answers"],
    "hardware": ["--on"],
}
"""Options of the other commands; "" is an argument."""

FEW = ["empty", "huge", "nan", "control", "long"]


@pytest.fixture(autouse=True)
def no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded, measured, or left on the disk."""

    def started(*given: Any, **named: Any) -> None:
        raise AssertionError("a model was started")

    for place in ("infer.cli.solve", "infer.runs.sweep"):
        monkeypatch.setattr(f"{place}.open_models", started)
    monkeypatch.setattr("infer.runs.verifiers.VerifierRef.open", started)
    monkeypatch.setattr("infer.cost.hardware.measure", started)
    monkeypatch.chdir(tmp_path)


def outcome(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """What is wrong with how a command ended; empty where it was refused in one line."""
    code = run(words)
    captured = capsys.readouterr()
    said = captured.err.removesuffix("\n")
    if code != 2 or captured.out:
        return f"exit code {code}: {captured.out[:200]} {said[:200]}"
    if not said.startswith("infer: ") or not said.isprintable():
        return f"not one line: {said[:200]!r}"
    if len(said) > LONGEST + 20:
        return f"{len(said)} characters: {said[:200]}"
    return f"left {found}" if (found := [path.name for path in Path.cwd().iterdir()]) else ""


@pytest.mark.parametrize("option", [*NUMBERS, *WORDS, *FILES])
def test_of_solve_every_value_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {name: outcome(capsys, ["solve", option, value]) for name, value in VALUES.items()}
    assert not {name: what for name, what in wrong.items() if what}


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, options in OTHERS.items() for option in options]
)
def test_of_other_commands_too(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*command.split(), *filter(None, [option])]
    wrong = {name: outcome(capsys, [*words, VALUES[name]]) for name in FEW}
    assert not {name: what for name, what in wrong.items() if what}


@pytest.mark.parametrize(
    "words",
    [
        ["solve", "-b", "1k", "-b", "2k"],
        ["solve", "1+1=?", "-m", "nano-s", "--model", "nano-m"],
        ["solve", "--limit", "1", "--limit", "1"],
        ["compare", "-s", "greedy", "--seed", "1", "--seed", "2"],
        ["cost", "--n", "4", "-n", "8"],
    ],
)
def test_an_option_given_twice(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert not outcome(capsys, words)
    assert run(words) == 2
    assert "is given 2 times" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--backend transformers --tensor-parallel 2", "--tensor-parallel 2: backend transformers does not use it"),
        ("--backend transformers --data-parallel 2", "--data-parallel 2: backend transformers"),
        ("--backend transformers --gpu-memory 0.5", "--gpu-memory 0.5: backend transformers"),
        ("--backend transformers -s astar --tensor-parallel 2", "--tensor-parallel 2: backend transformers"),
        (
            "--on nano --backend openai --base-url http://a/v1 --tensor-parallel 2",
            "--tensor-parallel 2: backend openai",
        ),
        ("--on nano --backend openai --base-url http://a/v1 --revision r", "--revision r: backend openai"),
        (
            "--on nano --backend openai --base-url http://a/v1 --prm nano-prm-s -s astar --data-parallel 2",
            "--data-parallel 2: backend openai",
        ),
    ],
)
def test_a_setting_without_effect(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert not outcome(capsys, ["solve", *words.split()])
    for command in ("solve", "sweep" if "-s " in words else "sweep -s greedy"):
        assert run([*command.split(), *words.split()]) == 2
        assert says in capsys.readouterr().err
        assert not list(Path.cwd().iterdir())


def test_a_reward_model_on_this_machine_takes_devices() -> None:
    """Though its generator is on a server."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("there is no backend that takes devices")
    job = Job(on="nano", backend="openai", base_url="http://a/v1", prm="nano-prm-s", strategy="astar")
    Plan(job).check(Machine(tensor_parallel=2, memory_fraction=0.5))


def test_settings_as_they_are_by_default_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    Plan(Job(backend="transformers")).check(Machine(tensor_parallel=1))


@pytest.mark.parametrize("name", ["on", "strategy", "model", "prm", "hardware", "budget", "revision", "delimiter"])
def test_from_python_an_empty_setting_is_refused_too(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} '': String should have at least 1 character"):
        infer.solve("1+1=?", **{name: ""})
