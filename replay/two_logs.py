"""Two logs held against each other, submission by submission; `replay diff LOG_A LOG_B`.

Submissions are the same when their streams are: the flow run's id and its ordinal. Two files of
one log (a backup and the original) are told apart first by their hash chains, which say how far
they are the same without looking at anything else. Of the records, those of one submission at a
time are in memory.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Sequence

import attrs

from events.chain import genesis
from events.log import Record
from events.notices import AGENT_STREAM
from events.sqlite_reader import SqliteReader
from replay.alignment import Row, align
from replay.likeness import Own
from replay.names import name_of
from replay.player import Step, play

PLACES = 3
"""How many submissions are named for a kind of difference."""


class Relation(enum.Enum):
    """How two files are related."""

    STRANGERS = "two different logs"
    EQUAL = "the same log, record by record"
    A_IS_OLDER = "the same log, and B goes on where A ends"
    B_IS_OLDER = "the same log, and A goes on where B ends"
    FORKED = "the same log at first, but each goes on in its own way"
    PARTS = "the same log; of what one has in an archive, the other may hold all"


@attrs.frozen
class Kinship:
    """What the hash chains say.

    Attributes:
        shared: the last position up to which both are the same; 0 for strangers.
        hash: of the record there.
        ends: where each of them ends.
    """

    relation: Relation
    shared: int
    hash: bytes
    ends: tuple[int, int]


@attrs.define
class Group:
    """Submissions that differ first in the same way.

    Attributes:
        places: the first of them: stream, name, and the positions in either log.
    """

    kind: str
    count: int = 0
    places: list[tuple[str, str, int | None, int | None]] = attrs.field(factory=list)


@attrs.define
class OnlyIn:
    """Submissions that one of the logs lacks. `places`: stream and name of the first of them."""

    count: int = 0
    places: list[tuple[str, str]] = attrs.field(factory=list)

    def add(self, stream: str, records: Sequence[Record]) -> None:
        """Count one more."""
        self.count += 1
        if len(self.places) < PLACES:
            self.places.append((stream, name_of(stream, records)))


@attrs.define
class LogDifference:
    """What came out.

    Attributes:
        alike: submissions that are in both and went alike.
        elsewhere: those that one of the files lacks, for it is a part of the log.
    """

    kinship: Kinship
    alike: int = 0
    only_a: OnlyIn = attrs.field(factory=OnlyIn)
    only_b: OnlyIn = attrs.field(factory=OnlyIn)
    elsewhere: int = 0
    groups: dict[str, Group] = attrs.field(factory=dict)

    @property
    def same(self) -> bool:
        """Whether nothing differs but what is expected to."""
        kin = self.kinship.relation in (Relation.STRANGERS, Relation.EQUAL, Relation.PARTS)
        return kin and not (self.groups or self.only_a.count or self.only_b.count)


def compare_logs(a: SqliteReader, b: SqliteReader, *, everything: bool = False) -> LogDifference:
    """Hold two logs against each other.

    Args:
        everything: also what is expected to differ: ids, times, pids, names.
    """
    found = LogDifference(kinship(a, b))
    names = dict.fromkeys((*a.streams(), *b.streams()))
    names.pop(AGENT_STREAM, None)
    touched: Collection[str] = names
    if found.kinship.relation not in (Relation.STRANGERS, Relation.PARTS):
        touched = _touched(a, b, found.kinship.shared)
        found.alike = len(names) - len(touched)
    for stream in touched:
        _compare_stream(found, stream, a, b, everything=everything)
    return found


def _touched(a: SqliteReader, b: SqliteReader, shared: int) -> dict[str, None]:
    streams = {r.stream: None for reader in (a, b) for r in reader.read_all(shared)}
    streams.pop(AGENT_STREAM, None)
    return streams


def _compare_stream(
    found: LogDifference, stream: str, a: SqliteReader, b: SqliteReader, *, everything: bool
) -> None:
    left, right = a.read_stream(stream), b.read_stream(stream)
    if not left or not right:
        if _is_elsewhere(found.kinship, left or right, lacking=1 if left else 0):
            found.elsewhere += 1
        else:
            (found.only_a if left else found.only_b).add(stream, left or right)
        return
    if _contents(left) == _contents(right):
        found.alike += 1
        return
    steps = list(play(left)), list(play(right))
    own = [Own.of(each[-1].after, everything=everything) for each in steps]
    rows = align(*steps, *own)
    first = next((number for number, row in enumerate(rows) if not row.same), None)
    if first is None:
        found.alike += 1
        return
    kind, one, other = _kind(rows[first:])
    group = found.groups.setdefault(kind, Group(kind))
    group.count += 1
    if len(group.places) < PLACES:
        positions = [step.record.position if step else None for step in (one, other)]
        group.places.append((stream, name_of(stream, left), positions[0], positions[1]))


def _is_elsewhere(kin: Kinship, records: Sequence[Record], *, lacking: int) -> bool:
    """Tell whether the file that lacks a submission only keeps it somewhere else.

    A part of a log has an end like the whole, and accounts for all that came before.
    """
    if kin.relation is not Relation.PARTS:
        return False
    return not records or records[0].position <= kin.ends[lacking]


def _contents(records: Sequence[Record]) -> list[tuple[str, str]]:
    return [(record.type, record.data) for record in records]


def _kind(rows: Sequence[Row]) -> tuple[str, Step | None, Step | None]:
    """Return how the first of some rows differs, and the steps that do."""
    first = rows[0]
    if first.left is not None and first.right is not None:
        names = dict.fromkeys(
            field.path.removeprefix("$.").partition(".")[0].partition("[")[0]
            for field in first.fields
        )
        what = ", ".join(f"{first.left.record.type}.{name}" for name in names)
        return f"{what} {'differs' if len(names) == 1 else 'differ'}", first.left, first.right
    left = next((row.left for row in rows if row.left), None)
    right = next((row.right for row in rows if row.right), None)
    if left is None or right is None:
        side, step = ("A", left) if left else ("B", right)
        return f"{side} goes on, with {step.record.type if step else '?'}", left, right
    return f"{left.record.type} in A, {right.record.type} in B", left, right


# --- two files of one log ------------------------------------------------------------------


def kinship(a: SqliteReader, b: SqliteReader) -> Kinship:
    """Tell by the hash chains how two files are related, and how far they are the same."""
    ends = a.tip().position, b.tip().position
    if a.log_id != b.log_id:
        return Kinship(Relation.STRANGERS, 0, b"", ends)
    if a.archived_records() or b.archived_records():
        return _kinship_of_parts(a, b, ends)
    # A record's hash covers all records before it.
    shared, differs = 0, min(ends) + 1
    while shared + 1 < differs:
        middle = (shared + differs) // 2
        if _hash_at(a, middle) == _hash_at(b, middle):
            shared = middle
        else:
            differs = middle
    relation = Relation.FORKED
    if shared == min(ends):
        relation = Relation.EQUAL if ends[0] == ends[1] else (
            Relation.A_IS_OLDER if ends[0] < ends[1] else Relation.B_IS_OLDER
        )  # fmt: skip
    return Kinship(relation, shared, _hash_at(a, shared) or genesis(a.log_id), ends)


def _hash_at(reader: SqliteReader, position: int) -> bytes | None:
    record = next(reader.read_all(position - 1), None) if position else None
    return record.hash if record is not None and record.position == position else None


def _kinship_of_parts(a: SqliteReader, b: SqliteReader, ends: tuple[int, int]) -> Kinship:
    """Compare the hashes at every position that both hold."""
    shared, hash_ = 0, genesis(a.log_id)
    for one, other in _in_both(a.read_all(), b.read_all()):
        if one.hash != other.hash:
            return Kinship(Relation.FORKED, shared, hash_, ends)
        shared, hash_ = one.position, one.hash
    return Kinship(Relation.PARTS, shared, hash_, ends)


def _in_both(left: Iterator[Record], right: Iterator[Record]) -> Iterator[tuple[Record, Record]]:
    one, other = next(left, None), next(right, None)
    while one is not None and other is not None:
        if one.position == other.position:
            yield one, other
            one, other = next(left, None), next(right, None)
        elif one.position < other.position:
            one = next(left, None)
        else:
            other = next(right, None)
