"""The log in memory, with every promise of `events.log` but that it outlives the process.

For tests and simulation: nothing in it depends on time, threads or chance, and `crash_copy`
gives what a new process would find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

from events.chain import check, extend, fields_of, genesis, verify_chain
from events.log import (
    Append,
    ArchivedRange,
    Clock,
    LogWriteFailed,
    Record,
    Row,
    Tip,
    VersionConflict,
)

NAME = "(in memory)"
"""What stands for the path in errors."""


class MemoryStore:
    """An `EventStore` that lives as long as the object does.

    Attributes:
        log_id: the log's own id.
    """

    def __init__(
        self, log_id: UUID, clock: Clock, *, sync: Callable[[], None] = lambda: None
    ) -> None:
        """Make an empty log.

        Args:
            log_id: the log's own id.
            clock: where the stamps come from.
            sync: is called where a disk would be synced. When it raises, the commit has failed,
                as with an OSError, or the process died in it, as with anything else.
        """
        self.log_id, self._clock, self._sync = log_id, clock, sync
        self._records: list[Record] = []
        self._streams: dict[str, list[Record]] = {}
        self._open: dict[str, None] = {}
        self._in_doubt: Sequence[Record] = ()
        self._failure: str | None = None
        self._is_closed = False

    def commit(self, appends: Sequence[Append]) -> Sequence[Sequence[Record] | VersionConflict]:
        """See `EventStore.commit`.

        Raises:
            LogWriteFailed: `sync` raised an OSError, now or before.
            ValueError: an append that could never be right; nothing was appended.
        """
        self._refuse_when_closed()
        if self._failure is not None:
            raise LogWriteFailed(NAME, self._failure)
        for append in appends:
            check(append)
        outcomes, records = extend(self.tip(), appends, self._clock(), self._ending_of)
        try:
            self._sync()
        except BaseException as error:
            self._in_doubt = records
            self._failure = str(error) or type(error).__name__
            if isinstance(error, OSError):
                self._failure = error.strerror or self._failure
                raise LogWriteFailed(NAME, self._failure) from error
            raise
        self._add(records)
        return outcomes

    def crash_copy(self, clock: Clock | None = None, *, in_doubt: bool = False) -> MemoryStore:
        """Return the log that a new process would find, if this one died now.

        Args:
            clock: the new process's clock; None for the same.
            in_doubt: whether the commit that failed or was under way reached the disk after all.
                Nobody was told that it had, and it counts from now on.
        """
        copy = MemoryStore(self.log_id, clock or self._clock)
        copy._add(self._records)
        if in_doubt:
            copy._add(self._in_doubt)
        return copy

    def archived_range(self, first: int) -> ArchivedRange | None:
        """Return None: nothing is archived from memory."""
        return None

    def archived_at(self, position: int) -> ArchivedRange | None:
        """Return None: nothing is archived from memory."""
        return None

    def is_archived(self, stream: str) -> bool:
        """Return False: nothing is archived from memory."""
        return False

    def last_position(self) -> int:
        """See `LogReader.last_position`."""
        self._refuse_when_closed()
        return len(self._records)

    def tip(self) -> Tip:
        """Return where the log ends."""
        self._refuse_when_closed()
        if not self._records:
            return Tip(0, genesis(self.log_id))
        return Tip(self._records[-1].position, self._records[-1].hash)

    def version_of(self, stream: str) -> int:
        """See `LogReader.version_of`."""
        self._refuse_when_closed()
        return len(self._streams.get(stream, ()))

    def read_stream(self, stream: str, after_version: int = 0) -> Sequence[Record]:
        """See `LogReader.read_stream`."""
        self._refuse_when_closed()
        return self._streams.get(stream, [])[after_version:]

    def read_all(self, after_position: int = 0) -> Iterator[Record]:
        """See `LogReader.read_all`."""
        self._refuse_when_closed()
        while after_position < len(self._records):
            yield self._records[after_position]
            after_position += 1

    def read_rows(self, after_position: int = 0) -> Iterator[Row]:
        """See `LogReader.read_rows`."""
        return ((*fields_of(r), r.hash) for r in self.read_all(after_position))

    def open_streams(self) -> Sequence[str]:
        """See `LogReader.open_streams`."""
        self._refuse_when_closed()
        return list(self._open)

    def streams(self, prefix: str = "") -> Sequence[str]:
        """See `LogReader.streams`."""
        self._refuse_when_closed()
        return [stream for stream in self._streams if stream.startswith(prefix)]

    def verified(self) -> Iterator[Record]:
        """Yield every record, each after it was found to be in order."""
        return verify_chain(self.read_all(), self.log_id, path=NAME, tip=self.tip())

    def close(self) -> None:
        """See `LogReader.close`."""
        self._is_closed = True

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise ValueError(f"the log {NAME} was closed")

    def _ending_of(self, stream: str) -> tuple[int, bool]:
        records = self._streams.get(stream)
        return (records[-1].version, records[-1].closes) if records else (0, False)

    def _add(self, records: Sequence[Record]) -> None:
        for record in records:
            self._records.append(record)
            self._streams.setdefault(record.stream, []).append(record)
            self._open[record.stream] = None
            if record.closes:
                del self._open[record.stream]
