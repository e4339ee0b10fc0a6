"""The sandbox: honest programs do what they do in plain Python, hostile ones nothing but fail, and nothing stays."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from infer.sandbox.pool import Call, Main, Result, Sandbox, Script, Test
from tests.sandbox import hostile

ROOT = Path(__file__).parents[2]
HONEST = Call("f", (1,), 1)

KINDS = hostile.KINDS


@pytest_asyncio.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(workers=2, cpu=0.4, idle=1, memory=1 << 29) as sandbox:
        yield sandbox


async def test_the_machine_grants_every_layer(sandbox: Sandbox) -> None:
    """The other tests show what the layers do together, so all of them have to be on."""
    layers = await sandbox.layers()
    assert layers["off"] == {}
    assert set(layers["on"]) == {"namespaces", "root", "unprivileged", "limits", "landlock", "seccomp"}


@pytest.mark.models
@pytest.mark.parametrize("kind", KINDS)
async def test_hostile_programs_fail_and_leave_nothing(sandbox: Sandbox, kind: str) -> None:
    """Each is tried by a call and by a script. An honest program between any two of them passes."""
    programs, expected = KINDS[kind]
    before = _everything()

    async def tried(program: str) -> tuple[list[Result], Result]:
        results = await sandbox.run(program, hostile.TRIES)
        (honest,) = await sandbox.run("def f(x): return x", [HONEST])
        return results, honest

    tries = await asyncio.gather(*(tried(program) for program in programs.values()))
    for name, (results, honest) in zip(programs, tries, strict=True):
        assert {result.outcome for result in results} <= expected, (name, results)
        assert honest.outcome == "passed", (name, honest)
    await sandbox.close()
    assert _everything() == before


REFUSE_NAMESPACES = """
from infer.sandbox import kernel
kernel._libc.prctl(38, 1, 0, 0, 0)
unshare = kernel._number(kernel._REFUSED["unshare"])
kernel._filter(kernel._code([(kernel._EQUAL, 0, 1, unshare), kernel._EPERM, kernel._ALLOW]))
"""


@pytest.mark.models
@pytest.mark.parametrize(
    ("before", "off", "kinds"),
    [
        ("", set(), list(KINDS)),
        # without a working folder of its own, a program that fills the disk would fill this machine's
        (REFUSE_NAMESPACES, {"namespaces"}, ["success is faked", "endless", "reaching", "crashing"]),
    ],
    ids=["all layers", "no namespaces"],
)
def test_hostile_programs_fail_for_an_unprivileged_user_too(before: str, off: set[str], kinds: list[str]) -> None:
    """And so they do where the machine grants no namespaces, as in many containers."""
    if os.getuid() != 0:
        pytest.skip("the other tests run as such a user")
    code = f"{before}\nimport asyncio\nfrom tests.sandbox.hostile import main\nasyncio.run(main({kinds}))"
    for python in (sys.executable, "/usr/bin/python3"):
        with suppress(PermissionError, FileNotFoundError):  # root's own Python may be for root alone
            run = subprocess.run(
                [python, "-B", "-c", code], cwd=ROOT, env={}, user="nobody", group="nogroup", extra_groups=(),
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert run.returncode == 0, run.stderr
            layers, outcomes = json.loads(run.stdout)
            assert layers["off"].keys() == off
            for kind in kinds:
                programs, expected = KINDS[kind]
                for name in programs:
                    assert set(outcomes[name]) <= expected, (kind, name, outcomes[name])
            return
    pytest.skip("no Python here that nobody may run")


async def test_values_come_back_as_they_are(sandbox: Sandbox) -> None:
    """Every kind of plain data equals its literal, and no other: 1 is 1.0 and True in Python, but no text."""
    values = [
        *("None", "True", "0", "-1", "10**30", "-(2**70)", "1.5", "float('inf')", "''", "'é\\n\\0'", "b'\\xff'", "1j"),
        *(
            "[]",
            "[1, [2, (3, 'a')]]",
            "()",
            "(1,)",
            "{}",
            "{1: 'a', (1, 2): [3]}",
            "{1, 2}",
            "frozenset({1})",
            "range(3)",
        ),
        *("__import__('decimal').Decimal('0.10')", "__import__('fractions').Fraction(1, 3)", "2**20000"),
        *("__import__('datetime').date(2024, 2, 29)", "__import__('collections').deque([1, 2])"),
        *("__import__('collections').Counter('aab')", "__import__('datetime').timedelta(days=1, seconds=2)"),
    ]
    for text in values:
        value = eval(text)
        right, wrong = await sandbox.run(
            f"def f(): return {text}", [Call("f", (), value), Call("f", (), "something else")]
        )
        assert (right.outcome, wrong.outcome) == ("passed", "wrong"), text
        (given,) = await sandbox.run("def f(x): return x", [Call("f", (value,), value)])
        assert given.outcome == "passed", text


@pytest.mark.parametrize(
    ("program", "code", "outcome"),
    [
        ("def f(x): return x + 1", "assert f(1) == 2", "passed"),
        ("def f(x): return x + 1", "assert f(1) == 3", "wrong"),
        ("def f(x): x.append(1)", "a = []\nf(a)\nassert a == [1]", "passed"),
        ("def f(x): x['a'] = [1]", "a = {}\nf(a)\nassert a == {'a': [1]}", "passed"),
        ("def f(x): raise KeyError('k')", "try: f(1)\nexcept KeyError: pass\nelse: assert False", "passed"),
        ("class Own(Exception): pass\ndef f(x): raise Own('why')", "f(1)", "error"),
        ("def f(x): assert x == 2", "f(1)", "error"),
        ("def f(n):\n for i in range(n): yield i", "assert list(f(3)) == [0, 1, 2]", "passed"),
        ("class P:\n def __init__(s, x): s.x = x\n def twice(s): return s.x * 2", "p = P(2)\nassert p.x == 2 and p.twice() == 4", "passed"),
        ("class L:\n def __len__(s): return 2\n def __getitem__(s, i): return i", "assert len(L()) == 2 and L()[5] == 5", "passed"),
        ("def g(f, x): return f(x)\ndef h(x): return x + 1", "assert g(h, 1) == 2", "passed"),
        ("def f(x): return x", "import math\nassert math.isclose(f(0.1) + f(0.2), 0.3)", "passed"),
        ("def f(x): return None", "assert f(1) < 2", "error"),
        ("def g(x): return x", "assert f(1) == 1", "error"),
        ("def f(x): return x", "assert f(1) == ", "malformed"),
        ("def f(x): return x", "assert [][0]", "malformed"),
        ("def f(x): return x", "while True: pass", "malformed"),
        ("def f(x): return x", "import os\nos._exit(0)", "malformed"),
        ("def f(x): return x", "assert f(lambda: 1)", "error"),
    ],
)  # fmt: skip
async def test_scripts_end_as_they_would_in_one_process(
    sandbox: Sandbox, program: str, code: str, outcome: str
) -> None:
    (result,) = await sandbox.run(program, [Script(code)])
    assert result.outcome == outcome, result


async def test_a_program_gives_no_name_to_its_test_that_the_test_relies_on(sandbox: Sandbox) -> None:
    liar = "def f(x): return 2\ndef abs(x): return 0\ndef close(a, b): return True\ndef sorted(x): return x"
    codes = ["assert abs(f(1) - 1) < 1e-6", "assert close(f(1), 1)"]
    scripts = [Script(code, setup="def close(a, b): return a == b") for code in codes]
    assert [result.outcome for result in await sandbox.run(liar, scripts)] == ["wrong", "wrong"]
    (own,) = await sandbox.run(liar, [Script("assert sorted([2, 1]) == [2, 1]", entry="sorted")])
    assert own.outcome == "passed"  # its own function may be called like a builtin


@pytest.mark.parametrize(
    ("program", "text", "expected", "outcome"),
    [
        ("print(int(input()) + 1)", "3\n", "4", "passed"),
        ("import sys\nfor line in sys.stdin: print(line.strip()[::-1])", "ab\ncd\n", "ba\ndc\n", "passed"),
        ("print('a ')\nprint()", "", "a", "passed"),
        ("print(1)", "", "2", "wrong"),
        ("print(1)\nraise ValueError", "", "1", "error"),
        ("import sys\nprint(1)\nsys.exit(0)", "", "1", "passed"),
        ("import sys\nprint(1)\nsys.exit(3)", "", "1", "error"),
        ("if __name__ == '__main__': print('é')", "", "é", "passed"),
        ("while True: print('x' * 10000)", "", "x", "output"),
        ("input()", "", "", "error"),
        ("print(len(input()))", "x" * 3_000_000, "3000000", "passed"),
    ],
)
async def test_scripts_read_their_input_and_print(
    sandbox: Sandbox, program: str, text: str, expected: str, outcome: str
) -> None:
    (result,) = await sandbox.run(program, [Main(text, expected)])
    assert result.outcome == outcome, result


async def test_a_test_sees_nothing_of_the_one_before(sandbox: Sandbox) -> None:
    counting = "import os, random\nn = 0\ndef f():\n global n\n n += 1\n open('a', 'x').close()\n return n, os.listdir(), random.random()"
    results = await sandbox.run(counting, [Call("f", (), (1, ["a"], 0.5))] * 4)
    assert len({result.seen for result in results}) == 1  # the same state, file and random numbers each time
    assert results[0].seen is not None
    assert '"tuple":[1,["a"]' in results[0].seen


async def test_programs_that_behave_equally_are_seen_so(sandbox: Sandbox) -> None:
    """They may define and import other things besides, before and after."""
    tests: list[Test] = [
        Call("f", (3,), 0),
        Script("f(3)"),
        Script("try: f('a')\nexcept TypeError: pass"),
        Script("g()"),
    ]
    a = "def f(x): return x * 2\ndef g(): return f"
    b = "import math\nfrom collections import deque\ndef other(): pass\nsizes = [len]\ndef g(): return f\ndef f(x): return x + x"
    c = "def f(x): return x * 3\ndef g(): return 1"
    seen = [[result.seen for result in await sandbox.run(program, tests)] for program in (a, b, c)]
    assert seen[0][:2] == seen[1][:2]
    assert seen[0][3] == seen[1][3]
    assert all(one != other for one, other in zip(seen[0], seen[2], strict=True))


@pytest.mark.models
async def test_verdicts_do_not_depend_on_the_load_of_the_machine() -> None:
    """Programs near the limit of CPU time, alone and beside eight busy processes a core."""
    rng = random.Random(0)
    programs = [f"def f(x):\n for _ in range({rng.choice([10, 10**3, 10**5])}): pass\n return x" for _ in range(60)]
    sleeper = "import time\ndef f(x):\n time.sleep(0.1)\n return x"

    async def verdicts() -> list[str]:
        async with Sandbox(cpu=1, idle=1) as sandbox:
            results = await asyncio.gather(*(sandbox.run(program, [HONEST]) for program in [*programs, sleeper]))
        return [result.outcome for (result,) in results]

    alone = await verdicts()
    loop = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(loop) for _ in range(8 * (os.cpu_count() or 1))]  # noqa: ASYNC220
    try:
        assert await verdicts() == alone == ["passed"] * 61
    finally:
        for process in busy:
            process.kill()
            process.wait()


async def test_a_cancelled_test_leaves_no_process(sandbox: Sandbox) -> None:
    before = _everything()
    task = asyncio.create_task(sandbox.run("while True: pass", [HONEST]))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await sandbox.run("def f(x): return x", [HONEST]))[0].outcome == "passed"
    await sandbox.close()
    assert _everything() == before


def _everything() -> tuple[list[str], list[str], str]:
    """The folders of sandboxes, their processes, and the mounts that this process sees."""
    folders = sorted(path.name for path in Path("/tmp").glob("infer-sandbox-*"))
    processes = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"sandbox.server" in (path / "cmdline").read_bytes():  # forked processes have that of their server
                processes.append(path.name)
    return folders, processes, Path("/proc/self/mounts").read_text()
