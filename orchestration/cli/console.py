"""Consoles, errors and interruption, for all commands."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

from rich.console import Console
from rich.text import Text

from orchestration.cli.exit_codes import ExitCode, Interrupted
from orchestration.cli.machine import output_failed
from policies import AidsafeError

T = TypeVar("T")

# SIGHUP is sent when a terminal is closed; not all platforms have it.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class _Console(Console):
    """A console that interprets no markup, and ends the command when its reader has gone.

    On standard error, failures do not stop the command.
    """

    def __init__(self, stderr: bool) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if not self.is_terminal:
            # In a pipe, lines are not wrapped.
            self.width = 10_000
            self.soft_wrap = True

    def print(self, *objects: Any, **options: Any) -> None:
        if self.stderr:
            with suppress(OSError, ValueError):  # a full disk, a closed terminal
                super().print(*objects, **options)
            return
        with _output():
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        if not self.stderr:
            exit_quietly()
        self.quiet = True


def out() -> Console:
    """Standard output, for results."""
    return _Console(stderr=False)


def err() -> Console:
    """Standard error, for everything else."""
    return _Console(stderr=True)


def write(text: str) -> None:
    """Writes to standard output, in UTF-8; ends the command if the reader has gone."""
    if sys.stdout is None:  # closed
        return
    with _output():
        sys.stdout.flush()
        # Half of a surrogate pair, which only JSON can hold, is escaped as JSON does it.
        sys.stdout.buffer.write(text.encode(errors="backslashreplace"))
        sys.stdout.buffer.flush()


@contextmanager
def _output() -> Iterator[None]:
    """Handles errors of standard output."""
    try:
        yield
    except BrokenPipeError:
        exit_quietly()
    except OSError as error:
        _discard_output()
        raise output_failed(error) from None


def write_json(data: Any) -> None:
    """Writes an object to standard output, for a program."""
    write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def exit_quietly() -> NoReturn:
    """Ends the command with success: the reader of its output, such as `head`, has enough."""
    _discard_output()
    raise SystemExit(ExitCode.GOOD)


def _discard_output() -> None:
    # Python flushes once more at exit, and would report an error.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(error: AidsafeError) -> None:
    """Prints an error's cause and remedy."""
    # Imported here, so that `aidsafe --help` does not import AutoGen.
    from orchestration.chat.view import plain

    with suppress(OSError, ValueError):
        sys.stdout.flush()  # earlier output comes first
    console = err()
    head = Text() if isinstance(error, Interrupted) else Text("Error: ", style="bold red")
    console.print(head.append(plain(error.cause, style="default")))
    if error.remedy:
        console.print(plain(error.remedy))


def run_async(work: Callable[[], Coroutine[Any, Any, T]], remedy: str = "") -> T:
    """Runs a coroutine to its end.

    Raises:
        Interrupted: Ctrl-C, or a second signal to `stopping`; with that remedy.
    """
    try:
        return asyncio.run(work())
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass
    raise Interrupted("Interrupted.", remedy)


@contextmanager
def stopping(stop: Callable[[], None], notice: str, console: Console) -> Iterator[None]:
    """Handles Ctrl-C and SIGTERM: the first stops the work in good order, the second cancels it.

    For use inside a coroutine.

    Args:
        stop: Called at the first signal.
        notice: Printed then.
        console: Where; must be the live view's console if there is one.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    is_stopping = False

    def handle() -> None:
        nonlocal is_stopping
        if not is_stopping:
            is_stopping = True
            stop()
            console.print(notice)
        elif task is not None:
            task.cancel()

    # One that was ignored from the beginning stays so, such as SIGHUP under `nohup`.
    handled = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    with suppress(NotImplementedError):  # Windows: Ctrl-C stops at once
        for number in handled:
            loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        with suppress(NotImplementedError):
            for number in handled:
                loop.remove_signal_handler(number)
