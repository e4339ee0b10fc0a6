"""The options of a strategy."""

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Options of a strategy: a frozen pydantic model, each field with a description. Unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def needs_verifier(self) -> bool:
        """Whether the strategy, so configured, asks for scores."""
        return False
