"""What an event log promises, in words that do not depend on where it is kept.

A log is one gap-free sequence of records. Each record belongs to a *stream* (one submission of
one flow run, or the agent itself) and has a version in it, from 1. Two layers speak of it:

- `EventStore` is synchronous: it commits whole batches durably and reads. `SqliteStore` and
  `MemoryStore` implement it.
- `EventLog` is what the daemon's trio tasks use: many may append at once, and what arrives
  together is committed together (`events.group_commit`).

The promises (each has a test in `tests/unit/test_log_promises.py`):

1. *Durable*: when an append returns, a crash of the process or the host can't undo it.
2. *Atomic*: records appended together appear together or not at all.
3. *Ordered*: positions are gap-free and never reused; versions are gap-free in each stream.
4. *Optimistic*: an append names the version it builds on; if another came first it is refused.
5. *Append-only*: no record is ever changed or removed, and each carries a hash over its
   predecessor's hash and its own content, so that any later change is found and named.
6. *Fail-stop*: after one failed write nothing more is accepted. A failed fsync is never retried:
   the kernel marks the pages clean and the next fsync reports a success that did not happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol
from uuid import UUID

import attrs

ABSENT = 0
"""The expected version of a stream that does not exist yet."""


@attrs.frozen
class Stamp:
    """When something was recorded.

    Attributes:
        wall: UTC, ISO 8601 with microseconds and `+00:00`. May jump when the host's clock is set.
        monotonic_ns: nanoseconds since the host booted. Never jumps; comparable within one boot.
    """

    wall: str
    monotonic_ns: int


Clock = Callable[[], Stamp]
"""Where a store gets its stamps from; simulations pass their own."""


@attrs.frozen
class Draft:
    """An event that is encoded and ready to be appended.

    Attributes:
        type: the event's name, e.g. `PendingAccepted`.
        schema: the version of that event type's fields, from 1.
        data: the fields, a canonical JSON object.
        cause: the version, in the same stream, of the record that led to this one; None when
            the cause lies outside of the log (a poll, a signal, a start).
    """

    type: str
    schema: int
    data: str
    cause: int | None = None


@attrs.frozen
class Record:
    """A draft that has its place in the log. `hash` is described in `events.chain`."""

    position: int
    stream: str
    version: int
    type: str
    schema: int
    cause: int | None
    closes: bool
    recorded_at: str
    monotonic_ns: int
    data: str
    hash: bytes


Fields = tuple[int, str, int, str, int, int | None, bool, str, int, str]
"""A record without its hash, in the order of `Record`: what its hash covers."""

Row = tuple[int, str, int, str, int, int | None, bool, str, int, str, bytes]
"""A whole record as a tuple, for what goes through a million of them."""


@attrs.frozen
class Append:
    """One atomic addition to one stream.

    Attributes:
        stream: the stream's name.
        expected_version: the version of its last record, or `ABSENT`.
        drafts: at least one.
        closes: True when nothing will ever follow in this stream; it then leaves
            `open_streams()`, and a later append to it is refused.
    """

    stream: str
    expected_version: int
    drafts: Sequence[Draft]
    closes: bool = False


@attrs.frozen
class Tip:
    """Where a log ends: the position of its last record and that record's hash."""

    position: int
    hash: bytes


@attrs.frozen
class ArchivedRange:
    """Consecutive records that were moved from a log to an archive (or are not in this archive).

    Attributes:
        first, last: their positions.
        hash_before: of the record before them.
        hash_after: of the last of them, on which the record after them builds.
    """

    first: int
    last: int
    hash_before: bytes
    hash_after: bytes


@attrs.frozen
class LostRange(ArchivedRange):
    """Consecutive records that a salvaged copy has not: they were damaged, or gone.

    Attributes:
        reason: what became of them, for people.
    """

    reason: str


@attrs.frozen
class ArchivedStream:
    """A closed stream that was moved from a log to an archive; its name stays taken.

    Attributes:
        position: of its first record.
        version: of its last record.
        archive: the archive's name.
    """

    stream: str
    position: int
    version: int
    archive: str


@attrs.frozen
class TornStream:
    """A stream of which a salvaged copy has not every record.

    Attributes:
        version: the first that is lost, or may be.
    """

    stream: str
    version: int


class LogError(Exception):
    """Base of everything that can go wrong with a log."""


class VersionConflict(LogError):
    """Somebody else appended to the stream first (or it is closed). Nothing was appended."""

    def __init__(self, stream: str, expected: int, actual: int, *, closed: bool = False) -> None:
        self.stream, self.expected, self.actual, self.closed = stream, expected, actual, closed
        ending = " and closed" if closed else ""
        super().__init__(f"stream {stream} is at version {actual}{ending}, not at {expected}")


class LogWriteFailed(LogError):
    """A commit failed (disk full, I/O error): none of it was acknowledged.

    The next opening finds it whole or not at all; a sync that failed may have reached the disk.
    The store accepts nothing more until then: see promise 6.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(
            f"can't write to the log {path}: {reason}; nothing acts on what was not recorded, and"
            " nothing more will be recorded until the agent is started again"
        )


class LogLocked(LogError):
    """Another living agent writes to this log."""

    def __init__(self, path: Path | str, holder: str) -> None:
        self.path, self.holder = path, holder
        super().__init__(
            f"the log {path} is in use by {holder}; one agent per log: stop that one, or give this"
            " one a log of its own"
        )


class NotALog(LogError):
    """The file is not a pluperfect log, or not one this version can read."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} can't be read as a pluperfect log: {reason}")


class ForReadingOnly(NotALog):
    """The file is a copy of a log that no agent may go on with: a redacted or a salvaged one."""

    def __init__(self, path: Path | str, kind: str) -> None:
        self.path, self.kind = path, kind
        self.reason = f"it is a {kind} copy of a log, for reading only; give the agent its own"
        LogError.__init__(self, f"{path} can't be written to: {self.reason}")


class NotYetALog(NotALog):
    """The file is empty: an agent has begun to make it, or was killed before it had."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, "it is empty; an agent makes it a log when it starts")


class LogDamaged(LogError):
    """The file is a pluperfect log, but part of it is lost or was altered."""

    def __init__(self, path: Path | str, position: int | None, reason: str) -> None:
        self.path, self.position, self.reason = path, position, reason
        where = f" at position {position}" if position is not None else ""
        super().__init__(f"the log {path} is damaged{where}: {reason}")


class LogReader(Protocol):
    """Reading, which needs no lock and no write permission, also while an agent writes.

    Attributes:
        log_id: the log's own id, to which its hash chain is tied.
    """

    log_id: UUID

    def tip(self) -> Tip:
        """Return where the log ends by its own account, which is written with every commit."""
        ...

    def archived_range(self, first: int) -> ArchivedRange | None:
        """Return the archived range that begins at a position, if one does."""
        ...

    def archived_at(self, position: int) -> ArchivedRange | None:
        """Return the archived range that a position is in, if it is in one."""
        ...

    def is_archived(self, stream: str) -> bool:
        """Tell whether a stream was closed and moved to an archive. It stays closed for ever."""
        ...

    def last_position(self) -> int:
        """Return the position of the last record, 0 for an empty log."""
        ...

    def version_of(self, stream: str) -> int:
        """Return the version of a stream's last record, `ABSENT` when there is no such stream."""
        ...

    def read_stream(self, stream: str, after_version: int = 0) -> Sequence[Record]:
        """Return the records of one stream in order; empty when there is no such stream."""
        ...

    def read_all(self, after_position: int = 0) -> Iterator[Record]:
        """Yield every record after a position, in order, without holding the log in memory."""
        ...

    def read_rows(self, after_position: int = 0) -> Iterator[Row]:
        """Yield what `read_all` yields, as tuples in the order of `Record`."""
        ...

    def open_streams(self) -> Sequence[str]:
        """Return the streams that are not closed, oldest first, without reading closed ones."""
        ...

    def streams(self, prefix: str = "") -> Sequence[str]:
        """Return the names of the streams that begin with a prefix, oldest first."""
        ...

    def close(self) -> None:
        """Let go of the log. Closing twice is allowed."""
        ...


class EventStore(LogReader, Protocol):
    """A log that can be written by this process, and by no other meanwhile."""

    def commit(self, appends: Sequence[Append]) -> Sequence[Sequence[Record] | VersionConflict]:
        """Make several appends durable at once.

        Each append succeeds or conflicts by itself; the result has one item for each, in order.

        Raises:
            LogWriteFailed: none of them is acknowledged, and the store is unusable from now on.
        """
        ...


class EventLog(Protocol):
    """The log as the daemon's trio tasks see it."""

    async def append(
        self,
        stream: str,
        expected_version: int,
        drafts: Sequence[Draft],
        *,
        closes: bool = False,
    ) -> Sequence[Record]:
        """Append records to one stream; return them when they are durable.

        A cancellation that arrives meanwhile takes effect afterwards: an append is never left
        in doubt.

        Raises:
            VersionConflict: another append to this stream came first; nothing was appended.
            LogWriteFailed: nothing is acknowledged, and nothing will be.
        """
        ...

    async def read_stream(self, stream: str, after_version: int = 0) -> Sequence[Record]:
        """Return the records of one stream, off the event loop."""
        ...

    async def open_streams(self) -> Sequence[str]:
        """Return the streams that are not closed, oldest first, off the event loop."""
        ...

    async def streams(self, prefix: str = "") -> Sequence[str]:
        """Return the names of the streams with a prefix, oldest first, off the event loop."""
        ...

    async def version_of(self, stream: str) -> int:
        """Return the version of a stream's last record, off the event loop."""
        ...
