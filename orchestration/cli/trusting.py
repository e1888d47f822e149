"""Asking before a key is sent to an address that only a run folder names."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from agents.models.config import ModelConfig
from orchestration.chat.view import plain
from orchestration.cli.console import err
from orchestration.runs.trust import refused, trust, untrusted


def confirm_models(configs: Mapping[str, ModelConfig], remedy: str) -> None:
    """Asks on a terminal whether models of a run folder may be sent their keys.

    Args:
        configs: The models, from `run.yaml`.
        remedy: How the user can name the models in this command.

    Raises:
        InputError: The answer is no, or there is no terminal.
    """
    found = untrusted(configs.values())
    if not found:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise refused(found, remedy)
    for each in found:
        err().print(plain(f"The run's run.yaml sends {each}, which no command of yours has named."))
    err().print("Send it there? [y/N] ", end="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise refused(found, remedy)
    trust(configs.values())
