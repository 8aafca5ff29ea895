"""What the tests of the event log share: a clock that ticks, drafts, logs that can crash, a disk
that can fail, and processes that write. Used by tests/unit/test_log_*.py and the log's properties.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import apsw

from events.log import Append, Clock, Draft, EventStore, Record, Stamp, Tip, VersionConflict
from events.memory import MemoryStore
from events.sqlite import SqliteStore
from events.sqlite_file import companions

LOG_ID = UUID("12345678-1234-4678-9234-567812345678")
REPOSITORY = Path(__file__).parents[2]


def ticking_clock() -> Clock:
    """Return a clock that goes on by one microsecond each time it is read."""
    ticks = itertools.count(1)

    def now() -> Stamp:
        tick = next(ticks)
        return Stamp(f"2026-01-02T03:04:05.{tick:06}+00:00", tick * 1000)

    return now


def drafts(count: int, after: int = 0, data: str = '{"n":1}') -> list[Draft]:
    """Return drafts that each name the record before as their cause."""
    return [Draft("Happened", 1, data, version or None) for version in range(after, after + count)]


def append(stream: str, expected: int, count: int = 1, *, closes: bool = False) -> Append:
    """Return an append of some drafts."""
    return Append(stream, expected, drafts(count, expected), closes)


class Store(EventStore, Protocol):
    """What both stores have beyond what is promised."""

    log_id: UUID

    def tip(self) -> Tip: ...

    def verified(self) -> Iterator[Record]: ...


def accepted(outcome: Sequence[Record] | VersionConflict) -> Sequence[Record]:
    """Return the records of an append that must not have conflicted."""
    assert not isinstance(outcome, VersionConflict), outcome
    return outcome


class MemoryHome:
    """A log in memory, as a process finds it."""

    def __init__(self) -> None:
        self._failing: OSError | None = None
        self.store = MemoryStore(LOG_ID, ticking_clock(), sync=self._sync)

    def _sync(self) -> None:
        if self._failing is not None:
            raise self._failing

    def fill_the_disk(self) -> None:
        self._failing = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def crash(self) -> MemoryStore:
        """Return the log that a new process finds if this one dies now."""
        return self.store.crash_copy()

    def close(self) -> None:
        self.store.close()


class SqliteHome:
    """A log in a file, as a process finds it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "log"
        self._disk = Disk()
        self.store = self._open(self.path, vfs=self._disk.name)
        self._copies: list[SqliteStore] = []

    def _open(self, path: Path, vfs: str | None = None) -> SqliteStore:
        return SqliteStore.open(path, ticking_clock(), vfs=vfs, new_id=lambda: LOG_ID)

    def fill_the_disk(self) -> None:
        def refuse(operation: str, _name: str) -> None:
            if operation == "write":
                raise apsw.exception_for(apsw.SQLITE_FULL)

        self._disk.before = refuse

    def crash(self) -> SqliteStore:
        """Return the log that a new process finds if this one dies now."""
        folder = self._folder / f"crash-{len(self._copies)}"
        copy_log(self.path, folder)
        self._copies.append(self._open(folder / "log"))
        return self._copies[-1]

    def close(self) -> None:
        for store in (self.store, *self._copies):
            store.close()
        self._disk.unregister()


def copy_log(path: Path, folder: Path, *, wal: bool = True) -> Path:
    """Copy a log to a folder of its own, without the shared memory; return its new path."""
    folder.mkdir()
    shutil.copy(path, folder)
    if wal and companions(path)[0].exists():
        shutil.copy(companions(path)[0], folder)
    return folder / path.name


# --- the disk ------------------------------------------------------------------------------


class Disk(apsw.VFS):
    """SQLite's own VFS, with a word to say before each change, which may be an error.

    Attributes:
        before: is told the operation (`write`, `sync` or `truncate`) and the file's name.
        synced: what of each file would survive a loss of power.
    """

    _numbers = itertools.count()

    def __init__(self, before: Callable[[str, str], None] | None = None) -> None:
        self.name = f"disk-{next(self._numbers)}"
        self.before: Callable[[str, str], None] = before or (lambda _operation, _name: None)
        self.synced: dict[str, bytes] = {}
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> _DiskFile:  # noqa: N802 - SQLite's name
        return _DiskFile(self, name, flags)


class _DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        full = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk, self._path = disk, Path(full)
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.before("write", self._path.name)
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.before("truncate", self._path.name)
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.before("sync", self._path.name)
        super().xSync(flags)
        self._disk.synced[self._path.name] = self._path.read_bytes()


# --- processes -----------------------------------------------------------------------------

_PRELUDE = """
import os, sys
from pathlib import Path
from events.log import *
from events.sqlite import *
from tests.unit.log_fixtures import append
path = Path(sys.argv[1])
def say(text):
    os.write(1, f"{text}\\n".encode())
"""


@contextmanager
def process(script: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run Python in another process: `path` is the log, `say(text)` writes a line to us."""
    code = _PRELUDE + textwrap.dedent(script)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def line_of(running: subprocess.Popen[str]) -> str:
    """Wait for the next line that a process says."""
    assert running.stdout is not None
    line = running.stdout.readline().strip()
    assert line, f"the process said nothing more and ended with {running.wait()}"
    return line


def eventually(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds} s: {what}"
        time.sleep(0.002)
