"""The processes of a measurement: the endpoint, and `aidsafe run` as a user starts it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.replies import prompt_texts
from tests.bench.table import BenchError

HOME = Path(__file__).parent.parent.parent


class Served:
    """The endpoint, in a process of its own."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._stats_url = base_url.removesuffix("/v1") + "/stats"

    def stats(self) -> dict[str, Any]:
        """What it counted so far."""
        with urllib.request.urlopen(self._stats_url, timeout=30) as response:
            found: dict[str, Any] = json.load(response)
        return found


@contextmanager
def served(reply: str, latency: float = 0.0, rate_limit: float | None = None) -> Iterator[Served]:
    """Serves while the context lasts.

    Args:
        reply: Name of a function in `tests.bench.replies`.
        latency: Seconds until an answer.
        rate_limit: Calls a second before a 429.
    """
    _allow_many_connections()
    command = [sys.executable, "-m", "tests.endpoint", "--reply", f"tests.bench.replies:{reply}"]
    command += ["--latency", str(latency)]
    command += ["--rate-limit", str(rate_limit)] if rate_limit is not None else []
    process = subprocess.Popen(
        command, cwd=HOME, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process:
        try:
            line = process.stdout.readline()
            if not line:
                raise BenchError("the endpoint does not start")
            yield Served(json.loads(line)["base_url"])
        finally:
            process.terminate()


class Running:
    """`aidsafe run`, in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Path) -> None:
        self.started = time.monotonic()
        self.pid = process.pid
        self.folder = errors.parent / "run"
        self._process = process
        self._errors = errors

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait_until(self, condition: Callable[[], bool], seconds: float, every: float = 0.1) -> bool:
        """Whether the condition came true in time.

        Raises:
            BenchError: The run ended before that.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self.ended and not condition():
                raise BenchError(f"the run ended too early: {self.last_words}")
            if time.monotonic() > deadline:
                return False
            time.sleep(every)
        return True

    def wait(self) -> None:
        """Waits for its end.

        Raises:
            BenchError: It did not end well.
        """
        if self._process.wait() != 0:
            raise BenchError(f"the run failed: {self.last_words}")

    @property
    def last_words(self) -> str:
        lines = self._errors.read_text(errors="replace").split("\n")
        return " ".join(" ".join(lines[-12:]).split())[-400:]

    def memory(self) -> tuple[float, float]:
        """Resident memory now, and its peak so far, in MB of 1,000,000 bytes.

        Raises:
            BenchError: The process is gone, or the system does not say.
        """
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
            fields = dict(line.split(":", 1) for line in status.splitlines())
            rss, peak = (int(fields[key].split()[0]) for key in ("VmRSS", "VmHWM"))
        except (OSError, KeyError):
            raise BenchError(f"no memory to be read (Linux only): {self.last_words}") from None
        return rss * 1024 / 1e6, peak * 1024 / 1e6


@contextmanager
def running(endpoint: Served, prompts: Path, folder: Path, concurrency: int) -> Iterator[Running]:
    """Starts `aidsafe run`, and kills it at the end of the context if it still runs.

    Args:
        endpoint: Where the model is.
        prompts: File of `write_prompts`.
        folder: Where its files go; made here.
        concurrency: Chats at the same time.
    """
    _allow_many_connections()
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "orchestration.cli.entry", "run", str(prompts)]
    command += ["--id-column", "id", "--out", str(folder / "run")]
    command += ["--base-url", endpoint.base_url, "--model", "m"]
    # Fixed: calls that hang on purpose would be abandoned by what is learned.
    command += ["--concurrency", str(concurrency), "--timeout", "1h"]
    errors = folder / "errors.txt"
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=HOME,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
        )
    with process:
        try:
            yield Running(process, errors)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def write_prompts(file: Path, number: int) -> Path:
    """A JSONL file of prompts with ids and metadata."""
    with file.open("w", encoding="utf-8") as stream:
        for place, (prompt_id, text) in enumerate(prompt_texts(number)):
            row = {"id": prompt_id, "prompt": text, "source": "bench", "row": place}
            stream.write(json.dumps(row) + "\n")
    return file


def _environment() -> dict[str, str]:
    """Without keys or addresses of the surroundings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "AIDSAFE_"))}
    return {**kept, "PYTHONPATH": str(HOME), "COLUMNS": "80"}


def _allow_many_connections() -> None:
    """As many open files as the system lets us have, here and in the processes started."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
