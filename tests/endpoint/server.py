"""The endpoint: a server on a loopback socket, in a thread of its own."""

import asyncio
import json
import math
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiohttp import web

from tests.endpoint.completion import PrefixCache, build_completion, draw_content
from tests.endpoint.faults import ERRORS, ErrorReply, Fault, FaultPlan, TokenBucket, bad_request
from tests.endpoint.schema_reply import SchemaError

Reply = Callable[[dict[str, Any]], str | dict[str, Any] | Fault | None]
"""Gets the request body, gives the content (a dict becomes JSON), a fault, or None to draw one."""

_MAX_BODY = 64 * 1024**2
_BACKLOG = 4096  # Benchmarks open a thousand connections at once.


@dataclass(slots=True)
class Call:
    """One `POST /v1/chat/completions` as the server saw it."""

    number: int
    """Order of arrival, from 0."""
    arrived: float
    """Seconds on the clock of `time.monotonic`."""
    body: dict[str, Any]
    """The request; empty if it was not a JSON object."""
    finished: float | None = None
    fault: Fault | None = None
    status: int | None = None
    """The HTTP status sent; None if nothing was sent."""
    answered: bool = False
    """The whole answer was handed to the socket."""


class _Answer(NamedTuple):
    status: int
    body: bytes
    headers: Mapping[str, str]


class Endpoint:
    """An OpenAI-compatible endpoint on 127.0.0.1 that serves between `__enter__` and `__exit__`.

    Each reply is a function of the seed and the request body alone (except for `cached_tokens`).
    `reply` and `latency` may be set, `faults` and `fault_rates` added to, while it serves.

    Args:
        seed: Determines replies, latencies and the faults drawn by rate.
        reply: Scripts the model: see `Reply`. Runs in the server's thread, once for each call that
            would show its content. What it raises is answered with a 500 and raised on exit.
        latency: Seconds until an answer, or a range (low, high) to draw from. Answers with a
            4xx status come at once: they are checks that come before the model.
        faults: One entry for each of the next calls; None answers well.
        fault_rates: Share of calls that each fault strikes, once `faults` is used up.
        retry_after: Seconds in the header `Retry-After`; if not whole, it is rounded up there and
            exact in `retry-after-ms`.
        api_key: The only bearer token let in; None lets in all.
        models: The only model names served; None serves all.
        supports_schema: Whether a `json_schema` response format is accepted.
        rate_limit: Calls a second (and the burst, at least one call) before a 429.
        keep_bodies: Keep every `Call` in `calls`; without it only counters are held.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        reply: Reply | None = None,
        latency: float | tuple[float, float] = 0.0,
        faults: Iterable[Fault | None] = (),
        fault_rates: Mapping[Fault, float] | None = None,
        retry_after: float = 1,
        api_key: str | None = None,
        models: Sequence[str] | None = None,
        supports_schema: bool = True,
        rate_limit: float | None = None,
        keep_bodies: bool = True,
        port: int = 0,
    ) -> None:
        self.seed = seed
        self.reply = reply
        self.latency = latency
        self.retry_after = retry_after
        self.api_key = api_key
        self.models = models
        self.supports_schema = supports_schema
        self.keep_bodies = keep_bodies
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()
        self.in_flight = 0
        self.max_in_flight = 0
        self.first_call: float | None = None
        self.last_reply: float | None = None
        self.port = port
        self._plan = FaultPlan(faults, fault_rates or {}, seed)
        self._cache = PrefixCache()
        self._arrivals = 0
        self._bucket = TokenBucket(rate_limit) if rate_limit is not None else None
        self._reply_error: Exception | None = None

    @property
    def base_url(self) -> str:
        """The URL to give to clients; known once the endpoint serves."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def faults(self) -> deque[Fault | None]:
        """What the next calls get; shrinks as they arrive, and may be extended."""
        return self._plan.script

    @property
    def fault_rates(self) -> dict[Fault, float]:
        """Share of calls that each fault strikes; may be changed."""
        return self._plan.rates

    @property
    def stats(self) -> dict[str, Any]:
        """What `GET /stats` answers."""
        return {
            "calls": self._arrivals,
            "counts": dict(self.counts),
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "first_call": self.first_call,
            "last_reply": self.last_reply,
        }

    def __enter__(self) -> Self:
        ready: Future[int] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(ready)), name="endpoint", daemon=True
        )
        self._thread.start()
        self.port = ready.result()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        if exc is None and self._reply_error is not None:
            raise self._reply_error

    async def _serve(self, ready: Future[int]) -> None:
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/stats", self._show_stats)
        # The short time-out is for hung calls: nobody waits for those at the end.
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.02
        )
        try:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self.port, backlog=_BACKLOG).start()
        except Exception as error:  # noqa: BLE001  (raised in `__enter__`)
            await runner.cleanup()
            ready.set_exception(error)
            return
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        ready.set_result(runner.addresses[0][1])
        await self._stopping.wait()
        await runner.cleanup()

    async def _show_stats(self, request: web.Request) -> web.Response:
        return web.json_response(self.stats)

    async def _list_models(self, request: web.Request) -> web.Response:
        if not self._lets_in(request):
            return web.json_response(ERRORS[Fault.UNAUTHORIZED].body(), status=401)
        models = self.models if self.models is not None else ("test-model",)
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "tests"} for name in models
        ]
        return web.json_response({"object": "list", "data": data})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        call = Call(number=self._arrivals, arrived=time.monotonic(), body={})
        if self.first_call is None:
            self.first_call = call.arrived
        self._arrivals += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        if self.keep_bodies:
            self.calls.append(call)
        try:
            return await self._answer(request, call)
        except BaseException as error:  # The client went away, or the server stops.
            call.answered = False
            if call.finished is None:
                self._close(call, None if call.fault is Fault.HANG else "abandoned")
            if isinstance(error, ConnectionResetError):
                return web.Response()  # Nobody reads it; raised, it would only fill the log.
            raise

    def _close(self, call: Call, outcome: str | None) -> None:
        """Settle the books on a call.

        This comes just before the bytes go out: a client that has its answer must find it counted.
        """
        call.finished = time.monotonic()
        self.in_flight -= 1
        if outcome is not None:
            self.counts[str(outcome)] += 1

    async def _answer(self, request: web.Request, call: Call) -> web.StreamResponse:
        call.body = _parse(await request.read())
        canonical = json.dumps(call.body, sort_keys=True)
        digest = blake2b(f"{self.seed}:{canonical}".encode(), digest_size=16).digest()
        answer, outcome = self._decide(request, call, digest)
        if call.fault is Fault.HANG:
            self.counts[str(outcome)] += 1
            await asyncio.Event().wait()  # Until aiohttp cancels: client gone, or server stops.
        if answer is None or not 400 <= answer.status < 500:
            await self._wait(digest)
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError
        response = web.StreamResponse()
        if answer is None:
            self._close(call, outcome)
            _reset(request)
            return response
        response.set_status(answer.status)
        response.headers.update(answer.headers)
        response.content_type = "application/json"
        response.content_length = len(answer.body)
        call.status = answer.status
        call.answered = call.fault is not Fault.CUT_BODY
        self._close(call, outcome)
        self.last_reply = call.finished
        await response.prepare(request)
        if call.answered:
            await response.write_eof(answer.body)
        else:
            await response.write(answer.body[: len(answer.body) // 2])
            if request.transport is not None:
                request.transport.close()  # Sends what is written, unlike `abort`.
        return response

    async def _wait(self, digest: bytes) -> None:
        if isinstance(self.latency, tuple):
            low, high = self.latency
            await asyncio.sleep(low + (high - low) * int.from_bytes(digest[:4], "big") / 2**32)
        elif self.latency:
            await asyncio.sleep(self.latency)

    def _decide(
        self, request: web.Request, call: Call, digest: bytes
    ) -> tuple[_Answer | None, str]:
        """Return what to send (None for nothing) and the name to count it under."""
        planned = self._plan.next_fault(call.number)
        if not self._lets_in(request):
            call.fault = Fault.UNAUTHORIZED
        elif problem := _find_problem(call.body):
            return _answer_error(bad_request(problem)), "bad_request"
        else:
            call.fault = planned or self._own_fault(call.body)
        content = ""
        if call.fault in (None, Fault.LENGTH):  # The client sees what the model said.
            try:
                said = self._speak(call.body, Random(digest))
            except SchemaError as error:
                return _answer_error(bad_request(str(error), "response_format")), "bad_request"
            except Exception as error:  # noqa: BLE001  (from the test's `reply`: raised on exit)
                self._reply_error = self._reply_error or error
                return _answer_error(ERRORS[Fault.SERVER_ERROR]), "reply_error"
            if isinstance(said, Fault):
                call.fault = said
            else:
                content = said
        fault = call.fault
        if fault in (Fault.RESET, Fault.HANG):
            return None, fault
        if fault in ERRORS:
            headers = {}
            if fault is Fault.RATE_LIMITED_RETRY_AFTER:
                headers = _retry_headers(self.retry_after)
            return _answer_error(ERRORS[fault], call.body.get("model", ""), headers), fault
        if fault is Fault.INVALID_JSON:
            return _Answer(200, b"upstream connect error, this is not JSON", {}), fault
        completion = build_completion(call.body, content, fault, digest.hex(), self._cache)
        return _Answer(200, json.dumps(completion).encode(), {}), fault or "ok"

    def _lets_in(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization")
        return self.api_key is None or given == f"Bearer {self.api_key}"

    def _own_fault(self, body: dict[str, Any]) -> Fault | None:
        """Return the fault that follows from the endpoint's own limits, if any."""
        if self.models is not None and body["model"] not in self.models:
            return Fault.MODEL_NOT_FOUND
        wanted = body.get("response_format") or {}
        if not self.supports_schema and wanted.get("type") == "json_schema":
            return Fault.SCHEMA_UNSUPPORTED
        if self._bucket is not None and not self._bucket.take():
            return Fault.RATE_LIMITED
        return None

    def _speak(self, body: dict[str, Any], rng: Random) -> str | Fault:
        said = self.reply(body) if self.reply is not None else None
        if said is None:
            return draw_content(body, rng)
        return json.dumps(said) if isinstance(said, dict) else said


def _parse(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in `raw`, or an empty one if there is none."""
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _find_problem(body: dict[str, Any]) -> str | None:
    if not isinstance(body.get("model"), str):
        return "the body must be a JSON object with a model"
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        return "messages must be a list of at least one message"
    if not isinstance(body.get("response_format") or {}, dict):
        return "response_format must be an object"
    if body.get("stream"):
        return "streaming is not supported"
    return None


def _answer_error(
    error: ErrorReply, model: str = "", headers: Mapping[str, str] | None = None
) -> _Answer:
    return _Answer(error.status, json.dumps(error.body(model)).encode(), headers or {})


def _retry_headers(seconds: float) -> dict[str, str]:
    headers = {"Retry-After": str(math.ceil(seconds))}  # The standard knows whole seconds only.
    if seconds != int(seconds):
        headers["retry-after-ms"] = f"{seconds * 1000:g}"
    return headers


def _reset(request: web.Request) -> None:
    """Drop the connection with a TCP reset, not an orderly end."""
    transport = request.transport
    if transport is not None:
        # A linger time of zero is what makes closing a reset.
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        transport.abort()
