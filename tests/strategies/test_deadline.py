"""A budget of seconds ends during a slow completion: the other completions are scored, and one of them is chosen."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from infer.core.generator import Completion, Request
from infer.core.solution import Candidate
from infer.strategies import find
from infer.testing import toy


class Slow(toy.ToyGenerator):
    """One request takes until its deadline: the one that asks for completion number `slow`, counted over all requests.

    Its last completion has one token by then.
    """

    def __init__(self, slow: int) -> None:
        super().__init__()
        self.slow, self.asked = slow, 0

    async def generate(self, request: Request) -> list[Completion]:
        assert request.deadline is not None
        slow = self.slow in range(self.asked, self.asked + request.n)
        self.asked += request.n
        done = [self._complete(request, list(request.prompt), request.seed + i) for i in range(request.n)]  # type: ignore[arg-type]
        await asyncio.sleep(max(0.0, request.deadline - time.monotonic()) if slow else 0.001)
        if slow:
            cut = request.n - 1
            self.generated -= done[cut].num_tokens - 1
            tokens = done[cut].tokens[:1]
            done[cut] = replace(done[cut], tokens=tokens, num_tokens=1, text=toy.decode(tokens), finish="length")
        return done


@pytest.mark.parametrize(
    ("name", "options", "slow"),
    [
        ("best-of-n", ["n=8"], 5),
        ("self-consistency", ["n=8", "weights=prm", "stop=never"], 5),
        ("mcts", ["simulations=12", "width=8", "choose=prm"], 4),
        ("mcts", ["simulations=12", "width=8", "choose=prm"], 8),
        ("ab-mcts", ["n=12"], 4),
        ("ab-mcts", ["n=12"], 8),
    ],
)
async def test_samples_that_came_in_time_are_scored_and_chosen_from(name: str, options: list[str], slow: int) -> None:
    scored = 0
    for digits in map(str, range(6)):
        generator = Slow(slow)
        search = await toy.search(toy.setting("0.1s", generator=generator), digits)
        strategy: Any = find(name)
        solution = await strategy.run(search, strategy.configure(options))
        assert solution.usage.generated == generator.generated
        finished = [candidate for candidate in solution.candidates if candidate.finished and candidate.text.strip()]
        if not finished:
            continue
        assert all(candidate.scores for candidate in finished)
        scored += len(finished)
        if name == "self-consistency":
            assert solution.answer == heaviest(finished)
        else:
            assert solution.chosen is not None
            chosen = solution.candidates[solution.chosen].scores
            assert chosen is not None
            assert chosen[-1] == max(candidate.scores[-1] for candidate in finished if candidate.scores)
    assert scored > 12


def heaviest(candidates: list[Candidate]) -> str | None:
    """The answer with the largest sum of scores."""
    votes: dict[str | None, float] = {}
    for candidate in candidates:
        assert candidate.scores is not None
        votes[candidate.answer] = votes.get(candidate.answer, 0.0) + candidate.scores[-1]
    return max(votes, key=votes.__getitem__)
