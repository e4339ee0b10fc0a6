"""Best-of-N: independent samples, one of them chosen.

sample  y_1 .. y_N ~ p(. | x)
return  argmax_i score(y_i)                               choose = prm (Cobbe et al. 2110.14168), logprob
        or the answer with the largest sum of votes       choose = majority (Wang et al. 2203.11171), weighted
        or the winner of a knockout, two by two           choose = tournament (see `tournament.py`)

With level = step the same is done at each step: of N next steps the one that the PRM likes best is kept.
"""

from operator import attrgetter
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from infer.core.options import Options, Shape
from infer.core.search import Search
from infer.core.solution import Solution
from infer.core.tasks import all_affordable
from infer.core.tree import Aggregation, Node
from infer.core.usage import BudgetSpent
from infer.strategies.beam import distinct
from infer.strategies.parts.choose import Choice, choose, value
from infer.strategies.parts.tournament import tournament

WITHOUT_BUDGET = 16
"""Samples when neither `n` nor a budget of tokens says how many to ask for at once."""


class BestOfNOptions(Options):
    n: int | None = Field(
        None,
        ge=1,
        description="samples; by default as many as the budget allows (16 without one, for a tournament, or of a step)",
    )
    level: Literal["solution", "step"] = Field("solution", description="what is sampled n times, the best one kept")
    choose: Literal[Choice, "tournament"] = Field(
        "prm",
        description="best PRM score, majority vote, PRM-weighted vote, highest mean log-probability, "
        "or a knockout in which the model itself compares solutions",
    )
    verdict_tokens: int = Field(256, ge=1, description="of the model's comparison of two solutions, at most")
    aggregation: Aggregation | None = Field(None, description="of a sample's step scores; default: the verifier's own")

    @field_validator("choose")
    @classmethod
    def _steps_have_no_answer(cls, choice: str, info: ValidationInfo) -> str:
        if info.data.get("level") == "step" and choice != "prm":
            raise PydanticCustomError("choose", "a step is chosen by the PRM: level=step needs choose=prm")
        return choice

    @property
    def needs_verifier(self) -> bool:
        return self.choose in ("prm", "weighted")

    def shape(self) -> Shape | None:
        if self.n is None or self.choose == "tournament":
            return None
        return Shape(1, self.n) if self.level == "step" else Shape(self.n)


async def best_of_n(search: Search, options: BestOfNOptions) -> Solution:
    """N independent samples; the best by reward model, vote or likelihood is the answer."""
    if options.level == "step":
        return search.solution(await _step_by_step(search, options))
    samples: list[Node] = []
    bounded = search.setting.budget is not None and options.choose != "tournament"
    n = options.n or (None if bounded else WITHOUT_BUDGET)
    try:
        while n is None or len(samples) < n:
            wave = affordable_wave(search, None if n is None else n - len(samples))
            if options.needs_verifier:
                await sample_and_score(search, wave, samples)
            else:
                logprobs = options.choose in ("logprob", "tournament")
                samples += await search.sample(search.root, wave, until="end", logprobs=logprobs)
    except BudgetSpent:
        pass  # choose among what there is
    if options.choose == "tournament":
        return search.solution(await tournament(search, samples, options.verdict_tokens))
    return search.solution(await choose(search, samples, options.choose, options.aggregation))


def affordable_wave(search: Search, wanted: int | None) -> int:
    """Samples to ask for at once: as many as are covered even at full length; the next wave gets what they leave.

    Of a budget of passes each takes one at least, and how many is known when it is there: waves of it stay small.
    """
    affordable = search.affordable(search.root)
    if affordable is None:
        return wanted or WITHOUT_BUDGET
    if search.unit == "prm":
        affordable = min(affordable, WITHOUT_BUDGET)
    return max(1, affordable if wanted is None else min(wanted, affordable))


async def sample_and_score(search: Search, n: int, samples: list[Node]) -> None:
    """Adds n samples, each scored as soon as it has ended; as they stand where BudgetSpent is raised.

    A budget that scores count against goes to the samples in their order, so there they wait for one another.
    """
    if search.unit not in (None, "tokens", "seconds"):
        new = await search.sample(search.root, n, until="end")
        samples += new
        await search.score(new)
        return
    new = []

    async def one() -> None:
        sample = await search.sample(search.root, until="end")
        new.extend(sample)
        await search.score(sample)

    try:
        await all_affordable(one() for _ in range(n))
    finally:
        samples += sorted(new, key=attrgetter("index"))


async def _step_by_step(search: Search, options: BestOfNOptions) -> Node | None:
    node = search.root
    try:
        while not node.final:
            steps = await search.sample(node, options.n or WITHOUT_BUDGET)
            different = distinct(steps)
            await search.score(different)
            node = max(different, key=lambda step: value(search, step, options.aggregation) or 0.0)
            search.prune(step for step in steps if step is not node)
    except BudgetSpent:
        return search.best(options.aggregation)
    return node
