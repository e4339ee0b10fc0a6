"""Observers of a search, and the one that writes its tree to disk: a JSON Lines file a problem, a line an event.

    {"version": 1, "problem": id, "prompt": token ids or text}
    {"at": s, "left": b, "sampled": [{"id", "parent", "tokens", "num_tokens", "text", "finish", "logprobs"?, "forced"?},
                                     ...]}
    {"at": s, "left": b, "scored": [[id, first step, scores], ...]}
    {"at": s, "pruned": [id, ...]}
    {"at": s, "opened": id, "prompt": ...}       another conversation about the problem
    {"at": s, "chosen": id or null}              the last line of a search that came to its end

`at` is in seconds since the search began, `left` the rest of its budget at that time (absent without a budget). Ids
count the nodes in the order they came; the root is 0. `tokens` is empty where a server has no ids.
"""

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from pydantic_core import from_json

from infer.core.formats import file_name
from infer.core.problem import Problem
from infer.core.records import BadLine, Line, check_version, open_file, read_lines
from infer.core.solution import Score
from infer.core.tree import Finish, Node, Prompt
from infer.core.usage import Count
from infer.errors import UserError, WriteError

VERSION = 1
KIND = "event of a trace"
"""Its name in messages."""


def trace_path(folder: Path, problem_id: str) -> Path:
    """The file of a problem's trace: a name that any file system takes, one for each id."""
    return folder / f"{file_name(problem_id)}.jsonl"


class Watch:
    """Observes one search, from its root on. This one does nothing."""

    def __init__(self, problem: Problem, root: Node) -> None:
        pass

    def sampled(self, nodes: Sequence[Node], left: float) -> None:
        """Nodes were added to the tree, and so much of the budget is left."""

    def scored(self, nodes: Sequence[Node], left: float) -> None:
        """The verifier scored nodes (those too long for it have no scores)."""

    def pruned(self, nodes: Iterable[Node]) -> None:
        """The search goes on without these nodes."""

    def opened(self, root: Node) -> None:
        """Another conversation about the problem begins."""

    def chosen(self, node: Node | None) -> None:
        """The search ended with this answer."""


class Trace(Watch):
    """Writes the trace of one search; replaces that of a search that was cut off earlier."""

    def __init__(self, folder: Path, problem: Problem, root: Node) -> None:
        self._path = trace_path(folder, problem.id)
        self._ids = {root: 0}
        self._start = time.monotonic()
        header = {"version": VERSION, "problem": problem.id, "prompt": root.prefix()}
        self._append(header, "w")

    def sampled(self, nodes: Sequence[Node], left: float) -> None:
        self._write(left=left, sampled=[self._describe(node) for node in nodes])

    def scored(self, nodes: Sequence[Node], left: float) -> None:
        self._write(left=left, scored=[[self._ids[node], node.scored_from, node.scores] for node in nodes])

    def pruned(self, nodes: Iterable[Node]) -> None:
        if ids := [self._ids[node] for node in nodes]:
            self._write(pruned=ids)

    def opened(self, root: Node) -> None:
        self._write(opened=self._ids.setdefault(root, len(self._ids)), prompt=root.prefix())

    def chosen(self, node: Node | None) -> None:
        self._write(chosen=self._ids[node] if node is not None else None)

    def _describe(self, node: Node) -> dict[str, Any]:
        assert node.parent is not None
        entry: dict[str, Any] = {"id": self._ids.setdefault(node, len(self._ids)), "parent": self._ids[node.parent]}
        entry |= {"tokens": node.tokens, "num_tokens": node.num_tokens, "text": node.text, "finish": node.finish}
        if node.logprobs:
            entry["logprobs"] = [round(value, 4) for value in node.logprobs]
        return entry | ({"forced": True} if node.forced else {})

    def _write(self, *, left: float = math.inf, **event: Any) -> None:
        bounded = {"left": left} if math.isfinite(left) else {}
        self._append({"at": round(time.monotonic() - self._start, 4), **bounded, **event}, "a")

    def _append(self, record: dict[str, Any], mode: Literal["a", "w"]) -> None:
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
        try:
            # opened for each event: thousands of searches in flight would run out of file handles
            with self._path.open(mode, encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise WriteError(
                f"cannot write the trace {self._path}: {error.strerror}. What is solved is kept: make room and start "
                "the same command again to resume"
            ) from error


@dataclass(slots=True)
class TracedNode:
    """A node as read from a trace. Times are in seconds since the search began."""

    id: int
    parent: "TracedNode | None"
    text: str
    num_tokens: int | None
    """None: a prompt as text, whose tokens the server does not report."""
    finish: Finish | None
    at: float
    forced: bool = False
    scores: list[float] | None = None
    pruned_at: float | None = None
    children: "list[TracedNode]" = field(default_factory=list)


@dataclass(slots=True)
class TracedSearch:
    """A trace, read: the trees of the problem and of the other conversations about it."""

    problem: str
    prompt: Prompt
    roots: list[TracedNode]
    chosen: TracedNode | None = None
    complete: bool = False
    """The search came to its end; False: its process died."""

    @property
    def best_path(self) -> set[int]:
        """Ids of the nodes from the root to the chosen one."""
        ids, node = set(), self.chosen
        while node is not None:
            ids.add(node.id)
            node = node.parent
        return ids


class _Header(BaseModel):
    """The first line of a trace."""

    version: int
    problem: str
    prompt: Prompt


class _Sampled(BaseModel):
    id: int
    parent: int
    tokens: list[int]
    num_tokens: Count | None = None
    """None: an older version left it out, and the tokens are there."""
    text: str
    finish: Finish | None
    forced: bool = False


class _Event(BaseModel):
    """Any other line of a trace."""

    at: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    sampled: list[_Sampled] = []
    scored: list[tuple[int, int, list[Score] | None]] = []
    pruned: list[int] = []
    opened: int | None = None
    prompt: Prompt = ""
    chosen: int | None = None


def read_trace(path: Path) -> TracedSearch:
    """Reads a trace; a torn last line is dropped. Raises UserError where it is none, or of another version."""
    try:
        with open_file(path) as file, suppress(ValueError):  # what is no JSON is named below, with its line
            check_version(path, from_json(file.readline()), VERSION)
        return _replay(path, read_lines(path, _Event, KIND, first=_Header))
    except FileNotFoundError:
        raise UserError(f"there is no trace {path}: traces are kept by infer solve --trace") from None
    except OSError as error:
        raise UserError(f"{path} is no trace: {error.strerror or error}: restore or remove it") from None


def _replay(path: Path, lines: Iterator[Line]) -> TracedSearch:
    """The search whose events these lines are. Raises UserError."""
    first = next(lines, None)
    if first is None:
        raise UserError(f"{path} is no trace: it is empty: restore or remove it")
    header: _Header = first.record
    root = TracedNode(0, None, "", _length(header.prompt), None, 0.0)
    search = TracedSearch(header.problem, header.prompt, [root])
    nodes = {0: root}
    for line in lines:
        try:
            _apply(line.record, search, nodes)
        except KeyError as error:
            raise BadLine(path, line.number, KIND, f"there is no node {error} before it") from None
        except ValueError as error:
            raise BadLine(path, line.number, KIND, str(error)) from None
    return search


def _apply(event: _Event, search: TracedSearch, nodes: dict[int, TracedNode]) -> None:
    """Adds an event to the search. Raises KeyError for a node that is not there, ValueError for one that is already."""

    def add(node: TracedNode) -> None:
        if nodes.setdefault(node.id, node) is not node:
            raise ValueError(f"there is a node {node.id} before it")

    for entry in event.sampled:
        parent = nodes[entry.parent]
        count = entry.num_tokens if entry.num_tokens is not None else len(entry.tokens)
        node = TracedNode(entry.id, parent, entry.text, count, entry.finish, event.at, entry.forced)
        add(node)
        parent.children.append(node)
    for number, _, scores in event.scored:
        nodes[number].scores = scores
    for number in event.pruned:
        nodes[number].pruned_at = event.at
    if event.opened is not None:
        root = TracedNode(event.opened, None, "", _length(event.prompt), None, event.at)
        add(root)
        search.roots.append(root)
    if "chosen" in event.model_fields_set:
        search.complete = True
        search.chosen = nodes[event.chosen] if event.chosen is not None else None


def _length(prompt: Prompt) -> int | None:
    return None if isinstance(prompt, str) else len(prompt)
