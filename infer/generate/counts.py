"""The tokens that a server reports, checked: budgets are charged by them, and some servers count what cannot be."""

import logging
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from infer.core.tree import Prompt
from infer.errors import UserError
from infer.generate.loading import load_tokenizer
from infer.generate.replies import Received, Usage

logger = logging.getLogger(__name__)

_SLACK = 1
"""Tokens that a server may count beyond those asked for: some count the end token apart. They are not charged."""
_AROUND = 1024
"""Tokens that a chat template may put around a prompt, at most."""


class Counts:
    """Counts the tokens of one server's replies, and warns once of each count that cannot be."""

    def __init__(self, base_url: str, source: str) -> None:
        self._base_url = base_url
        self._source = source
        self._said: set[str] = set()

    def completion(self, reply: Received) -> int:
        """The tokens of a completion: its ids, else what the server reports, if that can be.

        That is a number from 0 (the end token alone, which counts) up to what was asked for. Otherwise the text's
        tokens by the model's own tokenizer, where it is on this machine; else the pieces of a stream, a token each;
        else all that were asked for. Never more than these: a budget has paid for them.
        """
        told = reply.usage.completion_tokens if reply.usage is not None else None
        if reply.tokens or (reply.cut and told is None):
            count = len(reply.tokens) or reply.pieces
            if told is not None and told != count:
                self._say_once(f"reports {told} tokens where it returned {count}: those returned count")
            return min(count, reply.most)
        if told is None or not 0 <= told <= reply.most + _SLACK:
            tells = "no usage" if told is None else f"{told} tokens where {reply.most} at most were asked for"
            if self.tokenizer is not None:
                own = len(self.tokenizer.encode(reply.text, add_special_tokens=False))
                by, told = "by the model's tokenizer", own + (reply.finish_reason != "length")  # the end token
            elif reply.events > 1:
                by, told = "by the pieces of its streams", reply.pieces
            else:
                by, told = "as all that were asked for", reply.most
            self._say_once(f"reports {tells}: tokens are counted {by}")
        return min(max(told, 1), reply.most)

    def prompt(self, prompt: Prompt, reply: Received) -> tuple[int, int]:
        """The prompt's tokens that were computed, and those read from the cache."""
        usage = reply.usage or Usage()
        known = None if isinstance(prompt, str) else len(prompt)
        most = len(prompt.encode()) + _AROUND if isinstance(prompt, str) else len(prompt)
        count = known or 0 if usage.prompt_tokens is None else usage.prompt_tokens
        if (known is not None and count != known) or not 0 <= count <= most:
            self._say_once(f"reports {count} tokens of a prompt that has {'at most ' if known is None else ''}{most}")
            count = most
        cached = usage.cached
        if not 0 <= cached <= count:
            self._say_once(f"reports {cached} cached tokens of {count}: none are counted as cached")
            cached = 0
        return count - cached, cached

    def _say_once(self, what: str) -> None:
        """Warns of a server's habit. Of messages that differ in their numbers the first."""
        kind = "".join(letter for letter in what if not letter.isdigit())
        if kind not in self._said:
            self._said.add(kind)
            logger.warning("%s %s", self._base_url, what)

    @cached_property
    def tokenizer(self) -> Any:
        """The served model's tokenizer, if it is on this machine; nothing is downloaded."""
        from huggingface_hub import try_to_load_from_cache

        with suppress(UserError, ValueError):
            if Path(self._source).is_dir() or isinstance(try_to_load_from_cache(self._source, "tokenizer.json"), str):
                return load_tokenizer(self._source, None)
        return None
