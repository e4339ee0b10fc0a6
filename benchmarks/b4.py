"""B4's simulation: how often is the chosen solution right, when solutions and tests are wrong at known rates?

    OMP_NUM_THREADS=1 python benchmarks/b4.py
    python benchmarks/b4.py --repeats 2000 --settings 10

Draws matrices from B4's model (see `infer/core/consensus.py`) with 10 solutions and 30 tests, and chooses with the
hyper-parameters 10 and 10, as the simulation does that B4's authors published. A matrix whose solutions are all right
or all wrong is left out. All choices see the same matrices. Where several solutions are equally good, the share of
right ones among them counts. `optimal` has B4's prior, and chooses by the exact posterior.

The authors' script has one setting of the rates, marked `*` here, and takes others as options. The grid of their figure
was not at hand, so this grid is ours, around that setting. It goes from the hard corner (few right solutions and tests,
wrong solutions that pass much) to the easy one.

Prints the share of matrices in which each choice is right, and the relative gains of B4. The published gains stand
below: the abstract (2409.08692) says up to 50% over the strongest heuristic and 246% over a random choice "in the most
challenging scenarios", with programs and tests of language models. The paper's figures for max-pass and codet alone
were not at hand. Ends with one JSON line.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infer.core.consensus import Prior, Selection, b4, codet, max_pass, mbr_exec, optimal

PRIOR = Prior(alpha_xy=10, beta_0=10)
CHOICES: dict[str, Callable[[NDArray[np.bool_]], Selection]] = {
    "max-pass": max_pass,
    "codet": codet,
    "mbr-exec": mbr_exec,
    "b4": partial(b4, prior=PRIOR),
    "optimal": partial(optimal, prior=PRIOR),
}


class Rates(NamedTuple):
    x: float
    """The probability that a solution is right."""
    y: float
    """That a test is right."""
    wrong: float
    """That a wrong solution passes a wrong test."""
    right: float
    """That a wrong solution passes a right test."""


THEIRS = Rates(0.2, 0.3, 0.1, 0.4)
GRID = [Rates(*rates) for rates in product((0.1, 0.2, 0.4), (0.1, 0.3, 0.6), (0.2, 0.1, 0.05), (0.6, 0.4, 0.2))]


def draw(rates: Rates, rng: np.random.Generator, solutions: int, tests: int) -> tuple[NDArray[np.bool_], ...]:
    """Which solutions are right, and the matrix of passes."""
    x, y = rng.random(solutions) < rates.x, rng.random(tests) < rates.y
    wrong = rng.random((solutions, tests)) < np.where(y, rates.right, rates.wrong)
    return x, np.where(x[:, None], y, wrong)


def accuracy(rates: Rates, repeats: int, seed: int, solutions: int, tests: int) -> dict[str, float]:
    """The share of matrices in which each choice is right."""
    rng = np.random.default_rng(seed)
    sums = dict.fromkeys(["random", *CHOICES], 0.0)
    drawn = 0
    for _ in range(repeats):
        x, passes = draw(rates, rng, solutions, tests)
        if x.all() or not x.any():
            continue
        drawn += 1
        sums["random"] += x.mean()
        for name, choose in CHOICES.items():
            sums[name] += x[list(choose(passes).solutions)].mean()
    return {name: float(value) / max(drawn, 1) for name, value in sums.items()}


HEURISTICS = ("max-pass", "codet", "mbr-exec")
BASES = ("max-pass", "codet", "strongest", "random")
PUBLISHED = {"strongest": 0.50, "random": 2.46}


def gains(of: dict[str, float]) -> dict[str, float]:
    """B4's relative gain over others; infinite over one that is never right."""
    bases = {**of, "strongest": max(of[name] for name in HEURISTICS)}
    return {base: of["b4"] / bases[base] - 1 if bases[base] else math.inf for base in BASES}


def percents(of: dict[str, float]) -> str:
    return " ".join(f"{of[base]:+9.0%}" if base in of else f"{'-':>9}" for base in BASES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20_000, help="matrices for each setting")
    parser.add_argument("--settings", type=int, default=len(GRID), help="how many, from the hard corner on")
    parser.add_argument("--solutions", type=int, default=10)
    parser.add_argument("--tests", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    start = time.perf_counter()
    print("   x    y  wrong right |" + "".join(f"{name:>9}" for name in ("random", *CHOICES)), end=" | b4 over:\n")
    print(" " * 22 + "|" + " " * 54 + " | " + " ".join(f"{base:>9}" for base in BASES))
    results = {}
    for rates in GRID[: args.settings]:
        of = results[rates] = accuracy(rates, args.repeats, args.seed, args.solutions, args.tests)
        shares = "".join(f"{of[name]:9.1%}" for name in ("random", *CHOICES))
        setting = f"{rates.x:4g} {rates.y:4g} {rates.wrong:6g} {rates.right:5g} "
        print(f"{setting}|{shares} | {percents(gains(of))}{' *' if rates == THEIRS else ''}", flush=True)

    print(f"\n{args.repeats:,} matrices a setting, {time.perf_counter() - start:.0f} s. Gains of B4:")
    most = max(results, key=lambda rates: gains(results[rates])["strongest"])
    named = {"in the hard corner": GRID[0], "in the authors' setting": THEIRS, "most over the strongest": most}
    for name, rates in named.items():
        if rates in results:
            print(f"  {name:75} | {percents(gains(results[rates]))}")
    print(f"  {'published, at most, with language models':75} | {percents(PUBLISHED)}")
    ahead = {name: sum(of[name] > of["b4"] + 0.005 for of in results.values()) for name in HEURISTICS}
    counts = ", ".join(f"{name} in {count}" for name, count in ahead.items())
    print(f"settings of {len(results)} in which another is ahead of B4 by half a point or more: {counts}")
    leads = [of["optimal"] - of["b4"] for of in results.values()]
    print(f"exact optimum less B4, in points: {100 * np.mean(leads):.2f} on average, {100 * max(leads):.2f} at most")
    print(
        json.dumps({"repeats": args.repeats, "results": [{**rates._asdict(), **of} for rates, of in results.items()]})
    )


if __name__ == "__main__":
    main()
