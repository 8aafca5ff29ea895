"""Whatever is done to a log file: what salvage returns is true, complete, and verifies.

Each test damages a real file, salvages it, and holds the outcome against the log as it was.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import shutil
from contextlib import closing
from pathlib import Path
from uuid import UUID

import apsw
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.archive import compact, open_log
from events.copying import CopyFailed
from events.log import Append, Draft, ForReadingOnly, NotALog, Record
from events.observations import Observation, RunOffered
from events.sqlite import SqliteReader, SqliteStore
from events.sqlite_file import companions
from events.sqlite_pages import Pages
from replay.salvage import Diagnosis, salvage
from replay.verifying import verify_log
from tests.samples.make_sample import (
    AGENT_ID,
    Recorder,
    Run,
    SettableClock,
    good_run,
    tell_everything,
)

PAGE = 4096
SOME_OPEN = (Run("unlucky-ant").stream, "agent")


def make(path: Path, *, nights: int = 1, stop: bool = True) -> Path:
    """Make a log as an agent does; left as by a kill if it does not stop."""
    clock = SettableClock()
    store = SqliteStore.open(path, clock, new_id=lambda: AGENT_ID)
    recorder = Recorder(store, clock)
    tell_everything(recorder)
    for number in range(nights - 1):
        for seconds, run, observation in good_run(Run(f"again-{number}"), 700.0 + 20 * number):
            clock.seconds = seconds
            recorder.observe(run.stream, observation)
    if stop:
        store.close()
    else:
        folder = path.parent / "killed"
        folder.mkdir()
        shutil.copy(path, folder)
        shutil.copy(companions(path)[0], folder)
        store.close()
        return folder / path.name
    return path


def records_in(path: Path) -> dict[int, Record]:
    with open_log(path) as reader:
        return {record.position: record for record in reader.read_all()}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of some forty pages. Not to be changed."""
    return make(tmp_path_factory.mktemp("pristine") / "log", nights=12)


@pytest.fixture
def log(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(pristine, tmp_path / "log"))


def fingerprint(folder: Path) -> dict[str, tuple[str, int, int]]:
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), s.st_mtime_ns, s.st_mode)
        for path in sorted(folder.iterdir())
        for s in (path.stat(),)
        if path.is_file()
    }


def salvaged(log: Path, truth: dict[int, Record]) -> tuple[Diagnosis, dict[int, Record]]:
    """Salvage a log, and hold the outcome against what is true."""
    output = log.parent / "out" / "new"
    output.parent.mkdir(exist_ok=True)
    output.unlink(missing_ok=True)
    before = fingerprint(log.parent)

    found = salvage(log, output)

    assert fingerprint(log.parent) == before, "the log and what lies beside it are as they were"
    if found.is_sound or not found.intact:
        assert not output.exists()
        return found, {}
    kept = records_in(output)
    assert len(kept) == found.intact
    for position, record in kept.items():
        assert record == truth[position], "a record that was never written"
    with closing(SqliteReader.open(output)) as reader:
        verdict = verify_log(reader, "new")
        assert verdict.divergence is None
        assert verdict.lost_records == found.lost_records
        assert reader.kind == "salvaged"
        assert list(reader.lost_ranges()) == found.lost
    lost = {at for gone in found.lost for at in range(gone.first, gone.last + 1)}
    assert not lost & {*kept}
    told = {*kept} | lost >= {*truth} or "its note of where it ends is lost" in str(found.notes)
    assert told, "what is neither kept nor said to be lost"
    return found, kept


def provable(log: Path, truth: dict[int, Record]) -> set[int]:
    """Return the positions of the records that can be read, and follow from one that can be."""
    pages = Pages(log, companions(log)[0])
    with closing(pages):
        there = {
            row.rowid
            for row in pages.rows()
            if row.rowid in truth and row.values[1:] == _row(truth[row.rowid])
        }
    return {at for at in there if at == 1 or at - 1 in there}


def _row(record: Record) -> tuple[object, ...]:
    row = attrs.astuple(record)
    return tuple(int(v) if isinstance(v, bool) else v for v in row[1:])


def expect_complete(log: Path, truth: dict[int, Record]) -> Diagnosis:
    found, kept = salvaged(log, truth)
    unproven = {
        at for piece in found.unproven for at in range(piece.first, piece.first + piece.length)
    }
    if not found.is_sound:
        assert {*kept} | unproven >= provable(log, truth)
    return found


def zero(path: Path, first: int, count: int = 1, filler: bytes = b"\0") -> None:
    """Overwrite pages, numbered from 1."""
    with path.open("r+b") as file:
        file.seek((first - 1) * PAGE)
        file.write(filler * (count * PAGE))


def pages_of(path: Path) -> int:
    return path.stat().st_size // PAGE


# --- pages ---------------------------------------------------------------------------------


def test_a_log_that_nobody_touched_is_sound(log: Path) -> None:
    found, _kept = salvaged(log, records_in(log))

    assert found.is_sound
    assert found.intact == len(records_in(log))
    assert (found.lost, found.torn, found.notes) == ([], [], [])


@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\x0d"], ids=["zeros", "ones", "a kind"])
def test_whichever_page_is_overwritten_all_the_others_are_saved(
    log: Path, pristine: Path, filler: bytes
) -> None:
    truth = records_in(log)
    for number in range(1, pages_of(log) + 1):
        shutil.copy(pristine, log)
        zero(log, number, filler=filler)

        found = expect_complete(log, truth)

        assert not found.is_sound
        assert found.unproven == []
        assert found.lost_records < 40


def test_wherever_the_file_is_cut_off_what_is_before_is_saved(log: Path, pristine: Path) -> None:
    truth = records_in(log)
    for number in range(pages_of(log)):
        for rest in (0, 1, PAGE // 2):
            shutil.copy(pristine, log)
            os.truncate(log, number * PAGE + rest)
            try:
                expect_complete(log, truth)
            except NotALog:
                assert provable(log, truth) == set()


def test_of_a_file_that_is_cut_off_the_note_of_its_end_tells_what_is_missing(log: Path) -> None:
    truth = records_in(log)
    os.truncate(log, pages_of(log) // 2 * PAGE)

    found = expect_complete(log, truth)

    assert found.lost[-1].last == len(truth)
    assert found.intact + found.lost_records == len(truth)
    assert found.first == 1


@pytest.mark.parametrize("seed", range(30))
def test_several_pages_at_once(log: Path, seed: int) -> None:
    truth, choice = records_in(log), random.Random(seed)
    for _ in range(choice.randint(2, 12)):
        zero(log, choice.randint(1, pages_of(log)))

    expect_complete(log, truth)


def test_when_nothing_tells_where_a_log_ended_what_was_open_may_have_gone_on(log: Path) -> None:
    truth, content = records_in(log), log.read_bytes()
    tip = truth[len(truth)].hash
    for number in range(2, pages_of(log) + 1):
        page = content[(number - 1) * PAGE : number * PAGE]
        is_index = page[0] in (0x02, 0x0A) and b"log_id" not in page
        if is_index or tip in page or truth[len(truth) - 8].data.encode() in page:
            zero(log, number)

    found, kept = salvaged(log, truth)

    assert max(kept) < len(truth) - 8
    assert "so nobody can tell whether it went on" in found.notes[0]
    assert all(torn.is_likely for torn in found.torn if not torn.is_closed)
    assert {*SOME_OPEN} <= {torn.stream for torn in found.torn}


@given(data=st.data())
def test_bytes_that_flip_anywhere_never_make_a_wrong_record(
    pristine: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    log = Path(shutil.copy(pristine, tmp_path_factory.mktemp("flipped") / "log"))
    truth, content = records_in(log), bytearray(log.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=20)):
        content[at] ^= data.draw(st.integers(1, 255))
    log.write_bytes(content)

    expect_complete(log, truth)


def test_the_id_is_proven_by_the_first_record_when_the_description_is_lost(log: Path) -> None:
    truth = records_in(log)
    number = next(
        n for n in range(1, 20) if b"log_id" in log.read_bytes()[(n - 1) * PAGE : n * PAGE]
    )
    zero(log, number)

    found = expect_complete(log, truth)

    assert found.identity is not None
    assert found.identity.log_id == AGENT_ID
    assert found.lost == []
    assert "shown by its first record" in found.notes[0]


def test_long_records_are_put_together_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with closing(SqliteStore.open(log, SettableClock())) as store:
        for number in range(1, 40):
            text = f'"{number * 1000 * chr(64 + number % 26)}"'
            store.commit([Append("long", number - 1, [Draft("Long", 1, text)])])
    truth = records_in(log)
    for number in range(4, pages_of(log), 5):
        zero(log, number)

    found, kept = salvaged_undecided(log, truth)

    assert 0 < len(kept) < len(truth)
    assert found.unproven == []


def salvaged_undecided(log: Path, truth: dict[int, Record]) -> tuple[Diagnosis, dict[int, Record]]:
    """As `salvaged`, for a log without decisions to verify."""
    output = log.parent / "new"
    found = salvage(log, output)
    kept = records_in(output)
    assert kept.items() <= truth.items()
    with closing(SqliteReader.open(output)) as reader:
        assert len(list(reader.verified())) == len(kept)
        reader.check_file()
    return found, kept


# --- the write-ahead log -------------------------------------------------------------------


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A log whose agent was killed: all of it is in the write-ahead log."""
    return make(tmp_path / "log", nights=12, stop=False)


def test_what_is_in_the_write_ahead_log_only_is_found(killed: Path) -> None:
    truth, wal = records_in(killed), companions(killed)[0]
    content = bytearray(wal.read_bytes())
    content[40] ^= 1  # a frame of the first commit: SQLite now believes in none of them
    wal.write_bytes(content)

    found = expect_complete(killed, truth)

    assert found.intact == len(truth)
    assert not found.is_sound


def test_of_two_that_were_found_in_one_place_the_true_one_is_taken(
    killed: Path, pristine: Path
) -> None:
    truth, wal = records_in(killed), companions(killed)[0]
    content = bytearray(wal.read_bytes())
    content[40] ^= 1
    wal.unlink()
    shutil.copy(pristine, killed)
    wal.write_bytes(content)
    with closing(Pages(killed, wal)) as pages:
        there = {row.rowid or 0 for row in pages.rows_of_wal() if len(row.values) == 11}
    wal.unlink()
    twice = ", ".join(str(position) for position in sorted(there) if position % 3)
    edit(killed, f"UPDATE records SET type = 'Other' WHERE position IN ({twice})")
    wal.write_bytes(content)

    _found, kept = salvaged(killed, truth)

    assert len(there) > 50
    assert kept == truth


def test_what_was_not_committed_is_not_taken_for_a_part_of_the_log(killed: Path) -> None:
    wal = companions(killed)[0]
    content = wal.read_bytes()
    for size in range(32 + 5 * (PAGE + 24), len(content), 7 * (PAGE + 24)):
        wal.write_bytes(content[:size])  # in the middle of a commit, most of the time
        there = records_in(killed)
        first = bytearray(content[:size])
        first[40] ^= 1
        wal.write_bytes(first)

        found = salvage(killed, None)

        assert found.is_sound or found.intact == len(there)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_garbage_in_the_write_ahead_log(killed: Path, part: float) -> None:
    truth, wal = records_in(killed), companions(killed)[0]
    content = bytearray(wal.read_bytes())
    start = int(len(content) * part)
    content[start : start + 9000] = random.Random(1).randbytes(9000)
    wal.write_bytes(content)

    expect_complete(killed, truth)


def test_a_lost_write_ahead_log_is_noticed_by_the_note_of_the_end(log: Path) -> None:
    """A part of what it held had reached the file, the note of the end among it."""
    truth = records_in(log)
    edit(log, "DELETE FROM records WHERE position > 150", "VACUUM")

    found = expect_complete(log, truth)

    assert [(gone.first, gone.last) for gone in found.lost] == [(151, len(truth))]


# --- what somebody does with a SQLite shell -------------------------------------------------


def edit(path: Path, *statements: str) -> None:
    with closing(apsw.Connection(str(path))) as connection:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        for (name,) in names.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement).fetchall()


@pytest.mark.parametrize("position", [1, 2, 57, 150])
@pytest.mark.parametrize(
    "change",
    [
        "data = replace(data, '\"', '''')",
        "type = 'Other'",
        "recorded_at = '2025' || substr(recorded_at, 5)",
        "monotonic_ns = monotonic_ns + 1",
        "closes = 1 - closes",
        "version = version + 100",
    ],
)
def test_an_altered_record_is_lost_and_nothing_else(log: Path, position: int, change: str) -> None:
    truth = records_in(log)
    edit(log, f"UPDATE records SET {change} WHERE position = {position}")

    found, kept = salvaged(log, truth)

    assert {*truth} - {*kept} == {position}
    assert "was altered" in found.lost[0].reason


@pytest.mark.parametrize("position", [1, 57, "(SELECT max(position) FROM records)"])
def test_an_altered_hash_costs_nothing(log: Path, position: object) -> None:
    truth = records_in(log)
    edit(log, f"UPDATE records SET hash = zeroblob(16) WHERE position = {position}")

    found, kept = salvaged(log, truth)

    assert kept == truth
    assert not found.is_sound


def test_removed_records_are_lost_and_the_next_can_not_be_proved(log: Path) -> None:
    truth = records_in(log)
    edit(log, "DELETE FROM records WHERE position BETWEEN 40 AND 45")

    found, kept = salvaged(log, truth)

    assert {*truth} - {*kept} == {*range(40, 47)}
    assert "not found on any page, but for the last" in found.lost[0].reason


def test_records_that_changed_places_are_put_back(log: Path) -> None:
    truth = records_in(log)
    edit(
        log,
        "UPDATE records SET position = 100000 WHERE position = 40",
        "UPDATE records SET position = 40 WHERE position = 90",
        "UPDATE records SET position = 90 WHERE position = 100000",
        "UPDATE records SET position = 5000 WHERE position = 60",
    )

    found, kept = salvaged(log, truth)

    assert kept == truth
    assert found.lost == []


def test_records_that_were_renumbered_get_their_numbers_back(log: Path) -> None:
    truth = records_in(log)
    edit(
        log,
        "DELETE FROM records WHERE position = 40",
        "UPDATE records SET position = position - 1 WHERE position > 40",
    )

    _found, kept = salvaged(log, truth)

    assert {*truth} - {*kept} == {40, 41}


def test_records_that_were_removed_with_whole_pages_are_found_where_they_were(log: Path) -> None:
    truth = records_in(log)
    edit(log, "DELETE FROM records WHERE position > 150")

    _found, kept = salvaged(log, truth)

    # SQLite moves and reuses some of it while it deletes: how much, depends on the layout.
    assert len(kept) > 150 + 30


@pytest.mark.parametrize(("first", "last"), [(57, 57), (50, 80), (50, 999), (1, 999)])
def test_records_of_another_log_are_left_out(
    log: Path, tmp_path: Path, first: int, last: int
) -> None:
    truth, which = records_in(log), f"BETWEEN {first} AND {last}"
    other = tmp_path / "elsewhere"
    clock = SettableClock()
    with closing(SqliteStore.open(other, clock)) as store:
        recorder = Recorder(store, clock)
        stranger = UUID(int=77)
        for number in range(40):
            run = Run(f"strange-{number}")
            for seconds, _run, observation in good_run(run, 10.0 * number):
                clock.seconds = seconds
                told: Observation = observation
                if isinstance(told, RunOffered):
                    told = attrs.evolve(told, agent_id=stranger)
                recorder.observe(run.stream, told)
    edit(
        log,
        f"ATTACH '{other}' AS other",
        f"DELETE FROM records WHERE position {which}",
        f"INSERT INTO records SELECT * FROM other.records WHERE position {which}",
    )

    found, kept = salvaged(log, truth)

    replaced = {at for at in truth if first <= at <= last}
    assert {*truth} - {*kept} >= replaced
    assert len({*truth} - {*kept} - replaced) <= 1, "the one that can't be proved"
    assert found.lost


def test_a_broken_list_of_open_streams_is_no_loss(log: Path) -> None:
    truth = records_in(log)
    edit(log, "DELETE FROM open_streams")

    found, kept = salvaged(log, truth)

    assert kept == truth
    assert "the table of open streams is wrong" in str(found.complaint)


# --- archives ------------------------------------------------------------------------------


@pytest.fixture
def compacted(log: Path) -> Path:
    compact(log, log.parent / "archive", "9999")
    return log


def test_what_was_archived_stays_in_the_archive_whichever_page_is_overwritten(
    compacted: Path,
) -> None:
    """Its records are still on free pages, and would be found there."""
    whole = compacted.read_bytes()
    truth = records_in(compacted)
    for number in range(1, pages_of(compacted) + 1):
        compacted.write_bytes(whole)
        zero(compacted, number)

        found, kept = salvaged_some(compacted, truth)

        if found.is_sound:
            continue  # It was a free page.
        with closing(SqliteReader.open(compacted.parent / "out" / "new")) as reader:
            archived = {each.stream for each in reader.archived_streams()}
        if found.archived and archived:
            assert not archived & {record.stream for record in kept.values()}
            assert {*kept} <= {*truth}


def test_what_was_archived_stays_in_the_archive_though_an_older_page_still_has_it(
    killed: Path,
) -> None:
    compact(killed, killed.parent.parent / "archive", "9999")
    truth, wal = records_in(killed), companions(killed)[0]
    content = bytearray(wal.read_bytes())
    content[40] ^= 1  # so that all of it has to be found page by page
    wal.write_bytes(content)

    found, kept = salvaged_some(killed, truth)

    assert kept == truth
    assert found.archived > 100
    assert found.lost == []


def salvaged_some(log: Path, truth: dict[int, Record]) -> tuple[Diagnosis, dict[int, Record]]:
    output = log.parent / "out" / "new"
    output.parent.mkdir(exist_ok=True)
    output.unlink(missing_ok=True)
    found = salvage(log, output)
    if not output.exists():
        return found, {}
    with closing(SqliteReader.open(output)) as reader:
        assert verify_log(reader, "new").divergence is None
    return found, records_in(output)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.99])
def test_of_an_archive_that_was_cut_off_the_beginning_is_saved(log: Path, part: float) -> None:
    moved = compact(log, log.parent / "archive", "9999")
    assert moved.archive is not None
    truth = records_in(moved.archive)
    os.truncate(moved.archive, int(moved.archive.stat().st_size * part))

    found, kept = salvaged_some(moved.archive, truth)

    assert kept.items() <= truth.items()
    if part > 0.2:
        assert found.intact > 0


# --- what is no log, and what can't be written ---------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"text\n" * 3000, bytes(40960), gzip.compress(b"text\n" * 3000)],
    ids=["empty", "text", "zeros", "gzip"],
)
def test_what_is_no_log_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)

    with pytest.raises(NotALog):
        salvage(path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_ever_replaced(log: Path, tmp_path: Path) -> None:
    zero(log, 20)
    (tmp_path / "new").write_text("mine")

    with pytest.raises(CopyFailed, match="there already"):
        salvage(log, tmp_path / "new")


def test_no_agent_goes_on_with_a_salvaged_copy(log: Path, tmp_path: Path) -> None:
    zero(log, 20)
    salvage(log, tmp_path / "new")

    with pytest.raises(ForReadingOnly, match="salvaged copy"):
        SqliteStore.open(tmp_path / "new")
    with (
        closing(apsw.Connection(str(tmp_path / "new"))) as connection,
        pytest.raises(apsw.ConstraintError, match="for reading"),
    ):
        connection.execute(
            "INSERT INTO records SELECT position + 10000, stream, version + 1, type, schema, cause,"
            " 0, recorded_at, monotonic_ns, data, hash FROM records LIMIT 1"
        )


def test_a_salvaged_copy_that_is_damaged_again_is_salvaged_again(log: Path, tmp_path: Path) -> None:
    truth = records_in(log)
    zero(log, 20)
    folder = tmp_path / "first"
    folder.mkdir()
    once = salvage(log, folder / "log")
    edit(folder / "log", "UPDATE records SET type = 'Other' WHERE position = 3")

    found, kept = salvaged(folder / "log", truth)

    assert {*truth} - {*kept} == {3} | {
        at for gone in once.lost for at in range(gone.first, gone.last + 1)
    }
    assert found.lost_records == once.lost_records + 1


# --- who is concerned ----------------------------------------------------------------------


def test_the_streams_that_lost_records_are_named_with_their_versions(log: Path) -> None:
    truth = records_in(log)
    toad = Run("brave-toad").stream
    lost = [r for r in truth.values() if r.stream == toad and r.version in (4, 5)]
    edit(log, *(f"UPDATE records SET type = 'X' WHERE position = {r.position}" for r in lost))

    found, _kept = salvaged(log, truth)

    (torn,) = [torn for torn in found.torn if torn.is_likely]
    assert (torn.stream, torn.version, torn.is_closed) == (toad, 4, True)
    assert torn.lost in ([(4, 5)], [(4, 4), (5, 5)])
    assert torn.submission.run.run_name == "brave-toad"


def test_what_an_index_knows_of_lost_records_tells_whose_they_were(log: Path) -> None:
    truth = records_in(log)
    ant = Run("unlucky-ant").stream
    last = max(r.position for r in truth.values() if r.stream == ant)
    page = next(
        n
        for n in range(1, pages_of(log) + 1)
        if truth[last].data.encode() in log.read_bytes()[(n - 1) * PAGE : n * PAGE]
    )
    zero(log, page)

    found, _kept = salvaged(log, truth)

    torn = next(torn for torn in found.torn if torn.stream == ant)
    assert torn.is_likely
    assert not torn.is_closed
    assert torn.lost[-1][1] == truth[last].version
