"""The `aidsafe` command: starts the command line, or explains why it cannot."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGES = ("policies", "agents")


def main() -> None:
    """Runs the command line. orchestration/README.md lists its exit codes."""
    problem = find_shadowing()
    if problem is not None:
        sys.stderr.write(problem)
        raise SystemExit(1)  # ExitCode.INTERNAL, which cannot be imported here
    from orchestration.cli.app import run_cli

    run_cli()


def find_shadowing() -> str | None:
    """A message if another installed package shadows one of ours; else None.

    `openai-agents` imports as `agents` too. Without this check, the command would fail with an
    ImportError from the middle of that package.
    """
    home = Path(__file__).resolve().parent.parent.parent
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != home / package:
            return (
                f"Error: Another package shadows aidsafe's '{package}': it is imported from "
                f"{found or 'elsewhere'}.\n"
                "If that is openai-agents, install aidsafe into an environment of its own, or "
                "remove it with: pip uninstall openai-agents\n"
            )
    return None


if __name__ == "__main__":
    main()
