"""Output: tallies, intervals, progress, the summary for people and for machines, and a single solution."""

import io
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from infer.cli.display import ProgressBar, print_solution, print_summary
from infer.core.formats import clean, quantity
from infer.core.pauses import pausing
from infer.core.problem import Problem
from infer.core.solution import Candidate, Solution
from infer.core.tally import Tally, summary_json, wilson
from infer.core.usage import Usage


def solution(**changes: Any) -> Solution:
    steps = ["First, 17 * 20 = 340.\n\n", "So the answer is \\boxed{391}."]
    candidate = Candidate(
        address=(0,),
        tokens=[1, 2, 3],
        num_tokens=3,
        text="".join(steps),
        answer="391",
        finished=True,
        steps=changes.pop("steps", steps),
        scores=changes.pop("scores", [0.25, 0.875]),
    )
    fields: dict[str, Any] = {
        "problem_id": "p",
        "level": None,
        "reference": "391",
        "answer": "391",
        "correct": True,
        "finished": True,
        "chosen": 0,
        "candidates": [candidate],
        "usage": Usage(
            generated=1500,
            discarded=500,
            prefill=300,
            cached=900,
            passes=12,
            verifier_prefill=2000,
            decode_flops=7 * 10**12,
            verifier_prefill_flops=10**12,
            decode_bytes=2 * 10**9,
            eflops=9 * 10**12,
            device_picoseconds=25 * 10**8,
            dollars=0.0005,
        ),
        "seconds": 1.25,
    }
    return Solution(**{**fields, **changes})


def tally(*solutions: Solution) -> Tally:
    counts = Tally()
    for each in solutions:
        counts.add(each)
    return counts


def console(width: int = 80, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, highlight=False)


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# the first interval loads scipy, which may take a while
quick = settings(deadline=None, max_examples=40)
SOLUTIONS = st.builds(
    solution,
    level=st.sampled_from([None, "1", "2", "10"]),
    correct=st.sampled_from([None, True, False]),
    finished=st.booleans(),
    note=st.sampled_from([None, "slow"]),
    usage=st.builds(Usage, *[st.integers(0, 10**9)] * 8),
)


@quick
@given(st.lists(SOLUTIONS, max_size=6), st.lists(SOLUTIONS, max_size=6))
def test_tallies_of_two_halves_make_the_tally_of_the_whole(one: list[Solution], other: list[Solution]) -> None:
    assert tally(*one) + tally(*other) == tally(*one, *other)


@quick
@given(st.lists(SOLUTIONS, max_size=6))
def test_a_tally_counts(solutions: list[Solution]) -> None:
    counts = tally(*solutions)
    assert counts.problems == len(solutions)
    assert counts.finished == sum(each.finished for each in solutions)
    assert counts.usage == sum((each.usage for each in solutions), Usage())
    for level in (None, "1", "2", "10"):
        there = [each.correct for each in solutions if each.level == level and each.correct is not None]
        assert (counts.correct[level], counts.graded[level]) == (sum(there), len(there))


@quick
@given(
    st.integers(0, 500), st.integers(1, 500), st.sampled_from([(0.9, 1.6448536), (0.95, 1.9599640), (0.99, 2.5758293)])
)
def test_wilson_is_the_closed_formula(correct: int, total: int, level: tuple[float, float]) -> None:
    correct = min(correct, total)
    confidence, z = level
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    assert wilson(correct, total, confidence) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_scipy_is_loaded_only_for_an_interval() -> None:
    code = "import sys, infer.core.tally; assert not {'scipy', 'numpy', 'torch'} & set(sys.modules), 'loaded'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_summary_for_machines() -> None:
    new = tally(solution(level="2"), solution(level="10", correct=False, finished=False, note="slow"))
    new.failed = 3
    shown = summary_json(new, 2.0, earlier=tally(solution(level="2")), path=Path("runs/first"))
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    low, high = wilson(2, 3)
    assert shown == {
        "problems": 3,
        "resumed_problems": 1,
        "finished": 2,
        "unfinished": 1,
        "failed": 3,
        "noted": 1,
        "graded": 3,
        "correct": 2,
        "accuracy": 2 / 3,
        "accuracy_interval_95": [low, high],
        "levels": {
            "2": {"graded": 2, "correct": 2, "accuracy": 1.0, "accuracy_interval_95": list(wilson(2, 2))},
            "10": {"graded": 1, "correct": 0, "accuracy": 0.0, "accuracy_interval_95": list(wilson(0, 1))},
        },
        "generated_tokens": 4500,
        "generated_tokens_per_problem": 1500.0,
        "discarded_tokens": 1500,
        "prefill_tokens": 900,
        "cached_tokens": 2700,
        "prm_passes": 36,
        "program_executions": 0,
        "verifier_generated_tokens": 0,
        "verifier_prefill_tokens": 6000,
        "verifier_cached_tokens": 0,
        "flops": 24 * 10**12,
        "bytes": 6 * 10**9,
        "eflops": 27 * 10**12,
        "device_seconds": 0.0075,
        "dollars": 0.0015,
        "wall_seconds": 2.0,
        "generated_tokens_per_second": 1500.0,  # of this session only
        "run": "runs/first",
    }
    assert list(shown["levels"]) == ["2", "10"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 B"),
        (1, "1.00 B"),
        (999, "999 B"),
        (999.7, "1.00 kB"),
        (12345, "12.3 kB"),
        (2.5e15, "2.50 PB"),
        (0.0345, "34.5 mB"),
        (1e-10, "100 pB"),
        (9.999, "10.0 B"),
    ],
)
def test_quantities_have_three_digits(value: float, shown: str) -> None:
    assert quantity(value, "B") == shown
    assert quantity(value) == shown.replace(" ", "").removesuffix("B")


def test_shares_of_nothing_are_null() -> None:
    nothing = summary_json(Tally(), 0.0)
    assert [key for key, value in nothing.items() if value is None] == [
        "accuracy",
        "accuracy_interval_95",
        "generated_tokens_per_problem",
        "generated_tokens_per_second",
        "run",
    ]
    ungraded = summary_json(tally(solution(correct=None)), 1.0)
    assert (ungraded["graded"], ungraded["accuracy"], ungraded["levels"]) == (0, None, {})


def summary(counts: Tally, seconds: float = 3725.0, **more: Any) -> str:
    screen = console()
    print_summary(screen, counts, seconds, **more)
    text = output(screen)
    assert all(len(line) <= 80 for line in text.splitlines()), text
    return text


def rows(text: str) -> dict[str, tuple[str, str]]:
    """The rows of a summary: each label with its number and its remark."""
    parts = [re.split(r"\s{2,}", line.strip(), maxsplit=2) for line in text.splitlines()]
    return {label: (rest[0] if rest else "", rest[1] if len(rest) > 1 else "") for label, *rest in parts}


def test_the_summary_for_people() -> None:
    many = tally(*[solution(level=str(i % 12), correct=i % 3 > 0, usage=Usage(generated=10**8)) for i in range(1200)])
    many.failed = 2
    shown = rows(summary(many, path=Path("runs/first")))
    low, high = wilson(800, 1200)
    assert shown["accuracy"] == ("66.7%", f"{low:.1%} to {high:.1%} (95%), 800 of 1,200")
    assert [label for label in shown if label.startswith("level")] == [f"level {i}" for i in range(12)]
    assert shown["problems finished"] == ("1,200", "")
    assert shown["failed"][0] == "2"
    assert shown["tokens generated"] == ("120,000,000,000", "100,000,000 a problem")
    assert shown["discarded"] == ("0", "0.0% of them")
    assert shown["wall time"] == ("1:02:05", "")
    assert shown["tokens/s"][0] == f"{1.2e11 / 3725:,.0f}"
    assert "run in runs/first" in shown


def test_the_numbers_of_the_summary_stand_under_each_other() -> None:
    text = summary(tally(solution(level="1"), solution(level="2", correct=False)))
    ends = {
        match.end()
        for line in text.splitlines()
        if (match := re.match(r" *[\w/]+(?: [\w/]+)*  +[\d,.:%]+(?:[A-Z]| ms)?", line))
    }
    assert len(ends) == 1, text


def test_generator_and_verifier_stand_apart() -> None:
    usage = Usage(prefill=100, cached=300, verifier_prefill=2000, verifier_cached=6000, verifier_generated=7)
    text = summary(tally(solution(usage=usage)))
    assert re.search(r"generator prompt +100 +tokens computed *\n +cached +300 +tokens, 75.0% of all", text)
    assert re.search(r"verifier prompt +2,000 +tokens computed *\n +cached +6,000 +tokens, 75.0% of all", text)
    assert rows(text)["PRM passes"] == ("0", "7 verifier tokens generated")


def test_unknown_costs_are_not_shown() -> None:
    known = Usage(decode_flops=10**12, decode_bytes=10**9, eflops=2 * 10**12, device_picoseconds=10**9, dollars=0.5)
    shown = rows(summary(tally(solution(usage=known))))
    assert shown["FLOPs"] == ("1.00T", "1.00 GB moved, 2.00T eFLOPs")
    assert shown["device time"] == ("1.00 ms", "at the roofline of the run's hardware, $0.5")
    shown = rows(summary(tally(solution(usage=replace(known, dollars=None)))))
    assert shown["device time"] == ("1.00 ms", "at the roofline of the run's hardware")
    rescored = replace(known, eflops=None, device_picoseconds=None, dollars=None)
    shown = rows(summary(tally(solution(usage=rescored))))
    assert shown["FLOPs"] == ("1.00T", "1.00 GB moved")
    assert "device time" not in shown


@pytest.mark.parametrize("counts", [Tally(), tally(solution(correct=None)), tally(solution())])
def test_summaries_of_little(counts: Tally) -> None:
    shown = rows(summary(counts, seconds=0.0))
    assert shown["problems finished"][0] == str(counts.problems)
    assert shown["accuracy"][0] == ("100.0%" if counts.graded else "-")
    assert rows(summary(Tally(), earlier=counts))["problems finished"][0] == str(counts.problems)


def test_a_resumed_run_is_summed_up_as_a_whole() -> None:
    shown = rows(summary(tally(solution()), 10.0, earlier=tally(solution(), solution())))
    assert shown["problems finished"] == ("3", "2 with a solution before")
    assert shown["tokens generated"] == ("4,500", "1,500 a problem")
    assert shown["wall time"] == ("10.0 s", "this session")
    assert shown["tokens/s"] == ("150", "generated")


def printed(problem: Problem, found: Solution) -> str:
    screen = console()
    print_solution(screen, problem, found)
    return output(screen)


def test_a_solution_step_by_step() -> None:
    text = printed(Problem("p", "What is 17 * 23?", "391"), solution())
    assert text == (
        "What is 17 * 23?\n\n"
        "step 1  score 0.250\nFirst, 17 * 20 = 340.\n\n"
        "step 2  score 0.875\nSo the answer is \\boxed{391}.\n\n"
        "answer: 391\n"
        "right: the reference is 391\n"
        "1,500 tokens generated (500 discarded); prompt 300 computed, 900 cached; "
        "12 PRM passes, 2,000 computed, 0 cached; 1.2 s\n"
    )


def test_a_solution_that_is_wrong_unscored_cut_off_or_missing() -> None:
    problem = Problem("p", "x")
    wrong = printed(problem, solution(correct=False, answer="390", note="slow", scores=None, usage=Usage(generated=3)))
    assert "answer: 390\nwrong: the reference is 391\nnote: slow\n3 tokens generated" in wrong
    assert "score" not in wrong
    assert "PRM" not in wrong
    missing = printed(problem, solution(chosen=None, candidates=[], answer=None, finished=False, correct=None))
    assert "x\n\nanswer: none was given\nunfinished: the budget or the context was spent\n1,500" in missing
    assert "reference" not in missing


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("[bold]x[/bold] [/] :bug: [link=y]", "[bold]x[/bold] [/] :bug: [link=y]"),
        ("a\x1b[31mred\x1b[0m\x1b[2J\x9b1mb", "aredb"),
        ("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c\x1bPq\x1b\\d", "abcd"),
        ("a\x1b]0;never ended", "a]0;never ended"),
        ("a\x1b\x1b[31m[31mb\rc\x00\x08\x7f\x85\td", "a[31mbc\td"),
    ],
)
def test_nothing_a_model_writes_reaches_the_terminal_as_a_command(hostile: str, shown: str) -> None:
    assert clean(hostile) == shown
    found = solution(steps=[hostile], answer=hostile, reference=hostile, note=hostile, level=hostile, scores=None)
    text = printed(Problem("p", hostile), found)
    for label in ("", "step 1 ", "answer: ", "right: the reference is ", "note: "):
        assert label + " ".join(shown.split()) in " ".join(text.split())
    assert clean(text) == text
    assert clean(summary(tally(found))) == summary(tally(found))


@quick
@given(st.text(alphabet=st.sampled_from("\x1b\x9b\x9d\x9c\x07[]0;31mP\\a\n\t\r") | st.characters(codec="utf-8")))
def test_clean_text_has_no_control_characters_but_breaks_and_tabs(text: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", clean(text))
    assert clean(clean(text)) == clean(text)


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = console(terminal=True)
    now = iter([0.0, 10.0])
    monkeypatch.setattr("infer.cli.display.time.monotonic", lambda: next(now, 10.0))
    with ProgressBar(screen, 100, earlier=tally(*[solution()] * 49)) as bar:
        bar.update(tally(solution(correct=False)))
    text = clean(output(screen))
    assert "50/100, 98.0% right, 150 tok/s, 75.0% cached, 0:08:20 left" in text


def test_a_pause_that_a_server_asked_for_stands_in_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = console(terminal=True, width=120)
    with pausing("host asks for it", 29.5), ProgressBar(screen, 100) as bar:
        bar.update(tally(solution()))
    text = clean(output(screen))
    assert "waiting 30 s: host asks for it, 1/100" in text


def test_progress_elsewhere_is_a_line_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = console(width=20)
    now = 100.0
    monkeypatch.setattr("infer.cli.display.time.monotonic", lambda: now)
    with ProgressBar(screen, None) as bar:
        for _ in range(25):
            now += 1.0
            bar.update(tally(solution(correct=None), solution(correct=None)))
    assert output(screen).splitlines() == [
        "2 problems, 300 tok/s, 75.0% cached",
        "2 problems, 150 tok/s, 75.0% cached",
    ]


def test_progress_before_anything_and_with_failures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = console()
    monkeypatch.setattr("infer.cli.display.LINE_SECONDS", 0.0)
    counts = Tally()
    with ProgressBar(screen, 0) as bar:
        bar.update(counts)
    with ProgressBar(screen, 5) as bar:
        counts.failed = 5
        bar.update(counts)
    assert output(screen).splitlines() == ["0/0", "5/5, 5 failed, 0.0 s left"]
