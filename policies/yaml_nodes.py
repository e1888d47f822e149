"""Composes YAML text into plain data with lines, and refuses whatever is not plain.

Tags, anchors, aliases and merge keys are refused at the event that names them, so nothing is ever
executed or expanded, and a text that would grow without end costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from policies.problems import Loc, Problem, quote
from policies.yaml_sentences import describe_kind, explain_syntax

MAX_DEPTH = 32
"""Levels of nesting; composing is recursive, and no file of ours has more than ten."""


class RefusedError(Exception):
    """Reading stops here: the text is not YAML, or not the plain YAML that is read."""

    def __init__(self, line: int | None, cause: str, remedy: str) -> None:
        super().__init__(line, cause, remedy)
        self.line = line
        self.cause = cause
        self.remedy = remedy

    def at(self, path: str) -> Problem:
        """Says it of a file."""
        return Problem(path, self.line, self.cause, self.remedy)


@dataclass
class Source:
    """The plain data of a text, and where each part of it stands."""

    data: Any = None
    lines: dict[Loc, int] = field(default_factory=dict)
    written: dict[Loc, str] = field(default_factory=dict)
    """Single values as the writer wrote them, where YAML took them for something but text."""
    problems: list[tuple[int, str, str]] = field(default_factory=list)
    """Found while reading: line, cause, remedy."""

    def line_of(self, loc: Loc) -> int:
        """The line of a value, or of the nearest thing around it that is in the text."""
        known: Loc = ()
        for part in loc:
            # A missing key, or the tag of a union, is not in the text.
            if (*known, part) in self.lines:
                known = (*known, part)
        return self.lines[known]


class _StrictLoader(yaml.SafeLoader):
    """Composes nodes; refuses whatever would expand, execute or nest without end."""

    def __init__(self, text: str, source: Source) -> None:
        super().__init__(text)
        self._source = source
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            mark = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise RefusedError(
                line,
                f"Anchors and aliases are not read ({quote(mark + event.anchor)}).",
                f"Write the content out; put text that begins with {mark} in quotes.",
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            cause = f"Tags are not read ({quote(shown)})."
            remedy = "Remove the tag; put text that begins with ! in quotes."
            self._source.problems.append((line, cause, remedy))
            event.tag = None
        if self._depth == MAX_DEPTH:
            raise RefusedError(
                line, f"This is nested more than {MAX_DEPTH} levels deep.", "Make it flatter."
            )
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def compose(text: str, first_key: str) -> Source:
    """Reads YAML text into plain data with lines.

    Args:
        text: The YAML.
        first_key: A key to give as an example where the text has none.

    Returns:
        Data that is a mapping at its top, and the problems that did not keep it from being read.

    Raises:
        RefusedError: If there is no mapping to be had from it.
    """
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise RefusedError(
            line, "This is a binary file, not text (it has NUL bytes).", "Name a YAML file."
        )
    source = Source()
    try:
        loader = _StrictLoader(text, source)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        cause = f"This line has a control character (code {ord(text[error.position]):#x})."
        raise RefusedError(line, cause, "Delete it, or type the line again.") from None
    except yaml.MarkedYAMLError as error:
        raise _refuse_syntax(error, text) from None
    except (ValueError, OverflowError):
        # PyYAML passes on what chr() says of an escape such as "\UFFFFFFFF".
        raise RefusedError(
            loader.line + 1, "This line has an escape that stands for no character.", "Remove it."
        ) from None
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag.endswith(":null")):
        raise RefusedError(None, "This file is empty.", "Write its keys, or name another file.")
    source.lines[()] = root.start_mark.line + 1
    source.data = _build(loader, root, (), source)
    if not isinstance(source.data, dict):
        raise RefusedError(
            source.lines[()],
            f"The file must be a mapping at its top, but it is {describe_kind(source.data)}.",
            f'Begin with lines of the form "{first_key}: ...".',
        )
    return source


def _refuse_syntax(error: yaml.MarkedYAMLError, text: str) -> RefusedError:
    mark = error.problem_mark or error.context_mark
    if "found unexpected end of stream" in (error.problem or ""):
        # A quote that is never closed: the end of the file tells its writer nothing.
        mark = error.context_mark or mark
    number = mark.line if mark else 0
    if isinstance(error, yaml.composer.ComposerError):
        return RefusedError(
            number + 1,
            'A second document begins here ("---"), and a file holds one.',
            "Remove the line, or make two files.",
        )
    lines = text.splitlines()
    here = lines[number] if number < len(lines) else ""
    if re.match(r"\s*\t", here) or "'\\t'" in (error.problem or ""):
        return RefusedError(
            number + 1, "This line is indented with a tab.", "Use spaces, in the whole file."
        )
    return RefusedError(number + 1, *explain_syntax(error))


def _build(loader: _StrictLoader, node: yaml.Node, loc: Loc, source: Source) -> Any:
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            source.lines[*loc, index] = item.start_mark.line + 1
            items.append(_build(loader, item, (*loc, index), source))
        return items
    if isinstance(node, yaml.MappingNode):
        return _build_mapping(loader, node, loc, source)
    value = _scalar(loader, node)
    if not isinstance(value, str):
        source.written[loc] = node.value
    return value


def _build_mapping(
    loader: _StrictLoader, node: yaml.MappingNode, loc: Loc, source: Source
) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            cause = "A key must be text, but this one is a list or a mapping."
            source.problems.append((line, cause, "Put the key in quotes."))
            continue
        # As written: `no: ...` is the key "no", whatever else YAML 1.1 makes of it.
        key = key_node.value
        if key_node.tag.endswith(":merge"):
            raise RefusedError(line, "Merge keys are not read (<<).", "Write the content out.")
        if key in mapping:
            first = source.lines[*loc, key]
            cause = f"The key {quote(key)} stands here a second time; the first is on line {first}."
            source.problems.append((line, cause, "Keep one of them."))
            continue
        source.lines[*loc, key] = line
        mapping[key] = _build(loader, value_node, (*loc, key), source)
    return mapping


def _scalar(loader: _StrictLoader, node: yaml.Node) -> Any:
    """A text, number, truth value, date or None; what merely looks like one of them is text."""
    constructor = _CONSTRUCTORS.get(node.tag.removeprefix("tag:yaml.org,2002:"))
    # YAML 1.1 reads 1:1:1:... as digits of base 60, at a cost that grows with their square.
    if constructor is None or len(node.value) > 100:
        return node.value
    try:
        return constructor(loader, node)
    except (ValueError, OverflowError):
        return node.value


_CONSTRUCTORS: dict[str, Callable[[_StrictLoader, Any], Any]] = {
    "null": yaml.SafeLoader.construct_yaml_null,
    "bool": yaml.SafeLoader.construct_yaml_bool,
    "int": yaml.SafeLoader.construct_yaml_int,
    "float": yaml.SafeLoader.construct_yaml_float,
    "timestamp": yaml.SafeLoader.construct_yaml_timestamp,
}
