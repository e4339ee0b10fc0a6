"""Token ids to text, a token at a time."""

from collections.abc import Callable, Sequence

Decode = Callable[[list[int]], str]

_CONTEXT = 8
"""Tokens on the left that a token is decoded with."""
_PARTIAL = "\ufffd"
"""What a decoder puts for the first bytes of a character whose other bytes are missing."""


class Detokenizer:
    """The text of a completion as it grows, so that the texts of successive steps add up to the text of the whole.

    Tokens are decoded behind a few tokens to their left and cut off there, for a decoder drops the space at the very
    beginning of a text. The bytes of an unfinished character are held back until it is whole, in this completion or in
    the one that continues it; `flush` gives them up.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int]) -> None:
        self.text = ""
        self._decode = decode
        self._window, self._known = self._context(list(prompt))

    def add(self, token: int) -> str:
        """What the token adds to `text`; empty within a character."""
        self._window.append(token)
        decoded = self._decode(self._window).rstrip(_PARTIAL)
        new = decoded[len(self._known) :]
        self._known += new
        self.text += new
        if len(self._window) > 4 * _CONTEXT:
            self._window, self._known = self._context(self._window)
        return new

    def flush(self) -> None:
        """Add what is held back, as the decoder shows it: nothing follows that could complete it."""
        self.text += self._decode(self._window)[len(self._known) :]

    def _context(self, ids: list[int]) -> tuple[list[int], str]:
        """The last tokens, as many as show any text (special ones don't), and the text of them that is whole."""
        size = _CONTEXT
        while True:
            window = ids[-size:]
            known = self._decode(window).rstrip(_PARTIAL)
            if known or size >= len(ids):
                return window, known
            size *= 2


def first_stop(text: str, start: int, stops: Sequence[str]) -> str | None:
    """Of the stop strings that end behind `start` characters of the text, the one that ends first."""
    found = {stop: text.find(stop, max(0, start - len(stop) + 1)) for stop in stops}
    return min((stop for stop in stops if found[stop] >= 0), key=lambda stop: found[stop] + len(stop), default=None)
