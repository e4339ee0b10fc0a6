"""The address of a server, as a user types it, and the secrets that it may hold.

A key may stand in front of the host (`http://user:KEY@host/v1`) or in the query (`http://host/v1?key=KEY`). It goes
with each request, and is neither shown nor stored.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from infer.errors import UserError


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address, its secrets apart."""

    url: str
    """Without secrets, and without a slash at its end: to be shown, and to be followed by a path."""
    login: tuple[str, str] | None = None
    """User and password."""
    query: str = ""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Raises UserError for what can be no server's address. Nothing is looked up."""
        if not re.match("https?://", text):
            raise _unfit(text, "it does not begin with http:// or https://")
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
            host.encode("idna")
        except ValueError:  # its words would quote a password; a UnicodeError is one too
            raise _unfit(text, "its host or its port is malformed") from None
        if not host or port == 0 or re.search(r"[^\w.:-]", host) or re.search(r"[\s\x00-\x1f\x7f]", text):
            raise _unfit(text, "its host or its port is malformed" if host else "it names no host")
        login = (unquote(parts.username or ""), unquote(parts.password or "")) if "@" in parts.netloc else None
        url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        return cls(url, login, parts.query)

    def hide(self, text: str, *secrets: str | None) -> str:
        """A server's words without what it was sent in secret: this address's, and others."""
        login = () if self.login is None else (self.login[1] or self.login[0],)
        found = {*secrets, *login, self.query, *(value for _, value in parse_qsl(self.query))}
        for secret in sorted(filter(None, found), key=len, reverse=True):
            if len(secret) > 3:  # shorter ones are no keys, but parts of words
                text = text.replace(secret, "***")
        return text


def without_secrets(text: str) -> str:
    """A text with the addresses in it as they may be shown. Rather too much is hidden than too little."""
    # a scheme begins a word, and an address has an end: a long text would take minutes otherwise
    text = re.sub(r"(\b\w+://)[^\s,'\"]{0,2000}@", r"\1***@", text)
    return re.sub(r"(\b\w+://[^\s?,'\"]{0,2000}\?)[^\s,'\"]+", r"\1***", text)


def _unfit(text: str, why: str) -> UserError:
    shown = f"***@{text.rpartition('@')[2]}" if "@" in text and "://" not in text else without_secrets(text)
    return UserError(f"{shown!r} is no server's address: {why}: write one such as http://127.0.0.1:8000/v1")
