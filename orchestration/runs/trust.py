"""Where this user's keys may be sent, when an address comes from somebody else's run folder.

A run's `run.yaml` names an endpoint and the environment variable of its key. Whoever gives a run
folder away could name any variable and an address of their own. So a key is sent to an address
that a run folder names only if a command or script of this user has named both before. Hashes of
such pairs are in a file of the user's state folder; no key, variable or address is.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from agents.models.config import ModelConfig
from policies import InputError
from policies.yaml_model import fingerprint

FILE = "trusted_endpoints"
"""Name of the file: a hash on each line."""
_MOST_BYTES = 2**20


class Recipient(NamedTuple):
    """An address that would be sent a key."""

    where: str
    """The address, or the component's class."""
    variable: str
    """The environment variable of the key; empty for a component, which finds its key itself."""
    id: str
    """Fingerprint of both."""

    def __str__(self) -> str:
        what = f"the key in {self.variable}" if self.variable else "the keys of its environment"
        return f"{what} to {self.where}"


def state_folder() -> Path:
    """AIDSAFE_STATE_DIR, or the platform's folder for the state of programs."""
    own = os.environ.get("AIDSAFE_STATE_DIR")
    if own:
        return Path(own)
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "aidsafe"
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~/.local/state"))
    return home / "aidsafe"


def trust(configs: Iterable[ModelConfig]) -> None:
    """Notes where models send keys, since the user has named them; never fails."""
    found = {recipient.id for recipient in _recipients(configs)}
    new = found - _trusted() if found else found
    if not new:
        return
    with suppress(OSError):  # then the next command asks again
        folder = state_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(
            os.open(folder / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w"
        ) as stream:
            stream.write("".join(f"{each}\n" for each in sorted(new)))


def untrusted(configs: Iterable[ModelConfig]) -> list[Recipient]:
    """Where models would send a key that is set, without this user having named both."""
    found = [each for each in _recipients(configs) if not each.variable or _is_set(each.variable)]
    known = _trusted() if found else set()
    return [each for each in found if each.id not in known]


def refused(recipients: Iterable[Recipient], remedy: str) -> InputError:
    """The error for models that must not be used."""
    what = "; ".join(str(each) for each in recipients)
    return InputError(
        f"The run's run.yaml would send {what}, which no command of yours has named.", remedy
    )


def check_trusted(configs: Mapping[str, ModelConfig]) -> None:
    """Refuses models of a run folder that would send a key where this user has not sent it.

    Raises:
        InputError: They would.
    """
    found = untrusted(configs.values())
    if found:
        raise refused(found, "If that is right, name the models yourself: models=… or model=….")


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable, "").strip())


def _recipients(configs: Iterable[ModelConfig]) -> list[Recipient]:
    found = []
    for config in configs:
        if config.endpoint is not None:
            url, variable = config.endpoint.base_url, config.endpoint.api_key_env
            if not (variable == "OPENAI_API_KEY" and _is_openai(url)):
                found.append(Recipient(url, variable, fingerprint(json.dumps([url, variable]))))
        elif config.component is not None:
            # As run.yaml has it: without secrets.
            said = json.dumps(config.public()["component"], sort_keys=True)
            provider = str(config.component.get("provider"))
            settings = config.component.get("config")
            address = settings.get("base_url") if isinstance(settings, Mapping) else None
            where = f"{provider} ({address})" if address else provider
            found.append(Recipient(where, "", fingerprint(said)))
    return list({each.id: each for each in found}.values())


def _is_openai(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" and parts.netloc.lower() in (
        "api.openai.com",
        "api.openai.com:443",
    )


def _trusted() -> set[str]:
    try:
        with (state_folder() / FILE).open("rb") as stream:
            return set(stream.read(_MOST_BYTES).decode(errors="replace").split())
    except OSError:
        return set()
