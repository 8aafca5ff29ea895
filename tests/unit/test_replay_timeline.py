"""The projection of a submission: its states and how long each lasted, waits, its ending."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import pytest

from events.codec import encode
from events.lifecycle import Effect, State, SubmissionFailed, Verdict
from events.log import Record
from events.memory import MemoryStore
from events.observations import RequestFailed
from replay.summary import as_object, outcome, state_in_words
from replay.timeline import History, Timeline
from tests.samples.edited import LOG_ID, first, record, with_fields
from tests.samples.make_sample import (
    Happening,
    Recorder,
    Run,
    SettableClock,
    adopted,
    exit_without_running,
    failed_launch,
    failed_resolution,
    good_run,
    killed_command,
    launched_again,
    launching_with_a_wait,
    refused_claim,
    still_running,
    tell_everything,
)

LYNX = Run("quiet-lynx")


def follow(records: Sequence[Record]) -> Timeline:
    (timeline,) = History().follow(records)
    return timeline


def restarted(story: Sequence[Happening], at: float, *, boot: str = "boot 1") -> list[Record]:
    """Record a story whose agent is replaced at a time, perhaps after a reboot."""
    clock = SettableClock()
    store = MemoryStore(LOG_ID, clock)
    recorder = Recorder(store, clock)
    recorder.start_agent("boot 1")
    waiting = True
    for seconds, run, observation in story:
        if waiting and seconds > at:
            waiting = False
            clock.seconds = at
            if boot != "boot 1":
                clock.booted_at = at - 5.0
            recorder.start_agent(boot)
        clock.seconds = seconds
        recorder.observe(run.stream, observation)
    return list(store.read_all())


def test_each_state_lasts_from_the_record_that_entered_it_to_the_one_that_left_it() -> None:
    timeline = follow(record(good_run(LYNX, 1.0), agent=True))

    assert [(s.state, round(s.seconds, 6)) for s in timeline.all_stretches()] == [
        (State.DISCOVERED, 0.034),
        (State.PENDING, 0.0),
        (State.RESOLVING, 0.177),
        (State.LAUNCHING, 0.028),
        (State.STARTED, 11.761),
        (State.EXITED, 0.02),
    ]
    assert timeline.seconds() == pytest.approx(12.02)
    assert not timeline.is_open


def test_a_state_that_is_entered_twice_is_told_twice() -> None:
    timeline = follow(restarted(launched_again(LYNX, 58.0, 60.0), 60.0))

    states = [stretch.state for stretch in timeline.all_stretches()]

    assert states.count(State.RESOLVING) == states.count(State.LAUNCHING) == 2
    assert (timeline.voided, timeline.recoveries) == (1, 1)


def test_a_wall_clock_that_is_set_meanwhile_changes_no_duration_within_a_boot() -> None:
    records = record(good_run(LYNX, 1.0), agent=True)
    jumped = [
        attrs.evolve(r, recorded_at="2031-01-01T00:00:00.000000+00:00") if r.position > 8 else r
        for r in records
    ]

    assert follow(jumped).seconds() == pytest.approx(12.02)


def test_across_a_reboot_the_wall_clock_tells_durations() -> None:
    timeline = follow(restarted(adopted(LYNX, 20.0, 60.0), 60.0, boot="boot 2"))

    assert timeline.seconds() == pytest.approx(80.03)
    assert timeline.recoveries == 1


def test_without_a_word_from_the_agent_the_wall_clock_tells_durations() -> None:
    records = [attrs.evolve(r, monotonic_ns=0) for r in record(good_run(LYNX, 1.0))]

    assert follow(records).seconds() == pytest.approx(12.02)


def test_a_time_that_is_no_time_is_no_duration() -> None:
    records = [attrs.evolve(r, recorded_at="yesterday") for r in record(good_run(LYNX, 1.0))]

    assert math.isnan(follow(records).seconds())


def test_an_open_submission_lasts_to_the_end_of_the_log() -> None:
    other = Run("late-owl")
    history = History()
    timelines = list(
        history.follow(record(still_running(LYNX, 1.0), good_run(other, 50.0), agent=True))
    )
    (running,) = (timeline for timeline in timelines if timeline.is_open)

    assert running.seconds(history.latest) == pytest.approx(61.02)
    assert running.owed == (Effect.WATCH,)


def test_waits_are_counted_with_the_delays_that_were_decided() -> None:
    timeline = follow(record(killed_command(LYNX, 1.0)))

    assert (timeline.waits, timeline.waits_seconds) == (2, 3.0)


def test_submissions_are_told_apart_by_their_streams() -> None:
    store = MemoryStore(LOG_ID, SettableClock())
    tell_everything(Recorder(store, SettableClock()))

    timelines = list(History().follow(store.read_all()))

    assert len({timeline.stream for timeline in timelines}) == len(timelines) == 12


def test_a_record_of_a_newer_release_is_said_and_the_rest_is_still_told() -> None:
    records = record(good_run(LYNX, 1.0))
    target = first(records, "PidReported")
    records = [attrs.evolve(r, schema=9) if r is target else r for r in records]

    timeline = follow(records)

    assert timeline.trouble is not None
    assert f"position {target.position}" in timeline.trouble
    assert not timeline.is_open


def test_an_illegal_record_is_said_and_the_rest_is_still_told() -> None:
    records = record(good_run(LYNX, 1.0))
    draft = encode(SubmissionFailed("launch", "?"))
    target = first(records, "LaunchConfirmed")
    records = [
        attrs.evolve(r, type=draft.type, data='{"step":"launch","error":"no"}')
        if r is target
        else r
        for r in records
    ]

    timeline = follow(records)

    assert timeline.trouble is not None
    assert "PidReported is not legal in FAILED" in timeline.trouble


@pytest.mark.parametrize(
    ("story", "state", "words", "style"),
    [
        (good_run(LYNX, 1.0), "exited", "exit 0 · run COMPLETED", "good"),
        (failed_launch(LYNX, 1.0), "failed", "to launch: no such command: ", "bad"),
        (failed_resolution(LYNX, 1.0), "failed", "to resolve: the deployment's ", "bad"),
        (refused_claim(LYNX, 1.0), "aborted", "ABORT: This run is in a PENDING", "quiet"),
        (exit_without_running(LYNX, 1.0), "exited", "exit 0 · reported Crashed", "bad"),
        (killed_command(LYNX, 1.0), "exited", "killed by SIGKILL · reported Crashed", "bad"),
        (killed_command(LYNX, 1.0)[:-1], "exited*", "killed by SIGKILL · to tell the ", "bad"),
        (still_running(LYNX, 1.0), "started", "runs as batch-7:5007", "busy"),
        (launching_with_a_wait(LYNX, 1.0), "launching", "to examine the evidence of", "wait"),
        (good_run(LYNX, 1.0)[:1], "discovered", "to claim the run", "wait"),
    ],
)
def test_what_became_of_a_submission_fits_in_a_few_words(
    story: Sequence[Happening], state: str, words: str, style: str
) -> None:
    timeline = follow(record(story))

    told = outcome(timeline)

    assert (state_in_words(timeline), told[0][: len(words)], told[1]) == (state, words, style)


def test_a_run_that_its_own_engine_failed_is_no_success_though_it_exited_cleanly() -> None:
    story = [*good_run(LYNX, 1.0)[:-1], (14.0, LYNX, LYNX.read("FAILED"))]

    assert outcome(follow(record(story))) == ("exit 0 · run FAILED", "bad")


def test_a_report_that_the_server_answered_otherwise_is_said() -> None:
    answer = attrs.evolve(LYNX.reported("CANCELLED"), status="REJECT", reason="it is over")
    story = [*exit_without_running(LYNX, 1.0)[:-1], (14.0, LYNX, answer)]

    words, _style = outcome(follow(record(story)))

    assert words == "exit 0 · reported Crashed, answered REJECT: it is over"


def test_infrastructure_that_was_lost_is_said_with_the_reason() -> None:
    lost = LYNX.evidence(Verdict.LOST, "the host was booted meanwhile", 5005)
    story = [*adopted(LYNX, 20.0, 60.0)[:5], (60.2, LYNX, lost)]

    words, style = outcome(follow(restarted(story, 60.0)))

    assert words.startswith("lost · the host was booted meanwhile · to read")
    assert style == "bad"


def test_a_wait_of_a_running_submission_is_said_beside_that_it_runs() -> None:
    failed = RequestFailed(Effect.REPORT_PID, "connection refused", True, 0.5)
    story = [*still_running(LYNX, 1.0)[:-1], (2.0, LYNX, failed)]

    words, _style = outcome(follow(record(story)))

    assert words == (
        "runs as batch-7:5007 · to watch the command, to tell the server its pid after a wait of"
        " 1.00 s (connection refused)"
    )


def test_the_object_for_machines_holds_durations_in_seconds_and_ids_in_full() -> None:
    records = record(failed_resolution(LYNX, 1.0), agent=True)
    history = History()
    (timeline,) = history.follow(records)

    told = as_object(timeline, history.latest)

    assert told["stream"] == LYNX.stream
    assert told["flow_run_id"] == str(LYNX.flow_run_id)
    assert told["seconds"] == pytest.approx(0.121)
    assert told["states"][0] == {"state": "discovered", "seconds": pytest.approx(0.031)}
    assert told["ending"]["type"] == "SubmissionFailed"
    assert told["reported"]["state_type"] == "FAILED"
    assert (told["open"], told["owed"], told["trouble"]) == (False, [], None)


def test_an_object_is_made_also_of_a_stream_in_which_nothing_can_be_read() -> None:
    records = [with_fields(r, ordinal="x") for r in record(good_run(LYNX, 1.0)[:1])]

    told = as_object(follow(records))

    assert told["run_name"] is None
    assert told["state"] == "absent"
    assert "can't be read on from position 2" in told["summary"]
