"""Secrets in configurations: replacing them before a value is stored or shown.

What counts as a secret: the value of a key that is named like one (`api_key`, `Authorization`,
`headers`, …), and within text the user info and the key parameters of a URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

REDACTED = "***"
"""Stands in the place of a secret."""

_SECRET_KEY = re.compile(
    r"(key|secret|password|passwd|authorization|token|credential|cookie)s?$|headers$", re.IGNORECASE
)
_URL_PARAMETERS = "key secret password passwd authorization token credential sig signature"
_SECRET_IN_URL = re.compile(
    r"(?<=//)[^/@\s]+(?=@)"
    rf"|(?:{'|'.join(f'(?<={name}=)' for name in _URL_PARAMETERS.split())})[^&#\s]+",
    re.IGNORECASE,
)


def redact(value: Any) -> Any:
    """A copy of JSON-like data in which every secret is replaced by `REDACTED`."""
    if isinstance(value, Mapping):
        return {
            key: _redact_secret(key, item) if _SECRET_KEY.search(str(key)) else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, str):
        return _SECRET_IN_URL.sub(REDACTED, value)
    return [redact(item) for item in value] if isinstance(value, list | tuple) else value


def secrets_in(value: Any) -> Iterator[str]:
    """The texts that `redact` would replace; never an empty one."""
    yield from _secrets_in(value, secret=False)


def _redact_secret(key: object, value: Any) -> Any:
    if isinstance(value, bool) or _is_token_count(key, value):
        return value
    return REDACTED if value or isinstance(value, int | float) else value


def _is_token_count(key: object, value: Any) -> bool:
    """Whether it is a number such as that of `max_tokens`, which is not secret."""
    return isinstance(value, int | float) and str(key).lower().endswith("tokens")


def _secrets_in(value: Any, secret: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not _is_token_count(key, item):
                yield from _secrets_in(item, secret or bool(_SECRET_KEY.search(str(key))))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets_in(item, secret)
    elif isinstance(value, str) and value:
        yield from [value] if secret else _SECRET_IN_URL.findall(value)
    elif secret and isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
