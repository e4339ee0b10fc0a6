"""Procedurally generated arithmetic: chains of operations with a unique step-by-step solution.

A chain starts from a number and applies `+`, `-`, `*`, `/` from left to right. It is written as one expression with the
parentheses that precedence requires, such as `((23+54)*2-88)/3`. Its solution has one operation a step, so the label of
each step is an exact comparison of strings: no annotation, no noise.

A stable hash of its text puts every expression into exactly one of two splits. Training draws from one, evaluation from
the other, so a held-out problem never occurs in training, however many are drawn.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

LEVELS: dict[int, int] = {1: 2, 2: 4, 3: 6, 4: 8, 5: 10}
"""Operations in a problem of each level."""

STEP_END = "\n\n"
LARGEST = 999
_HELD_OUT_OF_256 = 32  # an eighth of all expressions


@dataclass(frozen=True, slots=True)
class Chain:
    """`start` followed by `operations`, each an operator of `+-*/` and its operand, applied from left to right."""

    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def expression(self) -> str:
        """The chain as one expression, with parentheses only where precedence needs them."""
        text, is_sum = str(self.start), False
        for operator, operand in self.operations:
            if operator in "*/" and is_sum:
                text = f"({text})"
            text += f"{operator}{operand}"
            is_sum = operator in "+-"
        return text

    @property
    def prompt(self) -> str:
        """The user's question: the expression and `=?`."""
        return f"{self.expression}=?"

    @property
    def values(self) -> list[int]:
        """The start and the result of every operation; one more than there are operations."""
        values = [self.start]
        for operator, operand in self.operations:
            result = apply(values[-1], operator, operand)
            assert result is not None, "a chain divides without remainder"
            values.append(result)
        return values

    @property
    def answer(self) -> int:
        """The value of the expression."""
        return self.values[-1]

    @property
    def steps(self) -> list[str]:
        """The reference solution's steps; the last is the answer: `["23+54=77", ..., "Answer: \\boxed{182}"]`."""
        values = self.values
        worked = [f"{a}{op}{b}={c}" for a, (op, b), c in zip(values, self.operations, values[1:], strict=False)]
        return [*worked, f"Answer: \\boxed{{{values[-1]}}}"]

    @property
    def solution(self) -> str:
        """The reference solution: its steps, separated by a blank line."""
        return STEP_END.join(self.steps)

    @property
    def level(self) -> int:
        """1 to 5: half the number of operations, rounded up."""
        return (len(self.operations) + 1) // 2

    @property
    def is_held_out(self) -> bool:
        """Whether the expression belongs to the evaluation split (the same on every machine and Python version)."""
        return hashlib.blake2b(self.expression.encode(), digest_size=1).digest()[0] < _HELD_OUT_OF_256


def apply(value: int, operator: str, operand: int) -> int | None:
    """`value operator operand`, or None where a division leaves a remainder or the divisor is 0."""
    match operator:
        case "+":
            return value + operand
        case "-":
            return value - operand
        case "*":
            return value * operand
        case "/":
            return value // operand if operand and value % operand == 0 else None
    raise ValueError(f"unknown operator {operator!r}")


def draw(rng: random.Random, operations: int) -> Chain:
    """Draws a chain: start 2..99, `+`/`-` with 2..99, `*` and exact `/` with 2..9, every value in 1..999.

    First a possible operator is drawn, then its operand. Only `rng.random()` is used, since Python promises to keep its
    sequence between versions.
    """
    start = value = 2 + int(rng.random() * 98)
    chain: list[tuple[str, int]] = []
    while len(chain) < operations:
        operator = "+-*/"[int(rng.random() * 4)]
        if operator == "/":
            operands = [d for d in range(2, 10) if value % d == 0]
        else:
            last = {"+": min(99, LARGEST - value), "-": min(99, value - 1), "*": min(9, LARGEST // value)}[operator]
            operands = list(range(2, last + 1))
        if not operands:
            continue
        operand = operands[int(rng.random() * len(operands))]
        result = apply(value, operator, operand)
        assert result is not None
        value = result
        chain.append((operator, operand))
    return Chain(start, tuple(chain))


def training(seed: int) -> Iterator[Chain]:
    """An endless stream of chains of 2 to 10 operations, none of them held out."""
    rng = random.Random(seed)
    while True:
        chain = draw(rng, 2 + int(rng.random() * 9))
        if not chain.is_held_out:
            yield chain


def held_out(level: int, seed: int = 0) -> Iterator[Chain]:
    """An endless stream of different held-out chains of one level, the same for every caller of that seed."""
    rng = random.Random(f"held out, level {level}, seed {seed}")
    seen: set[Chain] = set()
    while True:
        chain = draw(rng, LEVELS[level])
        if chain.is_held_out and chain not in seen:
            seen.add(chain)
            yield chain


def expected_steps(chain: Chain, steps: list[str]) -> list[str | None]:
    """The right text of each written step, given the steps before it; None where no text is right.

    The right step k applies the chain's k-th operation to the value that step k-1 wrote (the start for k = 1); after
    the last operation, the right answer repeats the last value. No result is right where a slip led to a division with
    a remainder: `?`, which no model writes, then stands for it. No text is right where the value before can't be read,
    or after the answer.
    """
    expected: list[str | None] = []
    value: int | None = chain.start
    for k, step in enumerate(steps):
        if k < len(chain.operations):
            operator, operand = chain.operations[k]
            result = None if value is None else apply(value, operator, operand)
            written_result = "?" if result is None else result
            expected.append(None if value is None else f"{value}{operator}{operand}={written_result}")
            written = step.rpartition("=")[2]
            value = int(written) if written.removeprefix("-").isdecimal() else None
        else:
            expected.append(f"Answer: \\boxed{{{value}}}" if k == len(chain.operations) and value is not None else None)
    return expected


def label_steps(chain: Chain, steps: list[str]) -> list[bool]:
    """Whether each written step is right by itself, given the steps before it: one slip makes one wrong step.

    A solution is right if and only if all its steps are and the last of them is the answer.
    """
    return [step == right for step, right in zip(steps, expected_steps(chain, steps), strict=True)]


def corrupt(chain: Chain, rng: random.Random, miscopied: float, miscalculated: float) -> list[str]:
    """A solution with slips; each step continues from the value that the last one wrote.

    With probability `miscopied` each, a step misreads the value before it, a step applies another of the chain's
    operations, and the answer misreads the last value. With probability `miscalculated` a step writes a wrong result.
    """
    steps: list[str] = []
    value = chain.start
    for operation in chain.operations:
        if rng.random() < miscopied:
            value = _slip(value, rng)
        if rng.random() < miscopied:
            operation = chain.operations[int(rng.random() * len(chain.operations))]
        operator, operand = operation
        exact = apply(value, operator, operand)
        result = value // operand if exact is None else exact
        if rng.random() < miscalculated:
            result = _slip(result, rng)
        steps.append(f"{value}{operator}{operand}={result}")
        value = result
    answer = _slip(value, rng) if rng.random() < miscopied else value
    return [*steps, f"Answer: \\boxed{{{answer}}}"]


def _slip(value: int, rng: random.Random) -> int:
    """`value` with one digit changed, by one up or down (a wrong carry) or to any other."""
    place = int(10 ** int(rng.random() * len(str(abs(value)))))
    digit = abs(value) // place % 10
    other = (digit + (1 if rng.random() < 0.5 else 9) if rng.random() < 0.5 else digit + 1 + int(rng.random() * 9)) % 10
    return value + (other - digit) * place * (-1 if value < 0 else 1)
