"""Beliefs about the mean score of an arm, for Thompson sampling.

`Beta` counts a score in [0, 1] as a fraction of a success. `Gaussian` has unknown mean and variance under a
normal-inverse-chi-squared prior, with the parameters of TreeQuest, the code of AB-MCTS' authors.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Posterior(Protocol):
    """The belief about an arm's mean score."""

    def observe(self, score: float) -> None: ...

    def draw(self, rng: np.random.Generator) -> float: ...


@dataclass(slots=True)
class Beta:
    """Beta(a, b), at first Jeffreys' prior."""

    a: float = 0.5
    b: float = 0.5

    def observe(self, score: float) -> None:
        self.a += score
        self.b += 1 - score

    def draw(self, rng: np.random.Generator) -> float:
        return float(rng.beta(self.a, self.b))


@dataclass(slots=True)
class Gaussian:
    """Mean and variance: s2 ~ inverse-chi-squared(nu, tau2), mu ~ N(m, s2 / kappa); draws are of mu."""

    m: float = 0.0
    kappa: float = 1.0
    nu: float = 1.0
    tau2: float = 0.1

    def observe(self, score: float) -> None:
        squares = self.nu * self.tau2 + self.kappa / (self.kappa + 1) * (score - self.m) ** 2
        self.m = (self.kappa * self.m + score) / (self.kappa + 1)
        self.kappa += 1
        self.nu += 1
        self.tau2 = squares / self.nu

    def draw(self, rng: np.random.Generator) -> float:
        variance = self.nu * self.tau2 / rng.chisquare(self.nu)
        return float(rng.normal(self.m, math.sqrt(variance / self.kappa)))
