"""Which proxy the environment names for an address."""

from __future__ import annotations

import os
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


class Proxy(NamedTuple):
    """A proxy that requests go by."""

    variable: str
    """The environment variable that names it."""
    is_http: bool
    """Whether it is of a kind that can be used."""


def proxy_of(url: str) -> Proxy | None:
    """The proxy for a URL; None if there is none, or it does not apply to this host."""
    parts = urlsplit(url)
    named = getproxies()
    kind = next((kind for kind in (parts.scheme, "all") if named.get(kind)), None)
    if kind is None or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    value = named[kind]
    scheme = value.partition("://")[0].lower() if "://" in value else "http"
    lower = f"{kind}_proxy"
    variable = lower if os.environ.get(lower) else lower.upper()
    return Proxy(variable, scheme in ("http", "https"))
