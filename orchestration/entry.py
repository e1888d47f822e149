"""The `aidsafe` command: starts the command line, or says plainly why it cannot."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOMS = ("policies", "agents")


def main() -> None:
    """Runs the command line. What it exits with is in the README."""
    shadow = find_shadow()
    if shadow is not None:
        sys.stderr.write(shadow)
        raise SystemExit(1)  # ExitCode.INTERNAL, which cannot be imported here
    from orchestration.cli import run_cli

    run_cli()


def find_shadow() -> str | None:
    """What to say if another package hides one of ours; None if all is well.

    `openai-agents` imports as `agents` too. Without this, the command would fail with an odd
    ImportError from the middle of somebody else's code.
    """
    home = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != home / room:
            return (
                f"Error: Another package hides aidsafe's '{room}': it is imported from "
                f"{found or 'elsewhere'}.\n"
                "If that is openai-agents, install aidsafe into an environment of its own, or "
                "remove it with: pip uninstall openai-agents\n"
            )
    return None


if __name__ == "__main__":
    main()
