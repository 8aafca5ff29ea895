"""Reads the rows out of a damaged SQLite file, page by page, whatever leads to the pages.

SQLite finds a row by way of other pages; where one of those is damaged, all that lies behind it is
out of reach. This looks at every page there is, of the file and of its write-ahead log, and yields
the rows of those that can be read, current or not. Whether a row is what was written is for the
caller to prove. `replay salvage` is the caller. The format: https://sqlite.org/fileformat2.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

Value = int | float | str | bytes | None

MAGIC: Final = b"SQLite format 3\x00"
_FILE_HEADER: Final = 100
_WAL_MAGIC: Final = (0x377F0682, 0x377F0683)
_WAL_HEADER: Final = 32
_FRAME_HEADER: Final = 24
_USUAL_PAGE_SIZE: Final = 4096

_INDEX_INTERIOR, _INDEX_LEAF, _TABLE_LEAF = 0x02, 0x0A, 0x0D
_HEADER_BYTES: Final = {_INDEX_INTERIOR: 12, _INDEX_LEAF: 8, _TABLE_LEAF: 8}
"""What holds rows. The inner pages of a table hold none."""

_INTEGER_BYTES: Final = (0, 1, 2, 3, 4, 6, 8)


@attrs.frozen
class Row:
    """One row of a table or entry of an index.

    Attributes:
        rowid: None for an entry of an index, and for a table without row ids.
        page: the number of its page.
    """

    rowid: int | None
    values: tuple[Value, ...]
    page: int


class _Unreadable(Exception):
    """A cell is not what it should be."""


class Pages:
    """All pages of a database file and its write-ahead log; close it after use.

    Attributes:
        size: of a page, in bytes.
        unreadable: the numbers of the file's pages that are empty where none should be, are of no
            kind that there is, or can't be read from the disk.
    """

    def __init__(self, path: Path, wal: Path) -> None:
        """Open the files, only to read.

        Raises:
            OSError: the database file can't be opened. The write-ahead log need not be there.
        """
        self._file = os.open(path, os.O_RDONLY)
        try:
            self._wal: int | None = os.open(wal, os.O_RDONLY)
        except OSError:
            self._wal = None
        self.header = _read(self._file, 0, _FILE_HEADER)
        self.size = self._page_size()
        self._usable = self.size - self._reserved()
        self.count = -(-os.fstat(self._file).st_size // self.size)
        self._frames = self._index_frames()
        self.unreadable: list[int] = []

    @property
    def application_id(self) -> int:
        """Whose file it says it is; 0 if nobody's, or if it is no SQLite file."""
        return int.from_bytes(self.header[68:72]) if self.header.startswith(MAGIC) else 0

    @property
    def largest(self) -> int:
        """The size of the file in bytes, or what it was by its own account if that is more."""
        noted = int.from_bytes(self.header[28:32]) if self.header.startswith(MAGIC) else 0
        return max(noted, self.count + len(self._frames)) * self.size

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        if self._wal is not None:
            os.close(self._wal)

    def entries(self) -> Iterator[Row]:
        """Yield every entry of an index that can be read, and every row without a row id."""
        for number in range(1, self.count + 1):
            content = self._page(number)
            if content[:1] in (b"\x02", b"\x0a"):
                yield from self._rows(number, content, None)
        for index, number in enumerate(self._frames):
            content = self._frame(index) if number else b""
            if content[:1] in (b"\x02", b"\x0a"):
                yield from self._rows(number, content, index)

    def rows(self) -> Iterator[Row]:
        """Yield every row that can be read, in the order of pages; some of them several times.

        What is in the write-ahead log comes last; SQLite need not believe in it.
        """
        self.unreadable.clear()
        for number in range(1, self.count + 1):
            content = self._page(number)
            if not self._is_page(number, content):
                self.unreadable.append(number)
                continue
            yield from self._rows(number, content, None)
        yield from self.rows_of_wal()

    def rows_of_wal(self) -> Iterator[Row]:
        """Yield every row of the write-ahead log that can be read and was committed."""
        for index, number in enumerate(self._frames):
            if number:
                yield from self._rows(number, self._frame(index), index)

    def _page_size(self) -> int:
        size = int.from_bytes(self.header[16:18])
        size = 65536 if size == 1 else size
        if self.header.startswith(MAGIC) and _is_page_size(size):
            return size
        if self._wal is not None:
            header = _read(self._wal, 0, _WAL_HEADER)
            size = int.from_bytes(header[8:12])
            if int.from_bytes(header[:4]) in _WAL_MAGIC and _is_page_size(size):
                return size
        return _USUAL_PAGE_SIZE

    def _reserved(self) -> int:
        return self.header[20] if self.header.startswith(MAGIC) and self.header[20] < 33 else 0

    def _index_frames(self) -> list[int]:
        """Return the page number of each frame of the write-ahead log, believed in or not.

        What was not committed when the writer was killed is left out: 0 in its place. It begins
        after the last frame that ends a commit of the log's present round.
        """
        if self._wal is None:
            return []
        count = max(os.fstat(self._wal).st_size - _WAL_HEADER, 0) // (_FRAME_HEADER + self.size)
        headers = [_read(self._wal, self._frame_at(i), _FRAME_HEADER) for i in range(count)]
        round_ = _read(self._wal, 0, _WAL_HEADER)[16:24]
        of_this_round = [header[8:16] == round_ for header in headers]
        committed = max(
            (i for i in range(count) if of_this_round[i] and any(headers[i][4:8])), default=-1
        )
        return [
            0 if of_this_round[i] and i > committed else int.from_bytes(headers[i][:4])
            for i in range(count)
        ]

    def _frame_at(self, index: int) -> int:
        return _WAL_HEADER + index * (_FRAME_HEADER + self.size)

    def _page(self, number: int) -> bytes:
        return _read(self._file, (number - 1) * self.size, self.size)

    def _frame(self, index: int) -> bytes:
        if self._wal is None:
            return b""
        return _read(self._wal, self._frame_at(index) + _FRAME_HEADER, self.size)

    def _is_page(self, number: int, content: bytes) -> bool:
        if number == 1:
            return content.startswith(MAGIC) and len(content) == self.size
        # The inner pages of a table; a page that continues a long row, or a free one, begins with
        # the number of another page.
        kind = content[0] if content else 0xFF
        known = kind in _HEADER_BYTES or kind == 0x05
        another = int.from_bytes(content[:4]) <= max(self.count, *self._frames, 0)
        return len(content) == self.size and (known or another) and any(content)

    # --- cells ------------------------------------------------------------------------------

    def _rows(self, number: int, page: bytes, frame: int | None) -> Iterator[Row]:
        start = _FILE_HEADER if number == 1 else 0
        if len(page) != self.size or page[start] not in _HEADER_BYTES:
            return
        kind = page[start]
        count = int.from_bytes(page[start + 3 : start + 5])
        first = start + _HEADER_BYTES[kind]
        seen: tuple[Value, ...] | None = None
        for pointer in range(first, min(first + 2 * count, self.size - 1), 2):
            cell = int.from_bytes(page[pointer : pointer + 2])
            # A long row goes on in other pages: as they are where this page was found, or else
            # in the other file.
            for source in (frame, None if frame is not None else len(self._frames)):
                try:
                    rowid, values, whole = self._cell(kind, page, cell, source)
                except (_Unreadable, IndexError, UnicodeDecodeError):
                    continue
                if values != seen:
                    yield Row(rowid, values, number)
                seen = values
                if whole:
                    break

    def _cell(
        self, kind: int, page: bytes, at: int, frame: int | None
    ) -> tuple[int | None, tuple[Value, ...], bool]:
        """Return a cell's row id and values, and whether all of it is in its own page."""
        if kind == _INDEX_INTERIOR:
            at += 4
        length, at = _varint(page, at)
        rowid = None
        if kind == _TABLE_LEAF:
            unsigned, at = _varint(page, at)
            rowid = unsigned - (1 << 64) if unsigned >> 63 else unsigned
        local = self._local(kind, length)
        payload = page[at : at + local]
        if len(payload) != local:
            raise _Unreadable
        if local < length:
            overflow = int.from_bytes(page[at + local : at + local + 4])
            payload += self._overflow(overflow, length - local, frame)
        return rowid, _values(payload), local == length

    def _local(self, kind: int, length: int) -> int:
        """Return how much of a row is in its own page."""
        usable = self._usable
        most = usable - 35 if kind == _TABLE_LEAF else (usable - 12) * 64 // 255 - 23
        if length <= most:
            return length
        least = (usable - 12) * 32 // 255 - 23
        kept = least + (length - least) % (usable - 4)
        return kept if kept <= most else least

    def _overflow(self, number: int, length: int, frame: int | None) -> bytes:
        if length > (self.count + len(self._frames)) * self.size:
            raise _Unreadable
        parts: list[bytes] = []
        while length > 0:
            page = self._page_as_of(number, frame)
            part = page[4 : min(self._usable, 4 + length)]
            if not part:
                raise _Unreadable
            parts.append(part)
            length -= len(part)
            number = int.from_bytes(page[:4])
        return b"".join(parts)

    def _page_as_of(self, number: int, frame: int | None) -> bytes:
        """Return a page as it was when a frame was written; None: as it is in the file."""
        if frame is not None:
            for index in range(min(frame, len(self._frames) - 1), -1, -1):
                if self._frames[index] == number:
                    return self._frame(index)
        if not 1 <= number <= self.count:
            raise _Unreadable
        return self._page(number)


def _is_page_size(size: int) -> bool:
    return 512 <= size <= 65536 and size & (size - 1) == 0


def _read(file: int, offset: int, length: int) -> bytes:
    """Return what is there; nothing where the disk can't read it."""
    try:
        return os.pread(file, length, offset)
    except OSError:
        return b""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and where it ends."""
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9


def _values(payload: bytes) -> tuple[Value, ...]:
    """Return the values of a row."""
    header, at = _varint(payload, 0)
    if not at <= header <= len(payload):
        raise _Unreadable
    values: list[Value] = []
    body = header
    while at < header:
        serial, at = _varint(payload, at)
        value, body = _value(payload, serial, body)
        values.append(value)
    if at != header or body != len(payload):
        raise _Unreadable
    return tuple(values)


def _value(payload: bytes, serial: int, at: int) -> tuple[Value, int]:
    if serial >= 12:
        end = at + (serial - 12) // 2
        content = payload[at:end]
        if end > len(payload):
            raise _Unreadable
        return (content.decode() if serial % 2 else content), end
    match serial:
        case 0:
            return None, at
        case 8 | 9:
            return serial - 8, at
        case 1 | 2 | 3 | 4 | 5 | 6:
            end = at + _INTEGER_BYTES[serial]
            return int.from_bytes(payload[at:end], signed=True), end
        case _:
            raise _Unreadable  # A floating-point number: a log has none.
