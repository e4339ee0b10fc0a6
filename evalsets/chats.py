"""Problems that come as a chat: a list of messages with `role` and `content`, as chat APIs take it."""

from typing import Any, NamedTuple

from infer.evalsets.cells import RowError, kind_of, whole

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class Chat(NamedTuple):
    """The user's last message is the problem."""

    before: tuple[tuple[str, str], ...]
    """Roles and texts of the messages before it."""
    prompt: str
    reply: str | None
    """The assistant's message after it, which is a solution where the data is for training."""


def read_chat(messages: list[Any]) -> Chat:
    """Splits a chat at the user's last message. Raises RowError for one that this can't be done with."""
    chat = [_message(number, message) for number, message in enumerate(messages, 1)]
    last = max((place for place, (role, _) in enumerate(chat) if role == "user"), default=None)
    if last is None:
        raise RowError(f"none of the {len(chat)} messages is the user's, which is the problem")
    replies = chat[last + 1 :]
    if len(replies) > 1 or any(role != "assistant" for role, _ in replies):
        raise RowError("after the user's last message, which is the problem, comes more than one reply: leave it out")
    return Chat(tuple(chat[:last]), chat[last][1], replies[0][1] if replies else None)


def _message(number: int, message: Any) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise RowError(f'message {number} is {kind_of(message)}, not like {{"role": "user", "content": "…"}}')
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise RowError(f"message {number} has the role {role!r}; known: {', '.join(ROLES)}")
    if isinstance(content, list):  # parts: text, pictures, …
        kinds = [part.get("type") if isinstance(part, dict) else kind_of(part) for part in content]
        if other := next((kind for kind in kinds if kind != "text"), None):
            raise RowError(f"message {number} has a part of the kind {other!r}: only text can be solved")
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise RowError(f"the content of message {number} is {kind_of(content)}, not text")
    return ROLES[role], whole(content)
