"""Kinetics' trace format, as its README and its script describe it."""

import json
import math
from pathlib import Path

import pytest

from infer.analysis import at_k, independent, outcomes, read, read_kinetics, sampled
from infer.analysis.curves import Outcomes
from infer.errors import UserError
from tests.analysis.synthetic import random_solutions, write_run


def write(path: Path, rows: list[tuple[str, str, float]], key: str = "choices") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"model": "Qwen3-4B", "attn_local": 64}]
    lines += [{"query": query, key: ["7"], "prediction": [text], "score": score} for query, text, score in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


ROWS = [
    ("q1", r"so \boxed{7}", 100.0),
    ("q2", r"so \boxed{1}", 0.0),
    ("q1", r"well \boxed{7.0}", 100.0),
    ("q1", "no idea", 0.0),
    ("q2", r"\boxed{1}", 0.0),
    ("q2", r"\boxed{7}", 100.0),
]


@pytest.mark.parametrize("key", ["choices", "choice"])
def test_samples_of_a_query_are_a_pool(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "AIME24" / "qwen3-4b_topk.jsonl", ROWS, key)
    runs = read_kinetics(path, model="Qwen3-4B", count_tokens=lambda text: len(text.split()))
    assert runs.problems[["problem_id", "samples", "generated", "reference"]].to_numpy().tolist() == [
        ["AIME24-0", 3, 6, "7"],
        ["AIME24-1", 3, 4, "7"],
    ]
    candidates = runs.candidates()
    assert candidates["correct"].tolist() == [1, 1, 0, 0, 0, 1]
    assert candidates["group"].tolist() == [0, 0, -1, 0, 0, 2]
    assert independent(runs).all()
    # the coverage of the authors' script: 1 - C(n - c, k) / C(n, k)
    expected = [[1 - math.comb(3 - c, k) / math.comb(3, k) for k in (1, 2, 3)] for c in (2, 1)]
    assert at_k(runs, "pass", [1, 2, 3]).to_numpy().tolist() == expected
    assert at_k(runs, "majority", [3])[3].tolist() == [1, 0]
    assert sampled(runs, ["pass"], [1, 2]).cost.loc["AIME24-0"].tolist() == [2, 4]
    with pytest.raises(UserError, match="no problem was graded"):
        outcomes(runs)  # the traces choose no answer


def test_scores_of_one_count_as_a_hundred(tmp_path: Path) -> None:
    runs = read_kinetics(write(tmp_path / "a.jsonl", [("q", "x", 1.0), ("q", "y", 0.0)]))
    assert runs.candidates()["correct"].tolist() == [1, 0]
    with pytest.raises(UserError, match="do not count 'tokens'"):
        runs.cost()  # the traces do not count them


def test_torn_and_foreign_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    whole = path.read_text()
    path.write_text(whole[:-20])
    assert read_kinetics(path).problems["samples"].tolist() == [3, 2]
    path.write_text(whole + '{"query": "q3"}\n')
    with pytest.raises(UserError, match=r"line 8 of .* has no query, choices, prediction and score"):
        read_kinetics(path)
    path.write_text('{"model": "m"}\n')
    with pytest.raises(UserError, match="there is no file"):
        read_kinetics(tmp_path / "b.jsonl")
    with pytest.raises(UserError, match="no samples"):
        read_kinetics(path)


def test_traces_stand_beside_runs(tmp_path: Path) -> None:
    """Traces give the same frames as runs, so the same tables."""
    traces = sampled(read_kinetics(write(tmp_path / "set" / "a.jsonl", ROWS), count_tokens=len), ["pass"], [1])
    runs = sampled(read([write_run(tmp_path / "run", random_solutions(2, 3))]), ["pass"], [1])
    runs = Outcomes(runs.correct.set_axis(traces.correct.index), runs.cost.set_axis(traces.cost.index), runs.unit)
    assert (traces + runs).correct.shape == (2, 2)
