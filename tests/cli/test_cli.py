"""The command line as a user meets it. An error is one line that names the thing and the fix."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from infer.cli import run
from infer.cli.options import fresh_folder
from infer.cli.terminal import engine_noise_to, last_error
from infer.errors import UserError
from infer.evalsets.graders.mathematics import Mathematics
from infer.nano import checkpoint
from infer.runs.job import Machine, Models, Plan
from infer.runs.lock import Lock
from infer.runs.run import Run
from infer.testing.toy import ToyGenerator, ToyVerifier
from tests.damage import copied, cut, weights
from tests.packages import install
from tests.servers import Server


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a command that must exit with 2 and print one line, on standard error. Returns that line."""
    code = run(list(arguments))
    captured = capsys.readouterr()
    assert code == 2, captured
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("infer: ")
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["solve", "--strategy", "astr"], ["'astr'", "did you mean astar?"]),
        (["solve", "--strategy", "astar", "-o", "kk=3"], ["'kk'", "did you mean k"]),
        (["solve", "--strategy", "greedy", "-o", "n=3"], ["greedy has no option 'n'"]),
        (["solve", "--strategy", "astar", "-o", "k=many"], ["k=many", "integer"]),
        (["solve", "--strategy", "astar", "-o", "k=0"], ["k=0", "greater than or equal to 1"]),
        (["solve", "--strategy", "best-of-n", "-o", "choose=best"], ["choose=best", "'majority'"]),
        (["solve", "--strategy", "astar", "-o", "k"], ["'k'", "key=value"]),
        (["solve", "--budget", "lots"], ["'lots'", "4k", "64prm", "30s"]),
        (["solve", "--budget", "0"], ["above zero"]),
        (["solve", "--budget", "-5"], ["-5"]),
        (["solve", "--budget", "1.5tok"], ["whole number"]),
        (["solve", "-s", "best-of-n", "-o", "choose=majority", "--budget", "5prm"], ["no verifier passes", "tokens"]),
        (["solve", "--model", "nano-z"], ["'nano-z'", "did you mean nano-"]),
        (["solve", "--model", "/no/such/folder"], ["/no/such/folder", "no such folder"]),
        (["solve", "--on", "math50"], ["math50", "math500"]),
        (["solve", "--backend", "vlm"], ["'vlm'", "did you mean vllm?"]),
        (["solve", "--backend", "openai"], ["--base-url"]),
        (["solve", "--base-url", "http://127.0.0.1:1/v1"], ["--backend openai"]),
        (["solve", "--strategy", "astar", "--model", "owner/name", "--on", "nano"], ["--prm"]),
        (["solve", "--model", "owner/name"], ["--on"]),
        (["solve", "one question", "--on", "nano"], ["not both"]),
        (["solve", "one question", "--split", "test"], ["--split", "--on"]),
        (["solve", "one question", "--limit", "3"], ["--limit 3", "leave it out"]),
        (["solve", "--temperature", "2.5"], ["--temperature", "equal to 2"]),
        (["solve", " "], ["question is empty"]),
        (["solve", "\udcff=?"], ["question is not UTF-8 text"]),
        (["solve", "--temperature", "-1"], ["temperature"]),
        (["solve", "--temperature", "inf"], ["--temperature inf", "finite"]),
        (["solve", "--temperature", "nan"], ["--temperature"]),
        (["solve", "--stop", ""], ["--stop ''", "at least 1 character"]),
        (["solve", "--top-p", "0"], ["--top-p"]),
        (["solve", "--limit", "0"], ["limit"]),
        (["solve", "--strtegy", "astar"], ["--strtegy", "--strategy"]),
        (["slove"], ["slove"]),
        (["list", "strategy"], ["'strategy'", "did you mean strategies?"]),
        (["list", "strategies", "--show", "astr"], ["did you mean astar?"]),
        (["list", "models", "--show", "nano"], ["nano-s"]),
        (["list", "verifiers", "--show", "gen-pmr"], ["'gen-pmr'", "did you mean gen-prm"]),
        (["list", "backends", "--show", "vlm"], ["'vlm'", "did you mean vllm?"]),
        (["cost", "-s", "greedy", "--branches", "4"], ["--branches 4", "greedy", "leave it out"]),
        (["cost", "-s", "astar"], ["astar", "infer sweep --dry-run"]),
        (["cost", "-s", "beam", "--n", "6"], ["--n 6 is not divisible by --branches 4"]),
        (["cost", "-s", "beam", "--n", "8", "--branches", "3"], ["--n 8 is not divisible by --branches 3"]),
        (["cost", "-s", "beam", "-o", "lookahead=2"], ["beam", "infer sweep --dry-run"]),
        (["cost", "-s", "astr"], ["'astr'", "did you mean astar?"]),
        (["cost", "--n", "0"], ["--n", "1"]),
        (["cost", "--tokens", "4z"], ["--tokens 4z", "8k"]),
        (["cost", "--prompt", "30s"], ["--prompt 30s", "4096"]),
        (["cost", "--hardware", "foo"], ["'foo'", "h100"]),
        (["solve", "--hardware", "h1000"], ["'h1000'", "did you mean h100"]),
        (["solve", "--prm", "foo:bar"], ["--prm foo:bar", "'foo'", "math-shepherd"]),
        (["solve", "--delimiter", ""], ["--delimiter ''", "at least 1 character"]),
        (["solve", "--run"], ["--run", "requires an argument"]),
        (["solve", "1+1", "2+2"], ["unexpected", "2+2"]),
        (["compare"], ["--strategy", "-s"]),
        (["compare", "-s", "gredy"], ["gredy", "did you mean greedy?"]),
        (["compare", "-s", "greedy", "-s", "greedy"], ["greedy stands twice"]),
        (["compare", "-s", "greedy", "-b", "4z"], ["greedy@4z", "'4z'", "4k"]),
        (["compare", "-s", "greedy", "-o", "k=1"], ["-o"]),
        (["compare", "-s", "greedy", "1+1=?"], ["unexpected", "1+1=?"]),
        (["compare", "-s", "greedy", "--run", ""], ["--run ''", "empty"]),
        (["solve", "--run", ""], ["--run ''", "empty"]),
        (["show", ""], ["empty", "name a folder"]),
        (["report", ""], ["empty", "name a folder"]),
        (["rescore", "absent", "--out", ""], ["--out", "empty"]),
        (["sweep", "-s", "greedy", "--temperature", "nan"], ["--temperature nan"]),
        (["sweep", "-s", "greedy", "--top-p", "0"], ["--top-p 0", "greater than 0"]),
        (["sweep", "-s", "greedy", "-m", "nano-z"], ["'nano-z'", "did you mean nano-"]),
        (["sweep", "-s", "greedy", "--seed", "1", "--seed", "1"], ["seed=1 stands twice"]),
        (["rescore", "absent"], ["--out"]),
        (["rescore", "absent", "--out", "new"], ["absent is no run"]),
        (["rescore", "absent", "--out", "new", "--aggregation", "foo"], ["--aggregation", "'foo'", "'min'"]),
        (["hardware", "--on", "cpu"], ["--on cpu", "--calibrate"]),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], says: list[str]) -> None:
    line = refused(capsys, *arguments)
    for words in says:
        assert words in line


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, ["no"]),
        ("", ["empty"]),
        ('{"problem": "1+1", "answer": "2"}\n' * 16 + "{not json\n", ["line 17"]),
        ('{"frage": "1+1", "answer": "2"}\n', ["frage", "--problem-column"]),
        ('{"id": "a", "problem": "1+1", "answer": "2"}\n' * 2, ["a", "twice", "duplicate"]),
    ],
)
def test_bad_problem_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str | None, says: list[str]
) -> None:
    path = tmp_path / "problems.jsonl"
    if content is not None:
        # ids differ, except in cases about ids
        path.write_text(content)
    line = refused(capsys, "solve", "--on", str(path))
    assert "problems.jsonl" in line
    assert any(words in line for words in says)


def test_a_folder_that_is_no_checkpoint(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "config.json" in refused(capsys, "solve", "--model", str(tmp_path))


def test_run_folders(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(capsys, "solve", "--run", str(tmp_path / "file" / "run"))
    folder = tmp_path / "run"
    folder.mkdir()
    lock = Lock(folder)
    assert "in use" in refused(capsys, "solve", "--run", str(folder))
    lock.close()


def test_version_and_help_load_no_engine() -> None:
    code = (
        "import sys, infer.cli; infer.cli.run(['--help']); infer.cli.run(['solve', '--help']);"
        "infer.cli.run(['list', 'strategies']);"
        "assert not {'torch', 'vllm', 'transformers', 'datasets', 'sympy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "infer solve --strategy astar --budget 4k" in done.stdout


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "strategies"]) == 0
    shown = capsys.readouterr().out
    for words in ("astar", "best-of-n", "greedy", "-o width=", "states expanded at once"):
        assert words in shown
    assert run(["list", "evalsets", "--show", "math500"]) == 0
    assert "{problem}" in capsys.readouterr().out
    assert run(["list", "verifiers"]) == 0
    shown = capsys.readouterr().out
    for words in ("qwen-prm", "Qwen2.5-Math-PRM-7B", "think-prm", "self"):
        assert words in shown
    assert run(["list", "verifiers", "--show", "gen-prm"]) == 0
    assert "a critique and a verdict" in capsys.readouterr().out
    assert run(["list", "backends"]) == 0
    assert "Plain transformers on this machine" in capsys.readouterr().out
    assert run(["list", "models"]) == 0
    assert "nano-s" in capsys.readouterr().out


def test_ctrl_c_while_the_commands_are_loaded_is_silent() -> None:
    code = """
import sys
class Interrupted:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from infer.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@asynccontextmanager
async def toys(plan: Plan, machine: Machine, *, with_verifier: bool) -> AsyncIterator[Models]:
    """Stands in for `open_models`, with toy models."""
    async with Mathematics() as checker:
        yield Models(ToyGenerator(), ToyVerifier() if with_verifier else None, checker)


def solved(run_folder: Path) -> list[str]:
    return [json.loads(line)["problem_id"] for line in (run_folder / "solutions.jsonl").read_text().splitlines()]


def test_only_problems_that_were_asked_for_count_as_solved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Solutions come in any order, so after an interruption first problems may be missing while later ones exist."""
    monkeypatch.setattr("infer.cli.solve.open_models", toys)
    common = ["solve", "--run", str(tmp_path), "--json"]
    assert run([*common, "--limit", "4"]) == 0
    first, *others = sorted(solved(tmp_path))
    lines = tmp_path / "solutions.jsonl"
    lines.write_text("".join(line for line in lines.open() if first not in line))
    capfd.readouterr()

    assert run([*common, "--limit", "3"]) == 0
    captured = capfd.readouterr()
    assert "2 of 3 problems are done" in captured.err
    summary = json.loads(captured.out)
    assert (summary["problems"], summary["resumed_problems"], summary["graded"]) == (3, 2, 3)
    assert sorted(solved(tmp_path)) == [first, *others]

    assert run([*common, "--limit", "3"]) == 0
    captured = capfd.readouterr()
    assert "3 of 3 problems are done" in captured.err
    assert json.loads(captured.out)["problems"] == 3


def test_an_option_with_a_slash_is_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("infer.runs.sweep.open_models", toys)
    monkeypatch.chdir(tmp_path)
    names = ["greedy", "budget-forcing,close=</think>", "budget-forcing,close=/../../x"]
    words = [word for name in names for word in ("-s", name)]
    assert run(["compare", *words, "--limit", "1", "--max-tokens", "20", "--run", "grid", "--json"]) == 0
    assert [cell["name"] for cell in json.loads(capfd.readouterr().out)["cells"]] == names
    assert [path.name for path in tmp_path.iterdir()] == ["grid"]
    assert run(["report", "grid", "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out)) == len(names)


def test_a_single_run_is_no_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Run.open(tmp_path, {"strategy": "greedy"}, {}).close()
    before = sorted(tmp_path.iterdir())
    for command in ("compare", "sweep"):
        line = refused(capsys, command, "-s", "greedy", "--run", str(tmp_path))
        assert f"--run {tmp_path}: it holds a single run: name another folder" in line
    assert sorted(tmp_path.iterdir()) == before


def test_only_problems_that_were_asked_for_count_in_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("infer.runs.sweep.open_models", toys)
    common = ["compare", "-s", "greedy", "--run", str(tmp_path), "--json"]
    assert run([*common, "--limit", "4"]) == 0
    first = min(solved(tmp_path / "greedy"))
    lines = tmp_path / "greedy" / "solutions.jsonl"
    lines.write_text("".join(line for line in lines.open() if first not in line))
    capfd.readouterr()
    assert run([*common, "--limit", "3"]) == 0
    (cell,) = json.loads(capfd.readouterr().out)["cells"]
    assert (cell["problems"], cell["graded"]) == (3, 3)
    assert len(solved(tmp_path / "greedy")) == 4


@pytest.mark.parametrize("named", [True, False])
def test_the_key_of_a_reward_models_server(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_models(plan: Plan, machine: Machine, *, with_verifier: bool) -> None:
        raise UserError(f"the keys are {machine.api_key} and {machine.prm_api_key}")

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("infer.cli.solve.open_models", open_models)
    if not named:
        monkeypatch.setenv("INFER_PRM_API_KEY", "sk-1")
    arguments = ["--prm-api-key", "sk-1"] if named else []
    assert "the keys are None and sk-1" in refused(capsys, "solve", "1+1=?", *arguments)


class Done(NamedTuple):
    """The exit code and output of a finished command."""

    code: int
    out: str
    err: str


def solve(capfd: pytest.CaptureFixture[str], *arguments: str) -> Done:
    """Runs `infer solve` in this process."""
    capfd.readouterr()
    return Done(run(["solve", *arguments]), *capfd.readouterr())


@pytest.mark.models
def test_solve_resume_and_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    common = ["--strategy", "astar", "--budget", "300", "--run", str(folder), "--json"]
    first = solve(capfd, *common, "--limit", "5")
    assert first.code == 0, first.err
    summary = json.loads(first.out)
    assert (summary["problems"], summary["graded"], summary["failed"]) == (5, 5, 0)
    lines = [json.loads(line) for line in (folder / "solutions.jsonl").read_text().splitlines()]
    assert summary["generated_tokens"] == sum(line["usage"]["generated"] for line in lines) <= 5 * 300
    assert summary["prm_passes"] == sum(line["usage"]["passes"] for line in lines) > 0
    record = json.loads((folder / "run.json").read_text())
    assert record["config"]["options"]["k"] == 4
    assert record["facts"][0]["generator"]["backend"] == "vllm"

    more = solve(capfd, *common, "--limit", "8")
    assert json.loads(more.out)["resumed_problems"] == 5
    again = [json.loads(line) for line in (folder / "solutions.jsonl").read_text().splitlines()]
    assert again[:5] == lines
    assert len({line["problem_id"] for line in again}) == len(again) == 8

    other = solve(capfd, *common, "--limit", "8", "--seed", "1")
    assert other.code == 2
    assert "seed" in other.err
    assert other.err.count("\n") == 1


@pytest.mark.models
@pytest.mark.parametrize("backend", ["vllm", "transformers"])
def test_unusual_models_and_problems(tmp_path: Path, backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A missing chat template, a tiny budget and a prompt beyond the context are all reported clearly."""
    model = tmp_path / "model"
    shutil.copytree(checkpoint("nano-xs"), model)
    (model / "chat_template.jinja").unlink()
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    plain = solve(capfd, "1+1=?", "--model", str(model), "--backend", backend, "--budget", "2tok")
    assert plain.code == 0, plain.err
    assert plain.err.count("no chat template") == 1
    assert "unfinished" in plain.out.lower()

    problems = tmp_path / "problems.jsonl"
    rows = [{"problem": "1+1=?", "answer": "2"}, {"problem": "1+" * 2000 + "1=?", "answer": "2001"}]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--on", str(problems), "--model", "nano-xs", "--backend", backend, "--run", str(tmp_path / "run")]
    long = solve(capfd, *words)
    assert long.code == 2, long.err
    assert "context" in long.err.splitlines()[-1]
    assert len((tmp_path / "run" / "solutions.jsonl").read_text().splitlines()) == 1


def test_a_broken_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = copied(tmp_path / "model")
    cut("model.safetensors", 0.5)(model)
    broken = solve(capfd, "1+1=?", "--model", str(model))
    assert broken.code == 2, broken.err
    assert str(model) in broken.err
    assert broken.err.count("\n") == 1, broken.err


@pytest.mark.models
def test_a_failure_in_an_engines_own_process_is_reported_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vllm")
    from infer.generate import engine

    model = copied(tmp_path / "model")
    weights(lambda tensors: tensors.pop("model.layers.2.input_layernorm.weight"))(model)  # only an engine sees it
    broken_model = str(model)
    command = [sys.executable, "-m", "infer", "solve", "1+1=?", "--model", broken_model]
    here = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert here.returncode == 2, here.stderr
    assert here.stderr.count("\n") == 1, here.stderr
    told, _, cause = here.stderr.strip().partition(" can't be loaded: ")
    assert broken_model in told
    assert cause

    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setattr(engine, "start_engine", partial(engine.start_engine, in_process=False))  # as on a GPU
    elsewhere = solve(capfd, "1+1=?", "--model", broken_model)
    assert elsewhere.code == 2, elsewhere.err
    assert elsewhere.err.count("\n") == 1, elsewhere.err
    assert re.search(rf"its process failed: \w+: {re.escape(cause)} \(log: ", elsewhere.err), elsewhere.err


def test_a_warning_commands_no_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with engine_noise_to(tmp_path):
        logging.getLogger("infer.core").warning("problem %s is odd", "p\x1b[2J\x9b1m")
    assert capfd.readouterr().err == "infer: problem p\\x1b[2J\\x9b1m is odd\n"


def test_a_log_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "log.txt").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*log\.txt: Is a directory"), engine_noise_to(tmp_path):
        pass


def test_the_last_error_that_engines_told(tmp_path: Path) -> None:
    def told(*lines: str) -> str | None:
        with engine_noise_to(tmp_path):
            os.write(2, "".join(line + "\n" for line in lines).encode())
        return last_error()

    prefix = "(EngineCore pid=626) ERROR 11-26 14:46:37 [core.py:1510] "
    cause = "ValueError: Free memory (3.2/79.1 GiB) is less than desired"
    refers = f"{prefix}RuntimeError: It failed. See root cause above."
    assert told(f"{prefix}    raise ValueError(", prefix + cause, refers, "Process EngineCore:") == cause
    # the log of a resumed run: errors from before are not reported
    assert told("(EngineCore pid=627) INFO 11-26 14:46:35 [core.py:133] no Error: here", refers) is None
    assert (
        told("Traceback", "safetensors_rust.SafetensorError: header too large") == "SafetensorError: header too large"
    )
    assert told(cause, "Traceback", "AssertionError") == "AssertionError"


@pytest.mark.models
def test_ctrl_c_keeps_what_is_solved_and_says_how_to_go_on(tmp_path: Path) -> None:
    import signal
    import time

    folder = tmp_path / "run"
    command = [sys.executable, "-m", "infer", "solve", "--strategy", "best-of-n", "-o", "n=64", "-o", "choose=majority"]
    command += ["--run", str(folder), "--concurrency", "2"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # jobs in a shell's background ignore Ctrl-C, and so do tests run there and their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    solutions = folder / "solutions.jsonl"
    for _ in range(2400):
        if solutions.exists() and solutions.read_text().count("\n") >= 3:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    stopped = re.search(r"stopped: (\d+) of 500 problems are done and kept", err)
    assert stopped is not None, err
    assert f"--run {folder}" in err
    assert int(stopped[1]) == solutions.read_text().count("\n") >= 3


@pytest.mark.models
def test_a_server_generates_and_a_local_model_scores(
    nano_server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["--on", "nano", "--limit", "2", "--strategy", "astar", "--budget", "400", "--prm", "nano-prm-s"]
    command += ["--json", "--backend", "openai", "--base-url"]
    done = solve(capfd, *command, nano_server.url, "--run", str(tmp_path / "run"))
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert (summary["problems"], summary["graded"]) == (2, 2)
    assert 0 < summary["generated_tokens"] <= 800
    assert summary["prm_passes"] > 0

    unknown = solve(capfd, *command, nano_server.url, "--model", "gpt-9", "--run", str(tmp_path / "unknown"))
    assert unknown.code == 2
    assert "gpt-9" in unknown.err.splitlines()[-1]
    nobody = solve(capfd, *command, "http://127.0.0.1:9/v1", "--run", str(tmp_path / "nobody"))
    assert nobody.code == 2
    assert "http://127.0.0.1:9/v1" in nobody.err.splitlines()[-1]


@pytest.mark.models
def test_a_traced_run_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    budget = ("--strategy", "astar", "--budget", "500", "--limit", "6", "--backend", "transformers")
    assert run(["solve", *budget, "--trace", "--run", str(folder)]) == 0
    capsys.readouterr()
    assert run(["show", str(folder)]) == 0
    shown = capsys.readouterr().out
    solutions = [json.loads(line) for line in (folder / "solutions.jsonl").read_text().splitlines()]
    finished = [solution for solution in solutions if solution["finished"]]
    assert len(solutions) == 6
    assert re.search(rf"problems finished +{len(finished)}\b", shown)
    assert "tokens/s" not in shown
    solution = finished[0]
    assert run(["show", str(folder), solution["problem_id"], "--all"]) == 0
    shown = capsys.readouterr().out
    chosen = solution["candidates"][solution["chosen"]]
    marked = [line for line in shown.splitlines() if " * " in line and "marks the" not in line]
    assert len(marked) == len(chosen["steps"]) == len(chosen["scores"])
    for line, score in zip(marked, chosen["scores"], strict=True):
        assert f" * {score:.3f} " in line
    assert "no problem 'nano-L1-000'" in refused(capsys, "show", str(folder), "nano-L1-000")
    assert "is no run" in refused(capsys, "show", str(tmp_path / "absent"))
    solved = tmp_path / "untraced"
    shutil.copytree(folder, solved, ignore=shutil.ignore_patterns("traces"))
    assert "infer solve --trace" in refused(capsys, "show", str(solved), solution["problem_id"])


def test_default_folders_of_one_second_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [fresh_folder("nano-astar") for _ in range(20)]
    assert len(set(folders)) == 20
    assert all(folder.is_dir() for folder in folders)


@pytest.mark.parametrize("kind", ["strategies", "evalsets", "verifiers", "backends"])
def test_a_broken_package_does_not_break_the_lists(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(
        tmp_path, monkeypatch, f"infer.{kind}", "broken = elsewhere:thing", "raise RuntimeError('set MY_HOME first')"
    )
    assert run(["list", kind]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "can't be loaded from elsewhere:thing: RuntimeError: set MY_HOME first" in said
    assert {"strategies": "astar", "evalsets": "math500", "verifiers": "qwen-prm", "backends": "vllm"}[kind] in said


def test_an_unexpected_error_leaves_its_traceback_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(*given: Any, **named: Any) -> None:
        raise RuntimeError("the engine is gone")

    monkeypatch.setattr("infer.cli.solve.open_models", breaks)
    assert run(["solve", "--limit", "1", "--run", str(tmp_path / "run")]) == 1
    assert "the engine is gone" in capsys.readouterr().err
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Traceback" in log
    assert "in breaks" in log
