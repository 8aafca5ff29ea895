"""What holds for every log that is played again with something changed, and for every alignment."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import orjson
from hypothesis import given
from hypothesis import strategies as st

from events.codec import decode, unstructure
from events.log import Record
from events.memory import MemoryStore
from events.observations import Observation, ProposalAnswered, RunOffered, RunRead
from replay.alignment import align
from replay.changes import Changes, replacement
from replay.decider_worker import Judge
from replay.likeness import Own
from replay.player import play
from replay.whatif import Findings, decisions, play_again
from tests.properties.strategies import observations
from tests.samples.edited import LOG_ID
from tests.samples.make_sample import (
    Recorder,
    Run,
    SettableClock,
    exit_without_running,
    failed_launch,
    good_run,
    killed_command,
    launching_with_a_wait,
)

RUN = Run("any-run")
STORIES = (exit_without_running, failed_launch, good_run, killed_command, launching_with_a_wait)


def anything() -> st.SearchStrategy[Observation]:
    """Any observation that a client can make: it lets no time through that is none."""
    return observations().map(
        lambda seen: (
            attrs.evolve(seen, scheduled_time=None)
            if isinstance(seen, ProposalAnswered | RunRead | RunOffered)
            else seen
        )
    )


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Records of one submission: a story that makes sense, with other observations among it."""
    story = [seen for _at, _run, seen in draw(st.sampled_from(STORIES))(RUN, 0.0)]
    for _ in range(draw(st.integers(0, 5))):
        story.insert(draw(st.integers(1, len(story))), draw(anything()))
    return recorded(story)


def recorded(story: Sequence[Observation]) -> list[Record]:
    clock = SettableClock()
    recorder = Recorder(MemoryStore(LOG_ID, clock), clock)
    for seen in story:
        if recorder.observe(RUN.stream, seen).is_closed:
            break
    return list(recorder.store.read_all())


def again(records: Sequence[Record], changes: Changes | None = None) -> Findings:
    return play_again(records, changes or Changes(), Judge().ask, examples=1)


def changeable(records: Sequence[Record]) -> st.SearchStrategy[Record]:
    """Any of the observations."""
    return st.sampled_from([decision.observation for decision in decisions(records)])


@given(logs())
def test_nothing_differs_when_nothing_is_changed(records: list[Record]) -> None:
    """Whatever was recorded by today's decider is decided again by today's decider."""
    findings = again(records)

    assert (findings.differing, findings.groups, findings.unreadable) == (0, {}, 0)
    assert findings.submissions == 1
    assert findings.decisions == len(list(decisions(records)))


@given(st.data())
def test_nothing_differs_when_an_observation_is_replaced_by_itself(data: st.DataObject) -> None:
    """An observation with its own fields is the same observation."""
    records = data.draw(logs())
    record = data.draw(changeable(records))
    same = replacement(record, orjson.loads(record.data))

    assert again(records, Changes(replaced={record.position: same})).differing == 0


@given(st.data())
def test_what_came_before_an_observation_that_is_left_out_stays_as_it_was(
    data: st.DataObject,
) -> None:
    """A change has effects from its own place on, and there only if something followed from it."""
    records = data.draw(logs())
    record = data.draw(changeable(records))
    led_to = next(d.recorded for d in decisions(records) if d.observation is record)

    findings = again(records, Changes(left_out=frozenset({record.position})))

    firsts = [at for group in findings.groups.values() for at, _stream in group.places]
    assert all(at >= record.position for at in firsts)
    assert (record.position in firsts) == bool(led_to)


@given(st.data())
def test_what_is_decided_of_another_observation_is_what_would_have_been_recorded(
    data: st.DataObject,
) -> None:
    """A changed history, played again, is the log that an agent would have written of it."""
    records = data.draw(logs())
    record, other = data.draw(changeable(records)), data.draw(anything())
    led_to = next(d.recorded for d in decisions(records) if d.observation is record)
    wanted = {"type": type(other).__name__} | unstructure(other)
    changed = [
        other if d.observation is record else _observation(d.observation)
        for d in decisions(records)
    ]

    findings = again(records, Changes(replaced={record.position: replacement(record, wanted)}))

    expected = [
        [(each.type, each.data) for each in decision.recorded]
        for decision in decisions(recorded(changed))
    ]
    index = [d.observation for d in decisions(records)].index(record)
    examples = [example for group in findings.groups.values() for example in group.examples]
    own = next((found for found in examples if found.observation is record), None)
    if own is None:
        assert expected[index] == [(each.type, each.data) for each in led_to]
    else:
        assert expected[index] == [(each.type, each.data) for each in own.decided]


def _observation(record: Record) -> Observation:
    event = decode(record)
    assert isinstance(event, Observation)
    return event


# --- alignment -----------------------------------------------------------------------------


@given(logs(), logs())
def test_an_alignment_has_every_step_of_both_once_and_in_order(
    left: list[Record], right: list[Record]
) -> None:
    """Rows are a way of showing; nothing is lost, doubled or moved by it."""
    steps = list(play(left)), list(play(right))
    own = [Own.of(each[-1].after) for each in steps]

    rows = align(*steps, *own)

    assert [row.left for row in rows if row.left] == steps[0]
    assert [row.right for row in rows if row.right] == steps[1]
    types = [(r.left.record.type, r.right.record.type) for r in rows if r.left and r.right]
    assert all(one == other for one, other in types)


@given(logs())
def test_a_submission_is_the_same_as_itself(records: list[Record]) -> None:
    """Every row of a submission beside itself is the same, also with nothing taken out."""
    steps = list(play(records))
    own = Own.of(steps[-1].after, everything=True)

    assert all(row.same for row in align(steps, steps, own, own))
