r"""Answers with units, and times of day: compared here where both answers are of the kind.

    compare(r"5 \text{ cm}", "50 mm")    # True
    compare("5 cm", "5")                 # None: one has no unit

Only usual units are known, and plain numbers: all else is left to the comparison of values.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from infer.evalsets.graders.extraction import without_delimiters


class Quantity(NamedTuple):
    """A number of meters, seconds, kilograms, dollars, or products of their powers."""

    size: Fraction
    dimension: tuple[int, ...]
    """The powers of length, time, mass and money."""


_UNITS: dict[str, Quantity] = {
    name: Quantity(Fraction(size), dimension)
    for dimension, sizes in {
        (1, 0, 0, 0): {
            "1/1000": "mm millimeter millimetre",
            "1/100": "cm centimeter centimetre",
            "1": "m meter metre",
            "1000": "km kilometer kilometre",
            "0.0254": "in inch inche",
            "0.3048": "ft foot feet",
            "0.9144": "yd yard",
            "1609.344": "mi mile",
        },
        (0, 1, 0, 0): {
            "1": "s sec second",
            "60": "min minute",
            "3600": "h hr hour",
            "86400": "day",
            "604800": "week",
        },
        (0, 0, 1, 0): {
            "1/1000000": "mg milligram",
            "1/1000": "g gram",
            "1": "kg kilogram",
            "0.45359237": "lb pound",
            "0.028349523125": "oz ounce",
        },
        (0, 0, 0, 1): {"1": "dollar usd", "1/100": "cent"},
        (3, 0, 0, 0): {
            "1/1000": "l liter litre",
            "1/1000000": "ml milliliter millilitre",
            "0.003785411784": "gal gallon",
        },
        (1, -1, 0, 0): {"0.44704": "mph", "5/18": "kph"},
    }.items()
    for size, names in sizes.items()
    for name in names.split()
}

_UPRIGHT = re.compile(r"\\(?:text|textrm|mathrm|mbox)\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_NUMBER = re.compile(r"(\\?\$)?([+-]?)(\d[\d,]*(?:\.\d+)?|\.\d+)(?:/(\d+))? ?([a-zA-Z/][\w/^{} ]*)?")
_POWER = re.compile(r"(?:(sq|square|cu|cubic) )?([a-z]+)(?:\^\{?([23])\}?| (squared|cubed))?")
_DOLLAR = re.compile(r"(?:dollars?|usd)\b", re.IGNORECASE)
_POWERS = {None: 1, "sq": 2, "square": 2, "squared": 2, "2": 2, "cu": 3, "cubic": 3, "cubed": 3, "3": 3}
_TIME = re.compile(r"(\d{1,2})(?::(\d\d))?(?: ?([ap])\.? ?m\.?)?", re.IGNORECASE)


def compare(one: str, other: str) -> bool | None:
    """Whether two quantities with units, or two times of day, are equal; None: they are not both of that kind."""
    texts = _plain(one), _plain(other)
    times = [_hours(text) for text in texts]
    if times[0] and times[1]:
        return bool(times[0] & times[1])
    quantities = [_quantity(text) for text in texts]
    if quantities[0] is None or quantities[1] is None:
        return None
    return quantities[0] == quantities[1]


def _plain(answer: str) -> str:
    text = without_delimiters(answer.strip().rstrip(".").strip())
    text = _FRACTION.sub(r"\1/\2", _UPRIGHT.sub(r" \1", text)).replace("{,}", ",").replace("{:}", ":")
    return re.sub(r"(?:\s|\\[,;:! ]|~)+", " ", text.replace(",\\!", ",")).strip()


def _hours(text: str) -> set[tuple[int, str]]:
    """The times of day that are meant, as hours and minutes: without "a.m." it may be by either clock."""
    time = _TIME.fullmatch(text)
    if time is None or not (time[2] or time[3]):
        return set()
    hour, minute = int(time[1]), time[2] or "00"
    if not time[3]:
        return {(hour, minute), ((hour + 12) % 24, minute)} if 0 < hour < 12 else {(hour, minute)}
    return {(hour % 12 + (12 if time[3] in "pP" else 0), minute)}


def _quantity(text: str) -> Quantity | None:
    """A number of base units with their dimension; None: not plain numbers with known units."""
    parts = [_part(part) for part in re.split(r"(?: and |, | )(?=\d)", text)]
    if None in parts or len({part.dimension for part in parts if part}) != 1:
        return None
    return Quantity(sum((part.size for part in parts if part), Fraction()), parts[0].dimension if parts[0] else ())


def _part(text: str) -> Quantity | None:
    found = _NUMBER.fullmatch(text)
    if found is None or not (found[1] or found[5]) or (found[4] and not int(found[4])):
        return None
    unit = _unit(f"dollar {found[5] or ''}" if found[1] and not _DOLLAR.match(found[5] or "") else found[5])
    value = Fraction(found[2] + found[3].replace(",", "")) / int(found[4] or 1)
    return Quantity(value * unit.size, unit.dimension) if unit is not None else None


def _unit(text: str) -> Quantity | None:
    """A unit such as `cm^2`, `square feet` or `dollars per hour`; None: one of its parts is not known."""
    size = Fraction(1)
    dimension: tuple[int, ...] = (0, 0, 0, 0)
    for place, part in enumerate(re.split(r" ?/ ?| per ", text.strip().lower())):
        found = _POWER.fullmatch(part.strip())
        unit = _UNITS.get(found[2]) or _UNITS.get(found[2].removesuffix("s")) if found else None
        if found is None or unit is None:
            return None
        power = _POWERS[found[1] or found[3] or found[4]] * (1 if place == 0 else -1)
        size *= unit.size**power
        dimension = tuple(total + power * own for total, own in zip(dimension, unit.dimension, strict=True))
    return Quantity(size, dimension)
