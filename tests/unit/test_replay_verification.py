"""Verification: sound logs pass, and each way of not being sound is named where it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.codec import EVENT_TYPES
from events.decider import decide
from events.lifecycle import Effect, LaunchRequested, Transition, Verdict
from events.log import Record, Tip
from events.memory import MemoryStore
from events.observations import (
    AgentRestarted,
    CommandEnded,
    CommandRefused,
    LaunchUncertain,
    Observation,
    PidAcknowledged,
    RequestFailed,
    ResolutionFailed,
    RunMissing,
)
from events.submission import Submission
from replay.verification import (
    MISSING,
    Decide,
    Divergence,
    FieldDifference,
    Kind,
    NeedsNewerRelease,
    Tally,
    differences,
    verify,
)
from tests.samples.edited import (
    LOG_ID,
    RecordsReader,
    first,
    rechained,
    record,
    with_fields,
)
from tests.samples.make_sample import (
    Recorder,
    Run,
    SettableClock,
    failed_resolution,
    good_run,
    launching_with_a_wait,
    tell_everything,
)

LYNX = Run("quiet-lynx")
TOAD = Run("brave-toad")


def found(records: Sequence[Record], decide: Decide = decide) -> list[Divergence]:
    return list(verify(RecordsReader(records), LOG_ID, Tally(), decide=decide))


def only(records: Sequence[Record]) -> Divergence:
    (divergence,) = found(records)
    return divergence


def replaced(records: Sequence[Record], old: Record, new: Record) -> list[Record]:
    return rechained(new if each is old else each for each in records)


def without(records: Sequence[Record], missing: Record) -> list[Record]:
    """Return records that lack one, as if it had never been: versions and causes close up."""

    def closed_up(each: Record) -> Record:
        position = each.position - (each.position > missing.position)
        if each.stream != missing.stream:
            return attrs.evolve(each, position=position)
        cause = each.cause
        if cause is not None and cause >= missing.version:
            cause = cause - 1 or None
        version = each.version - (each.version > missing.version)
        return attrs.evolve(each, position=position, version=version, cause=cause)

    return rechained(closed_up(each) for each in records if each is not missing)


def test_a_log_in_which_everything_happens_is_sound_and_is_counted() -> None:
    store = MemoryStore(LOG_ID, SettableClock())
    tell_everything(Recorder(store, SettableClock()))
    tally = Tally()

    assert list(verify(store, LOG_ID, tally)) == []

    observations = sum(each.type == "RunOffered" for each in store.read_all())
    assert (tally.records, tally.submissions) == (store.last_position(), observations)
    assert tally.decisions == 82


def test_an_empty_log_is_sound() -> None:
    assert found([]) == []


def test_an_altered_record_breaks_the_chain_and_ends_the_verification() -> None:
    records = record(good_run(LYNX, 1.0), failed_resolution(TOAD, 2.0))
    target = first(records, "LaunchRequested")
    forged = [with_fields(r, name="evil") if r is target else r for r in records]

    divergence = only(forged)

    assert (divergence.kind, divergence.position) == (Kind.CHAIN, target.position)
    assert (divergence.stream, divergence.version) == (LYNX.stream, target.version)


def test_a_missing_record_breaks_the_chain_at_the_place_where_it_was() -> None:
    records = record(good_run(LYNX, 1.0))

    divergence = only([each for each in records if each.position != 4])

    assert (divergence.kind, divergence.position) == (Kind.CHAIN, 4)
    assert divergence.stream is None


def test_a_log_of_another_agent_spliced_in_breaks_the_chain_at_once() -> None:
    records = rechained(record(good_run(LYNX, 1.0)), TOAD.flow_run_id)

    assert only(records).position == 1


def test_a_transition_altered_with_a_fitting_chain_is_named_to_the_field() -> None:
    records = record(good_run(LYNX, 1.0))
    target = first(records, "LaunchRequested")
    forged = with_fields(target, command=["/usr/bin/true"], name="evil")

    divergence = only(replaced(records, target, forged))

    assert (divergence.kind, divergence.position) == (Kind.DECISION, target.position)
    assert (divergence.stream, divergence.version) == (LYNX.stream, target.version)
    assert divergence.type == "LaunchRequested"
    assert divergence.fields == (
        FieldDifference("$.command[0]", "/usr/bin/true", "/opt/flows/venv/bin/python"),
        FieldDifference("$.command[1]", MISSING, "-m"),
        FieldDifference("$.command[2]", MISSING, "prefect.engine"),
        FieldDifference("$.name", "evil", "quiet-lynx"),
    )


def test_an_observation_altered_with_a_fitting_chain_shows_in_what_follows_from_it() -> None:
    records = record(good_run(LYNX, 1.0))
    target = first(records, "CommandEnded")

    divergence = only(replaced(records, target, with_fields(target, exit_code=1)))

    assert (divergence.type, divergence.position) == ("InfrastructureExited", target.position + 1)
    assert divergence.fields == (FieldDifference("$.exit_code", 0, 1),)


def test_a_decider_that_decides_otherwise_now_diverges_from_the_log() -> None:
    def renaming(submission: Submission, observation: Observation) -> Sequence[Transition]:
        return [
            attrs.evolve(each, name=each.name.upper())
            if isinstance(each, LaunchRequested)
            else each
            for each in decide(submission, observation)
        ]

    records = record(good_run(LYNX, 1.0), failed_resolution(TOAD, 2.0))

    (divergence,) = found(records, renaming)

    assert divergence.fields == (FieldDifference("$.name", "quiet-lynx", "QUIET-LYNX"),)


def test_another_transition_than_the_decided_one_is_named() -> None:
    records = record(good_run(LYNX, 1.0))
    target = first(records, "PendingAccepted")
    other = attrs.evolve(target, type="PendingRefused", data='{"reason":"no","server_state":null}')

    divergence = only(replaced(records, target, other))

    assert divergence.kind is Kind.DECISION
    assert "PendingAccepted follows" in divergence.problem


def test_an_illegal_transition_is_named_with_the_state() -> None:
    records = record(good_run(LYNX, 1.0))
    target = first(records, "PendingAccepted")
    illegal = attrs.evolve(target, type="ResolutionStarted", data="{}")

    divergence = only(replaced(records, target, illegal))

    assert (divergence.kind, divergence.position) == (Kind.LEGALITY, target.position)
    assert "not legal in DISCOVERED" in divergence.problem


def test_a_transition_too_many_is_named() -> None:
    records = record(good_run(LYNX, 1.0))
    target = first(records, "PendingProposed")
    again = attrs.evolve(target, version=4, position=4)
    moved = [
        attrs.evolve(r, version=r.version + 1, position=r.position + 1) if r.version > 3 else r
        for r in records
    ]

    divergence = only(rechained([*moved[:3], again, *moved[3:]]))

    assert (divergence.kind, divergence.position) == (Kind.DECISION, 4)
    assert "nothing (more) follows" in divergence.problem


def test_a_missing_transition_at_the_end_of_the_log_is_named_at_its_observation() -> None:
    records = record(launching_with_a_wait(TOAD, 1.0))
    cut = records[:-1]

    divergence = only(cut)

    assert (divergence.kind, divergence.position) == (Kind.DECISION, cut[-1].position)
    assert "EffectDeferred follows" in divergence.problem


GOOD = record(good_run(LYNX, 1.0))


@pytest.mark.parametrize(
    "missing",
    [r for r in GOOD if issubclass(EVENT_TYPES[r.type], Transition)],
    ids=lambda r: r.type,
)
def test_a_log_that_lacks_a_transition_is_not_sound(missing: Record) -> None:
    assert found(without(GOOD, missing))


@pytest.mark.parametrize("closing", [True, False])
def test_a_closing_mark_in_the_wrong_place_is_named(closing: bool) -> None:
    target = first(GOOD, "LaunchConfirmed") if closing else GOOD[-1]

    divergence = found(replaced(GOOD, target, attrs.evolve(target, closes=closing)))[0]

    assert (divergence.kind, divergence.position) == (Kind.SHAPE, target.position)
    assert ("more is owed" in divergence.problem) is closing


@pytest.mark.parametrize("type_", ["CommandStarted", "LaunchConfirmed"])
def test_a_cause_that_is_not_the_right_one_is_named(type_: str) -> None:
    target = first(GOOD, type_)

    divergence = only(replaced(GOOD, target, attrs.evolve(target, cause=1)))

    assert (divergence.kind, divergence.position) == (Kind.SHAPE, target.position)
    assert divergence.fields == (FieldDifference("cause", 1, target.cause),)


def test_a_submission_in_the_stream_of_another_run_is_named() -> None:
    renamed = rechained(attrs.evolve(each, stream=TOAD.stream) for each in GOOD)

    divergence = only(renamed)

    assert (divergence.kind, divergence.type) == (Kind.SHAPE, "RunDiscovered")
    assert LYNX.stream in divergence.problem


def test_only_notices_belong_in_the_agents_own_stream() -> None:
    (start,) = record(agent=True)
    foreign = attrs.evolve(start, type="AgentRestarted", data="{}")

    assert only(rechained([foreign])).problem == "the agent's own stream holds notices only"


def test_notices_belong_in_the_agents_own_stream_only() -> None:
    (start,) = record(agent=True)

    divergence = only(rechained([attrs.evolve(start, stream=LYNX.stream)]))

    assert divergence.problem == "only the agent's own stream holds notices"


def test_the_agents_own_stream_is_never_closed() -> None:
    (start,) = record(agent=True)

    divergence = only(rechained([attrs.evolve(start, closes=True)]))

    assert divergence.problem == "the agent's own stream is never closed"


def test_a_stream_that_begins_with_a_transition_is_named() -> None:
    discovered = attrs.evolve(GOOD[1], position=1, version=1, cause=None)

    divergence = only(rechained([discovered]))

    assert (divergence.kind, divergence.position) == (Kind.SHAPE, 1)


@pytest.mark.parametrize(
    ("listed", "wrong"),
    [((), TOAD.stream), ((TOAD.stream, LYNX.stream), LYNX.stream)],
    ids=["open but not listed", "listed but not open"],
)
def test_a_list_of_open_streams_that_would_mislead_recovery_is_named(
    listed: tuple[str, ...], wrong: str
) -> None:
    records = record(good_run(LYNX, 1.0), launching_with_a_wait(TOAD, 100.0))

    (divergence,) = verify(RecordsReader(records, listed), LOG_ID, Tally())

    assert (divergence.kind, divergence.stream) == (Kind.SHAPE, wrong)


def test_after_a_divergence_the_other_streams_are_still_verified() -> None:
    records = record(good_run(LYNX, 1.0), failed_resolution(TOAD, 100.0))
    records = replaced(records, (r := first(records, "LaunchRequested")), with_fields(r, name="x"))
    records = replaced(records, (r := first(records, "SubmissionFailed")), with_fields(r, step="x"))

    assert [d.stream for d in found(records)] == [LYNX.stream, TOAD.stream]


@pytest.mark.parametrize("newer", [{"schema": 2}, {"type": "RunTeleported"}])
def test_an_event_of_a_newer_release_is_not_called_damage(newer: dict[str, Any]) -> None:
    target = first(GOOD, "CommandEnded")
    records = replaced(GOOD, target, attrs.evolve(target, **newer))

    with pytest.raises(NeedsNewerRelease, match=f"position {target.position} .*newer") as raised:
        found(records)

    assert raised.value.record.position == target.position


def test_fields_that_do_not_fit_are_named() -> None:
    target = first(GOOD, "CommandEnded")

    divergence = only(replaced(GOOD, target, with_fields(target, exit_code="many")))

    assert (divergence.kind, divergence.position) == (Kind.SHAPE, target.position)
    assert "exit_code" in divergence.problem


def test_fields_of_a_newer_release_are_no_divergence() -> None:
    target = first(GOOD, "LaunchRequested")

    assert found(replaced(GOOD, target, with_fields(target, priority=7))) == []


def test_a_log_that_grows_while_it_is_verified_is_followed_to_its_end() -> None:
    records = record(good_run(LYNX, 1.0), good_run(TOAD, 2.0))

    class Growing(RecordsReader):
        def open_streams(self) -> Sequence[str]:
            # This is asked for right after the reader has come to the end; then more arrives.
            listed = super().open_streams()
            self.records = records[: len(self.records) + 6]
            return listed

    tally = Tally()

    assert list(verify(Growing(records[:9]), LOG_ID, tally)) == []
    assert tally.records == len(records)


def test_differences_are_found_at_any_depth() -> None:
    recorded = {"a": 1, "b": {"c": [1, 2]}, "gone": None}
    decided = {"a": 1, "b": {"c": [1, 3, 4]}, "d": 5}

    assert list(differences(recorded, decided)) == [
        FieldDifference("$.b.c[1]", 2, 3),
        FieldDifference("$.b.c[2]", MISSING, 4),
        FieldDifference("$.d", MISSING, 5),
        FieldDifference("$.gone", None, MISSING),
    ]


OBSERVATIONS = st.sampled_from(
    [
        LYNX.offered(),
        LYNX.claimed(),
        LYNX.resolved(),
        LYNX.started(4711),
        LYNX.read("PENDING", ours=True),
        LYNX.read("RUNNING", pid="batch-7:4711"),
        LYNX.read("CANCELLED"),
        LYNX.reported("CRASHED"),
        LYNX.evidence(Verdict.NEVER_RAN, "both locks are free"),
        LYNX.evidence(Verdict.RUNNING, "held", 4711),
        LYNX.evidence(Verdict.LOST, "another boot", 4711),
        AgentRestarted(),
        CommandEnded(0, ""),
        CommandEnded(1, ""),
        CommandRefused("no such command"),
        LaunchUncertain("nobody knows"),
        PidAcknowledged(),
        ResolutionFailed("no such block"),
        *(RequestFailed(effect, "refused", True, 0.5) for effect in Effect),
        *(RunMissing(effect) for effect in Effect),
    ]
)


@given(st.lists(OBSERVATIONS, max_size=25))
def test_whatever_is_observed_a_log_recorded_by_the_rules_is_sound(
    observations: list[Observation],
) -> None:
    clock = SettableClock()
    store = MemoryStore(LOG_ID, clock)
    recorder = Recorder(store, clock)
    for observation in [LYNX.offered(), *observations]:
        if recorder.observe(LYNX.stream, observation).is_closed:
            break

    assert list(verify(store, LOG_ID, Tally())) == []


# --- from a position on ----------------------------------------------------------------------


def tip_of(record_: Record) -> Tip:
    return Tip(record_.position, record_.hash)


def found_after(records: Sequence[Record], position: int) -> list[Divergence]:
    after = tip_of(records[position - 1])
    return list(verify(RecordsReader(records), LOG_ID, Tally(), after=after))


def everything() -> list[Record]:
    clock = SettableClock()
    store = MemoryStore(LOG_ID, clock)
    tell_everything(Recorder(store, clock))
    return list(store.read_all())


def test_from_every_position_on_a_sound_log_is_sound() -> None:
    records = everything()

    for position in range(1, len(records) + 1):
        assert found_after(records, position) == []


def test_what_came_before_is_believed_and_what_came_after_is_not() -> None:
    records = everything()
    middle = len(records) // 2
    bad = with_fields(first(records[middle:], "InfrastructureExited"), exit_code=42)
    diverging = replaced(records, records[bad.position - 1], bad)

    assert [d.position for d in found_after(diverging, bad.position - 1)] == [bad.position]
    assert [d.position for d in found_after(diverging, middle)] == [bad.position]
    closed_by_then = [d for d in found_after(diverging, len(records)) if d.position]
    assert closed_by_then == []


def test_a_submission_that_goes_on_is_checked_from_its_beginning() -> None:
    records = everything()
    bear = Run("hungry-bear", "reports").stream
    its_own = [r for r in records if r.stream == bear]
    launch = first(its_own, "LaunchConfirmed")
    diverging = replaced(records, launch, with_fields(launch, pid=1))

    divergences = found_after(diverging, its_own[-3].position)

    assert [(d.position, d.kind) for d in divergences] == [(launch.position, Kind.DECISION)]


def test_a_record_that_follows_a_closed_submission_is_found_wherever_checking_begins() -> None:
    records = everything()
    closed = next(r for r in records if r.closes)
    late = attrs.evolve(
        closed, position=len(records) + 1, version=closed.version + 1, cause=closed.version
    )
    longer = rechained([*records, late])

    for position in (closed.position, len(records)):
        (divergence,) = found_after(longer, position)
        assert divergence.position == late.position
        assert "was closed before" in divergence.problem
