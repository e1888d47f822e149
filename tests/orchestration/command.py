"""The command line for tests, in this process or in a separate one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from orchestration.cli.app import run_cli
from tests.endpoint import Endpoint
from tests.orchestration.run_helpers import agree

HOME = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document."""
        return json.loads(self.out)


class _Stream(io.TextIOWrapper):
    """Text over bytes, as the real streams are."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8", write_through=True)

    def text(self) -> str:
        raw = self.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue().decode()


def aidsafe(*arguments: str | Path, stdin: str | bytes = b"") -> Done:
    """Runs `aidsafe` in this process; every error must become an exit code."""
    done = run_here(*arguments, stdin=stdin)
    assert "Traceback" not in done.out + done.err, done.err
    return done


def run_here(*arguments: str | Path, stdin: str | bytes = b"") -> Done:
    """Runs `aidsafe` in this process; it may print a traceback."""
    given = _Stream(stdin.encode() if isinstance(stdin, str) else stdin)
    out, err = _Stream(), _Stream()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["aidsafe", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", given),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            run_cli()
        except SystemExit as leave:
            code = int(leave.code or 0)
    return Done(code, out.text(), err.text())


def environment(**more: str) -> dict[str, str]:
    """The environment of a separate process, without keys and addresses."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPENAI_", "AIDSAFE_")) or name == "AIDSAFE_STATE_DIR"
    }
    return {**kept, "PYTHONPATH": str(HOME), "COLUMNS": "80", **more}


def start(
    *arguments: str | Path, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Starts `aidsafe` as a separate process."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestration.cli.entry", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=env or environment(),
        **options,
    )


def finish(process: subprocess.Popen[str]) -> Done:
    """Waits for a separate process."""
    out, err = process.communicate(timeout=60)
    return Done(process.returncode, out, err)


def models_file(folder: Path, endpoint: Endpoint | str, **config: Any) -> Path:
    """A models file for an endpoint, without retries."""
    url = endpoint if isinstance(endpoint, str) else endpoint.base_url
    file = folder / "models.yaml"
    settings = {"base_url": url, "model": "m", "max_retries": 0, "timeout": 20, **config}
    file.write_text(json.dumps({"models": {"default": {"endpoint": settings}}}))  # JSON is YAML
    return file


def prompts_file(folder: Path, number: int = 3) -> Path:
    """A file of that many prompts."""
    file = folder / "prompts.txt"
    file.write_text("".join(f"Prompt {n}?\n" for n in range(number)))
    return file


def make_run(folder: Path, number: int = 3) -> Path:
    """A finished run."""
    with Endpoint(reply=agree) as endpoint:
        done = aidsafe(
            "run",
            prompts_file(folder, number),
            "--out",
            folder / "run",
            "--models",
            models_file(folder, endpoint),
        )
    assert done.code == 0, done.err
    return folder / "run"
