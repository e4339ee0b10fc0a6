"""The result of a search, which is one line of a run's `solutions.jsonl`.

The types are the file's schema too: a line with another type, or a number out of range, is refused when it is read.
"""

import math
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from infer.core.tree import Node, split_steps
from infer.core.usage import Usage

Index = Annotated[int, Field(ge=-(2**53), le=2**53)]
Small = Annotated[int, Field(ge=0, lt=2**31)]
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Candidate(BaseModel):
    """One completed trajectory, with all that is needed to score it again without generating."""

    model_config = ConfigDict(frozen=True)

    address: tuple[Index, ...]
    """Child indices from the root: with the run's seed they say how it was drawn."""
    tokens: list[int]
    num_tokens: Small
    text: str
    answer: str | None
    finished: bool
    """The model ended it; False: cut off by a budget or a limit."""
    steps: list[str]
    scores: list[Score] | None = None
    """The verifier's score of each step, or a single one of the whole (outcome models); None: not scored."""
    logprob: Finite | None = None
    """Mean log-probability of its tokens under the model; None: not recorded, or not finite."""
    group: Annotated[int, Field(ge=-1)] | None = None
    """Index of the first candidate with an equal answer, -1 without an answer; None: not graded yet."""
    correct: bool | None = None
    """Against the reference answer; None where there is none, or not graded yet."""
    weight: Annotated[Finite, Field(ge=0)] | None = None
    """Its share of a particle method's final weights, zero if resampling dropped it; None for other strategies."""

    @classmethod
    def of(cls, node: Node, answer: str | None, delimiter: str) -> "Candidate":
        """The trajectory that ends in a node."""
        text, logprob = node.completion, node.logprob()
        return cls(
            address=node.address,
            tokens=[token for part in node.trajectory for token in part.tokens],
            num_tokens=node.length,
            text=text,
            answer=answer,
            finished=node.finished,
            steps=split_steps(text, delimiter),
            scores=node.step_scores if node.scored else None,
            logprob=logprob if logprob is not None and math.isfinite(logprob) else None,
        )


class Solution(BaseModel):
    """The answer to one problem, with its candidates and all that they cost.

    A strategy may return a kind of its own: further fields are stored, and the numbers among them are units of
    `infer report`.
    """

    model_config = ConfigDict(frozen=True, extra="allow", cache_strings="keys")  # texts seldom repeat

    problem_id: str
    level: str | None
    reference: str | None
    also: tuple[str, ...] = ()
    """Further right answers (see `Problem`)."""
    choices: tuple[str, ...] = ()
    """Of multiple choice: the texts of A, B, C, …"""
    answer: str | None
    correct: bool | None = None
    """Against the reference answer; None where there is none."""
    finished: bool
    """The chosen trajectory is complete; False: the best so far when the budget or the context was spent."""
    chosen: Annotated[int, Field(ge=0)] | None
    """Index of the chosen trajectory in `candidates`; None where nothing could be sampled."""
    candidates: list[Candidate]
    usage: Usage
    log_evidence: Finite | None = None
    """Exact sequential Monte Carlo: the logarithm of an unbiased estimate of sum_y p(y) r(y)^(1/T)."""
    seconds: Annotated[Finite, Field(ge=0)]
    """From the start of the search to its answer, other problems running beside it."""
    note: str | None = None
    """A warning to the reader, such as a comparison of answers that was cut off."""

    @model_validator(mode="after")
    def _indices(self) -> Self:
        """Refuses an index of a candidate that is not there."""
        count = len(self.candidates)
        places = [("chosen", self.chosen), *(("group", each.group) for each in self.candidates)]
        for name, index in places:
            if index is not None and index >= count:
                text = "{name} is {index}, and there are {count} candidates"
                raise PydanticCustomError("index", text, {"name": name, "index": index, "count": count})
        return self
