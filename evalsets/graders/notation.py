r"""Rewrites the notation of answers into LaTeX that math-verify reads, where it does not read it or misreads it.

as_latex("1 1/2")    # \frac{3}{2}
as_latex("3e5")      # 300000
"""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache

Rewriting = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

_SIGNS = {
    "°": r"^\circ ",
    "²": "^2",
    "³": "^3",
    "∞": r"\infty ",
    "∅": r"\emptyset ",
    "π": r"\pi ",
    "×": r"\times ",
    "·": r"\cdot ",
    "±": r"\pm ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "∪": r"\cup ",
    "∈": r"\in ",
    "€": "",
    "£": "",
    r"\pounds": "",
    r"\varnothing": r"\emptyset",
    r"\langle": "(",
    r"\rangle": ")",
    r"\boldsymbol": r"\mathbf",
    "{:}": ":",
    r"{\rm e}": "e ",
    r"{\rm i}": "i ",
}
_SIGN = re.compile("|".join(map(re.escape, _SIGNS)))

_UNITS = "zero one two three four five six seven eight nine"
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMERALS = {word: str(value) for value, word in enumerate(f"{_UNITS} {_TEENS}".split())} | {
    f"{ten}-{unit}" if value else ten: str(10 * tens + value)
    for tens, ten in enumerate(_TENS.split(), 2)
    for value, unit in enumerate(_UNITS.split())
}
_NOTHING = re.compile(
    r"(?:there (?:is|are) )?no (?:such |real |valid |possible )*(?:solutions?|roots?|values?|(?:real )?numbers?)"
    r"(?: exists?)?|none|empty set|the empty set",
    re.IGNORECASE,
)
_JUDGED = {"true", "false", "yes", "no"}
_ANYTHING = re.compile(r"(?:all|any) real(?:s| numbers?)", re.IGNORECASE)
_NOWHERE = re.compile(r"(?:the limit )?does not exist|dne", re.IGNORECASE)
TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\{([^{}]*)\}")

_POWERS_OF_TEN = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_DOLLAR = re.compile(r"(?<!\\)\$|\\\(|\\\)")
_OPEN, _NUMBER = r"(?<![\w.,)}\]^_/])", r"\d[\d,]*(?:\.\d+)?"
_FRACTION = r"\s*\\[dt]?frac(?:(\d)(\d)|\{(\d{1,9})\}\{(\d{1,9})\})|\s+(\d{1,9})/(\d{1,9})(?![\d/])"
_TRIGONOMETRIC = r"\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{?\d\}?)?"
_DEGREES = r"(\d+(?:\.\d+)?)\s*\^\s*(?:\\circ(?![a-z])|\{\s*\\circ\s*\})"


@lru_cache(maxsize=65_536)  # each answer of a problem is compared with many others
def as_latex(answer: str) -> str:
    """The answer in notation that math-verify reads. Formulas may be joined by "or" and "and"."""
    text = _SIGN.sub(lambda sign: _SIGNS[sign[0]], re.sub(r"\s+", " ", answer))
    if len(_DOLLAR.findall(text)) % 2 == 0:  # else it may be one of money
        text = re.sub(r"\s+", " ", _DOLLAR.sub("", text))
    words = re.sub(r"\s+", " ", TEXT.sub(r"\1", text).strip(" .$").lower())
    if _NOTHING.fullmatch(words):
        return r"\emptyset"
    if _NOWHERE.fullmatch(words):
        return r"\text{does not exist}"
    if _ANYTHING.fullmatch(words):
        return r"\mathbb{R}"
    if words in _JUDGED:
        return words
    if words in _NUMERALS:
        return _NUMERALS[words]
    if (listed := TEXT.fullmatch(text.strip())) and "," in listed[1]:
        text = listed[1]
    for pattern, written in _REWRITINGS:
        text = pattern.sub(written, text)
    return _alternatives(text)


def in_radians(one: str, other: str) -> tuple[str, str]:
    r"""Writes a plain angle in degrees, such as `90^\circ`, in radians, where the other answer has a pi."""
    for degrees, radians in ((one, other), (other, one)):
        angle = re.fullmatch(r"\$?([-+\d.]+|-?\\[dt]?frac\{\d+\}\{\d+\})\s*\^\s*\{?\\circ\s*\}?\$?", degrees.strip())
        if angle and re.search(r"\\pi(?![a-zA-Z])", radians):
            written = rf"\frac{{\pi}}{{180}} \cdot {angle[1]}"
            return (written, other) if degrees is one else (one, written)
    return one, other


def _repeating(decimal: re.Match[str]) -> str:
    whole, once, *repeated = decimal.groups()
    block = re.sub(r"\D", "", next(found for found in repeated if found))
    numerator = int(whole + once + block) - int(whole + once or "0")
    return rf"\frac{{{numerator}}}{{{'9' * len(block)}{'0' * len(once)}}}"


def _mixed(number: re.Match[str]) -> str:
    whole, numerator, denominator = (int(digits) for digits in number.groups() if digits)
    if numerator >= denominator:
        return number[0]
    return rf"\frac{{{whole * denominator + numerator}}}{{{denominator}}}"


def _scientific(number: re.Match[str]) -> str:
    return f"{Decimal(number[0]):f}"


def _multiplied(number: re.Match[str]) -> str:
    digits, opened, word, closed = number.groups()
    factor = 12 if word.lower() == "dozen" else 10 ** _POWERS_OF_TEN[word.lower()]
    return f"{Decimal(digits.replace(',', '')) * factor:f} " + (opened if opened and not closed else "")


def _ratio(terms: re.Match[str]) -> str:
    """A ratio of three and more as the multiples of its first term, which math-verify reads as a quotient."""
    first, *others = (term.strip() for term in terms[0].split(":"))
    return "(" + ", ".join(rf"\frac{{{other}}}{{{first}}}" for other in others) + ")"


def _bracketed(interval: re.Match[str]) -> str:
    return ("(" if interval[1] == "]" else "[") + interval[2] + (")" if interval[3] == "[" else "]")


_REWRITINGS: list[Rewriting] = [
    (re.compile(r"√\s*(\d+|[A-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"^\s*(\d{1,3}(?: \d{3})+)\s*$"), lambda number: number[1].replace(" ", "")),
    (re.compile(r",\s*(?:\\text\{\s*and\s*\}|and(?![a-zA-Z]))"), ","),
    # which math-verify reads as a mixed number
    (re.compile(r"(?<![\w_}])(\d+)\((\d+)\)"), r"\1 \\cdot \2"),
    (re.compile(r"(?<=[A-Za-z])'(?!\()"), r"_{\\prime}"),
    (re.compile(r"\\lg(?![a-z])"), r"\\log_{10}"),
    # odd roots are real
    (re.compile(r"\\sqrt\[([3579])\]\{\s*-([^{}+-]*)\}"), r"-\\sqrt[\1]{\2}"),
    (re.compile(r"\\(?:text|mathrm|textrm|operatorname)\{\s*([ei])\s*\}"), r"\1 "),
    # to math-verify, the i of `5i` and that of `5 i` are different symbols
    (re.compile(r"(?<=\d)(?:\s|\\[,;: ])*(?=i(?![A-Za-z]))"), " "),
    (re.compile(rf"{_OPEN}(\d{{0,9}})\.(\d{{0,9}})\\(?:overline|bar)\{{(\d{{1,9}})\}}"), _repeating),
    (re.compile(rf"{_OPEN}(\d{{0,9}})\.(\d{{0,9}})((?:\\dot\{{?\d\}}?\d{{0,7}}){{1,2}})(?!\d)"), _repeating),
    (
        re.compile(
            rf"{_OPEN}(\d{{0,9}})\.(\d{{0,9}}?)(?:(\d)\3{{2,9}}|(\d{{2,9}})\4{{1,9}})(?:\.\.\.|…|\\[lc]?dots(?![a-z]))"
        ),
        _repeating,
    ),
    (re.compile(rf"{_OPEN}(\d{{1,9}})(?:{_FRACTION})"), _mixed),
    (re.compile(rf"{_OPEN}(?:\d++(?:\.\d*+)?|\.\d++)[eE][+-]?\d{{1,3}}(?![\w.{{])"), _scientific),
    (
        re.compile(
            rf"{_OPEN}({_NUMBER})\s*(\\text\{{\s*)?({'|'.join(_POWERS_OF_TEN)}|dozen)s?(?![a-zA-Z])(\s*\}})?",
            re.IGNORECASE,
        ),
        _multiplied,
    ),
    (re.compile(r"(?<=[\d}])\s*(?:\\text\{\s*per ?cent\s*\}|per ?cent(?![a-zA-Z]))", re.IGNORECASE), r"\\%"),
    (
        re.compile(rf"({_TRIGONOMETRIC})\s*(?:\(\s*{_DEGREES}\s*\)|\{{\s*{_DEGREES}\s*\}}|{_DEGREES})"),
        lambda angle: rf"{angle[1]}(\frac{{{angle[2] or angle[3] or angle[4]}\pi}}{{180}})",
    ),
    (re.compile(r"\s*(?<![\d.])[\d.]++(?:\s*:\s*[\d.]++){2,}\s*"), _ratio),
    (re.compile(r"^\s*([\[\]])([^\[\]]+,[^\[\]]+)([\[\]])\s*$"), _bracketed),
    # {x | x > 0}
    (re.compile(r"^\s*\\\{\s*([a-z])(?:\s*\\in\s*\\mathbb\{R\})?\s*(?:\\mid|\\vert|\||:)\s*(.*\1.*)\\\}\s*$"), r"\2"),
]

_OR = re.compile(
    r",?\s*(?:\\text\{\s*(?:or|and)\s*\}|(?<![a-zA-Z\\])(?:or|and)(?![a-zA-Z])|\\(?:lor|vee)(?![a-z])|,)\s*"
)
_EITHER = re.compile(r"\\text\{\s*or\s*\}|(?<![a-zA-Z\\])or(?![a-zA-Z])|\\(?:lor|vee)(?![a-z])")
_ASSIGNED = re.compile(r"\s*([a-zA-Z](?:_\{?\w\}?)?)\s*=\s*([^=]+)")
_LESS, _MORE = r"(<|\\leq?(?:slant)?(?![a-z]))", r"(>|\\geq?(?:slant)?(?![a-z]))"
_SIDE, _VARIABLE = r"\s*([^<>=]+?)\s*", r"\s*([a-zA-Z])\s*"


def _alternatives(text: str) -> str:
    r"""Joins "x = 1 or x = 2" to `1,2`, and "x < 1 or x > 2" to a union of intervals; turns `2 > x > 1` round."""
    if "=" in text:
        parts = [_ASSIGNED.fullmatch(part) for part in _OR.split(text.strip("$ "))]
        if len(parts) > 1 and len({part and part[1] for part in parts}) == 1 and parts[0]:
            return ",".join(part[2] for part in parts if part)
    intervals = [_interval(part) for part in _EITHER.split(text)]
    if len(intervals) > 1 and None not in intervals:
        return r"\cup".join(interval for interval in intervals if interval)
    if chain := re.fullmatch(rf"{_SIDE}{_MORE}{_SIDE}{_MORE}{_SIDE}", text):
        left, first, middle, second, right = chain.groups()
        return f"{right} {_turned(second)} {middle} {_turned(first)} {left}"
    return text


def _turned(sign: str) -> str:
    return "<" if sign == ">" else r"\le"


def _interval(inequality: str) -> str | None:
    r"""`(-\infty,1)` for `x < 1`; None for what is not one or two bounds of a single letter."""
    if bound := re.fullmatch(rf"{_VARIABLE}{_LESS}{_SIDE}", inequality):
        return rf"(-\infty,{bound[3]}{')' if bound[2] == '<' else ']'}"
    if bound := re.fullmatch(rf"{_VARIABLE}{_MORE}{_SIDE}", inequality):
        return rf"{'(' if bound[2] == '>' else '['}{bound[3]},\infty)"
    if bounds := re.fullmatch(rf"{_SIDE}{_LESS}{_VARIABLE}{_LESS}{_SIDE}", inequality):
        low, first, _, second, high = bounds.groups()
        return f"{'(' if first == '<' else '['}{low},{high}{')' if second == '<' else ']'}"
    return None
