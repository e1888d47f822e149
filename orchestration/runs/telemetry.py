"""Optional OpenTelemetry: spans and metrics of chats, turns and model calls.

Nothing is set up unless `open_telemetry` is called, and nothing is sent except to the collector
that OTEL_EXPORTER_OTLP_… variables name. No span or metric holds text of a prompt, an instruction
or a reply, nor the message of an error, since endpoints quote prompts in theirs: only its kind.
The providers are this module's own, not the process's global ones, so that nothing is sent of what
AutoGen and other libraries record.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from autogen_agentchat.base import Response
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode, TracerProvider

from agents.models.config import DEFAULT_NAME, ModelConfig
from agents.models.errors import CallNotStarted, EndpointError
from agents.models.model import ChatModel, ModelReply
from agents.policy_agent import AROUND_TURN, PolicyAgent
from agents.turns import TurnMessage
from orchestration.runs.replay import ChatReplies
from orchestration.runs.result import RunResult
from policies import InputError

CLOSE_SECONDS = 5.0
"""How long a session waits at its end for the collector to accept what is left."""

Attributes = dict[str, str | int | Sequence[str]]


class Telemetry:
    """Reports on the chats of a run: this one reports nothing.

    Spans that go nowhere would cost 9 kB a live chat and 0.1 ms a turn, so there are none.
    """

    def chat(
        self, prompt_id: str, recipe: str, replies: ChatReplies
    ) -> AbstractContextManager[Span]:
        """A chat, in progress while the context lasts; the span that stands for it."""
        return nullcontext(INVALID_SPAN)

    def end(self, span: Span, result: RunResult, failure: EndpointError | None) -> None:
        """A chat's result is on disk."""

    def attempt(self, kind: str) -> None:
        """A request of a call was `answered`, or failed with an error of this kind."""

    def call(self, model: ChatModel, call: Awaitable[ModelReply]) -> Awaitable[ModelReply]:
        """A call of a model, which is to be awaited instead of it."""
        return call


class SpanTelemetry(Telemetry):
    """Makes spans and metrics.

    Each chat is a trace: a span `deliberate`; in it `invoke_agent`, one for each turn; in it
    `chat`, one for each call (none for replies from the journal).
    """

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        self._tracer = tracers.get_tracer("aidsafe")
        meter = meters.get_meter("aidsafe")
        # The buckets are those of the semantic conventions for generative AI.
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            explicit_bucket_boundaries_advisory=[float(4**n) for n in range(14)],
        )
        self._seconds = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            explicit_bucket_boundaries_advisory=[0.01 * 2**n for n in range(14)],
        )
        self._prompts = meter.create_counter("aidsafe.prompts", unit="{prompt}")
        self._attempts = meter.create_counter("aidsafe.attempts", unit="{request}")

    @contextmanager
    def chat(self, prompt_id: str, recipe: str, replies: ChatReplies) -> Iterator[Span]:
        """See `Telemetry`."""
        AROUND_TURN.set(self._turn)  # in the chat's own task
        attributes: Attributes = {"aidsafe.prompt.id": prompt_id, "aidsafe.recipe": recipe}
        with self._span("deliberate", attributes) as span:
            try:
                yield span
            finally:
                span.set_attribute("aidsafe.replies.replayed", replies.replayed)
                span.set_attribute("aidsafe.replies.called", replies.called)

    def end(self, span: Span, result: RunResult, failure: EndpointError | None) -> None:
        """See `Telemetry`."""
        self._prompts.add(1, {"aidsafe.outcome": result.outcome})
        span.set_attribute("aidsafe.outcome", result.outcome)
        span.set_attribute("aidsafe.rounds", result.rounds_or_attempts)
        if result.reason is not None:
            span.set_attribute("aidsafe.stop_reason", result.reason)
        if failure is not None:
            _mark(span, failure)

    def attempt(self, kind: str) -> None:
        """See `Telemetry`."""
        self._attempts.add(1, {"aidsafe.attempt.kind": kind})

    async def call(self, model: ChatModel, call: Awaitable[ModelReply]) -> ModelReply:
        """See `Telemetry`."""
        where, started = _where(model.config), time.perf_counter()
        with self._span(f"chat {where['gen_ai.request.model']}", where, SpanKind.CLIENT) as span:
            try:
                reply = await call
            except BaseException as error:
                if not isinstance(error, CallNotStarted):
                    seconds = time.perf_counter() - started
                    self._seconds.record(seconds, {**where, "error.type": _kind(error)})
                raise
            used = reply.usage
            if reply.served_model is not None:
                span.set_attribute("gen_ai.response.model", reply.served_model)
            span.set_attributes(
                {
                    "gen_ai.response.finish_reasons": [reply.finish_reason],
                    "gen_ai.usage.input_tokens": used.prompt_tokens,
                    "gen_ai.usage.output_tokens": used.completion_tokens,
                    "gen_ai.usage.cache_read.input_tokens": used.cached_tokens,
                    "aidsafe.attempts": reply.attempts,
                }
            )
        self._seconds.record(reply.latency, where)
        self._tokens.record(used.prompt_tokens, {**where, "gen_ai.token.type": "input"})
        self._tokens.record(used.completion_tokens, {**where, "gen_ai.token.type": "output"})
        return reply

    async def _turn(self, agent: PolicyAgent, turn: Awaitable[Response]) -> Response:
        attributes: Attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": agent.name,
            "gen_ai.agent.description": agent.description,
            "aidsafe.role": agent.role,
        }
        with self._span(f"invoke_agent {agent.name}", attributes) as span:
            response = await turn
            if isinstance(response.chat_message, TurnMessage):
                said = response.chat_message.content
                span.set_attributes({"aidsafe.round": said.round, "aidsafe.outcome": said.outcome})
                if said.stance is not None:
                    span.set_attribute("aidsafe.stance", said.stance)
        return response

    @contextmanager
    def _span(
        self, name: str, attributes: Attributes, kind: SpanKind = SpanKind.INTERNAL
    ) -> Iterator[Span]:
        """A span that holds only the kind of an error."""
        with self._tracer.start_as_current_span(
            name,
            kind=kind,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                _mark(span, error)
                raise


def _kind(error: BaseException) -> str:
    return error.kind if isinstance(error, EndpointError) else type(error).__name__


def _mark(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", _kind(error))
    if not isinstance(error, CallNotStarted):  # stopping a run is no error
        span.set_status(StatusCode.ERROR)


def _where(config: ModelConfig) -> Attributes:
    """The model and its address, as in the semantic conventions for generative AI."""
    where: Attributes = {"gen_ai.operation.name": "chat"}
    if config.endpoint is not None:
        address = urlsplit(config.endpoint.base_url)
        return where | {
            "gen_ai.provider.name": "openai",  # all endpoints of its protocol
            "gen_ai.request.model": config.endpoint.model,
            "server.address": address.hostname or "",
            "server.port": address.port or (443 if address.scheme == "https" else 80),
        }
    if config.embedded is not None:
        name = PurePath(config.embedded.path or DEFAULT_NAME).name
        return where | {"gen_ai.provider.name": "llama.cpp", "gen_ai.request.model": name}
    component = config.component or {}
    where["gen_ai.provider.name"] = str(component.get("provider"))
    where["gen_ai.request.model"] = str((component.get("config") or {}).get("model"))
    return where


# Sending ------------------------------------------------------------------------------------------


class _ExportErrors(logging.Handler):
    """Takes the SDK's log, which would disturb the live view, and notes errors in it."""

    seen = False

    def emit(self, record: logging.LogRecord) -> None:
        self.seen = self.seen or record.levelno >= logging.ERROR


_EXPORT_ERRORS = _ExportErrors()


@contextmanager
def open_telemetry(warn: Callable[[str], None]) -> Iterator[Telemetry]:
    """Telemetry as OpenTelemetry's own variables configure it, sent while the context lasts.

    Args:
        warn: Called with one sentence at the end, if the collector did not accept everything.

    Raises:
        InputError: The extra is not installed, or no collector is named.
    """
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").startswith(("http://", "https://")):
        raise InputError(
            "--otel needs the HTTP address of a collector.",
            "Set OTEL_EXPORTER_OTLP_ENDPOINT to it, such as http://localhost:4318.",
        )
    log = logging.getLogger("opentelemetry")
    log.addHandler(_EXPORT_ERRORS)
    log.propagate, _EXPORT_ERRORS.seen = False, False
    try:
        tracers, meters = _providers()
    except ImportError:
        raise InputError(
            "--otel needs OpenTelemetry's SDK and exporter, which are not installed.",
            "Install them with: pip install 'aidsafe[otel]'",
        ) from None
    except Exception as error:  # noqa: BLE001 - the SDK's, whose message may quote a key
        raise InputError(
            f"OpenTelemetry cannot be set up ({type(error).__name__}).",
            "Check the variables that begin with OTEL_.",
        ) from None

    def close() -> None:
        for provider in (tracers, meters):
            with suppress(Exception):
                provider.shutdown()

    # In a thread: the SDK's own time limits do not hold if the collector does not respond.
    closing = threading.Thread(target=close, daemon=True)
    try:
        yield SpanTelemetry(tracers, meters)
    finally:
        closing.start()
        with suppress(KeyboardInterrupt):
            closing.join(CLOSE_SECONDS)
        if closing.is_alive() or _EXPORT_ERRORS.seen:
            warn(
                "OpenTelemetry: the collector that OTEL_EXPORTER_OTLP_… names did not accept all "
                "spans and metrics. The run is not affected."
            )


def _providers() -> tuple[Any, Any]:
    """The SDK's providers of tracers and meters; not set up for the process."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk import metrics, trace
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    service = {"service.name": "aidsafe", "service.version": version("aidsafe")}
    resource = Resource.create(service).merge(OTELResourceDetector().detect())
    tracers = trace.TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    return tracers, metrics.MeterProvider([reader], resource=resource, shutdown_on_exit=False)
