"""The HTTP client below the SDK."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

import httpx2
import openai


class HttpClient(openai.DefaultAioHttpClient):
    """The SDK's aiohttp client, which takes requests as the SDK has put them together.

    The SDK hands over whole addresses, all headers and the time-out. httpx2 would merge each of
    them with its own once more, which is a quarter of the SDK's way to the socket.
    """

    def build_request(
        self,
        method: str,
        url: httpx2.URL | str,
        *,
        content: Any = None,
        headers: Any = None,
        timeout: Any = None,
        **others: Any,
    ) -> httpx2.Request:
        """See `httpx2.AsyncClient`, which gets what is more than content and a list of headers."""
        if not isinstance(headers, list) or any(value is not None for value in others.values()):
            return super().build_request(
                method, url, content=content, headers=headers, timeout=timeout, **others
            )
        return httpx2.Request(
            method,
            _parsed(str(url)),
            content=content,
            headers=[*headers, *self._own_headers],
            cookies=self.cookies,
            extensions={"timeout": httpx2.Timeout(timeout).as_dict()},
        )

    @cached_property
    def _own_headers(self) -> list[tuple[str, str]]:
        # What it can unpack; aiohttp would say what aiohttp can.
        return [("Accept-Encoding", self.headers["Accept-Encoding"])]


@lru_cache(maxsize=64)
def _parsed(url: str) -> httpx2.URL:
    return httpx2.URL(url)
