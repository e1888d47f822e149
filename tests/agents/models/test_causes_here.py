"""Causes on this machine are named as what they are: proxies, certificates, names, addresses."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping

import aiohttp
import httpx2
import openai
import pytest
from autogen_core.models import UserMessage
from pydantic import ValidationError

from agents.models.config import EndpointConfig, ModelConfig
from agents.models.dialects import read_error
from agents.models.endpoint import EndpointClient
from agents.models.errors import EndpointAbsent, EndpointError, EndpointMisconfigured
from agents.models.failure import Endpoint, of_exception, of_said
from agents.models.proxies import proxy_of
from orchestration.chat.models import endpoint_model
from policies import InputError
from tests.agents.models.habits import HabitServer

HERE = Endpoint("https://api.example/v1", "m", "OPENAI_API_KEY")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("SSL_CERT", "OPENAI_")):
            monkeypatch.delenv(name)


def explained(cause: BaseException) -> EndpointError:
    """The error for what the SDK raises with this cause."""
    error = openai.APIConnectionError(request=httpx2.Request("POST", HERE.url))
    error.__cause__ = cause
    return of_exception(error, HERE, 10.0)


def invalid(code: int, said: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, said)
    error.verify_code, error.verify_message = code, said
    return error


KEY = aiohttp.client_reqrep.ConnectionKey("api.example", 443, True, True, None, None, None)
CAUSES: dict[str, tuple[BaseException, type[EndpointError], str, str]] = {
    "self-signed": (
        aiohttp.ClientConnectorCertificateError(KEY, invalid(18, "self-signed certificate")),
        EndpointMisconfigured,
        "certificate that is not valid (self-signed certificate)",
        "SSL_CERT_FILE",
    ),
    "expired": (
        invalid(10, "certificate has expired"),
        EndpointMisconfigured,
        "certificate has expired",
        "clock",
    ),
    "another host": (
        invalid(62, "Hostname mismatch, certificate is not valid for 'api.example'."),
        EndpointMisconfigured,
        "mismatch",
        "Use the address that the certificate is for",
    ),
    "no TLS": (
        ssl.SSLError(1, "wrong version number"),
        EndpointMisconfigured,
        "does not answer by TLS",
        "http://",
    ),
    "unknown host": (socket.gaierror(-2, "unknown"), EndpointAbsent, "resolved", "DNS"),
    "no route": (OSError(101, "unreachable"), EndpointAbsent, "no route", "network"),
    "refused": (ConnectionRefusedError(111, "refused"), EndpointAbsent, "refused", "port"),
    "too many files": (OSError(24, "files"), EndpointMisconfigured, "open more files", "ulimit"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_a_cause_on_this_machine_is_named(name: str) -> None:
    cause, kind, words, remedy = CAUSES[name]
    error = explained(cause)
    assert type(error) is kind
    assert words in error.cause
    assert remedy in error.remedy


def test_certificates_of_ones_own_that_cannot_be_read_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/none")
    error = explained(FileNotFoundError(2, "none"))
    assert "certificates in SSL_CERT_FILE cannot be read" in error.cause


@pytest.mark.parametrize(
    ("cause", "kind", "words"),
    [
        (ConnectionRefusedError(111, "refused"), EndpointAbsent, "proxy in HTTPS_PROXY"),
        (socket.gaierror(-2, "unknown"), EndpointAbsent, "the proxy's host name"),
        (aiohttp.ClientHttpProxyError(None, (), status=407), EndpointMisconfigured, "407"),  # type: ignore[arg-type]
        (aiohttp.ClientHttpProxyError(None, (), status=503), EndpointAbsent, "503"),  # type: ignore[arg-type]
        (aiohttp.ServerDisconnectedError(), EndpointError, "by way of the proxy in HTTPS_PROXY"),
    ],
)
def test_a_proxy_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, cause: BaseException, kind: type, words: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    error = explained(cause)
    assert isinstance(error, kind)
    assert words in error.cause
    monkeypatch.setenv("NO_PROXY", "api.example")
    assert "HTTPS_PROXY" not in explained(cause).cause


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "socks://h:1", '"http://h:1"'])
async def test_a_proxy_that_is_none_of_http_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    with HabitServer(lambda _: None) as server:
        monkeypatch.setenv("ALL_PROXY", proxy)
        client = EndpointClient(EndpointConfig(base_url=server.base_url, model="m"))
        with pytest.raises(EndpointMisconfigured, match="proxy in ALL_PROXY, which is not one"):
            await client.create([UserMessage(content="Hi", source="user")])
        assert server.bodies == []
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert proxy_of(server.base_url) is None


def test_a_redirect_is_quoted_without_what_stands_behind_its_path() -> None:
    headers: Mapping[str, str] = {"Location": "https://u:p@login.example/in?to=/v1&k=whatever#x"}
    error = of_said(read_error(302, ""), HERE, headers)
    assert isinstance(error, EndpointMisconfigured)
    assert error.cause.endswith("redirects to another address (302): https://***@login.example/in.")


# Addresses and names -----------------------------------------------------------------------------


@pytest.mark.parametrize("around", ["{}\r", " {}\n", "\t{} ", "{}/"])
def test_white_space_around_an_address_is_dropped(
    monkeypatch: pytest.MonkeyPatch, around: str
) -> None:
    url = "http://127.0.0.1:9/v1"
    assert endpoint_model("m\r", around.format(url)).endpoint == EndpointConfig(
        base_url=url, model="m"
    )
    monkeypatch.setenv("OPENAI_BASE_URL", around.format(url))
    found = endpoint_model("m").endpoint
    assert found is not None
    assert found.base_url == url


ADDRESSES = [
    '"http://h/v1"',
    "'http://h/v1'",
    "http://h/v1'",
    "http://h /v1",
    "http://h/v1\r\nX: y",
    "http://h/\x1b[31m",
    "http://h/\udce9",
    "http://a..b/v1",
    "http://h:99999/v1",
    "http://",
    "http://h/sk-proj-NotARealKey0123456789/v1",
    "h:80",
]


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address_that_cannot_be_used_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    with pytest.raises(InputError, match="The address of the endpoint is not one") as caught:
        endpoint_model("m", url)
    monkeypatch.setattr(os, "environ", {**os.environ, "OPENAI_BASE_URL": url})
    with pytest.raises(InputError, match="in OPENAI_BASE_URL is not one") as named:
        endpoint_model("m")
    assert "sk-" not in f"{caught.value}{named.value}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is empty"),
        (" \r\n", "is empty"),
        ("caf\udce9", "not UTF-8"),
        ("a\x1b[31m", "of control"),
        ("a\nb", "of control"),
        ("sk-proj-NotARealKey0123456789", "looks like a key"),
    ],
)
def test_what_is_wrong_with_the_name_of_a_model_is_named(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        endpoint_model(name, "http://127.0.0.1:9/v1")
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("headers", [{"X-A": "a\r\nB: c"}, {"X A": "b"}, {"X-A": "caf\xe9"}])
def test_headers_that_cannot_be_sent_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="no HTTP header"):
        EndpointConfig(base_url="http://h/v1", model="m", headers=headers)


async def test_a_key_in_quotes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", '"sk-NotARealKey0123456789"')
    client = EndpointClient(EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m"))
    with pytest.raises(EndpointMisconfigured, match="stands in quotes") as caught:
        await client.create([UserMessage(content="Hi", source="user")])
    assert "NotAReal" not in str(caught.value)


def test_a_null_temperature_goes_through_yaml_and_back() -> None:
    config = ModelConfig(
        endpoint=EndpointConfig(base_url="http://h/v1", model="m"), temperature=None
    )
    assert ModelConfig.model_validate(config.public()).temperature is None
