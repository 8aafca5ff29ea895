"""The agent: recovers what is open, polls for more, drives each submission, and stops with grace.

One nursery owns everything: the poll loop, the signal handler and one task for each submission.
What the daemon keeps in memory is a cache of the log (the open submissions) or about politeness
(when to poll next); a kill at any moment loses none of it that matters.
"""

from __future__ import annotations

import enum
import logging
import random
import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import attrs
import trio

from agent.noticeboard import NoticeBoard
from agent.outage import OutageWatch
from agent.overdue import watch_for_overdue
from agent.polling import LARGEST_PAGE, Offer, QueuePoller
from agent.prefect.models import FlowRun
from agent.submission import SubmissionDriver, World
from events.codec import decode
from events.lifecycle import ON_THE_WAY, State
from events.log import LogError
from events.notices import AGENT_STREAM, AgentStarted, AgentStopped, RunLeftAlone
from events.observations import RunOffered
from events.submission import Submission, fold, stream_name

logger = logging.getLogger(__name__)

LAUNCHES_AT_ONCE: Final = 10
"""How many submissions may be on their way to a start. A run is claimed only when it can be
launched at once, so a crash strands no more than these, and they are recovered."""

REFUSED_RUN_RESTS_SECONDS: Final = 30.0
"""A run that stays Scheduled though its claim was refused is not claimed at every poll."""

ACTIVE: Final = ON_THE_WAY | {State.STARTED}


class OnStop(enum.Enum):
    """What a first SIGINT or SIGTERM does with commands that run."""

    LEAVE = "leave"
    WAIT = "wait"


@attrs.frozen
class Plan:
    """What the operator asked for.

    Attributes:
        limit: at most this many submissions are active at once; None for no limit.
        query_seconds: between two polls, give or take 30 %.
        prefetch_seconds: take runs this long before they are due.
        run_once: poll once, see everything through, return.
        started: the notice that opens the agent's part of the log; the count of open
            submissions is filled in.
        max_late_seconds: runs that were due longer ago are left alone; None for no bound.
        overdue_seconds: how long a submission may be in one state on its way to a start before
            that is said.
    """

    limit: int | None
    query_seconds: float
    prefetch_seconds: float
    run_once: bool
    on_stop: OnStop
    started: AgentStarted
    max_late_seconds: float | None = None
    overdue_seconds: float = 300.0


@attrs.define(eq=False)
class Daemon:
    """One agent at work.

    Attributes:
        now: the host's wall clock; only the server is asked by it, nothing is decided by it.
        drivers: the open submissions by flow run.
        last_poll_worked: whether any queue answered the last poll.
    """

    world: World
    poller: QueuePoller
    board: NoticeBoard
    plan: Plan
    now: Callable[[], datetime]
    random: random.Random
    drivers: dict[UUID, SubmissionDriver] = attrs.field(factory=dict)
    last_poll_worked: bool = False
    _outage: OutageWatch = attrs.field(
        default=attrs.Factory(lambda self: OutageWatch(self.board.post), takes_self=True)
    )
    _resting_until: dict[UUID, float] = attrs.field(factory=dict)
    _left_alone: set[UUID] = attrs.field(factory=set)
    _passed_over: int = 0
    _more_waiting: bool = False
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _stopped_by: str | None = None
    _polling: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self, *, obey_signals: bool = True) -> None:
        """Work until stopped.

        Raises:
            ExceptionGroup: of LogError, when the log can't be used any more. Whatever runs then
                goes on running, and the next agent adopts it.
        """
        async with trio.open_nursery() as nursery:
            if obey_signals:
                nursery.start_soon(self._obey_signals, nursery.cancel_scope)
            await self._recover(nursery)
            nursery.start_soon(
                watch_for_overdue,
                self.drivers.values,
                ON_THE_WAY,
                self.plan.overdue_seconds,
                self.board.post,
            )
            with self._polling:
                await self._poll_until_done(nursery)
            await self._wind_down()
            reason = self._stopped_by or "ran once"
            running = sum(d.submission.state is State.STARTED for d in self.drivers.values())
            await self.board.post(AgentStopped(reason, running))
            logger.info("stopped (%s); %d left running", reason, running)
            nursery.cancel_scope.cancel()

    def stop(self, reason: str) -> None:
        """Take no more runs and wind down; `Plan.on_stop` says what becomes of those that run."""
        self._stopped_by = reason
        self._polling.cancel()

    def note_change(self) -> None:
        """Tell the daemon that a submission moved: there may be room, or nothing left to do."""
        self._changed.set()
        self._changed = trio.Event()

    async def _obey_signals(self, everything: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            async for number in received:
                name = signal.Signals(number).name
                if self._stopped_by is not None:
                    logger.warning("%s again: stopping at once; the next start recovers", name)
                    everything.cancel()
                    return
                logger.info("%s: no more runs are taken (once more: stop at once)", name)
                self.stop(name)

    async def _wind_down(self) -> None:
        """Let every submission come to a rest, or to its end.

        What was claimed is still launched: leaving it would keep it Pending until the next start.
        What waits (for the server, for its command) is in the log, and the next start goes on.
        """
        wait = self.plan.run_once or self.plan.on_stop is OnStop.WAIT
        while any(not (driver.is_resting and not wait) for driver in self.drivers.values()):
            await self._changed.wait()

    # --- submissions --------------------------------------------------------------------------

    async def _recover(self, nursery: trio.Nursery) -> None:
        streams = [s for s in await self.world.log.open_streams() if s != AGENT_STREAM]
        await self.board.post(attrs.evolve(self.plan.started, open_submissions=len(streams)))
        if streams:
            logger.info("recovering %d open submissions from the log", len(streams))
        for stream in streams:
            self._start(await SubmissionDriver.recover(self.world, stream), nursery)

    def _start(self, driver: SubmissionDriver, nursery: trio.Nursery) -> None:
        self.drivers[driver.submission.run.flow_run_id] = driver
        nursery.start_soon(self._drive, driver)

    async def _drive(self, driver: SubmissionDriver) -> None:
        try:
            await driver.run()
        except* LogError:
            raise
        except* Exception as group:
            # A mistake of ours in one submission must not end the others. It stays open in the
            # log, and so is taken up again at the next start.
            for error in group.exceptions:
                logger.critical("%s: given up until the next start: %r", driver.stream, error)
        finally:
            run = driver.submission.run
            self.drivers.pop(run.flow_run_id, None)
            if driver.submission.state is State.ABORTED:
                rest = trio.current_time() + REFUSED_RUN_RESTS_SECONDS
                self._resting_until[run.flow_run_id] = rest
            self.note_change()

    # --- polling ------------------------------------------------------------------------------

    async def _poll_until_done(self, nursery: trio.Nursery) -> None:
        while True:
            await self._poll(nursery)
            if self.plan.run_once:
                return
            usual = self.plan.query_seconds * (0.7 + 0.6 * self.random.random())
            with trio.move_on_after(self._outage.delay_seconds(usual)):
                await self._room_for_what_waits()

    async def _room_for_what_waits(self) -> None:
        """Return as soon as there is room for runs that the last poll had to leave behind."""
        enough = min(LAUNCHES_AT_ONCE // 2, self.plan.limit or LAUNCHES_AT_ONCE)
        while not (self._more_waiting and self._room() >= enough):
            await self._changed.wait()

    def _room(self) -> int:
        """Return how many more runs can be launched at once now."""
        states = [driver.submission.state for driver in self.drivers.values()]
        room = LAUNCHES_AT_ONCE - sum(state in ON_THE_WAY for state in states)
        if self.plan.limit is not None:
            room = min(room, self.plan.limit - sum(state in ACTIVE for state in states))
        return room

    async def _poll(self, nursery: trio.Nursery) -> None:
        room = self._room()
        if room <= 0:
            self._more_waiting = True
            return
        began = trio.current_time()
        self._forget_rested(began)
        # Runs that we have in hand already may still be offered: ask for as many more.
        known = sum(d.submission.state is State.DISCOVERED for d in self.drivers.values())
        passed_over = max(known + len(self._resting_until), self._passed_over)
        limit = min(room + passed_over, LARGEST_PAGE)
        horizon = self.now() + timedelta(seconds=self.plan.prefetch_seconds)
        poll = await self.poller.poll(limit=limit, scheduled_before=horizon)
        self.last_poll_worked = poll.answered
        await self._outage.note(poll.failures, succeeded=poll.answered)
        taken = self._passed_over = 0
        for offer in poll.offers:
            if self._room() <= 0:
                self._more_waiting = True
                return
            if await self._consider(offer, began, nursery):
                taken += 1
            else:
                self._passed_over += 1
        # A page of nothing but runs that are passed over must not be asked for again at once.
        self._more_waiting = poll.full and taken > 0

    def _forget_rested(self, now: float) -> None:
        self._resting_until = {k: t for k, t in self._resting_until.items() if t > now}

    async def _consider(self, offer: Offer, polled_at: float, nursery: trio.Nursery) -> bool:
        """Begin a submission of an offered run, unless it is in hand or was refused just now.

        Returns:
            Whether one was begun.
        """
        run = offer.run
        if run.id in self.drivers or run.id in self._resting_until or run.state is None:
            return False
        due = run.state.state_details.scheduled_time or run.next_scheduled_start_time
        if due is not None and await self._is_too_late(run, due):
            return False
        if run.retry_type == "in_process":
            # Its engine, maybe another agent's, is alive and will go on by itself.
            return False
        earlier = await self._latest_submission(run.id)
        ordinal = attempt = 1
        if earlier is None and (number := await self._latest_ordinal(run.id)):
            # It was archived. Its attempts are not known, but were no more than its submissions.
            ordinal = attempt = number + 1
        if earlier is not None:
            ordinal = earlier.run.ordinal + 1
            if earlier.run.scheduled_state_id == run.state.id:
                if earlier.state is not State.ABORTED:
                    # Already handed to infrastructure from this very state: a stale answer.
                    return False
                attempt = earlier.run.attempt + 1
        observation = RunOffered(
            agent_id=self.plan.started.agent_id,
            flow_run_id=run.id,
            run_name=run.name,
            flow_id=run.flow_id,
            deployment_id=run.deployment_id,
            queue=offer.queue,
            ordinal=ordinal,
            attempt=attempt,
            scheduled_state_id=run.state.id,
            scheduled_time=due.isoformat() if due else None,
        )
        stream = stream_name(run.id, ordinal)
        driver = await SubmissionDriver.begin(
            self.world, stream, observation, run, fresh_since=polled_at
        )
        self._start(driver, nursery)
        return True

    async def _is_too_late(self, run: FlowRun, due: datetime) -> bool:
        late = (self.now() - due).total_seconds()
        if self.plan.max_late_seconds is None or late <= self.plan.max_late_seconds:
            return False
        # It stays Scheduled, and is offered at every poll: ask for as many more, and say it once.
        self._resting_until[run.id] = trio.current_time() + REFUSED_RUN_RESTS_SECONDS
        if run.id not in self._left_alone:
            self._left_alone.add(run.id)
            logger.warning("%s: left alone, it was due %.0f s ago (--max-late)", run.name, late)
            await self.board.post(RunLeftAlone(run.id, run.name, round(late, 3)))
        return True

    async def _latest_ordinal(self, flow_run_id: UUID) -> int:
        streams = await self.world.log.streams(f"{flow_run_id}/")
        return max((int(name.rpartition("/")[2]) for name in streams), default=0)

    async def _latest_submission(self, flow_run_id: UUID) -> Submission | None:
        number = await self._latest_ordinal(flow_run_id)
        latest = stream_name(flow_run_id, number)
        records = await self.world.log.read_stream(latest) if number else ()
        if not records:
            return None
        return fold((decode(record) for record in records), latest)
