"""The process in which math-verify runs: one comparison a line, as JSON over standard input and output.

It is separate from the engine, because sympy can take unlimited time or memory on a model's text, and a thread can't be
stopped. `mathematics.py` beside it starts it. It imports nothing of ours, so it starts in a third of a second.

To `[gold, target, seconds]` it answers `true` or `false`. A comparison that takes longer than `seconds` ends the
process. The operating system gives the alarm: it interrupts C code too, and works even after the parent has died.
"""

import cmath
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


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and closes us
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    from math_verify import parse, verify
    from sympy import Expr, Float, Symbol, UnevaluatedExpr  # type: ignore[import-untyped]

    logging.disable()
    # output of the libraries must neither mix with the answers nor fill a pipe that nobody reads
    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

    def value(result: list[Any]) -> complex | None:
        """An expression's value, with fixed values for its variables; None: not an expression, or not evaluated."""
        expression = result[0] if result else None
        # math-verify compares these in other ways: rounded decimals, percentages, names read as products
        if not isinstance(expression, Expr) or isinstance(expression, Symbol):
            return None
        if expression.has(Float, UnevaluatedExpr):
            return None
        try:
            values = {v: 0.5 + zlib.crc32(v.name.encode()) % 1009 / 1009 for v in expression.free_symbols}
            number = complex(expression.evalf(15, subs=values))
        except Exception:
            return None
        return number if cmath.isfinite(number) else None

    @lru_cache(maxsize=4096)  # parsing takes twice as long as comparing, and each answer is compared often
    def parsed(answer: str) -> tuple[list[Any], complex | None]:
        # in a box, so that all of it is read as LaTeX; None: no alarm but ours
        result: list[Any] = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
        return result, value(result)

    def equal(gold: str, target: str) -> bool:
        (a, at_a), (b, at_b) = parsed(gold), parsed(target)
        # expressions that differ at a point are different: this saves `simplify` a long attempt to prove otherwise
        if at_a is not None and at_b is not None and abs(at_a - at_b) > 1e-6 * max(1, abs(at_a), abs(at_b)):
            return False
        # an interval equals the inequality that describes it, whichever of the two is the reference
        return bool(verify(a, b, timeout_seconds=None, allow_set_relation_comp=True))

    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        gold, target, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        verdict = equal(gold, target)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(verdict), file=answers, flush=True)


if __name__ == "__main__":
    main()
