"""Options of strategies: bounds that memory can hold, finite numbers, each named once."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from infer import strategies
from infer.core.options import MOST, MOST_TOKENS
from infer.errors import UserError

FIELDS = [
    (name, option, field)
    for name in strategies.names()
    for option, field in strategies.find(name).options.model_fields.items()
]


def kind(field: Any) -> str:
    return str(field.annotation).replace("class ", "")


def refused(name: str, *options: str) -> str:
    with pytest.raises(UserError) as caught:
        strategies.find(name).configure(options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name, option, field in FIELDS if "int" in kind(field)], ids="-".join
)
@pytest.mark.parametrize("value", [10**18, 10**400, 2**24 + 1])
def test_every_count_has_a_bound_that_its_error_names(name: str, option: str, value: int) -> None:
    said = refused(name, f"{option}={value}")
    assert f"{option}={value}"[:100] in said
    assert said.endswith((f"less than or equal to {MOST}", f"less than or equal to {MOST_TOKENS}"))


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name, option, field in FIELDS if "float" in kind(field)], ids="-".join
)
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999"])
def test_every_number_is_finite(name: str, option: str, value: str) -> None:
    assert f"option {option}=" in refused(name, f"{option}={value}")
    with pytest.raises(ValidationError):
        strategies.find(name).options(**{option: math.inf})


def test_some_options_are_counts_and_some_are_numbers() -> None:
    assert sum("int" in kind(field) for *_, field in FIELDS) >= 20
    assert sum("float" in kind(field) for *_, field in FIELDS) >= 5


def test_a_product_of_counts_is_bounded() -> None:
    assert refused("astar", "k=16384", "width=2") == (f"option width=2 of astar: k * width is 32768, at most {MOST}")


def test_the_same_option_twice() -> None:
    assert refused("astar", "k=4", "width=2", " k = 8") == "option k of astar is given twice: 4 and 8"
