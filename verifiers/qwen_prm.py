"""Qwen2.5-Math-PRM-7B and -72B, and Qwen2.5-Math-7B-PRM800K (Zhang et al., 2501.07301, and the model cards).

A chat with Qwen2.5-Math's own system prompt, in which the assistant's message is the steps, each followed by the
special token `<extra_0>`; a head of two labels is read there, label 1 meaning correct. The paper multiplies
step scores.
"""

from collections.abc import Sequence
from typing import Any

from infer.generate.readers import token_id
from infer.verifiers.prm import Family, architecture, encode_plain, encode_question, remember

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
TAG = "<extra_0>"


class QwenLayout:
    def __init__(self, tokenizer: Any) -> None:
        self._question, self._step = remember(encode_question, tokenizer), remember(encode_plain, tokenizer)
        self._tag = token_id(tokenizer, TAG)

    def __call__(self, question: str, steps: Sequence[str], finished: bool) -> tuple[list[int], list[int]]:
        tokens = list(self._question(question, SYSTEM))
        ends = []
        for step in steps:
            tokens += [*self._step(step.strip(), TAG), self._tag]
            ends.append(len(tokens))
        return tokens, ends


QWEN_PRM = Family(
    name="qwen-prm",
    layout=lambda tokenizer, _: QwenLayout(tokenizer),
    recognizes=lambda _, config: architecture(config) == "Qwen2ForProcessRewardModel",
    aggregation="prod",
    classes={
        "vllm": "infer.verifiers.vllm_models:InferQwen2ProcessReward",
        "transformers": "infer.verifiers.transformers_models:Qwen2ProcessReward",
    },
)
