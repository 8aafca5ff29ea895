"""What every event log promises: one class of tests, run against each store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import UUID

import pytest
import trio

from events.chain import first_damage
from events.group_commit import group_commit
from events.log import (
    ABSENT,
    Append,
    Draft,
    EventStore,
    LogWriteFailed,
    Record,
    Stamp,
    VersionConflict,
)
from events.memory import MemoryStore
from events.sqlite import SqliteStore

LOG_ID = UUID("10600000-0000-4000-8000-000000000000")
X = Draft("X", 1, '{"a":1}')


def clock() -> Stamp:
    return Stamp("2026-01-01T00:00:00.000000+00:00", 7)


def sqlite(folder: Path) -> EventStore:
    return SqliteStore.open(folder / "events.sqlite", clock)


def memory(_folder: Path) -> EventStore:
    return MemoryStore(LOG_ID, clock)


def one(store: EventStore, stream: str, expected: int, *, closes: bool = False) -> object:
    return store.commit([Append(stream, expected, [X], closes)])[0]


@pytest.fixture(params=[sqlite, memory])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventStore]:
    make: Callable[[Path], EventStore] = request.param
    made = make(tmp_path)
    yield made
    made.close()


class TestEveryStore:
    def test_an_append_returns_its_records_in_their_place(self, store: EventStore) -> None:
        (records,) = store.commit([Append("s", ABSENT, [X, Draft("Y", 2, "{}", cause=1)])])
        assert not isinstance(records, VersionConflict)
        assert [(r.position, r.version, r.type, r.cause) for r in records] == [
            (1, 1, "X", None),
            (2, 2, "Y", 1),
        ]
        assert store.read_stream("s") == list(records)

    def test_positions_are_gap_free_over_streams(self, store: EventStore) -> None:
        for stream in ("a", "b", "a2"):
            one(store, stream, ABSENT)
        one(store, "a", 1)
        assert [r.position for r in store.read_all()] == [1, 2, 3, 4]
        assert store.last_position() == 4

    def test_an_append_on_an_old_version_is_refused(self, store: EventStore) -> None:
        one(store, "s", ABSENT)
        conflict = one(store, "s", ABSENT)
        assert isinstance(conflict, VersionConflict)
        assert (conflict.expected, conflict.actual) == (0, 1)
        assert store.version_of("s") == 1

    def test_a_conflict_leaves_the_rest_of_the_commit_alone(self, store: EventStore) -> None:
        outcomes = store.commit([Append("s", 5, [X]), Append("t", ABSENT, [X])])
        assert isinstance(outcomes[0], VersionConflict)
        assert [r.stream for r in store.read_all()] == ["t"]
        assert first_damage(store.read_all(), log_id(store)) is None

    def test_a_closed_stream_takes_nothing_more(self, store: EventStore) -> None:
        one(store, "s", ABSENT, closes=True)
        conflict = one(store, "s", 1)
        assert isinstance(conflict, VersionConflict)
        assert conflict.closed

    def test_open_streams_are_listed_oldest_first(self, store: EventStore) -> None:
        for stream in ("b", "a", "c"):
            one(store, stream, ABSENT)
        one(store, "a", 1, closes=True)
        assert store.open_streams() == ["b", "c"]

    def test_streams_are_found_by_prefix(self, store: EventStore) -> None:
        for stream in ("run-1/1", "run-10/1", "run-1/2"):
            one(store, stream, ABSENT)
        assert store.streams("run-1/") == ["run-1/1", "run-1/2"]
        assert store.streams("none") == []

    def test_reading_goes_on_after_a_position_or_version(self, store: EventStore) -> None:
        store.commit([Append("s", ABSENT, [X, X, X])])
        assert [r.position for r in store.read_all(1)] == [2, 3]
        assert [r.version for r in store.read_stream("s", 2)] == [3]

    def test_what_an_append_holds_is_chained_to_all_before_it(self, store: EventStore) -> None:
        store.commit([Append("s", ABSENT, [X, X]), Append("t", ABSENT, [X])])
        assert first_damage(store.read_all(), log_id(store)) is None

    async def test_many_tasks_append_at_once(self, store: EventStore) -> None:
        """Each gets its own records, whoever else appends."""
        async with group_commit(store) as log:

            async def append(stream: str) -> None:
                for version in range(5):
                    records = await log.append(stream, version, [X])
                    assert [(r.stream, r.version) for r in records] == [(stream, version + 1)]

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(append, f"s{number}")
            assert len(await log.open_streams()) == 20
            assert await log.version_of("s7") == 5
        assert store.last_position() == 100

    async def test_a_conflict_reaches_the_one_who_made_it(self, store: EventStore) -> None:
        async with group_commit(store) as log:
            await log.append("s", ABSENT, [X])
            caught: list[VersionConflict] = []
            try:
                await log.append("s", ABSENT, [X])
            except VersionConflict as conflict:
                caught.append(conflict)
        assert [conflict.actual for conflict in caught] == [1]

    async def test_a_cancelled_append_is_never_in_doubt(self, store: EventStore) -> None:
        recorded: list[Record] = []
        async with group_commit(store) as log:
            with trio.CancelScope() as scope:
                scope.cancel()
                recorded += await log.append("s", ABSENT, [X])
        assert recorded == list(store.read_stream("s"))


def log_id(store: EventStore) -> UUID:
    assert isinstance(store, (SqliteStore, MemoryStore))
    return store.log_id


Outcomes = Sequence[Sequence[Record] | VersionConflict]


class Breaking(MemoryStore):
    """A store whose disk is full from the second commit on, and which counts commits."""

    commits = 0

    def commit(self, appends: Sequence[Append]) -> Outcomes:
        self.commits += 1
        if self.commits > 1:
            raise LogWriteFailed("events.sqlite", "the disk is full")
        return super().commit(appends)


async def test_after_a_failed_commit_nothing_more_is_accepted() -> None:
    store = Breaking(LOG_ID, clock)
    failures = []
    async with group_commit(store, in_thread=False) as log:
        await log.append("s", ABSENT, [X])
        for _again in range(3):
            try:
                await log.append("s", 1, [X])
            except LogWriteFailed as error:
                failures.append(error)
    assert len(failures) == 3
    assert store.commits == 2
    assert store.last_position() == 1


async def test_what_arrives_during_a_commit_is_committed_together() -> None:
    class Counting(MemoryStore):
        sizes: list[int] = []  # noqa: RUF012 - one store, one test

        def commit(self, appends: Sequence[Append]) -> Outcomes:
            self.sizes.append(len(appends))
            return super().commit(appends)

    store = Counting(LOG_ID, clock)
    async with (
        group_commit(store) as log,
        trio.open_nursery() as nursery,
    ):
        for number in range(50):
            nursery.start_soon(log.append, f"s{number}", ABSENT, [X])
    assert sum(store.sizes) == 50
    assert len(store.sizes) < 10
