"""Lets any number of trio tasks append at once, and commits together what arrives together.

There is no writer task. An append that finds no commit under way leads one; those that arrive
meanwhile wait, and the first of them leads the next, for all that have come by then. So groups
grow with the load, no timer holds a lone append back, and every commit is owned by a task that
wants it, which is never cancelled out of it. Used by the daemon around its store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

import attrs
import trio

from events.chain import check
from events.log import Append, Draft, EventStore, LogWriteFailed, Record, VersionConflict

T = TypeVar("T")


@attrs.define(eq=False)
class _Waiting:
    """An append whose task waits: until it is done, or is to lead the commit itself."""

    append: Append
    woken: trio.Event = attrs.field(factory=trio.Event)
    outcome: Sequence[Record] | VersionConflict | LogWriteFailed | None = None


class GroupCommitLog:
    """An `EventLog` over a store. `group_commit` makes one for as long as a block lasts."""

    def __init__(self, store: EventStore, *, in_thread: bool = True) -> None:
        self._store, self._in_thread = store, in_thread
        self._queue: list[_Waiting] = []
        self._idle = trio.Event()
        self._idle.set()
        self._failure: LogWriteFailed | None = None
        self._is_over = False
        # Of its own: commits must not queue behind other blocking calls of the daemon.
        self._committing = trio.CapacityLimiter(1)
        self._reading = trio.CapacityLimiter(1)

    async def append(
        self,
        stream: str,
        expected_version: int,
        drafts: Sequence[Draft],
        *,
        closes: bool = False,
    ) -> Sequence[Record]:
        """See `EventLog.append`.

        Raises:
            VersionConflict: see `EventLog.append`.
            LogWriteFailed: see `EventLog.append`.
            ValueError: an append that could never be right; nothing was appended.
            trio.ClosedResourceError: the block of `group_commit` was left.
        """
        append = Append(stream, expected_version, drafts, closes)
        check(append)
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._failure is not None:
            raise _another(self._failure)
        if self._is_over:
            raise trio.ClosedResourceError("the log is no longer appended to")
        waiting = _Waiting(append)
        self._queue.append(waiting)
        with trio.CancelScope(shield=True):
            if self._idle.is_set():
                self._idle = trio.Event()
            else:
                await self._wait(waiting)
            if waiting.outcome is None:
                await self._lead()
        match waiting.outcome:
            case VersionConflict() | LogWriteFailed() as error:
                raise error
            case None:
                raise AssertionError("a commit ended without an outcome")
            case records:
                return records

    async def read_stream(self, stream: str, after_version: int = 0) -> Sequence[Record]:
        """See `EventLog.read_stream`."""
        return await self._read(lambda: self._store.read_stream(stream, after_version))

    async def open_streams(self) -> Sequence[str]:
        """See `EventLog.open_streams`."""
        return await self._read(self._store.open_streams)

    async def streams(self, prefix: str = "") -> Sequence[str]:
        """See `EventLog.streams`."""
        return await self._read(lambda: self._store.streams(prefix))

    async def version_of(self, stream: str) -> int:
        """See `EventLog.version_of`."""
        return await self._read(lambda: self._store.version_of(stream))

    async def close(self) -> None:
        """Refuse what is appended from now on, and wait for what is under way."""
        self._is_over = True
        with trio.CancelScope(shield=True):
            await self._idle.wait()

    async def _wait(self, waiting: _Waiting) -> None:
        try:
            await waiting.woken.wait()
        except BaseException:
            # Only a KeyboardInterrupt in trio's main task gets past the shield. The process is
            # about to end; the others must not wait for this task to lead.
            with suppress(ValueError):
                self._queue.remove(waiting)
            raise

    async def _lead(self) -> None:
        """Commit all that has come by now, and let the first of the rest lead the next commit."""
        try:
            # One turn of the event loop (3 µs), in which every task that is ready to append does:
            # without it a hundred tasks in lockstep make two commits a round, of one and of 99.
            await trio.lowlevel.cancel_shielded_checkpoint()
            group, self._queue = self._queue, []
            await self._commit(group)
        finally:
            if self._queue:
                self._queue[0].woken.set()
            else:
                self._idle.set()

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        outcomes: Sequence[Sequence[Record] | VersionConflict | LogWriteFailed] = ()
        try:
            if self._failure is None:
                outcomes = await self._write([waiting.append for waiting in group])
        except LogWriteFailed as error:
            self._failure = error
        except BaseException as error:
            # Nobody knows what the store did: the same as a failed write, for everybody else.
            path = getattr(self._store, "path", "(in memory)")
            self._failure = LogWriteFailed(path, f"{type(error).__name__} in a commit")
            raise
        finally:
            if self._failure is not None:
                outcomes = [_another(self._failure) for _ in group]
            for waiting, outcome in zip(group, outcomes, strict=True):
                waiting.outcome = outcome
                waiting.woken.set()

    async def _write(
        self, appends: Sequence[Append]
    ) -> Sequence[Sequence[Record] | VersionConflict]:
        if not self._in_thread:
            return self._store.commit(appends)
        commit = partial(self._store.commit, appends)
        return await trio.to_thread.run_sync(commit, limiter=self._committing)

    async def _read(self, read: Callable[[], T]) -> T:
        if self._in_thread:
            return await trio.to_thread.run_sync(read, limiter=self._reading)
        await trio.lowlevel.checkpoint()
        return read()


def _another(error: LogWriteFailed) -> LogWriteFailed:
    """Return the same error anew: one object raised in several tasks gathers their tracebacks."""
    return LogWriteFailed(error.path, error.reason)


@asynccontextmanager
async def group_commit(
    store: EventStore, *, in_thread: bool = True
) -> AsyncIterator[GroupCommitLog]:
    """Append to a store from many tasks, within a block.

    Args:
        store: nobody else writes to it meanwhile. It is not closed.
        in_thread: False commits in the event loop: for a store in memory, where everything then
            happens in the same order each time.
    """
    log = GroupCommitLog(store, in_thread=in_thread)
    try:
        yield log
    finally:
        await log.close()
