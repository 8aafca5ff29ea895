"""Tells each transition in one line: which run, what happened, and how long it had been there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from agent.console import DETAILS
from agent.submission import SubmissionDriver
from events.lifecycle import (
    ClaimMisplaced,
    EffectDeferred,
    Event,
    InfrastructureAdopted,
    InfrastructureExited,
    LaunchConfirmed,
    LaunchRepeated,
    LaunchRequested,
    LaunchVoided,
    OutcomeProposed,
    OutcomeSettled,
    PendingAccepted,
    PendingProposed,
    PendingRefused,
    PidReported,
    RecoveryStarted,
    ResolutionStarted,
    RunDiscovered,
    SubmissionCancelled,
    SubmissionFailed,
    Transition,
)
from events.submission import Submission

logger = logging.getLogger("pluperfect")


@attrs.define(eq=False)
class Narrator:
    """Remembers since when each submission has been in its state; a listener of the drivers."""

    _since: dict[str, float] = attrs.field(factory=dict)

    def tell(self, driver: SubmissionDriver, before: Submission, events: Sequence[Event]) -> None:
        """Say what was just recorded of one submission."""
        now = trio.current_time()
        began = self._since.setdefault(driver.stream, now)
        submission = driver.submission
        for event in events:
            if isinstance(event, Transition):
                self._say(driver, before, event, now - began)
        if submission.state is not before.state:
            self._since[driver.stream] = now
        if submission.is_closed:
            del self._since[driver.stream]

    def _say(
        self, driver: SubmissionDriver, before: Submission, event: Transition, seconds: float
    ) -> None:
        run = driver.submission.run
        level, text = describe(event)
        state = driver.submission.state.value
        details: dict[str, Any] = {
            "flow_run_id": str(run.flow_run_id),
            "flow_run_name": run.run_name,
            "stream": driver.stream,
            "event": type(event).__name__,
            "state_before": before.state.value,
            "state": state,
            "seconds_in_state": round(seconds, 3),
        }
        short = str(run.flow_run_id)[:8]
        logger.log(
            level,
            "%s %s: %s (%s after %.0f ms)",
            run.run_name,
            short,
            text,
            state,
            seconds * 1000,
            extra={DETAILS: details},
        )


def describe(event: Transition) -> tuple[int, str]:  # noqa: PLR0912 - one line for each event
    """Return a log level and a few words for a transition."""
    match event:
        case RunDiscovered():
            return logging.INFO, f"found in queue {event.queue!r}"
        case PendingProposed():
            return logging.DEBUG, "claiming it"
        case PendingAccepted():
            return logging.INFO, "claimed" + (", as an earlier answer said" * event.repeated)
        case PendingRefused():
            return logging.INFO, f"left alone: {event.reason}"
        case ClaimMisplaced():
            return logging.WARNING, "claimed too late: another agent is done with it, given back"
        case ResolutionStarted():
            return logging.DEBUG, "reading what to launch"
        case LaunchRequested():
            return logging.INFO, f"launching {event.infrastructure} {event.command[0]!r}"
        case LaunchVoided():
            return logging.WARNING, f"never ran, launching again: {event.reason}"
        case LaunchRepeated():
            return logging.WARNING, f"may have run, launching again: {event.reason}"
        case LaunchConfirmed():
            verb = "found running" if event.adopted else "started"
            return logging.INFO, f"{verb} as {event.infrastructure_pid}"
        case InfrastructureAdopted():
            return logging.INFO, f"still runs, adopted: {event.detail}"
        case InfrastructureExited():
            return _describe_exit(event)
        case SubmissionFailed():
            return logging.ERROR, f"failed to {event.step}: {event.error}"
        case SubmissionCancelled():
            return logging.WARNING, f"not launched: {event.reason}"
        case PidReported():
            return logging.DEBUG, f"server was told its pid: {event.answer}"
        case OutcomeProposed():
            return logging.WARNING, f"reporting {event.state_name}: {event.message}"
        case OutcomeSettled():
            return logging.INFO, f"done: {event.answer}"
        case EffectDeferred():
            wait = f"again in {event.delay_seconds:.1f} s"
            return logging.WARNING, f"can't {event.effect.value}, {wait}: {event.reason}"
        case RecoveryStarted():
            return logging.INFO, "taken over from an earlier agent"
        case _:
            return logging.INFO, type(event).__name__


def _describe_exit(event: InfrastructureExited) -> tuple[int, str]:
    if event.exit_code == 0:
        return logging.INFO, "exited cleanly"
    if event.exit_code is None:
        return logging.ERROR, f"lost: {event.reason}"
    why = f" ({event.reason})" if event.reason else ""
    return logging.WARNING, f"exited with status code {event.exit_code}{why}"
