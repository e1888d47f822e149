"""How commands declare their options."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from orchestration.cli.options import REQUIRED, argument, command, option


@dataclass(frozen=True, kw_only=True)
class Shared:
    verbose: bool = option("Print more.", default=False)


@dataclass(frozen=True, kw_only=True)
class Own(Shared):
    size: int = option("Size.", "N", default=3, min=1)


def run(function: Any, *arguments: str, without: tuple[str, ...] = ()) -> Any:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(command(function, without))
    return CliRunner().invoke(app, arguments)


def recorder(found: list[Any]) -> Any:
    def show(
        shared: Shared,
        own: Own,
        name: str = argument("Name.", "NAME"),
        many_words: list[str] = option("Words.", "WORD", default=REQUIRED),
        colour: str | None = option("Colour.", choices=("red", "blue")),
    ) -> None:
        found.append((name, many_words, colour, own, shared))

    return show


def test_a_command_gets_its_own_options_and_those_of_its_groups() -> None:
    found: list[Any] = []
    given = ("x", "--many-words", "a", "--many-words", "b", "--verbose", "--colour", "red")
    done = run(recorder(found), *given)
    assert done.exit_code == 0, done.output
    own = Own(size=3, verbose=True)
    assert found == [("x", ["a", "b"], "red", own, Shared(verbose=True))]


def test_a_command_may_leave_out_fields() -> None:
    found: list[Any] = []
    given = ("x", "--many-words", "a", "--verbose")
    assert run(recorder(found), *given, without=("size",)).exit_code == 0
    assert found[0][3] == Own(size=3, verbose=True)
    assert run(recorder(found), *given, "--size", "5", without=("size",)).exit_code == 2


def test_a_parameter_of_a_command_replaces_that_of_a_group() -> None:
    found: list[Any] = []

    def show(own: Own, size: int = option("Another size.", "N", default=4, max=9)) -> None:
        found.append((own, size))

    assert run(show).exit_code == 0
    assert found == [(Own(size=4, verbose=False), 4)]
    assert "Another size." in run(show, "--help").output
    assert run(show, "--size", "10").exit_code == 2


def test_required_options_come_first_and_shared_ones_last() -> None:
    names = list(inspect.signature(command(recorder([]))).parameters)
    assert names == ["name", "many_words", "colour", "verbose", "size"]


@pytest.mark.parametrize("arguments", [["--colour", "green"], ["--size", "0"], []])
def test_invalid_values_are_wrong_usage(arguments: list[str]) -> None:
    name = ["x", "--many-words", "a"] if arguments else []
    found: list[Any] = []
    done = run(recorder(found), *name, *arguments)
    assert done.exit_code == 2
    assert not found
    if "green" in arguments:
        assert "'green' is not one of red, blue." in done.output
