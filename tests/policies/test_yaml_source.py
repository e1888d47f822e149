"""The strict YAML reader: every problem at once, each with its line and what to do about it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policies import PolicySet, YamlError, load_yaml, parse_yaml_text
from policies.yaml_source import MAX_BYTES, MAX_DEPTH
from tests.policies.samples import YAML, bend, problems_of


def file_problem(path: Path) -> str:
    with pytest.raises(YamlError) as caught:
        load_yaml(path, PolicySet)
    assert len(caught.value.problems) == 1
    return str(caught.value)


# One mistake: where it is said to be, what is said, and what to do about it.
MISTAKES: dict[str, tuple[str, int, str, str]] = {
    "unknown key": (
        bend(("definition: Dec", "defintion: Dec")).replace(
            "defintion: Dec", "definition: D\n    defintion: D", 1
        ),
        10,
        'The key "defintion" is not known here.',
        'Did you mean "definition"?',
    ),
    "unknown key, nothing near": (
        bend(("        text: Do not forge.", "        text: x\n        zzz: y")),
        15,
        'The key "zzz" is not known here.',
        "Known here: id, text.",
    ),
    "missing key": (
        bend(("description: For tests.\n", "")),
        1,
        'The key "description" is missing.',
        'Add a line "description: ..."',
    ),
    "rule without text": (
        bend(("        text: Do not write scams.\n", "")),
        11,
        'The key "text" is missing in item 1 of "rules".',
        'Add a line "text: ..."',
    ),
    "rule with empty text": (
        bend(("text: Do not write scams.", "text:")),
        12,
        '"text" has no value.',
        "Write one after the colon",
    ),
    "blank text": (bend(("Do not forge.", '"  "')), 14, '"text" is empty.', "Write its text."),
    "version as a number": (
        bend(('version: "1.0"', "version: 1.0")),
        3,
        "must be text, but 1.0 is read as a number.",
        'Put it in quotes: "1.0".',
    ),
    "yes": (
        bend(("Do not forge.", "yes")),
        14,
        "but yes is read as a yes/no value.",
        'Put it in quotes: "yes".',
    ),
    "a date": (
        bend(("For tests.", "2024-01-01")),
        4,
        "but 2024-01-01 is read as a date.",
        'Put it in quotes: "2024-01-01".',
    ),
    "a number in a list": (
        bend(("- How scams work.", "- 7")),
        16,
        'Item 1 of "allowed" must be text, but 7 is read as a number.',
        'Put it in quotes: "7".',
    ),
    "a list for a text": (
        bend(("definition: Deceiving people.", "definition: [a, b]")),
        9,
        '"definition" must be a text, but it is a list.',
        "Write one text",
    ),
    "a text for a list": (
        bend(("    allowed:\n      - How scams work.", "    allowed: How scams work.")),
        15,
        '"allowed" must be a list, but it is text.',
        'begins with "- "',
    ),
    "a text for a mapping": (
        bend(("      - id: FD2\n        text: Do not forge.", "      - Do not forge.")),
        13,
        'Item 2 of "rules" must be a mapping, but it is text.',
        '"key: value"',
    ),
    "no rules": (
        bend(
            ("      - id: PH1\n        text: Do not injure.\n", ""),
            ("    rules:\n    allowed", "    rules: []\n    allowed"),
        ),
        29,
        '"rules" has 0 items and needs at least 1.',
        "Add what is missing.",
    ),
    "a text that is too long": (
        bend(("Do not forge.", "x" * 2001)),
        14,
        '"text" has 2001 characters, of at most 2000.',
        "Shorten it.",
    ),
    "a bad policy id": (
        bend(("  - id: fraud", "  - id: Fraud-Deception")),
        6,
        '"Fraud-Deception" is not a valid policy id.',
        "lower-case letters, digits and underscores",
    ),
    "a bad rule id": (
        bend(("- id: FD2", "- id: rule 2")),
        13,
        '"rule 2" is not a valid rule id.',
        'such as "FD1"',
    ),
    "an escaped control character": (
        bend(("Do not forge.", '"bell \\x07"')),
        14,
        "control character (code 0x7)",
        "Delete it.",
    ),
    "half a character": (
        bend(("Do not forge.", '"\\uD800"')),
        14,
        "an escape that stands for no character",
        "Remove it.",
    ),
    "duplicate key": (
        bend(("    title: Fraud\n", "    title: Fraud\n    title: Deceit\n")),
        8,
        'The key "title" stands here a second time; the first is on line 7.',
        "Keep one of them.",
    ),
    "a list as key": (YAML + "? [a]\n: b\n", 39, "A key must be text", "in quotes"),
    "a tag": (
        bend(("For tests.", "!secret x")),
        4,
        'Tags are not read ("!secret").',
        "Remove the tag",
    ),
    "a python tag": (
        bend(("For tests.", "!!python/object/apply:os.getcwd []")),
        4,
        'Tags are not read ("!!python/object/apply:os.getcwd").',
        "Remove the tag",
    ),
    "an anchor": (
        bend(("For tests.", "&a For tests.")),
        4,
        'Anchors and aliases are not read ("&a").',
        "Write the content out",
    ),
    "an alias": (bend(("For tests.", "*a")), 4, '("*a")', "Write the content out"),
    "a merge key": (
        bend(("For tests.", "x\n<<: {id: x}")),
        5,
        "Merge keys",
        "Write the content out",
    ),
    "tabs": (
        bend(("    title: Fraud", "\ttitle: Fraud")),
        7,
        "This line is indented with a tab.",
        "Use spaces",
    ),
    "an unquoted colon": (
        bend(("Do not forge.", "Do not: forge")),
        14,
        "This is not valid YAML",
        'Put text that contains ": " in quotes',
    ),
    "an open quote": (
        bend(("Do not injure.", '"Do not injure.')),
        31,
        "This is not valid YAML",
        "Close it.",
    ),
    "Markdown emphasis": (
        bend(("Do not forge.", "**Never** forge.")),
        14,
        "This is not valid YAML",
        "Put text that begins with * or & in quotes.",
    ),
    "a bad escape": (
        bend(("Do not forge.", '"C:\\dir"')),
        14,
        "unknown escape",
        "write every backslash twice",
    ),
    "an impossible escape": (
        bend(("Do not forge.", '"\\UFFFFFFFF"')),
        14,
        "escape that stands for no character",
        "Remove it.",
    ),
    "wrong indentation": (
        bend(("    definition: Deceiving", "   definition: Deceiving")),
        9,
        "This is not valid YAML",
        "in the same column",
    ),
    "two documents": (YAML + "---\nid: other\n", 39, "A second document begins here", "two files"),
    "a control character": (
        bend(("Do not forge.", "Do \x1b[2Jnot forge.")),
        14,
        "control character (code 0x1b)",
        "Delete it",
    ),
    "binary": ("id: a\n\0\0", 2, "binary file", "Name a YAML file."),
    "a list at the top": (
        "- id: a\n",
        1,
        "must be a mapping at its top, but it is a list",
        '"id: ..."',
    ),
    "text at the top": ("# so\nhello\n", 2, "but it is text", '"id: ..."'),
    "nested too deep": ("id: " + "[" * 100_000, 1, f"more than {MAX_DEPTH} levels", "flatter"),
    "nested too deep in blocks": (
        "".join(f"{' ' * level}a:\n" for level in range(100)),
        MAX_DEPTH,
        f"more than {MAX_DEPTH} levels",
        "flatter",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_with_its_line_and_a_remedy(mistake: str) -> None:
    text, line, cause, remedy = MISTAKES[mistake]

    said = [each for each in problems_of(text) if cause in each]

    assert len(said) == 1
    assert said[0].startswith(f"my.yaml:{line}: ")
    assert remedy in said[0]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "~\n"])
def test_an_empty_file_is_said_to_be_empty(text: str) -> None:
    assert problems_of(text) == [
        "my.yaml: This file is empty. Write its keys, or name another file."
    ]


def test_all_problems_of_a_file_are_reported_at_once_in_file_order() -> None:
    text = bend(
        ('version: "1.0"', "version: 1.0"),
        ("    title: Fraud\n", "    title: Fraud\n    title: Deceit\n"),
        ("        text: Do not write scams.\n", ""),
        ("Do not injure.", "!x y"),
        ("help_safely", "help_safe"),
    )

    lines = [int(each.split(":")[1]) for each in problems_of(text)]

    assert lines == [3, 8, 12, 17, 19, 31]


def test_items_that_are_wrong_are_not_called_missing_too() -> None:
    text = bend(("      - id: PH1\n        text: Do not injure.", "      - Do not injure."))

    assert len(problems_of(text)) == 1


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + YAML.replace("\n", "\r\n").encode())

    assert load_yaml(path, PolicySet) == parse_yaml_text(YAML, "x", PolicySet, ())


def test_tabs_inside_a_text_are_no_indentation() -> None:
    text = bend(("definition: Deceiving people.", "definition: |\n      a\n      \tb\n"))

    assert parse_yaml_text(text, "x", PolicySet).policies[0].definition == "a b"


@pytest.mark.parametrize("content", ["scam \ufffd", "Täuschung, 欺诈, 🙂"])
def test_any_language_is_read(content: str) -> None:
    text = bend(("Deceiving people.", content))

    assert parse_yaml_text(text, "x", PolicySet).policies[0].definition == content


def test_a_missing_file_a_folder_and_a_pipe_are_named_as_such(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)

    assert "There is no such file." in file_problem(tmp_path / "none.yaml")
    assert "This is a folder." in file_problem(tmp_path)
    assert "not a regular file" in file_problem(pipe)
    assert "cannot be read" in file_problem(tmp_path / "a\0b")


def test_a_file_that_may_not_be_read_is_named_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(YAML)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    # The permission bits do not stop a test that runs as root.
    monkeypatch.setattr(Path, "read_bytes", refuse)

    assert "cannot be read: Permission denied. Check the path" in file_problem(path)


def test_a_file_that_is_too_large_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(50_000_000)

    def fail(self: Path) -> bytes:
        raise AssertionError("was read")

    monkeypatch.setattr(Path, "read_bytes", fail)

    said = file_problem(path)
    assert "too large: 50,000,000 bytes, of at most 1,000,000." in said
    assert MAX_BYTES == 1_000_000


@pytest.mark.parametrize(
    ("content", "line"),
    [(YAML.encode("utf-16"), 1), (b"id: a\ntitle: caf\xe9\n", 2), (b"\x89PNG\r\n\x1a\n\0", 1)],
)
def test_a_file_that_is_not_utf_8_is_said_not_to_be(
    content: bytes, line: int, tmp_path: Path
) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(content)

    said = file_problem(path)

    assert said.startswith(f"{path}:{line}: This file is not UTF-8 text (byte ")
    assert "Save it with the encoding UTF-8." in said


def test_a_bomb_of_aliases_is_refused_at_its_first_anchor(tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 12):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    path.write_text("\n".join(lines))

    assert file_problem(path).startswith(f"{path}:1: Anchors and aliases are not read")


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    call = f'!!python/object/apply:os.mkdir ["{proof}"]'

    problems_of(bend(("For tests.", call)))

    assert not proof.exists()


def test_what_a_file_holds_can_neither_break_a_line_nor_flood_a_message() -> None:
    hostile = '"\\e[2J\\n' + "x" * 500 + '": 1\n'

    (said,) = problems_of(YAML + hostile)

    assert said.startswith('my.yaml:39: The key "?[2J?xxx')
    assert len(said) < 200
