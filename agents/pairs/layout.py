"""The prompts of a pair chat.

Unlike deliberators, its agents must not see each other's turns: a generator that knew of the
ear-whisperer would not be misled, and a scorer that knew of the belief would not judge the answer.
What they share are the policies, which stand first in all their system prompts, so that an
endpoint's prefix cache serves them.
"""

from __future__ import annotations

import re
from typing import Any

from autogen_core.models import LLMMessage, SystemMessage, UserMessage

from agents.layout import Briefing, fence
from agents.pairs.state import CandidateAnswer
from agents.prompt_texts import fill

_TURN_MARK = re.compile(r"<+(start|end)_of_turn>+")


def system_message(briefing: Briefing, role: str) -> SystemMessage:
    """The system prompt of a role: the policies, then what the role is to do."""
    texts = briefing.prompts.section("pairs")
    return briefing.system_message(texts.system, getattr(texts, role).ground_rules)


def show_answer(answer: CandidateAnswer, texts: Any) -> str:
    """An answer as a judge reads it: the same form for both sides."""
    thoughts = "\n".join(
        fill(
            texts.thought,
            number=number,
            text=thought.text,
            cited=", ".join([*thought.policies, *thought.rules]),
        )
        for number, thought in enumerate(answer.thoughts, 1)
    )
    shown = fill(texts.answer, thoughts=thoughts or texts.no_thoughts, response=answer.response)
    return fence(shown, "ANSWER")


def classifier_request(
    prompt: str, answer: CandidateAnswer, principle: str, texts: Any
) -> list[LLMMessage]:
    """Asks a classifier such as ShieldGemma whether an answer violates one principle.

    There is no system message, since its chat template knows none.
    """
    said = "\n".join([*(thought.text for thought in answer.thoughts), "", answer.response])
    # Neither text can pass for the end of a turn.
    asked, said = (_TURN_MARK.sub(r"\1_of_turn", text).strip() for text in (prompt, said))
    text = fill(texts.request, prompt=asked, answer=said, principle=principle)
    return [UserMessage(content=text, source="user")]
