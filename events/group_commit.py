"""Lets any number of trio tasks append at once, and commits together what arrives together.

One task drains what has queued up while the previous commit was under way: batches grow with the
load, and no timer holds a lone append back. Commits run in a thread, so that a slow disk stops
nothing but the tasks that wait for it. Used by the daemon around a `SqliteStore`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

import attrs
import trio

from events.log import Append, Draft, EventStore, LogWriteFailed, Record, VersionConflict

T = TypeVar("T")


@attrs.define(eq=False)
class _Waiting:
    """An append and the task that waits for it."""

    append: Append
    done: trio.Event = attrs.field(factory=trio.Event)
    outcome: Sequence[Record] | VersionConflict | LogWriteFailed | None = None


@attrs.define(eq=False)
class GroupCommitLog:
    """An `EventLog` over a store. Make it with `group_commit`."""

    _store: EventStore
    _in_thread: bool
    _queue: trio.MemorySendChannel[_Waiting]
    _failure: LogWriteFailed | None = None
    # SQLite connections are not for two threads at a time: reads and commits take turns.
    _turn: trio.Lock = attrs.field(factory=trio.Lock)

    async def append(
        self,
        stream: str,
        expected_version: int,
        drafts: Sequence[Draft],
        *,
        closes: bool = False,
    ) -> Sequence[Record]:
        """See `EventLog.append`."""
        if self._failure is not None:
            raise self._failure
        waiting = _Waiting(Append(stream, expected_version, drafts, closes))
        # Once it is queued it will be committed: the caller must learn the outcome, also when it
        # is being cancelled, or it would not know what the log says.
        self._queue.send_nowait(waiting)
        with trio.CancelScope(shield=True):
            await waiting.done.wait()
        match waiting.outcome:
            case VersionConflict() | LogWriteFailed() as error:
                raise error
            case None:
                raise AssertionError("a commit ended without an outcome")
            case records:
                return records

    async def read_stream(self, stream: str, after_version: int = 0) -> Sequence[Record]:
        """See `EventLog.read_stream`."""
        return await self._call(lambda: self._store.read_stream(stream, after_version))

    async def open_streams(self) -> Sequence[str]:
        """See `EventLog.open_streams`."""
        return await self._call(self._store.open_streams)

    async def streams(self, prefix: str = "") -> Sequence[str]:
        """See `EventLog.streams`."""
        return await self._call(lambda: self._store.streams(prefix))

    async def version_of(self, stream: str) -> int:
        """See `EventLog.version_of`."""
        return await self._call(lambda: self._store.version_of(stream))

    async def _call(self, work: Callable[[], T]) -> T:
        async with self._turn:
            if self._in_thread:
                return await trio.to_thread.run_sync(work)
            return work()

    async def _write(self, arrivals: trio.MemoryReceiveChannel[_Waiting]) -> None:
        # Cancelling the daemon does not stop the writer: what tasks in their last moments append
        # (they are shielded as well) must still be answered. It ends when the channel closes.
        with trio.CancelScope(shield=True):
            async for first in arrivals:
                batch = [first]
                with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
                    while True:
                        batch.append(arrivals.receive_nowait())
                await self._commit(batch)

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        try:
            if self._failure is not None:
                raise self._failure
            appends = [waiting.append for waiting in batch]
            outcomes = await self._call(lambda: self._store.commit(appends))
        except LogWriteFailed as error:
            self._failure = error
            for waiting in batch:
                waiting.outcome = error
        else:
            for waiting, outcome in zip(batch, outcomes, strict=True):
                waiting.outcome = outcome
        for waiting in batch:
            waiting.done.set()


@contextlib.asynccontextmanager
async def group_commit(
    store: EventStore, *, in_thread: bool = True
) -> AsyncIterator[GroupCommitLog]:
    """Run the writer for as long as the block lasts; what was queued is still committed.

    Args:
        store: is used by nobody else meanwhile, and is not closed.
        in_thread: False runs commits in the event loop: for a store in memory, where the order
            of everything is then the same each time.
    """
    send, receive = trio.open_memory_channel[_Waiting](math.inf)
    log = GroupCommitLog(store, in_thread, send)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log._write, receive)
        try:
            yield log
        finally:
            send.close()
