"""The four roles: what each is asked to do in its turn, and the form of its reply."""

from __future__ import annotations

from collections.abc import Sequence

from agents.deliberation import Deliberation
from agents.layout import Briefing, fence
from agents.models.model import Model
from agents.persona import Persona
from agents.policy_agent import PolicyAgent
from agents.replies import DeliberationReply, DraftReply, IntentReply, RefinementReply


class IntentAnalyst(PolicyAgent):
    """Decomposes the prompt into explicit and implicit intents, benign and harmful apart."""

    component_provider_override = "agents.roles.IntentAnalyst"
    role = "intent_analyst"
    reply_type = IntentReply

    def task(self, state: Deliberation) -> str:
        """The kind of turn."""
        return "This turn: intents."


class Drafter(PolicyAgent):
    """Writes the first thoughts and the first response."""

    component_provider_override = "agents.roles.Drafter"
    role = "drafter"
    reply_type = DraftReply

    def task(self, state: Deliberation) -> str:
        """The kind of turn."""
        return "This turn: draft."


class Deliberator(PolicyAgent):
    """Reviews what stands: accepts it, or adds, corrects and disputes thoughts."""

    component_provider_override = "agents.roles.Deliberator"
    role = "deliberator"
    reply_type = DeliberationReply

    def task(self, state: Deliberation) -> str:
        """Where things stand, which the replies do not show, and the kind of turn."""
        stands = [*state.ledger[-1:], "No thought stands yet."]
        if state.thoughts:
            numbers = ", ".join(str(thought.id) for thought in state.thoughts)
            stands[-1] = f"Thoughts that stand: {numbers}."
        by = state.response_by
        stands.append(f"The response is {by}'s." if by else "There is no response yet.")
        return f"{' '.join(stands)}\nThis turn: deliberation."


class Refiner(PolicyAgent):
    """Judges every thought of all rounds impartially, and settles the response."""

    component_provider_override = "agents.roles.Refiner"
    role = "refiner"
    reply_type = RefinementReply

    def task(self, state: Deliberation) -> str:
        """The thoughts that stand, in full, and the kind of turn."""
        thoughts = "\n".join(
            f"{t.id}. {t.text} [{', '.join([*t.policies, *t.rules])}]"
            + "".join(f" (disputed by {o.by}: {o.reason})" for o in t.objections)
            for t in state.thoughts
        )
        whose = f"{state.response_by}'s" if state.response_by else "still to be written"
        return (
            f"The thoughts that stand, by their numbers:\n{fence(thoughts, 'THOUGHTS')}\n"
            f"The response is {whose}.\nThis turn: refinement."
        )

    def objection(self, reply: RefinementReply, state: Deliberation) -> str | None:
        """A chain without thoughts is no chain; a record without a response is no record."""
        if state.drops_everything(reply):
            return "it drops every thought; at least one must stay"
        if state.response is None and reply.response is None:
            return "there is no response yet, so it must be written"
        return None


_AGENTS: dict[str, type[PolicyAgent]] = {
    agent.role: agent for agent in (IntentAnalyst, Drafter, Deliberator, Refiner)
}


def make_agent(persona: Persona, briefing: Briefing, models: Sequence[Model]) -> PolicyAgent:
    """The agent that a persona's role calls for.

    Args:
        persona: Who it is.
        briefing: Policies and limits of the run.
        models: The persona's model, then its fallbacks.
    """
    return _AGENTS[persona.role](persona, briefing, models)
