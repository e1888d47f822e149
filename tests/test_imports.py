"""How the code is structured: imports go one way, files stay small, modules have docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent
ROOMS = ("policies", "agents", "orchestration")
"""Each may import those before it."""
LAYERS: dict[str, tuple[set[str], ...]] = {
    "agents": (
        {"words", "models", "personas", "prompts", "kinds"},
        {"replies", "prompt_texts"},
        {"parsing", "persona"},
        {"turns"},
        {"layout"},
        {"policy_agent"},
        {"deliberation", "pairs"},
        {"__init__"},
    ),
    "orchestration": (
        {"chat", "journal", "prompts"},
        {"runs"},
        {"deliberation"},
        {"pairs"},
        {"kinds"},
        {"api"},
        {"__init__", "cli"},
    ),
}
"""Folders, and files beside them, from the bottom up: each may import the layers below its own."""
MAX_LINES = 500
MAX_ROOT_FILES = 2
"""Modules at the root of `orchestration/`, beside its `__init__.py`."""

MODULES = [path for room in ROOMS for path in sorted((HOME / room).rglob("*.py"))]
EVERY_FILE = [*MODULES, *sorted((HOME / "tests").rglob("*.py"))]


def relative(path: Path) -> str:
    return str(path.relative_to(HOME))


@cache
def module_name(path: Path) -> str:
    return ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__")


NAMES = {module_name(path) for path in MODULES}


@cache
def imported(path: Path, for_types: bool = True) -> frozenset[str]:
    """The modules that a module imports, inside of functions too.

    Args:
        path: The module.
        for_types: Whether imports that only type checkers see count.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ignored: set[ast.AST] = set()
    for node in ast.walk(tree) if not for_types else ():
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            ignored |= set(ast.walk(node))

    def found() -> Iterator[str]:
        for node in set(ast.walk(tree)) - ignored:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{relative(path)}:{node.lineno}: imports are absolute"
                module = node.module or ""
                for alias in node.names:
                    full = f"{module}.{alias.name}"
                    yield full if full in NAMES else module

    return frozenset(found())


def layer_of(room: str, unit: str) -> int:
    for number, layer in enumerate(LAYERS[room]):
        if unit in layer:
            return number
    raise AssertionError(f"{room}/{unit} is in no layer of tests/test_imports.py")


def unit_of(name: str) -> tuple[str, str]:
    """Room and folder (or file beside the folders) of a module."""
    room, _, rest = name.partition(".")
    return room, rest.partition(".")[0] or "__init__"


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 30


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_rooms_import_one_way(path: Path) -> None:
    allowed = ROOMS[: ROOMS.index(path.relative_to(HOME).parts[0]) + 1]
    forbidden = {*ROOMS, "tests", "notebooks"} - set(allowed)
    assert not {name.partition(".")[0] for name in imported(path)} & forbidden


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_folders_of_a_room_import_one_way(path: Path) -> None:
    room, unit = unit_of(module_name(path))
    if room not in LAYERS:
        return
    own = layer_of(room, unit)
    for name in imported(path):
        other_room, other = unit_of(name)
        if other_room == room and other != unit and name in NAMES:
            assert layer_of(room, other) < own, f"{relative(path)} imports {name}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module_name(path): imported(path, for_types=False) & NAMES for path in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports form a cycle: {' → '.join(error.args[1])}")


def test_the_root_of_orchestration_holds_few_files() -> None:
    files = [path for path in (HOME / "orchestration").glob("*.py") if path.stem != "__init__"]
    assert len(files) <= MAX_ROOT_FILES


def test_only_the_journal_knows_sqlite() -> None:
    users = {relative(path) for path in MODULES if "sqlite3" in imported(path)}
    assert users
    assert all(name.startswith("orchestration/journal/") for name in users)


@pytest.mark.parametrize("path", EVERY_FILE, ids=relative)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_entry_imports_nothing_of_ours_before_it_has_looked_for_shadowing_packages() -> None:
    entry = HOME / "orchestration" / "cli" / "entry.py"
    tree = ast.parse(entry.read_text(encoding="utf-8"))
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in at_once for alias in node.names}
    modules = {str(node.module) for node in at_once if isinstance(node, ast.ImportFrom)}
    assert not {each.partition(".")[0] for each in names | modules} & {*ROOMS, "tests"}
    for package in ("orchestration", "orchestration.cli"):
        path = HOME.joinpath(*package.split("."), "__init__.py")
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert not any(
            isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in ROOMS
            for node in body
        )
