"""What can go wrong between us and a model's endpoint, as typed errors with cause and remedy.

Two families: `EndpointMisconfigured` will fail for every prompt, so a run stops at once;
any other `EndpointError` concerns one call, and costs one prompt at most.
"""

from __future__ import annotations

from policies import AidsafeError, ExitCode


class EndpointError(AidsafeError):
    """An endpoint gave no usable answer to a call."""

    exit_code = ExitCode.ENDPOINT


class EndpointMisconfigured(EndpointError):
    """The same request will fail for every prompt: wrong key, wrong model, wrong address."""


class EndpointForbidden(EndpointMisconfigured):
    """A 403: the key may not do this; or a firewall or a guard objects to one prompt."""


class RequestRejected(EndpointError):
    """The endpoint does not accept the request, for a reason of its own.

    An endpoint that never accepted one is misconfigured; one that did before has something against
    this prompt alone.
    """


class EndpointUnreachable(EndpointError):
    """No connection, or one that broke off."""


class EndpointTimeout(EndpointError):
    """No answer in time."""


class EndpointOverloaded(EndpointError):
    """Throttled or failing (429, 5xx) after the retries."""


class ContextExceeded(EndpointError):
    """The prompt is longer than the model's context."""


class UnusableAnswer(EndpointError):
    """An answer that is not a chat completion."""
