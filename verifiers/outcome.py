"""Outcome reward models: one score for a whole answer.

`*ForSequenceClassification` with one label over the model's own chat template, as Skywork-Reward and most of
RewardBench. Question and answer are a conversation. It is read at its last token that is no padding, as transformers
pools it, because some templates end in the very token that their model pads with. The reward is a log-odds of
preference (Bradley and Terry); its sigmoid is the score, which keeps the order and lies in [0, 1]. An unfinished
solution is scored as if it ended there.
"""

from collections.abc import Sequence
from typing import Any

from infer.core.generator import Message
from infer.verifiers.chat import SLOT, Chat, no_history, render
from infer.verifiers.prm import Config, Family, architecture, check_labels, labels


class OutcomeLayout:
    def __init__(self, tokenizer: Any, config: Config) -> None:
        if SLOT not in render(tokenizer, _conversation("", SLOT), generation_prompt=False):
            raise no_history(tokenizer)
        self._chat = Chat(tokenizer)
        self._padding = config.get("text_config", config).get("pad_token_id")

    def __call__(self, question: str, steps: Sequence[str], finished: bool) -> tuple[list[int], list[int]]:
        conversation = _conversation(question, "".join(steps).strip())
        tokens = self._chat.encode(self._chat.text(conversation, generation_prompt=False))
        end = len(tokens)
        while end > 1 and tokens[end - 1] == self._padding:
            end -= 1
        return tokens, [end]


def _conversation(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


OUTCOME = Family(
    name="outcome",
    layout=OutcomeLayout,
    recognizes=lambda _, config: architecture(config).endswith("ForSequenceClassification") and labels(config) == 1,
    aggregation="last",
    stepwise=False,
    check=lambda model, config: check_labels("outcome", 1, model, config),
)
