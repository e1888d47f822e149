"""How the house is built: imports go one way, files stay small, modules say what they are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent
MAY_IMPORT = {
    "policies": {"policies"},
    "agents": {"policies", "agents"},
    "orchestration": {"policies", "agents", "orchestration"},
}
OURS = {*MAY_IMPORT, "tests", "notebooks"}
MAX_LINES = 500

MODULES = [path for room in MAY_IMPORT for path in sorted((HOME / room).rglob("*.py"))]
ALL = [*MODULES, *sorted((HOME / "tests").rglob("*.py"))]


def name(path: Path) -> str:
    return str(path.relative_to(HOME))


def imported(path: Path) -> Iterator[str]:
    """The top-level packages that a module imports, inside of functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: imports are absolute"
            yield (node.module or "").partition(".")[0]


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 30


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_go_one_way(path: Path) -> None:
    room = path.relative_to(HOME).parts[0]
    assert set(imported(path)) & OURS <= MAY_IMPORT[room]


@pytest.mark.parametrize("path", ALL, ids=name)
def test_files_stay_small_enough_to_hold_in_the_head(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_entry_imports_nothing_of_ours_before_it_has_looked_for_shadows() -> None:
    tree = ast.parse((HOME / "orchestration" / "entry.py").read_text(encoding="utf-8"))
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in at_once for alias in node.names}
    modules = {node.module for node in at_once if isinstance(node, ast.ImportFrom)}
    assert not {str(each).partition(".")[0] for each in names | modules} & OURS
