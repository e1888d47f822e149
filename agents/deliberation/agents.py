"""The roles of a deliberation: what each is asked to do in its turn, and the form of its reply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from autogen_agentchat.messages import BaseChatMessage
from autogen_core.models import LLMMessage

from agents.deliberation.replies import DeliberationReply, DraftReply, IntentReply, RefinementReply
from agents.deliberation.state import DeliberationState, Thought
from agents.layout import fence, lay_out
from agents.policy_agent import PolicyAgent
from agents.prompt_texts import fill
from agents.turns import TurnMessage

_fill_cached = lru_cache(maxsize=1024)(fill)
"""Many live chats have the same instructions, all of them in the opening: each is stored once."""


class DeliberationAgent(PolicyAgent):
    """An agent that takes part in a deliberation. All of them see all turns so far."""

    section = "deliberation"

    def start(self, seen: Sequence[BaseChatMessage]) -> DeliberationState:
        """No intents, no thoughts, no response."""
        return DeliberationState(self.briefing)

    def task(self, state: DeliberationState) -> str:
        """What to do in this turn."""
        return str(getattr(self.texts, self.role).task)

    def instruction(self, seen: Sequence[BaseChatMessage], state: DeliberationState) -> str:
        """Who the agent is, what guests have said since the last turn, and the task."""
        last = max((i for i, m in enumerate(seen) if isinstance(m, TurnMessage)), default=0)
        words = [f"{m.source}: {m.to_model_text()}" for m in seen[last + 1 :]]
        guests = [fill(self.texts.guest, words=fence(said, "GUEST")) for said in words]
        return (fill if guests else _fill_cached)(
            self.texts.instruction,
            agent=self.name,
            description=self.persona.description,
            instructions=self.persona.instructions,
            task="\n".join([*guests, self.task(state)]),
        )

    def request(self, prompt: str, instruction: str, state: DeliberationState) -> list[LLMMessage]:
        """The whole chat so far, append-only."""
        system = self.briefing.system_message(self.texts.system)
        return lay_out(system, prompt, state.turns, instruction)


class IntentAnalyst(DeliberationAgent):
    """Decomposes the prompt into explicit and implicit intents, benign and harmful apart."""

    reply_type = IntentReply


class Drafter(DeliberationAgent):
    """Writes the first thoughts and the first response."""

    reply_type = DraftReply


class Deliberator(DeliberationAgent):
    """Reviews the current version: accepts it, or adds, corrects and disputes thoughts."""

    reply_type = DeliberationReply

    def task(self, state: DeliberationState) -> str:
        """How things stand, which the replies do not show, and the kind of turn."""
        texts, numbers = self.texts.deliberator, _joined(t.id for t in state.thoughts)
        parts = [summary(state, self.texts.changes)] if state.last_agent else []
        parts.append(fill(texts.thoughts, numbers=numbers) if numbers else texts.no_thoughts)
        parts.append(_whose_response(state, texts))
        return fill(texts.task, state=" ".join(parts))

    def round(self, state: DeliberationState) -> int:
        """How often the agent has spoken, with this turn."""
        return 1 + sum(turn.agent == self.name for turn in state.turns)


class Refiner(DeliberationAgent):
    """Judges every thought of all rounds impartially, and settles the response."""

    reply_type = RefinementReply

    def task(self, state: DeliberationState) -> str:
        """The thoughts that stand, in full, and the kind of turn."""
        texts = self.texts.refiner
        thoughts = fence("\n".join(_with_disputes(t, texts) for t in state.thoughts), "THOUGHTS")
        return fill(texts.task, thoughts=thoughts, response=_whose_response(state, texts))

    def objection(self, reply: RefinementReply, state: DeliberationState) -> str | None:
        """A refiner must not drop every thought, nor leave the chat without a response."""
        if state.drops_everything(reply):
            return "it drops every thought; at least one must stay"
        if state.response is None and reply.response is None:
            return "there is no response yet, so it must be written"
        return None


def _joined(parts: Iterable[object]) -> str:
    return ", ".join(str(part) for part in parts)


def _whose_response(state: DeliberationState, texts: Any) -> str:
    if state.response_by is None:
        return str(texts.no_response)
    return fill(texts.response, agent=state.response_by)


def _with_disputes(thought: Thought, texts: Any) -> str:
    cited = _joined([*thought.policies, *thought.rules])
    line = fill(texts.thought, number=thought.id, text=thought.text, cited=cited)
    return line + "".join(
        fill(texts.dispute, agent=each.by, reason=each.reason) for each in thought.objections
    )


def summary(state: DeliberationState, texts: Any) -> str:
    """What the last turn did to the numbering, in one line without the words of any model."""
    changes = []
    for what, *numbers in state.changes:
        several = texts.one_thought if len(numbers) == 1 else texts.thoughts
        thoughts = fill(several, numbers=_joined(numbers))
        number, new = (*numbers, "", "")[:2]
        changes.append(fill(getattr(texts, str(what)), thoughts=thoughts, number=number, new=new))
    return fill(texts.summary, agent=state.last_agent, changes=_joined(changes) or texts.nothing)
