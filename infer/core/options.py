"""The options of a strategy."""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict


class Shape(NamedTuple):
    """What a strategy samples for one problem: trajectories, and so many branches of each at every step."""

    trajectories: int
    branches: int = 1


class Options(BaseModel):
    """Options of a strategy: a frozen pydantic model, each field with a description. Unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def needs_verifier(self) -> bool:
        """Whether the strategy, so configured, asks for scores."""
        return False

    def shape(self) -> Shape | None:
        """What the strategy, so configured, samples; None if that depends on its budget or on what it finds."""
        return None
