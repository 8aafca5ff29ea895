"""What became of each submission, in one value: states with their durations, waits, the ending.

A projection of the log that `replay list` and the head of `replay show` print, and that
statistics and reports can be made of. Pure. It folds with the decider's own `evolve`; nothing
here says what a state means.
"""

from __future__ import annotations

import bisect
import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import attrs
import orjson

from events.codec import EVENT_TYPES, UndecodableRecord, decode
from events.lifecycle import (
    ON_THE_WAY,
    ClaimMisplaced,
    Effect,
    EffectDeferred,
    Event,
    IllegalTransition,
    LaunchRepeated,
    LaunchVoided,
    OutcomeSettled,
    PendingRefused,
    RecoveryStarted,
    State,
    SubmissionCancelled,
    SubmissionFailed,
    Transition,
)
from events.log import Record
from events.notices import AGENT_STREAM, AgentStarted
from events.observations import InfrastructureResolved
from events.submission import Submission, evolve, what_next


@attrs.frozen
class Moment:
    """When a record was made, and where in the log it is (for the boot that it was made in)."""

    position: int
    recorded_at: str
    monotonic_ns: int

    @classmethod
    def of(cls, record: Record) -> Moment:
        """Take the moment of a record, and let go of the rest of it."""
        return cls(record.position, record.recorded_at, record.monotonic_ns)

    @property
    def wall_seconds(self) -> float:
        """The wall clock's time as a number; not a number where the log has no time there."""
        try:
            return datetime.fromisoformat(self.recorded_at).timestamp()
        except ValueError:
            return math.nan


@attrs.frozen
class AgentStart:
    """An agent opened the log; it wrote every record from there to the next start."""

    moment: Moment
    notice: AgentStarted


class Agents:
    """The agents that wrote a log, one after the other, and how to measure time in it.

    Within one boot of the host the monotonic clock tells durations, whatever happened to the wall
    clock; across a reboot, or where nobody said which boot it was, the wall clock has to do.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        """Read the agent's own stream (other records are passed over)."""
        self._starts: list[AgentStart] = []
        self._positions: list[int] = []
        for record in records:
            self.follow(record)

    @property
    def count(self) -> int:
        """How often an agent started."""
        return len(self._starts)

    def follow(self, record: Record) -> None:
        """Take the next record of a log."""
        if record.stream != AGENT_STREAM or record.type != AgentStarted.__name__:
            return
        try:
            notice = decode(record)
        except UndecodableRecord:
            return  # Of a newer release: its boot is not known, so the wall clock has to do.
        if isinstance(notice, AgentStarted):
            self._starts.append(AgentStart(Moment.of(record), notice))
            self._positions.append(record.position)

    def at(self, position: int) -> AgentStart | None:
        """Return the agent that wrote a position, None when it never introduced itself."""
        index = bisect.bisect_right(self._positions, position) - 1
        return self._starts[index] if index >= 0 else None

    def seconds_between(self, earlier: Moment, later: Moment) -> float:
        """Return the time that passed from one record to another."""
        first, last = self.at(earlier.position), self.at(later.position)
        same_boot = first is not None and last is not None and _boot(first) == _boot(last)
        if same_boot:
            return (later.monotonic_ns - earlier.monotonic_ns) / 1e9
        return round(later.wall_seconds - earlier.wall_seconds, 6)


def _boot(start: AgentStart) -> str:
    return start.notice.boot_id


@attrs.frozen
class Stretch:
    """A time spent in one state without leaving it."""

    state: State
    seconds: float


@attrs.define
class Timeline:
    """One submission from its first record to its last, or to the end of the log.

    Attributes:
        submission: the fold of all its records.
        began, changed, latest: of the first record, the last change of state, the last record.
        ended: of the record that closed it; None while it is open.
        stretches: the states it has left, in order.
        recoveries: how often a new agent took it over.
        waits: how often an effect was put off; `waits_seconds` is the sum of the delays decided.
        ending: the last transition that tells how it ended: refused, failed or cancelled.
        settled: the server's answer to how it ended.
        voided: why launches were found never to have happened.
        trouble: the first record that could not be read or folded.
        labels: of the infrastructure; the names of deployment and flow are among them.
    """

    stream: str
    agents: Agents = attrs.field(repr=False)
    submission: Submission = attrs.field(factory=Submission)
    began: Moment | None = None
    changed: Moment | None = None
    latest: Moment | None = None
    ended: Moment | None = None
    stretches: list[Stretch] = attrs.field(factory=list)
    records: int = 0
    recoveries: int = 0
    waits: int = 0
    waits_seconds: float = 0.0
    ending: PendingRefused | ClaimMisplaced | SubmissionFailed | SubmissionCancelled | None = None
    settled: OutcomeSettled | None = None
    voided: int = 0
    trouble: str | None = None
    labels: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def state(self) -> State:
        """Where it is, or was at the end."""
        return self.submission.state

    @property
    def is_open(self) -> bool:
        """Whether more is to come."""
        return self.ended is None

    @property
    def owed(self) -> tuple[Effect, ...]:
        """What is owed now."""
        return what_next(self.submission)

    @property
    def deployment_name(self) -> str | None:
        """The deployment's name, once it was resolved what to launch."""
        return self.labels.get("prefect.io/deployment-name")

    @property
    def flow_name(self) -> str | None:
        """The flow's name, once it was resolved what to launch."""
        return self.labels.get("prefect.io/flow-name")

    def seconds_to_start(self, until: Moment | None = None) -> float:
        """Return how long it was on its way to a start, whether or not it came to one."""
        return sum(s.seconds for s in self.all_stretches(until) if s.state in ON_THE_WAY)

    def seconds(self, until: Moment | None = None) -> float:
        """Return how long it took, or for an open one: how long it lasted at a moment."""
        end = self.ended or until or self.latest
        if self.began is None or end is None:
            return 0.0
        return self.agents.seconds_between(self.began, end)

    def all_stretches(self, until: Moment | None = None) -> list[Stretch]:
        """Return the states with their durations, the present one up to its end or a moment."""
        end = self.ended or until or self.latest
        if self.changed is None or end is None:
            return []
        lasts = self.agents.seconds_between(self.changed, end)
        return [*self.stretches, Stretch(self.state, lasts)]

    def follow(self, record: Record) -> None:
        """Take the next record of this stream."""
        moment = Moment.of(record)
        self.records += 1
        if self.began is None:
            self.began = moment
        self.latest = moment
        if record.closes:
            self.ended = moment
        event_class = EVENT_TYPES.get(record.type)
        if event_class is not None and not issubclass(event_class, Transition):
            if event_class is InfrastructureResolved:
                self._take_labels(record)
            return  # Observations move nothing; not decoding them doubles the speed.
        try:
            event = decode(record)
            after = evolve(self.submission, event, self.stream)
        except (UndecodableRecord, IllegalTransition) as error:
            self.trouble = self.trouble or f"position {record.position}: {error}"
            return
        self._note(event)
        self._move(after, moment)

    def _take_labels(self, record: Record) -> None:
        with contextlib.suppress(ValueError, AttributeError):
            self.labels = orjson.loads(record.data).get("labels") or {}

    def _move(self, after: Submission, moment: Moment) -> None:
        before, self.submission = self.submission, after
        if before.state is after.state:
            return
        if self.changed is not None:
            lasted = self.agents.seconds_between(self.changed, moment)
            self.stretches.append(Stretch(before.state, lasted))
        self.changed = moment

    def _note(self, event: Event) -> None:
        match event:
            case RecoveryStarted():
                self.recoveries += 1
            case EffectDeferred():
                self.waits += 1
                self.waits_seconds += event.delay_seconds
            case PendingRefused() | ClaimMisplaced() | SubmissionFailed() | SubmissionCancelled():
                self.ending = event
            case OutcomeSettled():
                self.settled = event
            case LaunchVoided() | LaunchRepeated():
                self.voided += 1


@attrs.define
class History:
    """All the submissions of a log, as they go by.

    Attributes:
        agents: who wrote it.
    """

    agents: Agents = attrs.field(factory=lambda: Agents(()))
    _last: Record | None = None

    @property
    def latest(self) -> Moment | None:
        """The moment of the last record, which is `now` for whatever is still open."""
        return None if self._last is None else Moment.of(self._last)

    def follow(self, records: Iterable[Record]) -> Iterator[Timeline]:
        """Yield each submission when it closes, and those that stay open at the end."""
        unfinished: dict[str, Timeline] = {}
        for record in records:
            self._last = record
            if record.stream == AGENT_STREAM:
                self.agents.follow(record)
                continue
            timeline = unfinished.get(record.stream)
            if timeline is None:
                timeline = unfinished[record.stream] = Timeline(record.stream, self.agents)
            timeline.follow(record)
            if record.closes:
                yield unfinished.pop(record.stream)
        yield from unfinished.values()
