"""The accuracy of k samples, from one pool of n: exact over all subsets of k, never the first k alone.

    pass@k            at least one of k is right            (Chen et al. 2107.03374, eq. 1)
    best-of-k         the one with the best score is right
    majority@k        the answer with the most votes is right
    weighted@k        the answer with the largest sum of scores is right

Each is the mean over all C(n, k) subsets of the pool, so it is unbiased for k independent samples. Ties between scores
or between votes are broken uniformly; for votes this is the rule "the first seen wins" over samples in random order.
Majority votes are counted exactly. No such formula is known for weighted votes, so they are resampled for k above 1.
With fewer than k samples the result is NaN.

Arrays have the shape [pools, n]. `correct` is in {0, 1}; NaN means not graded, and makes the result NaN. A `score` of
NaN means no score: the sample ranks last and has no vote, and the result is NaN where no sample has a score. `group` is
the class of equal answers; -1 means no answer and no vote. Results have the shape [pools, len(ks)].
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from infer.analysis.frames import Runs
from infer.errors import UserError

Array = np.ndarray[Any, Any]
How = Literal["pass", "best", "majority", "weighted"]

ROWS = 4096
"""Pools that are processed at once; this bounds the memory."""


def at_k(
    runs: Runs,
    how: How,
    ks: Sequence[int] | None = None,
    *,
    score: str = "score",
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The accuracy of k samples on each problem: a share in [0, 1], NaN where there are fewer than k samples.

    Indexed by the row in `runs.problems`, with one column for each k (default: powers of two). Candidates that are not
    finished have no vote and rank last. All candidates of a problem are taken as independent samples, as best-of-n
    draws them; those of a search are not independent (see `independent`). `score` is a column of `Runs.candidates`;
    `draws` and `seed` are for the weighted vote. Raises UserError where candidates need scores and have none.
    """
    needs = {
        "pass": [],
        "best": ["finished", score],
        "majority": ["finished", "group"],
        "weighted": ["finished", "group", score],
    }[how]
    candidates = runs.candidates(["correct", *needs])
    if score in needs and len(candidates) and not candidates[score].notna().any():
        raise UserError(f"these runs have no {score.replace('_', ' ')} to choose by: score them with a reward model")
    if ks is None:
        ks = powers(int(runs.problems["samples"].max()) if len(runs.problems) else 1)
    values = np.full((len(runs.problems), len(ks)), np.nan)
    rng = np.random.default_rng(seed)
    for rows, columns in pools(candidates):
        correct = columns["correct"]
        match how:
            case "pass":
                values[rows] = pass_at_k(correct, ks)
            case "best":
                scores = columns[score]
                scores = np.where(columns["finished"] | np.isnan(scores), scores, -np.inf)  # last, yet scored
                values[rows] = best_at_k(correct, scores, ks)
            case "majority":
                groups = np.where(columns["finished"], columns["group"], -1)
                values[rows] = majority_at_k(correct, groups, ks)
            case "weighted":
                groups = np.where(columns["finished"], columns["group"], -1)
                values[rows] = weighted_at_k(correct, groups, columns[score], ks, draws=draws, rng=rng)
    return pd.DataFrame(values, columns=pd.Index(ks, name="k"))


def independent(runs: Runs) -> pd.Series:
    """Whether all candidates of each run were sampled from the prompt in one piece, and some problem has two."""
    depth = runs.candidates(["depth"])
    codes = runs.problems["run"].cat.codes.to_numpy()
    deepest = np.zeros(len(runs.runs), dtype=np.int64)
    np.maximum.at(deepest, codes[depth["problem"].to_numpy()], depth["depth"].to_numpy())
    samples = runs.problems.groupby("run", observed=False)["samples"].max().fillna(0)
    return pd.Series((deepest == 1) & (samples.to_numpy() > 1), index=runs.runs.index)


def graded_pools(runs: Runs) -> Runs:
    """The runs with several independent, graded samples of a problem. Raises UserError where there are none."""
    several = independent(runs)
    if not several.any():
        raise UserError("no run has several independent samples of a problem, as best-of-n draws them")
    candidates = runs.candidates(["correct"])
    rows = candidates.loc[candidates["correct"].notna(), "problem"]
    several &= several.index.isin(runs.problems["run"].iloc[rows])
    if not several.any():
        raise UserError("no candidate was graded")
    return runs.select(several)


def powers(n: int) -> list[int]:
    """1, 2, 4, ... up to n, and n itself."""
    return sorted({2**i for i in range(max(1, n).bit_length())} | {max(1, n)})


def pools(candidates: pd.DataFrame) -> Iterator[tuple[Array, dict[str, Array]]]:
    """Groups problems by their number of candidates n: yields rows in `problems`, and columns of shape [pools, n]."""
    problem = candidates["problem"].to_numpy()
    starts = np.flatnonzero(np.diff(problem, prepend=-1))
    sizes = np.diff(np.append(starts, len(problem)))
    columns = {name: candidates[name].to_numpy() for name in candidates.columns if name != "problem"}
    for n in np.unique(sizes):
        first = starts[sizes == n]
        for begin in range(0, len(first), 16 * ROWS):
            part = first[begin : begin + 16 * ROWS]
            if part[-1] - part[0] == (len(part) - 1) * n:  # they lie side by side: no copy
                shown = {name: values[part[0] : part[0] + len(part) * n] for name, values in columns.items()}
            else:
                index = (part[:, None] + np.arange(n)).ravel()
                shown = {name: values[index] for name, values in columns.items()}
            yield problem[part], {name: values.reshape(len(part), n) for name, values in shown.items()}


def pass_at_k(correct: Array, ks: Sequence[int]) -> Array:
    """1 - C(n - c, k) / C(n, k), with c of the n right."""
    n = correct.shape[1]
    right = correct.sum(axis=1, dtype=np.float64)
    graded = ~np.isnan(right)
    right = np.where(graded, right, 0).astype(np.int64)
    found = np.full((len(correct), len(ks)), np.nan)
    for column, k in enumerate(ks):
        if 1 <= k <= n:
            table = np.array([1 - math.comb(n - c, k) / math.comb(n, k) for c in range(n + 1)])
            found[:, column] = np.where(graded, table[right], np.nan)
    return found


def best_at_k(correct: Array, score: Array, ks: Sequence[int]) -> Array:
    """The sample with the best score among k: it is the r-th best of all n with probability C(n - r, k - 1) / C(n, k).

    Samples with equal scores share their places, and so their probability.
    """
    pools, n = correct.shape
    unscored = np.isnan(score)
    score = np.where(unscored, -np.inf, score)
    order = np.argsort(-score, axis=1, kind="stable")
    score, correct = np.take_along_axis(score, order, 1), np.take_along_axis(correct, order, 1)
    first = np.ones((pools, n), dtype=bool)
    first[:, 1:] = score[:, 1:] != score[:, :-1]
    tied = np.cumsum(first.ravel()) - 1
    shared = np.bincount(tied, correct.ravel()) / np.bincount(tied)
    weights = np.full((n, len(ks)), np.nan)
    for column, k in enumerate(ks):
        if 1 <= k <= n:
            weights[:, column] = [math.comb(n - r, k - 1) / math.comb(n, k) for r in range(1, n + 1)]
    found = shared[tied].reshape(pools, n) @ weights
    found[unscored.all(axis=1)] = np.nan
    return np.asarray(found)


def majority_at_k(correct: Array, group: Array, ks: Sequence[int]) -> Array:
    """The answer with the most votes among k, counted over all subsets by dynamic programming over the classes.

    Class j has N_j members in the pool. The numbers n_j of its members in a subset follow the multivariate
    hypergeometric law: that of independent binomials B(N_j, r) given that they sum to k, for any r. If class c wins
    with v votes, all others have at most v. The polynomial prod_j (A_j(x) + t B_j(x)), with A_j for n_j < v and B_j for
    n_j = v, counts the samples used by the power of x, and the classes that tie with c by the power m of t; c then wins
    with probability 1 / (m + 1). Where nobody votes, the answer is wrong.
    """
    pools, n = correct.shape
    found = np.full((pools, len(ks)), np.nan)
    rows, contests, right = _contests(correct, group)
    contests, same = np.unique(contests, axis=0, return_inverse=True)
    wins = np.zeros((len(contests), len(ks)))
    below = [column for column, k in enumerate(ks) if 1 <= k < n]
    # one r for all k, unless the pool is so large that its far binomials vanish
    for part, r in [(below, 0.5)] if n <= 1000 else [([column], ks[column] / n) for column in below]:
        if part and len(contests):
            wins[:, part] = _wins(contests, n, [ks[column] for column in part], r)
    own, others = contests[:, :1], contests[:, 2:]
    whole = (own >= others).all(axis=1) / (1 + (own == others).sum(axis=1))  # the only subset of n
    for column, k in enumerate(ks):
        if 1 <= k <= n:
            wins_of = whole if k == n else wins[:, column]
            found[:, column] = np.bincount(rows, wins_of[same.ravel()] * right, minlength=pools)
    found[np.isnan(correct).any(axis=1)] = np.nan
    return found


def weighted_at_k(
    correct: Array, group: Array, score: Array, ks: Sequence[int], *, draws: int = 1000, rng: np.random.Generator
) -> Array:
    """The answer with the largest sum of scores among k, in `draws` random subsets of each pool.

    The standard error of each number is below 0.5 / sqrt(draws), and that of a mean falls with the number of pools. The
    result for k = 1 is exact: the sample wins if it has a vote.
    """
    pools, n = correct.shape
    found = np.full((pools, len(ks)), np.nan)
    unscored = np.isnan(score)
    group = np.where(unscored, -1, group)
    for column in (column for column, k in enumerate(ks) if k == 1 <= n):
        found[:, column] = np.where(group < 0, 0.0, correct).mean(axis=1, dtype=np.float64)
    possible = sorted({k for k in ks if 1 < k <= n})
    width = int(group.max(initial=-1)) + 2  # the last column: no vote
    part = max(1, (1 << 22) // (draws * max(n, width)))
    for begin in range(0, pools, part):
        rows = slice(begin, begin + part)
        classes = np.where(group[rows] < 0, width - 1, group[rows])
        size = len(classes)
        order = np.argsort(rng.random((size, draws, n)), axis=2)
        drawn = np.take_along_axis(np.broadcast_to(classes[:, None], order.shape), order, 2)
        weight, right = (
            np.take_along_axis(np.broadcast_to(np.nan_to_num(values[rows])[:, None], order.shape), order, 2)
            for values in (score, correct)
        )
        place = drawn + width * np.arange(size * draws).reshape(size, draws, 1)
        votes, hits, members = (np.zeros((size, draws, width)) for _ in range(3))
        before = 0
        for k in possible:
            new = place[:, :, before:k].ravel()
            for total, values in ((votes, weight), (hits, right), (members, np.ones_like(right))):
                total += np.bincount(new, values[:, :, before:k].ravel(), total.size).reshape(total.shape)
            before = k
            voted = np.where(members > 0, votes, -np.inf)[:, :, :-1]
            top = voted.max(axis=2, keepdims=True, initial=-np.inf)
            leads = np.isfinite(top) & (voted >= top - 1e-12 * np.abs(top))  # equal but for rounding
            shares = hits[:, :, :-1] / np.maximum(members[:, :, :-1], 1)
            won = (leads * shares).sum(axis=2) / np.maximum(leads.sum(axis=2), 1)
            for column in (column for column, wanted in enumerate(ks) if wanted == k):
                found[rows, column] = won.mean(axis=1)
    found[np.isnan(correct).any(axis=1) | unscored.all(axis=1)] = np.nan
    return found


def _contests(correct: Array, group: Array) -> tuple[Array, Array, Array]:
    """One row for each class with right members: its pool, its contest, and the share of it that is right.

    The contest is [its size, samples without a vote, sizes of the other classes from large to small, zeros].
    """
    pools, n = correct.shape
    voters = group >= 0
    width = int(group.max(initial=-1)) + 1
    place = (np.arange(pools)[:, None] * width + group)[voters]
    sizes = np.bincount(place, minlength=pools * width).reshape(pools, width)
    right = np.bincount(place, np.nan_to_num(correct)[voters], minlength=pools * width).reshape(pools, width)
    rows, classes = np.nonzero(right)
    own = sizes[rows, classes]
    others = sizes[rows]
    others[np.arange(len(rows)), classes] = 0
    others = -np.sort(-others, axis=1)
    others = others[:, : int((others > 0).sum(axis=1).max(initial=0))]
    silent = n - voters.sum(axis=1)[rows]
    return rows, np.column_stack([own, silent, others]).astype(np.int32), right[rows, classes] / own


def _wins(contests: Array, n: int, ks: Sequence[int], r: float) -> Array:
    """The probability that the class of each contest wins among k: [contests, len(ks)]."""
    from scipy.special import gammaln, xlog1py, xlogy

    most = max(ks)
    size, used = np.arange(n + 1)[:, None], np.arange(most + 1)
    unused = np.maximum(size - used, 0)
    ways = gammaln(size + 1) - gammaln(used + 1) - gammaln(unused + 1)
    chance = np.where(used <= size, np.exp(ways + xlogy(used, r) + xlog1py(unused, -r)), 0.0)  # u of N
    result = np.empty((len(contests), len(ks)))
    order = np.lexsort((contests[:, 0], (contests[:, 2:] > 0).sum(axis=1)))
    for begin in range(0, len(order), ROWS // 8):
        part = order[begin : begin + ROWS // 8]
        result[part] = _wins_of(contests[part], chance, ks)
    return np.asarray(result / chance[n, list(ks)])


def _wins_of(contests: Array, chance: Array, ks: Sequence[int]) -> Array:
    total = np.zeros((len(contests), len(ks)))
    for votes in range(1, min(int(contests[:, 0].max()), max(ks)) + 1):
        active = np.flatnonzero(contests[:, 0] >= votes)
        own, silent, others = contests[active, 0], contests[active, 1], contests[active, 2:]
        rivals = (others >= votes).sum(axis=1)
        room = max(ks) - votes  # samples that are not the winner's
        # classes that can't reach `votes` and samples without a vote are one binomial
        weak = silent + np.where(others < votes, others, 0).sum(axis=1)
        width = min(room, int(weak.max())) + 1
        poly = chance[weak, :width][:, None]  # [contests, ties + 1, samples used + 1]
        for rival in range(int(rivals.max(initial=0))):
            rows = np.flatnonzero(rivals > rival)
            ties, width = min(rival + 1, room // votes), min(room + 1, poly.shape[2] + votes)
            grown = np.zeros((len(active), ties + 1, width))
            grown[:, : poly.shape[1], : poly.shape[2]] = poly
            before, after = poly[rows], np.zeros((len(rows), ties + 1, width))
            for used in range(min(votes, room) + 1):
                tie = int(used == votes)
                part = before[:, : ties + 1 - tie, : width - used]
                after[:, tie : tie + part.shape[1], used : used + part.shape[2]] += (
                    chance[others[rows, rival], used][:, None, None] * part
                )
            grown[rows] = after
            poly = grown
        shared = (poly / np.arange(1, poly.shape[1] + 1)[:, None]).sum(axis=1)
        for column, k in enumerate(ks):
            if votes <= k < votes + shared.shape[1]:
                total[active, column] += chance[own, votes] * shared[:, k - votes]
    return total
