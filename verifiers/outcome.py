"""Outcome reward models: one score for a whole answer.

`*ForSequenceClassification` with one label over the model's own chat template, as Skywork-Reward and most of
RewardBench: question and answer as a conversation, read at its last token. The reward is a log-odds of preference
(Bradley and Terry); its sigmoid is the score, which keeps the order and lies in [0, 1]. An unfinished solution is
scored as if it ended there.
"""

from collections.abc import Sequence
from typing import Any

from infer.verifiers.prm import SLOT, Family, architecture, chat_around, encode_plain, labels


class OutcomeLayout:
    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._around("")

    def __call__(self, question: str, steps: Sequence[str], finished: bool) -> tuple[list[int], list[int]]:
        before, after = self._around(question)
        tokens = self._tokenizer.encode(before, add_special_tokens=False)
        tokens += encode_plain(self._tokenizer, "".join(steps).strip())
        tokens += self._tokenizer.encode(after, add_special_tokens=False)
        return tokens, [len(tokens)]

    def _around(self, question: str) -> list[str]:
        conversation = [{"role": "user", "content": question}, {"role": "assistant", "content": SLOT}]
        return chat_around(self._tokenizer, conversation, generation_prompt=False)


OUTCOME = Family(
    name="outcome",
    layout=OutcomeLayout,
    recognizes=lambda _, config: architecture(config).endswith("ForSequenceClassification") and labels(config) == 1,
    reads="head",
    aggregation="last",
    stepwise=False,
)
