"""`pluperfect agent status`: what runs now, from the log and the spool alone.

Works whether the agent is alive or not, takes no lock and changes nothing. Imported by the command
line when it is asked for; imports neither trio nor httpx, so that it answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs

from agent.infrastructure.keeper import boot_id
from agent.infrastructure.procfs import Process, is_alive
from agent.infrastructure.spool import BadLaunchKey, LaunchFolder, Sight
from events.codec import decode
from events.lifecycle import Effect, Verdict
from events.log import Record
from events.notices import (
    AGENT_STREAM,
    AgentStarted,
    AgentStopped,
    PollingFailed,
    PollingResumed,
    QueuePaused,
    QueueResumed,
)
from events.places import LOG_NAME
from events.sqlite_reader import SqliteReader
from events.submission import Submission, evolve, what_next

EXIT_NO_AGENT: Final = 1
"""The log can be read, and no agent is at work on it."""

_FIRST_LOOK: Final = 32
"""Notices that are read first, from the end; more only if the agent's start is not among them."""

_OWED: Final[Mapping[Effect, str]] = {
    Effect.PROPOSE_PENDING: "claim the run",
    Effect.RESOLVE: "work out what to launch",
    Effect.LAUNCH: "launch it",
    Effect.EXAMINE: "look what became of its command",
    Effect.WATCH: "see it through",
    Effect.REPORT_PID: "tell the server its pid",
    Effect.READ_RUN: "read the run",
    Effect.REPORT_OUTCOME: "tell the server how it ended",
}


@attrs.frozen
class Holder:
    """The living process that holds the log's lock. `since`: UTC, ISO 8601; None if unreadable."""

    pid: int
    since: str | None


@attrs.frozen
class AgentPart:
    """The agent of a log: the living one, or else the last.

    Attributes:
        holder: None when no agent is alive.
        started: its notice; None if none ever got so far.
        started_at: when it said so, UTC, ISO 8601.
        stopped: its last words; None if it lives, or was killed.
        stopped_at: of those, or of the last record of one that was killed.
        outage: since when, and why, no queue could be polled.
        paused: queues that it found paused.
    """

    holder: Holder | None
    started: AgentStarted | None = None
    started_at: str | None = None
    stopped: AgentStopped | None = None
    stopped_at: str | None = None
    outage: tuple[str, str] | None = None
    paused: Sequence[str] = ()


@attrs.frozen
class SubmissionPart:
    """One open submission, and its command as the spool has it.

    Attributes:
        since: when it came into its state, UTC, ISO 8601.
        sight: what the launch folder shows; None before there was a launch.
    """

    stream: str
    submission: Submission
    since: str
    sight: Sight | None


@attrs.frozen
class Status:
    """All that there is to say about one state folder."""

    folder: Path
    agent: AgentPart
    submissions: Sequence[SubmissionPart]


def read_status(folder: Path) -> Status:
    """Read a state folder, whoever else works in it.

    Raises:
        LogError: there is no log, or it can't be read.
    """
    log, spool = folder / LOG_NAME, folder / "spool"
    reader = SqliteReader.open(log)
    try:
        agent = _read_agent(reader, _holder(log))
        streams = [stream for stream in reader.open_streams() if stream != AGENT_STREAM]
        # A submission may be closed between the two reads, and is then no longer of interest.
        found = (_read_submission(reader, stream, spool) for stream in streams)
        submissions = [part for part in found if not part.submission.is_closed]
    finally:
        reader.close()
    return Status(folder, agent, submissions)


def _read_agent(reader: SqliteReader, holder: Holder | None) -> AgentPart:
    part = AgentPart(holder)
    last = reader.last_position()
    paused: set[str] = set()
    for record in _since_the_last_start(reader):
        match event := decode(record):
            case AgentStarted():
                part = AgentPart(holder, event, record.recorded_at)
                paused = set()
            case AgentStopped():
                part = attrs.evolve(part, stopped=event, stopped_at=record.recorded_at)
            case PollingFailed():
                part = attrs.evolve(part, outage=(record.recorded_at, event.error))
            case PollingResumed():
                part = attrs.evolve(part, outage=None)
            case QueuePaused():
                paused.add(event.queue)
            case QueueResumed():
                paused.discard(event.queue)
            case _:
                continue
    if holder is None and part.started is not None and part.stopped is None:
        latest = next(iter(reader.read_all(last - 1)), None)
        part = attrs.evolve(part, stopped_at=latest.recorded_at if latest else None)
    return attrs.evolve(part, paused=sorted(paused))


def _since_the_last_start(reader: SqliteReader) -> Sequence[Record]:
    """Return the newest notices, back to an agent's start at least; all if there is none."""
    end, size = reader.version_of(AGENT_STREAM), _FIRST_LOOK
    while True:
        records = reader.read_stream(AGENT_STREAM, max(end - size, 0))
        if size >= end or any(record.type == AgentStarted.__name__ for record in records):
            return records
        size *= 8


def _read_submission(reader: SqliteReader, stream: str, spool: Path) -> SubmissionPart:
    submission, since = Submission(), ""
    for record in reader.read_stream(stream):
        before = submission.state
        submission = evolve(submission, decode(record), stream)
        if submission.state is not before:
            since = record.recorded_at
    return SubmissionPart(stream, submission, since, _look(submission, spool))


def _look(submission: Submission, spool: Path) -> Sight | None:
    if submission.launch is None and submission.confirmed is None:
        return None
    try:
        return LaunchFolder.of(spool, submission.launch_key).look()
    except (BadLaunchKey, OSError):
        # Somebody else's folder, perhaps: what can't be looked at can't be told about.
        return None


# --- is it alive ---------------------------------------------------------------------------


def _holder(log: Path) -> Holder | None:
    """Return who holds the log's lock, without touching it.

    The kernel's list is read (proc(5), /proc/locks): taking the lock to find out would turn away
    an agent that starts at that moment. Only processes of this host, and of this container, show.
    """
    lock = Path(f"{os.path.realpath(log)}.lock")
    try:
        stat = lock.stat()
        words = lock.read_text(errors="replace").split("\n")[0].split()
    except OSError:
        return None
    device = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}"
    for pid, place in _flock_holders(stat.st_ino):
        named = len(words) == 3 and words[0] == str(pid)
        # Some file systems (overlay, btrfs) show another device in the list than to stat.
        if named or place == device:
            return Holder(pid, words[2] if named else None)
    return None


def _flock_holders(inode: int) -> Iterator[tuple[int, str]]:
    """Yield process and device of whoever holds an flock on a file with this number."""
    # "1: FLOCK  ADVISORY  WRITE 708 fe:00:2359475 0 EOF"; one that waits has "->" after the number.
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[3] == "WRITE":
            device, _, number = fields[5].rpartition(":")
            if number == str(inode):
                yield int(fields[4]), device


# --- for people ----------------------------------------------------------------------------


def describe(status: Status, now: datetime) -> Iterator[str]:
    """Yield the lines of the status for people; times are local."""
    yield from _describe_agent(status.agent, status.folder, now)
    if not status.submissions:
        yield "no submission is open: nothing runs, and nothing is owed"
        return
    count = len(status.submissions)
    alive = sum(_command_lives(part) for part in status.submissions)
    yield f"{count} open submission{'s' * (count != 1)}, {alive} with a living command:"
    yield ""
    rows: list[tuple[str, ...]] = [("RUN", "ID", "STATE", "FOR", "PID", "COMMAND", "OWED")]
    rows += [_row(part, now) for part in status.submissions]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _describe_agent(agent: AgentPart, folder: Path, now: datetime) -> Iterator[str]:
    started = agent.started
    if agent.holder is not None:
        since = agent.holder.since or agent.started_at
        told = f" since {_local(since)} ({_ago(since, now)})" if since else ""
        yield f"agent alive: process {agent.holder.pid}{told}; log and spool: {folder}"
    elif started is None or agent.stopped_at is None:
        yield f"no agent is alive; log and spool: {folder}"
    elif agent.stopped is not None:
        when, why = _local(agent.stopped_at), _printable(agent.stopped.reason)
        yield f"no agent is alive; the last one stopped at {when} ({why}); log and spool: {folder}"
    else:
        when = _local(agent.stopped_at)
        yield (
            f"no agent is alive; the last one (process {started.pid}) ended without a word,"
            f" not before {when}; log and spool: {folder}"
        )
    if started is not None:
        limit = "no limit" if started.limit is None else f"limit {started.limit}"
        queues = _printable(", ".join(started.queues))
        yield f"serves {_printable(started.server)}; work queues: {queues}; {limit}"
    if agent.paused:
        yield f"paused: {_printable(', '.join(agent.paused))}"
    if agent.holder is not None and agent.outage is not None:
        began, error = agent.outage
        yield f"POLLING FAILS since {_local(began)} ({_ago(began, now)}): {_printable(error)}"


def _row(part: SubmissionPart, now: datetime) -> tuple[str, ...]:
    run = part.submission.run
    name = run.run_name if run.ordinal == 1 else f"{run.run_name}/{run.ordinal}"
    pid = _pid(part)
    return (
        _printable(name),
        str(run.flow_run_id),
        part.submission.state.value,
        _length(part.since, now),
        str(pid) if pid else "-",
        _command(part),
        _owed(part.submission),
    )


def _pid(part: SubmissionPart) -> int | None:
    if part.sight is not None and part.sight.started is not None:
        return part.sight.started.pid
    return part.submission.confirmed.pid if part.submission.confirmed else None


def _command_lives(part: SubmissionPart) -> bool:
    if part.sight is not None and part.sight.exists:
        return part.sight.row.verdict is Verdict.RUNNING
    # Somebody deleted its folder: the log knows who it is.
    known = part.submission.confirmed
    if known is None or known.boot_id != boot_id():
        return False
    return is_alive(Process(known.pid, known.start_time))


def _command(part: SubmissionPart) -> str:
    """Say in a few words what has become of the command."""
    sight = part.sight
    if sight is None:
        return "not launched yet"
    if not sight.exists:
        if _command_lives(part):
            return "alive; its folder in the spool is gone"
        deleted = part.submission.confirmed is not None
        return "its folder in the spool is gone" if deleted else "not launched yet"
    match sight.row.verdict:
        case Verdict.RUNNING:
            return "alive"
        case Verdict.FINISHED if sight.refusal is not None:
            return f"never ran: {_printable(sight.refusal)}"
        case Verdict.FINISHED:
            return f"ended, status {sight.exit_code}"
        case Verdict.NEVER_RAN:
            return "not launched yet"
        case Verdict.LOST:
            return f"lost: {sight.detail}"
        case Verdict.IMPOSSIBLE:
            return f"unclear: {_printable(sight.detail)}"
        case _:
            return "just starting or ending"


def _owed(submission: Submission) -> str:
    words = ", ".join(_OWED[effect] for effect in what_next(submission))
    if (waits := submission.deferred) is None:
        return words
    return f"{words} (waits: {_printable(waits.reason)})"


def _local(stamp: str) -> str:
    return datetime.fromisoformat(stamp).astimezone().isoformat(" ", "seconds")


def _ago(stamp: str, now: datetime) -> str:
    return f"{_length(stamp, now)} ago"


def _length(stamp: str, now: datetime) -> str:
    """Return how long ago something was, in its two largest units."""
    seconds = max(int((now - datetime.fromisoformat(stamp)).total_seconds()), 0)
    for size, unit, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m")):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // part} {smaller}"
    return f"{seconds // 60} m {seconds % 60} s" if seconds >= 60 else f"{seconds} s"


def _printable(text: str) -> str:
    """Return a text from elsewhere on one line, without anything a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# --- for machines --------------------------------------------------------------------------


def as_object(status: Status) -> dict[str, Any]:
    """Return the status as JSON values; times are UTC, ISO 8601."""
    agent = status.agent
    started, holder = agent.started, agent.holder
    return {
        "state": str(status.folder),
        "agent": {
            "alive": holder is not None,
            "pid": holder.pid if holder else None,
            "since": (holder.since or agent.started_at) if holder else None,
            "version": started.version if started else None,
            "server": started.server if started else None,
            "queues": list(started.queues) if started else [],
            "limit": started.limit if started else None,
            "paused": list(agent.paused),
            "polling_fails_since": agent.outage[0] if holder and agent.outage else None,
            "polling_error": agent.outage[1] if holder and agent.outage else None,
            "stopped_at": agent.stopped_at,
            "stopped_by": agent.stopped.reason if agent.stopped else None,
        },
        "submissions": [_submission_object(part) for part in status.submissions],
    }


def _submission_object(part: SubmissionPart) -> dict[str, Any]:
    submission, sight = part.submission, part.sight
    run, deferred = submission.run, submission.deferred
    verdict = sight.row.verdict if sight else None
    return {
        "flow_run_id": str(run.flow_run_id),
        "run_name": run.run_name,
        "submission": run.ordinal,
        "queue": run.queue,
        "state": submission.state.value,
        "since": part.since,
        "launch_key": submission.launch_key,
        "pid": _pid(part),
        "command": "alive" if _command_lives(part) else (verdict.value if verdict else None),
        "exit_code": sight.exit_code if sight else None,
        "owed": [effect.value for effect in what_next(submission)],
        "waits_for": deferred.reason if deferred else None,
    }


def print_status(folder: Path, *, as_json: bool) -> int:
    """Print the status of a state folder and return the exit status: is an agent alive?

    Raises:
        LogError: there is no log, or it can't be read.
    """
    status = read_status(folder)
    if as_json:
        import json  # noqa: PLC0415 - people need it not

        print(json.dumps(as_object(status), indent=2))
    else:
        for line in describe(status, datetime.now(UTC)):
            print(line)
    return 0 if status.agent.holder else EXIT_NO_AGENT
