"""Grids: their cells, their table, and resuming."""

import json
import math
from pathlib import Path

import pytest

from infer.cli import run
from infer.cli.comparison import Row, rows_json
from infer.core.solution import Candidate, Solution
from infer.core.usage import Usage
from infer.errors import UserError
from infer.runs.job import Job
from infer.runs.run import runs_inside
from infer.runs.sweep import expand, groups


def solution(problem: str, correct: bool | None, tokens: int = 10) -> Solution:
    candidate = Candidate(address=(0,), tokens=[], num_tokens=tokens, text="", answer="1", finished=True, steps=[])
    return Solution(
        problem_id=problem,
        level=None,
        reference="1",
        answer="1",
        correct=correct,
        finished=True,
        chosen=0,
        candidates=[candidate],
        usage=Usage(generated=tokens, passes=2),
        seconds=0.5,
    )


def test_a_grid_is_the_product_of_its_axes() -> None:
    cells = expand(Job(), ["greedy", "astar,k=2,width=3"], ["128", "1k"], ["nano-s", "nano-m"], [0.5, 1.0], [0, 1])
    assert len(cells) == len({cell.name for cell in cells}) == 32
    assert [len(group) for group in groups(cells)] == [16, 16]
    cell = next(cell for cell in cells if cell.name == "astar,k=2,width=3@1k nano-m t=0.5 seed=1")
    job = cell.plan.job
    assert (job.model, job.temperature, job.seed, job.budget, job.prm) == ("nano-m", 0.5, 1, "1k", "nano-prm-s")
    assert cell.plan.options.model_dump(include={"k", "width"}) == {"k": 2, "width": 3}
    assert {cell.pair for cell in cells if "greedy" in cell.name} == {cell.pair for cell in cells}


HOSTILE = [
    "budget-forcing,close=</think>",
    "budget-forcing,wait=/../../x",
    "budget-forcing,wait=../x",
    "budget-forcing,wait=%2F..",
    "budget-forcing,wait=\x1b[31m",
    "budget-forcing,wait=\x00",
    "budget-forcing,wait=" + "long " * 60,
    "budget-forcing,wait=" + "long " * 60 + "/",
    "budget-forcing,wait=" + "é" * 120,
]


def test_every_cell_has_a_folder_of_its_own_inside_the_grids(tmp_path: Path) -> None:
    cells = expand(Job(), HOSTILE)
    folders = [tmp_path / "grid" / cell.folder for cell in cells]
    for folder in folders:
        folder.mkdir(parents=True)  # would fail for a name too long, and for one that is there already
        (folder / "run.json").touch()
    assert runs_inside(tmp_path / "grid") == sorted(folders)
    assert [path.name for path in tmp_path.iterdir()] == ["grid"]
    assert len(list((tmp_path / "grid").iterdir())) == len(HOSTILE)


@pytest.mark.parametrize(
    "strategy",
    [
        "astar,k=8",
        "best-of-n,choose=weighted",
        "budget-forcing,wait=Wait! So?",
        "budget-forcing,wait=等等 «é» \\ *",
    ],
)
def test_plain_names_are_folders_as_they_are(strategy: str) -> None:
    """As they were named before names were encoded: their runs are resumed."""
    (cell,) = expand(Job(), [strategy], ["1k"])
    assert cell.folder == cell.name == f"{strategy}@1k"


def test_an_error_in_a_cell_names_the_cell() -> None:
    with pytest.raises(UserError, match=r"^astar,k=0@1k: option k=0"):
        expand(Job(), ["greedy", "astar,k=0"], ["1k"])
    with pytest.raises(UserError, match=r"^gredy: unknown strategy 'gredy': did you mean greedy"):
        expand(Job(), ["gredy"])
    with pytest.raises(UserError, match="greedy@1k stands twice"):
        expand(Job(), ["greedy", "astar", "greedy"], ["1k"])


def test_differences_are_paired_over_shared_problems() -> None:
    first = Row.of("a", "a", (), (solution(f"{i}", i % 2 == 0) for i in range(40)))
    # 5 gained, 1 lost, and a problem that the first row lacks
    theirs = [solution(f"{i}", (i % 2 == 0 and i > 0) or i in (1, 3, 5, 7, 9)) for i in range(40)]
    second = Row.of("b", "b", (), [*theirs, solution("other", True, 99)])
    lone = Row.of("c", "c", ("other budget",), [solution("1", None)])
    a, b, c = rows_json([first, second, lone])
    assert "difference" not in a
    assert (b["gained"], b["lost"], b["shared_problems"]) == (5, 1, 40)
    assert b["difference"] == pytest.approx(4 / 40)
    # McNemar: 6 discordant pairs, at most 1 of them on one side, two-sided
    assert b["mcnemar_p"] == pytest.approx(2 * (math.comb(6, 0) + math.comb(6, 1)) / 2**6)
    assert b["generated_tokens_per_problem"] == pytest.approx((40 * 10 + 99) / 41)
    assert (c["accuracy"], c["problems"]) == (None, 1)
    assert "difference" not in c


@pytest.mark.models
def test_a_comparison_is_resumed_and_extended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def compare(*arguments: str) -> list[dict[str, object]]:
        common = ("--backend", "transformers", "--run", str(tmp_path), "--json")
        assert run(["compare", *arguments, *common]) == 0
        cells: list[dict[str, object]] = json.loads(capsys.readouterr().out)["cells"]
        return cells

    first = compare("-s", "greedy", "-s", "best-of-n,n=2,choose=majority", "-b", "200", "--limit", "5")
    assert [cell["name"] for cell in first] == ["greedy@200", "best-of-n,n=2,choose=majority@200"]
    before = (tmp_path / "greedy@200" / "solutions.jsonl").read_text()
    more = compare("-s", "greedy", "-s", "astar,k=2", "-b", "200", "--limit", "7")
    assert [cell["problems"] for cell in more] == [7, 7]
    assert (tmp_path / "greedy@200" / "solutions.jsonl").read_text().startswith(before)
    assert compare("-s", "greedy", "-s", "astar,k=2", "-b", "200", "--limit", "7") == more


def test_a_dry_run_only_names_the_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sweep", "-s", "greedy", "-s", "astar", "-b", "1k", "-m", "nano-s", "-m", "nano-m", "--dry-run"]
    assert run([*arguments, "--run", str(tmp_path / "absent")]) == 0
    lines = capsys.readouterr().out.split("\n")
    cells = [line.split() for line in lines[1:5]]
    names = [" ".join(cell[:2]) for cell in cells]
    assert names == ["greedy@1k nano-s", "astar@1k nano-s", "greedy@1k nano-m", "astar@1k nano-m"]
    assert [cell[2:4] for cell in cells] == [["500", "500,000"]] * 4
    flops = [float(cell[4][:-1]) * {"T": 1, "G": 1e-3}[cell[4][-1]] for cell in cells]
    # two FLOPs for each token and each of nano-s's 200k matrix weights, and attention; the PRM is about as large
    assert 2 < flops[0] / (2 * 0.2007e6 * 500_000 / 1e12) < 3
    assert 1.8 < flops[1] / flops[0] < 2.3
    assert flops[2] > 3 * flops[0]
    assert not (tmp_path / "absent").exists()


def test_a_dry_run_counts_the_budget_and_says_what_it_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    def dry(*arguments: str) -> list[str]:
        assert run(["sweep", *arguments, "--limit", "10", "--dry-run"]) == 0
        return capsys.readouterr().out.splitlines()

    _, short, long, *notes = dry("-s", "greedy", "-b", "300", "-b", "512")
    assert [line.split()[2] for line in (short, long)] == ["3,000", "5,120"]
    flops = [float(line.split()[3].removesuffix("G")) for line in (short, long)]
    prompts = 10 * 136.5e6 / 1e9  # prompts of 256 tokens
    assert (flops[0] - prompts) / (flops[1] - prompts) == pytest.approx(300 / 512, rel=0.1)  # contexts are shorter, too
    assert len(notes) == 2
    assert "about" in notes[0]
    assert "computes again" in notes[1]
    (line,) = dry("-s", "greedy", "-b", "300", "-b", "30s", "--json")
    told = json.loads(line)
    first, second = told["cells"]
    assert (first["name"], first["problems"], first["tokens"]) == ("greedy@300", 10, 3000)
    assert first["flops"] / 1e9 == pytest.approx(flops[0], rel=0.01)
    assert (second["name"], second["tokens"], second["dollars"]) == ("greedy@30s", None, None)
    assert told["notes"] == notes
    *_, note = dry("-s", "astar", "-s", "greedy", "-b", "300", "--prm", "self")
    assert note == "not counted: --prm self, as the generator judges itself"


@pytest.mark.parametrize(
    ("prm", "says"),
    [
        ("nano-prm-s", None),
        ("http://127.0.0.1:1", "not counted: --prm http://127.0.0.1:1, as the sizes of http://127.0.0.1:1 are not "),
        ("self", "not counted: --prm self, as the generator judges itself"),
        ("min:nano-prm-s,self", "not counted: --prm min:nano-prm-s,self but for the first of its 2 models, nano-prm-s"),
    ],
)
def test_uncounted_costs_of_a_verifier_are_named(
    prm: str, says: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cost", "--prm", prm]) == 0
    shown = capsys.readouterr().out
    assert says in shown if says else "not counted" not in shown
    assert run(["cost", "--prm", prm, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["uncounted"] or "").startswith(says or "")
    assert ("verifier" in [row["part"] for row in found["rows"]]) == ("nano-prm-s" in prm)
