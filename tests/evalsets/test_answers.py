r"""Final answers: extraction, a conformance table for equality, and the process that compares.

Common sense decides the table: would a teacher who sees the reference accept the answer? `test_pairs.py` has more
pairs, and those whose verdict is wrong as yet.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from infer.core.grading import Verdict
from infer.core.problem import Problem
from infer.evalsets.graders.extraction import extract
from infer.evalsets.graders.mathematics import TOOK_TOO_LONG, VERSION, Mathematics, normalize

DATA = Path(os.environ.get("INFER_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")

FOREVER = "9^{9^{9^9}}"
PROBLEM = Problem("p", "")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so it is $\boxed{42}$.", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"first \boxed{1}, no: \boxed{2}", "2"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\fbox{4}", "4"),
        (r"$\boxed {5}$", "5"),
        (r"$\boxed 6$, which", "6"),
        (r"$\boxed\frac{1}{2}$", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{x^{2}_{1}} done", "x^{2}_{1}"),
        (r"the answer is 5, that is \boxed{5", None),
        (r"\boxed{1} and then \boxed{2", "1"),
        (r"put it in \boxed{}. Answer: 5", "5"),
        (r"put it in \boxed. The answer is 5.", "5"),
        (r"The answer is \boxed{}.", None),
        (r"The answer is 5. The answer is \boxed{ }", "5"),
        (r"the answer is \boxed{7}. #### 8", "7"),
        ("2+3=5\n#### 5", "5"),
        ("#### 1,000 \nand more", "1,000"),
        ("## A heading\nno answer", None),
        ("The answer is 5. I hope it is correct.", "5"),
        ("The final answer is $\\frac{1}{2}$.", r"\frac{1}{2}"),
        ("the answer is 1. Wait, no: the answer is 2.", "2"),
        ("Final Answer: The final answer is 3.5", "3.5"),
        ("**Answer:** 42", "42"),
        ("**Answer**: **42**", "42"),
        ("Answer: Monday", "Monday"),
        ("Answer:\n\n-3", "-3"),
        ("The final answer is:\n\n$$\n\\frac{1}{2}\n$$\n\nDone.", r"\frac{1}{2}"),
        (
            "The final answer is:\n\\[\n\\begin{matrix} 1 \\\\[2pt] 2 \\end{matrix}\n\\]",
            r"\begin{matrix} 1 \\[2pt] 2 \end{matrix}",
        ),
        (r"**Answer:** \(\frac{1}{2}\), not \(2\).", r"\frac{1}{2}"),
        (r"The answer is $\$18$, not $\$20$.", r"\$18"),
        ("The answer is $18 and not $20.", "$18 and not $20"),
        ("The answer is 5. That is, the answer is:\n$$\n\\frac{1", "5"),
        ("Answer: ____", None),
        ("The answer is **.", None),
        ("The answer is ∞.", "∞"),
        (r"The answer is $\{\}$.", r"\{\}"),
        ("The answer is 5.\n\nWe get 5 again, so the answer is correct.", "5"),
        ("The answer is 5. My first answer is wrong. My answer is **right**!", "5"),
        ("The answer is correct.", None),
        ("I do not know", None),
        ("", None),
        ("I put it in a \\boxed\nNow the sum is 7. Answer: 7", "7"),
        ("the \\boxed answer is next. The answer is 3.", "3"),
        ("\\boxed\n{8}", "8"),
        (r"so $\boxed x$ it is", "x"),
        (r"\boxed I think so", None),
        (r"<think>It may be \boxed{5}, or", None),
        (r"<think>It is \boxed{5}.</think> So it is \boxed{6}.", "6"),
        (r"It is \boxed{5}.</think> The answer is 6.", "6"),
        (r"It is \boxed{5}.</think> That is all.", "5"),
        (r"It is \boxed{5}.</think> So it is \boxed{6", None),
        (r"\boxed{4} <think>or \boxed{5}</think> or <think>rather \boxed{6}", "4"),
        (r"<THINK>\boxed{1}</THINK> \boxed{2} <thinking>\boxed{3}", "2"),
        (r"[THINK]is it \boxed{3}?", None),
        ("## Final Answer\n\n\\[\n\\frac{1}{2}\n\\]\n", r"\frac{1}{2}"),
        ("**Final Answer**\n$$x = 5$$", "x = 5"),
        ("### Final answer:\n\n42\n\nThat is all.", "42"),
        ("**Final Answer**\n\nThe area is $\\pi r^2$, that is $9\\pi$.", r"9\pi"),
        ("**Final Answer**\n\nThe final answer is $7$. I hope it is correct.", "7"),
        ("Answer: 1\n\n# Final Answer\n2", "2"),
    ],
)
def test_extract(text: str, answer: str | None) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("repeated", "begin", "answer"),
    [
        (r"\boxed{", "", None),
        (r"\boxed{1", "", None),
        ("answer is \\(\n", "", None),
        ("final answer\n\\[\n\n", "", None),
        (r"\[", "final answer\n", None),
        (r"\$", "final answer\n", None),
        (r"\boxed{5}", r"\boxed{", "5"),
    ],
)
def test_extract_takes_no_square_of_the_length(repeated: str, begin: str, answer: str | None) -> None:
    """A model may repeat itself until its limit. If each opening searched to the end, the event loop would stop."""
    assert extract(begin + repeated * (200_000 // len(repeated))) == answer


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("$5$", "5"),
        (r"\(5\)", "5"),
        ("5.", "5"),
        ("+05.10", "5.1"),
        ("-0.0", "0"),
        (".5", "0.5"),
        ("\u22123", "-3"),
        ("1,000,000.50", "1000000.5"),
        (r"1{,}000", "1000"),
        (r"1,\!000", "1000"),
        (r"\$1,000", "1000"),
        ("100, 200", "100,200"),
        ("3 1/2", "3 1/2"),
        (r"\left( 3, \dfrac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
        (r"2 \sqrt{5}", r"2\sqrt{5}"),
        (r"\pi r", r"\pi r"),
        (r"\text{Monday}", "Monday"),
        (r"\textbf{(C)}", "C"),
        ("(c)", "c"),
        (r"\leftarrow", r"\leftarrow"),
        ("9" * 10_000, "9" * 10_000),
        ("", ""),
        (".", ""),
    ],
)
def test_normalize(written: str, normal: str) -> None:
    assert normalize(written) == normal


@pytest.mark.parametrize("answer", ["0" * 200_000 + "!", "0" * 200_000 + "."])
def test_normalize_takes_no_square_of_the_length(answer: str) -> None:
    assert normalize(answer) == (answer if answer.endswith("!") else "0")


EQUAL = r"""
1/2 | \frac{1}{2}
\frac12 | 0.5
-\frac{1}{2} | \frac{-1}{2}
\frac{1}{3} | 0.333333
3\frac{1}{2} | \frac{7}{2}
3 \frac{1}{2} | 3.5
\frac{10}{4} | \frac{5}{2}
\frac{3\pi}{4} | \frac{3}{4}\pi
2^{10} | 1024
10^{-3} | 0.001
1.5 \times 10^3 | 1500
5! | 120
1,000 | 1000
1{,}000 | 1000
1,\!000 | 1000
073 | 73
12.50 | 12.5
5 \text{ cm} | 5
5 | 5\text{ cm}^2
\$5 | 5
50\% | 50
50\% | 0.5
90^\circ | 90
90 | 90°
45^\circ | 45°
70\sqrt{2} | 70√2
\sqrt{12} | √12
\sqrt{8} | 2\sqrt{2}
\frac{1}{\sqrt{2}} | \frac{\sqrt{2}}{2}
\frac{\pi}{4} | 0.785398
1+i | i+1
6 - 5i | 6-5i
x^2+2x+1 | (x+1)^2
\sin^2 x+\cos^2 x | 1
\frac{x^2-1}{x-1} | x+1
x=5 | 5
5 | x=5
y = 2x+1 | 2x+1
y = 2x+1 | y = 1+2x
(1,2) | (1, 2)
\left(3,\frac{\pi}{2}\right) | (3, \pi/2)
1, 2 | 2, 1
\{1,2\} | \{2,1\}
\{1,2\} | 1,2
\pm 3 | 3,-3
[0,1) | [0, 1)
(0,1) | 0<x<1
0<x<1 | (0,1)
(-\infty,3] | x \le 3
x \le 3 | 3 \ge x
x \in [-2,7] | [-2,7]
(-\infty,1)\cup(2,\infty) | (2,\infty)\cup(-\infty,1)
\emptyset | \{\}
\begin{pmatrix}1\\2\end{pmatrix} | \begin{bmatrix}1\\2\end{bmatrix}
\text{Monday} | Monday
\text{Yes} | \text{yes}
\text{east} | East
(A) | A
\textbf{(B)} | B
2516_8 | 2516
\text{June 20} | June 20
x+1=0 | x=-1
6 - 5i | 6 - 5 i
1+274i | 1 + 274\,i
2+3i | 3i+2
2i | 2 \cdot i
\frac{i}{2} | 0.5i
18 | 18 dollars
18 | \$18 per day
18 | $18.00
18 | 18 eggs
18 | \text{18 points}
18 | 18~\text{cups of sugar}
18 | 18 years old
18 | 18 times
18 | 18 degrees
18 | 18 percent
18 dollars | 18
18 \text{ dollars} | 18 dollars
1000 | 1,000 dollars
0.5 | .5 cups
-3 | -3 points
5 | 5 km/h
5 | 5\,\mathrm{km}/\mathrm{h}
5 | 5 dollars/hour
5 | 5 cm^3
5 | 5 cm²
5 | 5 sq. ft.
371 | 371 \pmod{1000}
371 | 371 (mod 1000)
\frac{100}{3}\% | 33\frac13\%
17.5\% | 17\frac{1}{2} \%
\frac{5}{3} | 1.\overline{6}
\frac{1}{6} | 0.1\overline{6}
-\frac{1}{3} | -.\overline{3}
5 | \boldsymbol{5}
\infty | ∞
(-\infty,3] | (-∞, 3]
\emptyset | \varnothing
\emptyset | ∅
x^2 | x²
(1,2,3) | \langle 1,2,3\rangle
(1,2) | \left\langle 1, 2 \right\rangle
1,1,2 | 2, 1, 1
\{1,1,2\} | \{1,2\}
\{(1,2),(3,4)\} | (3,4),(1,2)
4210_{5} | 4210_5
"""

DIFFERENT = r"""
1/2 | 1/3
\frac{1}{3} | 0.3333
\frac{1}{3} | 0.34
1,000 | 1001
0.1 | 0.10001
10 | 100
2 | -2
3\frac{1}{2} | \frac{3}{2}
\sqrt{1}2 | √12
90 | 91°
3 1/2 | 31/2
\sqrt{8} | 2\sqrt{3}
\pi | 3.14
x+1 | x+2
x+1 | y+1
x=5 | y=5
x^2=4 | 4
(1,2) | (2,1)
(1,2,3) | (1,3,2)
[0,1) | [0,1]
(0,1) | 0<x<2
x \le 3 | x < 3
\{1,2\} | \{1,2,3\}
1,2 | 1
1, 2 | 12
\begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}2\\1\end{pmatrix}
\text{Monday} | \text{Tuesday}
\text{even} | \text{odd}
A | B
i | -i
5\% | 6\%
50\% | 5000\%
0.9999999 | 1
\infty | -\infty
6-5i | 6+5 i
5 | 5 i
18 | 19 dollars
18 | 180 dollars
18 | -18 dollars
1 | 1,000 dollars
18 | 18 or 19
18 | 18 or more
18 | 18 mod 5
18 | 18 thousand
18 | 18 million dollars
18 | 18 dozen
18 | 18 hundredths
18 | 18 and a half
18 | 18 dollars and fifty cents
18 | 18 dollars 50 cents
18 | 18 degrees below zero
2 | 2 pi
3 | 3 x
3 | 3 xy
3 | 3 abc
5 | 5 over 2
5 | 5 over two
5 | 5 squared
5 | 5 sin x
5 | 5 sin theta
3 | 18 \pmod{5}
371 \pmod{1000} | 371 \pmod{999}
33\frac13\% | 34\frac13\%
0.3 | 0.\overline{3}
0.1\overline{6} | 0.\overline{16}
1,1,2 | 1,2
1,2 | 1,1,2
10,10 | 10
(1,2) | \{1,2\}
\{1,2\} | (1,2)
2516_8 | 2516_9
"""


def pairs(table: str) -> list[tuple[str, str]]:
    return [(a, b) for a, _, b in (line.partition(" | ") for line in table.strip().splitlines())]


@pytest.fixture
async def checker() -> AsyncIterator[Mathematics]:
    async with Mathematics() as checker:
        yield checker


async def test_conformance(checker: Mathematics) -> None:
    async def wrong(table: str, equal: bool) -> list[tuple[str, str]]:
        found = pairs(table)
        verdicts = await asyncio.gather(*(checker.equal(a, b) for a, b in found))
        return [pair for pair, verdict in zip(found, verdicts, strict=True) if verdict != Verdict(equal)]

    assert await wrong(EQUAL, True) == []
    assert await wrong(DIFFERENT, False) == []


async def test_the_reference_decides_how_an_equation_is_read(checker: Mathematics) -> None:
    assert await checker.equal("2x+1", "y=2x+1") == Verdict(True)
    assert await checker.equal("4", "x^2=4") == Verdict(True)
    assert await checker.equal("x^2=4", "4") == Verdict(False)


async def test_group(checker: Mathematics) -> None:
    assert await checker.group(PROBLEM, []) == []
    assert await checker.group(PROBLEM, [None, None]) == [-1, -1]
    answers = ["1/2", None, "0.5", "3", r"\frac{1}{2}", "3.0", "x+1", "$3$", "1+x", "0.50"]
    assert await checker.group(PROBLEM, answers) == [0, -1, 0, 3, 0, 3, 6, 3, 6, 0]


CHOICE = Problem("c", "", answer="B", choices=("12", r"\frac{1}{2}", "a cat", "5 km"))


NAMED = [
    ("B", "B"),
    ("b", "B"),
    ("(B)", "B"),
    ("B.", "B"),
    (r"\text{B}", "B"),
    (r"\textbf{(B)}", "B"),
    (r"\text{(B) } \frac{1}{2}", "B"),
    ("B) 1/2", "B"),
    ("0.5", "B"),
    ("C: a cat", "C"),
    ("A cat", "C"),
    ("5 km", "D"),
    ("5000 m", "D"),
    ("5 m", None),
    ("B) 12", None),
    ("B, C", None),
    ("E", None),
    ("a dog", None),
    ("", None),
]
"""Answers, and the letters of the choices that they name."""


async def test_a_choice_is_named_by_its_letter_or_its_text(checker: Mathematics) -> None:
    for answer, letter in NAMED:
        right = [(await checker.grade(replace(CHOICE, answer=each), answer)).right for each in "ABCD"]
        assert right == [each == letter for each in "ABCD"], answer
        groups = await checker.group(CHOICE, [*"ABCD", answer])
        assert groups == [0, 1, 2, 3, 4 if letter is None else "ABCD".index(letter)], answer


async def test_any_of_several_right_answers_counts(checker: Mathematics) -> None:
    problem = Problem("p", "", answer="1/2", also=("7", "x+1"))
    answers = ["0.5", "7", "1+x", "8"]
    assert [(await checker.grade(problem, answer)).right for answer in answers] == [True, True, True, False]
    both = replace(CHOICE, also=("C",))
    assert [(await checker.grade(both, answer)).right for answer in "ABCD"] == [False, True, True, False]


async def test_the_rules_have_a_version() -> None:
    """Runs are not resumed under other rules."""
    assert Mathematics().describe() == {"answers": "math", "version": VERSION}


async def test_exact_compares_strings_and_starts_nothing() -> None:
    async with Mathematics("exact") as checker:
        assert await checker.equal(r"\left( 1, 2 \right)", "(1,2)") == Verdict(True)
        assert await checker.equal("182", "182.0") == Verdict(True)
        assert await checker.equal("1/2", "0.5") == Verdict(False)
        assert await checker.group(PROBLEM, ["1/2", "0.5", "1/2"]) == [0, 1, 0]
        assert children() == set()


def children() -> set[int]:
    """The processes of this one that run a comparison."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"mathematics_worker" in (path / "cmdline").read_bytes():
                found.add(int(path.name))
        except (FileNotFoundError, ProcessLookupError):  # the process has ended meanwhile
            pass
    return found


async def test_an_endless_comparison_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    endless = [(FOREVER, "1"), ("1", FOREVER), ("(" * 300 + "x" + ")" * 300, "y")]
    async with Mathematics(seconds=1.0, workers=1) as checker:
        for number, (reference, answer) in enumerate(endless, 1):
            assert await checker.equal(f"{number}/2", f"{number}/4") == Verdict(False)  # the process is up
            caplog.clear()
            start = time.monotonic()
            assert await checker.equal(reference, answer) == Verdict(False, TOOK_TOO_LONG)
            assert time.monotonic() - start < 4
            [record] = caplog.records
            assert "took over 1 s: counted as not equal" in record.message
            assert len(record.message) < 200
            start = time.monotonic()
            assert await checker.equal(reference, answer) == Verdict(False, TOOK_TOO_LONG)
            assert time.monotonic() - start < 0.1, "nobody waits twice for the same"
        assert await checker.equal("1/2", "0.5") == Verdict(True), "the next comparison works"
    assert children() == set()


async def test_monsters_and_broken_answers_are_only_different(checker: Mathematics) -> None:
    monsters = [" " * 900 + "x", "\n" * 900 + "x", "9" * 10_000, "9" * 10_000 + "x", "\\sqrt{" * 150 + "2" + "}" * 150]
    broken = ["", "}", "{", "\\", "$", "\\frac{1}", "\n", '"', "\x00", "🙂", "\ud800", "\\boxed{", "[asy]", "#### 5"]
    for answer in monsters + broken:
        assert await checker.equal("x+2", answer) == Verdict(False), answer[:20]
        assert await checker.equal(answer, answer) == Verdict(True)


async def test_many_at_once_share_comparisons_and_processes() -> None:
    async with Mathematics(workers=2) as checker:
        verdicts = await asyncio.gather(*(checker.equal(f"x+{n % 10}", f"{n % 10}+x") for n in range(200)))
        assert set(verdicts) == {Verdict(True)}
        assert 1 <= len(children()) <= 2
    assert children() == set()


async def test_who_stops_waiting_leaves_the_checker_usable() -> None:
    async with Mathematics(workers=1) as checker:
        waiting = [asyncio.create_task(checker.equal(f"x^{n}", f"x^{n}+x-x")) for n in range(2, 8)]
        await asyncio.sleep(0.05)
        for task in waiting[::2]:
            task.cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(d, asyncio.CancelledError) for d in done] == [True, False] * 3
        assert done[1] == Verdict(True)
        assert await checker.equal("1/2", "0.5") == Verdict(True)
        assert await checker.equal("1/2", "x") == Verdict(False)
    assert children() == set()


async def test_closing_stops_what_is_under_way() -> None:
    checker = Mathematics(seconds=60)
    await checker.equal("1/2", "0.5")
    waiting = asyncio.create_task(checker.equal("1", FOREVER))
    await asyncio.sleep(0.1)
    assert len(children()) == 1
    await checker.close()
    assert children() == set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(RuntimeError, match="closed"):
        await checker.equal("1", "x")
    await checker.close()


async def test_an_idle_process_that_somebody_killed_is_replaced() -> None:
    async with Mathematics() as checker:
        await checker.equal("1/2", "0.5")
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.2)
        assert await checker.equal("1/4", "0.25") == Verdict(True)


async def test_an_installation_without_math_verify_is_an_error_and_not_a_wrong_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('no such luck')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with Mathematics() as checker:
        assert await checker.equal("5", "5.0") == Verdict(True)
        with pytest.raises(RuntimeError, match=r"can't start .*no such luck"):
            await checker.equal("1/2", "0.5")
    assert children() == set()


def test_a_plain_script_may_use_it_and_leaves_no_process_when_killed() -> None:
    """No `if __name__ == "__main__"` needed, and a comparison under way ends by itself when its parent is gone."""
    script = f"""
import asyncio, sys
from infer.core.grading import Verdict
from infer.core.problem import Problem
from infer.evalsets.graders.mathematics import Mathematics
async def main():
    checker = Mathematics(seconds=1)
    print((await checker.equal("1/2", "0.5")).right, checker._idle[0].process.pid, flush=True)
    await checker.equal("1", "{FOREVER}")
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        equal, pid = parent.stdout.readline().split()
        time.sleep(0.1)
        parent.kill()
    assert equal == "True"
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the process outlives its parent")


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = "{'sympy', 'math_verify', 'torch', 'numpy'}"
    code = f"import sys, infer.evalsets.graders.mathematics; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


async def test_math500(checker: Mathematics) -> None:
    """Every reference answer is itself, also to math-verify alone, and is what its worked solution ends in."""
    path = DATA / "math500.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here; INFER_TEST_DATA can name another folder with it")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        assert await checker.equal(row["answer"], row["answer"]) == Verdict(True)
        assert await checker.equal(row["answer"], extract(row["solution"]) or "") == Verdict(True), row["unique_id"]
    # "+0" keeps the strings apart, so that math-verify decides; of values only, for it means nothing beside words
    values = [row["answer"] for row in rows if "\\frac" in row["answer"] or "\\sqrt" in row["answer"]]
    plain = [value for value in values if not set(value) & set(",=()[") and "text" not in value][:60]
    assert len(plain) == 60
    verdicts = await asyncio.gather(*(checker.equal(value, f"{value}+0") for value in plain))
    assert [v for v, verdict in zip(plain, verdicts, strict=True) if not verdict.right] == []
