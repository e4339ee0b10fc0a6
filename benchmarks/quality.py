"""Accuracy of every strategy at equal budgets on the nano problems, and what A* saves against best-of-N.

    python benchmarks/quality.py                             # 400 problems, five budgets: hours on two cores, resumable
    python benchmarks/quality.py --limit 50 --budgets 128 512 --run runs/quality-small

Runs `infer compare` once for each budget, all into one folder. Start it again to finish missing cells. Strategies with
a width fixed in advance get n = budget / 128, so that all n can finish a solution of the longest level (some 110
tokens). Strategies that draw as many samples as the budget allows keep their defaults. Prints a table in Markdown:
accuracy, followed by the generated tokens a problem, and below it the largest half-width of Wilson's 95% intervals.
Then prints which strategies differ from plain majority voting at the same budget (exact McNemar test).

Then, for each level, prints how many tokens and reward model passes best-of-N needs for the accuracy of A*. The
accuracy of best-of-N at each N is exact over all subsets of a pool of `--pool` samples a problem; for the PRM-weighted
vote it comes from resampling. Between two N it is interpolated in the logarithm of tokens. The interval is a bootstrap
over problems. An accuracy that the pool does not reach counts as infinite cost.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from infer.analysis import at_k, read
from infer.analysis.pools import How
from infer.core.tally import wilson

STRATEGIES = [
    "best-of-n,choose=majority",
    "best-of-n",
    "best-of-n,choose=weighted",
    "best-of-n,level=step,n={n}",
    "self-consistency,n={samples}",
    "beam,n={n},width={width}",
    "dvts,n={n},width={width}",
    "astar",
    "astar,k=16",
    "particle-filter,n={n}",
    "particle-filter,n={n},mode=smc,choose=weighted",
    "particle-gibbs,choose=weighted",
    "mcts",
    "ab-mcts",
    "self-refine",
    "budget-forcing,answer=16",
]
"""The others are compared with the first."""
DRAWS = 2000


def configured(strategy: str, budget: int) -> str:
    """A strategy's options at a budget of tokens."""
    n = max(1, budget // 128)
    return strategy.format(n=n, width=min(n, 4), samples=max(1, budget // 64))


def named(strategy: str) -> str:
    """A strategy without the options that follow from the budget."""
    return ",".join(part for part in strategy.split(",") if "{" not in part)


def compare(folder: Path, limit: int, strategies: list[str], budget: int | None) -> list[dict[str, Any]]:
    """The cells of one budget, from `infer compare --json`."""
    command = [sys.executable, "-m", "infer", "compare", "--limit", str(limit), "--run", str(folder), "--json"]
    for strategy in strategies:
        command += ["-s", strategy]
    command += ["-b", str(budget)] if budget is not None else []
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    cells: list[dict[str, Any]] = found["cells"]
    return cells


def table(rows: dict[str, list[dict[str, Any]]], budgets: list[int]) -> None:
    print("| | " + " | ".join(f"{budget:,}" for budget in budgets) + " |")
    print("| --- |" + " --- |" * len(budgets))
    widest = 0.0
    for name, cells in rows.items():
        shown = [f"{cell['accuracy']:.3f} ({cell['generated_tokens_per_problem']:.0f})" for cell in cells]
        widest = max(widest, *((high - low) / 2 for low, high in (cell["accuracy_interval_95"] for cell in cells)))
        print(f"| {name} | " + " | ".join(shown) + " |")
    print(f"\nHalf-width of the 95% intervals: at most {widest:.3f}.\n")
    for name, cells in list(rows.items())[1:]:
        signs = []
        for budget, cell in zip(budgets, cells, strict=True):
            if "mcnemar_p" in cell and cell["mcnemar_p"] < 0.05:
                low, high = cell["difference_interval_95"]
                signs.append(f"{budget:,}: {cell['difference']:+.3f} ({low:+.3f} to {high:+.3f})")
        print(f"{name} against majority voting, p < .05: {'; '.join(signs) or 'nowhere'}")


def saving(search: Path, pool: Path, how: How) -> None:
    """For each level: tokens and passes of best-of-N at the accuracy of A*, relative to those of A*."""
    runs, found = read([pool]), read([search]).problems.set_index("problem_id")
    drawn = runs.problems
    found = found.loc[drawn["problem_id"]]
    ks = [2**i for i in range(int(math.log2(drawn["samples"].min())) + 1)]
    accuracy = at_k(runs, how, ks).to_numpy()  # [problems, ks]
    levels = drawn["level"].astype(str).to_numpy()
    rng = np.random.default_rng(0)
    for level in sorted(set(levels)):
        rows = np.flatnonzero(levels == level)
        ratios = []
        for draw in range(DRAWS + 1):
            picked = rows if draw == 0 else rng.choice(rows, len(rows))
            target = found["correct"].to_numpy()[picked].mean()
            n = needed(target, ks, accuracy[picked].mean(axis=0))
            per_sample = drawn[["generated", "passes"]].to_numpy()[picked].mean(axis=0) / drawn["samples"].min()
            ratios.append(n * per_sample / found[["generated", "passes"]].to_numpy()[picked].mean(axis=0))
        low, high = np.quantile(np.array(ratios[1:]), [0.025, 0.975], axis=0, method="nearest")
        tokens, passes = (f"{r:.2f} ({a:.2f} to {b:.2f})" for r, a, b in zip(ratios[0], low, high, strict=True))
        right = int(found["correct"].to_numpy()[rows].sum())
        interval = " to ".join(f"{bound:.3f}" for bound in wilson(right, len(rows)))
        print(
            f"| {level} | {right / len(rows):.3f} ({interval}) | {found['generated'].to_numpy()[rows].mean():.0f} | "
            f"{found['passes'].to_numpy()[rows].mean():.1f} | {tokens} | {passes} |"
        )


def needed(target: float, ks: list[int], accuracy: "np.ndarray[Any, Any]") -> float:
    """The smallest N, interpolated in its logarithm, at which best-of-N is as accurate; infinity if there is none."""
    if accuracy[0] >= target:
        return float(ks[0])
    for i in range(1, len(ks)):
        if accuracy[i] >= target:
            part = (target - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])
            return float(ks[i - 1] * (ks[i] / ks[i - 1]) ** part)
    return math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=400, help="problems, a fifth of each level")
    parser.add_argument("--budgets", type=int, nargs="+", default=[128, 256, 512, 1024, 2048], help="tokens a problem")
    parser.add_argument("--pool", type=int, default=32, help="samples a problem that best-of-N is computed from")
    parser.add_argument("--run", type=Path, default=Path("runs/quality"))
    args = parser.parse_args()

    rows: dict[str, list[dict[str, Any]]] = {}
    for budget in args.budgets:
        cells = compare(args.run, args.limit, [configured(s, budget) for s in STRATEGIES], budget)
        for strategy, cell in zip(STRATEGIES, cells, strict=True):
            rows.setdefault(named(strategy), []).append(cell)
    (greedy,) = compare(args.run, args.limit, ["greedy"], None)
    pool = f"best-of-n,n={args.pool},choose=weighted"
    compare(args.run, args.limit, [pool, "astar"], None)

    table(rows, args.budgets)
    print(f"\ngreedy: {greedy['accuracy']:.3f} with {greedy['generated_tokens_per_problem']:.0f} tokens\n")
    votes: dict[How, str] = {"best": "best-of-N by PRM", "weighted": "PRM-weighted vote of N"}
    for how, title in votes.items():
        print(f"| level | A*, k = 4 | tokens | passes | tokens of {title} over A*'s | passes |")
        print("| --- | --- | --- | --- | --- | --- |")
        saving(args.run / "astar", args.run / pool, how)
        print()
    print(json.dumps(vars(args) | {"run": str(args.run), "rows": rows}))


if __name__ == "__main__":
    main()
