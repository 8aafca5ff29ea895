"""`replay salvage`: says what of a log is lost and what is intact, and writes what is intact.

The log itself is only read, and nothing beside it is made or changed; it may be on a disk that
fails. `replay.remains` finds what is there, `replay.salvaging` proves it, and `replay.damage` tells
it to people.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

import attrs

from events.archive import is_archive, open_log
from events.chain import HASH_BYTES, genesis, link
from events.copying import Copy, new_log, refuse_what_is_there
from events.log import LogDamaged, LostRange, NotALog, Record, Tip, TornStream
from events.notices import AGENT_STREAM
from events.sqlite_file import APPLICATION_ID, Identity, companions
from events.sqlite_pages import Pages
from events.sqlite_reader import SqliteReader
from events.submission import Submission
from replay.player import step
from replay.remains import Place, Remains, fields_at, places, record_in
from replay.salvaging import Assembly, Piece, agent_of

KIND: Final = "salvaged"
_ENOUGH: Final = 100_000
_MOST_AGENTS: Final = 10
_NO_HASH: Final = bytes(HASH_BYTES)
_CLOSED: Final = 2**62
"""In the place of a closed stream's last version: nothing can go on with it."""


@attrs.define
class Torn:
    """A stream that has lost records, or may have.

    Attributes:
        stream: its name.
        version: the first that is lost, or may be.
        lost: versions that are known to be lost, as (first, last).
        is_likely: whether it has lost any, or nobody can tell.
        is_closed: whether nothing can follow: its last record says so, or the log's list of what
            is open.
        submission: the fold of what comes before the hole.
        before: the last record before it.
    """

    stream: str
    version: int
    lost: list[tuple[int, int]] = attrs.field(factory=list)
    is_likely: bool = True
    is_closed: bool = False
    submission: Submission = attrs.field(factory=Submission)
    before: Record | None = None


@attrs.define
class Diagnosis:
    """What is the matter with a log.

    Attributes:
        log: its path.
        intact: how many records are.
        first, last: the positions of the first and the last of them.
        archived: how many are in archives by the log's own account.
        complaint: what reading it in the usual way ended with; None for a log that is sound.
        lost: what is missing from it.
        torn: the streams that are concerned.
        unproven: how many records hang together, but nothing shows that they are this log's.
        unreadable: the pages of the file that can't be read.
        notes: what else is wrong.
        identity: what the log says of itself.
    """

    log: Path
    intact: int = 0
    first: int = 0
    last: int = 0
    archived: int = 0
    complaint: str | None = None
    lost: list[LostRange] = attrs.field(factory=list)
    torn: list[Torn] = attrs.field(factory=list)
    unproven: list[Piece] = attrs.field(factory=list)
    unreadable: Sequence[int] = ()
    notes: list[str] = attrs.field(factory=list)
    identity: Identity | None = None

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.complaint is None

    @property
    def lost_records(self) -> int:
        """How many records are lost."""
        return sum(gone.last - gone.first + 1 for gone in self.lost)


def salvage(path: Path, output: Path | None) -> Diagnosis:
    """Diagnose a log, and write what is intact of it to a path where nothing is.

    Nothing is written when the log is sound, or when nothing of it is intact.

    Args:
        path: of the log or archive; only read.
        output: of the new log; None only to diagnose.

    Raises:
        NotALog: there is no trace of a log in it.
        LogError: it can't be read at all.
        CopyFailed: the new log can't be written.
        apsw.Error, OSError: there is no room for the temporary files.
    """
    if output is not None:
        refuse_what_is_there(output)
    try:
        return _sound(path)
    except (LogDamaged, NotALog) as error:
        complaint = error
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pluperfect-")))
        file = _unpacked(path, folder / "unpacked") if is_archive(path) else path
        try:
            pages = Pages(file, companions(file)[0])
        except OSError as error:
            raise complaint from error
        stack.callback(pages.close)
        remains = Remains.of(pages, folder / "remains")
        stack.callback(remains.close)
        if remains.is_empty and pages.application_id != APPLICATION_ID:
            raise NotALog(path, complaint.reason)
        found = Diagnosis(path, complaint=complaint.reason, unreadable=remains.unreadable)
        return _Salvage(path, pages, remains, found).run(output)


def _sound(path: Path) -> Diagnosis:
    """Return what there is to say of a log that is sound.

    Raises:
        LogError: it is not.
    """
    with open_log(path) as reader:
        beyond = list(_beyond(reader))
        found = Diagnosis(path, identity=reader.identity)
        try:
            for record in reader.verified():
                found.intact += 1
                found.first, found.last = found.first or record.position, record.position
        except TypeError as error:  # nothing stands where something must
            raise LogDamaged(path, found.last + 1, "a record lacks a field") from error
        reader.check_file()
        tip = reader.tip()
        for record in beyond:
            if link(tip.hash, fields_at(tip.position + 1, record)) == record.hash:
                reason = "there is more in its write-ahead log, which SQLite does not believe in"
                raise LogDamaged(path, tip.position + 1, reason)
        found.archived = reader.archived_records()
        return found


def _beyond(reader: SqliteReader) -> Iterator[Record]:
    """Yield what is in the write-ahead log and should be after the end.

    Only what is still after the end when the log was read, later, is damage: an agent may be
    appending.
    """
    end = reader.last_position()
    with contextlib.closing(Pages(reader.path, companions(reader.path)[0])) as pages:
        for row in pages.rows_of_wal():
            if (row.rowid or 0) > end and (record := record_in(row)) is not None:
                yield record


def _unpacked(archive: Path, target: Path) -> Path:
    """Unpack as much of an archive as can be."""
    unpacking = zlib.decompressobj(wbits=31)
    with (
        archive.open("rb") as packed,
        target.open("xb") as file,
        contextlib.suppress(zlib.error),
    ):
        while part := packed.read(1 << 16):
            file.write(unpacking.decompress(part))
    return target


class _NothingIntact(Exception):
    """There is nothing to write."""


@attrs.define
class _Salvage:
    """One salvage under way."""

    path: Path
    pages: Pages
    remains: Remains
    found: Diagnosis

    def run(self, output: Path | None) -> Diagnosis:
        identity = self._identity()
        self.found.identity = identity
        if output is None:
            self._fill(identity, None)
            return self.found
        with contextlib.suppress(_NothingIntact), new_log(output, identity) as copy:
            self._fill(identity, copy)
            if not self.found.intact:
                raise _NothingIntact
        return self.found

    def _fill(self, identity: Identity, copy: Copy | None) -> None:
        found, streams = self.found, _Streams()
        assembly = Assembly(self.remains, identity.log_id, streams.last_version)
        for item in assembly.run():
            if isinstance(item, Record):
                streams.take(item)
                found.intact += 1
                found.first, found.last = found.first or item.position, item.position
                if copy is not None:
                    copy.add(item)
                continue
            if isinstance(item, LostRange):
                found.lost.append(item)
            else:
                found.archived += item.last - item.first + 1
            if copy is not None:
                copy.leave_out(item)
        if assembly.note is not None:
            found.notes.append(assembly.note)
            beyond = self._beyond(assembly.end)
            if beyond is not None:
                found.lost.append(beyond)
                if copy is not None:
                    copy.leave_out(beyond)
        found.torn = self._torn(streams, ends=assembly.note is None)
        if copy is not None:
            for stream in self.remains.archived_streams():
                copy.add_archived(stream)
            for torn in found.torn:
                copy.add_torn(TornStream(torn.stream, torn.version))
        found.unproven = assembly.unproven

    def _beyond(self, end: Tip) -> LostRange | None:
        """Ask the indexes whether the log went on; its note of where it ends is not to be had."""
        reason = "not found on any page, but an index knows of it"
        beyond = LostRange(end.position + 1, self.remains.room, end.hash, _NO_HASH, reason)
        if any(gone.last >= beyond.first for gone in self.found.lost):
            return None
        last = max((place.position for place in places(self.pages, [beyond])), default=None)
        return None if last is None else attrs.evolve(beyond, last=last)

    def _torn(self, streams: _Streams, *, ends: bool) -> list[Torn]:
        lost = self.found.lost
        known = places(self.pages, lost) if lost else iter(())
        here = (place for place in known if not self.remains.is_archived(place.stream))
        torn = {each.stream: each for each in streams.torn(lost, here, ends=ends)}
        for before in self.remains.torn_streams():
            each = torn.setdefault(before.stream, Torn(before.stream, before.version))
            each.version = min(each.version, before.version)
        for each in torn.values():
            if not each.is_closed and self.remains.was_closed(each.stream):
                each.is_closed = each.is_likely = True  # Its last record, at least, is lost.
        return sorted(torn.values(), key=lambda each: each.stream)

    def _identity(self) -> Identity:
        """Return what the copy says of itself, with the id that the first record builds on."""
        said = self.remains.identity()
        firsts = list(self.remains.records(1, 1))
        ids = [] if said is None else [said.log_id]
        ids += self._agents()
        proven = [
            each
            for each in ids
            if any(link(genesis(each), fields_at(1, first)) == first.hash for first in firsts)
        ]
        first = next(self.remains.records(1), None)
        created = said.created if said else first.recorded_at if first else ""
        log_id = next(iter((*proven, *ids)), UUID(int=0))
        if said is None or said.log_id != log_id:
            proof = "shown by its first record" if proven else "of which there is no proof"
            note = f"its description of itself is lost; its id is taken from its events, {proof}"
            self.found.notes.append(note)
        return Identity(log_id, created, KIND)

    def _agents(self) -> list[UUID]:
        """Return the agents that the events name, the most frequent first: the log has its id."""
        counts = Counter[UUID]()
        for record in itertools.islice(self.remains.records(1), _ENOUGH):
            with contextlib.suppress(ValueError, TypeError):
                if (agent := agent_of(record)) is not None:
                    counts[UUID(agent)] += 1
        return [agent for agent, _count in counts.most_common(_MOST_AGENTS)]


# --- streams -------------------------------------------------------------------------------


@attrs.define
class _Stream:
    """A stream that is not closed: what of it was put in order."""

    last: int = 0
    position: int = 0
    before: list[Record] = attrs.field(factory=list)
    torn: Torn | None = None


@attrs.define
class _Streams:
    """All the streams of a log that is being put in order; closed ones by name only."""

    _open: dict[str, _Stream] = attrs.field(factory=dict)
    _closed: set[str] = attrs.field(factory=set)
    _torn_and_closed: list[Torn] = attrs.field(factory=list)

    def last_version(self, name: str) -> int:
        """Return the last version of a stream so far; more than any for a closed one."""
        if name in self._closed:
            return _CLOSED
        stream = self._open.get(name)
        return 0 if stream is None else stream.last

    def take(self, record: Record) -> None:
        """Take the next record of the log."""
        name = record.stream
        stream = self._open.setdefault(name, _Stream())
        if record.version != stream.last + 1:
            torn = self._tear(name, stream)
            torn.lost.append((stream.last + 1, record.version - 1))
        elif stream.torn is None and name != AGENT_STREAM:
            stream.before.append(record)
        stream.last, stream.position = record.version, record.position
        if record.closes:
            self._closed.add(name)
            del self._open[name]
            if stream.torn is not None:
                stream.torn.is_closed = True
                self._torn_and_closed.append(stream.torn)

    def torn(
        self, lost: Sequence[LostRange], known: Iterable[Place], *, ends: bool
    ) -> Iterator[Torn]:
        """Yield the streams that have lost records, or may have.

        Args:
            lost: what was lost of the log.
            known: what an index knows of that.
            ends: whether the log is known to end where it does.
        """
        yield from self._torn_and_closed
        versions: dict[str, set[int]] = {}
        told: set[int] = set()
        for place in known:
            told.add(place.position)
            versions.setdefault(place.stream, set()).add(place.version or 0)
        end = lost[-1].last if lost else 0
        all_told = ends and len(told) == sum(gone.last - gone.first + 1 for gone in lost)
        for name, stream in self._open.items():
            if stream.torn is None and stream.position >= end and ends:
                continue
            torn = stream.torn or self._tear(name, stream)
            later = max(versions.pop(name, ()), default=0)
            if later > stream.last:
                torn.lost.append((stream.last + 1, later))
            torn.is_likely = bool(torn.lost) or not all_told
            yield torn
        for name, those in versions.items():
            if name not in self._closed:
                yield Torn(name, 1, lost=[(1, max(*those, 1))])

    def _tear(self, name: str, stream: _Stream) -> Torn:
        if stream.torn is None:
            torn = stream.torn = Torn(name, stream.last + 1)
            for record in stream.before:
                torn.submission = step(torn.submission, record).after
                torn.before = record
            stream.before.clear()
        return stream.torn
