"""The report's page: one HTML file that needs nothing else."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape as quoted
from importlib.resources import files
from typing import Any

import numpy as np

from infer.analysis import plots
from infer.analysis.frames import Runs
from infer.analysis.pictures import Picture
from infer.analysis.tables import Table
from infer.core.formats import clean


def escape(text: str, *, quote: bool = True) -> str:
    """A text inside the page: what it says is no markup, and commands no terminal that shows the page's source."""
    return quoted(clean(text), quote)


def page(runs: Runs, blocks: Iterable[str]) -> str:
    """The whole page: its blocks, then the record of each run."""
    details = []
    for name, record in runs.records.items():
        text = escape(json.dumps(record, indent=2, ensure_ascii=False))
        details.append(f"<details><summary>{escape(name)}</summary><pre>{text}</pre></details>")
    count = len(runs.runs)
    solutions, candidates = len(runs.problems), runs.problems["samples"].sum()
    content = f"{count} run{'s' * (count != 1)}, {solutions:,} solutions, {candidates:,} candidates"
    css = files("infer.analysis").joinpath("report.css").read_text(encoding="utf-8")
    body = "\n".join(blocks)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>infer report</title>'
        f'<style>\n{css}</style></head><body><h1>infer report</h1><p class="note">{content}. '
        f"Written {datetime.now(UTC).isoformat(timespec='minutes')}.</p>"
        f"{body}<h2>Configuration</h2>{''.join(details)}</body></html>\n"
    )


def heading(text: str) -> str:
    """The heading of an evaluation set's part of the page."""
    return f"<h2>{escape(text)}</h2>"


def section(picture: Picture, key: str) -> str:
    """A picture with its caption and tables, or the reason why it is missing. `key` makes the ids in it unique."""
    title = escape(picture.title)
    if picture.drawing is None:
        return f'<section><h3>{title}</h3><p class="none">Not shown: {escape(picture.reason)}.</p></section>'
    svg = plots.render(picture.drawing.figure, "svg", key).decode()
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    caption = f"<figcaption>{escape(picture.drawing.caption, quote=False)}</figcaption>"
    tables = "".join(f"{note(below)}{table(below)}" for below in picture.drawing.below)
    return f"<section><h3>{title}</h3><figure>{svg}{caption}</figure>{tables}</section>"


def note(of: Table) -> str:
    """A table's note as a paragraph; empty without one."""
    return f'<p class="note">{escape(of.note, quote=False)}</p>' if of.note else ""


def table(of: Table) -> str:
    """A table with formatted numbers, aligned to the right."""

    def cell(name: str, value: Any) -> str:
        missing = value is None or value != value  # NaN
        text = "–" if missing else of.formats[name](float(value)) if name in of.formats else str(value)
        right = name in of.formats or isinstance(value, int | float | np.number)
        return f'<td class="number">{escape(text)}</td>' if right else f"<td>{escape(text)}</td>"

    head = "".join(f"<th>{escape(str(name))}</th>" for name in of.frame.columns)
    rows = [
        "".join(cell(str(name), value) for name, value in zip(of.frame.columns, row, strict=True))
        for row in of.frame.itertuples(index=False, name=None)
    ]
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"
