"""Optional OpenTelemetry: spans and metrics of chats, turns and model calls.

Nothing is set up unless `opened` is asked to, and nothing is sent but to the collector that the
user's OTEL_EXPORTER_OTLP_… variables name. No span or metric holds text of a prompt, an instruction
or a reply; nor the message of an error, since endpoints quote prompts in theirs: only its kind.

Providers are our own, never the process's: what AutoGen and other libraries would write into
global ones, messages of exceptions among it, goes nowhere. So does `create_agent`, once an agent.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from autogen_agentchat.base import Response
from autogen_core import trace_invoke_agent_span
from autogen_core.models import LLMMessage
from opentelemetry.metrics import MeterProvider, NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider, Span, SpanKind, StatusCode, TracerProvider

from agents.models.context import Observer
from agents.models.embedded import DEFAULT_NAME
from agents.models.errors import CallNotBegun, EndpointError
from agents.models.model import Answer, Model, ModelConfig
from agents.policy_agent import AROUND_TURN, PolicyAgent
from agents.turns import TurnMessage
from orchestration.journal.calls import ChatLog
from orchestration.record import Kept
from policies import InputError

CLOSE_SECONDS = 5.0
"""How long a session waits at its end for the collector to take what is left."""

Attribute = str | int | Sequence[str]

# Buckets as the semantic conventions for generative AI advise them.
_TOKEN_BUCKETS = [float(4**n) for n in range(14)]
_SECOND_BUCKETS = [0.01 * 2**n for n in range(14)]


class ChatTelemetry:
    """What is told of one chat; takes no notice of it."""

    def observer(self, observer: Observer) -> Observer:
        """The observer that the chat's calls are to have instead of this one."""
        return observer

    def wrap(self, model: Model) -> Model:
        """The model that is to be asked instead of this one."""
        return model

    def end(self, record: Kept, failure: EndpointError | None) -> None:
        """The chat came to its outcome, and its record is on disk."""


class Telemetry:
    """What a run tells of its chats; takes no notice of it, since nobody asked for telemetry."""

    def chat(
        self, prompt_id: str, recipe: str, log: ChatLog
    ) -> AbstractContextManager[ChatTelemetry]:
        """A chat that lasts as long as the context.

        Args:
            prompt_id: Id of its prompt.
            recipe: Name of its recipe.
            log: Counts its replies.
        """
        return _NO_CHAT


_NO_CHAT = nullcontext(ChatTelemetry())
NO_TELEMETRY = Telemetry()


class OpenTelemetry(Telemetry):
    """Makes spans and metrics.

    A chat is a trace of its own: a span `deliberate`; in it AutoGen's `invoke_agent`, one a turn;
    in it `chat`, one for every reply that was asked for (none for those from the journal).

    Args:
        tracers: Where the spans go.
        meters: Where the metrics go.
    """

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        self._tracer = tracers.get_tracer("aidsafe", version("aidsafe"))
        meter = meters.get_meter("aidsafe", version("aidsafe"))
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens of a model call.",
            explicit_bucket_boundaries_advisory=_TOKEN_BUCKETS,
        )
        self._seconds = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="Duration of a model call, with its retries and its waiting.",
            explicit_bucket_boundaries_advisory=_SECOND_BUCKETS,
        )
        self.prompts = meter.create_counter(
            "aidsafe.prompts", unit="{prompt}", description="Prompts that came to their outcome."
        )
        self.attempts = meter.create_counter(
            "aidsafe.attempts", unit="{request}", description="Requests, by what came of them."
        )
        self._active = meter.create_up_down_counter(
            "aidsafe.chats.active", unit="{chat}", description="Chats under way."
        )

    @contextmanager
    def chat(self, prompt_id: str, recipe: str, log: ChatLog) -> Iterator[ChatTelemetry]:
        """See `Telemetry.chat`."""
        self._active.add(1)
        around = AROUND_TURN.set(self._turn)
        try:
            with self._tracer.start_as_current_span(
                "deliberate",
                attributes={"aidsafe.prompt.id": prompt_id, "aidsafe.recipe": recipe},
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    yield _Chat(self, span)
                except BaseException as error:
                    _mark(span, error)
                    raise
                finally:
                    span.set_attribute("aidsafe.replies.replayed", log.replayed)
                    span.set_attribute("aidsafe.replies.asked", log.asked)
        finally:
            AROUND_TURN.reset(around)
            self._active.add(-1)

    async def _turn(self, agent: PolicyAgent, turn: Awaitable[Response]) -> Response:
        """A turn, in AutoGen's span."""
        failure: BaseException | None = None
        with trace_invoke_agent_span(
            agent.name, tracer=self._tracer, agent_description=agent.description
        ) as span:
            span.set_attribute("aidsafe.role", agent.role)
            try:
                response = await turn
            except BaseException as error:  # noqa: BLE001 - raised below
                # AutoGen would write its message down, and that may quote the prompt.
                _mark(span, error)
                failure = error
            else:
                message = response.chat_message
                if isinstance(message, TurnMessage):
                    said = message.content
                    span.set_attribute("aidsafe.round", said.round)
                    span.set_attribute("aidsafe.outcome", said.outcome)
                    if said.stance is not None:
                        span.set_attribute("aidsafe.stance", said.stance)
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # it holds this frame, by its traceback
        return response

    async def call(self, model: Model, ask: Awaitable[Answer]) -> Answer:
        """A model call, in its span."""
        where = _where(model.config)
        began = time.perf_counter()
        with self._tracer.start_as_current_span(
            f"chat {where['gen_ai.request.model']}",
            kind=SpanKind.CLIENT,
            attributes=where,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                answer = await ask
            except BaseException as error:
                _mark(span, error)
                if not isinstance(error, CallNotBegun):
                    took = time.perf_counter() - began
                    self._seconds.record(took, {**where, "error.type": _kind(error)})
                raise
            usage = answer.usage
            span.set_attributes(
                {
                    "gen_ai.response.finish_reasons": [answer.finish_reason],
                    "gen_ai.usage.input_tokens": usage.prompt_tokens,
                    "gen_ai.usage.output_tokens": usage.completion_tokens,
                    "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
                    "aidsafe.attempts": answer.attempts,
                }
            )
            if answer.served_model is not None:
                span.set_attribute("gen_ai.response.model", answer.served_model)
            self._seconds.record(answer.latency, where)
            self._tokens.record(usage.prompt_tokens, {**where, "gen_ai.token.type": "input"})
            self._tokens.record(usage.completion_tokens, {**where, "gen_ai.token.type": "output"})
        return answer


class _Chat(ChatTelemetry):
    """A chat under way, and its span."""

    def __init__(self, telemetry: OpenTelemetry, span: Span) -> None:
        self._telemetry = telemetry
        self._span = span

    def observer(self, observer: Observer) -> Observer:
        return _Counting(observer, self._telemetry)

    def wrap(self, model: Model) -> Model:
        return _Traced(model, self._telemetry)

    def end(self, record: Kept, failure: EndpointError | None) -> None:
        self._telemetry.prompts.add(1, {"aidsafe.outcome": record.outcome})
        self._span.set_attribute("aidsafe.outcome", record.outcome)
        self._span.set_attribute("aidsafe.rounds", record.ways)
        if record.reason is not None:
            self._span.set_attribute("aidsafe.stop_reason", record.reason)
        if failure is not None:
            _mark(self._span, failure)


class _Counting:
    """An observer that counts, and tells another."""

    def __init__(self, observer: Observer, telemetry: OpenTelemetry) -> None:
        self._observer = observer
        self._attempts = telemetry.attempts

    def attempt_failed(self, where: str, error: EndpointError, retry_in: float | None) -> None:
        self._attempts.add(1, {"aidsafe.attempt.kind": error.kind})
        self._observer.attempt_failed(where, error, retry_in)

    def attempt_answered(self, where: str) -> None:
        self._attempts.add(1, {"aidsafe.attempt.kind": "answered"})
        self._observer.attempt_answered(where)


class _Traced(Model):
    """A model whose calls are spans."""

    def __init__(self, inner: Model, telemetry: OpenTelemetry) -> None:
        # Not the parent's: everything but `ask` is the inner model's business.
        self.name = inner.name
        self.config = inner.config
        self._inner = inner
        self._telemetry = telemetry

    async def ask(self, messages: Sequence[LLMMessage], **options: Any) -> Answer:
        asked = self._inner.ask(messages, **options)
        return await self._telemetry.call(self._inner, asked)


def _kind(error: BaseException) -> str:
    """What kind of error it is; none of its words."""
    return error.kind if isinstance(error, EndpointError) else type(error).__name__


def _mark(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", _kind(error))
    if not isinstance(error, CallNotBegun):  # a run that stops is no error
        span.set_status(StatusCode.ERROR)


def _where(config: ModelConfig) -> dict[str, Attribute]:
    """Which model, and where, as the semantic conventions for generative AI have it."""
    found: dict[str, Attribute] = {"gen_ai.operation.name": "chat"}
    if config.endpoint is not None:
        found["gen_ai.provider.name"] = "openai"  # for all that speak its protocol
        found["gen_ai.request.model"] = config.endpoint.model
        address = urlsplit(config.endpoint.base_url)
        found["server.address"] = address.hostname or ""
        found["server.port"] = address.port or (443 if address.scheme == "https" else 80)
    elif config.embedded is not None:
        found["gen_ai.provider.name"] = "llama.cpp"
        found["gen_ai.request.model"] = PurePath(config.embedded.path or DEFAULT_NAME).name
    else:
        component = config.component or {}
        found["gen_ai.provider.name"] = str(component.get("provider"))
        found["gen_ai.request.model"] = str((component.get("config") or {}).get("model", "unknown"))
    return found


# Sending -----------------------------------------------------------------------------------------


@dataclass
class _Tally:
    """What was made, and what the collector took."""

    spans: int = 0
    taken: int = 0
    metrics_lost: bool = False
    """Whether it did not take the latest metrics. They are sums: earlier ones do not matter."""

    def complaint(self) -> str | None:
        """What is to be said of it; None if all is well."""
        lost = self.spans - self.taken
        if not lost and not self.metrics_lost:
            return None
        what = [f"{lost:,} of {self.spans:,} spans"] if lost else []
        what += ["the metrics"] if self.metrics_lost else []
        return (
            f"OpenTelemetry: {' and '.join(what)} did not reach the collector that "
            "OTEL_EXPORTER_OTLP_… names; the run is none the worse for it."
        )


@contextmanager
def opened(warn: Callable[[str], None]) -> Iterator[Telemetry]:
    """Telemetry as OpenTelemetry's own variables set it up, sent while the context lasts.

    Args:
        warn: Told one sentence at the end, if the collector did not take everything.

    Raises:
        InputError: The extra is not installed, or no collector is named.
    """
    signals = [s for s in ("TRACES", "METRICS") if _endpoint(s)]
    if not signals:
        raise InputError(
            "--otel is given, but not where to send to.",
            "Set OTEL_EXPORTER_OTLP_ENDPOINT to the HTTP address of your collector, such as "
            "http://localhost:4318 (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and "
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, whole addresses both).",
        )
    for signal in signals:
        _check(signal)
    _silence()
    tally = _Tally()
    problem = ""
    try:
        tracers, close_tracers = _tracers(tally) if "TRACES" in signals else _NO_TRACERS
        meters, close_meters = _meters(tally) if "METRICS" in signals else _NO_METERS
    except ImportError:
        raise InputError(
            "--otel needs OpenTelemetry's SDK and exporter, which are not installed.",
            "Install them with: pip install 'aidsafe[otel]'",
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever the SDK says to variables it cannot read
        problem = type(error).__name__
    if problem:  # out here: the error itself may quote a header, and so a key
        raise InputError(
            f"OpenTelemetry cannot be set up ({problem}).",
            "Check the variables that begin with OTEL_.",
        )
    try:
        yield OpenTelemetry(tracers, meters)
    finally:
        with suppress(KeyboardInterrupt):  # who is in a hurry need not wait
            _at_once([close_tracers, close_meters])
        complaint = tally.complaint()
        if complaint:
            warn(complaint)


def _variable(signal: str, name: str) -> str:
    """A variable of OpenTelemetry's; the signal's own goes before the general one."""
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_{name}", "").strip()
    return own or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()


def _endpoint(signal: str) -> str:
    return _variable(signal, "ENDPOINT")


def _check(signal: str) -> None:
    """Raises `InputError` for what could only fail, without a word, again and again."""
    if not _endpoint(signal).startswith(("http://", "https://")):
        raise InputError(
            f"The address of the collector for {signal.lower()} is not one of HTTP.",
            "Write it whole in OTEL_EXPORTER_OTLP_ENDPOINT, such as http://localhost:4318.",
        )
    if _variable(signal, "PROTOCOL") == "grpc":
        raise InputError(
            "--otel sends over HTTP, and OTEL_EXPORTER_OTLP_PROTOCOL says grpc.",
            "Set it to http/protobuf, and the endpoint to the collector's HTTP address.",
        )


def _silence() -> None:
    """Keeps the SDK's log off the terminal; for good, since its threads may outlive a session."""
    log = logging.getLogger("opentelemetry")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    log.propagate = False


Close = Callable[[], object]

_NO_TRACERS: tuple[TracerProvider, Close] = (NoOpTracerProvider(), lambda: None)
_NO_METERS: tuple[MeterProvider, Close] = (NoOpMeterProvider(), lambda: None)


def _resource() -> Any:
    """Who sends: `aidsafe`, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say otherwise."""
    from opentelemetry.sdk.resources import Resource

    found = Resource.create({"service.version": version("aidsafe")})
    named = str(found.attributes["service.name"])
    return (
        found.merge(Resource({"service.name": "aidsafe"}))
        if named.startswith("unknown_service")
        else found
    )


def _tracers(tally: _Tally) -> tuple[TracerProvider, Close]:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk import trace
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

    class Exporter(OTLPSpanExporter):
        def export(self, spans: Sequence[trace.ReadableSpan]) -> SpanExportResult:
            result = super().export(spans)
            tally.taken += len(spans) if result is SpanExportResult.SUCCESS else 0
            return result

    class Processor(BatchSpanProcessor):
        def on_end(self, span: trace.ReadableSpan) -> None:
            tally.spans += bool(span.context and span.context.trace_flags.sampled)
            super().on_end(span)

    provider = trace.TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(Processor(Exporter()))
    return provider, provider.shutdown


def _meters(tally: _Tally) -> tuple[MeterProvider, Close]:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk import metrics
    from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader

    class Exporter(OTLPMetricExporter):
        def export(self, *args: Any, **options: Any) -> MetricExportResult:
            tally.metrics_lost = True
            result = super().export(*args, **options)
            tally.metrics_lost = result is not MetricExportResult.SUCCESS
            return result

    reader = PeriodicExportingMetricReader(Exporter())
    provider = metrics.MeterProvider([reader], resource=_resource(), shutdown_on_exit=False)
    return provider, provider.shutdown


def _at_once(closes: Sequence[Close]) -> None:
    """Runs them side by side, for `CLOSE_SECONDS` at most: the SDK's own limits do not hold."""

    def quietly(close: Close) -> None:
        with suppress(Exception):
            close()

    threads = [threading.Thread(target=quietly, args=(close,), daemon=True) for close in closes]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + CLOSE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
