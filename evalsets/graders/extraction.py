r"""Finds the final answer in the text of a solution.

extract(r"... so it is \boxed{\frac{1}{2}}.")    # \frac{1}{2}
"""

import re
from collections.abc import Iterator

MOST_STATED = 20
"""Statements of an answer that are read, the last first: a model that repeats itself makes thousands."""
MOST_CHARS = 4_000
"""Of the paragraph under a heading, in which a formula is sought."""

_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>|\[(/?)THINK\]|◁(/?)think▷", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
# a letter counts only where nothing comes after it: in "\boxed I think" a sentence begins
_BARE = re.compile(
    r"[ \t]*([+-]?\.?[0-9][^\s$]*|[A-Za-z](?=\s*(?:[$.,;]|\\\)|\\\]|$))|\\[a-zA-Z]+(?:\{[^{}]*\})*)", re.MULTILINE
)
_BRACE = re.compile(r"\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_HASHES = re.compile(r"^#### *(\S.*)$", re.MULTILINE)
_SAID = re.compile(r"\banswer(?:\s+is|\**\s*:)[\s*:]*", re.IGNORECASE)
_HEADING = re.compile(r"^[ \t#*_>]*(?:the[ \t]+)?final[ \t]+answer[ \t*_:]*\n\s*", re.IGNORECASE | re.MULTILINE)
_SENTENCE_END = re.compile(r"\.(?:\s|$)|\n")
# a dollar sign before a digit closes no formula: "$18 and not $20"
# bounded: where a text repeats an opening sign, each would otherwise search for its partner to the end
_FORMULA = re.compile(
    r"\$\$(?:\\.|[^\\$]){1,1000}\$\$|\\\[.{1,1000}?\\\]|\\\(.{1,1000}?\\\)|\$(?:\\.|[^\\$\n]){1,1000}\$(?!\d)",
    re.DOTALL,
)
# the least that an answer contains, apart from marks around it
_CONTENT = re.compile(r"[^\W_]|[∞∅]|\\\{\s*\\\}")
_JUDGEMENT = re.compile(r"(?:(?:in)?correct|right|wrong)\W*", re.IGNORECASE)


def extract(text: str) -> str | None:
    r"""The final answer of a solution; None where it gives none.

    This is the content of the last `\boxed{}` or `\fbox{}` that is closed and not empty. Without one it is the text
    after the last `####` at the start of a line, as in GSM8K; else the formula, or the rest of the sentence, after the
    last "answer is ...", "Answer: ..." or heading "Final Answer", unless it only judges ("the answer is correct"). A
    solution that was cut off inside its only box has no answer.

    A thought (`<think>`) that was never closed holds no answer. One that was closed counts where no other text does.
    """
    outside: list[str] = []
    start, opened = 0, None
    for mark in _THOUGHT.finditer(text):
        if any(mark.groups()):
            if opened is None:
                outside.clear()  # the prompt began the thought
            start, opened = mark.end(), None
        elif opened is None:
            outside.append(text[start : mark.start()])
            opened = mark.start()
    if opened is None:
        outside.append(text[start:])
    said = "\n".join(outside)
    answer = _extract(said)
    return _extract(text[:opened]) if answer is None and not _BOX.search(said) else answer


def without_delimiters(text: str) -> str:
    """The text without the dollar signs or brackets of a formula around all of it."""
    for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
            text = text[len(opening) : -len(closing)].strip()
    return text


def boxes(text: str) -> Iterator[str | None]:
    r"""What is in each `\boxed{}`, `\fbox{}` or `\boxed 5`, the last first; None where the text ends inside."""
    places = [box.end() for box in _BOX.finditer(text)]
    closings = _closings(text) if places else {}
    for place in reversed(places):
        if brace := _BRACE.match(text, place):
            end = closings.get(brace.end() - 1)
            yield None if end is None else text[brace.end() : end].strip()
        else:
            bare = _BARE.match(text, place)
            yield bare[1].rstrip(".,;") if bare else ""


def _closings(text: str) -> dict[int, int]:
    """For each brace that is closed, where. Escaped braces are part of an answer."""
    closings: dict[int, int] = {}
    opened: list[int] = []
    for found in _BRACES.finditer(text):
        if found[0] == "{":
            opened.append(found.start())
        elif found[0] == "}" and opened:
            closings[opened.pop()] = found.start()
    return closings


def _extract(text: str) -> str | None:
    cut_off = False
    for content in boxes(text):
        if content:
            return content
        cut_off = cut_off or content is None
    if cut_off:
        return None
    if marked := _HASHES.findall(text):
        return str(marked[-1]).strip()
    said = [(found.end(), False) for found in _SAID.finditer(text)]
    said += [(found.end(), True) for found in _HEADING.finditer(text)]
    for start, heading in sorted(said, reverse=True)[:MOST_STATED]:
        answer = _stated(text, start, heading)
        if _BOX.search(answer):
            continue  # an empty box (others were taken above): a form that was not filled in
        if _CONTENT.search(answer) and not _JUDGEMENT.fullmatch(answer):
            return answer
    return None


def _stated(text: str, start: int, heading: bool) -> str:
    """The formula at `start`, or the last one of the paragraph under a heading; else the rest of the sentence."""
    if formula := _FORMULA.match(text, start):
        return without_delimiters(formula[0])
    if heading and (formulas := _FORMULA.findall(text[start : start + MOST_CHARS].partition("\n\n")[0])):
        return without_delimiters(formulas[-1])
    stop = _SENTENCE_END.search(text, start)
    return text[start : stop.start() if stop else None].strip().strip("*").strip()
