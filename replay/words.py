"""Events in the words that matter: one short text for each, as `replay show` prints beside it.

Not a dump: ids that nobody compares, and what the line before has said already, are left out
(`replay show --full` has every field). A test checks that every event there is has its words.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from events.lifecycle import (
    ClaimMisplaced,
    Effect,
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
    Verdict,
)
from events.notices import (
    AgentStarted,
    AgentStopped,
    PollingFailed,
    PollingResumed,
    QueueCreated,
    QueuePaused,
    QueueResumed,
    RunLeftAlone,
    SubmissionOverdue,
)
from events.observations import (
    AgentRestarted,
    CommandEnded,
    CommandRefused,
    CommandStarted,
    EvidenceFound,
    InfrastructureResolved,
    LaunchUncertain,
    PidAcknowledged,
    ProposalAnswered,
    RequestFailed,
    ResolutionFailed,
    RunMissing,
    RunOffered,
    RunRead,
)

SHORTEST_ECHO: Final = 12
"""A text shorter than this is repeated rather than replaced by an ellipsis."""

EFFECTS: Final[Mapping[Effect, str]] = {
    Effect.PROPOSE_PENDING: "claim the run",
    Effect.RESOLVE: "work out what to launch",
    Effect.LAUNCH: "launch it",
    Effect.EXAMINE: "examine the evidence of the launch",
    Effect.WATCH: "watch the command",
    Effect.REPORT_PID: "tell the server its pid",
    Effect.READ_RUN: "read the run's state at the server",
    Effect.REPORT_OUTCOME: "tell the server how it ended",
}
"""What is owed, as something to do."""


def clock_time(recorded_at: str, *, day: bool = False, milliseconds: bool = False) -> str:
    """Return a moment of the log (ISO 8601) as the reader's own wall clock showed it."""
    try:
        local = datetime.fromisoformat(recorded_at).astimezone()
    except ValueError:
        return recorded_at  # Not ours, or altered: shown as it is.
    text = local.strftime("%Y-%m-%d %H:%M:%S" if day else "%H:%M:%S")
    return f"{text}.{local.microsecond // 1000:03}" if milliseconds else text


def zone() -> str:
    """Return the name of the time zone that `clock_time` shows."""
    return datetime.now().astimezone().strftime("%Z (UTC%z)").replace("UTC (UTC+0000)", "UTC")


def duration(seconds: float) -> str:
    """Return a duration with as much precision as anybody needs: `31 ms`, `4.2 s`, `2 h 05 m`."""
    if math.isnan(seconds):
        return "?"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02} h"
    return f"{hours} h {minutes:02} m" if hours else f"{minutes} m {whole:02} s"


def exit_in_words(code: int | None) -> str:
    """Return an exit code, or the signal that it stands for."""
    if code is None:
        return "lost"
    if code >= 0:
        return f"exit {code}"
    import signal  # noqa: PLC0415 - rarely needed

    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def describe(event: Event, said: str = "") -> str:
    """Return what matters of an event, perhaps nothing; may hold newlines.

    Args:
        said: the words of the observation that this event follows from; what they have told
            already is not told again.
    """
    text = _WORDS[type(event)](event)
    if not said:
        return text
    if text == said:
        return ""
    return text.replace(said, "…") if len(said) >= SHORTEST_ECHO else text


def _joined(*parts: str | None) -> str:
    return " · ".join(part for part in parts if part)


def _server_state(name: str | None, type_: str | None) -> str:
    if type_ is None and name is None:
        return "without a state"
    if type_ is None or name is None or name.upper() == type_:
        return f"{type_ or name}"
    return f"{type_} ({name})"


def _offered(event: RunOffered) -> str:
    due = event.scheduled_time and f"due {clock_time(event.scheduled_time, day=True)}"
    again = f"attempt {event.attempt}" if event.attempt > 1 else None
    return _joined(due, again)


def _answered(event: ProposalAnswered) -> str:
    state = event.state_type and f"the run is {_server_state(event.state_name, event.state_type)}"
    wait = None if event.delay_seconds is None else f"wait {duration(event.delay_seconds)}"
    return _joined(event.status, wait, state, event.reason)


def _read(event: RunRead) -> str:
    runs_as = event.infrastructure_pid and f"on {event.infrastructure_pid}"
    return _joined(f"the run is {_server_state(event.state_name, event.state_type)}", runs_as)


def _command(command: tuple[str, ...], working_dir: str | None) -> str:
    return _joined(shlex.join(command), working_dir and f"in {working_dir}")


def _resolved(event: InfrastructureResolved) -> str:
    return _command(event.command, event.working_dir)


def _evidence(event: EvidenceFound) -> str:
    ended = exit_in_words(event.exit_code) if event.verdict is Verdict.FINISHED else None
    verdict = event.verdict.value.replace("_", " ")
    return _joined(verdict, ended, event.detail)


def _exited(event: InfrastructureExited | CommandEnded) -> str:
    return _joined(exit_in_words(event.exit_code), event.reason)


def _deferred(event: EffectDeferred) -> str:
    when = f"in {duration(event.delay_seconds)}" if event.delay_seconds else "at once"
    return f"to {EFFECTS[event.effect]}, again {when}: {event.reason}"


def _started(event: AgentStarted) -> str:
    limit = f"limit {event.limit}" if event.limit is not None else None
    queues = "queues " + ", ".join(event.queues)
    found = f"{event.open_submissions} open to recover" if event.open_submissions else None
    who = f"pluperfect {event.version}, process {event.pid} on {event.hostname}"
    return _joined(who, event.server, queues, limit, found)


def _stopped(event: AgentStopped) -> str:
    return _joined(event.reason, f"{event.left_running} left running")


def _nothing(_event: Event) -> str:
    return ""


_WORDS: Final[Mapping[type[Event], Callable[[Any], str]]] = {
    # What we learned.
    RunOffered: _offered,
    AgentRestarted: lambda _e: "the agent before is gone",
    ProposalAnswered: _answered,
    RunRead: _read,
    RunMissing: lambda e: f"the server does not know the run (it was to {EFFECTS[e.effect]})",
    RequestFailed: lambda e: e.error + ("" if e.retryable else " (trying again won't help)"),
    InfrastructureResolved: _resolved,
    ResolutionFailed: lambda e: e.error,
    CommandStarted: lambda e: f"runs as {e.infrastructure_pid}",
    CommandRefused: lambda e: e.error,
    LaunchUncertain: lambda e: e.error,
    EvidenceFound: _evidence,
    CommandEnded: _exited,
    PidAcknowledged: _nothing,
    # What we decided.
    RunDiscovered: _nothing,  # All of it stands in the head of the page.
    PendingProposed: lambda e: f"as transition {str(e.transition_id)[:8]}…",
    PendingAccepted: lambda e: "it is ours" + (", as an earlier answer said" * e.repeated),
    PendingRefused: lambda e: e.reason,
    ClaimMisplaced: lambda _e: "too late: it was over, or scheduled anew, by then",
    ResolutionStarted: _nothing,
    LaunchRequested: lambda e: _command(e.command, e.working_dir),
    LaunchVoided: lambda e: _joined("it may be launched again", e.reason),
    LaunchRepeated: lambda e: _joined("it may have run, and is launched again", e.reason),
    LaunchConfirmed: lambda e: f"{'found' if e.adopted else 'runs'} as {e.infrastructure_pid}",
    InfrastructureAdopted: lambda e: e.detail,
    InfrastructureExited: _exited,
    SubmissionFailed: lambda e: f"to {e.step}: {e.error}",
    SubmissionCancelled: lambda e: e.reason,
    PidReported: lambda e: e.answer,
    OutcomeProposed: lambda e: f"{_server_state(e.state_name, e.state_type)}: {e.message}",
    OutcomeSettled: lambda e: e.answer,
    EffectDeferred: _deferred,
    RecoveryStarted: _nothing,
    # What happened to the agent.
    AgentStarted: _started,
    AgentStopped: _stopped,
    PollingFailed: lambda e: e.error,
    PollingResumed: lambda e: f"after {duration(e.outage_seconds)}",
    QueuePaused: lambda e: e.queue,
    RunLeftAlone: lambda e: f"{e.run_name} was due {e.late_seconds:.0f} s ago",
    SubmissionOverdue: lambda e: f"{e.submission}: {e.state.name} for {e.seconds:.0f} s",
    QueueResumed: lambda e: e.queue,
    QueueCreated: lambda e: e.queue,
}
