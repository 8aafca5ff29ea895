"""A report's contents: submissions with their events, and what happened to the agent, compactly.

The second pass over a log. The words are those of `replay show` (`replay.words`, `replay.summary`),
so that the page says what the terminal says. Texts are kept once and named by their number, and an
event is a few small numbers, which compress well; replay/report/data.js reads what is made here.

Times are milliseconds: when something was, since 1970; everything else is a duration, or counts
from the beginning of the submission. Control characters are made visible, for the texts are a
stranger's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs

from events.lifecycle import RecoveryStarted, State, Transition
from events.log import Record
from events.notices import (
    AgentStarted,
    AgentStopped,
    Notice,
    PollingFailed,
    PollingResumed,
    QueuePaused,
    QueueResumed,
)
from events.observations import (
    AgentRestarted,
    InfrastructureResolved,
    Observation,
    RunOffered,
)
from events.submission import Submission
from replay.causes import cause_of
from replay.player import Step, step
from replay.report.selection import Selection
from replay.screen import visible
from replay.showing import what_was_said
from replay.summary import outcome, state_in_words, what_is_due
from replay.timeline import Agents, Moment, Timeline
from replay.words import describe

STATES: Final = tuple(State)
OBSERVED, DECIDED, TROUBLE, IGNORED = range(4)
"""What an event is: learned, decided, not readable, or learned and nothing followed from it."""

FIELDS: Final = 6
"""Numbers for each event: position and time since the one before (the latter in tenths of a
millisecond), type, state after it, kind, text."""

DEPLOYMENT_LABEL: Final = "prefect.io/deployment-name"
FLOW_LABEL: Final = "prefect.io/flow-name"

SHOWN_NOTICES: Final = (
    AgentStarted, AgentStopped, PollingFailed, PollingResumed, QueuePaused, QueueResumed
)  # fmt: skip

_BEFORE_THE_FIRST_MS: Final = 60_000.0
"""What happened to the agent so shortly before the first submission is shown too."""


class Texts:
    """Texts, each of them once, named by their numbers; 0 is the empty one."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        """Return the number of a text."""
        return self._numbers.setdefault(visible(text, keep_breaks=True), len(self._numbers))

    def all(self) -> list[str]:
        """Return the texts in the order of their numbers."""
        return list(self._numbers)


@attrs.define
class _Telling:
    """A submission that is being read: its projection, and its events as numbers.

    Attributes:
        recoveries: when a new agent took it over.
        drifts: by how much the wall clock differs at each event from what has passed.
        said: the words of the last observation.
    """

    timeline: Timeline
    events: list[int] = attrs.field(factory=list)
    recoveries: list[float] = attrs.field(factory=list)
    drifts: list[float] = attrs.field(factory=list)
    before: Moment | None = None
    elapsed: float = 0.0
    said: str = ""

    def add(self, *numbers: int) -> None:
        """Add an event; an observation before it that led to nothing is marked as such."""
        if numbers[4] in (OBSERVED, IGNORED):
            self.ends_here()
        self.events += numbers

    def ends_here(self) -> None:
        """Mark a last observation, if nothing followed from it."""
        if self.events and self.events[4 - FIELDS] == OBSERVED:
            self.events[4 - FIELDS] = IGNORED


@attrs.define
class Contents:
    """Takes the records of the chosen submissions, and turns them into values for JSON."""

    selection: Selection
    texts: Texts = attrs.field(factory=Texts)
    types: Texts = attrs.field(factory=Texts)
    submissions: list[dict[str, Any]] = attrs.field(factory=list)
    names: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    """Deployment id -> the names of it and of its flow, where a label has them."""

    def follow(self, records: Iterable[Record]) -> None:
        """Take all records from that of the first chosen submission on."""
        unfinished: dict[str, _Telling] = {}
        end = self.selection.last.position if self.selection.last else 0
        for record in records:
            if record.position > end:
                break
            if record.stream not in self.selection.streams:
                continue
            telling = unfinished.get(record.stream)
            if telling is None:
                timeline = Timeline(record.stream, self.selection.agents)
                telling = unfinished[record.stream] = _Telling(timeline)
            self._take(telling, record)
            if record.closes:
                self._finish(unfinished.pop(record.stream))
        for telling in unfinished.values():
            self._finish(telling)
        self.submissions.sort(key=lambda each: (each["began"], each["position"]))

    def _take(self, telling: _Telling, record: Record) -> None:
        timeline = telling.timeline
        taken = step(timeline.submission, record)
        timeline.follow(record)
        moment = Moment.of(record)
        before = telling.before or moment
        seconds = _number(self.selection.agents.seconds_between(before, moment))
        telling.before = moment
        telling.elapsed += seconds
        telling.add(
            record.position - before.position,
            round(seconds * 10_000),
            self.types.number(record.type),
            STATES.index(timeline.state),
            _kind(taken),
            self.texts.number(self._words(telling, taken)),
        )
        telling.drifts.append(_drift(timeline, moment, telling.elapsed))
        if isinstance(taken.event, RecoveryStarted):
            telling.recoveries.append(_ms(telling.elapsed))
        if isinstance(taken.event, InfrastructureResolved):
            self._note_names(timeline.submission, taken.event)

    def _words(self, telling: _Telling, taken: Step) -> str:
        event = taken.event
        if taken.trouble or event is None:
            return taken.trouble or ""
        if isinstance(event, Transition):
            return describe(event, telling.said)
        telling.said = what_was_said(event)
        if isinstance(event, RunOffered):
            # When it was due is shown in the reader's zone; here it would be in ours.
            return f"attempt {event.attempt}" if event.attempt > 1 else ""
        text = describe(event)
        if isinstance(event, AgentRestarted):
            text = f"{text} · {_who_took_over(self.selection.agents, taken.record)}"
        return text

    def _note_names(self, submission: Submission, resolved: InfrastructureResolved) -> None:
        run, labels = submission.discovered, resolved.labels
        if run is not None and run.deployment_id is not None:
            deployment, flow = labels.get(DEPLOYMENT_LABEL, ""), labels.get(FLOW_LABEL, "")
            self.names[str(run.deployment_id)] = visible(deployment), visible(flow)

    def _finish(self, telling: _Telling) -> None:
        telling.ends_here()
        timeline, now, text = telling.timeline, self.selection.last, self.texts.number
        words, style = outcome(timeline)
        began = timeline.began
        stretches = timeline.all_stretches(now)
        self.submissions.append(
            {
                "id": timeline.stream,
                "position": began.position if began else 0,
                "began": _wall_ms(began),
                "took": _ms(timeline.seconds(now)),
                "open": timeline.is_open,
                "state": STATES.index(timeline.state),
                "says": text(state_in_words(timeline)),
                "style": style,
                "outcome": text(words),
                "owed": text(what_is_due(timeline)),
                "cause": text(cause_of(timeline) or ""),
                "stretches": [
                    value
                    for stretch in stretches
                    for value in (STATES.index(stretch.state), _ms(stretch.seconds))
                ],
                "recoveries": telling.recoveries,
                "voided": timeline.voided,
                "waits": [timeline.waits, _ms(timeline.waits_seconds)],
                "events": telling.events,
                "drifts": telling.drifts if any(telling.drifts) else [],
            }
            | self._what_run(timeline)
        )

    def _what_run(self, timeline: Timeline) -> dict[str, Any]:
        run, text = timeline.submission.discovered, self.texts.number
        if run is None:
            return {"name": text("?"), "queue": text("?"), "deployment": 0}
        due = _since_1970(run.scheduled_time) if run.scheduled_time else math.nan
        return {
            "name": text(run.run_name if run.ordinal == 1 else f"{run.run_name}/{run.ordinal}"),
            "queue": text(run.queue),
            "deployment": text(str(run.deployment_id) if run.deployment_id else ""),
            "attempt": run.attempt,
            "key": visible(run.launch_key),
            "due": None if math.isnan(due) else round(due * 1000.0, 1),
        }

    def heading(self) -> str:
        """Return a title that tells nothing about where the log was read."""
        start = self.selection.agents.at(self.selection.last.position if self.selection.last else 0)
        return f"Runs on {start.notice.hostname}" if start else "Runs of a pluperfect agent"

    def as_object(self, title: str) -> dict[str, Any]:
        """Return everything, ready to be JSON."""
        return {
            "title": visible(title),
            "leftOut": self.selection.left_out,
            "now": _wall_ms(self.selection.last),
            "states": [state.value for state in STATES],
            "submissions": self.submissions,
            "deployments": self.names,
            "notices": list(self._notices()),
            "types": self.types.all(),
            "texts": self.texts.all(),
        }

    def _notices(self) -> Iterator[dict[str, Any]]:
        first = min((each["began"] for each in self.submissions), default=0.0)
        for record in self.selection.notices:
            at, event = _wall_ms(Moment.of(record)), step(Submission(), record).event
            if at < first - _BEFORE_THE_FIRST_MS or not isinstance(event, SHOWN_NOTICES):
                continue
            yield {"at": at, "type": record.type, "text": visible(describe(event))} | _more(event)


def _more(notice: Notice) -> dict[str, Any]:
    match notice:
        case AgentStarted():
            return {"boot": visible(notice.boot_id)}
        case PollingResumed():
            return {"lasted": _ms(notice.outage_seconds)}
        case _:
            return {}


def _kind(taken: Step) -> int:
    if taken.trouble or taken.event is None:
        return TROUBLE
    return OBSERVED if isinstance(taken.event, Observation) else DECIDED


def _who_took_over(agents: Agents, record: Record) -> str:
    start = agents.at(record.position)
    if start is None:
        return "the new one is not known"
    notice = start.notice
    return f"now pluperfect {notice.version}, process {notice.pid} on {notice.hostname}"


def _drift(timeline: Timeline, moment: Moment, elapsed: float) -> float:
    """Return by how many milliseconds the wall clock has moved otherwise than time has passed.

    Nothing that a person would notice counts as nothing.
    """
    began = timeline.began.wall_seconds if timeline.began else math.nan
    drift = round((_number(moment.wall_seconds - began) - elapsed) * 1000.0)
    return drift if abs(drift) > 1 else 0


def _since_1970(text: str) -> float:
    return Moment(0, text, 0).wall_seconds


def _wall_ms(moment: Moment | None) -> float:
    return _ms(moment.wall_seconds) if moment else 0.0


def _ms(seconds: float) -> float:
    return round(_number(seconds) * 1000.0, 1)


def _number(seconds: float) -> float:
    """Return a time; 0 where the log has none that could be read."""
    return seconds if math.isfinite(seconds) else 0.0
