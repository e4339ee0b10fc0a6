"""The user's own problem files: how they are read, and the one line that each mistake gets."""

import csv
import gzip
import hashlib
import json
import logging
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
from infer.evalsets import EvalSet, Template, find

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


@pytest.mark.parametrize("write", [write_jsonl, write_json, write_csv])
def test_compressed_files(tmp_path: Path, write: Callable[[Path, Any], None]) -> None:
    path = tmp_path / f"set.{write.__name__.removeprefix('write_')}"
    write(path, ROWS)
    plain = load(path)
    packed = tmp_path / f"{path.name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [(p.id, p.prompt, p.answer) for p in load(packed)] == [(p.id, p.prompt, p.answer) for p in plain]
    assert find(str(packed)).name == "set"


@pytest.mark.parametrize(
    ("name", "delimiter"),
    [("set.csv", ","), ("set.csv", ";"), ("set.csv", "\t"), ("set.tsv", "\t"), ("set.TSV", "\t")],
)
def test_delimiters(tmp_path: Path, name: str, delimiter: str) -> None:
    with (tmp_path / name).open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        rows = [["id", "problem, as given", "answer"], ["a", "1, 2; 3\t4?", "2,5"], ["b", 'say "x"\nand y', "3;4"]]
        writer.writerows(rows)
    found = load(tmp_path / name, problem_column="problem, as given")
    assert [[p.id, p.prompt, p.answer] for p in found] == rows[1:]


def test_a_comma_in_the_header_of_a_file_with_semicolons(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("id;problem;remarks, if any;answer\na;1+1?;none, really, none;2\n")
    assert [(p.id, p.prompt, p.answer) for p in load(tmp_path / "set.csv")] == [("a", "1+1?", "2")]


SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "2+2?"}
REPLY = {"role": "assistant", "content": "It is \\boxed{4}."}


@pytest.mark.parametrize(
    ("row", "before", "answer"),
    [
        ({"messages": [ASKED], "answer": "4"}, (), "4"),
        ({"messages": [SYSTEM, ASKED], "answer": "4"}, (("system", "Be brief."),), "4"),
        ({"messages": [{"role": "developer", "content": "x"}, ASKED]}, (("system", "x"),), None),
        ({"messages": [ASKED, REPLY]}, (), "4"),
        ({"messages": [ASKED, {"role": "assistant", "content": "I do not know."}]}, (), None),
        ({"messages": [ASKED, REPLY], "answer": "5"}, (), "5"),
        ({"prompt": [ASKED]}, (), None),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "2+2"}, {"type": "text", "text": "?"}]}
                ]
            },
            (),
            None,
        ),
        (
            {"messages": [SYSTEM, {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}, ASKED]},
            (("system", "Be brief."), ("user", "1+1?"), ("assistant", "2")),
            None,
        ),
    ],
)
@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_chats(
    tmp_path: Path,
    write: Callable[[Path, Any], None],
    row: dict[str, Any],
    before: tuple[tuple[str, str], ...],
    answer: str | None,
) -> None:
    path = tmp_path / f"set.{write.__name__.removeprefix('write_')}"
    write(path, [row])
    [problem] = load(path)
    assert (problem.prompt, problem.before, problem.answer) == ("2+2?", before, answer)
    chat = Template("{problem} Box it.", system="Think.").messages(problem)
    assert [message["role"] for message in chat] == [
        *([] if before else ["system"]),
        *(role for role, _ in before),
        "user",
    ]
    assert chat[-1]["content"] == "2+2? Box it."
    assert chat[0]["content"] == (before[0][1] if before else "Think.")


LISTED = "Which?\n\nA) 3\nB) 4\nC) 5\n\nAnswer with the letter of the right choice."
TEXTS = ["3", "4", "5"]


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Which?", "choices": TEXTS, "answer": 1},
        {"question": "Which?", "choices": TEXTS, "answer": 1.0},
        {"question": "Which?", "choices": [3, 4, 5], "answer": "B"},
        {"question": "Which?", "options": TEXTS, "answer": "(b)"},
        {"question": "Which?", "options": TEXTS, "answer": "B."},
        {"question": "Which?", "options": TEXTS, "answer": "4"},
        {"question": "Which?", "options": TEXTS, "answer": "#### B"},
        {"question": "Which?", "options": ["A) 3", "B) 4", "C) 5"], "correct": "B"},
        {"question": "Which?", "options": {"A": "3", "B": "4", "C": "5"}, "answer_idx": "B"},
        {"question": "Which?", "choices": {"text": TEXTS, "label": ["A", "B", "C"]}, "answerKey": "B"},
        {"question": "Which?", "choices": {"text": TEXTS, "label": ["1", "2", "3"]}, "answerKey": "2"},
        {"question": "Which?", "choices": [{"label": "A", "text": "3"}, {"text": "4"}, {"text": "5"}], "answer": "B"},
        {"question": "Which?", "choices": '["3", "4", "5"]', "answer": "B"},
        {"Question": "Which?", "A": "3", "B": "4", "C": "5", "Answer": "B"},
        {"question": LISTED, "choices": TEXTS, "answer": "B"},
    ],
)
def test_multiple_choice(tmp_path: Path, row: dict[str, Any]) -> None:
    [problem] = of(tmp_path, row)
    assert (problem.prompt, problem.choices, problem.answer) == (LISTED, ("3", "4", "5"), "B")


def test_columns_of_letters_are_no_choices_where_the_answer_is_no_letter(tmp_path: Path) -> None:
    [problem] = of(tmp_path, {"problem": "Area?", "a": 3, "b": 4, "c": 5, "answer": 6})
    assert (problem.prompt, problem.choices, problem.answer) == ("Area?", (), "6")


def test_a_right_answer_among_wrong_ones(tmp_path: Path) -> None:
    """As GPQA has it: lettered in an order that does not change, with the right one at any place."""
    wrong = {f"Incorrect Answer {n}": f"wrong {n}" for n in (1, 2, 3)}
    rows = [{"Question": f"Which? {n}", "Correct Answer": f"right {n}", **wrong} for n in range(40)]
    found = of(tmp_path, *rows)
    assert found == of(tmp_path, *rows)
    for n, problem in enumerate(found):
        assert problem.choices["ABCD".index(problem.answer or "")] == f"right {n}"
        assert sorted(problem.choices) == sorted([f"right {n}", *wrong.values()])
    assert {problem.answer for problem in found} == set("ABCD")


def test_several_right_answers(tmp_path: Path) -> None:
    one, two, three = of(
        tmp_path,
        {"problem": "a", "answer": ["1/2", 0.5, "\\boxed{x}", "1/2"]},
        {"problem": "b", "choices": TEXTS, "answer": ["A", 2]},
        {"problem": "c", "answer": []},
    )
    assert (one.answer, one.also) == ("1/2", ("0.5", "x"))
    assert (two.answer, two.also) == ("A", ("C",))
    assert (three.answer, three.also) == (None, ())


def test_halves_of_characters_are_replaced_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "set.jsonl"
    good = '{"problem": "\\ud835\\udc65 = 1", "answer": "1"}\n'
    bad = '{"problem": "is \\ud835 = 1?", "answer": "\\udc65", "id": "\\ud800"}\n'
    path.write_text(good + bad + '{"messages": [{"role": "user", "content": "\\udfff"}]}\n')
    with caplog.at_level(logging.WARNING):
        found = load(path)
        load(path)
    assert [p.prompt for p in found] == ["\U0001d465 = 1", "is \ufffd = 1?", "\ufffd"]
    assert (found[1].id, found[1].answer) == ("\ufffd", "\ufffd")
    [record] = caplog.records
    assert record.getMessage() == (
        f"{path}: characters of 2 problems were lost in an export and stand as \ufffd, first in \ufffd"
    )


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
        ("set.jsonl.gz", b"not packed", "set.jsonl.gz can't be read: Not a gzipped file"),
        ("set.jsonl.gz", gzip.compress(b'{"problem": "a"}\n', mtime=0)[:-9], "set.jsonl.gz is cut off or damaged ("),
        ("set.jsonl.gz", gzip.compress(b'{"problem": "a"}\n{"problem"\n', mtime=0), "set.jsonl.gz, line 2: not JSON ("),
        ("set.parquet.gz", gzip.compress(b"PAR1", mtime=0), "unknown kind of file '.gz'"),
        (
            "set.tsv",
            b"problem\tanswer\na\t1\t2\n",
            "set.tsv, line 2: more fields than the header has; quote fields with tabs",
        ),
        ("set.csv", b"problem;answer\na;1;2\n", "quote fields with semicolons"),
        ("set.jsonl", b'{"messages": []}', "line 1: the problem's text is empty"),
        ("set.jsonl", b'{"messages": [{"role": "system", "content": "x"}]}', "none of the 1 messages is the user's"),
        (
            "set.jsonl",
            b'{"messages": [{"role": "tool", "content": "x"}]}',
            "message 1 has the role 'tool'; known: system,",
        ),
        ("set.jsonl", b'{"messages": [{"role": "user"}]}', "the content of message 1 is None, not text"),
        (
            "set.jsonl",
            b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
            "a part of the kind 'image_url'",
        ),
        ("set.jsonl", b'{"messages": [{"role": "user", "content": "a"}, 5]}', "message 2 is 5, not like"),
        (
            "set.jsonl",
            json.dumps({"messages": [ASKED, REPLY, REPLY]}).encode(),
            "more than one reply",
        ),
        (
            "set.jsonl",
            b'{"problem": "a", "choices": ["x", "y"], "answer": 2}',
            "the answer '2' is none of the 2 choices",
        ),
        (
            "set.jsonl",
            b'{"problem": "a", "choices": ["x", "y"], "answer": "C"}',
            "give a letter (A to B), an index (0 to 1)",
        ),
        (
            "set.jsonl",
            b'{"problem": "a", "choices": ["x", "x"], "answer": "x"}',
            "the answer 'x' is several of the 2 choices",
        ),
        (
            "set.jsonl",
            b'{"problem": "a", "choices": ["1", "2"], "answer": "1"}',
            "is a choice and the index of another",
        ),
        (
            "set.jsonl",
            b'{"problem": "a", "choices": ["x"], "answer": "A"}',
            "'choices' has 1 choices: there must be 2 to 26",
        ),
        (
            "set.jsonl",
            b'{"problem": "a", "choices": "x, y", "answer": "A"}',
            "the choices in 'choices' are 'x, y', not a list",
        ),
        (
            "set.jsonl",
            b'{"problem": "a", "choices": ["x", ["y"]], "answer": "A"}',
            "has a choice that is a list of 1, not text",
        ),
        ("set.jsonl", b'{"problem": "a", "choices": {"text": ["x", "y"], "label": ["A"]}}', "2 choices and 1 labels"),
        ("set.csv", b'problem,choices,answer\na,"[x, y]",A\n', "the choices '[x, y]' are not JSON"),
    ],
)
def test_an_error_in_a_file_is_one_line(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
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
