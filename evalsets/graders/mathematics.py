r"""Mathematics: decides whether two answers are equal.

    async with Mathematics() as checker:
        await checker.equal(r"\frac{1}{2}", "0.5")   # Verdict(right=True, note=None)
        await checker.group(problem, ["1/2", None, "0.5"])    # [0, -1, 0]

Quantities and times are compared first (`quantities.py`). Other answers are rewritten (`notation.py`) and compared as
strings, without differences of looks and without units next to a plain number, then by math-verify, which reads them,
and by their values (`mathematics_worker.py`). `tests/evalsets/test_pairs.py` lists the known cases where the verdict is
wrong.
"""

import asyncio
import json
import logging
import re
import signal
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from string import ascii_uppercase
from types import TracebackType
from typing import Any, Literal, Self

from infer.core.grading import Verdict
from infer.core.problem import Problem
from infer.evalsets.graders import quantities
from infer.evalsets.graders.extraction import extract, without_delimiters
from infer.evalsets.graders.notation import TEXT, as_latex, in_radians

logger = logging.getLogger(__name__)

VERSION = 2
"""Of the rules: to be raised with each change that may change a verdict."""
CACHED_VERDICTS = 65_536
# Longer answers are degenerate completions: parsing each would take the whole time limit. No reference is longer.
MAX_CHARS = 1_000

_NUMBER = re.compile(r"(?=[+-]?\.?[0-9])([+-]?)0*+([0-9]*)(?:\.([0-9]*))?")
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")


@lru_cache(maxsize=CACHED_VERDICTS)
def normalize(answer: str) -> str:
    """The answer without differences of looks: spacing, size of brackets, dollar signs, a final full stop.

    Plain numbers have one form: no thousands separators (a comma and three digits without a space), no redundant zeros.
    Two plain numbers are equal if and only if these forms are.
    """
    text = without_delimiters(answer.strip().rstrip(".").strip()).rstrip(".")
    text = text.replace("\u2212", "-").replace("\\$", "").replace("{,}", ",").replace(",\\!", ",")
    text = re.sub(r"\\[dt]frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"\\(?:left|right|displaystyle)(?![a-zA-Z])\s*|\\[!,;:]", "", text)
    text = re.sub(r"\\(?:q?quad(?![a-zA-Z])| )|~", " ", text).strip()
    if whole := TEXT.fullmatch(text):
        text = whole[1].strip()
    if choice := re.fullmatch(r"\(([A-Za-z])\)", text):
        text = choice[1]
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if number := _NUMBER.fullmatch(text):
        sign, whole_part, decimals = number[1], number[2] or "0", (number[3] or "").rstrip("0")
        value = f"{whole_part}.{decimals}" if decimals else whole_part
        return f"-{value}" if sign == "-" and value != "0" else value
    # no space next to a sign; one between letters or digits, where it can have a meaning: 3 1/2, \\pi r
    return re.sub(r"\s+", " ", re.sub(r"\s*([^\w\s\\])\s*|\s+(?=\\)", r"\1", text))


def _is_number(normal: str) -> bool:
    return _NUMBER.fullmatch(normal) is not None


# words that change the number before them, or make it a bound
_CHANGES = (
    r"(?:zero|one|two|three|four|fort[yi]|fift|five|six|seven|eight|nine|eleven|twel|twen|thir[dt])[a-z]*|ten(?:th)?s?|"
    r"(?:hundred|thousand|[mbtr]+illion|percent)[a-z]*|per\s?cent|cent|half|halves|dozens?|squared|cubed|factorial|"
    r"or|not|least|most|below|negative|infinity|alpha|beta|gamma|delta|eta|theta|lambda|mu|rho|sigma|tau|phi|psi|omega|"
    r"(?:sin|cos|tan|cot|log|exp|sqrt)[x-z]?"
)
# the name of a thing or unit, but not a product of variables such as `xy` and `abc`
_WORD = (
    rf"(?!(?:{_CHANGES})\b)(?:(?!(?:[a-d]+|[i-k]+|[t-z]+)\b)(?=[a-z]*[aeiouy])[a-z]{{3,}}|"
    r"[ckm]m|[km]g|m[il]|ft|in|yd|lb|oz|hr|sq|cu)(?:/ ?[a-z]+)?(?:\^\{?[23]\}?)?"
)
_WORDS = rf"{_WORD}(?:[ .]+(?:{_WORD}|a|at|by|of|on|to))*"
_MODULO = r"\\pmod ?\{?\w+\}?|\(\\?mod ?\{?\w+\}?\)"
_COUNT = re.compile(rf"\$?([+-]?[0-9.,]+) ?(?:{_WORDS}|{_MODULO})?", re.IGNORECASE)
_TEXT_AFTER_NUMBER = re.compile(r"(?<=[0-9/])\\(?:text|textit|textrm|mathrm|mbox)\{ ?([^{}]*?) ?\}")


_UPRIGHT = r"\\(?:text|textit|textrm|mathrm|mbox)\{[^{}]*\}(?:\^\{?\d\}?)?"
_UNIT_AT_END = re.compile(rf"(?<=[\d)}}])\s*(?:{_UPRIGHT}|{_WORDS})$", re.IGNORECASE)
_CHANGED = re.compile(rf"\b(?:{_CHANGES})\b", re.IGNORECASE)


def _without_unit(answer: str) -> str:
    """The answer without a unit at its end, for math-verify."""
    unit = _UNIT_AT_END.search(answer.rstrip(" .$"))
    return answer if unit is None or _CHANGED.search(unit[0]) else answer[: unit.start()]


def _without_units(gold: str, target: str) -> tuple[str, str]:
    r"""Writes `18\text{ cm}` as `18 cm` in normalized answers, and as `18` where the other is a plain number."""
    gold, target = (_TEXT_AFTER_NUMBER.sub(r" \1", normal) for normal in (gold, target))
    if _is_number(gold):
        return gold, _number_of(target)
    if _is_number(target):
        return _number_of(gold), target
    return gold, target


def _number_of(normal: str) -> str:
    """The number in an answer that has a unit, a counted thing or a modulus after it; else the answer."""
    count = _COUNT.fullmatch(normal)
    number = normalize(count[1]) if count else ""
    return number if _is_number(number) else normal


# a letter, or a letter and a text after it: B, (B), B. 12, B) 12
_CHOICE = re.compile(r"\(?([A-Za-z])(?:[).:]{1,2}\s*|\s+|$)(.*)", re.DOTALL)
_OUTER_COMMA = re.compile(r",(?![^(\[{]*[)\]}])")
_IN_BASE = re.compile(r"[0-9]+_\{?([0-9]+)\}?")
_SET = re.compile(r"\\\{[^()\[\]|:<>]*\\\}")
_TUPLE = re.compile(r"\([^()\[\]]*,[^()\[\]]*\)")


def _apart(gold: str, target: str) -> bool:
    """Whether normalized answers differ in ways that math-verify overlooks: repeats in a list, bases, set or tuple."""
    bases = {number[1] for number in (_IN_BASE.fullmatch(gold), _IN_BASE.fullmatch(target)) if number}
    one, other = _repeated(gold), _repeated(target)
    if len(one) != len(other) or len(bases) > 1:
        return True
    if one != other and all(map(_is_number, one + other)):
        return True
    return any(_SET.fullmatch(a) and _TUPLE.fullmatch(b) for a, b in ((gold, target), (target, gold)))


def _repeated(normal: str) -> list[str]:
    """The items of a list that occur before in it."""
    items = _OUTER_COMMA.split(normal)
    return sorted(item for place, item in enumerate(items) if item in items[:place])


TOOK_TOO_LONG = "comparing the answers took too long: not equal"


class Mathematics:
    """Compares answers, any number at once, from one event loop.

    With `method` "math" it asks math-verify where the normalized strings differ; with "exact" it does not. math-verify
    runs in up to `workers` processes of its own, which start when they are first needed. A comparison that takes longer
    than `seconds`, or more memory than its process may use, ends that process and counts as not equal. Verdicts are
    cached.
    """

    def __init__(self, method: Literal["math", "exact"] = "math", *, seconds: float = 5.0, workers: int = 2) -> None:
        self.method = method
        self.seconds = seconds
        self._slots = asyncio.Semaphore(workers)
        self._idle: list[_Worker] = []
        self._verdicts: OrderedDict[tuple[str, str], Verdict] = OrderedDict()
        self._asked: dict[tuple[str, str], asyncio.Task[Verdict]] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @staticmethod
    def extract(text: str) -> str | None:
        """The final answer in a solution (see `extract`)."""
        return extract(text)

    async def grade(self, problem: Problem, answer: str) -> Verdict:
        """Compares an answer with the problem's right answers, of which there must be one: any of them counts."""
        assert problem.answer is not None
        right = (problem.answer, *problem.also)
        if problem.choices:
            return Verdict(await self._chosen(problem, answer) in right)
        verdict = Verdict(False)
        for reference in right:
            verdict = await self.equal(reference, answer)
            if verdict.right:
                break
        return verdict

    def describe(self) -> dict[str, Any]:
        return {"answers": self.method, "version": VERSION}

    async def close(self) -> None:
        """Ends the processes and cancels comparisons in progress."""
        self._closed = True
        for task in list(self._asked.values()):
            task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
        while self._idle:
            await self._idle.pop().stop()

    async def equal(self, reference: str, answer: str) -> Verdict:
        r"""Whether an answer is the reference.

        math-verify is not symmetric: the reference decides how an equation is read. `x=5` and `5` are equal either way.
        If the answer is any other equation and the reference a value, the equation's right side is compared. If the
        reference is such an equation, no value equals it.
        """
        if max(len(reference), len(answer)) > MAX_CHARS:
            return Verdict(normalize(reference) == normalize(answer))
        if self.method == "math" and (same := quantities.compare(reference, answer)) is not None:
            return Verdict(same)
        reference, answer = in_radians(as_latex(reference), as_latex(answer))
        key = normalize(reference), normalize(answer)
        gold, target = _without_units(*key)
        if gold == target:
            return Verdict(True)
        numbers = _is_number(gold) and _is_number(target)
        if self.method == "exact" or numbers or _apart(gold, target):
            return Verdict(False)
        if key in self._verdicts:
            self._verdicts.move_to_end(key)
            return self._verdicts[key]
        if self._closed:
            raise RuntimeError("the answer checker is closed")
        if key not in self._asked:
            task = asyncio.create_task(self._ask(key, reference, answer))
            self._asked[key] = task
            task.add_done_callback(lambda done: self._asked.pop(key))
        # shielded: a cancelled caller neither breaks the protocol of the process nor cancels others that wait for it
        return await asyncio.shield(self._asked[key])

    async def group(self, problem: Problem, answers: Sequence[str | None]) -> list[int]:
        """For each answer the index of the first answer equal to it; -1 for None. Votes are counted by this index.

        An answer joins the first class whose first member it equals, with that member as the reference. Of multiple
        choice, answers that choose the same are equal.
        """
        if problem.choices:
            chosen = [None if answer is None else await self._chosen(problem, answer) for answer in answers]
            answers = [letter or answer for letter, answer in zip(chosen, answers, strict=True)]
        classes: list[int] = []
        known: dict[str, int] = {}
        result = []
        for index, answer in enumerate(answers):
            if answer is None:
                result.append(-1)
                continue
            normal = normalize(answer)
            if normal not in known:
                known[normal] = await self._class(answers, classes, answer)
                if known[normal] < 0:
                    known[normal] = index
                    classes.append(index)
            result.append(known[normal])
        return result

    async def _chosen(self, problem: Problem, answer: str) -> str | None:
        """The letter of the choice that an answer names, by its letter, its text or both; None: none, or several."""
        texts = dict(zip(ascii_uppercase, problem.choices, strict=False))
        labelled = _CHOICE.fullmatch(TEXT.sub(r"\1", answer).strip(" $."))
        letter = labelled[1].upper() if labelled else ""
        if labelled and letter in texts and not labelled[2]:
            return letter
        named = await self._named(texts, answer)
        if named is None and labelled and letter in texts:
            named = await self._named(texts, labelled[2])
            return named if named == letter else None
        return named

    async def _named(self, texts: Mapping[str, str], answer: str) -> str | None:
        """The letter of the only text that looks like the answer, or else of the only one equal to it."""
        same = [letter for letter, text in texts.items() if normalize(text).lower() == normalize(answer).lower()]
        if not same:
            verdicts = await asyncio.gather(*(self.equal(text, answer) for text in texts.values()))
            same = [letter for letter, verdict in zip(texts, verdicts, strict=True) if verdict.right]
        return same[0] if len(same) == 1 else None

    async def _class(self, answers: Sequence[str | None], classes: Sequence[int], answer: str) -> int:
        for first in classes:
            representative = answers[first]
            if representative is not None and (await self.equal(representative, answer)).right:
                return first
        return -1

    async def _ask(self, key: tuple[str, str], reference: str, answer: str) -> Verdict:
        async with self._slots:
            while self._idle and self._idle[-1].process.returncode is not None:
                self._idle.pop()  # ended from outside
            worker = self._idle.pop() if self._idle else await _Worker.start()
            equal = None
            try:
                equal = await worker.compare(_without_unit(reference), _without_unit(answer), self.seconds)
            finally:
                if equal is not None:
                    self._idle.append(worker)
                else:
                    status = await worker.stop()
        if equal is None:
            why = f"took over {self.seconds:g} s" if status == -signal.SIGALRM else f"ended its process ({status})"
            logger.warning("comparing %s with %s %s: counted as not equal", _short(reference), _short(answer), why)
        verdict = Verdict(bool(equal), note=TOOK_TOO_LONG if equal is None else None)
        self._verdicts[key] = verdict
        if len(self._verdicts) > CACHED_VERDICTS:
            self._verdicts.popitem(last=False)
        return verdict


class _Worker:
    """A process that runs `mathematics_worker.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.stdin = process.stdin
        self.stdout = process.stdout

    @classmethod
    async def start(cls) -> Self:
        # a fresh interpreter: a fork is unsafe (we have threads), and multiprocessing runs the main script again
        # -P: else the other files of this folder could be imported in place of modules of the same name
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", str(Path(__file__).with_name("mathematics_worker.py"))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        worker = cls(process)
        try:
            ready = await worker.stdout.readline()
            if not ready:
                _, errors = await process.communicate()
                reason = (errors.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
                raise RuntimeError(f"math-verify can't start in its own process: {reason}")
        except BaseException:
            await worker.stop()
            raise
        return worker

    async def compare(self, reference: str, answer: str, seconds: float) -> bool | None:
        """Whether they are equal; None: the process ended before it had a verdict."""
        try:
            self.stdin.write(json.dumps([reference, answer, seconds]).encode() + b"\n")
            await self.stdin.drain()
        except ConnectionError:
            return None
        line = await self.stdout.readline()
        return bool(json.loads(line)) if line.endswith(b"\n") else None

    async def stop(self) -> int | None:
        """Ends the process unless it has ended by itself. Returns its exit status, negative for a signal."""
        if not self.stdout.at_eof():  # else it is already ending, and a kill could hide its status
            self.process.kill()
            await self.process.communicate()
        return await self.process.wait()


def _short(answer: str) -> str:
    return repr(answer if len(answer) <= 60 else f"{answer[:57]}...")
