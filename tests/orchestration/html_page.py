"""HTML as a reader sees it: what is shown, and what is folded."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """What a browser makes of HTML: its tags, and its text outside and inside of folds."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.shown = self.hidden = ""
        self._open: list[str] = []
        self.feed(html)
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        folds = self._open.count("details")
        if "style" in self._open:
            assert "url(" not in data
            assert "@import" not in data
        elif folds == 0 or (folds == 1 and "summary" in self._open):
            self.shown += data
        else:
            self.hidden += data
