"""A database file and its write-ahead log, read without SQLite.

SQLite passes over all that stands behind a broken frame of the log. Here every frame counts that
can be told from garbage. The sections named are those of https://sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import struct
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from orchestration.journal.pages import MAGIC, Bytes, Pages, Wants

_SIZES = (4096, 8192, 16384, 32768, 65536, 2048, 1024, 512)


@dataclass
class Log:
    """The frames of a `-wal` file that hold (4.1): where the newest image of each page is."""

    page_size: int = 0
    """0 if the log's header is broken, or there is none."""
    frames: dict[int, int] = field(default_factory=dict)
    """Offsets of page images by page number, up to the last commit."""
    before: dict[int, int] = field(default_factory=dict)
    """The same, but only up to the first broken frame: all that SQLite would use."""
    pages: int = 0
    """Pages of the database after the last commit; 0 if there is none."""
    broken: bool = False
    """Whether there are commits beyond a broken frame, which SQLite would pass over in silence."""

    @classmethod
    def read(cls, file: Bytes, otherwise: int) -> Self:
        """Reads a log.

        The checksum of a frame goes on from that of the frame before (4.2). So frames behind a
        broken one can still be told from garbage, and from those of an earlier round of the log,
        whose salts are others.

        Args:
            file: The `-wal` file.
            otherwise: The page size if its header does not say.
        """
        made = cls()
        head = file.read(0, 32)
        if len(head) < 32:
            return made
        magic, _, size, _, *salts = struct.unpack(">6I", head[:24])
        prior: tuple[int, int] | None = struct.unpack(">2I", head[24:])
        order = ">" if magic & 1 else "<"
        if magic & ~1 == 0x377F0682 and _sum(order, (0, 0), head[:24]) == prior:
            made.page_size = size
        else:  # the newest round is at the start; `before` says what there is without it
            prior, size, order = None, otherwise, "<"
            starts = range(40, 40 + 16 * (24 + size), 24 + size)
            heads = Counter(found for at in starts if len(found := file.read(at, 8)) == 8)
            salts = [*struct.unpack(">2I", heads.most_common(1)[0][0])] if heads else []
        pending: dict[int, int] = {}
        bad = False
        for at in range(32, file.size - size - 23 if size else 0, 24 + size):
            frame = file.read(at, 24 + size)
            if len(frame) < 24 + size:
                bad, prior = True, None
                continue
            number, pages, one, two, *stored = struct.unpack(">6I", frame[:24])
            holds = (
                [one, two] == salts
                and prior is not None
                and [*_sum(order, prior, frame[:8] + frame[24:])] == stored
            )
            prior = stored[0], stored[1]
            if not holds:
                if not bad:
                    made.before = dict(made.frames)
                bad = True
                continue
            pending[number] = at + 24
            if pages:
                made.frames |= pending
                made.pages = pages
                made.broken = bad
                pending = {}
        if not made.broken:
            made.before = made.frames
        return made


def _sum(order: str, start: tuple[int, int], data: bytes) -> tuple[int, int]:
    """The checksum of 4.2."""
    one, two = start
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        one = (one + even + two) & 0xFFFFFFFF
        two = (two + odd + one) & 0xFFFFFFFF
    return one, two


@dataclass
class Database:
    """A database file and its log, as far as they can be read."""

    live: Pages
    """As it is now."""
    old: Pages
    """As SQLite would see it where the log is broken; else the same."""
    free: set[int]
    """Pages that hold what was there once, or nothing."""
    log: Log
    bytes: int
    """In both files together."""

    @classmethod
    def open(cls, path: Path, wants: Wants, stack: ExitStack) -> Self:
        """Opens a file for reading; it is not changed, nor is anything put beside it.

        Args:
            path: The database; its log has `-wal` behind its name.
            wants: Rows that it may be known by if its header is broken.
            stack: Closes the files.

        Raises:
            OSError: A file may not be read.
        """
        file = Bytes(path, stack)
        log_file = Bytes(path.with_name(f"{path.name}-wal"), stack)
        head = file.read(0, 100).ljust(100, b"\0")
        size, reserved = 0, 0
        # 1.3: the magic string, the payload fractions that are fixed, and a power of two. A single
        # bit that flips makes no other power of two of one.
        if head.startswith(MAGIC) and head[21:24] == b"\x40\x20\x20":
            size = struct.unpack_from(">H", head, 16)[0]
            size = 65536 if size == 1 else size if size in _SIZES else 0
            reserved = head[20]
        log = Log.read(log_file, size or _SIZES[0])
        size = log.page_size or size or _guess(file, log_file, wants)
        live = Pages(file, log_file, size, reserved, log.frames, log.pages)
        old = Pages(file, log_file, size, reserved, log.before) if log.broken else live
        return cls(live, old, live.free(), log, file.size + log_file.size)


def _guess(file: Bytes, log_file: Bytes, wants: Wants) -> int:
    """The page size that makes most sense of samples from all over the file."""
    window = 65536
    starts = range(0, max(1, file.size), max(window, file.size // 64 // window * window))

    def made_sense_of(size: int) -> int:
        pages = Pages(file, log_file, size)
        return sum(
            row.values is not None
            for start in starts
            for number in range(start // size + 1, min((start + window) // size, pages.count) + 1)
            for row in pages.rows(number, wants)
        )

    return max(_SIZES, key=made_sense_of)
