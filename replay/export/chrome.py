"""A log as a trace for ui.perfetto.dev and chrome://tracing (Trace Event Format, JSON).

A process for each queue and one for the agent itself. Submissions are packed into as few lanes (a
thread each) as were under way at once, so that a thousand of them can be read: a bar for the whole
submission, and below it one for each state. Restarts of the agent go across the whole picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

import attrs
import orjson

from events.codec import UndecodableRecord, decode
from events.lifecycle import (
    ClaimMisplaced,
    EffectDeferred,
    InfrastructureAdopted,
    LaunchRepeated,
    LaunchVoided,
    RecoveryStarted,
)
from events.log import Record
from events.notices import (
    AGENT_STREAM,
    AgentStarted,
    AgentStopped,
    PollingFailed,
    PollingResumed,
    QueueCreated,
    QueuePaused,
    QueueResumed,
)
from replay.export.lanes import Lanes
from replay.export.lives import Life, lives, wall_nanoseconds
from replay.selection import Selection
from replay.summary import outcome
from replay.timeline import Moment
from replay.words import describe

TraceEvent = dict[str, Any]

AGENT_PROCESS: Final = 1
NOTICE_TRACK: Final = 1
AWAY_TRACK: Final = 2
"""The outages of the server, as bars."""

MARKED: Final = frozenset(
    kind.__name__
    for kind in (
        ClaimMisplaced,
        EffectDeferred,
        InfrastructureAdopted,
        LaunchRepeated,
        LaunchVoided,
        RecoveryStarted,
    )
)
"""What is marked on a submission: it had to wait, or an agent to look again."""

NOTICES: Final = (
    AgentStarted,
    AgentStopped,
    PollingFailed,
    PollingResumed,
    QueueCreated,
    QueuePaused,
    QueueResumed,
)
"""What is marked for the agent. Notices about single runs are left to `replay list`."""

_GLOBAL: Final = frozenset({AgentStarted.__name__, AgentStopped.__name__})


def write_chrome(selection: Selection, out: BinaryIO) -> None:
    """Write the trace. Times are microseconds since 1970."""
    about = {"tool": "pluperfect replay export", "log_id": str(selection.reader.log_id)}
    out.write(b'{"displayTimeUnit":"ms","otherData":' + orjson.dumps(about) + b',"traceEvents":[\n')
    separator = b""
    for event in trace_events(selection):
        out.write(separator + orjson.dumps(event))
        separator = b",\n"
    out.write(b"\n]}\n")


def trace_events(selection: Selection) -> Iterator[TraceEvent]:
    """Yield everything that is drawn, in no particular order."""
    queues = _Queues()
    first, last = math.inf, -math.inf
    for life in lives(selection):
        first, last = min(first, life.begin), max(last, life.end)
        process, track, introduction = queues.place(life)
        yield from introduction
        yield from _drawn(life, process, track)
    wanted = selection.wanted
    if wanted.streams is None:
        yield from _agent(selection, lambda r: wanted.since <= r.recorded_at < wanted.until)
    else:  # Only what happened meanwhile: a month of restarts would dwarf a run.
        yield from _agent(selection, lambda r: first <= _wall(r) <= last)


# --- where it is drawn -----------------------------------------------------------------------


def _named(what: str, name: str, process: int, track: int = 0) -> TraceEvent:
    return {"ph": "M", "name": what, "pid": process, "tid": track, "args": {"name": name}}


def _sorted(what: str, index: int, process: int, track: int = 0) -> TraceEvent:
    return {"ph": "M", "name": what, "pid": process, "tid": track, "args": {"sort_index": index}}


@attrs.define
class _Queues:
    """Processes for queues and threads for lanes, numbered as they are first needed."""

    _processes: dict[str, int] = attrs.field(factory=dict)
    _lanes: dict[str, Lanes] = attrs.field(factory=dict)
    _tracks: dict[tuple[str, int], int] = attrs.field(factory=dict)

    def place(self, life: Life) -> tuple[int, int, list[TraceEvent]]:
        """Find a place for a submission: process and thread, and the names of what is new."""
        run = life.timeline.submission.discovered
        queue = run.queue if run else "?"
        new = []
        if queue not in self._processes:
            process = self._processes[queue] = AGENT_PROCESS + 1 + len(self._processes)
            self._lanes[queue] = Lanes()
            new.append(_named("process_name", f"queue {queue}", process))
            new.append(_sorted("process_sort_index", process, process))
        process = self._processes[queue]
        lane = self._lanes[queue].take(life.begin, life.end)
        if (queue, lane) not in self._tracks:
            # Numbers of threads are told apart over all processes: some tools expect that.
            track = self._tracks[queue, lane] = AWAY_TRACK + 1 + len(self._tracks)
            new.append(_named("thread_name", f"lane {lane + 1}", process, track))
            new.append(_sorted("thread_sort_index", lane, process, track))
        return process, self._tracks[queue, lane], new


# --- submissions -----------------------------------------------------------------------------


def _microseconds(begin: int, end: int) -> dict[str, int]:
    # Whole ones, so that what is adjacent or nested in nanoseconds still is.
    return {"ts": begin // 1000, "dur": end // 1000 - begin // 1000}


def _drawn(life: Life, process: int, track: int) -> Iterator[TraceEvent]:
    place = {"pid": process, "tid": track}
    run = life.timeline.submission.discovered
    yield {
        "ph": "X",
        "cat": "submission",
        "name": run.run_name if run else life.timeline.stream,
        **_microseconds(life.begin, life.end),
        **place,
        "args": _about(life),
    }
    for span in life.spans[1:]:
        time = _microseconds(span.begin, span.end)
        if time["dur"]:  # Pending, among others, is left within the append that entered it.
            args = {"stream": life.timeline.stream}
            yield {
                "ph": "X",
                "cat": "state",
                "name": span.state.value,
                **time,
                **place,
                "args": args,
            }
    for span in life.spans:
        for time_, record in span.records:
            if record.type in MARKED:
                yield {
                    "ph": "i",
                    "s": "t",
                    "cat": "mark",
                    "name": record.type,
                    "ts": time_ // 1000,
                    **place,
                    "args": _of(record),
                }


def _about(life: Life) -> dict[str, Any]:
    timeline, submission = life.timeline, life.timeline.submission
    run, confirmed, exited = submission.discovered, submission.confirmed, submission.exited
    facts = {
        "outcome": outcome(timeline)[0],
        "state": timeline.state.value,
        "open": timeline.is_open,
        "stream": timeline.stream,
        "attempt": run and run.attempt,
        "deployment": timeline.deployment_name or (run and run.deployment_id),
        "flow": timeline.flow_name or (run and run.flow_id),
        "launch_key": run and run.launch_key,
        "infrastructure_pid": confirmed and confirmed.infrastructure_pid,
        "exit_code": exited and exited.exit_code,
        "recoveries": timeline.recoveries,
        "waits": timeline.waits,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _of(record: Record) -> dict[str, Any]:
    args: dict[str, Any] = {"position": record.position}
    try:
        args["text"] = describe(decode(record))
    except UndecodableRecord as error:
        args["text"] = str(error)
    return args


# --- the agent -------------------------------------------------------------------------------


def _wall(record: Record) -> int:
    return wall_nanoseconds(Moment.of(record))


def _agent(selection: Selection, is_wanted: Callable[[Record], bool]) -> Iterator[TraceEvent]:
    """Yield what happened to the agent: restarts for the whole picture, outages as bars."""
    yield _named("process_name", "agent", AGENT_PROCESS)
    yield _sorted("process_sort_index", 0, AGENT_PROCESS)
    yield _named("thread_name", "notices", AGENT_PROCESS, NOTICE_TRACK)
    yield _named("thread_name", "server away", AGENT_PROCESS, AWAY_TRACK)
    drawn_until = 0
    for kind in NOTICES:
        for record in filter(is_wanted, selection.reader.read_of_type(kind.__name__, AGENT_STREAM)):
            yield {
                "ph": "i",
                "s": "g" if record.type in _GLOBAL else "p",
                "cat": "agent",
                "name": record.type,
                "ts": _wall(record) // 1000,
                "pid": AGENT_PROCESS,
                "tid": NOTICE_TRACK,
                "args": _of(record),
            }
            if kind is PollingResumed:
                begin = max(_wall(record) - _outage(record), drawn_until)
                drawn_until = max(begin, _wall(record))
                yield {
                    "ph": "X",
                    "cat": "agent",
                    "name": "server away",
                    **_microseconds(begin, drawn_until),
                    "pid": AGENT_PROCESS,
                    "tid": AWAY_TRACK,
                    "args": {"position": record.position},
                }


def _outage(record: Record) -> int:
    try:
        event = decode(record)
    except UndecodableRecord:
        return 0
    return round(event.outage_seconds * 1e9) if isinstance(event, PollingResumed) else 0
