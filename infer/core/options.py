"""The options of a strategy, and what they ask of a search."""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from infer.core.tree import Aggregation


class Shape(NamedTuple):
    """The samples of a strategy for one problem: trajectories, and so many branches of each at every step."""

    trajectories: int
    branches: int = 1


class Options(BaseModel):
    """Options of a strategy: a frozen pydantic model, each field with a description. Unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
