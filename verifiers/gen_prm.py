"""GenPRM-1.5B, -7B and -32B (Zhao et al., 2504.00891; RyanLiu112/GenPRM): a critique and a verdict for each step.

A conversation: the user gives the question with the first step ("paragraph"), then a step a turn; the assistant's turns
are its critiques, closed by its verdict. Of the authors' two stages this is the analysis; they can also let the model
write Python and run it, which needs a sandbox and is not done here.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from infer.core.generator import Generator, Message, Sampling
from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.tree import Aggregation
from infer.core.verifier import Scores
from infer.errors import TooLong
from infer.verifiers.judge import Form, Judge

SYSTEM = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."
FORM = Form(
    opening="<analyze>\nLet's analyze the Paragraph {number} step by step: ",
    end="</analyze>\n",
    verdict="<output>\n**Judgement**: $\\boxed{",
    pair=("Yes", "No"),
    answers=True,
)
CLOSING = "}$\n</output>\n"
REMEMBERED = 10_000
"""Critiques kept for the steps that follow theirs. One that was forgotten is written again, and charged again."""


class GenPRM:
    aggregation: Aggregation = "mean"
    stepwise = True

    def __init__(self, generator: Generator, chains: int = 1, max_tokens: int = 2048) -> None:
        sampling = Sampling(temperature=0.6, top_p=0.95, top_k=20, max_tokens=max_tokens)
        self._judge = Judge(generator, FORM, sampling, chains)
        self.spec = generator.spec
        self._critiques: OrderedDict[tuple[str, ...], str] = OrderedDict()

    async def most(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> list[Call]:
        return self._judge.most(len(steps))

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        messages: list[Message] = [{"role": "system", "content": SYSTEM}]
        paragraphs = tuple(step.strip() for step in steps)
        calls, values = list[Call](), list[float]()
        for number, paragraph in enumerate(paragraphs, 1):
            asked = f"Question: {problem.prompt}\n\n{paragraph}" if number == 1 else paragraph
            messages.append({"role": "user", "content": asked})
            solution = (problem.prompt, *paragraphs[:number])
            critique = self._critiques.get(solution)
            if critique is None or number > known:
                try:
                    critique, verdict = await self._judge.judge(messages, number=number)
                except TooLong as error:
                    raise TooLong(str(error), calls) from None
                critique += CLOSING
                self._remember(solution, critique)
                calls += verdict.calls
                values += verdict.values if number > known else []
            messages.append({"role": "assistant", "content": critique})
        return Scores(values, calls)

    def _remember(self, solution: tuple[str, ...], critique: str) -> None:
        self._critiques[solution] = critique
        if len(self._critiques) > REMEMBERED:
            self._critiques.popitem(last=False)

    def describe(self) -> dict[str, Any]:
        return {"family": "gen-prm", "aggregation": self.aggregation, **self._judge.describe()}

    async def close(self) -> None:
        await self._judge.close()
