"""Budget forcing: the length of the thinking, the forced text and its cost. The toy thinks until a blank line."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from infer.core.generator import Completion, Request, Sampling
from infer.core.ledger import Budget, Ledger
from infer.core.pricing import Call
from infer.core.solution import Candidate, Solution
from infer.core.tree import Node
from infer.strategies.budget_forcing import BudgetForcingOptions, budget_forcing
from infer.testing import toy

CLOSE, WAIT, FINAL = "\n\n", "5", "77"


@dataclass
class Record:
    """The nodes that the strategy sampled or forced."""

    thoughts: list[Node] = field(default_factory=list)
    answers: list[Node] = field(default_factory=list)
    forced: list[Node] = field(default_factory=list)


async def run(digits: str, budget: str | None = None, **options: Any) -> tuple[Record, Solution, Candidate]:
    setting = toy.setting(budget, sampling=Sampling(temperature=1.0, max_tokens=60))
    search = await toy.search(setting, digits)
    record, sample, extend = Record(), search.sample, search.extend

    async def sampling(*given: Any, **named: Any) -> list[Node]:
        nodes = await sample(*given, **named)
        (record.answers if named.get("max_tokens") is None else record.thoughts).extend(nodes)
        return nodes

    async def extending(*given: Any, **named: Any) -> Node:
        record.forced.append(await extend(*given, **named))
        return record.forced[-1]

    search.sample, search.extend = sampling, extending  # type: ignore[method-assign]
    given = {"close": CLOSE, "wait": WAIT, "final": FINAL, "answer": 20, **options}
    solution = await budget_forcing(search, BudgetForcingOptions(**given))
    generator: Any = setting.generator
    assert (
        solution.usage.generated == generator.generated == sum(n.num_tokens for n in record.thoughts + record.answers)
    )
    assert solution.chosen is not None
    return record, solution, solution.candidates[solution.chosen]


@pytest.mark.parametrize("thinking", [1, 2, 3, 5])
@pytest.mark.parametrize(("waits", "wait"), [(0, "5"), (1, "5"), (4, "5"), (2, "5678")])
async def test_thinking_never_exceeds_its_budget(thinking: int, waits: int, wait: str) -> None:
    cut_off = 0
    for digits in map(str, range(30)):
        record, _, chosen = await run(digits, thinking=thinking, waits=waits, wait=wait)
        last = record.thoughts[-1]
        assert last.length <= thinking
        stops = [node for node in record.forced if node.text.endswith(FINAL)]
        assert len(stops) == (last.finish == "length")
        if stops:
            assert last.length == thinking, "it is cut off at its budget, not before"
            separator = "" if last.completion.endswith("\n") else "\n\n"
            assert chosen.text == f"{last.completion}{separator}{CLOSE}\n\n{FINAL}{record.answers[0].text}"
        cut_off += len(stops)
    assert cut_off > 0


@pytest.mark.parametrize("waits", [0, 1, 2, 5])
async def test_it_waits_as_often_as_asked_and_forced_text_is_free(waits: int) -> None:
    """There is room for all waits. Each end is taken back, but still paid for, since it was sampled."""
    cut_off = 0
    for digits in map(str, range(30)):
        record, solution, chosen = await run(digits, waits=waits, thinking=40)
        waited = [node for node in record.forced if node.text.endswith(WAIT)]
        short = record.thoughts[-1].finish == "length" or record.thoughts[-1].length + 2 >= 40
        assert len(waited) == waits or short
        assert len(record.thoughts) == len(waited) + 1
        cut_off += short
        text = ""
        for thought, wait in zip(record.thoughts, waited, strict=False):
            text += thought.text.removesuffix(CLOSE)
            text += wait.text
            assert wait.text == ("" if text.removesuffix(wait.text).endswith("\n") else "\n\n") + WAIT
            assert wait.completion == text
        assert chosen.text.startswith(text + record.thoughts[-1].text)
        forced = sum(node.num_tokens for node in record.forced)
        taken_back = len(waited)  # one token each, an end or a delimiter
        assert chosen.num_tokens == solution.usage.generated - taken_back + forced
        assert solution.usage.discarded == taken_back
    assert cut_off < 10


async def test_without_a_delimiter_thinking_ends_where_the_model_ends() -> None:
    """The toy's vocabulary has no </think>. So a wait takes the end token back, and a cut adds no delimiter."""
    ended = 0
    for digits in map(str, range(20)):
        record, _, chosen = await run(digits, close=None, waits=1, thinking=30)
        (first, *_), waited = record.thoughts, [n for n in record.forced if n.text.endswith(WAIT)]
        assert first.finish in ("end", "length"), "blank lines do not end it"
        if first.finish == "end" and first.length + 2 < 30:
            assert len(waited) == 1
            assert chosen.tokens[: first.num_tokens - 1] == first.tokens[:-1]
            assert toy.END not in chosen.tokens[:-1]
        if record.thoughts[-1].finished:
            assert not record.answers, "the end of its thinking is the end of its answer"
            ended += 1
        else:
            assert f"\n\n{FINAL}" in chosen.text
    assert ended > 10


async def test_the_answer_has_its_share_of_a_budget_of_tokens() -> None:
    for amount in (21, 25, 40):
        for digits in map(str, range(10)):
            record, solution, _ = await run(digits, budget=f"{amount}tok", close=None)
            assert record.thoughts[-1].length <= amount - 20
            assert solution.usage.generated <= amount
            assert record.answers or record.thoughts[-1].finished


async def test_without_forcing_it_is_plain_sampling() -> None:
    for digits in map(str, range(20)):
        search = await toy.search(toy.setting(), digits)
        (plain,) = await search.sample(search.root, until="end", max_tokens=40)
        _, _, chosen = await run(digits, close=None, thinking=40)
        if plain.finished:
            assert chosen.tokens == plain.tokens


class Endless(toy.ToyGenerator):
    """Thinks without end, but answers with one digit after the forced text."""

    async def generate(self, request: Request) -> list[Completion]:
        prompt = list(request.prompt)
        self.prompt_tokens += len(prompt)
        tokens = [3, toy.END] if toy.decode(prompt[-2:]) == FINAL else [1] * request.max_tokens  # type: ignore[arg-type]
        tokens = tokens[: request.max_tokens]
        self.generated += len(tokens)
        finish: Any = "end" if tokens[-1] == toy.END else "length"
        return [Completion(tokens, len(tokens), toy.decode(tokens), finish, None, len(prompt), 0)]


@pytest.mark.parametrize("unit", ["tok", "flops", "eflops", "usd"])
async def test_a_budget_of_any_unit_keeps_the_answers_share(unit: str) -> None:
    names = {"usd": "dollars"}
    ledger = Ledger(Budget(1, names.get(unit, unit)), toy.setting().pricing) if unit != "tok" else None
    amount = 40 if ledger is None else ledger.price(Call(toy.SPEC, 1, 0, 40))
    text = f"{amount:.0f}{unit}" if unit == "tok" else f"{amount:.20f}{unit}"
    search = await toy.search(toy.setting(text, generator=Endless()))
    solution = await budget_forcing(search, BudgetForcingOptions(close="", final=FINAL, answer=10))
    assert solution.finished
    assert solution.usage.generated > 10, "it thought before"


async def test_forced_text_is_not_taken_from_the_answers_share() -> None:
    setting = toy.setting(generator=Endless(), sampling=Sampling(temperature=1.0, max_tokens=20))
    solution = await budget_forcing(
        await toy.search(setting), BudgetForcingOptions(close=CLOSE, final=FINAL, answer=3, wait=WAIT)
    )
    assert solution.chosen is not None
    chosen = solution.candidates[solution.chosen]
    forced = 2 + 1 + 1  # "77", and a blank line before and after the delimiter, itself one
    assert chosen.num_tokens <= 20
    assert chosen.finished
    assert solution.usage.generated == 20 - forced - 1 - 3 + 2
