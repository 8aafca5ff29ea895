"""Each promise of `events.log`, asked of every store, by itself and through group commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import pytest
import trio

from events.chain import DamageKind, first_damage
from events.group_commit import GroupCommitLog, group_commit
from events.log import (
    ABSENT,
    Append,
    Draft,
    LogWriteFailed,
    Record,
    VersionConflict,
)
from tests.unit.log_fixtures import (
    MemoryHome,
    SqliteHome,
    Store,
    accepted,
    append,
    drafts,
)

Home = MemoryHome | SqliteHome


@pytest.fixture(params=["memory", "sqlite"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    made: Home = MemoryHome() if request.param == "memory" else SqliteHome(tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(home: Home) -> Store:
    return home.store


@pytest.fixture
async def log(home: Home) -> AsyncIterator[GroupCommitLog]:
    async with group_commit(home.store, in_thread=isinstance(home, SqliteHome)) as made:
        yield made


def versions(store: Store, stream: str) -> list[int]:
    return [record.version for record in store.read_stream(stream)]


class TestPromises:
    """The six promises, in their order."""

    def test_1_durable_what_was_committed_is_there_after_a_crash(self, home: Home) -> None:
        home.store.commit([append("a", 0, 2), append("b", 0)])
        home.store.commit([append("a", 2, closes=True)])

        found = home.crash()

        assert list(found.read_all()) == list(home.store.read_all())
        assert found.open_streams() == ["b"]
        assert found.log_id == home.store.log_id

    def test_2_atomic_a_refused_append_leaves_none_of_its_records(self, store: Store) -> None:
        store.commit([append("a", 0)])

        conflict, _ = store.commit([append("a", 0, 3), append("b", 0)])

        assert isinstance(conflict, VersionConflict)
        assert versions(store, "a") == [1]
        assert store.last_position() == 2

    def test_2_atomic_a_failed_commit_leaves_none_of_its_records(self, home: Home) -> None:
        home.store.commit([append("a", 0)])
        home.fill_the_disk()

        with pytest.raises(LogWriteFailed):
            home.store.commit([append("a", 1, 2), append("b", 0, 3)])

        assert [r.position for r in home.store.read_all()] == [1]
        assert [r.position for r in home.crash().read_all()] == [1]

    def test_3_ordered_positions_are_gap_free_across_streams_and_conflicts(
        self, store: Store
    ) -> None:
        store.commit([append("a", 0, 2), append("b", 5), append("b", 0, 2)])
        store.commit([append("a", 0)])
        store.commit([append("a", 2)])

        assert [r.position for r in store.read_all()] == [1, 2, 3, 4, 5]
        assert versions(store, "a") == [1, 2, 3]
        assert versions(store, "b") == [1, 2]

    def test_3_ordered_positions_go_on_after_a_crash(self, home: Home) -> None:
        home.store.commit([append("a", 0, 3)])

        found = home.crash()
        records = accepted(found.commit([append("b", 0)])[0])

        assert [r.position for r in records] == [4]
        assert first_damage(found.read_all(), found.log_id, tip=found.tip()) is None

    @pytest.mark.parametrize("expected", [0, 1, 3])
    def test_4_optimistic_an_append_to_another_version_is_refused(
        self, store: Store, expected: int
    ) -> None:
        store.commit([append("a", 0, 2)])

        (conflict,) = store.commit([append("a", expected)])

        assert isinstance(conflict, VersionConflict)
        assert (conflict.stream, conflict.expected, conflict.actual) == ("a", expected, 2)
        assert not conflict.closed

    def test_4_optimistic_nothing_is_appended_to_a_closed_stream(self, store: Store) -> None:
        store.commit([append("a", 0, 2, closes=True)])

        (conflict,) = store.commit([append("a", 2)])

        assert isinstance(conflict, VersionConflict)
        assert conflict.closed
        assert versions(store, "a") == [1, 2]

    def test_4_optimistic_of_two_appends_to_a_version_in_one_commit_the_first_wins(
        self, store: Store
    ) -> None:
        first, second, third = store.commit([append("a", 0), append("a", 0), append("a", 1)])

        assert [r.version for r in accepted(first)] == [1]
        assert isinstance(second, VersionConflict)
        assert second.actual == 1
        assert [r.version for r in accepted(third)] == [2]

    def test_4_optimistic_a_stream_closed_in_the_same_commit_is_closed(self, store: Store) -> None:
        _, conflict = store.commit([append("a", 0, closes=True), append("a", 1)])

        assert isinstance(conflict, VersionConflict)
        assert conflict.closed

    def test_5_append_only_the_chain_of_all_records_verifies(self, store: Store) -> None:
        store.commit([append("a", 0, 2), append("b", 0)])
        store.commit([append("b", 1, closes=True)])

        assert list(store.verified()) == list(store.read_all())

    def test_5_append_only_a_change_of_any_field_is_found(self, store: Store) -> None:
        store.commit([append("a", 0, 3)])
        records = list(store.read_all())
        changes: dict[str, Any] = {
            "stream": "b", "type": "Other", "schema": 2, "cause": None, "closes": True,
            "recorded_at": "2020", "monotonic_ns": 0, "data": "{}", "hash": bytes(16), "version": 3,
        }  # fmt: skip

        for field, value in changes.items():
            altered = [*records[:1], attrs.evolve(records[1], **{field: value}), *records[2:]]
            damage = first_damage(altered, store.log_id)
            assert damage is not None, field
            assert (damage.position, damage.kind) == (2, DamageKind.ALTERED), field

    def test_5_append_only_the_records_of_another_log_are_told_apart(self, store: Store) -> None:
        store.commit([append("a", 0)])

        assert first_damage(store.read_all(), uuid4()) is not None

    def test_6_fail_stop_after_one_failure_nothing_is_accepted(self, home: Home) -> None:
        home.fill_the_disk()
        with pytest.raises(LogWriteFailed) as first:
            home.store.commit([append("a", 0)])

        with pytest.raises(LogWriteFailed) as second:
            home.store.commit([append("b", 0)])

        assert first.value.reason == second.value.reason
        assert "full" in first.value.reason or "space" in first.value.reason

    def test_6_fail_stop_a_new_process_goes_on_where_the_log_ends(self, home: Home) -> None:
        home.store.commit([append("a", 0)])
        home.fill_the_disk()
        with pytest.raises(LogWriteFailed):
            home.store.commit([append("a", 1)])

        found = home.crash()
        found.commit([append("a", 1)])

        assert versions(found, "a") == [1, 2]


class TestReading:
    """What every log answers."""

    def test_an_empty_log_has_nothing(self, store: Store) -> None:
        assert store.last_position() == 0
        assert list(store.read_all()) == []
        assert list(store.verified()) == []
        assert store.read_stream("a") == []
        assert store.version_of("a") == ABSENT
        assert store.open_streams() == store.streams() == []

    def test_a_record_is_read_as_it_was_appended(self, store: Store) -> None:
        data = '{"text":"ünïcödé \\u0000 \U0001f600","long":"' + "x" * 100_000 + '"}'
        appended = Append(
            "flöw/1", 0, [Draft("Happened", 3, data), Draft("Ended", 1, "{}", 1)], True
        )

        records = accepted(store.commit([appended])[0])

        assert store.read_stream("flöw/1") == list(records)
        first, second = records
        assert (first.type, first.schema, first.data, first.cause) == ("Happened", 3, data, None)
        assert (second.cause, first.closes, second.closes) == (1, False, True)

    def test_text_may_hold_a_null_character(self, store: Store) -> None:
        store.commit([Append("a\0b", 0, [Draft("Happened", 1, "x\0y")])])

        assert [r.data for r in store.read_stream("a\0b")] == ["x\0y"]
        assert len(list(store.verified())) == 1

    def test_records_committed_together_carry_one_stamp(self, store: Store) -> None:
        store.commit([append("a", 0, 2), append("b", 0)])
        store.commit([append("b", 1)])

        stamps = [(r.recorded_at, r.monotonic_ns) for r in store.read_all()]
        assert len(set(stamps[:3])) == 1
        assert stamps[3] > stamps[2]

    def test_a_stream_is_read_after_a_version(self, store: Store) -> None:
        store.commit([append("a", 0, 4)])

        assert [r.version for r in store.read_stream("a", 2)] == [3, 4]
        assert store.read_stream("a", 4) == []
        assert store.version_of("a") == 4

    def test_all_is_read_after_a_position_and_past_one_chunk(self, store: Store) -> None:
        store.commit([append("a", 0, 2500)])

        assert [r.position for r in store.read_all(10)] == list(range(11, 2501))

    def test_reading_all_goes_on_with_what_is_committed_meanwhile(self, store: Store) -> None:
        store.commit([append("a", 0, 1500)])
        reading = store.read_all()
        next(reading)
        store.commit([append("a", 1500)])

        assert sum(1 for _ in reading) == 1500

    def test_open_streams_are_listed_oldest_first_without_the_closed(self, store: Store) -> None:
        store.commit([append("b", 0), append("a", 0), append("c", 0, closes=True)])
        store.commit([append("d", 0), append("b", 1, closes=True), append("a", 1)])

        assert store.open_streams() == ["a", "d"]

    def test_streams_are_listed_oldest_first_by_prefix(self, store: Store) -> None:
        names = ["x/2", "x/1", "X/1", "x", "x/", "x0", "y", "x/\U0010ffff9", "x_1", "x%"]
        store.commit([append(name, 0, closes=name == "x/1") for name in names])

        assert store.streams() == names
        assert store.streams("x/") == ["x/2", "x/1", "x/", "x/\U0010ffff9"]
        assert store.streams("z") == []
        assert store.streams("x_") == ["x_1"]

    def test_a_closed_log_refuses_and_closing_twice_is_allowed(self, store: Store) -> None:
        store.close()
        store.close()

        with pytest.raises(ValueError, match="closed"):
            store.last_position()
        with pytest.raises(ValueError, match="closed"):
            store.commit([append("a", 0)])

    @pytest.mark.parametrize(
        "wrong",
        [
            Append("a", 0, []),
            Append("", 0, drafts(1)),
            Append("a", -1, drafts(1)),
            Append("a", 0, [Draft("Happened", 0, "{}")]),
            Append("a", 0, [Draft("", 1, "{}")]),
            Append("a", 0, [Draft("Happened", 1, "{}", cause=1)]),
            Append("a", 1, [Draft("Happened", 1, "{}", cause=0)]),
            Append("a", 0, [Draft("Happened", 1, "\ud800")]),
        ],
    )
    def test_an_append_that_can_never_be_right_is_refused_and_harms_nothing(
        self, store: Store, wrong: Append
    ) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
            store.commit([append("good", 0), wrong])

        assert store.last_position() == 0
        accepted(store.commit([append("good", 0)])[0])


class TestThroughGroupCommit:
    """The same, as the daemon's tasks see it."""

    async def test_an_append_returns_its_records_when_a_crash_would_leave_them(
        self, log: GroupCommitLog, home: Home
    ) -> None:
        records = await log.append("a", 0, drafts(2), closes=True)

        assert list(home.crash().read_all()) == list(records)
        assert [r.closes for r in records] == [False, True]

    async def test_appends_of_many_tasks_are_all_there_in_order(
        self, log: GroupCommitLog, store: Store
    ) -> None:
        async def submit(stream: str) -> None:
            for version in range(5):
                await log.append(stream, version, drafts(1, version), closes=version == 4)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(submit, f"s{number}")

        assert len(list(store.verified())) == 100
        assert all(versions(store, f"s{number}") == [1, 2, 3, 4, 5] for number in range(20))

    async def test_a_conflict_is_raised_to_the_task_that_came_second(
        self, log: GroupCommitLog
    ) -> None:
        outcomes: list[object] = []

        async def race() -> None:
            try:
                outcomes.append(await log.append("a", 0, drafts(1)))
            except VersionConflict as conflict:
                outcomes.append(conflict)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(race)

        assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 4
        assert await log.version_of("a") == 1

    async def test_a_failure_is_raised_to_everybody_and_from_then_on(
        self, log: GroupCommitLog, home: Home
    ) -> None:
        home.fill_the_disk()
        failures: list[LogWriteFailed] = []

        async def try_to_append(stream: str) -> None:
            with pytest.raises(LogWriteFailed) as caught:
                await log.append(stream, 0, drafts(1))
            failures.append(caught.value)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(try_to_append, f"s{number}")
        await try_to_append("later")

        assert len({id(failure) for failure in failures}) == 6
        assert await log.streams() == []

    async def test_reading_tells_the_same_as_the_store(
        self, log: GroupCommitLog, store: Store
    ) -> None:
        await log.append("a", 0, drafts(3))
        await log.append("b", 0, drafts(1), closes=True)

        assert await log.read_stream("a", 1) == store.read_stream("a", 1)
        assert await log.open_streams() == ["a"]
        assert await log.streams("b") == ["b"]
        assert await log.version_of("a") == 3


def test_two_records_never_have_the_same_canonical_bytes() -> None:
    """Text that moves from one field to the next must change the hash."""
    from events.chain import genesis, link

    previous = genesis(uuid4())
    one = link(previous, (1, "ab", 1, "c", 1, None, False, "t", 1, "d"))
    two = link(previous, (1, "a", 1, "bc", 1, None, False, "t", 1, "d"))

    assert one != two


def test_a_record_is_what_the_contract_lists() -> None:
    """The store binds rows by the order of `Record`'s fields."""
    from events.sqlite_file import COLUMNS

    assert [field.name for field in attrs.fields(Record)] == COLUMNS.split(", ")
