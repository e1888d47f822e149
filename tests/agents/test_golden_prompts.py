"""The shipped wording, to the byte: every message of every call of scripted chats."""

from __future__ import annotations

from typing import Any

import pytest

from agents.prompt_texts import default_prompts
from tests.agents.golden_chats import CHATS, load

GOLDEN = load()


@pytest.mark.parametrize("chat", CHATS, ids=lambda chat: chat.__name__)
async def test_every_message_of_a_call_is_as_it_was(chat: Any) -> None:
    assert await chat(default_prompts()) == GOLDEN[chat.__name__]
