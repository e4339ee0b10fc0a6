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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from infer.core.problem import Problem
from infer.core.tree import Finish, Node, Prompt
from infer.errors import UserError, WriteError

VERSION = 1


def trace_path(folder: Path, problem_id: str) -> Path:
    """The file of a problem's trace: a name that any file system takes, one for each id."""
    name = quote(problem_id, safe=" ")
    if len(name) > 200:
        name = f"{name[:180]}-{blake2b(problem_id.encode(), digest_size=8).hexdigest()}"
    return folder / f"{name}.jsonl"


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


def read_trace(path: Path) -> TracedSearch:
    """Reads a trace; a torn last line is dropped. Raises UserError where it is none, or of a newer version."""
    events = []
    try:
        # bytes: a tear may lie within a character, and `str.splitlines` also splits at characters that a text may have
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise UserError(f"there is no trace {path}: traces are kept by infer solve --trace") from None
    for number, line in enumerate(lines, 1):
        try:
            events.append(json.loads(line.decode()))
        except ValueError:
            if number < len(lines):
                raise UserError(f"line {number} of {path} is not JSON: mend or remove it") from None
    try:
        if events[0]["version"] > VERSION:
            raise UserError(f"{path} was written by a newer infer (version {events[0]['version']}): upgrade infer")
        return _replay(events)
    except (LookupError, TypeError, ValueError):
        raise UserError(f"{path} is not a trace") from None


def _replay(events: list[dict[str, Any]]) -> TracedSearch:
    header = events[0]
    root = TracedNode(0, None, "", _length(header["prompt"]), None, 0.0)
    search = TracedSearch(header["problem"], header["prompt"], [root])
    nodes = {0: root}
    for event in events[1:]:
        at = event["at"]
        for entry in event.get("sampled", []):
            parent = nodes[entry["parent"]]
            count, forced = entry.get("num_tokens", len(entry["tokens"])), entry.get("forced", False)
            node = TracedNode(entry["id"], parent, entry["text"], count, entry["finish"], at, forced)
            nodes[node.id] = node
            parent.children.append(node)
        for number, _, scores in event.get("scored", []):
            nodes[number].scores = scores
        for number in event.get("pruned", []):
            nodes[number].pruned_at = at
        if "opened" in event:
            nodes[event["opened"]] = TracedNode(event["opened"], None, "", _length(event["prompt"]), None, at)
            search.roots.append(nodes[event["opened"]])
        if "chosen" in event:
            search.complete = True
            search.chosen = nodes[event["chosen"]] if event["chosen"] is not None else None
    return search


def _length(prompt: Prompt) -> int | None:
    return None if isinstance(prompt, str) else len(prompt)
