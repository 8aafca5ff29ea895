"""What is done to a log behind SQLite's back is found, and named by position and kind.

Each test drops the triggers and changes the file, as somebody with a SQLite shell would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import apsw
import attrs
import pytest

from events.chain import ChainBroken, DamageKind, fields_of, first_damage, genesis, link
from events.log import LogDamaged, Record, Tip
from events.sqlite import SqliteReader, SqliteStore
from tests.unit.log_fixtures import append, ticking_clock

ALTERED, MISSING, REORDERED = DamageKind.ALTERED, DamageKind.MISSING, DamageKind.REORDERED
SPLICED, UNLAWFUL = DamageKind.SPLICED, DamageKind.UNLAWFUL

LENGTH = 12
"""Records in the log: three streams of four, the first two of them closed."""


def write(path: Path, streams: str = "abc") -> Path:
    """Make the log that is then tampered with."""
    store = SqliteStore.open(path, ticking_clock(), new_id=uuid4)
    for version in range(4):
        closes = version == 3
        store.commit([
            append(streams[0], version, closes=closes),
            append(streams[1], version, closes=closes),
            append(streams[2], version),
        ])  # fmt: skip
    store.close()
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path / "log")


def tamper(path: Path, *statements: str) -> None:
    intruder = apsw.Connection(str(path))
    triggers = intruder.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for (name,) in triggers:
        intruder.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        intruder.execute(statement)
    intruder.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    intruder.close()


def damage_in(path: Path) -> tuple[int, DamageKind]:
    reader = SqliteReader.open(path)
    try:
        with pytest.raises(ChainBroken) as caught:
            list(reader.verified())
    finally:
        reader.close()
    error = caught.value
    assert error.position == error.damage.position
    assert str(path) in str(error)
    assert f"at position {error.position}: {error.damage.kind}" in str(error)
    return error.damage.position, error.damage.kind


def test_a_log_that_nobody_touched_verifies(log: Path) -> None:
    tamper(log)

    reader = SqliteReader.open(log)
    assert len(list(reader.verified())) == LENGTH
    reader.check_file()
    reader.close()


@pytest.mark.parametrize("position", [1, 5, LENGTH])
@pytest.mark.parametrize(
    "change",
    [
        "data = replace(data, '1', '2')",
        "type = 'Other'",
        "cause = CASE cause WHEN 1 THEN NULL ELSE 1 END",
        "recorded_at = '2025' || substr(recorded_at, 5)",
        "monotonic_ns = monotonic_ns + 1",
        "schema = 2",
        "closes = 1 - closes",
        "stream = 'd'",
        "version = version + 100",
    ],
)
def test_an_altered_field_is_named(log: Path, change: str, position: int) -> None:
    if position == 1 and change.startswith("cause"):
        change = "version = 2, cause = 1, stream = 'd'"
    if position == LENGTH and change.startswith("cause"):
        change = "cause = 2"
    tamper(log, f"UPDATE records SET {change} WHERE position = {position}")

    assert damage_in(log) == (position, ALTERED)


@pytest.mark.parametrize("position", [1, 5, LENGTH])
def test_an_altered_hash_is_named(log: Path, position: int) -> None:
    tamper(log, f"UPDATE records SET hash = zeroblob(16) WHERE position = {position}")

    assert damage_in(log) == (position, ALTERED)


@pytest.mark.parametrize(
    "which", ["= 1", "= 5", "BETWEEN 4 AND 6", f"= {LENGTH}", f"> {LENGTH - 3}", "> 0"]
)
def test_a_deleted_record_is_missing_also_at_the_end(log: Path, which: str) -> None:
    tamper(log, f"DELETE FROM records WHERE position {which}")

    first = {"= 1": 1, "= 5": 5, "BETWEEN 4 AND 6": 4, "> 0": 1, f"= {LENGTH}": LENGTH}
    assert damage_in(log) == (first.get(which, LENGTH - 2), MISSING)


@pytest.mark.parametrize("position", [1, 5, LENGTH - 1])
def test_a_deleted_record_is_missing_although_the_others_were_renumbered(
    log: Path, position: int
) -> None:
    tamper(
        log,
        f"DELETE FROM records WHERE position = {position}",
        f"UPDATE records SET position = position - 1 WHERE position > {position}",
    )

    assert damage_in(log) == (position, MISSING)


@pytest.mark.parametrize(("one", "other"), [(1, 2), (4, 9), (LENGTH - 1, LENGTH)])
def test_two_records_that_changed_places_are_reordered(log: Path, one: int, other: int) -> None:
    tamper(
        log,
        f"UPDATE records SET position = 1000 WHERE position = {one}",
        f"UPDATE records SET position = {one} WHERE position = {other}",
        f"UPDATE records SET position = {other} WHERE position = 1000",
    )

    assert damage_in(log) == (one, REORDERED)


def test_a_record_that_was_moved_to_the_end_is_reordered(log: Path) -> None:
    tamper(log, "UPDATE records SET position = 1000 WHERE position = 5")

    assert damage_in(log) == (5, REORDERED)


COPY = (
    "DELETE FROM records WHERE {which}",
    "INSERT INTO records SELECT * FROM other.records WHERE {which}",
)


@pytest.mark.parametrize(
    ("which", "position"),
    [("position = 5", 5), ("position BETWEEN 5 AND 8", 5), ("position >= 5", 5), ("1", 1)],
)
def test_records_of_another_log_are_spliced(
    log: Path, tmp_path: Path, which: str, position: int
) -> None:
    other = write(tmp_path / "other", streams="xyz")
    tamper(log, f"ATTACH '{other}' AS other", *(each.format(which=which) for each in COPY))

    assert damage_in(log) == (position, SPLICED)


def test_a_log_under_the_description_of_another_is_spliced_from_the_start(
    log: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "other")
    tamper(
        log,
        f"ATTACH '{other}' AS other",
        "DELETE FROM records",
        "INSERT INTO records SELECT * FROM other.records",
        "UPDATE tip SET hash = (SELECT hash FROM other.tip)",
    )

    position, kind = damage_in(log)
    assert position == 1
    assert kind is ALTERED, "its end is noted as the other's: nothing else tells"


def test_an_altered_note_of_the_end_is_found(log: Path) -> None:
    tamper(log, "UPDATE tip SET hash = zeroblob(16)")

    assert damage_in(log) == (LENGTH, ALTERED)


def test_records_added_without_the_note_of_the_end_are_found(log: Path) -> None:
    hash_ = f"(SELECT hash FROM records WHERE position = {LENGTH - 1})"
    tamper(log, f"UPDATE tip SET position = {LENGTH - 1}, hash = {hash_}")
    reader = SqliteReader.open(log)

    with pytest.raises(LogDamaged, match=f"position {LENGTH}: the log notes its end"):
        list(reader.verified())
    reader.close()


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM open_streams", "INSERT INTO open_streams VALUES (1, 'a')"],
)
def test_a_wrong_table_of_open_streams_is_found_when_the_file_is_checked(
    log: Path, statement: str
) -> None:
    tamper(log, statement)
    reader = SqliteReader.open(log)

    assert len(list(reader.verified())) == LENGTH
    with pytest.raises(LogDamaged, match="open streams"):
        reader.check_file()
    reader.close()


def test_every_flipped_byte_of_a_record_is_found(log: Path) -> None:
    """Each byte of each page that holds records, by itself."""
    good = log.read_bytes()
    missed: list[int] = []
    for offset in record_bytes(good):
        log.write_bytes(good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :])
        if not is_refused(log):
            missed.append(offset)

    assert missed == []


def record_bytes(content: bytes) -> Iterator[int]:
    """Yield the offsets of some bytes of record contents: those of every `Happened`."""
    start = content.find(b"Happened")
    while start >= 0:
        yield from range(start - 3, start + 60, 3)
        start = content.find(b"Happened", start + 1)


def is_refused(path: Path) -> bool:
    try:
        reader = SqliteReader.open(path)
        try:
            list(reader.verified())
            reader.check_file()
        finally:
            reader.close()
    except LogDamaged:
        return True
    return False


# --- what only a broken writer would do: the chain is whole, the rules are not ----------------


def chained(*records: Record) -> list[Record]:
    log_id, result = LOG, []
    previous = genesis(log_id)
    for position, record in enumerate(records, 1):
        placed = attrs.evolve(record, position=position)
        previous = link(previous, fields_of(placed))
        result.append(attrs.evolve(placed, hash=previous))
    return result


LOG = uuid4()


def record(stream: str, version: int, *, closes: bool = False, cause: int | None = None) -> Record:
    return Record(0, stream, version, "Happened", 1, cause, closes, "2026", 0, "{}", b"")


@pytest.mark.parametrize(
    "second",
    [
        record("a", 3),
        record("a", 1),
        record("b", 2),
        record("a", 2, cause=2),
        record("a", 2, cause=0),
    ],
)
def test_a_record_against_the_rules_is_unlawful_although_its_hash_is_right(second: Record) -> None:
    damage = first_damage(chained(record("a", 1), second), LOG)

    assert damage is not None
    assert (damage.position, damage.kind) == (2, UNLAWFUL)


@pytest.mark.parametrize("version", [1, 2])
def test_a_record_after_the_closing_one_is_unlawful(version: int) -> None:
    records = chained(record("a", 1, closes=True), record("b", 1), record("a", version))

    damage = first_damage(records, LOG)

    assert damage is not None
    assert (damage.position, damage.kind) == (3, UNLAWFUL)


def test_a_repeated_record_of_an_export_is_reordered() -> None:
    records = chained(record("a", 1), record("a", 2))

    damage = first_damage([records[0], records[0], records[1]], LOG)

    assert damage is not None
    assert (damage.position, damage.kind) == (2, REORDERED)


def test_an_empty_log_that_should_have_records_misses_them() -> None:
    damage = first_damage([], LOG, tip=Tip(3, bytes(16)))

    assert damage is not None
    assert (damage.position, damage.kind) == (1, MISSING)


def test_every_mutation_of_a_list_of_records_is_found() -> None:
    """Whatever is dropped, doubled, swapped or reversed in a log of five."""
    good = chained(*(record("a", version) for version in range(1, 6)))
    tip = Tip(5, good[-1].hash)
    mutations: list[Callable[[list[Record], int], list[Record]]] = [
        lambda r, i: r[:i] + r[i + 1 :],
        lambda r, i: r[: i + 1] + r[i:],
        lambda r, i: [*r[: i - 1], r[i], r[i - 1], *r[i + 1 :]] if i else r[::-1],
        lambda r, i: r[:i],
    ]
    assert first_damage(good, LOG, tip=tip) is None

    for mutate in mutations:
        for index in range(5):
            assert first_damage(mutate(good, index), LOG, tip=tip) is not None
