"""`replay show`: one submission from its first record to what it owes now, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import attrs

from events.codec import unstructure
from events.lifecycle import Event, Transition
from events.log import Record
from events.notices import AGENT_STREAM, AgentStarted
from events.observations import AgentRestarted, Observation
from events.submission import what_next
from replay.fields import as_text, fields_in, leaves
from replay.player import Step, play
from replay.screen import Line, Screen, Span, padded
from replay.summary import (
    STATE_STYLES,
    as_object,
    outcome,
    span_of_time,
    state_in_words,
    what_is_due,
)
from replay.timeline import Agents, Moment, Timeline
from replay.words import clock_time, describe, duration, zone

WIDE: Final = 110
"""From this many columns on, states and details have columns of their own."""

NAME_COLUMNS: Final = 24
STATE_COLUMNS: Final = 10


@attrs.frozen
class Story:
    """All that a log has of one stream, ready to be printed.

    Attributes:
        steps: each with the seconds since the step before it.
        now: the end of the log, or the moment up to which it is told.
        in_all: how many records the stream has, later ones included.
    """

    stream: str
    timeline: Timeline
    steps: Sequence[tuple[Step, float]]
    agents: Agents
    now: Moment | None
    in_all: int


class StreamReader(Protocol):
    """What telling a story takes of a log; `SqliteReader` has it."""

    def read_stream(self, stream: str, after_version: int = 0) -> Sequence[Record]:
        """Return the records of one stream."""
        ...

    def read_of_type(self, type_: str, stream: str) -> Sequence[Record]:
        """Return the records of one type in one stream."""
        ...

    def last_record(
        self, until: int | None = None, recorded_until: str | None = None
    ) -> Record | None:
        """Return the last record up to a position and a time."""
        ...


@attrs.frozen
class Until:
    """How far a story is told: to a position, to a time, or to the end of the log.

    Attributes:
        position: the last one that counts.
        time: UTC, ISO 8601 as records have it; what was recorded later does not count.
    """

    position: int | None = None
    time: str | None = None

    def includes(self, record: Record) -> bool:
        """Tell whether a record had been written by then."""
        if self.position is not None and record.position > self.position:
            return False
        return self.time is None or record.recorded_at <= self.time

    def moment_in(self, reader: StreamReader) -> Moment | None:
        """Return the moment up to which what was open then is measured."""
        if self.position is None and self.time is None:
            last = reader.last_record()
            return Moment.of(last) if last else None
        before = reader.last_record(until=self.position, recorded_until=self.time)
        if before is None:
            return None
        moment = Moment.of(before)
        if self.time is None:
            return moment
        # Between two records the clocks went on.
        passed = Moment(0, self.time, 0).wall_seconds - moment.wall_seconds
        return Moment(moment.position, self.time, moment.monotonic_ns + round(passed * 1e9))


END: Final = Until()


class NothingYet(Exception):
    """A submission that is asked about at a moment before it began."""

    def __init__(self, stream: str, began: Moment) -> None:
        self.stream, self.began = stream, began
        super().__init__(
            f"nothing of {stream} was in the log yet; it began at"
            f" {clock_time(began.recorded_at, day=True, milliseconds=True)}, position"
            f" {began.position}"
        )


def tell(reader: StreamReader, stream: str, until: Until = END) -> Story:
    """Read one stream, and what the agent's own stream says about the time it was written in.

    Raises:
        NothingYet: the stream began later than `until`.
    """
    agents = Agents(reader.read_of_type(AgentStarted.__name__, AGENT_STREAM))
    all_records = reader.read_stream(stream)
    records = [record for record in all_records if until.includes(record)]
    if all_records and not records:
        raise NothingYet(stream, Moment.of(all_records[0]))
    timeline = Timeline(stream, agents)
    for record in records:
        timeline.follow(record)
    steps = list(_timed(records, agents))
    return Story(stream, timeline, steps, agents, until.moment_in(reader), len(all_records))


def _timed(records: Sequence[Record], agents: Agents) -> Iterator[tuple[Step, float]]:
    before: Moment | None = None
    for taken in play(records):
        moment = Moment.of(taken.record)
        yield taken, agents.seconds_between(before or moment, moment)
        before = moment


def print_story(story: Story, screen: Screen, *, full: bool) -> None:
    """Print the head, every step, and what is owed at the end."""
    if story.stream == AGENT_STREAM:
        screen.line(("the agent's own notices", "strong"))
    else:
        _print_head(story, screen)
    screen.line()
    _Steps(story, screen, full=full).print()
    if story.stream != AGENT_STREAM:
        screen.line()
        _print_owed(story.timeline, screen)
    if (later := story.in_all - len(story.steps)) > 0:
        when = f" at {clock_time(story.now.recorded_at, day=True)}" if story.now else ""
        screen.line((f"as it was{when}; {later} more records followed", "wait"))
    screen.line((f"times: {zone()}", "dim"))


def _print_head(story: Story, screen: Screen) -> None:
    timeline = story.timeline
    run = timeline.submission.discovered
    name = run.run_name if run else "(nothing discovered)"
    again = f" · attempt {run.attempt}" if run and run.attempt > 1 else ""
    queue = f"queue {run.queue}" if run else ""
    screen.hanging([], [(name, "strong"), (f"  {timeline.stream}  {queue}{again}", "")])
    words, style = outcome(timeline)
    state = state_in_words(timeline).upper()
    screen.hanging([(state, style), ("  ", "")], [(words, "")])
    screen.hanging([], [(span_of_time(timeline, story.now), ""), *_stretches(story)])
    if extras := _extras(timeline):
        screen.hanging([], [(extras, "wait")])
    if run:
        deployment = f"deployment {run.deployment_id} · " if run.deployment_id else ""
        screen.hanging([], [(f"{deployment}launch key {run.launch_key}", "dim")])


def _stretches(story: Story) -> Iterator[Span]:
    separator = ": "
    for stretch in story.timeline.all_stretches(story.now):
        if stretch.seconds == 0:
            continue  # Left within the append that entered it, as Pending always is.
        yield separator, ""
        yield stretch.state.value, STATE_STYLES[stretch.state]
        yield f" {duration(stretch.seconds)}", ""
        separator = ", "


def _extras(timeline: Timeline) -> str:
    parts = []
    if timeline.recoveries:
        parts.append(f"taken over by a new agent {_times(timeline.recoveries)}")
    if timeline.voided:
        parts.append(f"launch found not to have happened {_times(timeline.voided)}")
    if timeline.waits:
        parts.append(f"put off {_times(timeline.waits)}, {duration(timeline.waits_seconds)} in all")
    return " · ".join(parts)


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _print_owed(timeline: Timeline, screen: Screen) -> None:
    if not timeline.is_open:
        screen.line(("closed: nothing is owed", "dim"))
        return
    screen.hanging([("owed  ", "wait")], [(what_is_due(timeline) or "nothing", "")])


@attrs.define
class _Steps:
    """Prints the steps of a story; remembers what the last observation has told already."""

    story: Story
    screen: Screen
    full: bool = attrs.field(kw_only=True)
    said: str = ""
    day: str = ""

    def print(self) -> None:
        steps = self.story.steps
        for index, (taken, seconds) in enumerate(steps):
            self._print_gap(
                steps[index - 1][0].record.version if index else 0, taken.record.version
            )
            self._print_day(taken.record)
            following = steps[index + 1][0] if index + 1 < len(steps) else None
            self._print_step(taken, seconds, first=index == 0, following=following)
            if self.full:
                self._print_fields(taken)

    def _print_gap(self, before: int, after: int) -> None:
        """Say what a salvaged copy has not."""
        if after > before + 1:
            lost = (
                f"version {after - 1} is"
                if after == before + 2
                else f"versions {before + 1} to {after - 1} are"
            )
            self.screen.line((f"── {lost} lost ──", "bad"))

    def _print_day(self, record: Record) -> None:
        day = clock_time(record.recorded_at, day=True)[:10]
        if self.day and day != self.day:
            self.screen.line((f"── {day} ──", "dim"))
        self.day = day

    def _print_step(
        self, taken: Step, seconds: float, *, first: bool, following: Step | None
    ) -> None:
        record = taken.record
        decided = isinstance(taken.event, Transition)
        time = "" if decided else clock_time(record.recorded_at, milliseconds=True)
        delta = "" if decided or first else f"+{duration(seconds)}"
        start: list[Span] = [
            (f"{record.position:>{self._position_columns}}  ", "quiet"),
            (f"{time:<12} {delta:>10}  ", "time"),
        ]
        details = self._details(taken, following)
        if self.screen.width is not None and self.screen.width < WIDE:
            self.screen.hanging([*start, *self._indent(taken)], [*self._name(taken), *details])
        else:
            name = [*self._state(taken), *self._indent(taken), *self._name(taken, padded_=True)]
            self.screen.hanging([*start, *name], details)

    @property
    def _position_columns(self) -> int:
        return max(len(str(self.story.steps[-1][0].record.position)), 3)

    def _state(self, taken: Step) -> Line:
        if self.story.stream == AGENT_STREAM:
            return ()
        state = taken.after.state
        changed = state is not taken.before.state
        shown = state.value if isinstance(taken.event, Transition) else ""
        style = STATE_STYLES[state] if changed else "quiet"
        return [(padded(shown.upper() if changed else shown, STATE_COLUMNS) + "  ", style)]

    def _indent(self, taken: Step) -> Line:
        return [("└ ", "quiet")] if isinstance(taken.event, Transition) else [("", "")]

    def _name(self, taken: Step, *, padded_: bool = False) -> Line:
        decided = isinstance(taken.event, Transition)
        style = "transition" if decided else "observation"
        if taken.trouble:
            style = "bad"
        if padded_:
            columns = NAME_COLUMNS - (2 if decided else 0)
            return [(padded(taken.record.type, columns) + " ", style)]
        moved: list[Span] = []
        if taken.after.state is not taken.before.state:
            state = taken.after.state
            moved = [(" → ", "quiet"), (state.value.upper(), STATE_STYLES[state])]
        return [(taken.record.type, style), *moved, ("  ", "")]

    def _details(self, taken: Step, following: Step | None) -> Line:
        if taken.trouble:
            return [(taken.trouble, "bad")]
        event = taken.event
        if event is None:
            return ()
        if isinstance(event, Transition):
            return [(describe(event, self.said), "")]
        self.said = what_was_said(event)
        text = describe(event)
        if isinstance(event, AgentRestarted):
            text = f"{text} · {self._new_agent(taken.record)}"
        ignored = isinstance(event, Observation) and not _is_decision(following)
        return [(text, ""), (" (nothing followed)" if ignored else "", "quiet")]

    def _new_agent(self, record: Record) -> str:
        start = self.story.agents.at(record.position)
        if start is None:
            return "the new one is not known"
        notice = start.notice
        return f"now pluperfect {notice.version}, process {notice.pid} on {notice.hostname}"

    def _print_fields(self, taken: Step) -> None:
        record = taken.record
        indent: Span = (" " * (self._position_columns + 2), "")
        cause = f" · caused by version {record.cause}" if record.cause is not None else ""
        last = " · last of its stream" if record.closes else ""
        self.screen.line(
            indent,
            (
                f"version {record.version} · schema {record.schema}{cause}{last}"
                f" · {record.recorded_at} · hash {record.hash.hex()}",
                "quiet",
            ),
        )
        for path, value in leaves(fields_in(record)):
            self.screen.hanging([indent, (f"{path}  ", "dim")], [(as_text(value), "")])


def _is_decision(following: Step | None) -> bool:
    # What can't be read may well be one.
    return following is not None and (
        following.event is None or isinstance(following.event, Transition)
    )


def what_was_said(event: Event) -> str:
    """Return the text of an observation that its transitions are likely to repeat."""
    fields = unstructure(event)
    texts = [fields.get(name) for name in ("error", "detail", "reason")]
    return next((text for text in texts if text and isinstance(text, str)), describe(event))


def story_object(story: Story) -> dict[str, Any]:
    """Return a story as JSON values."""
    summary = None if story.stream == AGENT_STREAM else as_object(story.timeline, story.now)
    return {
        "stream": story.stream,
        "submission": summary,
        "as_of": story.now.recorded_at if story.now else None,
        "records_later": story.in_all - len(story.steps),
        "steps": [_step_object(taken, seconds) for taken, seconds in story.steps],
    }


def _step_object(taken: Step, seconds: float) -> dict[str, Any]:
    record = taken.record
    return {
        "position": record.position,
        "version": record.version,
        "recorded_at": record.recorded_at,
        "monotonic_ns": record.monotonic_ns,
        "seconds_since_previous": seconds,
        "kind": taken.kind,
        "type": record.type,
        "schema": record.schema,
        "cause": record.cause,
        "closes": record.closes,
        "event": unstructure(taken.event) if taken.event else None,
        "state": taken.after.state.value,
        "owed": [effect.value for effect in what_next(taken.after)],
        "trouble": taken.trouble,
    }
