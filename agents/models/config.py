"""The configuration of models: where each is, how to sample from it, what its tokens cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator, model_validator

from agents.models.redaction import holds_key, looks_like_key, redact, redact_quoted
from agents.models.usage import Usage
from policies import FieldError, InputError, Problem, YamlError, load_yaml

DEFAULT_NAME = "SmolLM2-135M-Instruct"
"""The embedded model's name where none is configured."""

_NO_ADDRESS = re.compile(r"[\s\"'<>\\^`{|}]")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

JsonMode: TypeAlias = Literal["json_schema", "json_object", "text", "llguidance"]
"""How an endpoint is asked for JSON."""


class EmbeddedConfig(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """Which GGUF file to run, and how."""

    path: str | None = None
    """Path of a GGUF file, or `hf:<owner>/<repository>/<file>`, which is downloaded once into the
    cache of huggingface_hub. The shipped SmolLM2-135M-Instruct if left out."""
    context: int = Field(default=8192, ge=1024)
    """Tokens of context for each chat."""
    slots: int = Field(default=1, ge=1, le=64)
    """Chats that are served at the same time."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; llama.cpp's own choice if left out."""


class RateLimit(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """How the rate of calls adapts to an endpoint."""

    margin: float = Field(default=0.05, gt=0, le=0.5)
    """Share of a measured limit that is left unused."""
    growth: float = Field(default=0.005, gt=0, le=1)
    """Relative growth per second in search of a higher limit; it speeds up with time."""
    min_rate: float = Field(default=1 / 30, gt=0, le=10)
    """Calls per second that are made even while everything is refused."""
    ramp_seconds: float = Field(default=0.3, gt=0, le=60)
    """Seconds over which the first calls to an idle endpoint are spread."""
    max_pause: float = Field(default=60.0, ge=0)
    """Seconds that one `Retry-After` may hold up all calls to the endpoint."""


class Params(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """Changes to the parameters of requests."""

    drop: tuple[str, ...] = ()
    """Parameters that are not sent, such as `seed`."""
    rename: Mapping[str, str] = {}
    """Parameters sent under another name, such as `{max_tokens: max_completion_tokens}`."""

    def __hash__(self) -> int:
        return hash((self.drop, *sorted(self.rename.items())))


class EndpointConfig(
    BaseModel,
    extra="forbid",
    frozen=True,
    use_attribute_docstrings=True,
    hide_input_in_errors=True,  # it may be a key in the wrong place
):
    """Where an endpoint is, and how to talk to it. Holds the name of the key, never the key."""

    base_url: str = Field(pattern=r"^https?://")
    """Address up to and including the version, such as `https://api.openai.com/v1`."""
    model: str = Field(min_length=1)
    """Model name as the endpoint knows it."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. None is needed on loopback."""
    api_key_header: str | None = None
    """Header that carries the key as it is, such as `api-key` (Azure); `Authorization: Bearer KEY`
    if left out."""
    headers: Mapping[str, str] = {}
    """Further headers of every request."""
    query: Mapping[str, str] = {}
    """What stands after the `?` of the address, such as `{api-version: 2024-10-21}` (Azure)."""
    params: Params = Params()
    """Parameters that the endpoint does not take, or takes under another name. What is not set here
    is found out when the endpoint objects, and stands in the records."""
    timeout: float | None = Field(default=None, gt=0, le=86_400)
    """Seconds after which an attempt is abandoned. Learned from the times of replies if left out:
    five times the longest recent one, between 5 and 600."""
    max_retries: int = Field(default=8, ge=0, le=100)
    """Further attempts after a 408, 409, 429, 5xx, a lost connection, a time-out or an answer that
    is not a chat completion."""
    retry_seconds: float = Field(default=1800.0, ge=0)
    """Seconds for all attempts of a call and the waits between them. An attempt that timed out is
    retried once even if this is exceeded."""
    max_concurrency: int | None = Field(default=None, ge=1)
    """Upper bound on concurrent calls; none if left out."""
    min_concurrency: int = Field(default=1, ge=1)
    """Concurrent calls that are allowed however much the endpoint throttles."""
    rate_limit: RateLimit = RateLimit()
    """How the rate of calls adapts. The clients of an endpoint share one rate limiter: the settings
    of the first one hold."""
    json_as: JsonMode = "json_schema"
    """How JSON is requested: with a schema in OpenAI's `response_format`; with its `json_object`;
    in the prompt alone (`text`); or as a grammar of llama.cpp built with llguidance, which leaves
    out white space (the embedded model uses this)."""
    json_fallback: bool = True
    """Whether simpler modes are used for an endpoint that does not support `json_schema`; if not,
    the run stops."""

    @field_validator("base_url", "model", mode="before")
    @classmethod
    def _trimmed(cls, text: Any) -> Any:
        # Files with variables have line ends of Windows, and blanks at the ends of lines.
        text = text.strip() if isinstance(text, str) else text
        if isinstance(text, str) and not text.isprintable():
            raise FieldError(
                "This address or name has a character that cannot be sent (of control, or not "
                "UTF-8).",
                "Type it again.",
            )
        return text

    @field_validator("model")
    @classmethod
    def _no_key(cls, name: str) -> str:
        if holds_key(name):
            raise FieldError(
                "The name of the model looks like a key.",
                "Write the model's name; keys are read from the environment.",
            )
        return name

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, url: str) -> str:
        if _NO_ADDRESS.search(url):
            raise ValueError("has a blank, a quote or another character that no address has")
        if holds_key(url):
            raise ValueError(
                "holds what looks like a key; name the variable of the key in api_key_env, and "
                "write the address without it"
            )
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018 - raises if it is not a number
        except ValueError:
            raise ValueError("is not an address such as https://api.openai.com/v1") from None
        try:
            (parts.hostname or "").encode("idna")
        except UnicodeError:
            raise ValueError("has a host name that cannot exist") from None
        if not parts.hostname:
            raise ValueError("names no host; write it as https://api.openai.com/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            # The address is stored in run files and records, and quoted in messages.
            raise ValueError(
                "may hold no password and nothing after a '?'; keys are read from the environment "
                "variable that api_key_env names, and `query` holds what stands after the '?'"
            )
        return url.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in headers.items():
            if not (_HEADER_NAME.fullmatch(name) and value.isprintable() and value.isascii()):
                raise ValueError("has a name or a value that no HTTP header can have")
        return headers

    @field_validator("api_key_header")
    @classmethod
    def _header_name(cls, name: str | None) -> str | None:
        if name is not None and (looks_like_key(name) or not _HEADER_NAME.fullmatch(name)):
            raise ValueError("must be the name of a header, such as api-key, not the key")
        return name

    @field_validator("api_key_env")
    @classmethod
    def _name_of_variable(cls, name: str) -> str:
        if looks_like_key(name) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(
                "must be the name of an environment variable, such as OPENAI_API_KEY, not the key"
            )
        return name

    def __hash__(self) -> int:
        return hash((self.base_url, self.model))


class Price(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """What a model's tokens cost, per million."""

    prompt: float = Field(ge=0)
    """Per million tokens of the prompt."""
    completion: float = Field(ge=0)
    """Per million tokens of the reply."""
    cached: float | None = Field(default=None, ge=0)
    """Per million prompt tokens that the endpoint's cache served; `prompt` if left out."""
    currency: str = Field(default="USD", min_length=1, max_length=12)

    def cost(self, usage: Usage) -> float:
        """What these tokens cost, in the price's currency."""
        cached = self.prompt if self.cached is None else self.cached
        return (
            (usage.prompt_tokens - usage.cached_tokens) * self.prompt
            + usage.cached_tokens * cached
            + usage.completion_tokens * self.completion
        ) / 1e6


class ModelConfig(
    BaseModel,
    extra="forbid",
    frozen=True,
    use_attribute_docstrings=True,
    hide_input_in_errors=True,  # it may be a key in the wrong place
):
    """One entry of a `models:` block: where a model is, and how to sample from it."""

    endpoint: EndpointConfig | None = None
    """An endpoint that speaks the OpenAI protocol."""
    embedded: EmbeddedConfig | None = None
    """A GGUF file, run in this process."""
    component: dict[str, Any] | None = None
    """Config of any other AutoGen model client, as its `dump_component` gives it."""
    temperature: float | None = Field(default=0.7, ge=0, le=2)
    """Sampling temperature; null sends none, also where a persona has its own. Components of
    protocols other than OpenAI's ignore it and sample as their config says."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling; not sent if left out."""
    max_tokens: int | None = Field(default=4096, ge=16)
    """Upper bound on the tokens of a reply; null sends none. A persona may have its own."""
    seed: int | None = 0
    """Seed sent with every call; null sends none. `--seed` overrides it."""
    price: Price | None = None
    """What its tokens cost, for `--max-cost` and forecasts. Never guessed."""
    extra: dict[str, Any] = {}
    """Further fields of the request body, such as `top_k`."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [k for k in ("endpoint", "embedded", "component") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                "needs exactly one of endpoint, embedded and component; "
                f"it has {', '.join(given) or 'none'}"
            )
        return self

    @property
    def label(self) -> str:
        """The model and its location in a few words, without secrets."""
        if self.endpoint:
            return f"{self.endpoint.model} at {self.endpoint.base_url}"
        if self.embedded:
            return f"{self.embedded.path or DEFAULT_NAME} (embedded)"
        config = (self.component or {}).get("config") or {}
        return f"{config.get('model', '?')} ({(self.component or {}).get('provider')})"

    @property
    def takes_sampling(self) -> bool:
        """Whether sampling and the reply's schema are sent with each call.

        AutoGen's clients of other protocols reject those fields, or pass them to an SDK that does.
        Those models sample as their own config says, and the form of a reply is checked by parsing.
        """
        provider = str((self.component or {}).get("provider", ""))
        return self.component is None or "openai" in provider.lower()

    def public(self) -> dict[str, Any]:
        """The configuration without secrets, for run files and records."""
        parts = ("endpoint", "embedded", "component", "price")
        absent = {part for part in parts if getattr(self, part) is None}
        if not self.takes_sampling:
            absent |= {"temperature", "top_p", "max_tokens", "seed"}
        dumped: dict[str, Any] = redact(self.model_dump(mode="json", exclude=absent))
        if self.endpoint is not None:  # names of parameters, some of which end in "tokens"
            dumped["endpoint"]["params"] = self.endpoint.params.model_dump(mode="json")
        return dumped


EMBEDDED = ModelConfig(
    embedded=EmbeddedConfig(), temperature=0.4, max_tokens=1024, extra={"dry_multiplier": 0.8}
)
"""The model that is used when none is configured."""


class ModelsFile(BaseModel, extra="forbid", hide_input_in_errors=True):
    """A YAML file with a `models:` block."""

    models: dict[str, ModelConfig] = Field(min_length=1)
    """Models by name. Personas that name none use `default`."""


def load_models(path: Path) -> dict[str, ModelConfig]:
    """Reads a `models:` block.

    Raises:
        YamlError: With every problem of the file; without what may be a key in the wrong place.
        InputError: There is no model called `default`.
    """
    problems: list[Problem] = []
    try:
        models = load_yaml(path, ModelsFile).models
    except YamlError as error:
        problems = [
            Problem(p.path, p.line, redact_quoted(p.cause), redact_quoted(p.remedy))
            for p in error.problems
        ]
    if problems:
        raise YamlError(problems)  # without the error that quotes it
    if "default" not in models:
        raise InputError(
            f"{path} has no model called 'default'.",
            "Give one of them that name: personas that name no model use it.",
        )
    return models


class NamedModelConfig(BaseModel):
    """A model's name and configuration, inside an agent's component config."""

    name: str
    config: ModelConfig
