"""Reading and analysing many runs: time and memory on synthetic runs, and the coverage of the intervals.

    python benchmarks/analysis.py                  # 1/20 of 1,000 runs x 500 problems x 64 samples
    python benchmarks/analysis.py --scale 1        # all of it: 32 million samples, 1.4 GB of side files
    python benchmarks/analysis.py --coverage       # 2,000 simulated experiments for each kind of interval

The first reading of a run parses its JSON. That is timed on one run of 500 x 64 samples with texts. Every later reading
takes columns from the side files that the first one leaves. Later readings and the analysis are timed on runs with side
files only, since their JSON would be tens of gigabytes. The analysis is the accuracy of all configurations, pass@k,
best-of-k and majority@k for k = 1, 2, 4, ... 64 with clustered intervals, and the frontier of all configurations with
its band. Each stage is timed separately.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from infer.analysis import LOG_LINEAR, SATURATING, Outcomes, accuracy, at_k, fit, frontier, mean, outcomes, read, share
from infer.analysis.columns import stamp_of, store

RUNS, PROBLEMS, SAMPLES = 1000, 500, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.05, help="share of the 1,000 runs")
    parser.add_argument("--coverage", action="store_true", help="the intervals' coverage instead")
    arguments = parser.parse_args()
    if arguments.coverage:
        coverage()
        return
    with tempfile.TemporaryDirectory() as folder:
        first_reading(Path(folder) / "first")
        later_readings(Path(folder), max(2, round(arguments.scale * RUNS)))


def first_reading(folder: Path) -> None:
    rng = np.random.default_rng(0)
    describe(folder, 0)
    with (folder / "solutions.jsonl").open("w") as file:
        for problem in range(PROBLEMS):
            file.write(json.dumps(solution(problem, rng)) + "\n")
    size = (folder / "solutions.jsonl").stat().st_size / 1e6
    seconds = timed(lambda: read([folder]))
    again = timed(lambda: read([folder]))
    print(f"first reading of one run: {size:.0f} MB of JSON in {seconds:.1f} s ({size / seconds:.0f} MB/s), ", end="")
    print(f"{PROBLEMS * SAMPLES:,} samples graded; again: {again:.3f} s", flush=True)


def later_readings(folder: Path, count: int) -> None:
    rng = np.random.default_rng(1)
    paths = [folder / f"run{index}" for index in range(count)]
    size = 0
    for index, path in enumerate(paths):
        describe(path, index)
        (path / "solutions.jsonl").touch()
        store(path, stamp_of(path / "solutions.jsonl"), *tables(index, rng))
        size += sum(file.stat().st_size for file in (path / ".analysis").iterdir())
    print(f"{count} runs, {count * PROBLEMS * SAMPLES:,} samples, {size / 1e6:.0f} MB of side files", flush=True)
    before = resident()
    total = np.zeros(2)

    def line(name: str, seconds: float, busy: float) -> None:
        full = RUNS / count
        print(f"  {name:<32}{seconds:7.2f} s ({busy:6.2f} s CPU); times {full:g}: {seconds * full:6.1f} s", flush=True)

    def stage(name: str, work: Callable[[], Any]) -> Any:
        nonlocal total
        start, busy = time.perf_counter(), time.process_time()
        result = work()
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        total += np.array([seconds, busy])
        line(name, seconds, busy)
        return result

    runs = stage("read", lambda: read(paths))
    stage("accuracy by configuration", lambda: accuracy(runs))
    for how in ("pass", "best", "majority"):
        stage(f"{how}@k, exact", lambda how=how: intervals(runs, at_k(runs, how)))  # type: ignore[misc]
    of = stage("problems x configurations", lambda: outcomes(runs))
    stage("frontier, 1,000 resamples", lambda: frontier(of, draws=1000))
    line("all", *total)
    print(f"peak resident memory {resident() / 1e3:.2f} GB, {before / 1e3:.2f} GB of it before reading")


def intervals(runs: Any, values: Any) -> None:
    for _, rows in runs.problems.groupby("configuration", observed=True).groups.items():
        for k in values.columns:
            share(values.loc[rows, k], runs.problems.loc[rows, "problem_id"])


def describe(folder: Path, index: int) -> None:
    folder.mkdir()
    options = {"n": SAMPLES, "choose": "majority", "variant": index // 4}  # four seeds of each
    config = {"model": "m", "strategy": "best-of-n", "options": options, "budget": None, "seed": index % 4, "on": "x"}
    record = {"version": 1, "created": "", "config": config, "facts": [{"verifier": {"aggregation": "min"}}]}
    (folder / "run.json").write_text(json.dumps(record))


def solution(problem: int, rng: np.random.Generator) -> dict[str, Any]:
    answers = rng.choice(20, SAMPLES, p=rng.dirichlet(np.r_[2, np.full(19, 0.3)]))
    candidates = [
        {
            "address": [place],
            "tokens": rng.integers(0, 150_000, 120).tolist(),
            "num_tokens": 120,
            "text": "A step of some length, as models write them.\n\n" * 8,
            "answer": str(answer),
            "finished": True,
            "steps": ["A step of some length, as models write them.\n\n"] * 8,
            "scores": rng.random(8).tolist(),
            "logprob": -0.5,
        }
        for place, answer in enumerate(answers)
    ]
    usage = {"generated": 120 * SAMPLES, "discarded": 120 * (SAMPLES - 1), "prefill": 90, "passes": 8 * SAMPLES}
    return {
        "problem_id": f"p{problem}",
        "level": "1",
        "reference": "0",
        "answer": str(answers[0]),
        "correct": bool(answers[0] == 0),
        "finished": True,
        "chosen": 0,
        "candidates": candidates,
        "usage": usage,
        "seconds": 1.0,
        "note": None,
    }


def tables(index: int, rng: np.random.Generator) -> tuple[pa.Table, pa.Table]:
    """The side files' tables of a synthetic run. Problems differ in difficulty and in their wrong answers."""
    count = PROBLEMS * SAMPLES
    skill = rng.beta(2, 2, PROBLEMS)
    wrong = rng.dirichlet(np.full(19, 0.3), PROBLEMS)
    chances = np.cumsum(np.column_stack([skill, wrong * (1 - skill)[:, None]]), axis=1)
    group = (rng.random((PROBLEMS, SAMPLES, 1)) > chances[:, None, :-1]).sum(axis=2)
    right = group == 0
    tokens = rng.integers(50, 2000, count).astype(np.int32)
    scores = np.clip(right + rng.normal(0, 0.5, right.shape), 0, 1).ravel()
    spent = tokens.reshape(PROBLEMS, SAMPLES).sum(axis=1).astype(np.int64)
    problems = pa.table(
        {
            "problem_id": [f"p{problem}" for problem in range(PROBLEMS)],
            "level": ["1"] * PROBLEMS,
            "reference": ["0"] * PROBLEMS,
            "answer": ["0"] * PROBLEMS,
            "correct": right[:, 0].astype(np.float64),
            "finished": np.ones(PROBLEMS, dtype=bool),
            "samples": np.full(PROBLEMS, SAMPLES, dtype=np.int32),
            "chosen": np.zeros(PROBLEMS, dtype=np.int64),
            "note": pa.nulls(PROBLEMS, pa.string()),
            "seconds": np.ones(PROBLEMS),
            "generated": spent + index // 4,
            "discarded": spent // 2,
        }
    )
    candidates = {
        "num_tokens": tokens,
        "depth": np.ones(count, dtype=np.int16),
        "finished": np.ones(count, dtype=bool),
        "correct": right.ravel().astype(np.float32),
        "group": group.ravel().astype(np.int32),
        "chosen": np.zeros(count, dtype=bool),
        "passes": np.full(count, 8, dtype=np.int32),
        **{f"score_{how}": scores for how in ("last", "min", "prod", "mean")},
        "logprob": np.full(count, np.nan),
    }
    return problems, pa.table(candidates)


def coverage(draws: int = 2000) -> None:
    """The share of nominal 95% intervals that contain the truth."""
    rng = np.random.default_rng(0)

    def report(name: str, hits: "np.ndarray[Any, Any]") -> None:
        print(f"{name:<56}{'  '.join(f'{hit / draws:.1%}' for hit in np.atleast_1d(hits))}", flush=True)

    for problems, seeds, a, b in ((100, 1, 1, 1), (30, 4, 2, 2), (500, 1, 8, 2), (100, 5, 6, 1), (30, 1, 9, 1)):
        hits = 0
        for _ in range(draws):
            right = rng.random((problems, seeds)) < rng.beta(a, b, (problems, 1))
            estimate = share(right.ravel(), np.repeat(np.arange(problems), seeds))
            hits += estimate.low <= a / (a + b) <= estimate.high
        report(f"accuracy {a / (a + b):.0%}, {problems} problems x {seeds} runs", np.array(hits))
    hits = sum(holds(mean(rng.gamma(4, 25, 60), np.arange(60)), 100) for _ in range(draws))
    report("mean cost, 60 problems", np.array(hits))
    report("frontier, 150 problems, at three costs", frontier_coverage(rng, draws))
    cost = np.geomspace(100, 1e4, 8)
    for law, truth in ((LOG_LINEAR, [0.1, 0.15]), (SATURATING, [0.8, 50.0, 0.6])):
        line = law.function(cost[None], np.array(truth))
        counts = np.zeros(len(truth))
        for _ in range(draws):
            found = fit(law, cost, line + rng.normal(0, 0.005, len(cost)))
            counts += [low <= value <= high for (low, high), value in zip(found.intervals.values(), truth, strict=True)]
        report(f"{law.name} law, {', '.join(law.parameters)}", counts)


def frontier_coverage(rng: np.random.Generator, draws: int) -> "np.ndarray[Any, Any]":
    """The coverage of the band of the best accuracy, at each cost of clearly different configurations."""
    levels, hits = np.array([0.4, 0.6, 0.75]), np.zeros(3)
    prices = pd.DataFrame(np.tile([1.0, 10.0, 100.0], (150, 1)), columns=list("abc"))
    for draw in range(draws):
        right = rng.random((150, 1)) < levels
        of = Outcomes(pd.DataFrame(right.astype(float), columns=list("abc")), prices, "tokens")
        _, steps = frontier(of, points=3, draws=300, seed=draw)
        hits += (steps["low"] <= levels) & (levels <= steps["high"])
    return hits


def holds(estimate: Any, truth: float) -> bool:
    return bool(estimate.low <= truth <= estimate.high)


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def resident() -> float:
    """Peak resident set of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
