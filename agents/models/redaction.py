"""Secrets in configurations: replacing them before a value is stored or shown.

What counts as a secret: the value of a key that is named like one (`api_key`, `Authorization`,
`headers`, …); within text the user info and the key parameters of a URL, what looks like a key, and
every key that this process holds, also percent-encoded or in base64. `redact` and `redact_text`
stand where text of others comes in: configurations, and what endpoints say. From replies, which may
speak of keys, only those are removed that this process holds (`redact_reply`).
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Container, Iterator, Mapping
from typing import Any
from urllib.parse import quote

REDACTED = "***"
"""Stands in the place of a secret."""

_SECRET_KEY = re.compile(
    r"(key|secret|password|passwd|passphrase|authorization|auth|token|credential|cookie|signature"
    r"|^sig|^sas|^pat|^jwt|^code)s?$|headers$",
    re.IGNORECASE,
)
_URL_PARAMETERS = "key secret password passwd authorization auth token credential sig signature jwt"
_SECRET_IN_URL = re.compile(
    r"(?<=//)[^/@\s]+(?=@)"
    rf"|(?:{'|'.join(f'(?<={name}=)' for name in _URL_PARAMETERS.split())})[^&#\s]+",
    re.IGNORECASE,
)

# A prefix counts with its separator alone: names of models and files begin with "sk" or "key" too.
_KEY_START = (
    r"(?:(?:sk|pk|rk|xai|nvapi|pplx|csk|key|glpat)-|(?:sk|pk|rk|gsk|hf|r8|fw|key)_"
    r"|gh[opsu]_|github_pat_|tgp_v1_|AIza|AKIA|ASIA|eyJ)"
)
_LIKE_KEY = re.compile(
    rf"(?<![A-Za-z0-9]){_KEY_START}(?=[\w.-]*\d)[\w.-]{{14,}}|(?<=Bearer )[\w.~+/=-]{{8,}}"
)
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{32,}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_QUOTED = re.compile(r'"([^"\s]+)"')
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_SECRET_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
_HELD: dict[str, tuple[str, ...]] = {}
"""Each secret that this process holds, with the forms in which it may return, longest first."""
_IN_REPLIES: set[str] = set()
"""Those of them that are removed from replies too."""
_NO_WORD = 12  # characters of a secret that no reply holds by chance
_SHORTEST = 6  # characters of a secret: a shorter one would be found in any text
_LONG = 16  # of one that need not be a secret, but is named like one


def hold_secret(secret: str, in_replies: bool = True) -> None:
    """Has a secret removed from all text that passes through `redact_text` from now on.

    Args:
        secret: The secret.
        in_replies: Whether also from replies, unless it is so short that it may be a word of them,
            as `ollama` is where a server wants any key.
    """
    if len(secret) >= _SHORTEST and secret not in _HELD:
        forms = tuple(sorted(_forms(secret), key=len, reverse=True))
        held = {**_HELD, secret: forms}
        _HELD.clear()  # the longest first: one may be a part of another
        _HELD.update((each, held[each]) for each in sorted(held, key=len, reverse=True))
    if in_replies and len(secret) >= _NO_WORD:
        _IN_REPLIES.add(secret)


def hold_headers(headers: Mapping[str, str]) -> None:
    """Holds the values of headers, with a scheme such as `Bearer` and without it.

    Those of headers that are not named like a secret, such as a title, are removed from replies
    only if they look like a key.
    """
    for name, value in headers.items():
        for part in {value, value.rpartition(" ")[2]}:
            hold_secret(part, bool(_SECRET_KEY.search(name)) or looks_like_key(part))


def hold_environment() -> None:
    """Holds all variables that are named like a secret, for SDKs that read their key themselves."""
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name) and len(value.strip()) >= _LONG:
            hold_secret(value.strip())


def _forms(secret: str) -> set[str]:
    """A secret as it is, as percent-encoding, JSON and base64 write it, and those combined."""
    found = {secret, json.dumps(secret)[1:-1]}
    raw = secret.encode("utf-8", "replace")
    for before in range(3):
        # Where it stands in a longer text decides how its bytes fall into groups of three; the
        # characters at both ends depend on what stands around it.
        encoded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        inner = encoded[(0, 2, 3)[before] : (len(raw) + before) // 3 * 4]
        if len(inner) >= _SHORTEST:
            found |= {inner, inner.translate(str.maketrans("+/", "-_"))}
    once = {quote(form, safe=safe) for form in found for safe in ("", "/")}
    once |= {_PERCENT.sub(lambda part: part[0].lower(), form) for form in once}
    return found | once | {quote(form, safe="") for form in once}


def redact_reply(text: str) -> str:
    """A model's reply without the secrets that this process holds; all else in it stays."""
    return _without(text, _IN_REPLIES)


def _without(text: str, secrets: Container[str]) -> str:
    for secret, forms in _HELD.items():
        if secret in secrets:
            for form in forms:
                if form in text:
                    text = text.replace(form, REDACTED)
    return text


def redact_text(text: str) -> str:
    """A text without the secrets that this process holds, and without what looks like one."""
    return _LIKE_KEY.sub(REDACTED, _SECRET_IN_URL.sub(REDACTED, _without(text, _HELD)))


def redact_quoted(text: str) -> str:
    """A message about a configuration; what it quotes is removed if it may be a key."""
    return redact_text(
        _QUOTED.sub(
            lambda found: f'"{REDACTED}"' if looks_like_key(found[1].rstrip(".")) else found[0],
            text,
        )
    )


def looks_like_key(text: str) -> bool:
    """Whether a word is a key rather than the name of one."""
    mixed = all(re.search(part, text) for part in ("[a-z]", "[A-Z]", "[0-9]"))
    return bool(
        _LIKE_KEY.fullmatch(text)
        or _HEXADECIMAL.fullmatch(text)
        or (len(text) >= 20 and mixed and not re.search(r"[_/:]", text))
    )


def holds_key(text: str) -> bool:
    """Whether a part of a text has the form of a provider's keys."""
    return bool(_LIKE_KEY.search(text))


def redact(value: Any) -> Any:
    """A copy of JSON-like data in which every secret is replaced by `REDACTED`."""
    if isinstance(value, Mapping):
        return {
            key: _redact_secret(key, item) if _SECRET_KEY.search(str(key)) else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, str):
        return redact_text(value)
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
