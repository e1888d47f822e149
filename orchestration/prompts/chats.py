"""Prompts that are chats: lists of messages in the form of OpenAI (`role`) or ShareGPT (`from`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeGuard

CHAT_COLUMNS = ("messages", "conversations", "conversation")
"""Columns that are taken for the prompts' if there is no other sign and they hold chats."""

_KEYS = (("role", "content"), ("from", "value"))
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
_TEXT_PARTS = ("text", "input_text")
_REMEDY = "Give each row a chat with one user turn, or its prompt as text in a column of its own."


class ChatPrompt(NamedTuple):
    """What a chat says."""

    text: str
    """Its user turn."""
    others: list[object]
    """Its other messages."""


class ChatError(Exception):
    """A chat that does not say in one way what its prompt is.

    Args:
        what: What is wrong with it, as a clause.
        remedy: What to do about it, as a sentence.
    """

    def __init__(self, what: str, remedy: str = _REMEDY) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy


def is_chat(value: object) -> TypeGuard[Sequence[Mapping[str, object]]]:
    """Whether a value is a list of messages, well-formed or not."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(message, Mapping) and _keys(message) for message in value)
    )


def read_chat(messages: Sequence[Mapping[str, object]]) -> ChatPrompt:
    """Takes the prompt out of a chat: its only user turn.

    There may be system messages, and an assistant turn at the end.

    Raises:
        ChatError: It has no user turn or several, or something else.
    """
    turns: list[tuple[int, str]] = []
    for position, message in enumerate(messages):
        name, _ = _keys(message) or _KEYS[0]
        role = _ROLES.get(str(message[name]).strip().lower())
        if role is None:
            raise ChatError(f"the chat has a message of {message[name]!r}")
        if role != "system":
            turns.append((position, role))
    users = [position for position, role in turns if role == "user"]
    if len(users) != 1:
        many = f"{len(users)} user turns" if users else "no user turn"
        raise ChatError(f"the chat has {many}, so which text is the prompt is not clear")
    if turns[0][1] != "user":
        raise ChatError("the chat has an assistant turn before that of the user")
    if len(turns) > 2:
        raise ChatError("the chat has several assistant turns after that of the user")
    [user] = users
    others: list[object] = [
        message for position, message in enumerate(messages) if position != user
    ]
    return ChatPrompt(_text(messages[user]), others)


def _keys(message: Mapping[str, object]) -> tuple[str, str] | None:
    """The keys of a message's role and content."""
    return next((keys for keys in _KEYS if keys[0] in message and keys[1] in message), None)


def _text(message: Mapping[str, object]) -> str:
    if any(message.get(key) for key in ("tool_calls", "images", "image", "audio", "videos")):
        raise ChatError("the user turn has more than text")
    _, name = _keys(message) or _KEYS[0]
    content = message[name]
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list | tuple):
        raise ChatError(f"the user turn is not text but {type(content).__name__}")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        text = part.get("text") if isinstance(part, Mapping) else None
        if kind not in _TEXT_PARTS or not isinstance(text, str):
            raise ChatError(f"the user turn has a part that is not text but {kind!r}")
        texts.append(text)
    return "\n".join(texts)
