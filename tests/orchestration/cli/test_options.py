"""How commands declare their options."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, dataclass
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from orchestration.cli.options import argument, command, option


@dataclass(frozen=True, kw_only=True)
class Shared:
    verbose: bool = option("Print more.", default=False)


@dataclass(frozen=True, kw_only=True)
class Own(Shared):
    size: int = option("Size.", "N", default=3, min=1)
    name: str = argument("Name.", "NAME")
    many_words: list[str] = option("Words.", "WORD", default=MISSING)
    colour: str | None = option("Colour.", choices=("red", "blue"))


def run(function: Any, *arguments: str, without: tuple[str, ...] = ()) -> Any:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(command(function, without))
    return CliRunner().invoke(app, arguments)


def test_a_command_gets_its_own_and_its_shared_options() -> None:
    found: list[Own] = []

    def show(options: Own) -> None:
        found.append(options)

    done = run(show, "x", "--many-words", "a", "--many-words", "b", "--verbose", "--colour", "red")
    assert done.exit_code == 0, done.output
    assert found == [Own(name="x", many_words=["a", "b"], verbose=True, colour="red")]


def test_a_command_may_leave_out_fields() -> None:
    found: list[Own] = []

    def show(options: Own) -> None:
        found.append(options)

    given = ("x", "--many-words", "a", "--verbose")
    assert run(show, *given, without=("size",)).exit_code == 0
    assert found == [Own(name="x", many_words=["a"], verbose=True)]
    assert run(show, *given, "--size", "5", without=("size",)).exit_code == 2


def test_required_options_come_first_and_shared_ones_last() -> None:
    def show(options: Own) -> None:
        pass

    names = list(inspect.signature(command(show)).parameters)
    assert names == ["name", "many_words", "size", "colour", "verbose"]


@pytest.mark.parametrize("arguments", [["--colour", "green"], ["--size", "0"], []])
def test_invalid_values_are_wrong_usage(arguments: list[str]) -> None:
    def show(options: Own) -> None:
        raise AssertionError

    name = ["x", "--many-words", "a"] if arguments else []
    done = run(show, *name, *arguments)
    assert done.exit_code == 2
    if "green" in arguments:
        assert "'green' is not one of red, blue." in done.output
