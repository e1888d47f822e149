"""The table of measurements: its rows, as text for a terminal or as Markdown for a README."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

HEAD = ("", "aidsafe", "stock AutoGen", "target", "")
_VERDICTS = {None: "", True: "met", False: "MISSED"}
_PACKAGES = ("aidsafe", "autogen-agentchat", "openai", "aiohttp", "pydantic")


class BenchError(Exception):
    """A measurement that could not be taken; its target counts as missed."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    stock: str = ""
    target: str = ""
    met: bool | None = None
    """None where there is no target, or none is judged."""

    @property
    def cells(self) -> tuple[str, ...]:
        """The line's cells, as many as the head has."""
        return (self.what, self.ours, self.stock, self.target, _VERDICTS[self.met])


def as_text(rows: Sequence[Row]) -> str:
    """The table for a terminal, below the line on the machine."""
    lines = [HEAD, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    text = [machine()]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        text.append("  ".join(padded).rstrip())
    return "\n".join(text)


def as_markdown(rows: Sequence[Row]) -> str:
    """The table for a README, below the line on the machine."""
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells for row in rows)]
    table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([f"On {machine()}:", "", *table])


def machine() -> str:
    """What the numbers were measured on and with."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [n for n in info.read_text().splitlines() if n.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{cpu}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}; "
        f"Python {platform.python_version()}, {packages}"
    )
