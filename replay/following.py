"""Follows a log that is being written: waits for it, reads what is new, minds what becomes of it.

`replay tail -f` is the caller. All waiting is polling: an agent on another host, or in a container
that shares nothing but the folder, notifies nobody.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs

from events.log import LogError, LogLocked, NotYetALog, Record, Tip
from events.sqlite_reader import SqliteReader

PAUSE_SECONDS: Final = 0.2
"""From an append to its line at most. Looking costs some 60 µs: a thousandth of a core at most."""

Tell = Callable[[str], None]
"""Tells the person at the terminal something about the log itself."""

FileIdentity = tuple[int, int]
"""The device and the inode of a file, which no other has as long as it is there."""


def wait_for_log(where: Callable[[], Path], tell: Tell) -> bool:
    """Wait until there is a log; whatever else is wrong with it is for the opening to say.

    Args:
        where: asked each time, for a state directory that is made later holds the log.

    Returns:
        False when nobody reads our output any more.
    """
    told = False
    while not _is_there(where()):
        if not told:
            tell(f"there is no log at {where()} yet; waiting for it")
            told = True
        if not pause():
            return False
    return True


def _is_there(path: Path) -> bool:
    if not os.path.exists(path):  # Path.exists raises where it may not look.
        return False
    try:
        SqliteReader.open(path).close()
    except NotYetALog:
        return False
    except LogError:
        return True
    return True


def pause(seconds: float = PAUSE_SECONDS) -> bool:
    """Wait; return False, at once, when nobody reads our output any more (`| head`)."""
    hangup = select.poll()
    hangup.register(sys.stdout.fileno(), 0)
    return not any(what & select.POLLERR for _fd, what in hangup.poll(seconds * 1000))


@attrs.define
class FollowedLog:
    """A log at a path, whatever file is there: another that takes its place is followed instead.

    Attributes:
        path: as it was given; `reader.path` is where that led when it was opened.
        reader: of the log that is followed now.
        file: what was at the path before it was opened (`file_at`).
        read: up to where its records were yielded.
        tell: is told when the log is gone, or another one.
        restarted: is told the reader when records no longer follow those before.
    """

    path: Path
    reader: SqliteReader
    file: FileIdentity | None
    read: Tip
    tell: Tell
    restarted: Callable[[SqliteReader], None]
    _gone: bool = False
    _opened: SqliteReader | None = None

    def news(self) -> Iterator[Record]:
        """Yield what was appended since the last time, perhaps nothing."""
        if not self._is_file_there():
            return
        try:
            tip = self.reader.tip()
        except (LogLocked, NotYetALog):
            return  # Somebody needs it alone, or makes it anew: the next look is soon enough.
        if tip == self.read:
            return
        if not self._goes_on(tip):
            self.tell(
                f"{self.path} was put back: it ends at position {tip.position}, and was read up to"
                f" {self.read.position}; following it from its end"
            )
            self._start_on(self.reader, tip)
        for record in self.reader.read_all(self.read.position):
            if record.position > self.read.position + 1:
                self.tell(
                    f"positions {self.read.position + 1} to {record.position - 1} were moved to an"
                    " archive before they were read"
                )
            self.read = Tip(record.position, record.hash)
            yield record

    def close(self) -> None:
        """Let go of a log that was opened meanwhile."""
        if self._opened is not None:
            self._opened.close()

    def _goes_on(self, tip: Tip) -> bool:
        """Tell whether the log that ends so holds what was read of it."""
        return tip.position > self.read.position or tip == self.read

    def _is_file_there(self) -> bool:
        """Tell whether there is a log at the path; another than before is taken over."""
        file = file_at(self.path)
        if file == self.file:
            return True
        if file is None:
            if not self._gone:
                self._gone = True
                self.tell(f"{self.path} is gone; waiting for it to come back")
            return False
        try:
            reader = SqliteReader.open(self.path)
        except NotYetALog:
            return False  # An agent is making it.
        self._gone, self.file = False, file
        self._take_over(reader)
        return True

    def _take_over(self, reader: SqliteReader) -> None:
        before = self.reader.log_id
        self.close()
        self._opened = self.reader = reader
        if reader.log_id != before:
            self.tell(f"another log took the place of {self.path}; following it from its beginning")
            self._start_on(reader, Tip(0, b""))
        elif not self._holds_what_was_read():
            tip = reader.tip()
            self.tell(
                f"another copy of the log took the place of {self.path}: it ends at position"
                f" {tip.position}; following it from there"
            )
            self._start_on(reader, tip)

    def _holds_what_was_read(self) -> bool:
        # The last record that was read may have been compacted away; then the end has to do.
        last = next(iter(self.reader.read_all(self.read.position - 1)), None)
        if last is None or last.position != self.read.position:
            return self.reader.tip().position > self.read.position
        return last.hash == self.read.hash

    def _start_on(self, reader: SqliteReader, read: Tip) -> None:
        self.read = read
        self.restarted(reader)


def file_at(path: Path) -> FileIdentity | None:
    """Return which file is at a path now; None when there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
