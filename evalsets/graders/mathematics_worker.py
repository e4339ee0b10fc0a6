"""The process in which math-verify runs: one comparison a line, as JSON over standard input and output.

It is separate from the engine, because sympy can take unlimited time or memory on a model's text, and a thread can't be
stopped. `mathematics.py` beside it starts it. It imports nothing of ours, so it starts in a third of a second.

To `[gold, target, seconds]` it answers `true` or `false`. A comparison that takes longer than `seconds` ends the
process. The operating system gives the alarm: it interrupts C code too, and works even after the parent has died.

math-verify reads the answers and compares sets, intervals, equations and names. Numbers and formulas are compared here,
by their values to 50 digits (`same`): math-verify takes numbers below 1e-15 for zero.
"""

import json
import logging
import os
import resource
import signal
import sys
import zlib
from functools import lru_cache
from typing import Any

MEMORY_BYTES = 2 << 30
DIGITS = 50
AGREE = "1e-30"
"""Values that differ by less than this share of themselves are equal."""
POINTS = ((1, "+"), (7, "+"), (1, "mixed"), (7, "mixed"), (3, "-"))
"""Where formulas are compared: the size of their variables, and its sign."""


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and closes us
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable()
    # output of the libraries must neither mix with the answers nor fill a pipe that nobody reads
    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    compare_by_value()
    # units are dropped by `mathematics.py`: here `t` and `s` are variables
    normal = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="all")
    read = [LatexExtractionConfig(normalization_config=normal)]

    @lru_cache(maxsize=4096)  # parsing takes twice as long as comparing, and each answer is compared often
    def parsed(answer: str) -> list[Any]:
        # in a box, and as LaTeX alone: all of it is read, or nothing. No alarm but ours.
        result: list[Any] = parse(f"\\boxed{{{answer}}}", read, parsing_timeout=None)
        return result

    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        gold, target, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        # an interval equals the inequality that describes it, whichever of the two is the reference
        verdict = bool(verify(parsed(gold), parsed(target), timeout_seconds=None, allow_set_relation_comp=True))
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(verdict), file=answers, flush=True)


def compare_by_value() -> None:
    """Makes math-verify compare numbers and formulas by `same`, and by simplification only where that can't tell.

    Brittle: it replaces four functions inside `math_verify.grader`, as version 0.9 has them.
    """
    from math_verify import grader

    by_name, by_simplification = grader.sympy_compare_symbols, grader.sympy_symbolic_eq
    by_solution = grader.sympy_solve_and_compare

    def compare_numbers(a: Any, b: Any, *_: Any) -> bool:
        return same(a, b) is True

    def compare_names(a: Any, b: Any) -> bool:
        return by_name(a, b) or same(a, b) is True

    def simplify(a: Any, b: Any) -> bool:
        return same(a, b) is None and by_simplification(a, b)

    def compare_equations(a: Any, b: Any, *rest: Any) -> bool:
        curves = _curve(a), _curve(b)
        return bool(by_solution(a, b, *rest)) if None in curves else curves[0] == curves[1]

    grader.sympy_numeric_eq = compare_numbers
    grader.sympy_solve_and_compare = compare_equations
    grader.sympy_compare_symbols = compare_names
    grader.sympy_symbolic_eq = simplify


def same(a: Any, b: Any) -> bool | None:
    """Whether two numbers, formulas or matrices have the same value wherever both have one; None: that can't be told.

    Variables are real, and so is every root and logarithm, unless the imaginary unit occurs. A percentage is also its
    number without the sign. A decimal equals a value that has no end as a decimal, such as 1/3, where both agree to six
    decimal places and six significant digits.
    """
    from sympy import (  # type: ignore[import-untyped]
        Expr,
        Integer,
        MatrixBase,
        Rational,
        UnevaluatedExpr,
    )

    if isinstance(a, MatrixBase) and isinstance(b, MatrixBase):
        return _all(same(x, y) for x, y in zip(a.flat(), b.flat(), strict=True)) if a.shape == b.shape else False
    if not isinstance(a, Expr) or not isinstance(b, Expr):
        return None
    sign = UnevaluatedExpr(Rational(1, 100))
    without = _same(*(number.xreplace({sign: Integer(1)}) for number in (a, b)))
    if without or a.has(sign) == b.has(sign):
        return without
    return _same(*(number.xreplace({sign: Rational(1, 100)}) for number in (a, b)))


def _curve(equation: Any) -> Any:
    """The polynomial that is zero where an equation holds, the same for all forms of it; None: it has none."""
    from sympy import Eq, Expr, Float, Poly, Rational, fraction, together

    if not isinstance(equation, Eq) or not isinstance(equation.lhs, Expr) or not isinstance(equation.rhs, Expr):
        return None
    difference = equation.lhs - equation.rhs
    difference = difference.xreplace({number: Rational(str(number)) for number in difference.atoms(Float)})
    try:
        top = fraction(together(difference.doit()))[0]
        return Poly(top, *sorted(top.free_symbols, key=str)).sqf_part().monic()
    except Exception:  # sympy fails in many ways on what is no polynomial
        return None


def _all(verdicts: Any) -> bool | None:
    """False if one is, else None if one is, else True."""
    found = list(verdicts)
    return False if False in found else None if None in found else True


@lru_cache(maxsize=4096)
def _same(a: Any, b: Any) -> bool | None:
    from sympy import (
        Derivative,
        Float,
        I,
        Integral,
        Limit,
        Max,
        Min,
        Mod,
        Piecewise,
        Product,
        Rational,
        Sum,
        ceiling,
        floor,
    )

    a, b = (formula.doit() if formula.has(Integral, Derivative, Sum, Product, Limit) else formula for formula in (a, b))

    floats = a.atoms(Float) | b.atoms(Float)
    read = {number: Rational(str(number)) for number in floats}
    read |= {name: I for name in a.free_symbols | b.free_symbols if name.name == "i"}  # to math-verify it is a variable
    a, b = a.xreplace(read), b.xreplace(read)
    names = a.free_symbols | b.free_symbols
    rounded = bool(floats) and not (_ends(a) and _ends(b))
    real = not (a.has(I) or b.has(I))
    agreed = 0
    for number, (size, sign) in enumerate(POINTS if names else POINTS[:1]):
        if sign != "+" and not real:
            continue
        point = {name: _coordinate(name.name, number, size, sign) for name in names}
        x, y = _value(a, point, real), _value(b, point, real)
        if x is None or y is None:
            continue
        if not _close(x, y, rounded):
            return False
        agreed += 1
    if not names and agreed and not rounded and not _close_to_zero(a - b):
        return False
    # formulas with these may agree at a few points, and not elsewhere
    stepwise = bool(names) and any(formula.has(floor, ceiling, Max, Min, Mod, Piecewise) for formula in (a, b))
    return True if agreed > min(len(names), 1) and not stepwise else None


def _ends(number: Any) -> bool:
    """Whether it is a number that ends as a decimal: 1/8 does, 1/3 does not."""
    if not number.is_Rational:
        return False
    rest = int(number.q)
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _coordinate(name: str, number: int, size: int, sign: str) -> Any:
    from sympy import Rational

    digest = zlib.crc32(f"{name} {number}".encode())
    value = size * (Rational(1, 2) + Rational(digest % 1009, 1009))
    return -value if sign == "-" or (sign == "mixed" and digest // 1009 % 2) else value


def _value(expression: Any, point: dict[Any, Any], real: bool) -> Any:
    """The value at a point to 50 digits; None: it has none, or with `real`, something in it is not real."""
    from sympy import Pow, log

    if real and point:
        roots = [power for power in expression.atoms(Pow, log) if not (power.is_Pow and power.exp.is_Integer)]
        if any((value := _number(root, point)) is None or value.imag != 0 for root in roots):
            return None
    return _number(expression, point)


def _number(expression: Any, point: dict[Any, Any]) -> Any:
    import mpmath  # type: ignore[import-untyped]

    try:
        parts = expression.evalf(DIGITS, subs=point).as_real_imag()
        # one bit of precision: all digits cancelled
        with mpmath.workdps(DIGITS):
            number = mpmath.mpc(*(0 if part._prec == 1 else part._to_mpmath(200) for part in parts))
    except Exception:  # sympy fails in many ways where there is no value
        return None
    return number if mpmath.isfinite(number) else None


def _close_to_zero(difference: Any) -> bool:
    """Whether the difference of two numbers that agree to 30 digits is zero, or too small for 1,000 digits to tell."""
    try:
        parts = difference.evalf(15, maxn=1000).as_real_imag()
        return all(part == 0 or part._prec == 1 for part in parts)
    except Exception:  # sympy fails in many ways on what it can't evaluate
        return True


def _close(x: Any, y: Any, rounded: bool) -> bool:
    import mpmath

    with mpmath.workdps(DIGITS):
        apart, size = abs(x - y), max(abs(x), abs(y))
        if rounded and size:
            places = min(-6, int(mpmath.floor(mpmath.log10(size))) - 5)
            return bool(apart <= mpmath.mpf(5) * mpmath.mpf(10) ** (places - 1))
        return bool(apart <= mpmath.mpf(AGREE) * size)


if __name__ == "__main__":
    main()
