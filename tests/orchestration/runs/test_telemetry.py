"""Telemetry: what is sent, where, and what never is."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from autogen_core.models import LLMMessage

from agents.models.context import CALL
from agents.models.errors import EndpointMisconfigured, EndpointThrottled, RequestRejected
from agents.policy_agent import AROUND_TURN
from orchestration.cli.exit_codes import ExitCode
from orchestration.deliberation.job import DeliberationJob
from orchestration.deliberation.record import CoTRecord
from orchestration.prompts.reader import Prompt
from orchestration.runs import Run, telemetry
from tests.endpoint import Endpoint, Fault
from tests.orchestration import command as commands
from tests.orchestration.command import Done, aidsafe, environment, finish, start
from tests.orchestration.run_helpers import CALLS_PER_CHAT, SOURCE, agree, prompts, records, until
from tests.scripted import agreeable, cast, draft, kind_of_turn, result, revises

CANARY = "xanthic-canary"
CHAT, TURN, ASK = "deliberate", "invoke_agent ", "chat "
Messages = Sequence[LLMMessage]


def sdk(module: str) -> Any:
    """A module of the extra."""
    return pytest.importorskip(f"opentelemetry.{module}", reason="the extra otel is missing")


class Memory:
    """Telemetry in memory."""

    def __init__(self) -> None:
        self._spans = sdk("sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
        self._reader = sdk("sdk.metrics.export").InMemoryMetricReader()
        tracers = sdk("sdk.trace").TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(sdk("sdk.trace.export").SimpleSpanProcessor(self._spans))
        meters = sdk("sdk.metrics").MeterProvider([self._reader], shutdown_on_exit=False)
        self.telemetry = telemetry.SpanTelemetry(tracers, meters)

    def spans(self, kind: str = "") -> list[Any]:
        """Those whose name begins so, in the order in which they ended."""
        return [s for s in self._spans.get_finished_spans() if s.name.startswith(kind)]

    def points(self, name: str) -> list[Any]:
        (resource,) = self._reader.get_metrics_data().resource_metrics
        metrics = [metric for scope in resource.scope_metrics for metric in scope.metrics]
        return [point for m in metrics if m.name == name for point in m.data.data_points]

    def text(self) -> str:
        metrics = self._reader.get_metrics_data().to_json()
        return "\n".join([span.to_json() for span in self.spans()] + [metrics])


async def run_with(
    memory: Memory, folder: Path, made: Any, source: Iterator[Prompt], concurrency: int = 1
) -> list[CoTRecord]:
    """A session of a run with telemetry; its records."""
    run = Run(folder, DeliberationJob(made), SOURCE, memory.telemetry)
    try:
        await run.execute(source, concurrency)
    finally:
        run.close()
    return records(folder)


@pytest.fixture
def memory() -> Memory:
    return Memory()


# What is sent ------------------------------------------------------------------------------------


async def test_spans_nest_chat_by_chat_with_sixteen_at_once(memory: Memory, folder: Path) -> None:
    def script(messages: Messages, arguments: Any) -> Any:
        # Some drafts have to be asked for twice.
        kind, prompt = kind_of_turn(messages), str(messages[1].content)
        if "7?" in prompt and kind == "draft":
            return "no JSON"
        return draft() if "no JSON" in str(messages[-2]) else agreeable(messages, arguments)

    found = await run_with(memory, folder, cast(script, delay=0.002)[0], prompts(48), 16)

    chats = {span.context.span_id: span for span in memory.spans(CHAT)}
    turns = {span.context.span_id: span for span in memory.spans(TURN)}
    assert all(span.parent is None for span in chats.values())
    assert len({span.context.trace_id for span in chats.values()}) == 48 == len(found)
    times = [(span.start_time, span.end_time) for span in chats.values()]
    assert max(sum(a <= start < b for a, b in times) for start, _ in times) == 16

    agents: dict[str, list[str]] = {record.id: [] for record in found}
    for span in sorted(turns.values(), key=lambda span: span.start_time):
        chat = chats[span.parent.span_id]
        assert span.context.trace_id == chat.context.trace_id
        assert chat.start_time <= span.start_time <= span.end_time <= chat.end_time
        agents[chat.attributes["aidsafe.prompt.id"]].append(span.attributes["gen_ai.agent.name"])
    assert agents == {record.id: [turn.agent for turn in record.turns] for record in found}

    asked: Counter[tuple[str, str]] = Counter()
    for span in memory.spans(ASK):
        turn = turns[span.parent.span_id]
        assert turn.start_time <= span.start_time <= span.end_time <= turn.end_time
        prompt_id = chats[turn.parent.span_id].attributes["aidsafe.prompt.id"]
        asked[prompt_id, turn.attributes["gen_ai.agent.name"]] += 1
    assert asked == {(r.id, t.agent): 1 + len(t.discarded) for r in found for t in r.turns}
    assert Counter(asked.values())[2] == 5  # prompts 7, 17, 27, 37 and 47


async def test_a_call_has_the_attributes_of_the_conventions(memory: Memory, folder: Path) -> None:
    def script(messages: Messages, arguments: Any) -> Any:
        return result(json.dumps(agreeable(messages, arguments)), prompt=90, cached=60)

    await run_with(memory, folder, cast(script)[0], prompts(1))
    names = sdk("semconv._incubating.attributes.gen_ai_attributes")
    call = memory.spans(ASK)[0]
    assert (call.name, call.kind.name) == ("chat scripted", "CLIENT")
    assert dict(call.attributes) == {
        names.GEN_AI_OPERATION_NAME: "chat",
        names.GEN_AI_PROVIDER_NAME: "openai",
        names.GEN_AI_REQUEST_MODEL: "scripted",
        names.GEN_AI_RESPONSE_MODEL: "scripted",
        names.GEN_AI_RESPONSE_FINISH_REASONS: ("stop",),
        names.GEN_AI_USAGE_INPUT_TOKENS: 90,
        names.GEN_AI_USAGE_OUTPUT_TOKENS: 10,
        names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 60,
        "server.address": "127.0.0.1",
        "server.port": 9,
        "aidsafe.attempts": 1,
    }


async def test_a_turn_has_role_round_outcome_and_stance(memory: Memory, folder: Path) -> None:
    def script(messages: Messages, arguments: Any) -> Any:
        first = kind_of_turn(messages) == "deliberation" and "Better." not in str(messages)
        return revises(response="Better.") if first else agreeable(messages, arguments)

    (record,) = await run_with(memory, folder, cast(script)[0], prompts(1))
    turns = memory.spans(TURN)
    assert [span.name for span in turns] == [f"invoke_agent {t.agent}" for t in record.turns]
    for span, turn in zip(turns, record.turns, strict=True):
        assert span.attributes["gen_ai.operation.name"] == "invoke_agent"
        assert span.attributes["gen_ai.agent.description"]
        for key in ("role", "round", "outcome", "stance"):
            assert span.attributes.get(f"aidsafe.{key}") == getattr(turn, key)
    assert {"accepts", "revises"} <= {span.attributes.get("aidsafe.stance") for span in turns}


async def test_a_chat_has_its_outcome(memory: Memory, folder: Path) -> None:
    def script(messages: Messages, arguments: Any) -> Any:
        if "p1" in str(messages[1].content) and kind_of_turn(messages) == "draft":
            return EndpointThrottled("Too fast.", "Wait.")
        return agreeable(messages, arguments)

    source = (Prompt(f"p{n}", f"I am p{n}") for n in range(2))
    await run_with(memory, folder, cast(script)[0], source)
    good, bad = memory.spans(CHAT)
    assert dict(good.attributes) == {
        "aidsafe.prompt.id": "p0",
        "aidsafe.recipe": "test",
        "aidsafe.outcome": "completed",
        "aidsafe.stop_reason": "consensus",
        "aidsafe.rounds": 1,
        "aidsafe.replies.replayed": 0,
        "aidsafe.replies.called": CALLS_PER_CHAT,
    }
    assert bad.attributes["aidsafe.outcome"] == "failed"
    assert (good.status.status_code.name, bad.status.status_code.name) == ("UNSET", "ERROR")
    failed = [s for s in memory.spans() if s.context.trace_id == bad.context.trace_id]
    # The intents' call and turn; then the draft's call, its turn, and the chat.
    assert [s.attributes.get("error.type") for s in failed] == [None, None, *["throttled"] * 3]


async def test_replies_from_the_journal_are_no_calls(memory: Memory, folder: Path) -> None:
    def stops(messages: Messages, arguments: Any) -> Any:
        if kind_of_turn(messages) == "deliberation":
            return EndpointMisconfigured("The key is wrong.", "Mend it.")
        return agreeable(messages, arguments)

    with pytest.raises(EndpointMisconfigured):
        await run_with(memory, folder, cast(stops)[0], prompts(1))
    (cut_off,) = memory.spans(CHAT)
    assert "aidsafe.outcome" not in cut_off.attributes
    assert cut_off.attributes["error.type"] == "misconfigured"
    assert cut_off.attributes["aidsafe.replies.called"] == 2

    again = Memory()
    await run_with(again, folder, cast()[0], prompts(1))
    (whole,) = again.spans(CHAT)
    assert whole.attributes["aidsafe.replies.replayed"] == 2
    assert whole.attributes["aidsafe.replies.called"] == CALLS_PER_CHAT - 2
    assert len(again.spans(TURN)) == len(again.spans(ASK)) + 2 == CALLS_PER_CHAT


async def test_metrics_are_the_records_sums(memory: Memory, folder: Path) -> None:
    def script(messages: Messages, arguments: Any) -> Any:
        observer = CALL.get().observer
        assert observer is not None
        observer.attempt_failed("there", EndpointThrottled("Too fast.", "Wait."), 0.1)
        observer.attempt_answered("there")
        if "Prompt 2?" in str(messages[1].content):
            return "I'm sorry, but I can't help with that."
        return agreeable(messages, arguments)

    def values(name: str, key: str) -> dict[Any, Any]:
        return {point.attributes[key]: point.value for point in memory.points(name)}

    made, client = cast(script, delay=0.003)
    found = await run_with(memory, folder, made, prompts(6), 3)
    calls = [call for record in found for turn in record.turns for call in (*turn.discarded, turn)]
    asked = len(client.requests)
    assert values("aidsafe.prompts", "aidsafe.outcome") == {"completed": 5, "refused": 1}
    kinds = values("aidsafe.attempts", "aidsafe.attempt.kind")
    assert kinds == dict.fromkeys(("answered", "throttled"), asked)
    points = memory.points("gen_ai.client.token.usage")
    tokens = {point.attributes["gen_ai.token.type"]: point for point in points}
    assert tokens["input"].sum == sum(call.usage.prompt_tokens for call in calls)
    assert tokens["output"].sum == sum(call.usage.completion_tokens for call in calls)
    assert tokens["input"].count == len(calls) == asked
    (duration,) = memory.points("gen_ai.client.operation.duration")
    assert duration.count == asked == len(memory.spans(ASK))
    assert duration.sum == pytest.approx(sum(call.latency for call in calls), abs=0.01)
    assert duration.attributes["gen_ai.request.model"] == "scripted"


# What never is -----------------------------------------------------------------------------------


async def test_nothing_holds_text_of_chats_or_errors(memory: Memory, folder: Path) -> None:
    errors = {
        "rejected": RequestRejected(f"It said: {CANARY} is bad.", f"Leave out {CANARY}."),
        "broken": RuntimeError(CANARY),
    }

    def script(messages: Messages, arguments: Any) -> Any:
        kind, prompt = kind_of_turn(messages), str(messages[1].content)
        for name, error in errors.items():
            if name in prompt and kind == "deliberation":
                return error
        if "prose" in prompt:
            return f"No JSON, but {CANARY}"
        if "refusal" in prompt:
            return result("", refusal=f"I'm sorry: {CANARY}")
        return draft(CANARY, response=CANARY) if kind == "draft" else agreeable(messages, arguments)

    names = ("good", "prose", "refusal", *errors)
    source = (Prompt(name, f"{CANARY} {name}", {"note": CANARY}) for name in names)
    await run_with(memory, folder, cast(script)[0], source)
    found = records(folder)
    assert {record.outcome for record in found} == {"completed", "malformed", "refused", "failed"}
    assert all(CANARY in record.model_dump_json(exclude={"prompt"}) for record in found)
    assert {"rejected", "RuntimeError"} <= {s.attributes.get("error.type") for s in memory.spans()}
    assert not any(span.events or span.status.description for span in memory.spans())
    text = memory.text()
    assert "gen_ai.client.operation.duration" in text
    assert CANARY not in text
    instruction = found[0].turns[1].instruction.splitlines()[1:]
    assert not any(line in text for line in instruction if len(line) > 20)


async def test_errors_and_cancellations_pass_as_they_are(memory: Memory, folder: Path) -> None:
    error = KeyError("as it is")
    with pytest.raises(KeyError) as caught:
        await run_with(memory, folder, cast([error])[0], prompts(1))
    assert caught.value is error

    made, client = cast(delay=60)
    running = asyncio.create_task(run_with(memory, folder, made, prompts(2), 2))
    await until(lambda: len(client.requests) == 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    kinds = [span.attributes["error.type"] for span in memory.spans()]
    assert kinds == ["KeyError"] * 3 + ["CancelledError"] * 6
    assert AROUND_TURN.get() is None


def test_the_sdk_is_not_even_loaded_without_being_asked_for() -> None:
    code = "import sys, orchestration.cli; assert 'opentelemetry.sdk' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=commands.HOME, env=environment())


# Where to -----------------------------------------------------------------------------------------


class Collector:
    """An HTTP server that accepts everything, answers with an error, or (0) not at all."""

    def __init__(self, status: int) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.stop = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.path, body))
                if not status:
                    outer.stop.wait()
                self.send_response(status or 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self) -> list[tuple[str, str]]:
        """Of every span that came, the name and its service's name."""
        request = sdk("proto.collector.trace.v1.trace_service_pb2").ExportTraceServiceRequest
        return [
            (span.name, attribute.value.string_value)
            for path, body in self.got
            if path.startswith("/v1/traces")
            for resource in request.FromString(body).resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def collecting(status: int = 200) -> Iterator[Collector]:
    collector = Collector(status)
    try:
        yield collector
    finally:
        collector.stop.set()
        collector.server.shutdown()
        collector.server.server_close()


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variable of OpenTelemetry's but those that the test sets."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def line_of(command: str, here: Path, endpoint: Endpoint) -> list[str | Path]:
    """A command line that makes calls; for `retry`, after a run whose prompts failed."""
    models, file = commands.models_file(here, endpoint), commands.prompts_file(here)
    run: list[str | Path] = ["run", file, "--out", here / "run", "--models", models]
    if command == "retry":
        endpoint.faults.extend([None, Fault.CONTEXT_LENGTH] * 3)
        assert aidsafe(*run, "--concurrency", "1").code == ExitCode.NOT_COMPLETED
        return ["retry", here / "run", "--outcome", "failed", "--models", models]
    return [command, *run[1:]]


COMMANDS = ("run", "retry", "plan")


@pytest.mark.parametrize("command", COMMANDS)
def test_with_otel_the_collector_gets_both(command: str, tmp_path: Path, clean: Any) -> None:
    sdk("exporter.otlp.proto.http")
    with collecting() as collector, Endpoint(reply=agree) as endpoint:
        line = line_of(command, tmp_path, endpoint)
        before = len(endpoint.calls)
        clean.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        done = aidsafe(*line, "--otel")
        asked = len(endpoint.calls) - before
    assert done.code == ExitCode.GOOD, done.err
    assert "OpenTelemetry" not in done.err
    assert {path for path, _ in collector.got} == {"/v1/traces", "/v1/metrics"}
    spans = collector.spans()
    assert {service for _, service in spans} == {"aidsafe"}
    made = records(tmp_path / "run")
    assert Counter(name.partition(" ")[0] for name, _ in spans) == {
        "deliberate": len(made),
        "invoke_agent": sum(len(record.turns) for record in made),
        "chat": asked,
    }
    sent = b"".join(body for _, body in collector.got)
    assert b"aidsafe.prompts" in sent
    assert not [record for record in made if record.prompt.encode() in sent]


@pytest.mark.parametrize("command", COMMANDS)
def test_without_otel_the_collector_gets_nothing(command: str, tmp_path: Path) -> None:
    with collecting() as collector, Endpoint(reply=agree) as endpoint:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_TRACES_EXPORTER": "otlp"}
        env |= {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "10"}
        done = finish(start(*line_of(command, tmp_path, endpoint), env=environment(**env)))
    assert done.code == ExitCode.GOOD, done.err
    assert collector.got == []


def test_the_sdks_variables_apply(tmp_path: Path, clean: Any) -> None:
    sdk("exporter.otlp.proto.http")
    with collecting() as collector, Endpoint(reply=agree) as endpoint:
        clean.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        clean.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces?mine")
        clean.setenv("OTEL_SERVICE_NAME", "mine")
        assert aidsafe(*line_of("run", tmp_path, endpoint), "--otel").code == ExitCode.GOOD
    assert {path for path, _ in collector.got} == {"/v1/traces?mine", "/v1/metrics"}
    assert {service for _, service in collector.spans()} == {"mine"}


ENDPOINT, NOWHERE = "EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"
WRONG: dict[str, tuple[dict[str, str], str]] = {
    "nothing": ({}, "Set OTEL_EXPORTER_OTLP_ENDPOINT"),
    "empty": ({ENDPOINT: " "}, "Set OTEL_EXPORTER_OTLP_ENDPOINT"),
    "no HTTP": ({ENDPOINT: f"{CANARY}:4317"}, "Set OTEL_EXPORTER_OTLP_ENDPOINT"),
    "no setting": ({ENDPOINT: NOWHERE, "METRIC_EXPORT_INTERVAL": "-1"}, "that begin with OTEL_"),
    "no extra": ({ENDPOINT: NOWHERE}, "with: pip install 'aidsafe[otel]'"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("wrong", WRONG)
def test_an_invalid_setup_is_reported(wrong: str, command: str, tmp_path: Path, clean: Any) -> None:
    variables, words = WRONG[wrong]
    if wrong == "no setting":
        sdk("exporter.otlp.proto.http")
    with Endpoint(reply=agree) as endpoint:
        line = line_of(command, tmp_path, endpoint)
        before = len(endpoint.calls)
        for name, value in variables.items():
            clean.setenv(f"OTEL_{name}", value)
        for module in ("sdk", "exporter.otlp.proto.http.trace_exporter"):
            if wrong == "no extra":
                clean.setitem(sys.modules, f"opentelemetry.{module}", None)
        done = aidsafe(*line, "--otel")
        assert len(endpoint.calls) == before
    assert (done.code, done.out) == (ExitCode.INPUT, "")
    assert words in done.err
    assert CANARY not in done.err
    assert (tmp_path / "run").exists() == (command == "retry")


# A dead collector ----------------------------------------------------------------------------


@contextmanager
def dead(status: int | None) -> Iterator[str]:
    """A collector that fails: it answers with this status, not at all (0), or is not there."""
    with collecting(status or 0) as collector:
        if status is not None:
            yield collector.url
            return
    yield collector.url


def complaints(done: Done) -> list[str]:
    """Standard error without the notice of what is used, and without progress."""
    assert done.code == ExitCode.GOOD, done.err
    expected = re.compile(r"\| policies aidsafe|^ *\d+ s  ")
    return [line for line in done.err.splitlines() if not expected.search(line)]


@pytest.mark.parametrize("status", [None, 500, 404, 0])
def test_a_dead_collector_costs_one_warning(status: Any, tmp_path: Path, clean: Any) -> None:
    sdk("exporter.otlp.proto.http")
    clean.setattr(telemetry, "CLOSE_SECONDS", 0.5)
    clean.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    clean.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    with dead(status) as url, Endpoint(reply=agree, latency=0.02) as endpoint:
        clean.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        began = time.monotonic()
        done = aidsafe(*line_of("run", tmp_path, endpoint), "--otel")
        assert time.monotonic() - began < 5
    assert complaints(done) == [
        "OpenTelemetry: the collector that OTEL_EXPORTER_OTLP_… names did not accept all spans and "
        "metrics. The run is not affected."
    ]
    assert [record.outcome for record in records(tmp_path / "run")] == ["completed"] * 3


@pytest.mark.parametrize("status", [0, 404])
def test_a_process_neither_hangs_nor_shows_a_log(status: int, tmp_path: Path) -> None:
    sdk("exporter.otlp.proto.http")
    with dead(status) as url, Endpoint(reply=agree) as endpoint:
        env = environment(OTEL_EXPORTER_OTLP_ENDPOINT=url)
        began = time.monotonic()
        done = finish(start(*line_of("run", tmp_path, endpoint), "--otel", env=env))
        assert time.monotonic() - began < telemetry.CLOSE_SECONDS + 10
    assert len(complaints(done)) == 1
