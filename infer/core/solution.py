"""The result of a search, which is one line of a run's `solutions.jsonl`."""

from pydantic import BaseModel, ConfigDict

from infer.core.tree import Node, split_steps
from infer.core.usage import Usage


class Candidate(BaseModel):
    """One completed trajectory, with all that is needed to score it again without generating."""

    model_config = ConfigDict(frozen=True)

    address: tuple[int, ...]
    """Child indices from the root: with the run's seed they say how it was drawn."""
    tokens: list[int]
    num_tokens: int
    text: str
    answer: str | None
    finished: bool
    """The model ended it; False: cut off by a budget or a limit."""
    steps: list[str]
    scores: list[float] | None = None
    """The verifier's score of each step, or a single one of the whole (outcome models); None: not scored."""
    logprob: float | None = None
    """Mean log-probability of its tokens under the model; None: not recorded."""
    group: int | None = None
    """Index of the first candidate with an equal answer, -1 without an answer; None: not graded yet."""
    correct: bool | None = None
    """Against the reference answer; None where there is none, or not graded yet."""
    weight: float | None = None
    """Its share of a particle method's final weights, zero if resampling dropped it; None for other strategies."""

    @classmethod
    def of(cls, node: Node, answer: str | None, delimiter: str) -> "Candidate":
        """The trajectory that ends in a node."""
        text = node.completion
        return cls(
            address=node.address,
            tokens=[token for part in node.trajectory for token in part.tokens],
            num_tokens=node.length,
            text=text,
            answer=answer,
            finished=node.finished,
            steps=split_steps(text, delimiter),
            scores=node.step_scores if node.scored else None,
            logprob=node.logprob(),
        )


class Solution(BaseModel):
    """The answer to one problem, with its candidates and all that they cost."""

    model_config = ConfigDict(frozen=True)

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
    chosen: int | None
    """Index of the chosen trajectory in `candidates`; None where nothing could be sampled."""
    candidates: list[Candidate]
    usage: Usage
    log_evidence: float | None = None
    """Exact sequential Monte Carlo: the logarithm of an unbiased estimate of sum_y p(y) r(y)^(1/T)."""
    seconds: float
    """From the start of the search to its answer, other problems running beside it."""
    note: str | None = None
    """A warning to the reader, such as a comparison of answers that was cut off."""
