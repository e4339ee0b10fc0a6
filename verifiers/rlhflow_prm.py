"""RLHFlow/Llama3.1-8B-PRM-Deepseek-Data and -Mistral-Data (RLHFlow/RLHF-Reward-Modeling, math-rm).

A language model in a conversation: the user gives the question with the first step, then one step a turn, and the
assistant answers each with `+` or `-`. The score of a step is the probability of `+` over that of `-` where the answer
is predicted. In the history every answer is `+`, whatever was thought of the step. Step scores are averaged, as in the
authors' evaluation.
"""

from collections.abc import Sequence
from typing import Any

from infer.generate.readers import token_id
from infer.verifiers.chat import SLOT, no_history, render
from infer.verifiers.prm import Family, architecture, encode_plain, remember


class RLHFlowLayout:
    def __init__(self, tokenizer: Any) -> None:
        turn = [{"role": "user", "content": SLOT}, {"role": "assistant", "content": "+"}]
        around = render(tokenizer, [*turn, turn[0]], generation_prompt=True).split(SLOT)
        if len(around) != 3 or not around[1].startswith(f"{around[2]}+"):
            raise no_history(tokenizer)
        opening, between, answer = around
        self._step = remember(encode_plain, tokenizer)
        self._opening, self._answer, self._next = (
            tokenizer.encode(text, add_special_tokens=False)
            for text in (opening, answer, between.removeprefix(f"{answer}+"))
        )
        self._plus = token_id(tokenizer, "+")

    def __call__(self, question: str, steps: Sequence[str], finished: bool) -> tuple[list[int], list[int]]:
        tokens, ends = list(self._opening), []
        for number, step in enumerate(steps):
            said = f"{question} {step.strip()}" if number == 0 else step.strip()
            tokens += [*self._step(said.strip()), *self._answer]
            ends.append(len(tokens))
            tokens += [self._plus, *self._next]
        return tokens, ends


RLHFLOW_PRM = Family(
    name="rlhflow-prm",
    layout=lambda tokenizer, _: RLHFlowLayout(tokenizer),
    recognizes=lambda name, config: "llama3.1-8b-prm" in name and architecture(config).endswith("ForCausalLM"),
    aggregation="mean",
    pair=("+", "-"),
)
