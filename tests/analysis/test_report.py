"""The report: it is self-contained, has the estimators' numbers, and works for any runs."""

import dataclasses
import io
import itertools
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from infer import cli
from infer.analysis import accuracy, compare, plots, read
from infer.analysis import tables as tables_of
from infer.analysis.report import summary, write_report
from infer.analysis.tables import number
from infer.core.solution import Candidate, Solution
from infer.errors import UserError, WriteError
from tests.analysis.synthetic import random_solutions, solution, write_run

T = TypeVar("T", Candidate, Solution)

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

PICTURES = {"curves", "frontier", "samples", "levels", "calibration", "lengths", "spending"}


class Page(HTMLParser):
    """A parsed page: open tags, to find one that is never closed, links to other files, and texts."""

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
    assert len(ids) == len(set(ids))  # pictures must not share a clip path
    shown = " ".join(page.texts)
    table = accuracy(read(paths))
    for name, row in table.iterrows():
        assert str(name) in shown
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
    assert b"seconds per problem" in files["report-curves.svg"]  # as text, besides the outlines of the letters


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


def reasons(page: Path) -> dict[str, str]:
    """For each picture that is not shown, the reason."""
    return dict(re.findall(r'<h3>([^<]*)</h3><p class="none">Not shown: ([^<]*)\.</p>', page.read_text()))


def changed(one: T, **values: object) -> T:
    return one.model_copy(update=values)


def unpriced(one: Solution) -> Solution:
    return changed(one, usage=dataclasses.replace(one.usage, dollars=None))


def tables(written: list[Path]) -> dict[str, pd.DataFrame]:
    return {path.stem.rpartition("-")[2]: pd.read_csv(path) for path in written if path.suffix == ".csv"}


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_a_run_without_references_or_scores_beside_others(order: slice, tmp_path: Path) -> None:
    scored = random_solutions(9, 4)
    unscored = [changed(one, candidates=[changed(each, scores=None) for each in one.candidates]) for one in scored]
    ungraded = [
        changed(one, reference=None, correct=None, candidates=[changed(each, correct=None) for each in one.candidates])
        for one in scored
    ]
    solutions = {"ungraded": ungraded, "unscored": unscored, "scored": scored}
    runs = [write_run(tmp_path / name, made, prm=name, options={"n": 4}) for name, made in solutions.items()]
    written = write_report(runs[order], tmp_path / "report.html", formats=["csv"], draws=20)
    assert not reasons(written[0])
    found = tables(written)
    choices = found["samples"].groupby("configuration")["choice"].agg(set).to_dict()
    names = {name: f"best-of-n prm={name}" for name in solutions}
    every = {"pass", "majority", "best", "weighted"}
    assert choices == {names["scored"]: every, names["unscored"]: {"pass", "majority"}}
    for name in ("levels", "lengths"):
        assert set(found[name]["configuration"]) == {names["scored"], names["unscored"]}
    assert found["samples"]["mean"].notna().all()


def test_lengths_are_those_of_complete_candidates(tmp_path: Path) -> None:
    made = [solution("p", ["7", None, "1"], finished=[True, False, True]), solution("q", [None], finished=[False])]
    written = write_report([write_run(tmp_path / "run", made)], tmp_path / "report.html", formats=["csv"], draws=20)
    assert sorted(tables(written)["lengths"][["right", "count"]].to_numpy().tolist()) == [[0, 1], [1, 1]]
    cut_off = write_run(tmp_path / "cut", made[1:])
    write_report([cut_off], tmp_path / "cut.html", draws=20)
    assert reasons(tmp_path / "cut.html")["Tokens of right and wrong candidates"] == "no complete candidate was graded"


def test_the_reason_for_a_missing_picture_is_the_true_one(tmp_path: Path) -> None:
    known = random_solutions(5, 2)
    unknown = [unpriced(one) for one in known]
    runs = [write_run(tmp_path / "known", known), write_run(tmp_path / "unknown", unknown, options={"n": 2})]
    write_report(runs, tmp_path / "a.html", unit="dollars", draws=20)
    why = "the cost in US dollars is not known for best-of-n n=2: choose another unit"
    assert reasons(tmp_path / "a.html") == dict.fromkeys(["Accuracy against cost", "Best accuracy at each cost"], why)
    write_report([write_run(tmp_path / "empty", [])], tmp_path / "b.html", draws=20)
    assert set(reasons(tmp_path / "b.html").values()) == {"no problem has a solution yet"}
    assert len(reasons(tmp_path / "b.html")) == len(PICTURES)
    write_report([write_run(tmp_path / "c", SCANT["ungraded"]())], tmp_path / "c.html", draws=20)  # type: ignore[arg-type]
    assert reasons(tmp_path / "c.html")["Accuracy by level"] == "these problems have no levels"


def test_levels_in_their_natural_order(tmp_path: Path) -> None:
    made = [solution(f"p{i}", ["7"], level=f"level {i}") for i in (11, 2, 0, 10)]
    written = write_report([write_run(tmp_path / "run", made)], tmp_path / "report.html", formats=["csv"], draws=20)
    assert tables(written)["levels"]["level"].tolist() == ["level 0", "level 2", "level 10", "level 11"]


SUBJECTS = ["Algebra", "Counting & Probability", "Geometry", "Intermediate Algebra", "Number Theory", "Precalculus"]


@pytest.mark.parametrize("names", [SUBJECTS[:3], SUBJECTS, [f"level {i}" for i in range(30)], ["", "1"]])
@pytest.mark.parametrize("count", [1, 7])
def test_the_names_of_levels_do_not_overlap(names: list[str], count: int) -> None:
    rows = [(name, f"c{i}", 0.5, 0.4, 0.6) for name in names for i in range(count)]
    figure = plots.drawn(plots.levels, pd.DataFrame(rows, columns=["level", "configuration", "mean", "low", "high"]))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    labels = [label for label in axes.get_xticklabels() if label.get_text()]
    if labels[0].get_rotation():  # slanted labels are at least a line's height apart
        step = (axes.transData.transform((1, 0)) - axes.transData.transform((0, 0)))[0]
        assert step * np.sin(np.radians(30)) > float(labels[0].get_fontsize()) * figure.dpi / 72
    else:
        boxes = [label.get_window_extent() for label in labels]
        assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))


def accuracies(figure: Figure) -> list[str]:
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    return [axes.yaxis.get_major_formatter()(tick) for tick in axes.get_yticks() if low <= tick <= high]


@pytest.mark.parametrize(("low", "high"), [(1, 1), (0.7, 0.8), (0.93, 1), (0, 1), (0.551, 0.559), (0, 0)])
def test_accuracies_are_true_percents(low: float, high: float) -> None:
    best = pd.DataFrame({"configuration": ["a", "b"], "cost": [10.0, 20.0], "accuracy": [low, high]})
    beaten = pd.DataFrame({"configuration": ["c"], "cost": [20.0], "accuracy": [low]})
    steps = best.assign(low=low, high=high)
    figure = plots.drawn(plots.frontier, pd.concat([best, beaten]), best, steps, "tokens")
    (axes,) = figure.axes
    bottom, top = axes.get_ylim()
    assert -0.021 < bottom < low + 1e-9
    assert high - 1e-9 < top < 1.021
    shown = accuracies(figure)
    ticks = [tick for tick in axes.get_yticks() if bottom <= tick <= top]
    assert [float(text[:-1]) for text in shown] == pytest.approx([100 * tick for tick in ticks])
    if high - low > 0.02:
        assert all(text[:-1].isdecimal() for text in shown)
    assert not {"101%", "102%", "105%"} & set(shown)


def test_panels_share_an_axis_that_holds_all_of_them() -> None:
    ways = [
        pd.DataFrame({"k": [1, 2], "mean": [x, x], "low": [x - 0.1] * 2, "high": [x + 0.1] * 2}) for x in (0.3, 0.9)
    ]
    figure = plots.drawn(plots.samples, {f"c{i}": {"pass": ways[i % 2]} for i in range(6)})
    figure.draw_without_rendering()
    (low, high), *others = (axes.get_ylim() for axes in figure.axes)
    assert set(others) == {(low, high)}
    assert 0.1 < low < 0.2
    assert 1 < high < 1.021
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy", *[""] * 5]


def test_one_place_on_the_frontier_has_one_number() -> None:
    best = pd.DataFrame({"cost": [1.0, 2.0, 2.0, 3.0], "accuracy": [0.1, 0.2, 0.2, 0.4]})
    assert plots.numbers(best).tolist() == [1, 2, 2, 3]


def test_numbers_of_one_column_look_alike() -> None:
    assert [number(x) for x in (0.01234, 9.87, 12345.6, 214_243_842, 1.2e9, 3.4e15)] == [
        *("0.0123", "9.87", "12,346"),
        *("214M", "1.20G", "3.40P"),
    ]


def test_the_table_of_the_terminal(paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*arguments: str | Path) -> list[list[str]]:
        assert cli.run(["report", *map(str, arguments)]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    head, row, *_ = shown(paths[3])
    assert head[0] == "accuracy,"
    assert row == ["greedy", "100.0", "79.6-100.0", "15", "10", "2.0", "0.50", "0.0"]
    other = write_run(tmp_path / "other", [solution("z", ["7"])], strategy="greedy", options={}, on="other")
    head, first, second, *_ = shown(paths[3], other)
    assert head[0] == "evalset"
    assert (first[:2], second[:3]) == (["greedy", "set"], ["greedy", "(2)", "other"])
    _, row, *_ = shown(write_run(tmp_path / "empty", [], strategy="greedy"))
    assert row == ["greedy", "-", "-", "0", "-", "-", "-", "-"]
    unknown = write_run(tmp_path / "unknown", [unpriced(solution("p", ["7"]))], options={})
    _, _, row, *_ = shown(paths[3], unknown, "--unit", "dollars")
    assert row[-1] == "-"


def test_a_folder_in_place_of_a_page(paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["report", str(paths[3]), "--html", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("name another file with --html\n")


ESCAPES = "\x1b[31m\x1b]0;title\x07\x9b2J\x7f"
SCANT: dict[str, Callable[[], list[object]]] = {
    "ungraded": lambda: [solution(f"p{i}", ["7", "1"], reference=None, level=None) for i in range(3)],
    "no candidates": lambda: [solution("p", [], chosen=None)],
    "nothing yet": list,
    "all right, one score": lambda: [solution(f"p{i}", ["7"] * 3, scores=[[1.0]] * 3) for i in range(3)],
    "a hostile id": lambda: [solution(f"<script>alert(1)</script>{ESCAPES}", ["7"], level=f"<b>&{ESCAPES}")],
}


@pytest.mark.parametrize("name", SCANT)
def test_scant_runs_get_a_report_too(name: str, tmp_path: Path) -> None:
    names = {"model": f"<script>{ESCAPES}", "strategy": f"a&b$x^${ESCAPES}", "on": f"set{ESCAPES}"}
    run = write_run(tmp_path / f"run<i>{ESCAPES}", SCANT[name](), **names)  # type: ignore[arg-type]
    other = write_run(tmp_path / "other", [solution("z", ["7"])])
    out = tmp_path / "report.html"
    write_report([run, other], out, draws=20)
    text = out.read_text()
    assert not CONTROL.search(text)
    assert Page(text).open == []
    assert "<script>" not in text
    assert "run<i>" not in text
    if name == "nothing yet":
        assert "Not shown" in text


def test_differences_are_against_the_cheapest_or_the_one_that_is_named(
    paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = read(paths)
    costs = runs.cost("tokens").groupby(runs.problems["configuration"], observed=True).mean()
    cheapest = str(costs.idxmin())
    assert cheapest != runs.runs["configuration"].iloc[0]
    assert tables_of.reference(runs, "tokens", None) == cheapest
    dear = str(costs.idxmax())
    assert tables_of.reference(runs, "tokens", dear) == dear
    assert tables_of.reference(runs, "tokens", "of another evaluation set") == cheapest
    with pytest.raises(UserError, match="no configuration 'gredy' to compare with: did you mean greedy"):
        write_report(paths, tmp_path / "a.html", against="gredy")
    assert cli.run(["report", *map(str, paths), "--against", "gredy"]) == 2
    capsys.readouterr()
    assert cli.run(["report", *map(str, paths), "--against", dear, "--json"]) == 0
    rows = {row["configuration"]: row for row in json.loads(capsys.readouterr().out)}
    assert cli.run(["report", *map(str, paths), "--against", dear]) == 0
    shown = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    for name, row in rows.items():
        if name == dear:
            assert row["difference"] is None
            continue
        found = compare(runs, dear, name)
        assert row["difference"] == pytest.approx(found.mean)
        assert (row["difference_low"], row["difference_high"]) == pytest.approx((found.low, found.high))
        text = f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
        assert text in shown[name]


def test_a_page_says_against_which_configuration_differences_are(paths: list[Path], tmp_path: Path) -> None:
    for against, name in ((None, "greedy"), ("best-of-n n=4", "best-of-n n=4")):
        write_report(paths[1:], tmp_path / "a.html", draws=20, against=against)
        assert f"Each configuration against {name}, paired" in (tmp_path / "a.html").read_text()


def test_evaluation_sets_stand_apart(paths: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", [solution("z", ["7"], level=None)], on="another set")
    out = tmp_path / "report.html"
    written = write_report([paths[3], other], out, formats=["csv"], draws=20)
    assert {"report-set-curves.csv", "report-another-set-curves.csv"} <= {path.name for path in written}
    assert out.read_text().count("<h2>") == 3


def test_runs_that_can_not_be_reported(paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not count 'roubles'"):
        write_report(paths, tmp_path / "a.html", unit="roubles")
    assert not (tmp_path / "a.html").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        write_report(paths, tmp_path / "file" / "a.html", draws=20)


def test_the_rest_of_infer_loads_none_of_it() -> None:
    heavy = {"pandas", "matplotlib", "scipy", "pyarrow"}
    code = f"import sys, infer, infer.runs.job; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)
