"""ThinkPRM-1.5B, -7B and -14B (Khalifa et al., 2504.16828, and the model card): one verdict for the solution so far.

The model thinks about the numbered steps and then answers its own question, "Is the solution correct?"; where its
tokens run out before that, the question is put. It takes any model that reasons: as a judge without training, too.
One chain is greedy; several are drawn at temperature 0.6.
"""

from collections.abc import Sequence
from typing import Any

from infer.core.generator import Generator, Sampling
from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.tree import Aggregation
from infer.core.verifier import Scores
from infer.verifiers.judge import Form, Judge
from infer.verifiers.prm import numbered

PROMPT = """You are given a math problem and a proposed step-by-step solution:

[Math Problem]

{question}

[Solution]

{solution}

Review and critique each step in the proposed solution to determine whether each step is correct. If the solution is \
incomplete, only verify the provided steps."""
FORM = Form(
    opening="\nLet's verify step by step:",
    end="\nIs the solution correct?",
    verdict="",
    pair=(" Yes", " No"),
)


class ThinkPRM:
    aggregation: Aggregation = "last"
    stepwise = False

    def __init__(self, generator: Generator, chains: int = 1, max_tokens: int = 4096) -> None:
        sampling = Sampling(temperature=0.0 if chains == 1 else 0.6, max_tokens=max_tokens)
        self._judge = Judge(generator, FORM, sampling, chains)
        self.spec = generator.spec

    async def most(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> list[Call]:
        return self._judge.most(1)

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        solution = "\n".join(numbered(step, number) for number, step in enumerate(steps, 1))
        content = PROMPT.format(question=problem.prompt, solution=solution)
        _, scores = await self._judge.judge([{"role": "user", "content": content}])
        return scores

    def describe(self) -> dict[str, Any]:
        return {"family": "think-prm", "aggregation": self.aggregation, **self._judge.describe()}

    async def close(self) -> None:
        await self._judge.close()
