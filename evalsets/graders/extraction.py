r"""Finds the final answer in the text of a solution.

extract(r"... so it is \boxed{\frac{1}{2}}.")    # \frac{1}{2}
"""

import re

_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>|\[(/?)THINK\]|◁(/?)think▷", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
# a letter counts only where nothing comes after it: in "\boxed I think" a sentence begins
_BARE = re.compile(
    r"[ \t]*([+-]?\.?[0-9][^\s$]*|[A-Za-z](?=\s*(?:[$.,;]|\\\)|\\\]|$))|\\[a-zA-Z]+(?:\{[^{}]*\})*)", re.MULTILINE
)
_BRACE = re.compile(r"\s*\{")
_HASHES = re.compile(r"^#### *(\S.*)$", re.MULTILINE)
_SAID = re.compile(r"\banswer(?:\s+is|\**\s*:)[\s*:]*", re.IGNORECASE)
_HEADING = re.compile(r"^[ \t#*_>]*(?:the[ \t]+)?final[ \t]+answer[ \t*_:]*\n\s*", re.IGNORECASE | re.MULTILINE)
# a dollar sign before a digit closes no formula: "$18 and not $20"
_FORMULA = re.compile(r"\$\$(?:\\.|[^\\$])+\$\$|\\\[.+?\\\]|\\\(.+?\\\)|\$(?:\\.|[^\\$\n])+\$(?!\d)", re.DOTALL)
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


def _extract(text: str) -> str | None:
    cut_off = False
    for box in reversed(list(_BOX.finditer(text))):
        content = _content(text, box.end())
        if content:
            return content
        cut_off = cut_off or (content is None and _BRACE.match(text, box.end()) is not None)
    if cut_off:
        return None
    if marked := _HASHES.findall(text):
        return str(marked[-1]).strip()
    said = [(found.end(), False) for found in _SAID.finditer(text)]
    said += [(found.end(), True) for found in _HEADING.finditer(text)]
    for start, heading in sorted(said, reverse=True):
        answer = _stated(text, start, heading)
        if _BOX.search(answer):
            continue  # an empty box (others were taken above): a form that was not filled in
        if _CONTENT.search(answer) and not _JUDGEMENT.fullmatch(answer):
            return answer
    return None


def _stated(text: str, start: int, heading: bool) -> str:
    """The formula at `start`, or the last one of the sentence under a heading; else the rest of the sentence."""
    if formula := _FORMULA.match(text, start):
        return without_delimiters(formula[0])
    paragraph = text[start:].partition("\n\n")[0]
    if heading and (formulas := _FORMULA.findall(paragraph)):
        return without_delimiters(formulas[-1])
    return re.split(r"\.(?:\s|$)|\n", text[start:], maxsplit=1)[0].strip().strip("*").strip()


def _content(text: str, start: int) -> str | None:
    """The content of the braces that open at `start`, or the bare word there; None: they are not closed."""
    brace = _BRACE.match(text, start)
    if brace is None:
        bare = _BARE.match(text, start)
        return bare[1].rstrip(".,;") if bare else None
    start = brace.end() - 1
    depth = 0
    end = start
    while end < len(text):
        if text[end] == "\\":
            end += 1  # an escaped brace is part of the answer
        elif text[end] == "{":
            depth += 1
        elif text[end] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : end].strip()
        end += 1
    return None
