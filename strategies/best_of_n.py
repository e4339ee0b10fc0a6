"""Best-of-N: independent samples, one of them chosen.

sample  y_1 .. y_N ~ p(. | x)
return  argmax_i score(y_i)                               choose = prm (Cobbe et al. 2110.14168), logprob
        or the answer with the largest sum of votes       choose = majority (Wang et al. 2203.11171), weighted
        or the winner of a knockout, two by two           choose = tournament (see `parts/tournament.py`)
        or of programs the one that tests speak for       choose = b4, codet, .. (see `parts/tested.py`)

With level = step the same is done at each step: of N next steps the one that the PRM likes best is kept.
"""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from infer.core.choice import Choice
from infer.core.options import MOST, Count, ScoredOptions, Shape, Tokens
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tree import Node
from infer.errors import BudgetSpent
from infer.strategies.parts.steps import distinct
from infer.strategies.parts.tested import RULES, TestedChoice, tested, write_tests
from infer.strategies.parts.tournament import tournament
from infer.strategies.parts.waves import WITHOUT_BUDGET, affordable_wave, sample_wave


class BestOfNOptions(ScoredOptions):
    n: Count | None = Field(
        None,
        ge=1,
        description="samples; by default as many as the budget allows (16 without one, for a tournament, or of a step)",
    )
    level: Literal["solution", "step"] = Field("solution", description="what is sampled n times, the best one kept")
    choose: Literal[Choice, "tournament", TestedChoice] = Field(
        "prm",
        description="best PRM score, majority vote, PRM-weighted vote, highest mean log-probability, "
        "a knockout in which the model itself compares solutions, "
        "or of programs the one that tests written by the model speak for",
    )
    verdict_tokens: Tokens = Field(256, ge=1, description="of the model's comparison of two solutions, at most")

    tests: Count = Field(8, ge=1, description="tests that the model writes, for choose=b4, codet, mbr-exec, max-pass")
    tests_tokens: Tokens = Field(512, ge=1, description="for writing them, at most")

    @field_validator("choose")
    @classmethod
    def _steps_have_no_answer(cls, choice: str, info: ValidationInfo) -> str:
        if info.data.get("level") == "step" and choice != "prm":
            raise PydanticCustomError("choose", "a step is chosen by the PRM: level=step needs choose=prm")
        return choice

    @property
    def needs_verifier(self) -> bool:
        return self.choose in ("prm", "weighted")

    @property
    def needs_logprobs(self) -> bool:
        return self.choose in ("logprob", "tournament")

    @property
    def needs_tests(self) -> bool:
        return self.choose in RULES

    @property
    def scores_steps(self) -> bool:
        return self.level == "step"

    def shape(self) -> Shape | None:
        if self.n is None or self.choose == "tournament" or self.needs_tests:
            return None
        return Shape(1, self.n) if self.level == "step" else Shape(self.n)


async def best_of_n(search: Search, options: BestOfNOptions) -> Solution:
    """N independent samples; the best by reward model, vote or likelihood is the answer."""
    if options.level == "step":
        return search.solution(await _step_by_step(search, options.n or WITHOUT_BUDGET))
    samples: list[Node] = []
    as_many_as_possible = search.bounded and options.choose != "tournament"
    n = options.n or (None if as_many_as_possible else WITHOUT_BUDGET)
    tests: list[str] = []
    with search.until_spent():
        if options.needs_tests:  # first, or the samples would spend what they need
            tests = await write_tests(search, options.tests, options.tests_tokens)
        while len(samples) < (n or MOST):
            wave = affordable_wave(search, n, len(samples))
            await sample_wave(search, wave, samples, scored=options.needs_verifier)
    match options.choose:
        case "tournament":
            return search.solution(await tournament(search, samples, options.verdict_tokens))
        case "b4" | "codet" | "mbr-exec" | "max-pass" as how:
            return search.solution(await tested(search, samples, tests, how))
        case how:
            return search.solution(await search.choose(samples, how))


async def _step_by_step(search: Search, n: int) -> Node | None:
    node = search.root
    try:
        while not node.final:
            steps = await search.sample(node, n)
            different = distinct(steps)
            await search.score(different)
            node = max(different, key=lambda step: search.value(step) or 0.0)
            search.prune(step for step in steps if step is not node)
    except BudgetSpent:
        return search.best()
    return node
