"""The process that math-verify runs in: one comparison a line, as JSON over its standard input and output.

Apart from the engine, because sympy can take for ever or all memory on what a model writes, and no thread can be made
to stop. Started by `mathematics.py` beside it; imports nothing of ours, so that it starts in a third of a second.

Asked `[gold, target, seconds]`, it answers `true` or `false`. What takes longer than `seconds` ends the process: the
alarm is left to the operating system, which stops C code as well and does so even when the parent is gone.
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle, it closes us
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    from math_verify import parse, verify
    from sympy import Expr, Float, Symbol, UnevaluatedExpr  # type: ignore[import-untyped]

    logging.disable()
    # whatever the libraries print must neither reach the protocol nor fill a pipe that nobody empties
    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

    def value(result: list[Any]) -> complex | None:
        """An expression's value, with fixed values for its variables; None: not an expression, or not evaluated."""
        expression = result[0] if result else None
        # not where math-verify compares by other means: rounded decimals, percentages, names read as products
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

    @lru_cache(maxsize=4096)  # parsing takes twice as long as comparing, and each answer is compared many times
    def parsed(answer: str) -> tuple[list[Any], complex | None]:
        # in a box, so that the whole of it is read as LaTeX; None: no alarm but ours
        result: list[Any] = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
        return result, value(result)

    def equal(gold: str, target: str) -> bool:
        (a, at_a), (b, at_b) = parsed(gold), parsed(target)
        # what differs at a point is different: this spares `simplify` the attempt to make the difference vanish
        if at_a is not None and at_b is not None and abs(at_a - at_b) > 1e-6 * max(1, abs(at_a), abs(at_b)):
            return False
        # an interval equals the inequality that describes it, whichever of them is the reference
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
