"""A kind of chat: what it consists of, and that the root of `agents/` names none."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken
from autogen_core.models import LLMMessage
from pydantic import BaseModel, TypeAdapter, ValidationError

import agents
from agents.deliberation.agents import DeliberationAgent
from agents.deliberation.replies import DeliberationTurns
from agents.layout import Briefing, lay_out
from agents.pairs.agents import PairAgent
from agents.pairs.replies import PairTurns
from agents.persona import Persona
from agents.policy_agent import PolicyAgent
from agents.prompt_texts import default_prompts
from agents.replies import KINDS, ReplyText, TypedReply
from agents.turns import ChatState, Turn, TurnMessage, state_after, store_state
from policies import load_policy_set
from tests.scripted import persona, scripted

ROOT = Path(agents.__file__).parent
Kind: TypeAlias = tuple[type[PolicyAgent], type[PolicyAgent]]


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=lambda path: path.name)
def test_the_root_of_agents_imports_no_kind(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            assert not module.startswith(tuple(f"agents.{kind}" for kind in KINDS))


def test_every_folder_with_agents_is_a_kind_and_has_a_section_of_the_prompts() -> None:
    assert sorted(path.parent.name for path in ROOT.glob("*/agents.py")) == sorted(KINDS)
    assert all(default_prompts().section(kind) for kind in KINDS)


# A kind that is not ours --------------------------------------------------------------------------


@pytest.fixture
def critics(monkeypatch: pytest.MonkeyPatch) -> Kind:
    """A kind of chat in which a critic grades the prompt; its base and its agent."""
    monkeypatch.setattr(TypedReply, "by_role", dict(TypedReply.by_role))
    return _make_kind()


def _make_kind() -> Kind:
    class CriticReply(TypedReply):
        role: Literal["critic"] = "critic"
        grade: int
        why: ReplyText

    class CriticState(ChatState):
        def __init__(self) -> None:
            self.turns = []
            self.grades: list[int] = []

        @property
        def source(self) -> None:
            return None

        def apply(self, turn: Turn) -> None:
            self.turns.append(turn)
            if isinstance(turn.reply, CriticReply):
                self.grades.append(turn.reply.grade)

    class CriticAgent(PolicyAgent):
        section = "deliberation"

        def start(self, seen: Sequence[BaseChatMessage]) -> CriticState:
            return CriticState()

        def instruction(self, seen: Sequence[BaseChatMessage], state: CriticState) -> str:
            return f"This turn: grade. {state.grades}"

        def request(self, prompt: str, instruction: str, state: Any) -> list[LLMMessage]:
            system = self.briefing.system_message("Grade.\n{policies}")
            return lay_out(system, prompt, state.turns, instruction)

        def round(self, state: CriticState) -> int:
            return 1

    class Critic(CriticAgent):
        reply_type = CriticReply

    return CriticAgent, Critic


async def test_a_kind_needs_a_reply_a_state_and_an_agent(
    critics: Kind,
) -> None:
    base, critic_type = critics
    model, client = scripted([{"grade": 3, "why": "So."}, {"grade": 4, "why": "So."}])
    run = Briefing(load_policy_set("aidsafe"))
    heard: list[BaseChatMessage] = [TextMessage(content="Hello?", source="user")]
    for name in ("first", "second"):
        critic = base.make(persona(name, "critic"), run, [model])
        assert type(critic) is critic_type
        heard.append((await critic.on_messages(heard, CancellationToken())).chat_message)

    assert str(client.requests[1][-1].content).endswith("This turn: grade. [3]")
    message = heard[-1]
    assert isinstance(message, TurnMessage)
    assert message.to_text() == "grade: 4\nwhy: So."
    assert Turn.model_validate_json(message.content.model_dump_json()) == message.content


def test_a_role_is_one_of_those_that_are_known(critics: Kind) -> None:
    assert persona("judge", "critic").role == "critic"
    with pytest.raises(ValidationError, match=r'no role "critics"\. Did you mean "critic"'):
        persona("judge", "critics")
    assert "critic" in Persona.model_json_schema()["properties"]["role"]["enum"]


def test_two_kinds_cannot_have_the_same_role(critics: Kind) -> None:
    with pytest.raises(ValueError, match="OtherReply has the role of"):

        class OtherReply(TypedReply):
            role: Literal["critic"] = "critic"


def test_a_kind_makes_agents_of_its_own_roles_alone() -> None:
    model, _ = scripted([])
    run = Briefing(load_policy_set("aidsafe"))

    with pytest.raises(ValueError, match="persona 'x' is a generator: no DeliberationAgent"):
        DeliberationAgent.make(persona("x", "generator"), run, [model])
    assert PairAgent.make(persona("x", "generator"), run, [model], "other").name == "other"


@pytest.mark.parametrize(
    ("turns", "roles"),
    [
        (DeliberationTurns, ["intent_analyst", "drafter", "deliberator", "refiner"]),
        (PairTurns, ["ear_whisperer", "generator", "violation_judge", "violation_classifier"]),
    ],
)
def test_the_schema_of_turns_describes_the_replies_of_their_kind(
    turns: Any, roles: list[str]
) -> None:
    schema = TypeAdapter(turns).json_schema(mode="serialization")
    fields = schema["$defs"]["Turn"]["properties"]

    assert sorted(fields["reply"]["anyOf"][0]["discriminator"]["mapping"]) == sorted(roles)
    assert fields["role"]["enum"] == [*roles, "guest"]
    known = {reply.__name__ for name, reply in TypedReply.by_role.items() if name not in roles}
    assert not known & set(schema["$defs"])


def test_a_turn_of_an_unknown_role_is_refused() -> None:
    with pytest.raises(ValidationError, match="There is no role"):
        Turn(agent="a", persona="a", role="boss", model="m", raw="", finish_reason="stop")
    with pytest.raises(ValidationError, match="There is no role"):
        Turn.model_validate({"role": "drafter", "reply": {"role": "boss"}})


def test_a_state_of_other_turns_or_another_source_is_not_continued() -> None:
    class Source(BaseModel):
        pass

    class State(ChatState):
        def __init__(self, source: Source) -> None:
            self._source = source
            self.turns = []

        @property
        def source(self) -> Source:
            return self._source

        def apply(self, turn: Turn) -> None:
            self.turns.append(turn)

    source = Source()
    turns = [
        Turn(agent=name, persona="p", role="guest", model="m", raw="x", finish_reason="stop")
        for name in "abc"
    ]
    state = state_after(State(source), turns)
    store_state(state)
    assert state_after(State(source), turns) is state
    assert state_after(State(source), turns) is not state  # it can be taken once
    for start, others in (
        (State(Source()), turns),
        (State(source), turns[1:]),
        (State(source), [turns[0].model_copy(), *turns[1:]]),
    ):
        store_state(state)
        assert state_after(start, others) is start
        assert start.turns == others
