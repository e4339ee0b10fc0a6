"""Self-refine against its equations, on a toy that records its conversations."""

from collections.abc import Sequence
from typing import Any

import pytest

from infer.core.generator import Message, Request
from infer.core.solution import Solution
from infer.strategies.self_refine import CRITICIZE, REWRITE, SelfRefineOptions, self_refine
from infer.testing import toy

Chat = list[tuple[str, str]]


class ListeningToy(toy.ToyGenerator):
    """Records the chat that each completion answers. Its critique number `satisfied_at` is `verdict`."""

    def __init__(
        self, satisfied_at: int | None = None, verdict: str = "It is correct.", max_context: int = 2000
    ) -> None:
        super().__init__(max_context=max_context)
        self._verdict = verdict
        self.said: list[tuple[Chat, str]] = []
        self._satisfied_at = satisfied_at
        self._prompts: list[tuple[list[int], Chat]] = []

    async def encode(self, messages: Sequence[Message]) -> list[int]:
        ids = [*await super().encode(messages), len(messages) % 10]  # no two chats of one search have the same ids
        self._prompts.append((ids, [(message["role"], message["content"]) for message in messages]))
        return ids

    async def generate(self, request: Request) -> list[Any]:
        completions = await super().generate(request)
        chat = next(chat for ids, chat in self._prompts[::-1] if ids == request.prompt)
        critiques = sum(chat[-1][1] == CRITICIZE for chat, _ in self.said)
        if chat[-1][1] == CRITICIZE and critiques == self._satisfied_at:
            object.__setattr__(completions[0], "text", self._verdict)
        self.said += [(chat, completion.text) for completion in completions]
        return completions


async def run(generator: ListeningToy, digits: str = "7", budget: str | None = None, **options: Any) -> Solution:
    setting = toy.setting(budget, generator=generator)
    return await self_refine(await toy.search(setting, digits), SelfRefineOptions(**options))


@pytest.mark.parametrize("rounds", [1, 3])
async def test_the_conversations_are_those_of_the_equations(rounds: int) -> None:
    for digits in map(str, range(10)):
        generator = ListeningToy()
        solution = await run(generator, digits, rounds=rounds)
        problem, texts = [("user", digits)], [text for _, text in generator.said]
        assert len(texts) == 2 * rounds + 1
        expected, history = [problem], [*problem]
        for t in range(rounds):
            asked = [("assistant", texts[2 * t]), ("user", CRITICIZE)]
            expected.append([*problem, *asked])  # equation 2
            history = [*history, *asked, ("assistant", texts[2 * t + 1]), ("user", REWRITE)]
            expected.append(history)  # equation 4
        assert [chat for chat, _ in generator.said] == expected
        assert [candidate.text for candidate in solution.candidates] == texts[::2], "critiques are no candidates"


@pytest.mark.parametrize("keep", ["prm", "last", "majority"])
async def test_the_solution_that_is_kept(keep: Any) -> None:
    distinct = set()
    for digits in map(str, range(12)):
        solution = await run(ListeningToy(), digits, keep=keep)
        candidates = solution.candidates
        assert len(candidates) == 5
        assert all(candidate.finished for candidate in candidates)
        assert solution.chosen is not None
        if keep == "prm":
            rewards = [toy.reward(candidate.text) if candidate.text else -1 for candidate in candidates]
            assert solution.chosen == rewards.index(max(rewards))
        elif keep == "last":
            assert solution.chosen == 4
        else:
            answers = [candidate.answer for candidate in candidates if candidate.answer is not None]
            assert solution.answer is not None
            assert answers.count(solution.answer) == max(map(answers.count, answers))
        assert solution.usage.passes == (sum(len(c.steps) for c in candidates) if keep == "prm" else 0)
        distinct.add(solution.chosen)
    assert len(distinct) > 1 or keep == "last"


@pytest.mark.parametrize("verdict", ["It is correct.", ' "**it is correct**"', "It is correct. All steps hold."])
@pytest.mark.parametrize("satisfied_at", [0, 2])
async def test_it_stops_when_nothing_is_wrong(satisfied_at: int, verdict: str) -> None:
    generator = ListeningToy(satisfied_at, verdict)
    solution = await run(generator)
    assert len(solution.candidates) == satisfied_at + 1
    assert len(generator.said) == 2 * (satisfied_at + 1)
    assert solution.usage.generated == generator.generated, "the critiques are paid for too"


@pytest.mark.parametrize(
    "critique", ["Step 1: it is correct. Step 2 is wrong.", "It is correct up to step 3, but no more."]
)
async def test_praise_of_a_part_does_not_stop_it(critique: str) -> None:
    solution = await run(ListeningToy(0, critique), rounds=2)
    assert len(solution.candidates) == 3


async def test_the_budget_and_the_context_end_it_with_the_best_so_far() -> None:
    rounds = set()
    for amount in range(1, 160, 9):
        solution = await run(ListeningToy(), budget=f"{amount}tok")
        assert solution.usage.generated <= amount
        assert solution.chosen is not None
        scored = [c for c in solution.candidates if c.finished and c.text]
        if scored:
            assert solution.candidates[solution.chosen].text == max(scored, key=lambda c: toy.reward(c.text)).text
        rounds.add(len(solution.candidates))
    assert len(rounds) >= 3
    generator = ListeningToy(max_context=12)
    solution = await run(generator)
    assert 1 <= len(solution.candidates) < 5
