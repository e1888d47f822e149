"""What the commands around YAML files share: policies, personas and recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from orchestration.commands.output import err, out
from orchestration.view import clean
from policies import ExitCode, YamlError


def check_files(files: Iterable[Path], check: Callable[[Path], str]) -> None:
    """Checks files, says what is good on standard output and every problem on standard error.

    Args:
        files: The files, checked one by one.
        check: Reads one of them, raises `YamlError` if it has problems, and gives a few words on
            what it found.

    Raises:
        typer.Exit: There were problems.
    """
    bad = False
    for file in files:
        try:
            found = check(file)
        except YamlError as error:
            bad = True
            for problem in error.problems:
                err().print(clean(str(problem)), soft_wrap=True)
            continue
        out().print(clean(f"{file}: good, {found}"), soft_wrap=True)
    if bad:
        raise typer.Exit(ExitCode.INPUT)
