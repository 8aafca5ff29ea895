"""The log in memory, with every promise but durability: for tests and simulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

import attrs

from events.chain import chained, genesis
from events.log import Append, Clock, Record, VersionConflict


@attrs.define(eq=False)
class MemoryStore:
    """An `EventStore` that lives as long as the object does."""

    log_id: UUID
    clock: Clock
    _records: list[Record] = attrs.field(factory=list)
    _streams: dict[str, list[Record]] = attrs.field(factory=dict)

    def commit(self, appends: Sequence[Append]) -> Sequence[Sequence[Record] | VersionConflict]:
        """See `EventStore.commit`; it never fails to write."""
        return [self._append(append) for append in appends]

    def _append(self, append: Append) -> Sequence[Record] | VersionConflict:
        present = self._streams.get(append.stream, [])
        closed = bool(present) and present[-1].closes
        if closed or len(present) != append.expected_version:
            return VersionConflict(
                append.stream, append.expected_version, len(present), closed=closed
            )
        previous = self._records[-1].hash if self._records else genesis(self.log_id)
        position = len(self._records) + 1
        records = list(chained(previous, position, append, self.clock()))
        self._records.extend(records)
        self._streams.setdefault(append.stream, []).extend(records)
        return records

    def last_position(self) -> int:
        """See `LogReader`."""
        return len(self._records)

    def version_of(self, stream: str) -> int:
        """See `LogReader`."""
        return len(self._streams.get(stream, []))

    def read_stream(self, stream: str, after_version: int = 0) -> Sequence[Record]:
        """See `LogReader`."""
        return self._streams.get(stream, [])[after_version:]

    def read_all(self, after_position: int = 0) -> Iterator[Record]:
        """See `LogReader`."""
        return iter(self._records[after_position:])

    def open_streams(self) -> Sequence[str]:
        """See `LogReader`."""
        return [name for name, records in self._streams.items() if not records[-1].closes]

    def streams(self, prefix: str = "") -> Sequence[str]:
        """See `LogReader`."""
        return [name for name in self._streams if name.startswith(prefix)]

    def close(self) -> None:
        """See `LogReader`; nothing is lost."""
