"""Evaluation sets: the sources of problems.

    from infer.evalsets import find

    for problem in find("math500").load(): ...
    find("problems.jsonl", answer_column="gold")
    find("owner/name@revision:config", split="validation")

Register a set of your own as an `EvalSet` in the entry-point group `infer.evalsets`.
"""

from pathlib import Path

from infer.core import plugins
from infer.errors import UserError, nearest
from infer.evalsets import files, hub, programs
from infer.evalsets.base import EvalSet, Template
from infer.evalsets.rows import Columns

__all__ = ["EvalSet", "Template", "find", "names"]

GROUP = "infer.evalsets"


def names() -> list[str]:
    """The registered sets."""
    return plugins.names(GROUP)


def find(
    spec: str,
    *,
    problem_column: str | None = None,
    answer_column: str | None = None,
    id_column: str | None = None,
    split: str | None = None,
) -> EvalSet:
    """Finds a set by its name, its file (see `files`) or its hub id `owner/name[@revision][:config]`.

    Columns are guessed unless given. `split` is by default test, else validation, else train. A file is read once from
    beginning to end, so that its errors are raised here. Raises `UserError`.
    """
    columns = Columns(problem_column, answer_column, id_column)
    if spec in names():
        if columns != Columns() or split is not None:
            raise UserError(f"{spec} is a registered set, whose columns and split are fixed: leave those options out")
        return plugins.load(GROUP, "evaluation set", spec, plugins.of_type(EvalSet))
    path = Path(spec).expanduser()
    looks_like_file = files.kind_of_file(path) is not None or path.is_absolute() or spec.startswith(("./", "../"))
    if path.exists() or looks_like_file:
        if split is not None:
            raise UserError(f"--split {split} is for hub data sets; {spec} is a file, and all of it is taken")
        tested = programs.of_file(path) if columns == Columns() else None
        return tested or files.open_file(path, columns)
    if hub.SPEC.fullmatch(spec):
        return hub.open_hub(spec, columns, split)
    raise UserError(
        f"unknown evaluation set {spec!r}: {nearest(spec, names())} "
        f"(or name a file, {', '.join(files.SUFFIXES)}, or a hub id owner/name)"
    )
