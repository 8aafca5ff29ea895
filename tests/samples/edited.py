"""Logs that somebody has edited: for testing that the replay tool finds what was done to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import apsw
import attrs
import orjson

from events.chain import fields_of, genesis, link
from events.log import ArchivedRange, Record, Row, Tip
from events.memory import MemoryStore
from tests.samples.make_sample import Happening, Recorder, SettableClock

LOG_ID = UUID("0b7c9a52-7c55-4c55-9d0c-4a3f4a6c7d10")


def record(*stories: Sequence[Happening], agent: bool = False) -> list[Record]:
    """Return the records of some stories, one after the other in time."""
    clock = SettableClock()
    store = MemoryStore(LOG_ID, clock)
    recorder = Recorder(store, clock)
    if agent:
        recorder.start_agent("boot 1")
    for seconds, run, observation in sorted((h for s in stories for h in s), key=lambda h: h[0]):
        clock.seconds = seconds
        recorder.observe(run.stream, observation)
    return list(store.read_all())


def rechained(records: Iterable[Record], log_id: UUID = LOG_ID) -> list[Record]:
    """Return records with hashes that fit, as a forger who knows how would leave them."""
    previous, result = genesis(log_id), []
    for each in records:
        previous = link(previous, fields_of(each))
        result.append(attrs.evolve(each, hash=previous))
    return result


def with_fields(record_: Record, **fields: Any) -> Record:
    """Return a record with other contents, still canonical."""
    data = orjson.loads(record_.data) | fields
    return attrs.evolve(record_, data=orjson.dumps(data, option=orjson.OPT_SORT_KEYS).decode())


def first(records: Iterable[Record], type_: str) -> Record:
    """Return the first record of a type."""
    return next(each for each in records if each.type == type_)


@attrs.define
class RecordsReader:
    """A `LogReader` over a list of records, whatever they are."""

    records: Sequence[Record]
    listed_as_open: Sequence[str] | None = None
    log_id: UUID = LOG_ID

    def tip(self) -> Tip:
        if not self.records:
            return Tip(0, genesis(self.log_id))
        return Tip(self.records[-1].position, self.records[-1].hash)

    def archived_range(self, first: int) -> ArchivedRange | None:
        return None

    def archived_at(self, position: int) -> ArchivedRange | None:
        return None

    def is_archived(self, stream: str) -> bool:
        return False

    def last_position(self) -> int:
        return self.records[-1].position if self.records else 0

    def version_of(self, stream: str) -> int:
        return len(self.read_stream(stream))

    def read_stream(self, stream: str, after_version: int = 0) -> Sequence[Record]:
        return [r for r in self.records if r.stream == stream and r.version > after_version]

    def read_all(self, after_position: int = 0) -> Iterator[Record]:
        return (r for r in self.records if r.position > after_position)

    def read_rows(self, after_position: int = 0) -> Iterator[Row]:
        return ((*fields_of(r), r.hash) for r in self.read_all(after_position))

    def open_streams(self) -> Sequence[str]:
        if self.listed_as_open is not None:
            return self.listed_as_open
        closed = {r.stream for r in self.records if r.closes}
        return [name for name in self.streams() if name not in closed]

    def streams(self, prefix: str = "") -> Sequence[str]:
        return [
            name
            for name in dict.fromkeys(r.stream for r in self.records)
            if name.startswith(prefix)
        ]

    def read_of_type(self, type_: str, stream: str) -> Sequence[Record]:
        return [r for r in self.read_stream(stream) if r.type == type_]

    def last_record(
        self, until: int | None = None, recorded_until: str | None = None
    ) -> Record | None:
        known = [
            r
            for r in self.records
            if (until is None or r.position <= until)
            and (recorded_until is None or r.recorded_at <= recorded_until)
        ]
        return known[-1] if known else None

    def close(self) -> None:
        pass


def rewrite(path: Path, edit: Callable[[list[Record]], Iterable[Record]], *, rechain: bool) -> None:
    """Change the records of a log file behind the store's back; no agent may have it open."""
    connection = apsw.Connection(str(path))
    log_id = UUID(str(connection.execute("SELECT value FROM meta WHERE key = 'log_id'").get))
    rows = connection.execute("SELECT * FROM records ORDER BY position").fetchall()
    after = list(edit([_record(row) for row in rows]))
    if rechain:
        after = rechained(after, log_id)
    with connection:
        connection.execute(
            "DROP TRIGGER records_are_never_changed; DROP TRIGGER records_are_never_removed;"
            "DROP TRIGGER IF EXISTS records_follow_each_other;"
            "DELETE FROM records; DELETE FROM open_streams"
        )
        marks = ",".join("?" * len(attrs.fields(Record)))
        connection.executemany(
            f"INSERT INTO records VALUES ({marks})", [attrs.astuple(each) for each in after]
        )
    connection.close()


def _record(row: Any) -> Record:
    fields = dict(zip((f.name for f in attrs.fields(Record)), row, strict=True))
    return Record(**fields | {"closes": bool(fields["closes"])})


def altered(type_: str, **fields: Any) -> Callable[[list[Record]], list[Record]]:
    """Return an edit that gives the first record of a type other contents."""

    def edit(records: list[Record]) -> list[Record]:
        target = first(records, type_)
        return [with_fields(r, **fields) if r is target else r for r in records]

    return edit
