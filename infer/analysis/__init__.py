"""The analysis of runs: accuracy with intervals, accuracy of k samples, cost-accuracy curves, frontiers and fits.

    from infer.analysis import accuracy, at_k, outcomes, frontier, read

    runs = read(["runs/a", "runs/b"])
    accuracy(runs)                              # by configuration, clustered by problem
    at_k(runs, "majority", [1, 4, 16]).mean()   # exact over all subsets of each pool
    frontier(outcomes(runs, "tokens"))

Loads pandas, scipy and pyarrow; `infer.analysis.report` also loads matplotlib. The rest of `infer` imports none of it.
"""

from infer.analysis.curves import Outcomes, allocation, at_equal_cost, curve, families, frontier, outcomes, sampled
from infer.analysis.estimates import (
    Difference,
    Estimate,
    accuracy,
    auroc,
    compare,
    mean,
    reliability,
    share,
)
from infer.analysis.fits import LOG_LINEAR, PARSCALE, SATURATING, Fit, Law, fit, fit_curve, parscale_losses
from infer.analysis.frames import Runs, read
from infer.analysis.kinetics import read_kinetics
from infer.analysis.pools import at_k, best_at_k, independent, majority_at_k, pass_at_k, weighted_at_k

__all__ = [
    "LOG_LINEAR",
    "PARSCALE",
    "SATURATING",
    "Difference",
    "Estimate",
    "Fit",
    "Law",
    "Outcomes",
    "Runs",
    "accuracy",
    "allocation",
    "at_equal_cost",
    "at_k",
    "auroc",
    "best_at_k",
    "compare",
    "curve",
    "families",
    "fit",
    "fit_curve",
    "frontier",
    "independent",
    "majority_at_k",
    "mean",
    "outcomes",
    "parscale_losses",
    "pass_at_k",
    "read",
    "read_kinetics",
    "reliability",
    "sampled",
    "share",
    "weighted_at_k",
]
