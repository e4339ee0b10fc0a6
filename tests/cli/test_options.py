"""The command line's options come from the fields of `Job`, `Machine` and `RunOptions`."""

import inspect
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from infer.cli import run
from infer.cli.grid import compare, sweep
from infer.cli.options import RunOptions
from infer.cli.solve import solve
from infer.errors import UserError
from infer.runs.job import Job, Machine

RENAMED = {"options": "--option", "memory_fraction": "--gpu-memory", "folder": "--run", "as_json": "--json"}
GIVEN: dict[str, tuple[list[str], Any]] = {
    "question": (["1+1=?"], "1+1=?"),
    "on": (["--on", "nano"], "nano"),
    "problem_column": (["--problem-column", "a"], "a"),
    "answer_column": (["--answer-column", "b"], "b"),
    "id_column": (["--id-column", "c"], "c"),
    "split": (["--split", "test"], "test"),
    "strategy": (["-s", "astar"], "astar"),
    "options": (["-o", "k=2", "--option", "width=3"], ("k=2", "width=3")),
    "budget": (["-b", "1k"], "1k"),
    "model": (["-m", "nano-m"], "nano-m"),
    "revision": (["--revision", "r"], "r"),
    "prm": (["--prm", "self"], "self"),
    "prm_revision": (["--prm-revision", "q"], "q"),
    "backend": (["--backend", "openai"], "openai"),
    "base_url": (["--base-url", "http://127.0.0.1:1/v1"], "http://127.0.0.1:1/v1"),
    "dtype": (["--dtype", "float16"], "float16"),
    "temperature": (["--temperature", "0.5"], 0.5),
    "top_p": (["--top-p", ".25"], 0.25),
    "top_k": (["--top-k", "7"], 7),
    "min_p": (["--min-p", "1e-1"], 0.1),
    "max_tokens": (["--max-tokens", "9"], 9),
    "step_tokens": (["--step-tokens", "8"], 8),
    "stop": (["--stop", r"a\nb", "--stop", "c"], ("a\nb", "c")),
    "delimiter": (["--delimiter", r"\n"], "\n"),
    "max_context": (["--max-context", "512"], 512),
    "hardware": (["--hardware", "a100"], "a100"),
    "batch": (["--batch", "3"], 3),
    "seed": (["--seed", "-4"], -4),
    "concurrency": (["--concurrency", "5"], 5),
    "tensor_parallel": (["--tensor-parallel", "2"], 2),
    "data_parallel": (["--data-parallel", "4"], 4),
    "memory_fraction": (["--gpu-memory", "0.5"], 0.5),
    "timeout": (["--timeout", "9"], 9.0),
    "api_key": (["--api-key", "sk-1"], "sk-1"),
    "prm_api_key": (["--prm-api-key", "sk-2"], "sk-2"),
    "limit": (["--limit", "6"], 6),
    "folder": (["--run", "runs/a"], Path("runs/a")),
    "trace": (["--trace"], True),
    "as_json": (["--json"], True),
    "debug": (["--debug"], True),
}
"""For each field: words on the command line, and the value that they set."""


def option(field: str) -> str:
    return RENAMED.get(field, f"--{field.replace('_', '-')}")


def shown(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """A command's help: for each option or argument, by name, its help as one line of text."""
    monkeypatch.setenv("COLUMNS", "160")
    assert run([command, "--help"]) == 0
    text = re.sub("[│╭╮╰╯─]+", " ", capsys.readouterr().out)
    rows = re.split(r"^ +(?:\* +)?(?=--[a-z]|question )", text, flags=re.MULTILINE)[1:]
    return {row.split()[0]: " ".join(row.split()) for row in rows}


@pytest.mark.parametrize("command", ["solve", "compare", "sweep"])
def test_the_help_shows_each_field_with_its_default(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    help_of = shown(command, monkeypatch, capsys)
    for model in (Job, Machine, RunOptions):
        for name, field in model.model_fields.items():
            if command != "solve" and name in ("question", "options", "strategy"):
                continue  # a grid takes no question, and each --strategy includes its options
            said = help_of["question" if name == "question" else option(name)]
            assert field.description is not None
            assert " ".join(field.description.split()) in said
            default = f"no-{name}" if name in ("trace", "debug") else field.default
            if field.default_factory or default is None or default == () or default is False:
                assert "[default:" not in said
            else:
                assert f"[default: {default}]" in said
    assert ("question" in help_of, "--option" in help_of) == ((command == "solve"),) * 2


@pytest.mark.parametrize("command", [solve, compare, sweep])
def test_no_command_restates_a_default(command: Any) -> None:
    fields = {name for model in (Job, Machine, RunOptions) for name in model.model_fields}
    for name, parameter in inspect.signature(inspect.unwrap(command)).parameters.items():
        kind = parameter.annotation
        if name in fields or (isinstance(kind, type) and issubclass(kind, BaseModel)):
            assert parameter.default is inspect.Parameter.empty, name


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Collects the arguments that the command line passes on, and runs nothing."""
    found: dict[str, Any] = {}

    def plan(job: Job) -> Any:
        found["job"] = job
        raise UserError("caught")

    def expand(base: Job, *axes: Any) -> Any:
        found.update(job=base, axes=axes)
        return []

    def run_cells(command: str, cells: Any, machine: Machine, how: RunOptions) -> int:
        found.update(machine=machine, how=how)
        return 0

    monkeypatch.setattr("infer.cli.solve.Plan", plan)
    monkeypatch.setattr("infer.cli.grid.grids.expand", expand)
    monkeypatch.setattr("infer.cli.grid._run", run_cells)
    for name in ("OPENAI_API_KEY", "INFER_PRM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_without_options_the_models_have_their_defaults(caught: dict[str, Any]) -> None:
    assert run(["solve"]) == 2
    assert caught["job"] == Job()
    assert run(["sweep", "-s", "greedy"]) == 0
    assert (caught["job"], caught["machine"], caught["how"]) == (Job(), Machine(), RunOptions())
    assert caught["axes"] == (["greedy"], [], [], [], [Job().seed])


def test_each_option_sets_its_field_and_no_other(caught: dict[str, Any]) -> None:
    models: tuple[type[BaseModel], ...] = (Job, Machine, RunOptions)
    assert GIVEN.keys() == {name for model in models for name in model.model_fields}
    for model, key in zip(models, ("job", "machine", "how"), strict=True):
        for name in model.model_fields:
            words, value = GIVEN[name]
            grid = ["compare", "-s", "greedy"] if model is not Job else ["solve"]
            run([*grid, *words])
            if model is Job or name != "debug":  # --debug raises the error that solve would print
                assert caught[key] == model(**{name: value}), name
    assert all(not isinstance(value, str) for value in (caught["machine"].concurrency, caught["how"].limit))


def test_a_sweep_takes_several_values_of_its_axes(caught: dict[str, Any]) -> None:
    axes = "-s greedy -s astar,k=2 -b 1k -b 2k -m nano-s -m nano-m --temperature 0 --temperature 1.5 --seed 1 --seed 2"
    assert run(["sweep", *axes.split(), "--top-k", "3"]) == 0
    assert caught["job"] == Job(top_k=3)
    strategies, budgets, names, temperatures, seeds = caught["axes"]
    assert (strategies, budgets, names) == (["greedy", "astar,k=2"], ["1k", "2k"], ["nano-s", "nano-m"])
    assert (temperatures, seeds) == ([0.0, 1.5], [1, 2])
    assert run(["compare", *axes.split()[:8], "--seed", "5"]) == 0
    assert (caught["job"], caught["axes"]) == (Job(seed=5), (strategies, budgets))


def test_keys_come_from_the_environment(caught: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("INFER_PRM_API_KEY", "sk-2")
    assert run(["compare", "-s", "greedy"]) == 0
    machine = caught["machine"]
    assert (machine.api_key, machine.prm_api_key) == ("sk-1", "sk-2")
    assert "sk-" not in repr(machine)


BAD = {
    "temperature": ("9", "2"),
    "top_p": ("1.5", "1"),
    "top_k": ("-1", "0"),
    "min_p": ("-0.1", "0"),
    "max_tokens": ("0", "1"),
    "step_tokens": ("0", "1"),
    "max_context": ("-7", "1"),
    "batch": ("0", "1"),
    "concurrency": ("0", "1"),
    "tensor_parallel": ("0", "1"),
    "data_parallel": ("0", "1"),
    "memory_fraction": ("1.5", "1"),
    "limit": ("0", "1"),
}


@pytest.mark.parametrize("command", ["solve", "compare -s greedy", "sweep -s greedy"])
@pytest.mark.parametrize("name", BAD)
def test_a_value_out_of_bounds_is_one_line(command: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    value, bound = BAD[name]
    assert run([*command.split(), option(name), value]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"infer: {option(name)} {value}: Input should be [a-z ]+ {bound}\n", said), said


@pytest.mark.parametrize("name", [*BAD, "seed"])
def test_a_value_that_is_no_number_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["solve", option(name), "some"]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"infer: {option(name)} some: Input should be a valid (number|integer), .*\n", said), said


def test_a_backend_or_dtype_that_is_none_of_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    dtypes = [kind for kind in get_args(Job.model_fields["dtype"].annotation) if get_args(kind)]
    assert run(["sweep", "-s", "greedy", "--dtype", "int8"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("infer: unknown dtype 'int8': known: ")
    assert all(name in said for name in get_args(dtypes[0]))
    assert run(["solve", "1+1=?", "--backend", "vlm"]) == 2
    assert capsys.readouterr().err == "infer: unknown backend 'vlm': did you mean vllm?\n"
