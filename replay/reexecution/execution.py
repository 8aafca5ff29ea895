"""Lets the daemon's driver live a recorded stream again, life after life, on a virtual clock.

`reexecute` is what `replay run` calls. Nothing outside of the process is touched: the record is
the world (`world`), and the time that passes is its own.
"""

from __future__ import annotations

import traceback
from bdb import BdbQuit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import trio

from agent.prefect.models import FlowRun, State, StateDetails, structure
from agent.submission import SubmissionDriver, World
from events.observations import AgentRestarted
from events.submission import Submission
from replay.reexecution.comparison import Divergence, Step, values_not_kept
from replay.reexecution.debugging import DebuggerLeft, Pause
from replay.reexecution.recording import Recording
from replay.reexecution.stage import Stage
from replay.reexecution.virtual_clock import VirtualClock
from replay.reexecution.world import world_of


@attrs.define
class Outcome:
    """What came of a re-execution.

    Attributes:
        steps: the events that were compared; the last of them may be a difference.
        divergence: None when everything was appended again.
        submission: the fold of what is the same.
        virtual_seconds: that passed for the daemon's code.
        left: the debugger was left, and the rest was not executed.
    """

    steps: list[Step] = attrs.field(factory=list)
    divergence: Divergence | None = None
    submission: Submission = attrs.field(factory=Submission)
    virtual_seconds: float = 0.0
    left: bool = False

    @property
    def same(self) -> bool:
        """Whether the daemon's code appends what is recorded, to the end."""
        return self.divergence is None and not self.left

    @property
    def stood_in(self) -> int:
        """How many errors the daemon was handed in their recorded words."""
        return sum(step.stood_in for step in self.steps)

    @property
    def values_not_kept(self) -> int:
        """How many values of environment variables could not be compared."""
        return sum(values_not_kept(step.entry.event) for step in self.steps)


def reexecute(
    recording: Recording, report: Callable[[Step], None], pause: Pause | None = None
) -> Outcome:
    """Let the daemon's code live a recording again, up to its end or the first divergence.

    Args:
        recording: what was recorded.
        report: is told each step, as soon as the daemon has appended it.
        pause: where to call the debugger.
    """
    outcome = Outcome()

    def note(step: Step) -> None:
        outcome.steps.append(step)
        report(step)

    pause = pause or Pause(None, lambda _entry: None)
    try:
        trio.run(_live_all, recording, note, pause, outcome, clock=VirtualClock())
    except* (DebuggerLeft, BdbQuit):
        outcome.left = True
    return outcome


async def _live_all(
    recording: Recording, report: Callable[[Step], None], pause: Pause, outcome: Outcome
) -> None:
    for life in recording.lives:
        stage = Stage(life, report, pause, outcome.submission, life.first)
        await _live(stage, recording)
        outcome.submission, outcome.divergence = stage.submission, stage.divergence
        outcome.virtual_seconds = trio.current_time()
        if outcome.divergence is not None:
            return


async def _live(stage: Stage, recording: Recording) -> None:
    world = world_of(stage, recording)
    try:
        with stage.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stage.watch)
                await _drive(world, stage, recording)
                nursery.cancel_scope.cancel()
    except* Exception as group:
        if quitted := group.subgroup(BdbQuit):
            raise quitted from None
        stage.note_divergence(f"the daemon's code breaks: {_first_place(group)}")
    if stage.divergence is None and stage.next is not None:
        stage.note_divergence("the daemon has nothing more to do here")


async def _drive(world: World, stage: Stage, recording: Recording) -> None:
    if isinstance(stage.life.entries[0].event, AgentRestarted):
        driver = await SubmissionDriver.recover(world, recording.stream)
    else:
        driver = await SubmissionDriver.begin(
            world,
            recording.stream,
            recording.offer,
            _offered_run(recording),
            fresh_since=trio.current_time(),
        )
    await driver.run()


def _offered_run(recording: Recording) -> FlowRun:
    """Return the run as the poll handed it out, as far as the offer tells."""
    offer = recording.offer
    due = {"scheduled_time": offer.scheduled_time}
    return FlowRun(
        id=offer.flow_run_id,
        name=offer.run_name,
        flow_id=offer.flow_id,
        deployment_id=offer.deployment_id,
        work_queue_name=offer.queue,
        state=State(
            offer.scheduled_state_id, "SCHEDULED", state_details=structure(due, StateDetails)
        ),
    )


def _first_place(group: BaseExceptionGroup[Any]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
