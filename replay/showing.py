"""`replay show`: one submission from its first record to what it owes now, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs
import orjson

from events.codec import unstructure
from events.lifecycle import Event, Transition
from events.log import LogReader, Record
from events.notices import AGENT_STREAM, Notice
from events.observations import AgentRestarted, Observation
from events.submission import what_next
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
        now: the end of the log.
    """

    stream: str
    timeline: Timeline
    steps: Sequence[tuple[Step, float]]
    agents: Agents
    now: Moment | None


def tell(reader: LogReader, stream: str) -> Story:
    """Read one stream, and what the agent's own stream says about the time it was written in."""
    agents = Agents(reader.read_stream(AGENT_STREAM))
    records = reader.read_stream(stream)
    timeline = Timeline(stream, agents)
    for record in records:
        timeline.follow(record)
    last = next(iter(reader.read_all(reader.last_position() - 1)), None)
    steps = list(_timed(records, agents))
    return Story(stream, timeline, steps, agents, Moment.of(last) if last else None)


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
            self._print_day(taken.record)
            following = steps[index + 1][0] if index + 1 < len(steps) else None
            self._print_step(taken, seconds, first=index == 0, following=following)
            if self.full:
                self._print_fields(taken)

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
        # From the record and not from the event, so that fields of a newer release are there too.
        for path, value in _leaves(_fields(record)):
            self.screen.hanging([indent, (f"{path}  ", "dim")], [(value, "")])


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


def _fields(record: Record) -> Any:
    try:
        return orjson.loads(record.data)
    except ValueError:
        return {"(not JSON)": record.data}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    match value:
        case dict() if value:
            for key, inner in value.items():
                yield from _leaves(inner, f"{path}.{key}" if path else str(key))
        case list() | tuple() if value:
            for index, inner in enumerate(value):
                yield from _leaves(inner, f"{path}[{index}]")
        case None:
            yield path, "null"
        case _:
            yield path, str(value)


def story_object(story: Story) -> dict[str, Any]:
    """Return a story as JSON values."""
    summary = None if story.stream == AGENT_STREAM else as_object(story.timeline, story.now)
    return {
        "stream": story.stream,
        "submission": summary,
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
        "kind": _kind(taken.event),
        "type": record.type,
        "schema": record.schema,
        "cause": record.cause,
        "closes": record.closes,
        "event": unstructure(taken.event) if taken.event else None,
        "state": taken.after.state.value,
        "owed": [effect.value for effect in what_next(taken.after)],
        "trouble": taken.trouble,
    }


def _kind(event: Event | None) -> str:
    match event:
        case Transition():
            return "transition"
        case Observation():
            return "observation"
        case Notice():
            return "notice"
        case _:
            return "unknown"
