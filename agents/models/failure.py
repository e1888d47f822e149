"""Failed requests: typed errors with cause and remedy, for what an endpoint or the SDK says."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp
import httpx2
import openai
from autogen_core.models import FinishReasons, RequestUsage

from agents.models.dialects import Meaning, Said
from agents.models.errors import (
    ContextExceeded,
    EndpointAbsent,
    EndpointError,
    EndpointForbidden,
    EndpointMisconfigured,
    EndpointOverloaded,
    EndpointThrottled,
    EndpointTimeout,
    EndpointUnreachable,
    QuotaExhausted,
    RequestRejected,
    UnusableAnswer,
)
from agents.models.http import BodyTooLarge
from agents.models.proxies import Proxy, proxy_of
from agents.models.redaction import redact_text
from agents.models.response import EndpointResult, valid_text


class Endpoint(NamedTuple):
    """An endpoint, as messages name it."""

    url: str
    model: str
    key_env: str

    @property
    def where(self) -> str:
        """It, at the beginning of a sentence."""
        return f"The endpoint {self.url}"


def of_said(
    said: Said, endpoint: Endpoint, headers: Mapping[str, str]
) -> EndpointResult | EndpointError:
    """The typed error for what an endpoint says, with `said` as its attribute.

    A filter's refusal is a result, and so is a reply whose JSON the endpoint did not accept.

    Args:
        said: What it says.
        endpoint: Which endpoint.
        headers: Of the response.
    """
    words = valid_text(redact_text(said.message))[:300].rstrip(".")
    status = f"({said.status})" if said.status else "in an error"
    says = f"{status}: {words}." if words else f"{status}."
    where, model = endpoint.where, endpoint.model
    meaning = said.meaning
    error: EndpointError | ContextExceeded
    if 300 <= said.status < 400:
        # Without what stands behind the path: gateways send there what they were sent.
        location = re.split("[?#]", headers.get("Location", ""))[0] or "?"
        elsewhere = valid_text(redact_text(location))[:200]
        error = EndpointMisconfigured(
            f"{where} redirects to another address ({said.status}): {elsewhere}.",
            "Use that as the base URL, up to where /chat/completions begins.",
        )
    elif meaning is Meaning.FILTERED:
        return without_reply("content_filter")
    elif meaning is Meaning.INVALID_JSON:
        return without_reply("stop")
    elif meaning is Meaning.TOO_LONG:
        by_limit = "max_tokens" in said.message or "max_completion_tokens" in said.message
        lower = "Set a lower max_tokens for the model, or use" if by_limit else "Use"
        error = ContextExceeded(
            f"The chat grew longer than the context of '{model}'.",
            f"{lower} a model with a longer context, or a recipe with fewer rounds.",
        )
        error.room = said.room_for_reply
    elif meaning in (Meaning.THROTTLED, Meaning.OVERLOADED):
        kind = EndpointThrottled if meaning is Meaning.THROTTLED else EndpointOverloaded
        wait = retry_after(headers)
        error = kind(
            f"{where} answered {said.status}.",
            "Try again later, or lower the concurrency.",
            said.status,
            said.retry_after if wait is None else wait,
        )
    elif meaning is Meaning.KEY:
        error = EndpointMisconfigured(
            f"{where} refused the key {says}",
            f"Check the key in {endpoint.key_env}, and that it may use '{model}'.",
        )
    elif meaning is Meaning.FORBIDDEN:
        error = EndpointForbidden(
            f"{where} refused access {says}",
            f"Check the account, the key in {endpoint.key_env}, and that it may use '{model}'.",
        )
    elif meaning is Meaning.QUOTA:
        error = QuotaExhausted(
            f"{where} says that the quota is used up {says}",
            "Increase it, then start the same command again: finished work is kept.",
        )
    elif meaning is Meaning.MODEL:
        error = EndpointMisconfigured(
            f"{where} has no model '{model}', or not for this use {says}",
            "Check the model's name, and that the address ends where /chat/completions begins.",
        )
    else:
        error = RequestRejected(
            f"{where} did not accept the request {says}",
            "Check that the model supports what is sent: see `params` in agents/README.md.",
        )
    error.said = said
    return error


def without_reply(finish_reason: FinishReasons) -> EndpointResult:
    """The result of a request that was answered without a reply."""
    return EndpointResult(
        content="",
        finish_reason=finish_reason,
        usage=RequestUsage(0, 0),
        cached=False,
        is_completion=False,
    )


def unusable(endpoint: Endpoint, what: str) -> UnusableAnswer:
    """The error for an answer that is not of the protocol."""
    return UnusableAnswer(
        f"{endpoint.where} {what}.",
        "Check that the address is that of an OpenAI-compatible API.",
    )


def of_exception(error: Exception, endpoint: Endpoint, timeout: float) -> EndpointError:
    """The typed error for an exception of the SDK or below it.

    Args:
        error: What was raised.
        endpoint: Which endpoint.
        timeout: Seconds after which the attempt was abandoned.
    """
    where = endpoint.where
    if isinstance(error, BodyTooLarge):
        return unusable(endpoint, "sent an answer that is too large")
    causes = list(_causes(error))
    proxy = proxy_of(endpoint.url)
    local = _local_cause(causes, endpoint, proxy)
    if local is not None:
        return local
    if isinstance(error, openai.APIResponseValidationError | ValueError):
        return unusable(endpoint, f"sent an answer that cannot be read ({type(error).__name__})")
    # The SDK's aiohttp transport reports every lost or refused connection as a time-out; the
    # causes of its error tell them apart.
    by_way = f" (by way of the proxy in {proxy.variable})" if proxy else ""
    refused = any(isinstance(e, ConnectionRefusedError) for e in causes)
    lost = any(isinstance(e, aiohttp.ClientPayloadError | ConnectionError) for e in causes)
    if lost and not refused:
        return EndpointUnreachable(
            f"{where} closed the connection before its answer was complete{by_way}.",
            "Check the server's log, and any proxy on the way.",
        )
    if any(isinstance(e, aiohttp.ServerDisconnectedError) for e in causes):
        return EndpointUnreachable(
            f"{where} closed the connection without an answer{by_way}.",
            "Check the server's log, and any proxy on the way.",
        )
    no_connection = any(isinstance(e, OSError) and not isinstance(e, TimeoutError) for e in causes)
    if isinstance(error, openai.APITimeoutError | TimeoutError) and not no_connection:
        return EndpointTimeout(
            f"{where} did not answer within {timeout:.3g} s{by_way}.",
            "Raise the model's timeout, or lower the concurrency.",
        )
    return _absent(causes, endpoint, proxy)


def _absent(causes: list[BaseException], endpoint: Endpoint, proxy: Proxy | None) -> EndpointError:
    """The error where there was no connection, with the reason that the system gives."""
    numbers = {cause.errno for cause in causes if isinstance(cause, OSError)}
    if any(isinstance(e, socket.gaierror | aiohttp.ClientConnectorDNSError) for e in causes):
        reason = "its host name cannot be resolved"
        remedy = "Check the spelling of the address, and this machine's network and DNS."
    elif numbers & _NO_ROUTE:
        reason = "this machine has no route to it"
        remedy = "Check the address, and this machine's network."
    elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        reason = "the connection was refused"
        remedy = "Check the address and its port, and that the server is running."
    else:
        reason, remedy = "", "Check the address, and that the server is running."
    reason = f": {reason}" if reason else ""
    if proxy is not None:  # it is the proxy that there was no connection to
        reason = reason.replace(" its ", " the proxy's ").replace("to it", "to the proxy")
        reason = f" by way of the proxy in {proxy.variable}{reason}"
        remedy = "Check the proxy's address, and that it is running, or unset the variable."
    return EndpointAbsent(f"{endpoint.where} cannot be reached{reason}.", remedy)


_NO_ROUTE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL}


def _local_cause(
    causes: list[BaseException], endpoint: Endpoint, proxy: Proxy | None
) -> EndpointError | None:
    """The error for a cause that is on this machine or in its settings; None for others."""
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
            return EndpointMisconfigured(
                "This process may not open more files, and each connection is one.",
                "Raise the limit (ulimit -n 4096), or lower --concurrency.",
            )
        invalid = getattr(cause, "certificate_error", cause)
        if isinstance(invalid, ssl.SSLCertVerificationError):
            return _certificate(invalid, endpoint)
        if isinstance(cause, aiohttp.ClientHttpProxyError) and proxy:
            kind = EndpointMisconfigured if cause.status in (401, 403, 407) else EndpointAbsent
            return kind(
                f"{endpoint.where} cannot be reached: the proxy in {proxy.variable} answered "
                f"{cause.status}.",
                "Check the address, and the proxy's settings, log and password.",
            )
        if isinstance(cause, aiohttp.ClientProxyConnectionError) and proxy:
            return EndpointAbsent(
                f"{endpoint.where} cannot be reached: the proxy in {proxy.variable} gives no "
                "connection.",
                "Check that the proxy is running, or unset the variable.",
            )
    own = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), None)
    if own and any(
        isinstance(cause, FileNotFoundError | PermissionError | IsADirectoryError)
        or getattr(cause, "reason", None) in ("NO_CERTIFICATE_OR_CRL_FOUND", "NO_START_LINE")
        for cause in causes
    ):
        return EndpointMisconfigured(
            f"The certificates in {own} cannot be read.",
            "Name a PEM file of the authorities that are trusted, or unset the variable.",
        )
    # After all of them: these enclose the error of the certificate.
    if any(isinstance(cause, ssl.SSLError | aiohttp.ClientSSLError) for cause in causes):
        return EndpointMisconfigured(
            f"{endpoint.where} does not answer by TLS as this machine can read it.",
            "Write http:// if the server has no TLS; otherwise check its certificate and port.",
        )
    if any(isinstance(cause, httpx2.InvalidURL | aiohttp.InvalidURL) for cause in causes):
        return EndpointMisconfigured(
            f"{endpoint.where} has an address that cannot be used.",
            "Write it whole, such as https://api.openai.com/v1.",
        )
    return None


def unsupported_proxy(endpoint: Endpoint, proxy: Proxy) -> EndpointError:
    """The error for a proxy that is none of HTTP."""
    return EndpointMisconfigured(
        f"{endpoint.where} cannot be reached by way of the proxy in {proxy.variable}, which is "
        "not one of HTTP.",
        "Write the proxy as http://HOST:PORT, or unset the variable; SOCKS is not supported.",
    )


def _certificate(error: ssl.SSLCertVerificationError, endpoint: Endpoint) -> EndpointError:
    """The error for a certificate that is not valid, by the code of OpenSSL."""
    said = redact_text(getattr(error, "verify_message", "") or "the reason is not known")
    code = getattr(error, "verify_code", 0)
    remedy = "Name the authority that signed it: export SSL_CERT_FILE=FILE."
    if code in (9, 10):  # not yet valid, expired
        remedy = "Check this machine's clock, and have the server's certificate renewed."
    elif code in (62, 64) or "mismatch" in said:  # of another host name or IP address
        remedy = "Use the address that the certificate is for."
    return EndpointMisconfigured(
        f"{endpoint.where} has a TLS certificate that is not valid ({said.rstrip('.')}).", remedy
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of a `Retry-After` header, which holds a number of them or a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - time.time()
            except (ValueError, OverflowError):
                continue
        if seconds == seconds:  # not "nan"
            return max(0.0, seconds)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
