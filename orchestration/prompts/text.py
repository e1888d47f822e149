"""Lines of text out of files as they are: compressed, in UTF-8, UTF-16 or UTF-32."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from io import BufferedIOBase, BufferedReader
from itertools import count
from typing import Protocol

from orchestration.prompts.location import RowLocation, missing_package
from policies.errors import InputError

MAX_LINE_BYTES = 16 * 2**20
"""The longest line or CSV field: a missing newline or quote must not fill the memory."""

_CHUNK = 2**16
_ZSTD_CHUNK = 2**12  # 4 kB can hold some 100 MB of zeros, all of which are decompressed at once
_ZSTD_WINDOW = 2**31  # what `zstd --long=31` needs; published dumps use it
_MARKS = (  # that of UTF-32 first: it begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "UTF-32", "utf-32-le"),
    (codecs.BOM_UTF32_BE, "UTF-32", "utf-32-be"),
    (codecs.BOM_UTF16_LE, "UTF-16", "utf-16-le"),
    (codecs.BOM_UTF16_BE, "UTF-16", "utf-16-be"),
    (codecs.BOM_UTF8, "UTF-8", ""),
)

Lines = Iterator[tuple[int, str]]
"""Numbers, from 1, and texts."""


class ByteSource(Protocol):
    """What is read of a file."""

    def read1(self, size: int, /) -> bytes:
        """Up to so many bytes, as soon as there are any; empty at the end."""


def open_stdin(stack: ExitStack) -> ByteSource:
    """Standard input, as a stream of our own.

    It may be read in a thread that still waits for a line when the program ends; Python's own
    stream cannot be taken down then.

    Raises:
        InputError: It is closed, or a terminal.
    """
    remedy = "Send prompts into it (… < prompts.jsonl), or name a file instead of -."
    if sys.stdin is None or sys.stdin.closed:
        raise InputError("Standard input is closed.", remedy)
    if sys.stdin.isatty():
        raise InputError("Standard input is a terminal, not prompts.", remedy)
    try:
        number = sys.stdin.fileno()
    except (OSError, ValueError):  # it was replaced in Python
        stream: BufferedIOBase = sys.stdin.buffer  # type: ignore[assignment]
        return stream
    try:
        return stack.enter_context(open(os.dup(number), "rb"))
    except OSError as error:
        raise InputError(f"Standard input cannot be read ({error.strerror}).", remedy) from error


def decompress(file: BufferedReader, compression: str) -> ByteSource:
    """The contents of a file with the suffix of a compression, or with none.

    Raises:
        InputError: The package for it is not installed.
    """
    if compression == ".gz":
        return gzip.GzipFile(fileobj=file)
    return _Zstandard(file) if compression == ".zst" else file


class _Zstandard:
    """Decompresses Zstandard, and notices a file that is cut off; the package's reader does not."""

    def __init__(self, file: BufferedIOBase) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise missing_package("Zstandard files", "zstandard") from error
        self._package = zstandard
        self._file = file
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._frame = self._decompressor.decompressobj()
        self._is_inside = False  # a frame has begun
        self._pending = memoryview(b"")  # decompressed, and not read yet

    def read1(self, size: int, /) -> bytes:
        while not self._pending:
            packed = self._frame.unused_data or self._file.read(_ZSTD_CHUNK)
            if self._frame.eof:
                self._frame, self._is_inside = self._decompressor.decompressobj(), False
            if not packed:
                if self._is_inside:
                    raise EOFError("compressed file ended before the end of its last frame")
                return b""
            self._is_inside = True
            try:
                self._pending = memoryview(self._frame.decompress(packed))
            except self._package.ZstdError as error:
                raise OSError(str(error)) from error
        found, self._pending = self._pending[:size], self._pending[size:]
        return bytes(found)


class _Utf8(io.RawIOBase):
    """What follows a byte order mark, in UTF-8.

    Args:
        head: The bytes that were read already.
        file: The others.
        encoding: That of all; empty for UTF-8, which is passed on unchecked.
    """

    def __init__(self, head: bytes, file: ByteSource, encoding: str) -> None:
        self._head = head
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)() if encoding else None
        self._ready = b""
        self._error: UnicodeDecodeError | None = None
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        while not self._ready and not self._ended:
            self._fill()
        taken = self._ready[: len(buffer)]
        self._ready = self._ready[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def _fill(self) -> None:
        if self._error:
            raise self._error
        raw, self._head = self._head or self._file.read1(_CHUNK), b""
        self._ended = not raw
        if self._decoder is None:
            self._ready = raw
            return
        try:
            text = self._decoder.decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            # The lines before it are good, so it is raised where its own line is read.
            self._error, self._ended = error, False
            text = error.object[: error.start].decode(error.encoding)
        self._ready = text.encode()


def read_lines(
    file: ByteSource,
    location: RowLocation,
    max_bytes: int | None = None,
    remedy: str = "Check that the file is text with one row a line.",
) -> Lines:
    """Decodes line by line: a text-mode file could not say on which line the bad byte is.

    Args:
        file: Its bytes.
        location: Where it is, for errors.
        max_bytes: The longest line; by default `MAX_LINE_BYTES`.
        remedy: What to do about a longer one.

    Raises:
        InputError: On iteration, at a line that cannot be read.
    """
    max_bytes = max_bytes or MAX_LINE_BYTES
    lines: BufferedReader | None = None
    name = "UTF-8"
    for number in count(1):
        try:
            if lines is None:
                lines, name = _open_text(file)
            raw = lines.readline(max_bytes + 1)
        except UnicodeDecodeError as error:
            what = f"the line is not {name} ({error.reason})"
            raise location.error(number, what, "Save the file as UTF-8 text.") from error
        except (OSError, EOFError, zlib.error) as error:
            what = f"cannot be read ({error})"
            raise location.error(number, what, "Check that the file is whole.") from error
        if not raw:
            return
        if len(raw) > max_bytes:
            what = f"the line is longer than {max_bytes // 2**20} MiB"
            raise location.error(number, what, remedy)
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            what = f"byte {error.start + 1} of the line is not UTF-8"
            raise location.error(number, what, "Save the file as UTF-8 text.") from error
        if "\0" in text:
            what = "the line holds a NUL byte (a binary file, or UTF-16 without a mark)"
            utf8 = "Save the file as UTF-8 text; from UTF-16: iconv -f UTF-16LE -t UTF-8."
            raise location.error(number, what, utf8)
        # Files with marks that were put together with `cat` have more of them.
        yield number, text.removeprefix("\ufeff")


def _open_text(file: ByteSource) -> tuple[BufferedReader, str]:
    """A file's text in UTF-8 without a byte order mark, and the name of its own encoding."""
    head = b""
    longest = len(_MARKS[0][0])
    # A pipe may give one byte at a time. No mark has a line end, and a short first line may be
    # all that there is for now.
    while len(head) < longest and b"\n" not in head:
        more = file.read1(longest - len(head))
        if not more:
            break
        head += more
    for mark, name, encoding in _MARKS:
        if head.startswith(mark):
            return BufferedReader(_Utf8(head[len(mark) :], file, encoding), _CHUNK), name
    return BufferedReader(_Utf8(head, file, ""), _CHUNK), "UTF-8"
