"""Our agents in AutoGen's own teams, and as AutoGen components."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from autogen_agentchat.base import ChatAgent, TaskResult, Team
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat
from autogen_core import ComponentModel

from agents.deliberation.agents import DeliberationAgent
from agents.models.config import EndpointConfig, ModelConfig
from agents.models.model import Model
from agents.persona import find_persona
from agents.policy_agent import PolicyAgent
from agents.replies import ReplyLimits, Role
from agents.turns import TurnMessage
from orchestration.deliberation.termination import ConsensusTermination, RoundBudgetTermination
from tests.scripted import (
    Script,
    ScriptedClient,
    agreeable,
    briefing,
    kind_of_turn,
    persona,
    revises,
    scripted,
    thought,
)

NAMES = ["intent_analyst", "drafter", "policy_auditor", "risk_analyst"]
DELIBERATORS = NAMES[2:]


def speakers(script: Script = agreeable) -> tuple[list[ChatAgent | Team], ScriptedClient]:
    model, client = scripted(script)
    run = briefing()
    return [DeliberationAgent.make(find_persona(name), run, [model]) for name in NAMES], client


def said(result: TaskResult) -> list[tuple[str, str | None]]:
    turns = [m.content for m in result.messages if isinstance(m, TurnMessage)]
    return [(turn.agent, turn.stance) for turn in turns]


AGREED = [
    ("intent_analyst", None),
    ("drafter", None),
    ("policy_auditor", "accepts"),
    ("risk_analyst", "accepts"),
]


async def test_a_round_robin_chat_ends_by_consensus() -> None:
    agents, client = speakers()
    team = RoundRobinGroupChat(agents, termination_condition=ConsensusTermination(DELIBERATORS))

    result = await team.run(task="How do I bake bread?")

    assert said(result) == AGREED
    assert result.stop_reason == "consensus"
    for before, call in zip(client.requests, client.requests[1:], strict=False):
        assert call[: len(before)] == before


async def test_a_selector_chat_ends_by_consensus() -> None:
    agents, _ = speakers()
    _, selector = scripted(NAMES)
    team = SelectorGroupChat(
        agents, selector, termination_condition=ConsensusTermination(DELIBERATORS)
    )

    result = await team.run(task="How do I bake bread?")

    assert said(result) == AGREED
    assert result.stop_reason == "consensus"
    # The selector sees the turns' descriptions, and those of the personas.
    assert "Nothing to add." in str(selector.requests[-1])
    assert find_persona("risk_analyst").description in str(selector.requests[-1])
    assert '{"verdict"' not in str(selector.requests[-1])


async def test_a_saved_team_resumes_where_it_stopped() -> None:
    def script(messages: Any, arguments: Any) -> Any:
        if kind_of_turn(messages) == "deliberation" and len(messages) < 8:
            return revises(add=[thought("More.", "RH1")])
        return agreeable(messages, arguments)

    consensus = ConsensusTermination(DELIBERATORS)
    whole, whole_client = speakers(script)
    await RoundRobinGroupChat(whole, termination_condition=consensus).run(
        task="How do I bake bread?"
    )
    first, first_client = speakers(script)
    stopped = RoundRobinGroupChat(
        first, termination_condition=RoundBudgetTermination(["policy_auditor"], 1)
    )
    await stopped.run(task="How do I bake bread?")
    state = json.loads(json.dumps(await stopped.save_state()))

    rest, rest_client = speakers(script)
    resumed = RoundRobinGroupChat(rest, termination_condition=ConsensusTermination(DELIBERATORS))
    await resumed.load_state(state)
    result = await resumed.run()

    # The new condition has not seen the first half: both must accept the drafter's new draft.
    assert said(result) == [AGREED[3], *AGREED]
    assert result.stop_reason == "consensus"
    assert [*first_client.requests, rest_client.requests[0]] == whole_client.requests


def declared(role: Role = "deliberator", **settings: Any) -> PolicyAgent:
    """An agent whose every setting differs from its default."""
    endpoint = EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m", timeout=3.0)
    models = [
        Model("main", ModelConfig(endpoint=endpoint, extra={"top_k": 3}, **settings)),
        Model("spare", ModelConfig(endpoint=endpoint, temperature=0.1)),
    ]
    who = persona("judge", role, fallback_models=("spare",), temperature=0.3, max_tokens=77)
    run = briefing("mlcommons", ReplyLimits(thoughts=2, note_chars=50))
    return DeliberationAgent.make(who, run, models)


def through_yaml(component: ComponentModel) -> ComponentModel:
    return ComponentModel.model_validate(yaml.safe_load(yaml.safe_dump(component.model_dump())))


@pytest.mark.parametrize("role", ["intent_analyst", "drafter", "deliberator", "refiner"])
def test_an_agent_can_be_declared_in_yaml(role: Role) -> None:
    agent = declared(role)

    loaded = ChatAgent.load_component(through_yaml(agent.dump_component()))

    assert type(loaded) is type(agent)
    assert isinstance(loaded, PolicyAgent)
    assert loaded.persona == agent.persona
    assert loaded.briefing == agent.briefing
    assert [(m.name, m.config) for m in loaded.models] == [(m.name, m.config) for m in agent.models]


def test_a_setting_that_is_none_stays_none_when_loaded() -> None:
    agent = declared(temperature=None, seed=None, max_tokens=None)
    team = RoundRobinGroupChat([agent], max_turns=1)

    for component in (agent.dump_component(), team.dump_component().config["participants"][0]):
        component = ComponentModel.model_validate(component)
        loaded = PolicyAgent.load_component(through_yaml(component))
        config = loaded.models[0].config
        assert (config.temperature, config.seed, config.max_tokens) == (None, None, None)


def test_a_team_of_ours_can_be_declared_in_yaml() -> None:
    team = RoundRobinGroupChat(
        [declared()], termination_condition=ConsensusTermination(["judge"], 1)
    )

    loaded = Team.load_component(through_yaml(team.dump_component()))

    assert loaded.dump_component() == team.dump_component()


def test_a_declaration_holds_no_prompt_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")

    assert "sk-very-secret" not in declared().dump_component().model_dump_json()


def test_a_declared_agent_cannot_name_any_class_as_its_model() -> None:
    component = declared().dump_component()
    component.config["models"][0]["config"] = {
        "component": {"provider": "subprocess.Popen", "config": {"args": "true"}}
    }

    with pytest.raises(Exception, match=r"subprocess\.Popen"):
        ChatAgent.load_component(component)
