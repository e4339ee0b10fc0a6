"""Step classifiers over a chat: the score of a step is read at the step's own last token.

`*ForSequenceClassification` with two labels, label 1 meaning correct; the question as the user's message, the steps so
far as the assistant's, its end token after the last step of a finished solution. The packaged nano-prm models are
of this family.
"""

from collections.abc import Sequence
from typing import Any

from infer.errors import UserError
from infer.verifiers.prm import (
    Config,
    Family,
    architecture,
    check_labels,
    encode_plain,
    encode_question,
    labels,
    remember,
)

RIGHT = {"+", "correct", "good", "pos", "positive", "right", "true", "valid", "yes"}
WRONG = {"-", "bad", "false", "incorrect", "invalid", "neg", "negative", "no", "wrong"}


class ClassifierLayout:
    def __init__(self, tokenizer: Any) -> None:
        self._question, self._step = remember(encode_question, tokenizer), remember(encode_plain, tokenizer)
        self._end: list[int] = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []

    def __call__(self, question: str, steps: Sequence[str], finished: bool) -> tuple[list[int], list[int]]:
        tokens = list(self._question(question))
        ends = []
        for step in steps:
            tokens += self._step(step)
            ends.append(len(tokens))
        if finished:
            tokens += self._end
            ends[-1] = len(tokens)
        return tokens, ends


def check(model: str, config: Config) -> None:
    """Raises UserError for another number of labels, and where their names say that label 1 means wrong."""
    check_labels("classifier", 2, model, config)
    names = {int(label): str(name) for label, name in (config.get("id2label") or {}).items()}
    if names.get(0, "").lower() in RIGHT or names.get(1, "").lower() in WRONG:
        raise UserError(
            f"reward model {model} has the labels {names.get(0)!r} and {names.get(1)!r} in its config.json: the second "
            "has to mean correct"
        )


CLASSIFIER = Family(
    name="classifier",
    layout=lambda tokenizer, _: ClassifierLayout(tokenizer),
    recognizes=lambda _, config: architecture(config).endswith("ForSequenceClassification") and labels(config) == 2,
    aggregation="min",
    check=check,
)
