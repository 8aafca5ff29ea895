"""What happened to the agent itself, kept in the stream `agent`.

Notices are facts for people and for the replay tool (when did it start, was the server away, which
queue was paused). No decision depends on them, and no state is folded from them.
"""

from __future__ import annotations

from uuid import UUID

import attrs

from events.lifecycle import Event, State

AGENT_STREAM = "agent"


@attrs.frozen
class Notice(Event):
    """Base of what happened to the agent itself."""


@attrs.frozen
class AgentStarted(Notice):
    """An agent opened this log.

    Attributes:
        version: pluperfect's.
        agent_id: the log's own id, part of every transition id.
        boot_id: of the host; monotonic stamps compare only within one boot.
        server: the API's URL without credentials.
        queues: names, or prefixes ending in `*`.
        limit: at most this many commands run at once; None for no limit.
        open_submissions: how many were open in the log, and are now recovered.
    """

    version: str
    agent_id: UUID
    hostname: str
    pid: int
    boot_id: str
    server: str
    queues: tuple[str, ...]
    limit: int | None
    prefetch_seconds: float
    open_submissions: int


@attrs.frozen
class AgentStopped(Notice):
    """An agent stopped on purpose. `left_running`: commands that the next one will adopt."""

    reason: str
    left_running: int


@attrs.frozen
class PollingFailed(Notice):
    """Polling began to fail; said once per outage."""

    error: str


@attrs.frozen
class PollingResumed(Notice):
    """Polling works again."""

    outage_seconds: float


@attrs.frozen
class QueuePaused(Notice):
    """A queue is paused: nothing is taken from it."""

    queue: str


@attrs.frozen
class QueueResumed(Notice):
    """A paused queue is polled again."""

    queue: str


@attrs.frozen
class QueueCreated(Notice):
    """A queue was missing at the server, and was created."""

    queue: str


@attrs.frozen
class RunLeftAlone(Notice):
    """A run was not claimed because it was due too long ago; said once per agent and run.

    Attributes:
        late_seconds: how long ago it was due.
    """

    flow_run_id: UUID
    run_name: str
    late_seconds: float


@attrs.frozen
class SubmissionOverdue(Notice):
    """A submission has been on its way to a start for too long; said once per agent and state.

    Attributes:
        submission: the stream.
        state: where it is.
        seconds: for how long it has been there, as far as this agent has seen.
    """

    submission: str
    state: State
    seconds: float
