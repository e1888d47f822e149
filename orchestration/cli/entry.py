"""The `aidsafe` command: starts the command line, or explains why it cannot."""

from __future__ import annotations

import os
import signal
import sys

PACKAGES = ("policies", "agents")
_INTERRUPTED, _NO_MEMORY = 130, 5  # of ExitCode, which cannot be imported here


def main() -> None:
    """Runs the command line. orchestration/README.md lists its exit codes."""
    _interrupt_at_once()  # nothing is open while modules are imported, and seconds pass
    problem = find_shadowing()
    if problem is not None:
        sys.stderr.write(problem)
        raise SystemExit(1)  # ExitCode.INTERNAL
    from orchestration.cli.app import run_cli

    sys.unraisablehook = _on_unraisable
    try:
        run_cli(_interrupt_in_order, _interrupt_at_once)
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    except MemoryError:  # not even enough to report it
        os._exit(_NO_MEMORY)


def _interrupt_at_once() -> None:
    """From now on, Ctrl-C ends the process without a traceback."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as `nohup` and `&` leave it
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))


def _interrupt_in_order() -> None:
    """From now on, Ctrl-C raises KeyboardInterrupt, so that the command can tidy up."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _on_unraisable(error: sys.UnraisableHookArgs) -> None:
    """Ends the process if Ctrl-C came where Python cannot raise it, such as in a destructor."""
    if error.exc_type is KeyboardInterrupt:
        os._exit(_INTERRUPTED)
    sys.__unraisablehook__(error)


def find_shadowing() -> str | None:
    """A message if another installed package shadows one of ours; else None.

    `openai-agents` imports as `agents` too. Without this check, the command would fail with an
    ImportError from the middle of that package.
    """
    import importlib.util  # here, so that Ctrl-C is handled before
    from pathlib import Path

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
