"""What all commands share in talking to a person: consoles, errors, interruption."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from policies import AidsafeError

T = TypeVar("T")

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def out() -> Console:
    """Standard output: results. Wide in a pipe, so that lines are not broken for a program."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    return console


def err() -> Console:
    """Standard error: everything that is not the result."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    return console


def say_error(error: AidsafeError) -> None:
    """Prints an error: what is wrong, and what to do about it."""
    console = err()
    console.print(Text("Error: ", style="bold red").append(Text(error.cause, style="default")))
    if error.remedy:
        console.print(Text(error.remedy))


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end; Ctrl-C ends the command with one line, not a traceback."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        err().print("Interrupted.")
        raise typer.Exit(INTERRUPTED) from None


class Stopper:
    """Ctrl-C once asks the work to stop in good order; twice stops it now.

    Use inside a coroutine; it takes over SIGINT and SIGTERM while it is entered.
    """

    def __init__(self, notice: str) -> None:
        self.stopping = asyncio.Event()
        self._notice = notice
        self._task = asyncio.current_task()

    def _signal(self) -> None:
        if self.stopping.is_set():
            if self._task is not None:
                self._task.cancel()
            return
        self.stopping.set()
        err().print(self._notice)

    def __enter__(self) -> Stopper:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signal)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
