"""Token ids to text, a token at a time."""

from collections.abc import Callable, Sequence
from typing import Any

Decode = Callable[[list[int]], str]

PARTIAL = "\ufffd"
"""A decoder emits this for the first bytes of a character whose other bytes are missing. One with byte fallback (Llama
2, Gemma) emits it for every byte of a run of byte tokens if any character in the run is incomplete."""

_CONTEXT = 8
"""Tokens on the left that a token is decoded with."""


class Detokenizer:
    """The text of a completion as it grows, so that the texts of successive steps add up to the text of the whole.

    Tokens are decoded after a few tokens to their left, whose text is cut off: a decoder drops the space at the very
    beginning of a text. The bytes of an unfinished character are held back until it is whole, in this completion or in
    the one that continues it; `flush` gives them up.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int]) -> None:
        self.text = ""
        self._decode = decode
        self._window, self._known = self._context(list(prompt))

    def add(self, token: int) -> str:
        """The text that the token adds; empty within a character."""
        self._window.append(token)
        decoded = self._decode(self._window).rstrip(PARTIAL)
        new = decoded[len(self._known) :]
        self._known += new
        self.text += new
        # within a run of byte tokens the window would have to reach back to the run's beginning anyway
        if len(self._window) > 4 * _CONTEXT and PARTIAL not in self._decode([token]):
            self._window, self._known = self._context(self._window)
        return new

    def flush(self) -> None:
        """Add what is held back, as the decoder shows it: nothing follows that could complete it."""
        self.text += self._decode(self._window)[len(self._known) :]

    def _context(self, ids: list[int]) -> tuple[list[int], str]:
        """The last tokens, as many as show any text (special ones don't), and the text of them that is whole."""
        size = _CONTEXT
        while True:
            window = last_tokens(self._decode, ids, size)
            known = self._whole(window)
            if known or len(window) == len(ids):
                return window, known
            size *= 2

    def _whole(self, ids: list[int]) -> str:
        """The text that `add` would have returned for these tokens: all that was whole before a torn run of bytes."""
        whole = ""
        for size in range(len(ids), 0, -1):
            decoded = self._decode(ids[:size])
            whole = max(whole, decoded.rstrip(PARTIAL), key=len)
            if not decoded.endswith(PARTIAL):
                break
        return whole


def last_tokens(decode: Decode, ids: list[int], size: int) -> list[int]:
    """The last `size` tokens, and as many before them as it takes to begin with one that is text by itself.

    If the first token began within a character, a decoder with byte fallback would show nothing of its run of bytes.
    """
    while size < len(ids) and PARTIAL in decode([ids[-size]]):
        size += 1
    return ids[-size:]


def encode_within(tokenizer: Any, text: str) -> list[int]:
    """The token ids of a text that goes on from another.

    Some tokenizers (Llama 2's) put a space before a text, so it is encoded after a newline, which is then cut off.
    Where the newline merges with the text, the tokenizer has tokens of newlines; such tokenizers put nothing before.
    """
    newline: list[int] = list(tokenizer.encode("\n", add_special_tokens=False))
    ids: list[int] = list(tokenizer.encode("\n" + text, add_special_tokens=False))
    if ids[: len(newline)] == newline:
        return ids[len(newline) :]
    return list(tokenizer.encode(text, add_special_tokens=False))


def first_stop(text: str, start: int, stops: Sequence[str]) -> str | None:
    """Of the stop strings that end after the first `start` characters of the text, the one that ends first."""
    found = {stop: text.find(stop, max(0, start - len(stop) + 1)) for stop in stops}
    return min((stop for stop in stops if found[stop] >= 0), key=lambda stop: found[stop] + len(stop), default=None)
