"""A server that answers as a real endpoint with one habit would: for what one function can say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit

Habit: TypeAlias = Callable[[dict[str, Any]], tuple[int, Any] | None]
"""Status and body for a request; None for a good answer. A body may be bytes."""


def good(body: dict[str, Any], content: Any = '{"text": "ok"}', **more: Any) -> dict[str, Any]:
    """A good answer."""
    message = {"role": "assistant", "content": content, **more.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": more.pop("finish", "stop")}
    usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    return {"id": "c", "model": body["model"], "choices": [choice], "usage": usage, **more}


def streamed(body: dict[str, Any]) -> bytes:
    """The same, as server-sent events."""
    events: list[Any] = [
        {"id": "c", "model": body["model"], "choices": [{"delta": {"content": part}}]}
        for part in ('{"text":', ' "ok"}')
    ]
    events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    events.append({"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 5}})
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([": a comment\n\n", *lines, "data: [DONE]\n\n"]).encode()


class HabitServer:
    """Serves on loopback while the context lasts; keeps what it was sent."""

    def __init__(self, habit: Habit) -> None:
        self.habit = habit
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.queries: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                outer.queries.append(urlsplit(self.path).query)
                status, answer = outer.habit(body) or (200, None)
                if answer is None:
                    answer = streamed(body) if body.get("stream") else good(body)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def base_url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
