"""The procedural arithmetic set of the nano models: any number of held-out problems of five levels."""

from collections.abc import Iterator

from infer.core.problem import Problem
from infer.evalsets.base import PLAIN, EvalSet
from infer.nano import problems

SIZE = 500


def load(limit: int | None = None, level: int | None = None, size: int = SIZE) -> Iterator[Problem]:
    """Yields `size` held-out problems, a fifth of each level, with the levels in turn.

    `level` selects those of one level, `limit` the first ones. The k-th problem of a level is the same for every size,
    and never occurs in training (see `infer.nano.problems`). Raises ValueError for an unknown level.
    """
    if level is not None and level not in problems.LEVELS:
        raise ValueError(f"nano has the levels {', '.join(map(str, problems.LEVELS))}; there is no level {level}")
    return _problems([level] if level is not None else list(problems.LEVELS), limit, size)


def _problems(levels: list[int], limit: int | None, size: int) -> Iterator[Problem]:
    chains = {number: problems.held_out(number) for number in levels}
    each = size // len(problems.LEVELS)
    for i in range(min(each * len(levels), size if limit is None else limit)):
        index, turn = divmod(i, len(levels))
        chain = next(chains[levels[turn]])
        yield Problem(
            id=f"nano-L{chain.level}-{index:04}",
            prompt=chain.prompt,
            answer=str(chain.answer),
            level=str(chain.level),
            source="nano",
        )


NANO = EvalSet(
    name="nano",
    summary=f"{SIZE} chains of arithmetic operations, levels 1 to 5: the procedural set of the nano models",
    source="procedural",
    load=load,
    template=PLAIN,
)
