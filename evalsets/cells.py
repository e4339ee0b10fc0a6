"""The values in a row of a table."""

import math
from typing import Any

from infer.core.problem import HALVES


class RowError(Exception):
    """A mistake in a row: the message names it and the fix. Whoever catches it adds the row's place."""


def empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or (isinstance(value, float) and math.isnan(value))


def text_of(value: Any) -> str:
    """The value as text; 42.0 becomes "42", since columns with gaps turn integers into floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return whole(str(value)).strip()


def whole(text: str) -> str:
    """The text with both halves of a character put together, and � for half a one, as broken exports have them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if HALVES.search(text) else text


def kind_of(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, dict) else f"{value!r}"
