"""A strategy: an async function of a `Search` and its options."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import ValidationError

from infer.core.options import Options
from infer.core.search import Search
from infer.core.solution import Solution
from infer.errors import UserError, nearest


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
        """Options from `key=value` texts. Raises UserError for an unknown key, one given twice, or a bad value."""
        values: dict[str, str] = {}
        for text in given:
            key, sign, value = text.partition("=")
            if not sign:
                raise UserError(f"option {text!r} of {self.name} is not key=value")
            if (key := key.strip()) in values:
                raise UserError(f"option {key} of {self.name} is given twice: {values[key]} and {value.strip()}")
            values[key] = value.strip()
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
