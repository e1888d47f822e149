"""Reads YAML text into plain data with line numbers, and refuses whatever is not plain.

Tags, anchors, aliases and merge keys are refused at the event that names them, so nothing is ever
executed or expanded, and a text that would grow without end costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from policies.problems import Loc, Problem, YamlError, quote
from policies.yaml_sentences import describe_kind, explain_syntax

MAX_DEPTH = 32
"""Levels of nesting; composing is recursive, and no file of ours has more than ten."""

_CONSTRUCTORS: dict[str, Any] = {
    "null": yaml.SafeLoader.construct_yaml_null,
    "bool": yaml.SafeLoader.construct_yaml_bool,
    "int": yaml.SafeLoader.construct_yaml_int,
    "float": yaml.SafeLoader.construct_yaml_float,
    "timestamp": yaml.SafeLoader.construct_yaml_timestamp,
}


class PlainYaml(yaml.SafeLoader):
    """A YAML text as plain data; refuses whatever would expand, execute or nest without end.

    Args:
        text: The YAML.
        path: What to call it in problems.
    """

    data: Any
    """A mapping at its top."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(text)
        self.path = path
        self.lines: dict[Loc, int] = {}
        """Where each value is."""
        self.written: dict[Loc, str] = {}
        """Single values as they are written, where YAML reads them as something but text."""
        self.problems: list[Problem] = []
        """Those that did not keep the text from being read."""
        self._depth = 0

    def line_of(self, loc: Loc) -> int:
        """The line of a value, or of the nearest thing around it that is in the text."""
        known: Loc = ()
        for part in loc:
            # A missing key, or the tag of a union, is not in the text.
            if (*known, part) in self.lines:
                known = (*known, part)
        return self.lines[known]

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """See PyYAML."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            mark = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise YamlError.at(
                self.path,
                line,
                f"Anchors and aliases are not read ({quote(mark + event.anchor)}).",
                f"Write the content out; put text that begins with {mark} in quotes.",
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            cause = f"Tags are not read ({quote(tag.replace('tag:yaml.org,2002:', '!!'))})."
            self._report(line, cause, "Remove the tag; put text that begins with ! in quotes.")
            event.tag = None
        if self._depth == MAX_DEPTH:
            cause = f"This is nested more than {MAX_DEPTH} levels deep."
            raise YamlError.at(self.path, line, cause, "Make it flatter.")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def build(self, node: yaml.Node, loc: Loc = ()) -> Any:
        """The data of a node."""
        self.lines.setdefault(loc, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*loc, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return {key: self.build(value, (*loc, key)) for key, value in self._items(node, loc)}
        value = self._scalar(node)
        if not isinstance(value, str):
            self.written[loc] = node.value
        return value

    def _items(self, node: yaml.MappingNode, loc: Loc) -> Iterator[tuple[str, yaml.Node]]:
        for key_node, value in node.value:
            line = key_node.start_mark.line + 1
            # As written: `no: ...` is the key "no", whatever else YAML 1.1 makes of it.
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                cause = "A key must be text, but this one is a list or a mapping."
                self._report(line, cause, "Put the key in quotes.")
            elif key_node.tag.endswith(":merge"):
                cause = "Merge keys are not read (<<)."
                raise YamlError.at(self.path, line, cause, "Write the content out.")
            elif first := self.lines.get((*loc, key)):
                cause = f"The key {quote(key)} stands here a second time; the first is on line "
                self._report(line, f"{cause}{first}.", "Keep one of them.")
            else:
                self.lines[*loc, key] = line
                yield key, value

    def _scalar(self, node: yaml.Node) -> Any:
        """A text, number, truth value, date or None; what merely looks like one of them is text."""
        constructor = _CONSTRUCTORS.get(node.tag.removeprefix("tag:yaml.org,2002:"))
        # YAML 1.1 reads 1:1:1:... as digits of base 60, at a cost that grows with their square.
        if constructor is None or len(node.value) > 100:
            return node.value
        try:
            return constructor(self, node)
        except (ValueError, OverflowError):
            return node.value

    def _report(self, line: int, cause: str, remedy: str) -> None:
        self.problems.append(Problem(self.path, line, cause, remedy))


def read_plain(text: str, path: str, first_key: str) -> PlainYaml:
    """Reads YAML text into plain data with lines, or raises a `YamlError`.

    Args:
        text: The YAML.
        path: What to call it in problems.
        first_key: A key to give as an example where the text has none.
    """
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        cause = "This is a binary file, not text (it has NUL bytes)."
        raise YamlError.at(path, line, cause, "Name a YAML file.")
    try:
        found = PlainYaml(text, path)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        cause = f"This line has a control character (code {ord(text[error.position]):#x})."
        raise YamlError.at(path, line, cause, "Delete it, or type the line again.") from None
    try:
        root = found.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise YamlError.at(path, *_explain_syntax(error, text)) from None
    except (ValueError, OverflowError):
        # PyYAML passes on what chr() says of an escape such as "\UFFFFFFFF".
        cause = "This line has an escape that stands for no character."
        raise YamlError.at(path, found.line + 1, cause, "Remove it.") from None
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag.endswith(":null")):
        remedy = "Write its keys, or name another file."
        raise YamlError.at(path, None, "This file is empty.", remedy)
    found.data = found.build(root)
    if not isinstance(found.data, dict):
        cause = f"The file must be a mapping at its top, but it is {describe_kind(found.data)}."
        remedy = f'Begin with lines of the form "{first_key}: ...".'
        raise YamlError.at(path, found.lines[()], cause, remedy)
    return found


def _explain_syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str, str]:
    """Line, cause and remedy."""
    mark = error.problem_mark or error.context_mark
    if "found unexpected end of stream" in (error.problem or ""):
        # A quote that is never closed: the end of the file tells its writer nothing.
        mark = error.context_mark or mark
    number = mark.line if mark else 0
    if isinstance(error, yaml.composer.ComposerError):
        cause = 'A second document begins here ("---"), and a file holds one.'
        return number + 1, cause, "Remove the line, or make two files."
    here = [*text.splitlines(), ""][number]
    if re.match(r"\s*\t", here) or "'\\t'" in (error.problem or ""):
        return number + 1, "This line is indented with a tab.", "Use spaces, in the whole file."
    return number + 1, *explain_syntax(error)
