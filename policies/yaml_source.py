"""Reads YAML files that people write, strictly, and reports everything wrong with them at once.

Nothing in a file is ever executed or expanded: tags, anchors, aliases and merge keys are refused
while the file is read, before there is any data. Values are then checked by a pydantic model, and
each of its errors is led back to the line it comes from.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from policies.errors import Finding, Loc, Problem, YamlError, quote
from policies.yaml_model import Check
from policies.yaml_sentences import describe_kind, explain_syntax, explain_value

MAX_BYTES = 1_000_000
"""Larger files are refused unread; a policy set has a few tens of kilobytes."""

MAX_DEPTH = 32
"""Levels of nesting; composing is recursive, and no file of ours has more than ten."""

M = TypeVar("M", bound=BaseModel)


def load_yaml(path: Path, model: type[M], *, checks: Sequence[Check] = ()) -> M:
    """Reads one YAML file into a model.

    Args:
        path: The file, UTF-8, at most `MAX_BYTES`.
        model: What it must hold.
        checks: Further checks of the raw data, besides those of a `YamlModel`.

    Raises:
        YamlError: With every problem of the file.
    """
    return parse_yaml_text(_read_text(path), str(path), model, checks)


def parse_yaml_text(text: str, name: str, model: type[M], checks: Sequence[Check] = ()) -> M:
    """Reads YAML text into a model, as `load_yaml` does with a file; problems call it `name`."""
    source = _read_plain(text, name, next(iter(model.model_fields), "key"))
    result, findings = _validate(source, model, checks)
    problems = [*source.problems, *(Problem(name, source.line_of(at), *s) for at, *s in findings)]
    if problems or result is None:
        raise YamlError(sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0))
    return result


def read_yaml_text(text: str, name: str) -> dict[str, Any]:
    """Reads YAML text into plain data, a mapping, as strictly as `load_yaml`.

    Raises:
        YamlError: With every problem of the text.
    """
    source = _read_plain(text, name, "key")
    if source.problems:
        raise YamlError(source.problems)
    found: dict[str, Any] = source.data
    return found


def _validate(
    source: _PlainYaml, model: type[M], checks: Sequence[Check]
) -> tuple[M | None, list[Finding]]:
    every_check: Iterable[Check] = (*getattr(model, "checks", ()), *checks)
    found = [finding for check in every_check for finding in check(source.data)]
    try:
        return model.model_validate(source.data), found
    except ValidationError as error:
        details = error.errors(include_url=False)
    for detail in details:
        loc = detail["loc"]
        # A validator that guards models built in Python says again, less precisely, what a check
        # has said.
        if detail["type"] == "value_error" and any(at[: len(loc)] == loc for at, _, _ in found):
            continue
        # Pydantic counts the valid items only; what is wrong with the others is said of them.
        if detail["type"] == "too_short" and any(
            len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in details
        ):
            continue
        found.append((loc, *explain_value(detail, model, source.written.get(loc))))
    return None, found


def _read_text(path: Path) -> str:
    def refused(cause: str, remedy: str, line: int | None = None) -> YamlError:
        return YamlError.at(str(path), line, cause, remedy)

    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise refused("This is a folder.", "Name one YAML file in it.")
        if not stat.S_ISREG(status.st_mode):
            raise refused("This is not a regular file.", "Save the YAML as a file.")
        if status.st_size > MAX_BYTES:
            cause = f"This file is too large: {status.st_size:,} bytes, of at most {MAX_BYTES:,}."
            raise refused(cause, "Split it, or check that it is the right file.")
        content = path.read_bytes()
    except FileNotFoundError:
        raise refused("There is no such file.", "Check the path and the spelling.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        cause = f"This file cannot be read: {reason}."
        raise refused(cause, "Check the path and its permissions.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        cause = f"This file is not UTF-8 text (byte {error.start:,} cannot be read)."
        raise refused(cause, "Save it with the encoding UTF-8.", line) from None


_CONSTRUCTORS: dict[str, Any] = {
    "null": yaml.SafeLoader.construct_yaml_null,
    "bool": yaml.SafeLoader.construct_yaml_bool,
    "int": yaml.SafeLoader.construct_yaml_int,
    "float": yaml.SafeLoader.construct_yaml_float,
    "timestamp": yaml.SafeLoader.construct_yaml_timestamp,
}


class _PlainYaml(yaml.SafeLoader):
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
            cause = f"Anchors and aliases are not read ({quote(mark + event.anchor)})."
            remedy = f"Write the content out; put text that begins with {mark} in quotes."
            raise YamlError.at(self.path, line, cause, remedy)
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


def _read_plain(text: str, path: str, first_key: str) -> _PlainYaml:
    """Reads YAML text into plain data; `first_key` is an example for a text that has no key."""
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        cause = "This is a binary file, not text (it has NUL bytes)."
        raise YamlError.at(path, line, cause, "Name a YAML file.")
    try:
        found = _PlainYaml(text, path)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        cause = f"This line has a control character (code {ord(text[error.position]):#x})."
        raise YamlError.at(path, line, cause, "Delete it, or type the line again.") from None
    try:
        root = found.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise YamlError.at(path, *explain_syntax(error, text)) from None
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
