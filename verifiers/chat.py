"""Chats that hold what others wrote: as text, and as the tokens of that text.

A chat is rendered with its real messages, since templates look at them, and tokenized in one piece, as its model's were
in training: SentencePiece puts a space before each piece, and byte-level tokenizers merge white space across its
edges. Text in a message that looks like a special token is only spelled.
"""

import logging
import re
from collections.abc import Sequence
from typing import Any

from infer.core.generator import Message
from infer.errors import UserError
from infer.generate.chat import apply_template, plain_prompt
from infer.verifiers.prm import encode_plain

SLOT = "\ue000"
"""A message that is not written yet."""
APART = "\ue001"
"""Between the characters of what must not become a special token."""


class Chat:
    """The chats of one tokenizer. Without a template, a chat is the plain text of its messages."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        longest_first = map(re.escape, sorted(special, key=len, reverse=True))
        self._special = re.compile(f"({'|'.join(longest_first) or '(?!)'})")
        if not tokenizer.chat_template:
            name = tokenizer.name_or_path
            logging.getLogger(__name__).warning("%s has no chat template: it judges plain text", name)

    def text(self, messages: Sequence[Message], generation_prompt: bool = True) -> str:
        """The chat as `encode` takes it. Raises UserError where the template refuses it."""
        spelled = [
            {**message, "content": self._special.sub(lambda found: APART.join(found[0]), message["content"])}
            for message in messages
        ]
        if not self._tokenizer.chat_template:
            return plain_prompt(spelled)
        return render(self._tokenizer, spelled, generation_prompt)

    def before_answer(self, messages: Sequence[Message]) -> str:
        """The chat up to the assistant's next words, just as it will stand before them once they are history.

        A generation prompt may differ from that: some open a thought that the template leaves out of earlier messages.
        Raises UserError where the template refuses the chat or keeps no history.
        """
        if not self._tokenizer.chat_template:
            return self.text(messages)
        later: list[Message] = [{"role": "assistant", "content": SLOT}, {"role": "user", "content": SLOT}]
        before, *rest = self.text([*messages, *later], generation_prompt=False).split(SLOT)
        if len(rest) != len(later):
            raise no_history(self._tokenizer)
        return before

    def encode(self, text: str) -> list[int]:
        """Token ids of a chat and of any text added to it. The template's own special tokens are real."""
        tokenizer = self._tokenizer
        if not tokenizer.chat_template:  # which would have named the tokens that begin a text
            return list(tokenizer.encode(text.replace(APART, ""), split_special_tokens=True))
        if APART not in text:
            return list(tokenizer.encode(text, add_special_tokens=False))
        ids: list[int] = []
        for i, piece in enumerate(self._special.split(text)):
            if i % 2:
                ids.append(tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                ids += encode_plain(tokenizer, piece.replace(APART, ""))
        return ids


def render(tokenizer: Any, messages: Sequence[Message], generation_prompt: bool) -> str:
    """The text that a chat template makes. Raises UserError where there is none, or it refuses these messages."""
    if not tokenizer.chat_template:
        raise UserError(f"the tokenizer of {tokenizer.name_or_path} has no chat template, which its family needs")
    text: str = apply_template(tokenizer, messages, tokenize=False, add_generation_prompt=generation_prompt)
    return text


def no_history(tokenizer: Any) -> UserError:
    """For a template that is of no use, since it drops or changes messages."""
    return UserError(f"the chat template of {tokenizer.name_or_path} does not keep the turns of a conversation")
