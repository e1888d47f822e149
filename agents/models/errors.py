"""What can go wrong between us and a model's endpoint, as typed errors with cause and remedy.

Two families: `EndpointMisconfigured` will fail for every prompt, so a run stops at once;
any other `EndpointError` concerns one call, and costs one prompt at most.
"""

from __future__ import annotations

from typing import ClassVar, Self

from policies import AidsafeError


class EndpointError(AidsafeError):
    """An endpoint gave no usable answer to a call."""

    kind: ClassVar[str] = "other"
    """What failed attempts are counted under; one word for errors of the same nature."""

    @property
    def loggable_cause(self) -> str:
        """The cause without the endpoint's own words, which may quote the prompt: for logs."""
        return self.cause

    def after(self, attempts: int) -> Self:
        """The same error, saying how many attempts were made; itself if it was one."""
        if attempts == 1:
            return self
        return type(self)(f"{self.cause.rstrip('.')}, after {attempts} attempts.", self.remedy)


class ComponentFailed(EndpointError):
    """A model component's client raised something, and said more or less of why in its words."""

    @property
    def loggable_cause(self) -> str:
        """The cause without the client's words."""
        return f"{self.cause.partition(' (')[0]}."


class EndpointMisconfigured(EndpointError):
    """The same request will fail for every prompt: wrong key, wrong model, wrong address."""

    kind = "misconfigured"


class EndpointForbidden(EndpointMisconfigured):
    """A 403: the key may not do this; or a firewall or a guard objects to one prompt."""

    kind = "forbidden"


class QuotaExhausted(EndpointMisconfigured):
    """A 429 that no waiting helps against: what was paid for is used up."""

    kind = "quota"


class RequestRejected(EndpointError):
    """The endpoint does not accept the request, for a reason of its own.

    An endpoint that never accepted one is misconfigured; one that did before has something against
    this prompt alone.
    """

    kind = "rejected"

    @property
    def loggable_cause(self) -> str:
        """The cause without the endpoint's own words."""
        head, found, _ = self.cause.partition("): ")
        return f"{head})." if found else self.cause


class SchemaUnsupported(RequestRejected):
    """The endpoint does not take the form in which JSON is asked for."""

    kind = "schema"


class EndpointUnreachable(EndpointError):
    """No connection, or one that broke off."""

    kind = "connection"


class EndpointAbsent(EndpointUnreachable):
    """Nobody listens at the address: the connection was refused, or the name is not known."""


class EndpointTimeout(EndpointError):
    """No answer in time."""

    kind = "timeout"


class EndpointOverloaded(EndpointError):
    """Failing for now (408, 409, 5xx), or throttled.

    Args:
        cause: As for every error.
        remedy: As for every error.
        status: The HTTP status.
        retry_after: Seconds that the endpoint asked to be left alone.
    """

    kind = "server_error"

    def __init__(
        self, cause: str, remedy: str = "", status: int = 0, retry_after: float | None = None
    ) -> None:
        super().__init__(cause, remedy)
        self.status = status
        self.retry_after = retry_after


class EndpointThrottled(EndpointOverloaded):
    """A 429: more calls than the endpoint lets through."""

    kind = "throttled"


class ContextExceeded(EndpointError):
    """The prompt is longer than the model's context."""

    kind = "context"


class UnusableAnswer(EndpointError):
    """An answer that is not a chat completion."""

    kind = "unusable"


class CallNotStarted(Exception):
    """A call, or its next attempt, was not begun because the run is stopping.

    No trouble of an endpoint, and so none of its errors: whoever handles those must not take a
    chat that was called off for one that failed.
    """
