"""Reading runs: frames against the written solutions, torn and foreign files, and when the side file is fresh."""

import json
import math
import os
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from infer.analysis import columns, read
from infer.analysis.columns import CACHE
from infer.analysis.frames import labels
from infer.core.records import BadLine
from infer.core.tree import Aggregation, aggregate
from infer.errors import UserError
from tests.analysis.synthetic import random_solutions, solution, write_run


def test_frames_hold_what_was_written(tmp_path: Path) -> None:
    solutions = random_solutions(20, 5)
    solutions[3] = solution("p3", ["7", "007", "1,000", None], scores=[[0.5], None, [], [0.1, 0.9]], chosen=1)
    solutions[4] = solution("p4", [], chosen=None, reference=None, level=None)
    folder = write_run(tmp_path / "a", solutions, aggregation="min")
    for runs in (read([folder]), read([folder]), read([folder], cache=False)):  # parsed, from side file, without one
        problems = runs.problems
        assert problems["problem_id"].tolist() == [one.problem_id for one in solutions]
        assert problems["samples"].tolist() == [len(one.candidates) for one in solutions]
        assert problems["generated"].tolist() == [one.usage.generated for one in solutions]
        assert problems["generated"].dtype == np.int64
        for right, one in zip(problems["correct"], solutions, strict=True):
            assert math.isnan(right) if one.correct is None else right == one.correct
        scores = [f"score_{how}" for how in get_args(Aggregation)]
        columns = ["num_tokens", "correct", "group", "chosen", "score", *scores]
        candidates = runs.candidates(columns)
        flat = [(row, place, one) for row, one in enumerate(solutions) for place in range(len(one.candidates))]
        assert candidates["problem"].tolist() == [row for row, _, _ in flat]
        got: Any
        for (_, place, one), got in zip(flat, candidates.itertuples(index=False), strict=True):
            candidate = one.candidates[place]
            assert got.num_tokens == candidate.num_tokens
            assert got.chosen == (one.chosen == place)
            assert got.correct == candidate.correct
            assert got.group == candidate.group
            for how in get_args(Aggregation):
                value = getattr(got, f"score_{how}")
                if candidate.scores:
                    assert value == pytest.approx(aggregate(candidate.scores, how), abs=1e-12)
                else:
                    assert math.isnan(value)
            assert math.isnan(got.score) if not candidate.scores else got.score == min(candidate.scores)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_columns_are_the_same_however_many_solutions_are_held(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "a", random_solutions(4, 3))
    path = folder / "solutions.jsonl"
    *lines, last = path.read_text().splitlines()
    path.write_text("\n".join([*lines, json.dumps(json.loads(last) | {"price": 2})]) + "\n")
    whole = read([folder], cache=False)
    monkeypatch.setattr(columns, "CHUNK", size)
    parts = read([folder], cache=False)
    pd.testing.assert_frame_equal(parts.problems, whole.problems)
    pd.testing.assert_frame_equal(parts.candidates(), whole.candidates())


def test_several_runs_keep_their_settings_and_scores(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", random_solutions(4, 3), aggregation="min", seed=0)
    b = write_run(tmp_path / "b", random_solutions(3, 2, seed=1), aggregation="mean", seed=1)
    c = write_run(tmp_path / "c", random_solutions(4, 3), strategy="astar", options={"k": 4}, budget="2000tok")
    runs = read([c, a, b, a])
    assert list(runs.runs.index) == ["c", "a", "b"]
    assert (
        runs.runs.loc["a", "configuration"]
        == runs.runs.loc["b", "configuration"]
        != runs.runs.loc["c", "configuration"]
    )
    assert runs.problems.groupby("run", observed=True).size().to_dict() == {"c": 4, "a": 4, "b": 3}
    assert runs.problems.loc[runs.problems["run"] == "c", "budget"].unique().tolist() == ["2000tok"]
    candidates = runs.candidates(["score", "score_min", "score_mean"])
    of = runs.problems["run"].to_numpy()[candidates["problem"]]
    assert (candidates["score"] == candidates["score_min"])[of == "a"].all()
    assert (candidates["score"] == candidates["score_mean"])[of == "b"].all()
    alone = runs.select(runs.runs.index == "b")
    assert alone.candidates(["score"])["score"].tolist() == candidates.loc[of == "b", "score"].tolist()
    assert alone.problems["problem_id"].tolist() == ["p0", "p1", "p2"]


def test_labels_name_what_varies_among_runs_of_a_strategy() -> None:
    base = {"strategy": "s", "model": "m", "options": {"n": 1, "choose": "prm"}, "seed": 0, "temperature": 1.0}
    more = {**base, "options": {"n": 2, "choose": "prm"}}
    assert labels([base, {**base, "seed": 1}, more]) == ["s n=1", "s n=1", "s n=2"]
    assert labels([base, {"strategy": "t"}]) == ["s", "t"]
    assert labels([base, {**base, "template": {"user": "other"}}]) == ["s", "s"]  # an older version's run has none
    first, second = ({**base, "template": {"user": text}} for text in "ab")
    assert labels([first, second, first]) == ["s", "s (2)", "s"]


def test_a_torn_last_line_is_left_out_and_a_whole_one_is_not(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", random_solutions(3, 2))
    path = folder / "solutions.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert len(read([folder]).problems) == 3
    for cut in (2, 30, len(whole.splitlines()[-1]) - 1):
        path.write_bytes(whole[:-cut])
        runs = read([folder])
        assert len(runs.problems) == 2
        assert len(runs.candidates()) == 4
    path.write_bytes(b"")
    assert len(read([folder]).problems) == 0
    assert len(read([folder]).candidates()) == 0


def test_bad_lines_are_left_out_on_request_and_told_each_time(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [solution("p", ["7", "1"])])
    with (folder / "solutions.jsonl").open("a") as file:
        file.write(solution("p", ["1"]).model_dump_json() + "\n\n" + solution("q", ["1"]).model_dump_json() + "\n")
    for _ in range(2):  # there are no columns of half a file to be read again
        told: list[BadLine] = []
        runs = read([folder], on_bad=told.append)
        assert runs.problems["samples"].tolist() == [2, 1]
        assert runs.candidates()["correct"].tolist() == [1, 0, 0]
        assert [bad.number for bad in told] == [2, 3]
        with pytest.raises(UserError, match="line 2 of"):
            read([folder])


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", random_solutions(3, 2))
    path = folder / "solutions.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for broken in (b"{\n", b'{"problem_id": "x"}\n', b"nonsense\n", lines[1][: len(lines[1]) // 2] + b"\n", b"[1]\n"):
        path.write_bytes(lines[0] + broken + lines[2])
        with pytest.raises(UserError, match=rf"^line 2 of {path} is no solution"):
            read([folder])
    path.write_bytes(lines[0][100:] + lines[1])  # the first half of the file is gone
    with pytest.raises(UserError, match=r"^line 1 of"):
        read([folder])


def test_other_versions_and_folders_that_are_no_runs(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", random_solutions(1, 1))
    record = json.loads((folder / "run.json").read_text())
    for version, message in ((2, "newer infer"), (0, "older infer")):
        (folder / "run.json").write_text(json.dumps({**record, "version": version}))
        with pytest.raises(UserError, match=message):
            read([folder])
    for content in ("", "{", "[]", "{}", json.dumps({**record, "facts": []})):
        (folder / "run.json").write_text(content)
        with pytest.raises(UserError, match=r"run\.json is no run's record"):
            read([folder])
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "solutions.jsonl").unlink()
    with pytest.raises(UserError, match="has no solutions"):
        read([folder])
    with pytest.raises(UserError, match="holds runs: name one"):
        read([tmp_path])
    with pytest.raises(UserError, match="is no run: No such file"):
        read([tmp_path / "absent"])
    with pytest.raises(UserError, match="no runs to read"):
        read([])


def test_the_side_file_follows_the_solutions(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", random_solutions(3, 2))
    read([folder])
    for file in (folder / CACHE).iterdir():  # half written by a process that died
        file.write_bytes(file.read_bytes()[:100])
    assert len(read([folder]).candidates()) == 6
    write_run(folder, random_solutions(5, 2)[3:])  # resumed
    assert len(read([folder]).problems) == 5
    path = folder / "solutions.jsonl"
    text = path.read_text().replace('"generated":', '"generated":1')
    path.write_text(text)
    os.utime(path, ns=(1, 1))
    assert (read([folder]).problems["generated"] >= 100).all()
    assert {file.suffix for file in (folder / CACHE).iterdir()} == {".parquet"}


def test_a_side_file_of_other_solutions_is_not_read(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / name, random_solutions(3, 3, seed)) for seed, name in enumerate("ab"))
    own = [read([folder]).candidates()["num_tokens"].tolist() for folder in (first, second)]
    for file in (first / CACHE).iterdir():
        file.write_bytes((second / CACHE / file.name).read_bytes())
    assert read([first]).candidates()["num_tokens"].tolist() == own[0] != own[1]


def test_candidates_that_are_not_graded_are_refused_with_the_fix(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", random_solutions(2, 2))
    path = folder / "solutions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for candidate in lines[1]["candidates"]:
        del candidate["group"], candidate["correct"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=r"not graded, as an older infer wrote them: infer rescore .*a --out NEW"):
        read([folder])


def test_any_count_of_usage_is_a_unit(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", random_solutions(2, 2))
    path = folder / "solutions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert "dollars" in lines[0]["usage"]
    lines[0]["usage"] |= {"dollars": None, "decode_flops": 5}
    lines[1]["usage"] |= {"dollars": 0.25, "prefill_flops": 3 * 10**20}  # more than 64 bits hold
    lines[1] |= {"price": 2, "shop": "corner", "open": True, "samples": 3.5}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs = read([folder])
    assert runs.cost("flops").tolist() == [5, 3e20]
    for unit, known in (("dollars", 0.25), ("price", 2)):
        assert runs.cost(unit).isna().tolist() == [True, False]  # unknown is not zero
        assert runs.cost(unit)[1] == known
    assert runs.cost("tokens").tolist() == [line["usage"]["generated"] for line in lines]
    with pytest.raises(UserError, match="do not count 'flop': did you mean flops"):
        runs.cost("flop")
    for other in ("level", "shop", "open", "samples"):
        with pytest.raises(UserError, match=f"do not count '{other}'"):
            runs.cost(other)
    path.write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(UserError, match="do not count 'dollars'"):
        read([folder]).cost("dollars")


async def test_reading_inside_a_running_loop(tmp_path: Path) -> None:
    """Reading works inside a running event loop, as in a notebook."""
    folder = write_run(tmp_path / "a", [solution("p", ["7", "1", "7"])])
    assert read([folder]).candidates()["group"].tolist() == [0, 1, 0]
