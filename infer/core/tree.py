"""The search tree: nodes that hold the very tokens the model produced."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Prompt = list[int] | str
"""Token ids, or text where a server has no way to take ids."""

Finish = Literal["step", "end", "length"]
"""The reason why a completion stopped: step delimiter; the model's end token or a stop string; its token limit."""

Aggregation = Literal["last", "min", "prod", "mean", "max"]
"""How the scores of a trajectory's steps become one."""


@dataclass(eq=False, slots=True)
class Node:
    """A piece of a completion: one step, or a whole rest, sampled from its parent's prefix.

    The root holds the prompt. `index` counts the siblings in the order they were requested, so the indices from the
    root to a node are its address. `full` says that nothing more fits after it (context or `max_tokens`). `scores` has
    one score for each step that ends in the node, or a single one from a verifier that is not stepwise; None: not
    scored yet. A `forced` node holds text that was put there, not sampled.
    """

    parent: "Node | None"
    index: int
    tokens: list[int]
    num_tokens: int
    text: str
    finish: Finish | None = None
    full: bool = False
    logprobs: list[float] | None = None
    scores: list[float] | None = None
    scored_from: int = 0
    """Index of the step that scores[0] belongs to: a step cut off in the parent is scored again, with its rest."""
    num_children: int = 0
    forced: bool = False
    length: int = field(init=False)
    """Completion tokens from the root's end to this node's end."""

    def __post_init__(self) -> None:
        self.length = 0 if self.parent is None else self.parent.length + self.num_tokens

    @classmethod
    def of_prompt(cls, prompt: Prompt, index: int = 0) -> "Node":
        """A root: token ids, or text. `index` is below zero for conversations other than the problem's own."""
        if isinstance(prompt, str):
            return cls(None, index, [], 0, prompt)
        return cls(None, index, prompt, len(prompt), "")

    def child(
        self,
        *,
        tokens: list[int],
        num_tokens: int,
        text: str,
        finish: Finish,
        full: bool = False,
        logprobs: list[float] | None = None,
        forced: bool = False,
    ) -> "Node":
        """One more child."""
        index = self.num_children
        self.num_children += 1
        return Node(self, index, tokens, num_tokens, text, finish, full, logprobs, forced=forced)

    @property
    def trajectory(self) -> "list[Node]":
        """The nodes from below the root to this one; empty for the root."""
        nodes: list[Node] = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    @property
    def root(self) -> "Node":
        node = self
        while node.parent is not None:
            node = node.parent
        return node

    @property
    def address(self) -> tuple[int, ...]:
        """The indices from the root to here; the root's own in front if it opens another conversation (below zero)."""
        indices = tuple(node.index for node in self.trajectory)
        root = self.root
        return (root.index, *indices) if root.index else indices

    @property
    def sampled(self) -> int:
        """Tokens of the completion that the model sampled: all but the forced ones."""
        return sum(node.num_tokens for node in self.trajectory if not node.forced)

    @property
    def finished(self) -> bool:
        """The model ended its answer here."""
        return self.finish == "end"

    @property
    def final(self) -> bool:
        """Nothing can be sampled after this node: it is finished, or there is no room."""
        return self.finished or self.full

    def prefix(self) -> Prompt:
        """The prefix to continue: token ids of prompt and completion, or text where the server has no ids."""
        nodes, root = self.trajectory, self.root
        if not root.tokens:
            return root.text + "".join(node.text for node in nodes)
        ids = list(root.tokens)
        for node in nodes:
            ids += node.tokens
        return ids

    @property
    def completion(self) -> str:
        """The text from the root's end to this node's end."""
        return "".join(node.text for node in self.trajectory)

    @property
    def scored(self) -> bool:
        """Whether the verifier has scored every step up to here."""
        return all(node.scores is not None for node in self.trajectory)

    @property
    def step_scores(self) -> list[float]:
        """Scores of all steps from the root to here. Raises ValueError where a node was not scored."""
        scores: list[float] = []
        for node in self.trajectory:
            if node.scores is None:
                raise ValueError(f"node {node.address} was not scored")
            scores[node.scored_from :] = node.scores
        return scores

    def logprob(self) -> float | None:
        """Mean log-probability of the completion's tokens; None where they were not recorded."""
        values: list[float] = []
        for node in self.trajectory:
            if node.logprobs is None:
                return None
            values += node.logprobs
        return math.fsum(values) / len(values) if values else None


def aggregate(scores: Sequence[float], how: Aggregation) -> float:
    """One score of a trajectory from the scores of its steps (at least one)."""
    if not scores:
        raise ValueError("a trajectory without steps has no score")
    match how:
        case "last":
            return scores[-1]
        case "min":
            return min(scores)
        case "prod":
            return math.prod(scores)
        case "mean":
            return math.fsum(scores) / len(scores)
        case "max":
            return max(scores)


def split_steps(text: str, delimiter: str) -> list[str]:
    """The steps of a completion, each with the delimiter that ends it; together they are the text.

    A piece of white space alone (a repeated delimiter, or one after a finished step) is no step: it joins the step
    before it, so that no empty step is scored. A text of white space alone has no steps.
    """
    steps: list[str] = []
    for piece in _pieces(text, delimiter):
        if steps and (not piece.strip() or not steps[-1].strip()):
            steps[-1] += piece
        else:
            steps.append(piece)
    return steps if any(step.strip() for step in steps) else []


def _pieces(text: str, delimiter: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find(delimiter, start)
        end = len(text) if end < 0 else end + len(delimiter)
        yield text[start:end]
        start = end


def complete_steps(node: Node | None, delimiter: str) -> int:
    """How many steps ended in this node or before; one cut off in its middle continues in the child."""
    text = node.completion if node is not None else ""
    return ended_steps(text, node.finish if node is not None else None, delimiter)


def ended_steps(text: str, finish: Finish | None, delimiter: str) -> int:
    """How many steps have ended in a text that stopped for this reason."""
    steps = split_steps(text, delimiter)
    return len(steps) - bool(steps and finish == "length")


def straddles(stop: str, delimiter: str) -> bool:
    """Whether a stop string can lie across the end of a step: each step is a request, which looks at its own text."""
    if stop == delimiter:
        return False
    return delimiter in stop[:-1] or any(delimiter.endswith(stop[:size]) for size in range(1, len(stop)))


def address_seed(seed: int, problem: str, address: tuple[int, ...]) -> int:
    """The seed of a node's first child in (run seed, problem, address), whatever else was drawn, or when."""
    digest = hashlib.blake2b(repr((seed, problem, address)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 2


def conversation_index(prompt: Prompt) -> int:
    """The index of a conversation's root, below zero: a hash of its prompt, so its seeds depend on nothing else."""
    return -1 - int.from_bytes(hashlib.blake2b(repr(prompt).encode(), digest_size=4).digest())
