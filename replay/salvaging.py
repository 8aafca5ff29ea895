"""Proves which of the remains of a log are records of it, and puts them into their order again.

A record is proven by its hash: it follows from the hash before it, and what comes after builds on
it. So the remains are first joined into *pieces*, chains of records in which each follows from the
one before; the first of a piece has nothing before it, so of that one only the hash is known. Then
the pieces are put one after the other, from the hash that the log's id gives. Where nothing fits
there is a hole, and the log goes on with the next piece that is shown to be this log's: by the end
that the log notes, by an archived range, by the agent's id in its events, or by the streams that it
goes on with. A piece of another log, which somebody may have put in, is left out.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from operator import attrgetter
from typing import Final
from uuid import UUID

import attrs
import orjson

from events.chain import genesis, link
from events.log import ArchivedRange, LostRange, Record, Tip
from events.notices import AgentStarted
from events.observations import RunOffered
from replay.remains import Remains, fields_at

_MOST_RENUMBERED: Final = 1000
_MOST_SEARCHES: Final = 200
_MOST_MOVED: Final = 1000
_SAMPLE: Final = 200

_TELLING: Final = frozenset({RunOffered.__name__, AgentStarted.__name__})
"""The events that name the log by its agent."""


@attrs.define(eq=False)
class Piece:
    """Records that follow from each other.

    Attributes:
        head: the first as it was found; only its hash is sure.
        first: the position that it belongs to.
        length: how many records there are, the head included.
        end: the hash of the last.
        agents: the agents that its events name; the head's not included.
        versions: of some of its streams, the first version in it; the head's not included.
        is_used: it was put in its place.
        is_ours: what comes after it shows that it is this log's.
    """

    head: Record
    first: int
    length: int
    end: bytes
    agents: set[str] = attrs.field(factory=set)
    versions: dict[str, int] = attrs.field(factory=dict)
    is_used: bool = False
    is_ours: bool = False

    @classmethod
    def of(cls, head: Record) -> Piece:
        """Begin a piece."""
        return cls(head, head.position, 1, head.hash)

    @property
    def last(self) -> int:
        """The position of its last record."""
        return self.first + self.length - 1

    def take(self, record: Record) -> bool:
        """Take a record that follows in the file, if it follows from the last one."""
        if link(self.end, fields_at(self.last + 1, record)) != record.hash:
            return False
        self.length, self.end = self.length + 1, record.hash
        if (agent := agent_of(record)) is not None:
            self.agents.add(agent)
        if len(self.versions) < _SAMPLE:
            self.versions.setdefault(record.stream, record.version)
        return True


def agent_of(record: Record) -> str | None:
    """Return the id of the agent that a record names; it is that of the log."""
    if record.type not in _TELLING:
        return None
    with suppress(ValueError, KeyError, TypeError):
        return str(orjson.loads(record.data)["agent_id"])
    return None


def pieces_of(remains: Remains) -> list[Piece]:
    """Join what was found into pieces, in the order in which it was found."""
    pieces: list[Piece] = []
    before: list[Piece] = []
    here: list[Piece] = []
    searches = _Renumbered()
    at = 0
    for record in remains.records(1):
        if record.position != at:
            before = here if record.position == at + 1 else []
            here, at = [], record.position
        piece = next((each for each in before if each.take(record)), None)
        if piece is None:
            piece = next((each for each in before if searches.take(each, record)), None)
        if piece is None:
            piece = Piece.of(record)
            pieces.append(piece)
        here.append(piece)
    return pieces


@attrs.define
class _Renumbered:
    """Looks for records whose positions were changed, as when one was removed before them."""

    shift: int = 0
    left: int = _MOST_SEARCHES

    def take(self, piece: Piece, record: Record) -> bool:
        if piece.length > 1:
            return False
        shifts = [self.shift] if self.shift else []
        if self.left > 0:
            self.left -= 1
            shifts += [s for n in range(1, _MOST_RENUMBERED + 1) for s in (n, -n)]
        stored = piece.first
        for shift in shifts:
            piece.first = stored + shift
            if piece.first > 0 and piece.take(record):
                self.shift, self.left = shift, self.left + 1
                return True
        piece.first = stored
        return False


Known = Callable[[str], int]
"""Tells the last version of a stream among what was put in order so far; 0 for none."""


@attrs.define
class Assembly:
    """Puts the pieces of a log into their order.

    Attributes:
        log_id: the log's id, to which its chain is tied.
        known: see `Known`.
        end: where the log has come to.
        unproven: the pieces of more than one record that nothing shows to be this log's.
        note: what is wrong with the log's own note of its end; None when nothing is.
    """

    remains: Remains
    log_id: UUID
    known: Known
    end: Tip = attrs.field(init=False)
    pieces: list[Piece] = attrs.field(init=False)
    unproven: list[Piece] = attrs.field(factory=list)
    note: str | None = None
    _at: dict[int, list[Piece]] = attrs.field(factory=dict)
    _single: list[Piece] = attrs.field(factory=list)
    _agents: set[str] = attrs.field(factory=set)

    def __attrs_post_init__(self) -> None:
        """Join the pieces, and see which are anchored at the end of the log."""
        self.end = Tip(0, genesis(self.log_id))
        self.pieces = sorted(pieces_of(self.remains), key=attrgetter("first"))
        for piece in self.pieces:
            self._at.setdefault(piece.first, []).append(piece)
        self._single = [piece for piece in self.pieces if piece.length == 1][:_MOST_MOVED]
        self._agents.add(str(self.log_id))
        later: dict[str, int] = {}
        for piece in reversed(self.pieces):
            if self._is_anchored(piece, later):
                piece.is_ours = True
                self._agents |= piece.agents
                later |= piece.versions

    def _is_anchored(self, piece: Piece, later: Mapping[str, int]) -> bool:
        if piece.end in self.remains.tips.get(piece.last, ()):
            return True
        if self.remains.range_at(piece.last + 1, piece.end) is not None:
            return True
        if piece.agents:
            return bool(piece.agents & self._agents)
        shared = [(v, later[stream]) for stream, v in piece.versions.items() if stream in later]
        return bool(shared) and all(here < there for here, there in shared)

    def run(self) -> Iterator[Record | ArchivedRange]:
        """Yield what is true of the log: records, archived ranges, and in holes lost ranges."""
        while True:
            gone = self.remains.range_at(self.end.position + 1, self.end.hash)
            if gone is not None and self._is_believed(gone):
                yield gone
                self.end = Tip(gone.last, gone.hash_after)
                continue
            joined = self._joined()
            if joined is not None:
                yield from self._walk(*joined)
                continue
            entered = self._entered()
            if entered is not None:
                yield from self._rest_of(entered, entered.head.position, entered.head.hash)
                continue
            hole = self._hole()
            if hole is None:
                break
            yield hole
            self.end = Tip(hole.last, hole.hash_after)
        last = self._lost_at_the_end()
        if last is not None:
            yield last
        self.unproven = [p for p in self.pieces if not p.is_used and p.length > 1]

    # --- pieces that join on -------------------------------------------------------------------

    def _joined(self) -> tuple[Piece, Record] | None:
        """Return the piece that goes on from the end, and its head as it was written."""
        position, before = self.end.position + 1, self.end.hash
        here = [piece for piece in self._at.get(position, ()) if not piece.is_used]
        for piece in here:
            if link(before, fields_at(position, piece.head)) == piece.head.hash:
                return piece, attrs.evolve(piece.head, position=position)
        for piece in here:
            # Its hash may be what was changed; then what comes next shows the true one.
            true = link(before, fields_at(position, piece.head))
            if piece.length == 1 and self._leads_on(position, true):
                return piece, attrs.evolve(piece.head, position=position, hash=true)
        for piece in self._single:
            if piece.is_used:
                continue
            if link(before, fields_at(position, piece.head)) == piece.head.hash:
                return piece, attrs.evolve(piece.head, position=position)
        return None

    def _leads_on(self, position: int, hash_: bytes) -> bool:
        if hash_ in self.remains.tips.get(position, ()):
            return True
        if self.remains.range_at(position + 1, hash_) is not None:
            return True
        return any(
            link(hash_, fields_at(position + 1, piece.head)) == piece.head.hash
            for piece in self._at.get(position + 1, ())
        )

    def _walk(self, piece: Piece, head: Record) -> Iterator[Record]:
        if (agent := agent_of(head)) is not None:
            self._agents.add(agent)
        self.end = Tip(head.position, head.hash)
        yield head
        yield from self._rest_of(piece, piece.head.position, head.hash)

    def _rest_of(self, piece: Piece, stored: int, previous: bytes) -> Iterator[Record]:
        """Yield what follows a piece's head, each record once more held against the hash before."""
        piece.is_used = True
        self._agents |= piece.agents
        if piece.length == 1:
            return
        position = piece.first + 1
        for record in self.remains.records(stored + 1, stored + piece.length - 1):
            if link(previous, fields_at(position, record)) != record.hash:
                continue  # Another that was found in the same place.
            previous = record.hash
            self.end = Tip(position, previous)
            yield attrs.evolve(record, position=position)
            position += 1

    # --- holes ---------------------------------------------------------------------------------

    def _hole(self) -> LostRange | None:
        """Return what is missing before the next piece or range of this log."""
        after = self.end.position + 1
        candidates = [*self._pieces_after(after), *self._ranges_after(after)]
        if not candidates:
            return None
        last, hash_after = min(candidates)
        reason = self._reason(after, last)
        return LostRange(after, last, self.end.hash, hash_after, reason)

    def _pieces_after(self, after: int) -> Iterator[tuple[int, bytes]]:
        """Yield where this log can be entered again by the next pieces."""
        found: int | None = None
        start = bisect.bisect_left(self.pieces, after, key=attrgetter("first"))
        for piece in itertools.islice(self.pieces, start, None):
            if found is not None and piece.first > found:
                return
            if piece.is_used:
                continue
            before = self._hash_before(piece)
            if before is not None and piece.first > after:
                yield piece.first - 1, before
            elif piece.length > 1 and self._is_ours(piece):
                yield piece.first, piece.head.hash
            else:
                continue
            found = piece.first

    def _hash_before(self, piece: Piece) -> bytes | None:
        """Return the hash before a piece, if the log had noted that as its end once."""
        for noted in self.remains.tips.get(piece.first - 1, ()):
            if link(noted, fields_at(piece.first, piece.head)) == piece.head.hash:
                return noted
        return None

    def _ranges_after(self, after: int) -> Iterator[tuple[int, bytes]]:
        """Yield where this log can be entered again by an archived range."""
        for gone in self.remains.ranges_from(after + 1):
            if self._leads_on(gone.last, gone.hash_after):
                yield gone.first - 1, gone.hash_before
                return

    def _entered(self) -> Piece | None:
        """Return the piece whose head stands where the log has come to, and has its hash.

        The head itself is lost, or another was found in its place that is proven.
        """
        for piece in self._at.get(self.end.position, ()):
            if not piece.is_used and piece.length > 1 and piece.head.hash == self.end.hash:
                return piece
        return None

    def _is_ours(self, piece: Piece) -> bool:
        """Tell whether anything shows that a piece after a hole is this log's."""
        if piece.is_ours or piece.agents:
            return piece.is_ours or bool(piece.agents & self._agents)
        known = {stream: self.known(stream) for stream in piece.versions}
        if any(version <= known[stream] for stream, version in piece.versions.items()):
            return False
        return any(known.values())

    def _is_believed(self, gone: ArchivedRange) -> bool:
        """Tell whether a range that begins in the right place also ends in one."""
        if self._leads_on(gone.last, gone.hash_after):
            return True
        tip = self.remains.last_tip()
        return gone.last < max(
            self.pieces[-1].first if self.pieces else 0, tip.position if tip else 0
        )

    def _lost_at_the_end(self) -> LostRange | None:
        after, tip = self.end.position + 1, self.remains.last_tip()
        if tip is not None and tip.position >= after:
            reason = self._reason(after, tip.position)
            return LostRange(after, tip.position, self.end.hash, tip.hash, reason)
        if tip is None:
            self.note = "its note of where it ends is lost, so nobody can tell whether it went on"
        elif self.end.hash not in self.remains.tips.get(self.end.position, ()):
            self.note = "its note of where it ends is not that of its last record"
        there = list(
            itertools.takewhile(lambda position: position in self._at, itertools.count(after))
        )
        if not there:
            return None
        hash_after = self._at[there[-1]][0].head.hash
        return LostRange(
            after, there[-1], self.end.hash, hash_after, self._reason(after, there[-1])
        )

    def _reason(self, first: int, last: int) -> str:
        """Say what became of the records in a hole."""
        found = list(itertools.islice(self.remains.records(first, last), _SAMPLE))
        there = len({record.position for record in found})
        missing = last - first + 1 - there
        if not there:
            return "not found on any page"
        if first == last:
            record = found[0]
            return f"{record.type}, version {record.version} of {record.stream}, was altered"
        if missing == last - first and found[-1].position == last:
            return (
                "not found on any page, but for the last, which can't be proved without the one"
                " before it"
            )
        if len(found) == _SAMPLE:
            return "altered, or from elsewhere"
        gone = f"{missing} not found on any page; " if missing else ""
        return f"{gone}{there} altered, from elsewhere, or not to be proved"
