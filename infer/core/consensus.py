"""Which solution is most likely right, when the tests may be wrong too: choices from the matrix of passes.

`passes[i, j]` says whether solution i passes test j. Solutions with equal rows form a consensus set.

    max_pass    the most tests passed
    codet       the most sqrt(|set|) x |tests that it passes|         (CodeT, Chen et al. 2207.10397)
    mbr_exec    the most solutions that behave alike                  (MBR-exec, Shi et al. 2204.11454)
    b4          the consensus set of the highest posterior density    (B4, Chen et al. 2409.08692)
    optimal     the solution that is right with the highest probability, under B4's model

B4's model. Solution i is right (x_i = 1) with probability theta_x, test j (y_j = 1) with theta_y. A right solution
passes the right tests and fails the wrong ones. A wrong solution passes a right test with probability theta_1, a wrong
test with theta_0. The rates are unknown: theta_x and theta_y ~ Beta(alpha_xy, 1), theta_1 ~ Beta(1, 1), theta_0 ~
Beta(1, beta_0). If x names n right solutions, they have one row, which is y. Let it have m ones, and let the others
pass s1 of their (N - n) m runs of right tests and s0 of their (N - n) (M - m) runs of wrong ones. With the rates
integrated out,

    p(passes, x, y) = B(n + alpha_xy, N - n + 1) / B(alpha_xy, 1) x B(m + alpha_xy, M - m + 1) / B(alpha_xy, 1)
                      x B(s1 + 1, (N - n) m - s1 + 1) x B(s0 + 1, (N - n) (M - m) - s0 + beta_0) / B(1, beta_0).

Three promises:

- B4 compares whole consensus sets only. A set with one more member of equal rows has (n + alpha_xy) / (N - n) times the
  prior, and no smaller likelihood. So for alpha_xy >= N - 2 the best whole set has the highest density of all (x, y)
  with a right solution.
- Two solutions of different rows are not both right. Let c be the probability of B4's pair (x, y), given the matrix and
  that some solution is right. Where c > 1/2, each member of B4's set is an optimal choice. In general it is right with
  a probability that is at most max(0, 1 - 2 c) below the optimal choice's.
- The approximation error is bounded by the correctness of the prior. Let d be the total variation distance between the
  assumed prior of the rates and the true one. Averaged over matrices, B4's choice is right with a probability that is
  at most 2 d + E max(0, 1 - 2 c) below the optimal choice's under the true prior (c and E are of the assumed one).

The density depends on the number n of a set's members alone, not on which they are. So `optimal` and `posterior` are
exact at every size: they sum over all 2^N x 2^M pairs (x, y) in which some solution is right, in N terms.

Sources: the model, the Beta terms and the hyper-parameters agree with the code that B4's authors published. Of their
paper only the abstract was at hand, so the promises were derived here. CodeT's paper multiplies |set| and |tests|; its
code takes the root of |set|, as does B4's comparison with it, and so do we.

Duplicates: each row and each column counts. A solution that was sampled twice has two votes, as in CodeT. A test that
was written twice counts twice. B4's authors remove solutions and tests of equal text before they build the matrix,
because copies are not independent evidence. That is the caller's part: texts are not known here.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EQUAL = 1e-7
"""Log densities that differ by less are equal: rounding takes up to 1e-8 in a matrix of 1,000 x 1,000."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Selection:
    """The solutions that are equally best, in ascending order, and their score."""

    solutions: tuple[int, ...]
    score: float

    @property
    def choice(self) -> int:
        """The one that is taken: the earliest."""
        return self.solutions[0]


@dataclass(frozen=True, slots=True)
class Prior:
    """B4's hyper-parameters. Those of the paper's experiments on real problems are the default.

    There alpha_xy is 1,000 and beta_0 is 10,000, 100,000 or 1,000,000; its simulation has 10 and 10.
    """

    alpha_xy: float = 1e3
    """The larger, the more solutions and tests are believed right."""
    beta_0: float = 1e5
    """The larger, the more seldom a wrong solution is believed to pass a wrong test."""

    def __post_init__(self) -> None:
        if not (0 < self.alpha_xy < np.inf and 0 < self.beta_0 < np.inf):
            raise ValueError(f"alpha_xy and beta_0 must be finite and above zero: {self.alpha_xy}, {self.beta_0}")


@dataclass(frozen=True, slots=True)
class Posterior:
    """Probabilities of being right, given the matrix and that some solution is right."""

    solutions: Floats
    """[N]"""
    tests: Floats
    """[M]"""


def max_pass(passes: NDArray[np.bool_]) -> Selection:
    """The solutions that pass the most tests. The score is their number.

    Like all choices here, it takes booleans [N solutions, M tests], and raises ValueError for anything else and for
    N = 0. Without tests all solutions are equal.
    """
    return _best(_checked(passes).sum(axis=1))


def codet(passes: NDArray[np.bool_]) -> Selection:
    """The consensus sets with the most sqrt(solutions) x tests passed, which is the score."""
    sets = _Sets(_checked(passes))
    squares = sets.size * sets.right**2  # whole numbers, so that ties are exact
    best = _best(squares[sets.owner])
    return Selection(best.solutions, best.score**0.5)


def mbr_exec(passes: NDArray[np.bool_], outputs: Sequence[Hashable] | None = None) -> Selection:
    """The solutions that behave as most others do. The score is how many do, itself included: N minus the Bayes risk.

    Two solutions behave alike if they have equal rows or, where `outputs` are given, equal outputs: one value for each
    solution, such as the tuple of what it returned for each test's input. A solution whose value is None gave nothing,
    and agrees with no other. The loss is the paper's: 0 if they agree on all inputs, else 1.
    """
    passes = _checked(passes)
    if outputs is None:
        owner = _alike(passes)
    elif len(outputs) == len(passes):
        owner = _numbered(object() if output is None else output for output in outputs)
    else:
        raise ValueError(f"{len(outputs)} outputs for {len(passes)} solutions")
    return _best(np.bincount(owner)[owner])


def b4(passes: NDArray[np.bool_], prior: Prior | None = None) -> Selection:
    """The consensus sets of the highest posterior density.

    The score is the log of p(passes, x, y) as above: x is the set, y are the tests that it passes.
    """
    sets = _Sets(_checked(passes))
    return _best(sets.log_joint(np.arange(len(sets.size)), sets.size, prior or Prior())[sets.owner], EQUAL)


def optimal(passes: NDArray[np.bool_], prior: Prior | None = None) -> Selection:
    """The solutions that are right with the highest probability, given that some is: the score is this probability."""
    sets = _Sets(_checked(passes))
    member, whole = sets.log_marginals(prior or Prior())
    best = _best(member[sets.owner], EQUAL)
    return Selection(best.solutions, float(np.exp(best.score - np.logaddexp.reduce(whole))))


def posterior(passes: NDArray[np.bool_], prior: Prior | None = None) -> Posterior:
    """The probabilities that each solution and each test is right, given that some solution is."""
    sets = _Sets(_checked(passes))
    member, whole = sets.log_marginals(prior or Prior())
    total = np.logaddexp.reduce(whole)
    tests = np.einsum("s,st->t", np.exp(whole - total), sets.rows)  # faster than @ with booleans
    return Posterior(np.exp(member - total)[sets.owner], np.minimum(tests, 1.0))


class _Sets:
    """The consensus sets of a matrix, in the order of their first members, and what B4 counts of them."""

    def __init__(self, passes: NDArray[np.bool_]) -> None:
        self.shape = passes.shape
        self.owner = _alike(passes)
        """[N] the set of each solution"""
        _, first, self.size = np.unique(self.owner, return_index=True, return_counts=True)
        self.rows = passes[first]
        """[sets, M] the tests that a set passes"""
        self.right = self.rows.sum(axis=1)
        """[sets] their number"""
        columns = passes.sum(axis=0)
        self.on_right = self.rows @ columns
        """[sets] passes of all solutions on the tests that the set passes"""
        self.on_wrong = columns.sum() - self.on_right

    def log_joint(self, which: NDArray[np.intp], n: NDArray[np.intp], prior: Prior) -> Floats:
        """log p(passes, x, y) for x of any n members of the sets `which`."""
        from scipy.special import betaln  # it takes 0.2 s, and most commands load this module

        solutions, tests = self.shape
        right, wrong = self.right[which], tests - self.right[which]
        others = solutions - n
        s1 = self.on_right[which] - n * right
        s0 = self.on_wrong[which]
        a, b = prior.alpha_xy, prior.beta_0
        log: Floats = (
            betaln(n + a, others + 1)
            + betaln(right + a, wrong + 1)
            - 2 * betaln(a, 1)
            + betaln(s1 + 1, others * right - s1 + 1)
            + betaln(s0 + 1, others * wrong - s0 + b)
            - betaln(1, b)
        )
        return log

    def log_marginals(self, prior: Prior) -> tuple[Floats, Floats]:
        """For each set log p(passes, one given member is right), and log p(passes, some member is right)."""
        from scipy.special import betaln  # it takes 0.2 s, and most commands load this module

        size = np.repeat(self.size, self.size)
        which = np.repeat(np.arange(len(self.size)), self.size)
        starts = np.cumsum(self.size) - self.size
        n = np.arange(len(size)) - starts[which] + 1  # 1 to the size, set after set
        subsets = -np.log(size) - betaln(size - n + 1, n)  # log of (size - 1 over n - 1): those with the member
        joint = self.log_joint(which, n, prior) + subsets
        anyone = joint + np.log(size / n)  # (size over n): all of them
        return np.logaddexp.reduceat(joint, starts), np.logaddexp.reduceat(anyone, starts)


def _checked(passes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    passes = np.asarray(passes)
    if passes.ndim == 0 or len(passes) == 0:
        raise ValueError("no solutions to choose from")
    if passes.ndim != 2 or (passes.size and passes.dtype != np.bool_):
        raise ValueError(f"passes must be booleans [solutions, tests], not {passes.dtype} of shape {passes.shape}")
    return passes.astype(np.bool_, copy=False)


def _alike(passes: NDArray[np.bool_]) -> NDArray[np.intp]:
    """[N] the number of each solution's row."""
    return _numbered(row.tobytes() for row in np.packbits(passes, axis=1))


def _numbered(things: Iterable[Hashable]) -> NDArray[np.intp]:
    """A number for each thing, the same for equal ones, counted up in the order of their first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(thing, len(numbers)) for thing in things], dtype=np.intp)


def _best(scores: NDArray[np.int64] | Floats, within: float = 0.0) -> Selection:
    """All solutions whose score [N] equals the highest."""
    best = scores.max()
    return Selection(tuple(np.flatnonzero(scores >= best - within).tolist()), float(best))
