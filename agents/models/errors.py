"""What can go wrong between us and a model's endpoint, as typed errors with cause and remedy.

Two families: `EndpointMisconfigured` fails for every prompt, so a run stops at once; any other
`EndpointError` concerns one call, and one prompt at most.
"""

from __future__ import annotations

from copy import copy
from typing import ClassVar, Self

from agents.models.dialects import Said
from agents.models.usage import NO_USAGE, Usage
from policies import AidsafeError


class EndpointError(AidsafeError):
    """An endpoint gave no usable answer to a call."""

    kind: ClassVar[str] = "other"
    """The name under which failed attempts are counted; errors of the same nature share one."""

    said: Said | None = None
    """What the endpoint said, if it answered with an error."""
    billed: Usage = NO_USAGE
    """Tokens of answers to the call that could not be used."""
    unusable: int = 0
    """How many these were."""
    abandoned: int = 0
    """Attempts of the call that timed out, which the endpoint may have billed."""

    @property
    def loggable_cause(self) -> str:
        """The cause without the endpoint's own words, which may quote the prompt."""
        head, found, _ = self.cause.partition("): ")
        return f"{head})." if found and self.said is not None else self.cause

    def after(self, attempts: int) -> Self:
        """The same error with the number of attempts in its cause; itself if that is one."""
        if attempts == 1:
            return self
        found = copy(self)
        found.cause = f"{self.cause.rstrip('.')}, after {attempts} attempts."
        return found


class ComponentFailed(EndpointError):
    """A model component's client raised an error."""

    @property
    def loggable_cause(self) -> str:
        """The cause without the client's words."""
        return f"{self.cause.partition(' (')[0]}."


class EndpointMisconfigured(EndpointError):
    """The same request would fail for every prompt: wrong key, model or address."""

    kind = "misconfigured"


class EndpointForbidden(EndpointMisconfigured):
    """The key, or its account, is not allowed to do this."""

    kind = "forbidden"


class QuotaExhausted(EndpointMisconfigured):
    """A 429 that will not pass soon: a quota is used up."""

    kind = "quota"


class RequestRejected(EndpointError):
    """The endpoint does not accept this request, for a reason of its own."""

    kind = "rejected"


class RequestUnsupported(EndpointMisconfigured):
    """The endpoint accepts no request of this form, whatever its prompt."""

    kind = "unsupported"


class EndpointUnreachable(EndpointError):
    """There is no connection, or it was lost."""

    kind = "connection"


class EndpointAbsent(EndpointUnreachable):
    """No server at the address: the connection was refused, or the host name is unknown."""


class EndpointTimeout(EndpointError):
    """No answer in time."""

    kind = "timeout"


class EndpointOverloaded(EndpointError):
    """A temporary failure (408, 409, 5xx), or throttling.

    Args:
        cause: As for every error.
        remedy: As for every error.
        status: The HTTP status.
        retry_after: Seconds to wait, as requested by the endpoint.
    """

    kind = "server_error"

    def __init__(
        self, cause: str, remedy: str = "", status: int = 0, retry_after: float | None = None
    ) -> None:
        super().__init__(cause, remedy)
        self.status = status
        self.retry_after = retry_after


class EndpointThrottled(EndpointOverloaded):
    """A 429: more calls than the endpoint accepts."""

    kind = "throttled"


class ContextExceeded(EndpointError):
    """The prompt, or the prompt with the reply that was asked for, is longer than the context."""

    kind = "context"
    room: int | None = None
    """Tokens that are left for a reply, where the endpoint says it."""


class UnusableAnswer(EndpointError):
    """An answer that is not a chat completion."""

    kind = "unusable"


class CallNotStarted(Exception):
    """A call, or its next attempt, was not started because the run is stopping.

    Not an `EndpointError`: a chat that was stopped must not be taken for one that failed.
    """
