"""Fields of models that users set: how the command line offers them, and one line for a value that does not fit."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from infer.errors import UserError, nearest

WHAT, HOW, MODELS, SAMPLING, RUN = "What to solve", "How", "Models", "Sampling", "Run"
"""The panels of a command's help."""

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Flag:
    """How the command line offers a field; type, bounds, default and help text (its description) are the field's."""

    panel: str | None
    """Its panel in the help; None: it is a positional argument."""
    short: str | None = None
    long: str | None = None
    """None: `--` and the field's name."""
    metavar: str | None = None
    envvar: str | None = None
    escapes: bool = False
    r"""Whether `\n` in it is a line break."""


def long_option(name: str, field: FieldInfo) -> str:
    """The option of a field, as a user types it; the name alone of a positional argument."""
    flag = next(each for each in field.metadata if isinstance(each, Flag))
    return flag.long or (f"--{name.replace('_', '-')}" if flag.panel is not None else name)


def build(model: type[Model], given: Mapping[str, Any], spelled: Callable[[str], str] = str) -> Model:
    """A model from the values of its fields. Raises UserError for one that does not fit, under its `spelled` name."""
    try:
        return model(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name, value = str(first["loc"][0]), first["input"]
        if first["type"] == "literal_error":
            known = re.findall(r"'(.*?)'", first["ctx"]["expected"])
            raise UserError(f"unknown {name} {value!r}: {nearest(value, known)}") from None
        if first["type"] == "string_unicode":
            raise UserError(f"{spelled(name)} is not UTF-8 text, or has half a character: type it again") from None
        raise UserError(f"{spelled(name)} {shlex.quote(str(value))}: {first['msg']}") from None
