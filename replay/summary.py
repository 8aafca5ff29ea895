"""How a submission went, in one line for people and one object for machines.

`replay list` prints a line or an object for each submission, `replay show` puts them at its head.
"""

from __future__ import annotations

from typing import Any

from events.codec import unstructure
from events.lifecycle import ClaimMisplaced, State, SubmissionFailed
from events.submission import Submission, what_next
from replay.timeline import Moment, Timeline
from replay.words import EFFECTS, clock_time, duration, exit_in_words

BAD_AT_THE_SERVER = frozenset({"FAILED", "CRASHED"})

STATE_STYLES = {
    State.ABSENT: "quiet",
    State.DISCOVERED: "wait",
    State.PENDING: "wait",
    State.RESOLVING: "wait",
    State.LAUNCHING: "wait",
    State.STARTED: "busy",
    State.EXITED: "good",
    State.FAILED: "bad",
    State.ABORTED: "quiet",
    State.CANCELLED: "wait",
}


def state_in_words(timeline: Timeline) -> str:
    """Return the state, and that it is not closed when that is not plain from the state."""
    state = timeline.state.value
    ended = timeline.state in (State.EXITED, State.FAILED, State.CANCELLED)
    return f"{state}*" if timeline.is_open and ended else state


def outcome(timeline: Timeline) -> tuple[str, str]:
    """Return what became of it, or what it is at: the words, and a style of `replay.screen`."""
    if timeline.trouble:
        return f"can't be read on from {timeline.trouble}", "bad"
    words, style = _how_it_went(timeline)
    if timeline.is_open and timeline.state is not State.STARTED:
        return " · ".join(part for part in (words, what_is_due(timeline)) if part), style
    return words, style


def went_wrong(timeline: Timeline) -> bool:
    """Tell whether it failed, ended badly, or can't be read; of what is open, so far."""
    return outcome(timeline)[1] == "bad"


def _how_it_went(timeline: Timeline) -> tuple[str, str]:
    style = STATE_STYLES[timeline.state]
    submission = timeline.submission
    match timeline.state:
        case State.STARTED:
            runs_as = submission.confirmed.infrastructure_pid if submission.confirmed else "?"
            waits = f" · {what_is_due(timeline)}" if submission.deferred else ""
            return f"runs as {runs_as}{waits}", style
        case State.EXITED:
            return _how_it_exited(timeline)
        case State.FAILED | State.ABORTED | State.CANCELLED:
            return _how_it_never_ran(timeline), style
        case _:
            return "", style


def _how_it_exited(timeline: Timeline) -> tuple[str, str]:
    exited = timeline.submission.exited
    if exited is None:
        return "", "bad"
    code = exit_in_words(exited.exit_code)
    reason = exited.reason if exited.exit_code != 0 else ""
    parts = [code, reason, _what_the_server_says(timeline)]
    settled = timeline.settled.server_state if timeline.settled else None
    went_wrong = exited.exit_code != 0 or timeline.submission.outcome is not None
    bad = went_wrong or settled in BAD_AT_THE_SERVER
    return " · ".join(part for part in parts if part), "bad" if bad else "good"


def _what_the_server_says(timeline: Timeline) -> str:
    outcome_, settled = timeline.submission.outcome, timeline.settled
    if settled is None:
        return ""
    if outcome_ is None:
        return f"run {settled.server_state}" if settled.server_state else settled.answer
    taken = settled.server_state == outcome_.state_type
    return f"reported {outcome_.state_name}" + ("" if taken else f", answered {settled.answer}")


def _how_it_never_ran(timeline: Timeline) -> str:
    match timeline.ending:
        case None:
            return ""
        case SubmissionFailed() as failed:
            return f"to {failed.step}: {failed.error}"
        case ClaimMisplaced():
            return "claimed too late, given back"
        case refused_or_cancelled:
            return refused_or_cancelled.reason


def what_is_due(timeline: Timeline) -> str:
    """Return what is owed now and what it waits for; empty when nothing is owed."""
    return due_in_words(timeline.submission)


def due_in_words(submission: Submission) -> str:
    """Return what a fold owes and what that waits for; empty when nothing is owed."""
    deferred = submission.deferred
    parts = []
    for effect in what_next(submission):
        text = f"to {EFFECTS[effect]}"
        if deferred is not None and effect is deferred.effect:
            text += f" after a wait of {duration(deferred.delay_seconds)} ({deferred.reason})"
        parts.append(text)
    return ", ".join(parts)


def as_object(timeline: Timeline, now: Moment | None = None) -> dict[str, Any]:
    """Return a submission's summary as JSON values; durations in seconds, times UTC ISO 8601.

    Args:
        now: the end of the log, up to which an open submission is measured.
    """
    submission, run = timeline.submission, timeline.submission.discovered
    exited, ending = submission.exited, timeline.ending
    return {
        "stream": timeline.stream,
        "flow_run_id": str(run.flow_run_id) if run else None,
        "run_name": run.run_name if run else None,
        "ordinal": run.ordinal if run else None,
        "attempt": run.attempt if run else None,
        "queue": run.queue if run else None,
        "deployment_name": timeline.deployment_name,
        "flow_name": timeline.flow_name,
        "deployment_id": str(run.deployment_id) if run and run.deployment_id else None,
        "flow_id": str(run.flow_id) if run and run.flow_id else None,
        "scheduled_time": run.scheduled_time if run else None,
        "launch_key": run.launch_key if run else None,
        "state": timeline.state.value,
        "open": timeline.is_open,
        "owed": [effect.value for effect in timeline.owed],
        "deferred": unstructure(submission.deferred) if submission.deferred else None,
        "began": timeline.began.recorded_at if timeline.began else None,
        "ended": timeline.ended.recorded_at if timeline.ended else None,
        "seconds": timeline.seconds(now),
        "seconds_to_start": timeline.seconds_to_start(now),
        "states": [
            {"state": stretch.state.value, "seconds": stretch.seconds}
            for stretch in timeline.all_stretches(now)
        ],
        "infrastructure_pid": (
            submission.confirmed.infrastructure_pid if submission.confirmed else None
        ),
        "exited": unstructure(exited) if exited else None,
        "ending": {"type": type(ending).__name__, **unstructure(ending)} if ending else None,
        "reported": unstructure(submission.outcome) if submission.outcome else None,
        "settled": unstructure(timeline.settled) if timeline.settled else None,
        "recoveries": timeline.recoveries,
        "waits": timeline.waits,
        "waits_seconds": timeline.waits_seconds,
        "voided_launches": timeline.voided,
        "records": timeline.records,
        "summary": outcome(timeline)[0],
        "trouble": timeline.trouble,
    }


def span_of_time(timeline: Timeline, now: Moment | None) -> str:
    """Return when it began and ended, and how long that took."""
    if timeline.began is None:
        return ""
    began = clock_time(timeline.began.recorded_at, day=True, milliseconds=True)
    lasted = duration(timeline.seconds(now))
    if timeline.ended is None:
        return f"{began}, open for {lasted} so far"
    return f"{began}, closed after {lasted}"
