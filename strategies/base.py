"""What every strategy file builds on: its options, and how it is found by name."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError

from infer.errors import UserError, nearest
from infer.generate.base import gather_or_cancel
from infer.search import Search
from infer.solution import Solution
from infer.usage import BudgetSpent


class Options(BaseModel):
    """Options of a strategy: a frozen pydantic model, each field with a description. Unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def needs_verifier(self) -> bool:
        """Whether the strategy, so configured, asks for scores."""
        return False


@dataclass(frozen=True, slots=True)
class Strategy:
    """A strategy by name: an async function of a `Search` and its options."""

    name: str
    run: Callable[[Search, Any], Awaitable[Solution]]

    @property
    def options(self) -> type[Options]:
        """The type of the function's second parameter. Raises TypeError where that is not a kind of `Options`."""
        second = list(inspect.signature(self.run).parameters)[1:2]
        kind = get_type_hints(self.run).get(second[0]) if second else None
        if not (isinstance(kind, type) and issubclass(kind, Options)):
            raise TypeError("it takes a Search and its Options, with both annotated")
        return kind

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.run) or "").partition("\n")[0]

    def configure(self, given: Sequence[str]) -> Options:
        """Options from `key=value` texts. Raises UserError for an unknown key, a wrong type or a value out of range."""
        values: dict[str, str] = {}
        for text in given:
            key, sign, value = text.partition("=")
            if not sign:
                raise UserError(f"option {text!r} of {self.name} is not key=value")
            values[key.strip()] = value.strip()
        known = self.options.model_fields
        for key in values:
            if key not in known:
                hint = nearest(key, known) if known else "it has none"
                raise UserError(f"strategy {self.name} has no option {key!r}: {hint}")
        try:
            return self.options.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise UserError(f"option {name}={first['input']} of {self.name}: {first['msg']}") from None


async def all_affordable(calls: Iterable[Awaitable[None]]) -> None:
    """Awaits all. Raises BudgetSpent where any of them did, once all have ended; another error cancels the rest."""

    async def attempt(call: Awaitable[None]) -> bool:
        try:
            await call
        except BudgetSpent:
            return False
        return True

    if not all(await gather_or_cancel(attempt(call) for call in calls)):
        raise BudgetSpent
