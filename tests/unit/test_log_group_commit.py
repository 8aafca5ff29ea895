"""What group commit adds to a store: groups, cancellation, failure, a loop that stays free."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from events.group_commit import GroupCommitLog, group_commit
from events.log import Append, LogWriteFailed, Record, VersionConflict
from events.memory import MemoryStore
from events.sqlite import SqliteStore
from tests.unit.log_fixtures import LOG_ID, drafts, ticking_clock


class WatchedStore(MemoryStore):
    """A store that notes how many appends each commit has, and can be held in one."""

    def __init__(self) -> None:
        super().__init__(LOG_ID, ticking_clock())
        self.groups: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.in_commit = threading.Event()
        self.error: BaseException | None = None

    def commit(self, appends: Sequence[Append]) -> Sequence[Sequence[Record] | VersionConflict]:
        self.groups.append(len(appends))
        self.in_commit.set()
        assert self.go.wait(20)
        if self.error is not None:
            raise self.error
        return super().commit(appends)

    def hold(self) -> None:
        self.go.clear()
        self.in_commit.clear()


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - it is another thread that makes it so
            await trio.sleep(0.001)


async def test_what_arrives_during_a_commit_is_committed_together(store: WatchedStore) -> None:
    store.hold()
    async with group_commit(store) as log, trio.open_nursery() as nursery:
        nursery.start_soon(log.append, "first", 0, drafts(1))
        await until(store.in_commit.is_set)
        for number in range(7):
            nursery.start_soon(log.append, f"s{number}", 0, drafts(1))
        await trio.testing.wait_all_tasks_blocked(0.01)
        store.go.set()

    assert store.groups == [1, 7]


async def test_tasks_that_are_ready_at_once_share_one_commit(store: WatchedStore) -> None:
    async with group_commit(store) as log, trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(log.append, f"s{number}", 0, drafts(1))

    assert store.groups == [50]


async def test_a_lone_append_waits_for_nobody(
    store: WatchedStore, autojump_clock: trio.testing.MockClock
) -> None:
    async with group_commit(store, in_thread=False) as log:
        await log.append("a", 0, drafts(1))
        await log.append("a", 1, drafts(1))

    assert store.groups == [1, 1]
    assert trio.current_time() == 0


async def test_the_event_loop_goes_on_while_a_commit_takes_its_time(store: WatchedStore) -> None:
    store.hold()
    async with group_commit(store) as log, trio.open_nursery() as nursery:
        nursery.start_soon(log.append, "a", 0, drafts(1))
        await until(store.in_commit.is_set)  # this very task runs meanwhile
        assert store.last_position() == 0
        store.go.set()


async def test_reading_goes_on_while_a_commit_takes_its_time(store: WatchedStore) -> None:
    async with group_commit(store) as log, trio.open_nursery() as nursery:
        await log.append("a", 0, drafts(1))
        store.hold()
        nursery.start_soon(log.append, "b", 0, drafts(1))
        await until(store.in_commit.is_set)

        assert len(await log.read_stream("a")) == 1
        assert await log.open_streams() == ["a"]
        store.go.set()


async def test_commits_do_not_queue_behind_other_blocking_calls(store: WatchedStore) -> None:
    """The daemon's other calls may use up all threads that trio gives out by default."""
    release = threading.Event()

    async def block() -> None:
        await trio.to_thread.run_sync(release.wait)

    async with group_commit(store) as log, trio.open_nursery() as nursery:
        limiter = trio.to_thread.current_default_thread_limiter()
        for _ in range(int(limiter.total_tokens)):
            nursery.start_soon(block)
        await until(lambda: limiter.available_tokens == 0)

        with trio.fail_after(20):
            await log.append("a", 0, drafts(1))
            await log.read_stream("a")
        release.set()


# --- cancellation --------------------------------------------------------------------------


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_an_append_that_is_cancelled_meanwhile_is_not_left_in_doubt(
    store: WatchedStore, cancelled: int
) -> None:
    """The first leads its commit, the second the next one, and the third is one of its group."""
    store.hold()
    scopes = [trio.CancelScope() for _ in range(3)]
    returned: list[int] = []

    async def append_within(number: int) -> None:
        with scopes[number]:
            records = await log.append(f"s{number}", 0, drafts(1))
            returned.append(number)
            assert len(records) == 1
            await trio.lowlevel.checkpoint()
            assert number != cancelled, "the cancellation takes effect afterwards"

    async with group_commit(store) as log, trio.open_nursery() as nursery:
        nursery.start_soon(append_within, 0)
        await until(store.in_commit.is_set)
        for number in (1, 2):
            nursery.start_soon(append_within, number)
            await trio.testing.wait_all_tasks_blocked(0.01)
        scopes[cancelled].cancel()
        await trio.testing.wait_all_tasks_blocked(0.01)
        store.go.set()

    assert sorted(returned) == [0, 1, 2]
    assert store.groups == [1, 2]
    assert [scope.cancelled_caught for scope in scopes] == [n == cancelled for n in range(3)]


async def test_a_task_that_was_cancelled_before_appends_nothing(store: WatchedStore) -> None:
    async with group_commit(store) as log:
        with trio.CancelScope() as scope:
            scope.cancel()
            await log.append("a", 0, drafts(1))

    assert scope.cancelled_caught
    assert store.groups == []


async def test_a_cancelled_block_ends_when_its_appends_are_known(store: WatchedStore) -> None:
    store.hold()
    known: list[Sequence[Record]] = []

    async def note(stream: str) -> None:
        known.append(await log.append(stream, 0, drafts(1)))

    async def let_go() -> None:
        await until(store.in_commit.is_set)
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked(0.01)
        store.go.set()

    async with trio.open_nursery() as outside:
        outside.start_soon(let_go)
        with trio.CancelScope() as scope:
            async with group_commit(store) as log, trio.open_nursery() as nursery:
                nursery.start_soon(note, "a")
                await until(store.in_commit.is_set)
                nursery.start_soon(note, "b")
                await trio.sleep_forever()

    assert scope.cancelled_caught
    assert store.last_position() == len(known)


async def test_an_error_in_the_block_is_raised_as_it_is(store: WatchedStore) -> None:
    with pytest.raises(KeyError):
        async with group_commit(store):
            raise KeyError


async def test_appending_after_the_block_is_an_error(store: WatchedStore) -> None:
    async with group_commit(store) as log:
        pass

    with pytest.raises(trio.ClosedResourceError):
        await log.append("a", 0, drafts(1))
    assert store.groups == []


# --- failure -------------------------------------------------------------------------------


async def test_a_failure_reaches_those_who_wait_and_those_who_come_later(
    store: WatchedStore,
) -> None:
    store.hold()
    store.error = LogWriteFailed("the log", "the disk is full")
    caught: list[LogWriteFailed] = []

    async def try_to_append(stream: str) -> None:
        with pytest.raises(LogWriteFailed, match="the disk is full") as failure:
            await log.append(stream, 0, drafts(1))
        caught.append(failure.value)

    async with group_commit(store) as log:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(try_to_append, "in the commit")
            await until(store.in_commit.is_set)
            nursery.start_soon(try_to_append, "waiting for the next")
            await trio.testing.wait_all_tasks_blocked(0.01)
            store.go.set()
        await try_to_append("later")

    assert store.groups == [1], "nothing was tried after the failure"
    assert len({id(each) for each in caught}) == 3, "each has an error of its own"


async def test_an_error_nobody_thought_of_stops_the_log_and_hangs_nobody(
    store: WatchedStore,
) -> None:
    store.error = ZeroDivisionError()
    caught: list[str] = []

    async def try_to_append(stream: str) -> None:
        try:
            await log.append(stream, 0, drafts(1))
        except (ZeroDivisionError, LogWriteFailed) as error:
            caught.append(type(error).__name__)

    async with group_commit(store) as log:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(try_to_append, f"s{number}")
        await try_to_append("later")

    assert sorted(caught) == ["LogWriteFailed"] * 3 + ["ZeroDivisionError"]


async def test_an_append_that_can_never_be_right_fails_alone(store: WatchedStore) -> None:
    async def wrong() -> None:
        with pytest.raises(ValueError, match="draft"):
            await log.append("wrong", 0, [])

    async with group_commit(store) as log, trio.open_nursery() as nursery:
        nursery.start_soon(wrong)
        nursery.start_soon(log.append, "right", 0, drafts(1))

    assert store.streams() == ["right"]


def test_an_interrupt_in_the_main_task_does_not_hang_the_others() -> None:
    """Ctrl-C gets past every shield, but only in trio's first task."""
    store = WatchedStore()
    store.hold()
    appended: list[str] = []

    async def submit(log: GroupCommitLog, stream: str) -> None:
        await log.append(stream, 0, drafts(1))
        appended.append(stream)

    @trio.lowlevel.enable_ki_protection  # so that it is not this task that is interrupted
    async def interrupt() -> None:
        await until(store.in_commit.is_set)
        await trio.testing.wait_all_tasks_blocked(0.01)
        signal.raise_signal(signal.SIGINT)
        await until(lambda: interrupted)
        store.go.set()

    async def main() -> None:
        async with group_commit(store) as log, trio.open_nursery() as nursery:
            nursery.start_soon(submit, log, "leads the first")
            nursery.start_soon(interrupt)
            await until(store.in_commit.is_set)
            try:
                await log.append("waits first", 0, drafts(1))
            except KeyboardInterrupt:
                interrupted.append(True)
            await submit(log, "waits too")

    interrupted: list[bool] = []
    trio.run(main)

    assert interrupted
    assert sorted(appended) == ["leads the first", "waits too"]


# --- determinism ---------------------------------------------------------------------------


def test_the_same_run_gives_the_same_log_in_the_event_loop() -> None:
    def run(seed: int) -> list[Record]:
        chance = random.Random(seed)
        store = MemoryStore(LOG_ID, ticking_clock())

        async def submit(log: GroupCommitLog, stream: str, pauses: list[float]) -> None:
            for version, pause in enumerate(pauses):
                await trio.sleep(pause)
                await log.append(stream, version, drafts(1, version))

        async def main() -> None:
            async with group_commit(store, in_thread=False) as log, trio.open_nursery() as nursery:
                for number in range(5):
                    pauses = [chance.random() for _ in range(5)]
                    nursery.start_soon(submit, log, f"s{number}", pauses)

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        return list(store.verified())

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_a_simulated_death_in_a_commit_leaves_it_whole_or_not_at_all() -> None:
    class Died(BaseException):
        pass

    dying = False

    def sync() -> None:
        if dying:
            raise Died

    store = MemoryStore(LOG_ID, ticking_clock(), sync=sync)

    async def main() -> None:
        nonlocal dying
        async with group_commit(store, in_thread=False) as log:
            await log.append("a", 0, drafts(1))
            dying = True
            await log.append("b", 0, drafts(3))

    with pytest.raises(Died):
        trio.run(main)

    assert store.crash_copy().streams() == ["a"]
    found = store.crash_copy(in_doubt=True)
    assert found.streams() == ["a", "b"]
    assert found.version_of("b") == 3


async def test_many_tasks_append_to_a_file_at_once(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "log")

    async def submit(stream: str) -> None:
        for version in range(10):
            await log.append(stream, version, drafts(1, version), closes=version == 9)
            if version == 5:
                assert len(await log.read_stream(stream)) == 6

    async with group_commit(store) as log, trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(submit, f"s{number}")

    assert len(list(store.verified())) == 300
    assert store.open_streams() == []
    store.close()
