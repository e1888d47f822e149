"""What records, pairs and runs show of themselves: the same on a terminal and in a notebook.

HTML has neither scripts nor requests, and every word in it is escaped.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from agents.turns import Turn
from orchestration.chat.view import TurnTexts, clean, count, plain

# Tints and medium colours beside the notebook's own: readable on a light and on a dark page.
_STYLE = """
.aidsafe { line-height: 1.45; max-width: 62em; overflow-wrap: anywhere; }
.aidsafe > *, .aidsafe details > * { margin: .5em 0; }
.aidsafe .text { white-space: pre-wrap; unicode-bidi: plaintext; }
.aidsafe summary { cursor: pointer; }
.aidsafe details > .text { margin-left: 1.1em; }
.aidsafe .unsafe { border: 1px solid #d9534f; border-radius: .4em; padding: 0 .6em; }
.aidsafe table { color: inherit; font-size: inherit; }
.aidsafe td, .aidsafe th { text-align: left; vertical-align: top; padding: .2em .7em .2em 0;
  overflow-wrap: break-word; }
.aidsafe .bold { font-weight: bold; }
.aidsafe .italic { font-style: italic; }
.aidsafe .dim { opacity: .75; }
.aidsafe .green { color: #2c9a4f; }
.aidsafe .red { color: #dc4c46; }
.aidsafe .yellow { color: #a97f10; }
.aidsafe .cyan { color: #1a8fa3; }
.aidsafe .blue { color: #4a80dc; }
.aidsafe .magenta { color: #b556c9; }
"""
_CONSOLE = Console(file=io.StringIO(), color_system="standard", force_terminal=True)


class Section(NamedTuple):
    """A part of what is shown."""

    head: Text
    body: Text | None = None
    folded: bool = False
    """Whether a notebook hides the body until the reader opens it."""
    unsafe: str = ""
    """What is wrong with the body on purpose: then it is folded, and left out on a terminal."""
    in_text: bool = True
    """Whether it is shown on a terminal."""


class Shown:
    """Shows its sections on a terminal and in a notebook."""

    def sections(self, show_unsafe: bool = False) -> Iterator[Section]:
        """What is shown; `show_unsafe` is whether heads may quote unsafe text."""
        raise NotImplementedError

    def __str__(self) -> str:
        return as_text(self.sections()).plain

    def __rich__(self) -> Text:
        return as_text(self.sections())

    def _repr_html_(self) -> str:
        return document(*(_section_html(section) for section in self.sections()))


def as_text(sections: Iterable[Section], show_unsafe: bool = False, hint: str = "") -> Text:
    """Sections for a terminal.

    Args:
        sections: The sections.
        show_unsafe: Whether to include bodies that are unsafe.
        hint: What to say where one is left out.
    """
    lines: list[Text] = []
    for section in sections:
        if section.in_text:
            lines.append(section.head)
            if section.body is not None:
                hidden = section.unsafe and not show_unsafe
                lines.append(placeholder(section.body.plain, hint) if hidden else section.body)
    return Text("\n").join(lines)


def placeholder(text: str, hint: str) -> Text:
    """What stands in place of unsafe text."""
    return plain(f"[unsafe text, {len(text):,} characters; {hint or 'not shown'}]", style="dim")


def transcript(turns: Sequence[Turn], unsafe: str = "") -> Section:
    """All turns, for notebooks."""
    head = plain(f"Transcript: {count(len(turns), 'turn')}")
    texts = Text("\n\n").join(map(TurnTexts().text, turns))
    return Section(head, texts, folded=True, unsafe=unsafe, in_text=False)


def _section_html(section: Section) -> str:
    body = "" if section.body is None else text_html(section.body)
    if not (section.folded or section.unsafe):
        return text_html(section.head) + body
    title, *rest = section.head.split("\n")
    label = f"{section.unsafe}: {title}" if section.unsafe else title.plain
    inside = [element("summary", label), *map(text_html, rest), body]
    return group("details", inside, "unsafe" if section.unsafe else "")


def document(*parts: str) -> str:
    """HTML for one output of a notebook.

    The classes beside `aidsafe` keep MathJax from reading dollars in the text as formulas.
    """
    classes = "aidsafe tex2jax_ignore mathjax_ignore"
    return group("div", [f"<style>{_STYLE}</style>", *parts], classes)


def text_html(text: Text) -> str:
    """A text with its styles."""
    spans = []
    spanned = Text().append_text(text)  # a text's own style is not rendered, only its spans'
    for words, style, _ in spanned.render(_CONSOLE):
        names = ["bold", "italic", "dim"] if style else []
        css = [name for name in names if getattr(style, name)]
        if style and style.color:
            css.append(style.color.name.removeprefix("bright_"))
        spans.append(element("span", words, " ".join(css)))
    return group("div", spans, "text")


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    head = group("tr", (element("th", column) for column in columns))
    body = (group("tr", (element("td", cell) for cell in row)) for row in rows)
    return group("table", [head, *body])


def element(tag: str, text: str, css: str = "") -> str:
    """An element that holds a text."""
    return group(tag, [escape(clean(text))], css)


def group(tag: str, parts: Iterable[str], css: str = "") -> str:
    """An element that holds HTML."""
    return f'<{tag} class="{css}">{"".join(parts)}</{tag}>'
