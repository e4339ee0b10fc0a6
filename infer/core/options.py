"""The options of a strategy, and what they ask of a search."""

from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from infer.core.tree import Aggregation

MOST = 16_384
"""The largest count that an option may be, and the most samples of a problem where a budget sets no end.

Measured: a sample takes 6 KB while vLLM generates it, and its node 45 bytes a token (78 with log-probabilities). So
many samples are 0.1 GB a problem at 30 tokens each, and 1.6 to 2.7 GB at 2,048. Papers go up to 10,000 samples (Brown
et al. 2407.21787).
"""

MOST_TOKENS = 2**24
"""The largest number of tokens that an option may be: more than any model's context."""

Count = Annotated[int, Field(le=MOST)]
"""The type of an option that counts samples, steps, or rounds: memory has to hold them."""

Tokens = Annotated[int, Field(le=MOST_TOKENS)]
"""The type of an option that counts tokens of one text."""


class Shape(NamedTuple):
    """The samples of a strategy for one problem: trajectories, and so many branches of each at every step."""

    trajectories: int
    branches: int = 1


class Options(BaseModel):
    """Options of a strategy: a frozen pydantic model, each field with a description. Unknown ones are refused.

    Integers are a `Count` or `Tokens`, or have an upper bound of their own; floats are finite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def needs_verifier(self) -> bool:
        """Whether the strategy, so configured, asks for scores."""
        return False

    @property
    def needs_logprobs(self) -> bool:
        """Whether the strategy, so configured, reads the log-probabilities of what it samples."""
        return getattr(self, "choose", None) == "logprob"

    @property
    def needs_tests(self) -> bool:
        """Whether the strategy, so configured, runs programs against tests: only their sets have a grader that does."""
        return False

    @property
    def scores_steps(self) -> bool:
        """Whether the verifier scores each step as it is sampled, rather than whole solutions."""
        return False

    def shape(self) -> Shape | None:
        """The samples of the strategy, so configured; None if they depend on its budget or on what it finds."""
        return None


class ScoredOptions(Options):
    """Options of a strategy that reads a verifier's scores."""

    aggregation: Aggregation | None = Field(
        None, description="how a path's step scores become one; default: the verifier's own"
    )

    @property
    def needs_verifier(self) -> bool:
        return True
