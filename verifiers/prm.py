"""Reward models that are read at a position: what their families share.

A family is a file of its own that says how a solution is laid out as tokens, at which of them the model was trained to
judge, and by what it is recognized. Here is the verifier that they all become.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.reader import Reader
from infer.core.tree import Aggregation
from infer.core.verifier import Scores
from infer.errors import TooLong, UserError
from infer.generate.chat import encode_chat

Config = Mapping[str, Any]
"""A checkpoint's config.json."""


class Layout(Protocol):
    """A solution as the model saw solutions in training."""

    def __call__(self, question: str, steps: Sequence[str], finished: bool) -> tuple[list[int], list[int]]:
        """Token ids, and for each score the length of the prefix at whose last token it is read.

        The tokens up to a position depend on the steps up to there alone. White space around a step, the delimiter
        that ends it included, is no part of it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of reward model."""

    name: str
    layout: Callable[[Any, Config], Layout]
    """From a tokenizer, of which it raises UserError for an unfit one, and the checkpoint's config.json."""
    recognizes: Callable[[str, Config], bool]
    """By a model's name, in lower case, and its config.json."""
    aggregation: Aggregation
    stepwise: bool = True
    pair: tuple[str, str] | None = None
    """The tokens of correct and wrong, of which the next-token probabilities are read. None: a classification head."""
    classes: Mapping[str, str] = field(default_factory=dict)
    """By backend, the `module:Class` to load, where the backend has none, or none that its prefix cache can serve."""
    check: Callable[[str, Config], None] = lambda model, config: None
    """Raises UserError for a model, by name and config.json, that would load although it is not of this family."""


class RewardModel:
    """The `Verifier` of every family, over any reader."""

    def __init__(
        self, family: Family, reader: Reader, aggregation: Aggregation | None = None, config: Config | None = None
    ) -> None:
        self._family = family
        self._reader = reader
        self._layout = family.layout(reader.tokenizer, config or {})
        self.aggregation: Aggregation = aggregation or family.aggregation
        self.stepwise = family.stepwise
        self.spec = reader.spec

    async def most(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> list[Call]:
        _, ends = self._layout(problem.prompt, steps, finished)
        return self._reader.most(ends[known:] if self.stepwise else ends)

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        tokens, ends = self._layout(problem.prompt, steps, finished)
        if ends[-1] > self._reader.max_context:
            raise TooLong(
                f"a solution of {ends[-1]} tokens is longer than the reward model's context of "
                f"{self._reader.max_context}"
            )
        return await self._reader.read(tokens, ends[known:] if self.stepwise else ends)

    def describe(self) -> dict[str, Any]:
        return {"family": self._family.name, "aggregation": self.aggregation, **self._reader.describe()}

    async def close(self) -> None:
        await self._reader.close()


def architecture(config: Config) -> str:
    """The first architecture that a config.json names."""
    return str((config.get("architectures") or ["?"])[0])


def labels(config: Config) -> int:
    """How many labels a classifier has: config.json leaves the default of two out."""
    return int(config.get("num_labels") or len(config.get("id2label") or (0, 1)))


def check_labels(family: str, needed: int, model: str, config: Config) -> None:
    """Raises UserError for what is not a sequence classifier with so many labels."""
    if not architecture(config).endswith("ForSequenceClassification") or labels(config) != needed:
        raise UserError(
            f"reward model {model} is a {architecture(config)} with {labels(config)} labels: {family} needs a "
            f"...ForSequenceClassification with {needed}"
        )


def remember(encode: Callable[..., list[int]], tokenizer: Any) -> Callable[..., tuple[int, ...]]:
    """`encode` of one tokenizer, remembered: to score a step, a search lays out all steps before it again."""

    @functools.lru_cache(maxsize=1 << 12)
    def remembered(*given: Any) -> tuple[int, ...]:
        return tuple(encode(tokenizer, *given))

    return remembered


def encode_question(tokenizer: Any, question: str, system: str | None = None) -> list[int]:
    """Token ids of a chat in which a question is asked, ready for the assistant's answer."""
    opening = [] if system is None else [{"role": "system", "content": system}]
    return encode_chat(tokenizer, [*opening, {"role": "user", "content": question}])


def encode_plain(tokenizer: Any, text: str, tag: str | None = None) -> list[int]:
    """Token ids of a text in the middle of others. A special token's text, or `tag`, is only spelled."""
    pieces = [text] if tag is None else re.split(f"(?<={re.escape(tag[0])})(?={re.escape(tag[1:])})", text)
    ids: list[int] = []
    for piece in pieces:
        ids += tokenizer.encode(piece, add_special_tokens=False, split_special_tokens=True)
    return ids


_NUMBER = re.compile(r"\A[#*\s]*Step \d+[ \t]*(?:[:.)*]+(?!\d)|\n|$)\s*")
"""A heading such as `Step 2:`, `**Step 2.**` or `## Step 2`; not a sentence that begins with `Step 2 gives`."""


def numbered(step: str, number: int) -> str:
    """`Step 3: ...`, in place of the number that the step may give itself, which need not be its place."""
    return f"Step {number}: {_NUMBER.sub('', step.strip())}".rstrip()
