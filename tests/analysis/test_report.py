"""The report: self-contained, with the numbers of the estimators, and for whatever runs it is given."""

import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from infer.analysis import accuracy, compare, read
from infer.analysis.report import summary, write_report
from infer.errors import UserError, WriteError
from tests.analysis.synthetic import random_solutions, solution, write_run

PICTURES = {"curves", "frontier", "samples", "levels", "calibration", "lengths", "spending"}


class Page(HTMLParser):
    """The tags that are open, to find one that is not closed; everything that names another file."""

    VOID = frozenset({"meta", "br", "img", "hr", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_run(folder / "n4", random_solutions(15, 4), options={"n": 4}),
        write_run(folder / "n4-again", random_solutions(15, 4, seed=1), options={"n": 4}, seed=1),
        write_run(folder / "n2", random_solutions(15, 2, seed=2), options={"n": 2}),
        write_run(folder / "greedy", [solution(f"p{i}", ["7"]) for i in range(15)], strategy="greedy", options={}),
    ]


@pytest.fixture(scope="module")
def written(paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("out") / "new" / "report.html"
    return write_report(paths, out, formats=("png", "svg", "csv"), draws=50, unit="seconds")


def test_the_page_is_whole_and_needs_nothing_else(paths: list[Path], written: list[Path]) -> None:
    text = written[0].read_text()
    page = Page(text)
    assert page.open == []
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"@import|url\((?!#)", text)
    assert text.count("<svg") == len(PICTURES)
    ids = re.findall(r'<clipPath id="([^"]+)"', text)
    assert len(ids) == len(set(ids))  # one picture's clipping must not be another's
    shown = " ".join(page.texts)
    table = accuracy(read(paths))
    for name, row in table.iterrows():
        assert name in shown
        assert f"{row['mean']:.1%}" in shown
        assert f"{row['low']:.1%} to {row['high']:.1%}" in shown
    against = compare(read(paths), table.index[0], "greedy")
    assert f"{against.mean:+.1%}" in shown
    assert f"{against.low:+.1%} to {against.high:+.1%}" in shown
    assert '"strategy": "greedy"' in shown


def test_pictures_and_tables_on_request(written: list[Path]) -> None:
    files = {path.name: path.read_bytes() for path in written}
    assert {f"report-{name}.{kind}" for name in PICTURES for kind in ("png", "svg", "csv")} <= files.keys()
    for name, content in files.items():
        if name.endswith("png"):
            assert content.startswith(b"\x89PNG")
        elif name.endswith("svg"):
            ET.fromstring(content)
        elif name.endswith("csv"):
            assert len(pd.read_csv(io.BytesIO(content))) > 0
    points = pd.read_csv(io.BytesIO(files["report-curves.csv"])).set_index("configuration")
    assert points.loc["best-of-n n=4", "cost"] == 0.5
    assert b"seconds per problem" in files["report-curves.svg"]  # beside the letters' outlines


def test_the_summary(paths: list[Path]) -> None:
    table = summary(read(paths)).set_index("configuration")
    assert table.loc["best-of-n n=4", ["runs", "problems"]].tolist() == [2, 15]
    assert table.loc["greedy", ["accuracy", "tokens", "prm_passes", "discarded"]].tolist() == [1, 10, 2, 0]
    solutions = [*random_solutions(15, 4), *random_solutions(15, 4, seed=1)]
    spent = [one.usage.generated for one in solutions]
    assert table.loc["best-of-n n=4", "tokens"] == pytest.approx(sum(spent) / 30)
    kept = sum(one.candidates[0].num_tokens for one in solutions)
    assert table.loc["best-of-n n=4", "discarded"] == pytest.approx(1 - kept / sum(spent))
    assert "verifier_prefill" in summary(read(paths), "verifier_prefill")


SCANT: dict[str, Callable[[], list[object]]] = {
    "ungraded": lambda: [solution(f"p{i}", ["7", "1"], reference=None, level=None) for i in range(3)],
    "no candidates": lambda: [solution("p", [], chosen=None)],
    "nothing yet": list,
    "all right, one score": lambda: [solution(f"p{i}", ["7"] * 3, scores=[[1.0]] * 3) for i in range(3)],
    "a hostile id": lambda: [solution("<script>alert(1)</script>", ["7"], level="<b>&")],
}


@pytest.mark.parametrize("name", SCANT)
def test_scant_runs_get_a_report_too(name: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run<i>", SCANT[name](), model="<script>", strategy="a&b$x^$")  # type: ignore[arg-type]
    out = tmp_path / "report.html"
    write_report([run], out, draws=20)
    text = out.read_text()
    assert Page(text).open == []
    assert "<script>" not in text
    assert "run<i>" not in text
    if name == "nothing yet":
        assert "Not shown" in text


def test_evaluation_sets_stand_apart(paths: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", [solution("z", ["7"], level=None)], on="another set")
    out = tmp_path / "report.html"
    written = write_report([paths[3], other], out, formats=["csv"], draws=20)
    assert {"report-set-curves.csv", "report-another-set-curves.csv"} <= {path.name for path in written}
    assert out.read_text().count("<h2>") == 3


def test_what_can_not_be_reported(paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not count 'roubles'"):
        write_report(paths, tmp_path / "a.html", unit="roubles")
    assert not (tmp_path / "a.html").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        write_report(paths, tmp_path / "file" / "a.html", draws=20)


def test_the_rest_of_infer_loads_none_of_it() -> None:
    heavy = {"pandas", "matplotlib", "scipy", "pyarrow"}
    code = f"import sys, infer, infer.job; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)
