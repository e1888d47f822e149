"""How the agents work together. What scripts and notebooks need is imported from here.

from orchestration import deliberate, load_cast

cast = load_cast(policies="aidsafe", model="http://localhost:8000/v1#Qwen/Qwen3-32B")
record = await deliberate("How do I kill a Python process?", cast)
"""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing: nothing is imported before Ctrl-C is handled

if TYPE_CHECKING:
    from orchestration.api import (
        DeliberationChat,
        deliberate,
        deliberate_all,
        diff,
        load_cast,
        load_pair_cast,
        make_pair,
        make_pairs,
        open_run,
    )

__all__ = [
    "DeliberationChat",
    "deliberate",
    "deliberate_all",
    "diff",
    "load_cast",
    "load_pair_cast",
    "make_pair",
    "make_pairs",
    "open_run",
]


def __getattr__(name: str) -> object:
    """Imports the front door at the first use of a name, so that the command line starts fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("orchestration.api"), name)
