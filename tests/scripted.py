"""The scripted client: a model in unit tests, which says what the test tells it to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Literal

from autogen_core import CancellationToken, Component
from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelFamily,
    ModelInfo,
    RequestUsage,
)
from pydantic import BaseModel

from agents.layout import Briefing
from agents.models.config import EndpointConfig, ModelConfig
from agents.models.model import Model
from agents.models.response import EndpointResult
from agents.models.usage import Usage
from agents.persona import Persona
from agents.replies import ReplyLimits, Role
from orchestration.deliberation.recipe import Cast, Recipe
from policies import PolicySet, load_policy_set

Script = Callable[[Sequence[LLMMessage], Mapping[str, Any]], Any]
"""Gives a reply for messages and create arguments: text, an object to dump as JSON, an
`EndpointResult`, or an exception to raise."""

FALLBACK_CONFIG = ModelConfig(
    endpoint=EndpointConfig(base_url="http://127.0.0.1:9/v1", model="scripted")
)


class ScriptedConfig(BaseModel):
    """Declarative form: the replies."""

    replies: list[Any]


class ScriptedClient(ChatCompletionClient, Component[ScriptedConfig]):
    """Answers from a list of replies, or from a function; keeps what it was asked."""

    component_type = "model"
    component_config_schema = ScriptedConfig
    component_provider_override = "tests.scripted.ScriptedClient"

    def __init__(self, replies: Sequence[Any] | Script, delay: float = 0.0) -> None:
        self._script = replies if callable(replies) else None
        self._replies = [] if callable(replies) else list(replies)
        self._delay = delay
        self.requests: list[list[LLMMessage]] = []
        self.arguments: list[dict[str, Any]] = []
        self.json_outputs: list[Any] = []

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Any = (),
        tool_choice: Any = "auto",
        json_output: Any = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        self.requests.append(list(messages))
        self.arguments.append(dict(extra_create_args or {}))
        self.json_outputs.append(json_output)
        if self._delay:
            await asyncio.sleep(self._delay)
        if self._script is not None:
            reply = self._script(messages, extra_create_args or {})
        else:
            assert self._replies, "the script has no further reply"
            reply = self._replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        if isinstance(reply, CreateResult):
            return reply
        text = reply if isinstance(reply, str) else json.dumps(reply)
        return result(text, prompt=sum(len(str(m.content)) for m in messages) // 4)

    async def create_stream(
        self, messages: Sequence[LLMMessage], **options: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        made = await self.create(messages, **options)
        yield str(made.content)
        yield made

    async def close(self) -> None:
        pass

    def actual_usage(self) -> RequestUsage:
        return RequestUsage(0, 0)

    def total_usage(self) -> RequestUsage:
        return RequestUsage(0, 0)

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Any = ()) -> int:
        return 0

    def remaining_tokens(self, messages: Sequence[LLMMessage], *, tools: Any = ()) -> int:
        return 100_000

    @property
    def capabilities(self) -> ModelInfo:
        return self.model_info

    @property
    def model_info(self) -> ModelInfo:
        return ModelInfo(
            vision=False,
            function_calling=False,
            json_output=True,
            family=ModelFamily.UNKNOWN,
            structured_output=True,
        )

    def _to_config(self) -> ScriptedConfig:
        return ScriptedConfig(replies=self._replies)

    @classmethod
    def _from_config(cls, config: ScriptedConfig) -> ScriptedClient:
        return cls(config.replies)


def result(
    text: str,
    finish_reason: Literal["stop", "length", "content_filter", "unknown"] = "stop",
    prompt: int = 100,
    completion: int = 10,
    cached: int = 0,
    refusal: str | None = None,
) -> EndpointResult:
    """What an endpoint's client gives."""
    return EndpointResult(
        content=text,
        finish_reason=finish_reason,
        usage=RequestUsage(prompt, completion),
        cached=False,
        tokens=Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached),
        refusal=refusal,
        served_model="scripted",
    )


def scripted(
    replies: Sequence[Any] | Script, name: str = "default", delay: float = 0.0
) -> tuple[Model, ScriptedClient]:
    """A model that is scripted, and its client."""
    client = ScriptedClient(replies, delay)
    return Model(name, FALLBACK_CONFIG, client), client


def briefing(policies: str = "aidsafe", limits: ReplyLimits | None = None) -> Briefing:
    """Policies and limits for agents."""
    return Briefing(load_policy_set(policies), limits or ReplyLimits())


def persona(name: str, role: Role = "deliberator", **more: Any) -> Persona:
    """A persona of that name."""
    return Persona(
        name=name, role=role, description=f"Speaks as {name}.", instructions="Be brief.", **more
    )


# Replies, as plain objects.


def intents(*texts: str) -> dict[str, Any]:
    return {"intents": [{"text": t, "kind": "explicit", "nature": "benign"} for t in texts]}


def thought(text: str, *rules: str, policy: str = "respect_helpfulness") -> dict[str, Any]:
    return {"text": text, "policies": [policy], "rules": list(rules)}


def draft(*texts: str, response: str = "The first response.") -> dict[str, Any]:
    return {"thoughts": [thought(t, "RH1") for t in texts or ("First.",)], "response": response}


def accepts(comment: str = "Nothing to add.") -> dict[str, Any]:
    return {
        "comment": comment,
        "verdict": "accept",
        "add": [],
        "correct": [],
        "dispute": [],
        "response": None,
    }


def revises(**changes: Any) -> dict[str, Any]:
    return {**accepts("Something is missing."), "verdict": "revise", **changes}


def refines(*decisions: dict[str, Any], response: str | None = None) -> dict[str, Any]:
    return {"decisions": list(decisions), "response": response}


def drop(number: int, reason: str = "redundant", why: str = "Said before.") -> dict[str, Any]:
    return {"thought": number, "decision": "drop", "reason": reason, "why": why}


def kind_of_turn(messages: Sequence[LLMMessage]) -> str:
    """`intents`, `draft`, `deliberation` or `refinement`: what the last instruction asks for."""
    return str(messages[-1].content).rstrip(".").rpartition("This turn: ")[2]


def agreeable(messages: Sequence[LLMMessage], _: Mapping[str, Any]) -> Any:
    """A script of a chat in which everybody agrees at once."""
    return {
        "intents": intents("To know something."),
        "draft": draft("It is harmless.", "So help."),
        "deliberation": accepts(),
        "refinement": refines(),
    }[kind_of_turn(messages)]


def cast(
    script: Sequence[Any] | Script = agreeable,
    policy_set: PolicySet | None = None,
    delay: float = 0.0,
    **recipe: Any,
) -> tuple[Cast, ScriptedClient]:
    """A cast of the shipped personas on one scripted model, and its client."""
    model, client = scripted(script, delay=delay)
    made = Recipe(
        **{
            "name": "test",
            "description": "For tests.",
            "circle": ("policy_auditor", "helpfulness_advocate", "risk_analyst"),
            **recipe,
        }
    )
    return Cast(made, policy_set or load_policy_set("aidsafe"), {"default": model}), client
