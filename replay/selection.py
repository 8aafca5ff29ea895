"""Which submissions a person asks for, and how they are found without folding a whole log.

A log may have a million submissions. Whatever the database can tell (when they began, which
records they have) narrows them down; only what remains is folded and looked at in earnest. The
callers are `replay list` and `replay stats`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

import attrs

from events.codec import EVENT_TYPES
from events.lifecycle import TRANSITIONS, State
from events.notices import AGENT_STREAM, AgentStarted
from events.sqlite_reader import SqliteReader
from replay.summary import as_object, went_wrong
from replay.timeline import Agents, Moment, Timeline

_FOLDED_AT_ONCE: Final = 500


@attrs.frozen
class Wanted:
    """What a person asks for; everything must hold, and of several values any one.

    Attributes:
        states: where it is; empty for any.
        deployments: names, or beginnings of ids.
        queues: names.
        since, until: when it began, UTC, ISO 8601 as records have it.
        failed: only what went wrong.
        slower_than: seconds that it was on its way to a start; None for any.
        text: in its name, ids, queue, deployment, or in how it went; case does not matter.
    """

    states: frozenset[State] = frozenset()
    deployments: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    since: str = ""
    until: str = "~"
    failed: bool = False
    slower_than: float | None = None
    text: str | None = None

    def accepts(self, timeline: Timeline, now: Moment | None) -> bool:
        """Tell whether a submission is wanted (its beginning aside)."""
        run = timeline.submission.discovered
        if self.states and timeline.state not in self.states:
            return False
        if self.queues and (run is None or run.queue not in self.queues):
            return False
        if self.deployments and not any(map(_is_deployment(timeline), self.deployments)):
            return False
        if self.failed and not went_wrong(timeline):
            return False
        if self.slower_than is not None and timeline.seconds_to_start(now) <= self.slower_than:
            return False
        return self.text is None or _mentions(timeline, self.text.casefold())


def _is_deployment(timeline: Timeline) -> Any:
    run = timeline.submission.discovered
    id_ = str(run.deployment_id) if run and run.deployment_id else ""
    return lambda wanted: wanted == timeline.deployment_name or id_.startswith(wanted.lower())


def _mentions(timeline: Timeline, text: str) -> bool:
    told = as_object(timeline)
    names = ("stream", "run_name", "queue", "deployment_name", "deployment_id", "flow_name",
             "summary", "infrastructure_pid", "launch_key", "state")  # fmt: skip
    return any(text in str(told[name]).casefold() for name in names)


@attrs.define
class Selection:
    """The submissions of a log that are wanted.

    Attributes:
        agents: who wrote the log.
        now: its last moment, up to which open submissions are measured.
    """

    reader: SqliteReader
    wanted: Wanted
    agents: Agents
    now: Moment | None

    @classmethod
    def of(cls, reader: SqliteReader, wanted: Wanted) -> Selection:
        """Begin to select; what is written meanwhile may be seen or not."""
        last = reader.last_record()
        starts = reader.read_of_type(AgentStarted.__name__, AGENT_STREAM)
        return cls(reader, wanted, Agents(starts), Moment.of(last) if last else None)

    def timelines(self, *, newest_first: bool = False) -> Iterator[Timeline]:
        """Yield them in the order in which they began, or from the end."""
        possible = self._possible()
        names = self.reader.beginnings(
            newest_first=newest_first, since=self.wanted.since, until=self.wanted.until
        )
        streams = (name for name in names if possible is None or name in possible)
        for timeline in self._folded(name for name in streams if name != AGENT_STREAM):
            if self.wanted.accepts(timeline, self.now):
                yield timeline

    def _folded(self, streams: Iterator[str]) -> Iterator[Timeline]:
        size = 50  # The first page needs no more.
        while some := list(islice(streams, size)):
            for stream, records in self.reader.read_streams(some).items():
                timeline = Timeline(stream, self.agents)
                for record in records:
                    timeline.follow(record)
                if records:  # else it was archived just now
                    yield timeline
            size = _FOLDED_AT_ONCE

    def _possible(self) -> set[str] | None:
        """Return the streams that may be wanted by what records they have; None for all."""
        found: set[str] | None = None
        for condition, parameters in _conditions(self.wanted):
            query = f"SELECT DISTINCT stream FROM records WHERE {condition}"  # noqa: S608 - ours
            streams = {stream for (stream,) in self.reader.select(query, parameters)}
            found = streams if found is None else found & streams
        return found


def _conditions(wanted: Wanted) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield conditions on records of which every wanted submission has one."""
    if wanted.queues:
        queue = _marks(wanted.queues)
        yield f"type = 'RunDiscovered' AND {_field('queue')} IN ({queue})", wanted.queues
    if wanted.states:
        types = tuple(
            transition.__name__
            for moves in TRANSITIONS.values()
            for transition, target in moves.items()
            if target in wanted.states
        )
        yield f"type IN ({_marks(types)})", types
    if wanted.failed:
        yield _MAY_HAVE_FAILED, ()


def _field(name: str) -> str:
    return f"CASE WHEN json_valid(data) THEN json_extract(data, '$.{name}') END"


def _marks(values: Iterable[Any]) -> str:
    return ", ".join("?" for _ in values)


_MAY_HAVE_FAILED: Final = (
    "type IN ('SubmissionFailed', 'OutcomeProposed')"
    f" OR (type = 'InfrastructureExited' AND {_field('exit_code')} IS NOT 0)"
    f" OR (type = 'OutcomeSettled' AND {_field('server_state')} IN ('FAILED', 'CRASHED'))"
    f" OR type NOT IN ({', '.join(repr(name) for name in EVENT_TYPES)})"
)
"""What every submission has that went wrong, or can't be read on."""
