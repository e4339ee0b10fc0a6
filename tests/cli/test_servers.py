"""`infer solve` against servers that misbehave: no problem is lost, the exit code says why, no secret is shown."""

import asyncio
import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from infer.cli import run
from infer.core.solve import IN_A_ROW
from infer.generate import http
from tests.fake_server import Json, Server, completion, hang, running, send

FINE = completion("Answer: \\boxed{1}", "stop", charged=5)


@pytest.fixture(autouse=True)
def without_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BACKOFF", 0.001)


class Fickle(Server):
    """Answers well, but where `fails` writes something else: it is told the prompt and the number of the request."""

    def __init__(self, fails: Any = lambda prompt, number, writer: False) -> None:
        super().__init__()
        self.models = ["tiny"]
        self.fails = fails
        self.answer = self.fickle

    async def fickle(self, body: Json, writer: asyncio.StreamWriter) -> None:
        failed = self.fails(body["prompt"], len(self.bodies), writer)
        if asyncio.iscoroutine(failed):
            await failed
        elif not failed:
            send(writer, 200, FINE)


def page(writer: asyncio.StreamWriter, status: int, body: Any) -> bool:
    """Sends it, and says that it did."""
    send(writer, status, body)
    return True


def solve(folder: Path, url: str, *more: str) -> int:
    common = ["solve", "--on", "nano", "--limit", "30", "--backend", "openai", "--base-url", url, "--run", str(folder)]
    return run([*common, "--json", *more])


def solved(folder: Path) -> int:
    return len((folder / "solutions.jsonl").read_text().splitlines())


def once(number: int, answer: Any) -> Any:
    """One request of all is answered otherwise."""
    return lambda prompt, index, writer: index == number and (answer(writer) or True)


@pytest.mark.parametrize(
    "answer",
    [
        lambda writer: send(writer, 200, "<html>Please log in</html>"),
        lambda writer: send(writer, 200, {"choices": []}),
        lambda writer: send(writer, 200, {"error": {"message": "out of memory"}}),
        lambda writer: send(writer, 500, "boom"),
        lambda writer: writer.transport.abort(),
    ],
)
def test_one_bad_answer_is_asked_for_again(answer: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running(Fickle(once(7, answer))) as url:
        assert solve(tmp_path, url) == 0
    summary = json.loads(capfd.readouterr().out)
    assert (summary["problems"], summary["failed"], summary["failures"]) == (30, 0, [])
    assert solved(tmp_path) == 30


def test_a_request_that_fails_for_good_fails_its_problem_and_the_same_command_tries_it_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server = Fickle(lambda prompt, number, writer: "+" in prompt and page(writer, 200, "<b>\x1b[2Jno</b>"))
    with running(server) as url:
        assert solve(tmp_path, url) == 1
        out, err = capfd.readouterr()
        summary, left = json.loads(out), solved(tmp_path)
        assert 0 < left < 30
        assert (summary["problems"], summary["failed"]) == (left, 30 - left)
        (kind,) = summary["failures"]
        assert kind["count"] == 30 - left
        said = [line for line in err.splitlines() if "failed, tried" in line]
        assert len(said) == 1
        assert re.match(rf"infer: {30 - left} problems, the first nano-L\d-\d+: http://.*<b>no</b>", said[0])
        assert "\x1b" not in err
        server.fails = lambda *given: False
        assert solve(tmp_path, url) == 0
    assert json.loads(capfd.readouterr().out)["problems"] == solved(tmp_path) == 30


@pytest.mark.parametrize(
    "answer",
    [
        lambda writer: send(writer, 500, "boom"),
        lambda writer: writer.transport.abort(),
        lambda writer: hang(writer),
    ],
    ids=["errors", "resets", "silence"],
)
def test_a_server_that_goes_down_ends_the_run_and_what_is_solved_is_kept(
    answer: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(prompt: str, number: int, writer: asyncio.StreamWriter) -> Any:
        return number > 5 and (answer(writer) or True)

    with running(Fickle(fails)) as url:
        assert solve(tmp_path, url, "--timeout", "0.3", "--concurrency", "4") == 1
    out, err = capfd.readouterr()
    summary = json.loads(out)
    assert summary["problems"] == solved(tmp_path) == 5
    assert IN_A_ROW <= summary["failed"] < IN_A_ROW + 4  # those in flight come to their ends
    assert f"failed {summary['failed']} problems in a row, so the run stops: 5 of 30 problems are done and kept" in err
    assert f"--run {tmp_path} goes on" in " ".join(err.split())


def test_a_refusal_of_all_is_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def refuse(prompt: str, number: int, writer: asyncio.StreamWriter) -> bool:
        send(writer, 400, {"error": {"message": f"you asked for {number} tokens too many"}})
        return True

    with running(Fickle(refuse)) as url:
        assert solve(tmp_path, url) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if "tokens too many" in line]
    assert len(said) == 1
    assert said[0].startswith("infer: 30 problems, the first nano-")


def test_a_grid_stops_where_the_server_is_down(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server = Fickle(lambda prompt, number, writer: number > 30 and page(writer, 500, "boom"))
    with running(server) as url:
        words = ["--on", "nano", "--limit", "30", "--backend", "openai", "--base-url", url, "--run", str(tmp_path)]
        words += ["--concurrency", "4"]
        assert run(["compare", "-s", "greedy", "-s", "self-consistency,n=2", *words]) == 1
        assert "the run stops: what is solved is kept" in capfd.readouterr().err
        server.fails = lambda *given: False
        assert run(["compare", "-s", "greedy", "-s", "self-consistency,n=2", *words]) == 0
    assert solved(tmp_path / "greedy") == solved(tmp_path / "self-consistency,n=2") == 30


def everything(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def test_keys_in_addresses_are_sent_and_nowhere_shown_or_stored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def echo(prompt: str, number: int, writer: asyncio.StreamWriter) -> bool:
        if "+" in prompt:
            send(writer, 400, {"error": {"message": "user of SECRET1, key=SECRET2: no"}})
        return "+" in prompt

    server = Fickle(echo)
    with running(server) as url:
        secret = url.replace("http://", "http://user:SECRET1@") + "?key=SECRET2"
        monkeypatch.setattr("sys.argv", ["infer", "solve", "--base-url", secret, f"--prm={secret}"])
        assert solve(tmp_path / "a", secret, "--prm", secret) == 2
        assert solve(tmp_path / "b", secret, "--prm", secret, "--strategy", "astar", "--budget", "64") == 2
        assert solve(tmp_path / "c", secret.replace("http", "ftp")) == 2
        assert solve(tmp_path / "d", secret.replace("127.0.0.1", "127.0.0.1:x")) == 2
        assert run(["cost", "--prm", secret]) in (0, 2)
    assert solved(tmp_path / "a") > 0
    basic = base64.b64encode(b"user:SECRET1").decode()
    assert all(f"Authorization: Basic {basic}" in head and "key=SECRET2" in head for head in server.heads)
    said = "".join(capfd.readouterr())
    assert "***" in said
    stored = everything(tmp_path)
    assert '"prm": "http://***@127.0.0.1:' in stored
    assert "SECRET" not in said + stored


def test_a_key_travels_as_a_bearers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server = Fickle(lambda prompt, number, writer: page(writer, 401, "who is sk-SECRET?"))
    with running(server) as url:
        assert solve(tmp_path, url, "--api-key", "sk-SECRET") == 2
    assert all("Authorization: Bearer sk-SECRET" in head for head in server.heads)
    assert "SECRET" not in "".join(capfd.readouterr()) + everything(tmp_path)


def test_a_server_that_hangs_as_it_is_asked_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server = Fickle()
    server.others["/v1/models"] = lambda body, writer: hang(writer)
    with running(server) as url:
        assert solve(tmp_path, url, "--timeout", "0.2") == 2
    assert "no server answers at http://127.0.0.1:" in capfd.readouterr().err
