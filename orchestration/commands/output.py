"""What all commands share in talking to a person or a pipe: consoles, errors, interruption."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from rich.console import Console
from rich.text import Text

from orchestration.view import clean
from policies import AidsafeError, ExitCode

T = TypeVar("T")

# A terminal that is closed says SIGHUP, where there is such a thing.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Interrupted(AidsafeError):
    """The user stopped the command."""

    exit_code = ExitCode.INTERRUPTED


class _Console(Console):
    """A console that leaves its reader's text alone, and goes quietly when the reader has gone."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if not self.is_terminal:
            # In a pipe a line is a line, however long.
            self.width = 10_000
            self.soft_wrap = True

    def on_broken_pipe(self) -> None:
        leave_quietly()


class _ErrConsole(_Console):
    """A console whose words may be lost, but not the work that goes on behind them."""

    def __init__(self) -> None:
        super().__init__(stderr=True)

    def print(self, *objects: Any, **options: Any) -> None:
        with suppress(OSError, ValueError):  # a full disk, a closed terminal
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        self.quiet = True


def out() -> Console:
    """Standard output: results."""
    return _Console()


def err() -> Console:
    """Standard error: everything that is not the result."""
    return _ErrConsole()


def write(text: str) -> None:
    """Writes to standard output as it is; ends the command if nobody reads on."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        leave_quietly()


def write_json(data: Any) -> None:
    """Writes an object to standard output, for a program."""
    write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def leave_quietly() -> NoReturn:
    """Ends the command well: whoever read our output, such as `head`, has enough of it."""
    with suppress(OSError, ValueError):
        # Python flushes once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(ExitCode.GOOD)


def say_error(error: AidsafeError) -> None:
    """Prints an error: what is wrong, and what to do about it."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()  # what came before stands before
    console = err()
    head = Text() if isinstance(error, Interrupted) else Text("Error: ", style="bold red")
    console.print(head.append(Text(clean(error.cause), style="default")))
    if error.remedy:
        console.print(Text(clean(error.remedy)))


def run_async(work: Callable[[], Coroutine[Any, Any, T]], go_on: str = "") -> T:
    """Runs a coroutine to its end.

    Args:
        work: Makes the coroutine.
        go_on: What to tell whoever interrupts it.

    Raises:
        Interrupted: Ctrl-C, or a `Stopper` was told twice.
    """
    try:
        return asyncio.run(work())
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass
    raise Interrupted("Interrupted.", go_on)


class Stopper:
    """Ctrl-C once asks the work to stop in good order; twice stops it now. SIGTERM likewise.

    Use inside a coroutine; it takes over both signals while it is entered.

    Args:
        stop: Called at the first signal.
        notice: Said then.
        console: Where; one that a live view is on must be the view's own.
    """

    def __init__(
        self, stop: Callable[[], None], notice: str, console: Console | None = None
    ) -> None:
        self._stop = stop
        self._console = console or err()
        self._notice = notice
        self._task = asyncio.current_task()
        self._told = False

    def _signal(self) -> None:
        if self._told:
            if self._task is not None:
                self._task.cancel()
            return
        self._told = True
        self._stop()
        self._console.print(self._notice)

    def __enter__(self) -> Stopper:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            with suppress(NotImplementedError):  # Windows: Ctrl-C stops at once
                loop.add_signal_handler(number, self._signal)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
