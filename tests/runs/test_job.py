"""Jobs: the machine's settings that reach a job's models and servers, and the record of a run."""

import asyncio
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infer.core.generator import Request, Sampling
from infer.core.ledger import Budget
from infer.errors import UserError
from infer.evalsets.graders.programs import Programs
from infer.generate import backends, engine
from infer.runs.job import Job, Machine, Plan, _shares, open_models
from infer.runs.run import Run
from tests.fake_server import Json, Server


async def served(stack: ExitStack, server: Any) -> str:
    """The base URL of a server that runs until the stack closes."""
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    stack.callback(listening.close)
    return f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"


async def test_a_server_is_given_more_requests_at_once_than_there_are_problems() -> None:
    server, together = Server(), asyncio.Event()

    async def answer(body: Json, writer: asyncio.StreamWriter) -> None:
        if server.open == 200:
            together.set()
        await together.wait()
        await server.complete(body, writer)

    server.answer = answer
    with ExitStack() as stack:
        plan = Plan(Job(backend="openai", base_url=await served(stack, server), model="tiny", on="nano"))
        async with open_models(plan, Machine(), with_verifier=False) as loaded, asyncio.timeout(20):
            request = Request("1+1=", n=200, max_tokens=1, sampling=Sampling(), seed=0)
            assert len(await loaded.generator.generate(request)) == 200


async def test_each_server_gets_its_own_key_and_no_other() -> None:
    heads = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 401 X\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    for keys in ({"api_key": "ours"}, {"api_key": "ours", "prm_api_key": "theirs"}):
        with ExitStack() as stack:
            url = await served(stack, Server())
            plan = Plan(Job(backend="openai", base_url=url, model="tiny", prm=await served(stack, refuse), on="nano"))
            with pytest.raises(UserError):
                async with open_models(plan, Machine(**keys), with_verifier=True):
                    pass
    without, own = heads
    assert "Authorization" not in without
    assert "Authorization: Bearer theirs" in own


async def test_a_reward_model_is_split_over_as_many_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []

    def start_engine(model: str, role: str, **settings: Any) -> Any:
        started.append(settings)
        raise UserError("enough")

    monkeypatch.setattr(engine, "start_engine", start_engine)
    monkeypatch.setattr(backends, "default", lambda: "vllm")
    for prm in ("nano-prm-s", "gen-prm:nano-s"):
        with ExitStack() as stack:
            url = await served(stack, Server())
            plan = Plan(Job(backend="openai", base_url=url, model="tiny", prm=prm, on="nano"))
            with pytest.raises(UserError, match="enough"):
                async with open_models(plan, Machine(tensor_parallel=2), with_verifier=True):
                    pass
    assert [settings["tensor_parallel"] for settings in started] == [2, 2]


def test_models_that_are_split_share_the_memory_of_all_their_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "device_memory", lambda: 80e9)
    plan = Plan(Job(backend="vllm", model="Qwen/Qwen3-32B", prm="Qwen/Qwen2.5-Math-PRM-7B", on="nano"))
    with pytest.raises(UserError, match=r"do not fit into 90% of 80 GB: .*--tensor-parallel"):
        _shares(plan, Machine())
    ours, theirs = _shares(plan, Machine(tensor_parallel=2))
    assert ours + theirs == pytest.approx(0.9)
    assert ours * 80e9 > 65.5e9 / 2
    assert theirs * 80e9 > 14.2e9 / 2


def test_a_run_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    """A run is resumed only if its config is equal, so no field may change its name, its form or its default.

    An option that a strategy got since (`tests`, of best-of-n) had its default's effect.
    """
    earlier = {
        "question": None,
        "on": "nano",
        "problem_column": None,
        "answer_column": None,
        "id_column": None,
        "split": None,
        "strategy": "best-of-n",
        "options": {"n": 4, "level": "solution", "choose": "majority", "verdict_tokens": 256, "aggregation": None},
        "budget": "1000tok",
        "model": "nano-s",
        "revision": None,
        "prm": None,
        "prm_revision": None,
        "backend": "vllm",
        "dtype": None,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "max_tokens": 256,
        "step_tokens": 64,
        "stop": ["a"],
        "delimiter": "\n\n",
        "max_context": None,
        "hardware": "h100",
        "batch": 64,
        "seed": 0,
        "evalset": "procedural",
        "template": {"system": None, "user": "{problem}"},
    }
    Run.open(tmp_path, earlier, {}).close()
    job = Job(strategy="best-of-n", options=("n=4", "choose=majority"), budget="1k", stop=("a",), backend="vllm")
    plan = Plan(job)
    Run.open(tmp_path, plan.config(), {}, plan.defaults()).close()
    other = Plan(job.model_copy(update={"options": (*job.options, "tests=9")}))
    with pytest.raises(UserError, match=r"options\.tests was 8 and is 9"):
        Run.open(tmp_path, other.config(), {}, other.defaults())


def test_options_may_be_a_dictionary() -> None:
    assert Job.model_validate({"options": {"k": 8, "duplicates": True}}).options == ("k=8", "duplicates=True")


def test_tests_choose_among_programs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("choose=b4",)
    with pytest.raises(UserError, match="tests choose among programs only: nano has none"):
        Plan(Job(strategy="best-of-n", options=options))
    problems = tmp_path / "problems.jsonl"
    row = {"task_id": "T/1", "prompt": "def f(x):\n", "entry_point": "f", "test": "def check(f): assert f(1) == 1"}
    problems.write_text(json.dumps(row) + "\n")
    plan = Plan(Job(strategy="best-of-n", options=options, on=str(problems), budget="100runs"))
    assert plan.budget == Budget(100, "runs")
    # whatever makes the grader
    own = replace(plan.evalset, grader=lambda: Programs())
    monkeypatch.setattr("infer.runs.job.find_evalset", lambda name, **columns: own)
    assert Plan(Job(strategy="best-of-n", options=options, on="mine")).evalset.name == own.name
