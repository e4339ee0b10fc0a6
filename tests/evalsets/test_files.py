"""The user's own problem files: how they are read, and the one line that each mistake gets."""

import csv
import hashlib
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from infer.core.problem import Problem
from infer.errors import UserError
from infer.evalsets import EvalSet, find

ROWS = [
    {"id": "a", "problem": "What is $\\frac{1}{2}+1$?", "answer": "\\frac{3}{2}", "level": "1"},
    {"id": "b", "problem": "Name, with a comma and\na line break: é", "answer": "x, y", "level": "2"},
]


def write_jsonl(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, rows: list[Any]) -> None:
    path.write_text(json.dumps(rows), encoding="utf-8")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def load(path: Path, **options: str) -> list[Problem]:
    return list(find(str(path), **options).load())


def of(tmp_path: Path, *rows: Any, **options: str) -> list[Problem]:
    write_jsonl(tmp_path / "set.jsonl", list(rows))
    return load(tmp_path / "set.jsonl", **options)


def message(path: Path | str, **options: str) -> str:
    with pytest.raises(UserError) as caught:
        find(str(path), **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("write", [write_jsonl, write_json, write_csv, write_parquet])
def test_the_four_kinds_of_file_hold_the_same_problems(tmp_path: Path, write: Callable[[Path, Any], None]) -> None:
    path = tmp_path / f"set.{write.__name__.removeprefix('write_')}"
    write(path, ROWS)
    found = find(str(path))
    expected = [
        Problem(id=r["id"], prompt=r["problem"], answer=r["answer"], level=r["level"], source=str(path)) for r in ROWS
    ]
    assert list(found.load()) == expected
    assert list(found.load()) == expected, "a set can be read again"
    assert isinstance(found, EvalSet)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.name, found.source) == ("set", f"{path}, sha256 {digest[:16]}")


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        ({"question": "q", "target": "1"}, "q", "1"),
        ({"Question": "q", "Final_Answer": "1"}, "q", "1"),
        ({"prompt": "q", "label": 7}, "q", "7"),
        ({"input": "q", "gold": [12]}, "q", "12"),
        ({"query": "q", "reference": 42.0}, "q", "42"),
        ({"problem": "q", "answer": 0.5}, "q", "0.5"),
        ({"problem": "q", "answer": 0}, "q", "0"),
        ({"problem": "q", "answer": " 3 \n"}, "q", "3"),
        ({"problem": "q", "question": "not this", "answer": "1", "target": "not this"}, "q", "1"),
        ({"problem": "q"}, "q", None),
        ({"problem": "q", "answer": None}, "q", None),
        ({"problem": "q", "answer": ""}, "q", None),
        ({"question": "q", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}, "q", "5"),
        ({"problem": "q", "solution": "So $\\boxed{1}$, no, \\boxed{\\frac{1}{2}}."}, "q", "\\frac{1}{2}"),
        ({"problem": "q", "solution": "\\boxed{\\{1,2\\}} and \\boxed{cut"}, "q", "\\{1,2\\}"),
        ({"problem": "q", "solution": "#### Step 1\nI do not know"}, "q", None),
        ({"problem": "q", "answer": None, "solution": "\\boxed{3}"}, "q", "3"),
        ({"problem": "q", "answer": "4", "solution": "\\boxed{3}"}, "q", "4"),
    ],
)
def test_columns_and_answers_are_guessed(tmp_path: Path, row: dict[str, Any], prompt: str, answer: str | None) -> None:
    [problem] = of(tmp_path, row)
    assert (problem.prompt, problem.answer) == (prompt, answer)


def test_columns_can_be_named(tmp_path: Path) -> None:
    row = {"problem": "not this", "text": "q", "answer": "not this", "truth": "1", "id": "not this", "key": 7}
    [problem] = of(tmp_path, row, problem_column="text", answer_column="truth", id_column="key")
    assert (problem.prompt, problem.answer, problem.id) == ("q", "1", "7")


def test_ids_are_made_where_there_are_none(tmp_path: Path) -> None:
    assert [p.id for p in of(tmp_path, {"problem": "a"}, {"problem": "b"})] == ["set-0001", "set-0002"]


def test_parquet_integers_beside_a_gap_stay_integers(tmp_path: Path) -> None:
    table = pyarrow.table({"problem": ["a", "b", "c"], "answer": pyarrow.array([42.0, None, float("nan")])})
    pyarrow.parquet.write_table(table, tmp_path / "set.parquet")
    assert [p.answer for p in load(tmp_path / "set.parquet")] == ["42", None, None]


def test_byte_order_mark_and_blank_lines_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"problem": "a"}\n\n{"problem": "b"}\r\n')
    assert [p.prompt for p in load(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("set.jsonl", b"", "set.jsonl is empty: it has no problems"),
        ("set.json", b"[]", "set.json is empty: it has no problems"),
        ("set.csv", b"problem,answer\n", "set.csv is empty: it has no problems"),
        ("set.jsonl", b'{"problem": "a"}\n{"problem"\n', "set.jsonl, line 2: not JSON ("),
        ("set.jsonl", b'{"problem": "a"}\n\xff\n', "set.jsonl, line 2: not UTF-8 text"),
        ("set.jsonl", b"[" * 100_000 + b"\n", "set.jsonl, line 1: not JSON ("),
        ("set.jsonl", b'{"problem": "a"}\n["b"]\n', 'line 2: must be an object such as {"problem": …}, this is a list'),
        ("set.jsonl", b'{"problem": "a"}\n{"x": 1, "y": 2}\n', "line 2: no column with the problem; name it with"),
        ("set.jsonl", b'{"x": 1, "y": 2}\n', "(columns: x, y)"),
        ("set.jsonl", b'{"problem": "a"}\n{"problem": " "}\n', "line 2: the problem's text is empty"),
        ("set.jsonl", b'{"problem": ["a"]}\n', "line 1: the problem is a list of 1, not text"),
        ("set.jsonl", b'{"problem": 5}\n', "line 1: the problem is 5, not text"),
        ("set.jsonl", b'{"problem": "a", "answer": ["1", ["2"]]}\n', "line 1: an answer is a list of 1, not text"),
        ("set.jsonl", b'{"problem": "a", "answer": {"value": 1}}\n', "line 1: an answer is an object, not text"),
        (
            "set.jsonl",
            b'{"id": 7, "problem": "a"}\n{"id": 8, "problem": "b"}\n{"id": "7", "problem": "c"}\n',
            "line 3: id '7' occurs twice (also in problem 1)",
        ),
        ("set.json", b'{"problem": "a"}', "a JSON file must be one list of objects, this is an object"),
        ("set.json", b'{"problem": "a"}\n{"problem": "b"}', "one object a line? name the file .jsonl"),
        ("set.json", b'[{"problem": "a"},\n5x]', "set.json, line 2: not JSON ("),
        ("set.json", b"[5]", "item 1: must be an object"),
        ("set.json", b"\xff", "set.json: not UTF-8 text"),
        ("set.csv", b"problem,answer\na,1\nb,2,3\n", "set.csv, line 3: more fields than the header has"),
        ("set.csv", b'problem,answer\n"a,1\n', "set.csv, line 2: not CSV ("),
        ("set.csv", b"problem\n\xff\n", "not UTF-8 text"),
        ("set.parquet", b"PAR1 this is not", "set.parquet: not a Parquet file ("),
        (
            "set.txt",
            b"What is 1+1?",
            "set.txt: unknown kind of file '.txt'; known: .jsonl, .json, .csv, .tsv, .parquet",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    text = message(tmp_path / name)
    assert text.startswith(str(tmp_path / name))
    assert expected in text


def test_missing_and_wrong_places(tmp_path: Path) -> None:
    assert message(tmp_path / "no.jsonl") == f"{tmp_path / 'no.jsonl'}: there is no such file"
    assert f"{tmp_path} is a directory: name one file in it" in message(tmp_path)
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "is not a regular file" in message(tmp_path / "pipe.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "set.jsonl", ROWS)
    (tmp_path / "set.jsonl").chmod(0)
    assert "can't be read: Permission denied" in message(tmp_path / "set.jsonl")


@pytest.mark.parametrize("option", ["problem_column", "answer_column", "id_column"])
def test_a_named_column_must_be_there(tmp_path: Path, option: str) -> None:
    write_jsonl(tmp_path / "set.jsonl", ROWS)
    assert "line 1: no column 'nix' (columns: id, problem, answer, level)" in message(
        tmp_path / "set.jsonl", **{option: "nix"}
    )


def test_a_named_id_must_be_filled(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "set.jsonl", [{"problem": "a", "key": None}])
    assert "column 'key' is empty" in message(tmp_path / "set.jsonl", id_column="key")


def test_a_file_has_no_splits(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "set.jsonl", ROWS)
    assert "--split test is for hub data sets" in message(tmp_path / "set.jsonl", split="test")


def test_jsonl_is_streamed(tmp_path: Path) -> None:
    """20 MB of problems are read in a few MB of memory, so the file is not read whole."""
    path = tmp_path / "large.jsonl"
    line = json.dumps({"problem": "x" * 10_000, "answer": 1}) + "\n"
    with path.open("w") as file:
        for _ in range(2_000):
            file.write(line)
    tracemalloc.start()
    try:
        count = sum(1 for _ in find(str(path)).load())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 2_000
    assert peak < 3e6
