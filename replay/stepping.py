"""One run's story a step at a time: the state before and after, what changed, what was decided.

Pure: records in, views out. A view is made when it is looked at, with today's decider asked what
it would decide now. `replay step` shows them, one beside the other (`replay.step_panes`) or for
machines.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from events import decider
from events.codec import unstructure
from events.lifecycle import Effect, Event, State, Transition
from events.log import Record
from events.notices import AGENT_STREAM
from events.observations import Observation
from events.submission import Submission, what_next
from replay.fields import fields_in, leaves
from replay.player import Step, step
from replay.timeline import Agents, AgentStart, Moment, Timeline
from replay.verification import Decide, FieldDifference, differences

Fields = Mapping[str, Any]
"""The fields of a fold: paths to values. What is None is not in it."""


@attrs.frozen
class Change:
    """One field of the fold that a step changed. None stands for a field that is not there."""

    path: str
    before: Any
    after: Any

    @property
    def sign(self) -> str:
        """`+` for what came, `-` for what went, `~` for what is another now."""
        if self.before is None:
            return "+"
        return "-" if self.after is None else "~"


def fold_fields(submission: Submission) -> Fields:
    """Return the fields of a fold, the innermost, as JSON values."""
    return {
        path: value
        for field in attrs.fields(Submission)
        for path, value in leaves(_as_json(getattr(submission, field.name)), field.name)
        if value is not None
    }


def _as_json(value: Any) -> Any:
    match value:
        case Event():
            return unstructure(value)
        case State():
            return value.value
        case None | bool() | int() | float():
            return value
        case _:
            return str(value)


def changes_between(before: Fields, after: Fields) -> tuple[Change, ...]:
    """Return what is otherwise after, in the order in which the fold has its fields."""
    paths = dict.fromkeys([*after, *before])
    return tuple(
        Change(path, before.get(path), after.get(path))
        for path in paths
        if before.get(path) != after.get(path)
    )


def applied(changes: Iterable[Change], before: Fields) -> Fields:
    """Return the fields after some changes."""
    after = dict(before) | {change.path: change.after for change in changes}
    return {path: value for path, value in after.items() if value is not None}


@attrs.frozen
class Otherwise:
    """A transition that is recorded but would not be decided now, or the other way round.

    Attributes:
        recorded, today: the names of the events; None where there is none.
        fields: what differs, when both are of the same type.
    """

    recorded: str | None
    today: str | None
    fields: tuple[FieldDifference, ...] = ()


@attrs.frozen
class Decision:
    """What followed from one observation, and what would follow now.

    Attributes:
        observation: the step that it was decided on.
        recorded: the steps that followed from it.
        today: what this release decides.
        otherwise: where that differs.
        trouble: why it could not be asked.
    """

    observation: Step
    recorded: tuple[Step, ...]
    today: tuple[Transition, ...] = ()
    otherwise: tuple[Otherwise, ...] = ()
    trouble: str | None = None

    @property
    def is_same(self) -> bool:
        """Whether this release decides what is recorded."""
        return self.trouble is None and not self.otherwise


@attrs.frozen
class StepView:
    """All there is to see at one step.

    Attributes:
        number: of the step, from 1; `count` is how many there are.
        seconds: since the step before; `seconds_in_all` since the first.
        written_by: the agent that wrote it, None when it never introduced itself.
        decision: that it belongs to, None in the agent's own stream.
    """

    number: int
    count: int
    step: Step
    seconds: float
    seconds_in_all: float
    written_by: AgentStart | None
    decision: Decision | None

    @property
    def fields(self) -> list[tuple[str, Any]]:
        """The event's fields, those that this release does not know as well."""
        return list(leaves(fields_in(self.step.record)))

    @property
    def before(self) -> Fields:
        """The fold without this step."""
        return fold_fields(self.step.before)

    @property
    def after(self) -> Fields:
        """The fold with it."""
        return fold_fields(self.step.after)

    @property
    def changes(self) -> tuple[Change, ...]:
        """What this step changed."""
        return changes_between(self.before, self.after)

    @property
    def owed_before(self) -> tuple[Effect, ...]:
        """What was owed without this step."""
        return what_next(self.step.before)

    @property
    def owed_after(self) -> tuple[Effect, ...]:
        """What was owed then."""
        return self.step.owed


class Walk:
    """The steps of one stream, to be looked at in any order. It grows as the stream does.

    Attributes:
        timeline: what became of it, up to its last step.
        steps: in order.
    """

    def __init__(self, stream: str, agents: Agents, decide: Decide = decider.decide) -> None:
        self.stream, self.agents = stream, agents
        self.timeline = Timeline(stream, agents)
        self.steps: list[Step] = []
        self._decide = decide

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def is_of_agent(self) -> bool:
        """Whether it is the agent's own stream, which has neither states nor decisions."""
        return self.stream == AGENT_STREAM

    @property
    def version(self) -> int:
        """The version of the last record."""
        return self.steps[-1].record.version if self.steps else 0

    def add(self, records: Iterable[Record]) -> None:
        """Take the records that follow."""
        for record in records:
            before = self.steps[-1].after if self.steps else Submission()
            self.steps.append(step(before, record))
            self.timeline.follow(record)

    def view(self, index: int) -> StepView:
        """Return what there is to see at a step, from 0."""
        taken = self.steps[index]
        now = Moment.of(taken.record)
        last = Moment.of(self.steps[max(index - 1, 0)].record)
        first = Moment.of(self.steps[0].record)
        return StepView(
            number=index + 1,
            count=len(self.steps),
            step=taken,
            seconds=self.agents.seconds_between(last, now),
            seconds_in_all=self.agents.seconds_between(first, now),
            written_by=self.agents.at(taken.record.position),
            decision=self.decision(index),
        )

    def views(self, start: int = 0) -> Iterator[StepView]:
        """Yield the views of all steps from one on."""
        return (self.view(index) for index in range(start, len(self.steps)))

    def decision(self, index: int) -> Decision | None:
        """Return the decision that a step belongs to: an observation and what follows from it."""
        if self.is_of_agent:
            return None
        begin = index
        while begin > 0 and not isinstance(self.steps[begin].event, Observation):
            begin -= 1
        observed = self.steps[begin]
        if not isinstance(observed.event, Observation):
            return None
        recorded = tuple(
            itertools.takewhile(
                lambda s: not isinstance(s.event, Observation),
                itertools.islice(self.steps, begin + 1, None),
            )
        )
        return _asked_again(self._decide, observed, observed.event, recorded)

    def index_at(self, position: int) -> int:
        """Return the last step at or before a position of the log; the first if none is."""
        found = bisect.bisect_right(self.steps, position, key=lambda s: s.record.position)
        return max(found - 1, 0)

    def index_at_time(self, moment: datetime) -> int:
        """Return the last step at or before a moment; the first if none is."""
        last = 0
        for index, taken in enumerate(self.steps):
            if Moment.of(taken.record).wall_seconds <= moment.timestamp():
                last = index
        return last

    def find(self, index: int, wanted: Callable[[int], bool], direction: int = 1) -> int | None:
        """Return the nearest step after one (or before it, for -1) that is wanted, if any."""
        end = len(self.steps) if direction > 0 else -1
        return next((i for i in range(index + direction, end, direction) if wanted(i)), None)


def _asked_again(
    decide: Decide, observed: Step, observation: Observation, recorded: tuple[Step, ...]
) -> Decision:
    try:
        today = tuple(decide(observed.before, observation))
    except Exception as error:  # A log that was altered holds what no decider was ever asked.
        reason = f"it can't be decided: {type(error).__name__}: {error}"
        return Decision(observed, recorded, trouble=reason)
    unread = next((s.record.type for s in recorded if s.event is None), None)
    if unread is not None:
        reason = f"this release can't read the {unread} that followed"
        return Decision(observed, recorded, today, trouble=reason)
    return Decision(observed, recorded, today, tuple(_otherwise(recorded, today)))


def _otherwise(recorded: Sequence[Step], today: Sequence[Transition]) -> Iterator[Otherwise]:
    for taken, now in itertools.zip_longest(recorded, today):
        then = taken.event if taken is not None else None
        if then == now:
            continue
        fields: tuple[FieldDifference, ...] = ()
        if then is not None and now is not None and type(then) is type(now):
            fields = tuple(differences(unstructure(then), unstructure(now)))
        yield Otherwise(_name(then), _name(now), fields)


def _name(event: Event | None) -> str | None:
    return None if event is None else type(event).__name__


def view_object(view: StepView) -> dict[str, Any]:
    """Return a view as JSON values; durations in seconds."""
    taken, record = view.step, view.step.record
    return {
        "number": view.number,
        "count": view.count,
        "position": record.position,
        "version": record.version,
        "recorded_at": record.recorded_at,
        "seconds_since_previous": view.seconds,
        "seconds_since_beginning": view.seconds_in_all,
        "kind": taken.kind,
        "type": record.type,
        "event": unstructure(taken.event) if taken.event else None,
        "state_before": taken.before.state.value,
        "state_after": taken.after.state.value,
        "fold": view.after,
        "diff": [attrs.asdict(change) for change in view.changes],
        "owed_before": [effect.value for effect in view.owed_before],
        "owed_after": [effect.value for effect in view.owed_after],
        **_decision_objects(view),
        "trouble": taken.trouble,
    }


def _decision_objects(view: StepView) -> dict[str, Any]:
    decision = view.decision
    if decision is None:
        return {"decided_on": None, "decided": None, "decided_again": None}
    return {
        "decided_on": decision.observation.record.position,
        "decided": [
            _event_object(taken.record.type, taken.event) | {"position": taken.record.position}
            for taken in decision.recorded
        ],
        "decided_again": {
            "same": decision.is_same,
            "transitions": [_event_object(type(e).__name__, e) for e in decision.today],
            "otherwise": [attrs.asdict(otherwise) for otherwise in decision.otherwise],
            "trouble": decision.trouble,
        },
    }


def _event_object(type_: str, event: Event | None) -> dict[str, Any]:
    return {"type": type_, "event": unstructure(event) if event else None}
