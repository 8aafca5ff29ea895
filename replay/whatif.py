"""What would have been decided: recorded observations are shown again with one thing changed.

Each submission is played by itself: its observations, some of them changed, go to a judge (today's
decider, or another version's), and what it decides is held against what was recorded. Once another
path is taken (`Difference.departs`) the rest of what was recorded is shown all the same; what is
no longer owed leads to nothing, and is not counted as a difference. Pure but for the judge;
streaming, with open submissions and some examples in memory. `replay check` is the caller.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import attrs

from events.codec import EVENT_TYPES, UndecodableRecord, decode, unstructure
from events.log import Draft, Record
from events.notices import AGENT_STREAM
from events.observations import Observation
from replay.changes import Changes, fields_of
from replay.decider_worker import LOST, RAISES, UNREADABLE, Answer, Question
from replay.verification import MISSING, FieldDifference, NeedsNewerRelease, differences

Ask = Callable[[list[Question]], list[Answer]]

BATCH: Final = 1000
"""Decisions asked for at once: some 20 ms of work."""

AHEAD: Final = 3
"""Batches that are under way: one at the judge, the others ready before and behind it."""

PLACES: Final = 5
"""How many places are named for a kind of difference."""


@attrs.frozen
class Decision:
    """One recorded observation, and the transitions that followed from it.

    Attributes:
        last: nothing follows in this stream.
    """

    observation: Record
    recorded: tuple[Record, ...]
    last: bool


@attrs.frozen
class End:
    """Where a submission ends, or is when the log ends.

    Attributes:
        state: by its value, for another version may have other states.
        owed: the effects, by their values.
    """

    state: str
    owed: tuple[str, ...]
    closed: bool


@attrs.frozen
class Step:
    """What would have followed from a later observation, after another path was taken."""

    shown: Record | Draft | None
    position: int
    decided: tuple[Draft, ...]
    trouble: str | None = None


@attrs.define
class Difference:
    """A decision that would have been another.

    Attributes:
        kind: what differs, in the words that differences are grouped by.
        observation: as it was recorded.
        shown: what was shown instead of it; None when it was left out.
        fields: for the right transitions with other contents: (transition, where).
        trouble: how the decider broke.
        departs: another path was taken, to which what was recorded later may not fit.
        steps: what followed there.
        end: where that led; None while it is not known, or when it did not depart.
    """

    kind: str
    observation: Record
    shown: Record | Draft | None
    recorded: tuple[Record, ...]
    decided: tuple[Draft, ...]
    fields: tuple[tuple[str, FieldDifference], ...] = ()
    trouble: str | None = None
    departs: bool = False
    steps: list[Step] = attrs.field(factory=list)
    end: End | None = None


@attrs.define
class Group:
    """All differences of one kind.

    Attributes:
        places: positions and streams of the first of them.
        ends: where those that departed ended, and how many of them.
    """

    kind: str
    count: int = 0
    places: list[tuple[int, str]] = attrs.field(factory=list)
    examples: list[Difference] = attrs.field(factory=list)
    ends: Counter[End] = attrs.field(factory=Counter)


@attrs.define
class Findings:
    """What came out.

    Attributes:
        differing: decisions that would have been others.
        submissions_differing: how many submissions they are in.
        unreadable: observations that the judge's version can't read, with those after them in
            the same streams; `unreadable_first` is the first: its record, and why.
    """

    submissions: int = 0
    decisions: int = 0
    differing: int = 0
    submissions_differing: int = 0
    groups: dict[str, Group] = attrs.field(factory=dict)
    unreadable: int = 0
    unreadable_first: tuple[Record, str] | None = None


def play_again(records: Iterable[Record], changes: Changes, ask: Ask, examples: int) -> Findings:
    """Make the decisions of a log, or of one stream, again.

    Args:
        records: in the order of the log; the agent's own stream is passed over.
        ask: the judge.
        examples: how many differences of each kind are kept whole.

    Raises:
        NeedsNewerRelease: a record holds an event that this release does not know.
    """
    trial = _Trial(changes, examples)
    asked = (trial.questions(batch) for batch in _batches(decisions(records)))
    for batch, answers in _answered(asked, ask):
        for (decision, shown, _question), answer in zip(batch, answers, strict=True):
            trial.take(decision, shown, answer)
    trial.finish(ask)
    return trial.findings


# --- reading -------------------------------------------------------------------------------


def decisions(records: Iterable[Record]) -> Iterator[Decision]:
    """Yield each observation with what followed from it, when that is complete.

    Raises:
        NeedsNewerRelease: a record holds an event that this release does not know.
    """
    gathered: dict[str, list[Record]] = {}
    for record in records:
        if record.stream == AGENT_STREAM:
            continue
        before = gathered.get(record.stream)
        if is_observation(record):
            if before:
                yield Decision(before[0], tuple(before[1:]), last=False)
            before = gathered[record.stream] = [record]
        elif before:
            before.append(record)
        if record.closes and before:
            yield Decision(before[0], tuple(before[1:]), last=True)
            del gathered[record.stream]
    for before in gathered.values():
        yield Decision(before[0], tuple(before[1:]), last=False)


def is_observation(record: Record) -> bool:
    """Tell whether a record is one of those that are shown to the decider.

    Raises:
        NeedsNewerRelease: this release does not know that event.
    """
    event_class = EVENT_TYPES.get(record.type)
    if event_class is None:
        raise NeedsNewerRelease(
            record, UndecodableRecord(record.type, record.schema, "no such event in this release")
        )
    return issubclass(event_class, Observation)


def _batches(items: Iterable[Decision]) -> Iterator[list[Decision]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch


_Asked = tuple[Decision, Record | Draft | None, Question | None]


def _answered(
    batches: Iterable[list[_Asked]], ask: Ask
) -> Iterator[tuple[list[_Asked], list[Answer]]]:
    """Yield each batch with its answers, while the batches after it are under way."""

    def answers(batch: list[_Asked]) -> list[Answer]:
        given = iter(ask([question for _d, _s, question in batch if question is not None]))
        return [([], None, None) if question is None else next(given) for _d, _s, question in batch]

    under_way: deque[tuple[list[_Asked], Future[list[Answer]]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for batch in batches:
            under_way.append((batch, pool.submit(answers, batch)))
            if len(under_way) == AHEAD:
                done, future = under_way.popleft()
                yield done, future.result()
        for done, future in under_way:
            yield done, future.result()


# --- comparing -----------------------------------------------------------------------------


@attrs.define
class _Trial:
    """A whole log that is being played again.

    Attributes:
        keys: a number for each open stream, by which the judge knows it.
        departed: open streams that took another path, with the difference by which they did.
    """

    changes: Changes
    examples: int
    findings: Findings = attrs.field(factory=Findings)
    keys: dict[str, int] = attrs.field(factory=dict)
    departed: dict[str, Difference] = attrs.field(factory=dict)
    differed: set[str] = attrs.field(factory=set)
    numbers: Iterator[int] = attrs.field(factory=itertools.count)

    def questions(self, batch: Sequence[Decision]) -> list[_Asked]:
        """Return what is shown for each decision, and what the judge is asked."""
        return [self._question(decision) for decision in batch]

    def _question(self, decision: Decision) -> _Asked:
        record = decision.observation
        key = self.keys.get(record.stream)
        if key is None:
            key = self.keys[record.stream] = next(self.numbers)
            self.findings.submissions += 1
        shown = self.changes.shown(record)
        if decision.last:
            del self.keys[record.stream]
        if shown is None:
            return decision, None, (key, None, 0, "", True) if decision.last else None
        return decision, shown, (key, shown.type, shown.schema, shown.data, decision.last)

    def take(self, decision: Decision, shown: Record | Draft | None, answer: Answer) -> None:
        """Hold an answer against the record."""
        transitions, trouble, end = answer
        stream = decision.observation.stream
        self.findings.decisions += 1
        if trouble is not None and trouble[0] in (UNREADABLE, LOST):
            self._note_unreadable(decision, trouble)
        elif stream in self.departed:
            self._follow(decision, shown, transitions, trouble)
        else:
            found = difference(decision, shown, transitions, trouble)
            if found is not None:
                if (
                    found.shown is None
                    and decision.observation.position not in self.changes.left_out
                ):
                    found.kind = (
                        f"RunLeftAlone instead of {_listed([r.type for r in found.recorded])}"
                    )
                self._note(found, stream)
        if end is not None:
            self._note_end(stream, end)
            self.differed.discard(stream)

    def finish(self, ask: Ask) -> None:
        """Ask where the submissions are that are open and took another path."""
        streams = [stream for stream in self.departed if stream in self.keys]
        answers = ask([(self.keys[stream], None, 0, "", True) for stream in streams])
        for stream, (_transitions, _trouble, end) in zip(streams, answers, strict=True):
            if end is not None:
                self._note_end(stream, end)

    def _note_unreadable(self, decision: Decision, trouble: tuple[str, str]) -> None:
        if decision.observation.stream in self.departed:
            return  # It broke there, and that was counted.
        self.findings.unreadable += 1
        if self.findings.unreadable_first is None:
            self.findings.unreadable_first = decision.observation, trouble[1]

    def _follow(
        self,
        decision: Decision,
        shown: Record | Draft | None,
        transitions: Sequence[Any],
        trouble: tuple[str, str] | None,
    ) -> None:
        departure = self.departed[decision.observation.stream]
        if any(departure is kept for kept in self.findings.groups[departure.kind].examples):
            decided = tuple(Draft(*each) for each in transitions)
            broken = trouble[1] if trouble else None
            step = Step(shown, decision.observation.position, decided, broken)
            departure.steps.append(step)

    def _note(self, found: Difference, stream: str) -> None:
        self.findings.differing += 1
        if stream not in self.differed:
            self.differed.add(stream)
            self.findings.submissions_differing += 1
        group = self.findings.groups.setdefault(found.kind, Group(found.kind))
        group.count += 1
        if len(group.places) < PLACES:
            group.places.append((found.observation.position, stream))
        if len(group.examples) < self.examples:
            group.examples.append(found)
        if found.departs:
            self.departed[stream] = found

    def _note_end(self, stream: str, end: tuple[str, Sequence[str], bool]) -> None:
        departure = self.departed.pop(stream, None)
        if departure is not None and departure.trouble is None:
            departure.end = End(end[0], tuple(end[1]), end[2])
            self.findings.groups[departure.kind].ends[departure.end] += 1


def difference(
    decision: Decision,
    shown: Record | Draft | None,
    transitions: Sequence[Sequence[Any]],
    trouble: tuple[str, str] | None,
) -> Difference | None:
    """Return how a decision differs from the recorded one, None when it does not.

    Args:
        shown: what was shown to the judge; None when the observation was left out.
        transitions: what it decided: type, schema and data of each.
        trouble: what went wrong, and how.
    """
    recorded = decision.recorded
    if trouble is None and _is_same(recorded, transitions):
        return None
    decided = tuple(Draft(*each) for each in transitions)
    was, now = [each.type for each in recorded], [each.type for each in decided]
    if trouble is not None and trouble[0] == RAISES:
        kind = f"{trouble[1].partition(':')[0]} is raised instead of {_listed(was)}"
        return Difference(
            kind, decision.observation, shown, recorded, decided, trouble=trouble[1], departs=True
        )
    if was != now:
        kind = _other_events(was, now)
        return Difference(kind, decision.observation, shown, recorded, decided, departs=True)
    fields = tuple(
        (before.type, field)
        for before, after in zip(recorded, decided, strict=True)
        for field in field_differences(before, after)
    )
    if not fields:
        return None
    # What is put off decides what is owed next, and so which observations fit.
    departs = any(field.path == "$.effect" for _type, field in fields)
    names = dict.fromkeys(f"{type_}.{_top(field.path)}" for type_, field in fields)
    kind = f"{_listed(list(names))} {'differs' if len(names) == 1 else 'differ'}"
    return Difference(kind, decision.observation, shown, recorded, decided, fields, departs=departs)


def _is_same(recorded: Sequence[Record], transitions: Sequence[Sequence[Any]]) -> bool:
    if len(recorded) != len(transitions):
        return False
    for before, (type_, _schema, data) in zip(recorded, transitions, strict=True):
        if before.data != data or before.type != type_:
            return False
    return True


def field_differences(recorded: Record, decided: Draft) -> list[FieldDifference]:
    """Return the fields in which a transition differs from the recorded one.

    The two may be of different releases: a field that only one of them has, and that is empty
    there, is no difference.
    """
    before, after = _fields(recorded), _fields(decided)
    return [
        field
        for field in differences(before, after)
        if not (MISSING in (field.recorded, field.decided) and _is_empty(field))
    ]


def _is_empty(field: FieldDifference) -> bool:
    value = field.decided if field.recorded == MISSING else field.recorded
    return not value


def _fields(draft: Record | Draft) -> dict[str, Any]:
    """Return the fields as they are read today, with those that only another release knows."""
    fields = fields_of(draft)
    with contextlib.suppress(UndecodableRecord):
        return fields | unstructure(decode(draft))
    return fields


def _top(path: str) -> str:
    return path.removeprefix("$.").partition(".")[0].partition("[")[0]


def _other_events(was: Sequence[str], now: Sequence[str]) -> str:
    same = 0
    while same < min(len(was), len(now)) and was[same] == now[same]:
        same += 1
    was, now = was[same:], now[same:]
    if not now:
        return f"no {_listed(was)}"
    return f"{_listed(now)} {f'instead of {_listed(was)}' if was else 'in addition'}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "nothing"
