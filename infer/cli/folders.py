"""Folders as commands take them, and lines of theirs that can't be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from infer.cli.terminal import say
from infer.core.records import BadLine, OnBad
from infer.errors import UserError

SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out lines of solutions.jsonl that can't be read, and say how many.")
]


def folder(text: str | Path) -> Path:
    """A folder as it was typed. An empty name is refused: it would be the current folder."""
    if not str(text):
        raise typer.BadParameter("it is empty: name a folder")
    return Path(text)


@contextmanager
def bad_lines(skip: bool) -> Iterator[OnBad | None]:
    """Gives the `on_bad` of the readers of runs: None, or with --skip-bad a counter of the lines that it leaves out.

    Prints the counts at the end, one line a file, however often it was read.
    """
    left_out: dict[Path, dict[int, BadLine]] = {}

    def count(bad: BadLine) -> None:
        left_out.setdefault(bad.path, {}).setdefault(bad.number, bad)

    try:
        yield count if skip else None
    except BadLine as error:
        raise UserError(f"{error}, or leave such lines out with --skip-bad") from None
    for path, lines in left_out.items():
        some = f"{len(lines)} lines" if len(lines) > 1 else "one line"
        say(f"left out {some} of {path}; line {min(lines)}: {lines[min(lines)].reason}")
