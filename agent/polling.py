"""Asks the server's work queues for scheduled runs.

Keeps the list of queues (read by name or by prefix, created when missing), says when one is
paused or resumed, and lets no queue's trouble hide another's runs. Called by the daemon's poll
loop; it decides nothing about the runs that it returns.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

import attrs
import trio

from agent.prefect.errors import ApiError, NotFound
from agent.prefect.models import FlowRun, WorkQueue
from events.notices import Notice, QueueCreated, QueuePaused, QueueResumed

logger = logging.getLogger(__name__)

QUEUES_ARE_FRESH_SECONDS: Final = 30.0
"""As long as Prefect's agents keep their list of queues (2.5 to 2.20)."""

LARGEST_PAGE: Final = 200
"""A larger limit is answered 422 (probed on 2.20.26 and 3.8.8)."""


class QueueServer(Protocol):
    """What polling asks of the Prefect server (`agent.prefect.client` answers)."""

    async def read_work_queue_by_name(self, name: str) -> WorkQueue:
        """Read one queue; NotFound when it does not exist."""
        ...

    async def create_work_queue(self, name: str) -> WorkQueue:
        """Create a queue, or read it when somebody else just did."""
        ...

    async def match_work_queues(self, prefixes: Sequence[str]) -> Sequence[WorkQueue]:
        """Return every queue whose name begins with one of the prefixes."""
        ...

    async def get_runs(
        self, queue_id: UUID, *, limit: int, scheduled_before: datetime
    ) -> Sequence[FlowRun]:
        """Return a queue's scheduled runs, oldest first."""
        ...


@attrs.frozen
class Offer:
    """A scheduled run that a queue handed out."""

    run: FlowRun
    queue: str


@attrs.frozen
class Poll:
    """What one round brought.

    Attributes:
        offers: over all queues, the longest due first.
        failures: by queue name; under "" what kept the list of queues from being read.
        answered: at least one queue answered, or there was none to ask and nothing failed.
        full: a queue gave as many runs as were asked for: there may be more.
    """

    offers: Sequence[Offer]
    failures: Mapping[str, ApiError]
    answered: bool
    full: bool


@attrs.define(eq=False)
class QueuePoller:
    """The queues of one agent.

    Attributes:
        names: queues to poll, created when missing.
        prefixes: also poll every queue whose name begins with one of these; none is created.
        post: records a notice (a queue paused, resumed or created).
    """

    server: QueueServer
    names: Sequence[str]
    prefixes: Sequence[str]
    post: Callable[[Notice], Awaitable[None]]
    _queues: dict[str, WorkQueue] = attrs.field(factory=dict)
    _stale_at: float = -1.0
    _paused: set[str] = attrs.field(factory=set)

    async def poll(self, *, limit: int, scheduled_before: datetime) -> Poll:
        """Ask every queue that is not paused for at most `limit` runs each."""
        failures = await self._refresh()
        offers: list[Offer] = []
        answered, full = not failures, False

        async def ask(queue: WorkQueue) -> None:
            nonlocal answered, full
            try:
                if queue.is_paused and (await self._reread(queue)).is_paused:
                    return
                runs = await self.server.get_runs(
                    queue.id, limit=min(limit, LARGEST_PAGE), scheduled_before=scheduled_before
                )
            except NotFound:
                # Deleted meanwhile: forget the whole list, the next round makes it anew.
                self._stale_at = -1.0
            except ApiError as error:
                failures[queue.name] = error
            else:
                offers.extend(Offer(run, queue.name) for run in runs)
                answered, full = True, full or len(runs) >= limit

        async with trio.open_nursery() as nursery:
            for queue in list(self._queues.values()):
                nursery.start_soon(ask, queue)
        answered = answered and len(failures) < max(len(self._queues), 1)
        return Poll(sorted(offers, key=_due), failures, answered, full)

    async def _refresh(self) -> dict[str, ApiError]:
        """Read the list of queues when it is no longer fresh.

        The clock is trio's: the list does not outlive its time when the host's clock is set
        back. What can't be read is kept as it was, and asked for again at the next poll.
        """
        failures: dict[str, ApiError] = {}
        if trio.current_time() < self._stale_at:
            return failures
        found: dict[str, WorkQueue] = {}
        if self.prefixes:
            try:
                matched = await self.server.match_work_queues(self.prefixes)
                found |= {queue.name: queue for queue in matched}
            except ApiError as error:
                failures[""] = error
                found |= self._queues
        for name in self.names:
            try:
                found[name] = await self._read_or_create(name)
            except ApiError as error:
                failures[name] = error
                if name in self._queues:
                    found[name] = self._queues[name]
        self._queues = found
        if not failures:
            self._stale_at = trio.current_time() + QUEUES_ARE_FRESH_SECONDS
        await self._say_what_is_paused()
        return failures

    async def _read_or_create(self, name: str) -> WorkQueue:
        try:
            return await self.server.read_work_queue_by_name(name)
        except NotFound:
            queue = await self.server.create_work_queue(name)
            logger.info("created work queue %r, which the server did not have", name)
            await self.post(QueueCreated(name))
            return queue

    async def _reread(self, queue: WorkQueue) -> WorkQueue:
        # A paused queue is read at each poll instead of being asked for runs: as many requests,
        # and a resumed one is noticed at once, not when the list is next read.
        fresh = await self.server.read_work_queue_by_name(queue.name)
        self._queues[queue.name] = fresh
        await self._say_what_is_paused()
        return fresh

    async def _say_what_is_paused(self) -> None:
        paused = {name for name, queue in self._queues.items() if queue.is_paused}
        for name in sorted(paused - self._paused):
            logger.warning("work queue %r is paused; nothing is taken from it", name)
            await self.post(QueuePaused(name))
        for name in sorted((self._paused - paused) & self._queues.keys()):
            logger.info("work queue %r is polled again", name)
            await self.post(QueueResumed(name))
        self._paused = paused


def _due(offer: Offer) -> tuple[float, str]:
    due = offer.run.next_scheduled_start_time
    return (due.timestamp() if due else 0.0, str(offer.run.id))
