"""The HTTP client below the SDK: requests are as httpx2 itself would make them."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx2
import openai
import pytest
from autogen_core.models import UserMessage

from agents.models.config import EndpointConfig
from agents.models.endpoint import EndpointClient
from agents.models.errors import EndpointMisconfigured
from agents.models.http import HttpClient

URL = "https://models.example/v1/chat/completions?api-version=1"
HEADERS = [("Authorization", "Bearer k"), ("Content-Type", "application/json"), ("X-Own", "a")]


async def content() -> AsyncIterator[bytes]:
    yield b"{}"


async def both(**given: Any) -> tuple[httpx2.Request, httpx2.Request]:
    """A request as ours makes it, and as the SDK's own client does."""
    made = []
    for kind in (HttpClient, openai.DefaultAioHttpClient):
        async with kind() as client:
            client.cookies.set("lb", "17")
            made.append(client.build_request("POST", URL, content=content(), **given))
    return made[0], made[1]


@pytest.mark.parametrize("bound", [7.5, httpx2.Timeout(3, connect=1)])
async def test_a_request_has_what_httpx2_would_have_put_into_it(bound: Any) -> None:
    ours, theirs = await both(headers=HEADERS, timeout=bound, params=None, files=None)
    assert (ours.method, ours.url) == (theirs.method, theirs.url)
    assert ours.extensions == theirs.extensions
    # The SDK says itself who it is and what it accepts.
    said = {"user-agent", "accept", "connection"}
    assert dict(ours.headers) == {k: v for k, v in theirs.headers.items() if k not in said}
    assert ours.headers["Cookie"] == "lb=17", "some balancers hold a client to a server by it"
    assert await ours.aread() == b"{}"


@pytest.mark.parametrize("given", [{"params": {"q": "1"}}, {"headers": {"X-Own": "a"}}])
async def test_anything_else_is_left_to_httpx2(given: dict[str, Any]) -> None:
    ours, theirs = await both(timeout=5, **given)
    assert ours.url == theirs.url
    assert ours.headers == theirs.headers


async def test_a_redirect_is_told_of_with_where_it_leads() -> None:
    class Moved(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(308)
            self.send_header("Location", "http://elsewhere.example/v2/chat/completions")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Moved) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        client = EndpointClient(EndpointConfig(base_url=url, model="m"))
        with pytest.raises(EndpointMisconfigured, match=r"redirects .*308.*elsewhere\.example/v2"):
            await client.create([UserMessage(content="Hi", source="user")])
        await client.close()
        server.shutdown()
