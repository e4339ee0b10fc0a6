"""Chats as prompts: a tokenizer's chat template, or plain text where it has none."""

import functools
import logging
from collections.abc import Sequence
from typing import Any

from infer.core.generator import Message
from infer.errors import UserError, first_line


def plain_prompt(messages: Sequence[Message]) -> str:
    """The prompt for a model without a chat template: the messages' texts, a blank line between them and after."""
    return "".join(f"{message['content'].strip()}\n\n" for message in messages)


def encode_chat(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of a chat under a Hugging Face tokenizer's template, or of `plain_prompt` where it has none.

    Raises UserError where the template refuses these messages.
    """
    if tokenizer.chat_template:
        return list(apply_template(tokenizer, messages, add_generation_prompt=True, tokenize=True, return_dict=False))
    _warn_no_template(tokenizer.name_or_path)
    return list(tokenizer.encode(plain_prompt(messages)))


def apply_template(tokenizer: Any, messages: Sequence[Message], **how: Any) -> Any:
    """`tokenizer.apply_chat_template`. Raises UserError for whatever the template, a program, may raise."""
    try:
        return tokenizer.apply_chat_template(messages, **how)
    except Exception as error:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} refuses these messages: {first_line(error)}"
        ) from error


def check_tokenizer(tokenizer: Any) -> None:
    """Raises UserError for one that was made of nothing: transformers does so where a folder lacks its files."""
    if not tokenizer.encode("1"):
        raise UserError(
            f"model {tokenizer.name_or_path} has no tokenizer: add its files (tokenizer.json) to the folder"
        )


@functools.cache
def _warn_no_template(name: str) -> None:
    logging.getLogger(__name__).warning("%s has no chat template: prompts are plain text", name)
