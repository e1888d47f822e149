"""Rows out of an SQLite file, read without SQLite.

SQLite gives up at the first page that is not as it should be. Here every page is taken by itself,
so that a broken one costs what was on it. All of it follows https://sqlite.org/fileformat2.html,
whose sections are named below.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import NamedTuple, TypeAlias

Value: TypeAlias = int | float | str | bytes | None
Wants = Callable[[bool, list[int]], bool]
"""Whether rows of a table (or else of an index) with these serial types are asked for."""

MAGIC = b"SQLite format 3\0"
"""What a database begins with (1.3)."""

_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 0x0D, 0x0A, 0x02  # 1.6
_LONGEST = 1_000_000_000  # bytes of a row: SQLITE_MAX_LENGTH
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes of the serial types of integers, 2.1


# Rows are told apart by how many columns they have, and of what types: n null, i integer, t text,
# b blob; capitals may be null too. The alias of a rowid is stored as null (2.1), and tables without
# rowids as indexes (2.4).
SHAPES = {
    (True, 7): ("calls", "nibitti"),
    (True, 3): ("records", "nti"),
    (True, 11): ("prompts", "ntbiTTIitti"),
    (True, 5): ("sources", "ntTit"),
    (True, 9): ("lessons", "ntiitttti"),
    (True, 6): ("begun", "ntiiii"),
    (False, 2): ("meta", "tt"),
    (False, 6): ("spend", "ttiiii"),
}


class Row(NamedTuple):
    """What a cell of a b-tree page holds."""

    table: bool
    """Whether it is from a table; else it is from an index, or from a table without rowids."""
    rowid: int
    types: list[int]
    """The serial types of its columns."""
    values: list[Value] | None
    """None if they cannot be read."""


class Bytes:
    """A file, read piece by piece; what the disk does not give any more reads as nothing.

    Not mapped into memory: a failing disk would kill the process instead of raising an error.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._file: FileIO | None = None
        self.size = 0
        try:
            self._file = stack.enter_context(FileIO(path))
            self.size = self._file.seek(0, 2)
        except FileNotFoundError:
            pass

    def read(self, start: int, length: int) -> bytes:
        """Up to `length` bytes; fewer at the end, none where they cannot be read."""
        if self._file is None or start >= self.size:
            return b""
        try:
            self._file.seek(start)
            return self._file.read(length) or b""
        except OSError:
            return b""


class Pages:
    """The pages of a database, those in its log before those in its file.

    Args:
        file: The database.
        log_file: Its log.
        size: Bytes of a page.
        reserved: Bytes at the end of each page that hold none of its content (1.3.4).
        frames: Offsets into the log, by page number.
        count: How many pages there are at least.
    """

    def __init__(
        self,
        file: Bytes,
        log_file: Bytes,
        size: int,
        reserved: int = 0,
        frames: Mapping[int, int] | None = None,
        count: int = 0,
    ) -> None:
        self._file, self._log_file = file, log_file
        self.size = size
        self._usable = size - reserved
        self.frames = frames or {}
        self.count = max([count, -(-file.size // size), *self.frames])

    def page(self, number: int) -> bytes:
        """A page; what is missing of it is zeros."""
        if number in self.frames:
            image = self._log_file.read(self.frames[number], self.size)
        else:
            image = self._file.read((number - 1) * self.size, self.size)
        return image.ljust(self.size, b"\0")

    def free(self) -> set[int]:
        """The pages of the freelist (1.5), and those behind the database's end (1.3.7).

        Returns:
            Their numbers; none if they cannot be told.
        """
        head = self.page(1)
        if not head.startswith(MAGIC):
            return set()
        changes, pages, trunk, count = struct.unpack_from(">4I", head, 24)
        found: set[int] = set()
        while trunk:
            if not 1 < trunk <= self.count or trunk in found:
                return set()
            image = self.page(trunk)
            following, leaves = struct.unpack_from(">2I", image)
            if leaves > self._usable // 4 - 2:
                return set()
            found |= {trunk, *struct.unpack_from(f">{leaves}I", image, 8)}
            trunk = following
        if len(found) != count:
            return set()
        known = struct.unpack_from(">I", head, 92)[0] == changes
        return found | set(range(pages + 1, self.count + 1)) if known else found

    def rows(self, number: int, wants: Wants) -> Iterator[Row]:
        """The rows on a page that look as asked for; none if it is no page that holds rows."""
        image = self.page(number)
        base = 100 if number == 1 else 0  # the database's header is in front, 1.3
        kind = image[base]
        if kind not in (_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR):
            return
        interior = kind == _INDEX_INTERIOR
        first = base + (12 if interior else 8)
        cells = min(struct.unpack_from(">H", image, base + 3)[0], (self._usable - first) // 2)
        for at in struct.unpack_from(f">{cells}H", image, first):
            if first + 2 * cells <= at < self._usable:
                try:
                    row = self._cell(image, at + 4 * interior, kind == _TABLE_LEAF, wants)
                except (IndexError, struct.error):
                    continue  # no cell begins there
                if row is not None:
                    yield row

    def _cell(self, image: bytes, at: int, table: bool, wants: Wants) -> Row | None:
        """A cell (1.6), if it looks as asked for."""
        length, at = _varint(image, at)
        rowid = 0
        if table:
            rowid, at = _varint(image, at)
            rowid -= rowid >> 63 << 64  # two's complement
        here = self._local(length, table)
        if at + here > self._usable:
            return None
        types = _types(image, at, at + here)
        if types is None or not wants(table, types):
            return None
        payload = self._payload(image, at, here, length)
        values = None if payload is None else _values(payload, types)
        return Row(table, rowid, types, values)

    def _local(self, length: int, table: bool) -> int:
        """How much of a payload is on its own page (1.6: U, X, M, K)."""
        usable = self._usable
        most = usable - 35 if table else (usable - 12) * 64 // 255 - 23
        if length <= most:
            return length
        least = (usable - 12) * 32 // 255 - 23
        here = least + (length - least) % (usable - 4)
        return here if here <= most else least

    def _payload(self, image: bytes, at: int, here: int, length: int) -> bytes | None:
        """A whole payload, its overflow pages included (1.6); None if the chain breaks."""
        if length > min(_LONGEST, self.count * self.size):
            return None
        parts = [image[at : at + here]]
        left = length - here
        following = struct.unpack_from(">I", image, at + here)[0] if left else 0
        seen: set[int] = set()
        while left:
            if not 1 < following <= self.count or following in seen:
                return None
            seen.add(following)
            page = self.page(following)
            following = struct.unpack_from(">I", page)[0]
            parts.append(page[4 : min(4 + left, self._usable)])
            left -= len(parts[-1])
        return None if following else b"".join(parts)  # the last page of a chain names no other


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends (1.6)."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for place in range(at + 1, at + 8):
        byte = data[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    return value << 8 | data[at + 8], at + 9


def _types(data: bytes, start: int, end: int) -> list[int] | None:
    """The serial types in a record's header (2.1); None if that is none."""
    size, at = _varint(data, start)
    stop = start + size
    if stop > end:
        return None
    types = []
    while at < stop:
        one, at = _varint(data, at)
        types.append(one)
    return types if at == stop else None


def _values(payload: bytes, types: list[int]) -> list[Value] | None:
    """The columns of a record (2.1); None if it is none."""
    at, _ = _varint(payload, 0)
    values: list[Value] = []
    for kind in types:
        if kind >= 12:
            size = (kind - 12) // 2
            part = payload[at : at + size]
            try:
                values.append(part.decode() if kind % 2 else part)
            except UnicodeDecodeError:
                return None
        elif kind in _INTEGERS:
            size = _INTEGERS[kind]
            values.append(int.from_bytes(payload[at : at + size], "big", signed=True))
        elif kind == 7 and len(payload) >= at + 8:
            size = 8
            values.append(struct.unpack_from(">d", payload, at)[0])
        else:
            size = 0
            values.append({8: 0, 9: 1}.get(kind))
        at += size
    return values if at == len(payload) else None


def _letter(kind: int) -> str:
    """What a serial type is in `SHAPES` (2.1)."""
    if kind >= 12:
        return "t" if kind % 2 else "b"
    return "n" if kind == 0 else "i" if kind in (1, 2, 3, 4, 5, 6, 8, 9) else "?"


def wants(table: bool, types: list[int]) -> bool:
    """Whether a row with these serial types is of one of the journal's tables."""
    shape = SHAPES.get((table, len(types)))
    return shape is not None and all(
        (letter := _letter(kind)) == wanted.lower() or (letter == "n" and wanted.isupper())
        for kind, wanted in zip(types, shape[1], strict=True)
    )
