"""Why submissions failed: what failed for the same reason has the same cause, and only that."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.lifecycle import Effect
from events.log import Record
from events.memory import MemoryStore
from events.observations import (
    CommandEnded,
    ProposalAnswered,
    ResolutionFailed,
)
from replay.causes import LONGEST_MESSAGE, cause_of, without_varying_parts
from replay.summary import outcome
from replay.timeline import History, Timeline
from tests.samples.edited import LOG_ID, record, with_fields
from tests.samples.make_sample import (
    Happening,
    Recorder,
    Run,
    SettableClock,
    claimed_and_launched,
    exit_without_running,
    failed_launch,
    failed_resolution,
    good_run,
    killed_command,
    refused_claim,
    still_running,
    tell_everything,
)

LYNX, TOAD = Run("quiet-lynx"), Run("brave-toad")


def follow(records: list[Record]) -> Timeline:
    (timeline,) = History().follow(records)
    return timeline


def cause(story: list[Happening]) -> str | None:
    return cause_of(follow(list(record(story))))


def ended(run: Run, code: int | None, reason: str, *afterwards: ProposalAnswered) -> str | None:
    """The cause of a run that was Running at the server when its command ended."""
    story: list[Happening] = [
        *claimed_and_launched(run, 1.0, 5001),
        (9.0, run, CommandEnded(code, reason)),
        (9.1, run, run.read("RUNNING", pid="batch-7:5001")),
        *((9.2, run, answer) for answer in afterwards),
    ]
    return cause(story)


@pytest.mark.parametrize("story", [good_run(LYNX, 1.0), refused_claim(LYNX, 1.0)])
def test_what_went_well_and_what_was_never_ours_has_no_cause(story: list[Happening]) -> None:
    assert cause(story) is None


def test_what_still_runs_has_no_cause() -> None:
    assert cause(still_running(LYNX, 1.0)) is None


def test_a_failure_is_what_the_list_shows_as_one() -> None:
    clock = SettableClock()
    store = MemoryStore(LOG_ID, clock)
    tell_everything(Recorder(store, clock))

    timelines = list(History().follow(store.read_all()))

    assert len(timelines) == 12
    for timeline in timelines:
        assert (cause_of(timeline) is not None) == (outcome(timeline)[1] == "bad")
    assert {cause_of(t) for t in timelines} == {
        None,
        "resolve: the deployment's infrastructure document <id> does not exist; choose another one"
        " for the deployment, or give it none to use the agent's default",
        "launch: no such command: <path>",
        "run: exit 0, before the run was Running",
        "run: killed by SIGKILL",
    }


def test_two_runs_that_failed_for_the_same_reason_have_one_cause() -> None:
    assert cause(failed_resolution(LYNX, 1.0)) == cause(failed_resolution(TOAD, 9.0))


def test_the_step_tells_causes_with_the_same_words_apart() -> None:
    story = failed_launch(LYNX, 1.0)
    unresolved = [
        *story[:2],
        (1.1, LYNX, ResolutionFailed("no such command: /opt/flows/bin/nightly")),
        story[-1],
    ]

    assert cause(story) == "launch: no such command: <path>"
    assert cause(unresolved) == "resolve: no such command: <path>"


def test_a_command_that_ended_before_its_flow_ran_is_told_from_one_that_ended_later() -> None:
    assert cause(exit_without_running(LYNX, 1.0)) == "run: exit 0, before the run was Running"
    assert cause(killed_command(LYNX, 1.0)) == "run: killed by SIGKILL"


def test_exit_codes_are_causes_of_their_own() -> None:
    answer = LYNX.reported("CRASHED")

    assert ended(LYNX, 1, "", answer) == "run: exit 1"
    assert ended(LYNX, 137, "", answer) == "run: exit 137"


def test_who_noticed_an_exit_makes_no_difference_to_its_cause() -> None:
    found = ended(LYNX, -9, "there is an exit record", LYNX.reported("CRASHED"))

    assert found == ended(LYNX, -9, "", LYNX.reported("CRASHED")) == "run: killed by SIGKILL"


def test_a_command_that_was_lost_tells_how() -> None:
    reason = "the host was rebooted at 2026-11-24T02:10:00+00:00"

    assert ended(LYNX, None, reason, LYNX.reported("CRASHED")) == (
        "run: lost: the host was rebooted at <time>"
    )


def test_a_flow_that_failed_by_its_own_account_is_a_cause_though_its_command_ended_well() -> None:
    story: list[Happening] = [*good_run(LYNX, 1.0)[:-1], (20.0, LYNX, LYNX.read("FAILED"))]

    assert cause(story) == "run: exit 0, the run FAILED"


def test_a_cancelled_command_is_not_blamed_on_its_signal() -> None:
    cancelled = ProposalAnswered(Effect.REPORT_OUTCOME, "ACCEPT", state_type="CANCELLED")
    story: list[Happening] = [
        *claimed_and_launched(LYNX, 1.0, 5001),
        (9.0, LYNX, CommandEnded(-15, "")),
        (9.1, LYNX, LYNX.read("CANCELLING", pid="batch-7:5001")),
        (9.2, LYNX, cancelled),
    ]

    assert cause(story) == "run: cancelled while it ran"


def test_a_record_that_cannot_be_read_is_a_cause_whatever_its_position() -> None:
    def unreadable_after(positions: int) -> str | None:
        records = list(record(good_run(LYNX, 1.0)))
        index = next(i for i, r in enumerate(records) if r.type == "PendingAccepted")
        records[index] = attrs.evolve(
            with_fields(records[index], state_id="nonsense"), position=positions
        )
        return cause_of(follow(records))

    first = unreadable_after(4)

    assert first is not None
    assert first.startswith("read: position <n>: can't decode a PendingAccepted record")
    assert first == unreadable_after(4_000)


# --- what varies -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "without"),
    [
        ("deployment 0e9c1a3e-52f5-4f0c-9a53-0d6a1f6f7b11 is gone", "deployment <id> is gone"),
        (
            "no answer from https://u.example:4200/api/x: timed out",
            "no answer from <url>: timed out",
        ),
        ("No such file: '/srv/a b/c.py'", "No such file: '<path> b/c.py'"),
        ("open ~/flows/x.py, then ./y or ../z", "open <path>, then <path> or <path>"),
        ("either/or stays, and so does n/a", "either/or stays, and so does n/a"),
        ("no launch folder mfrggzdfmztwq2lknnwg23tpob", "no launch folder <id>"),
        ("commit 9fceb02d0ae598e95dc970b74767f19372d61af8 missing", "commit <id> missing"),
        ("waited 10.5 s for 3 of 1,024 slots", "waited <n> s for <n> of <n> slots"),
        ("since 2026-11-24T02:00:00.123456+00:00", "since <time>"),
        ("refused with status 404: run 17", "refused with status 404: run <n>"),
        ("[Errno 28] No space left on device", "[Errno 28] No space left on device"),
        ("several\n  lines\tof it", "several lines of it"),
    ],
)
def test_what_differs_from_run_to_run_is_taken_out(message: str, without: str) -> None:
    assert without_varying_parts(message) == without


def test_a_long_message_is_cut_where_a_table_would_cut_it() -> None:
    assert len(without_varying_parts("word " * 5_000)) <= LONGEST_MESSAGE


@given(st.integers(0, 10**30), st.uuids())
def test_no_number_and_no_id_makes_a_cause_of_its_own(number: int, id_: object) -> None:
    assert without_varying_parts(f"slot {number} of {id_} is taken") == "slot <n> of <id> is taken"


@given(st.text())
def test_taking_out_what_varies_never_fails_and_leaves_one_line(message: str) -> None:
    without = without_varying_parts(message)

    assert len(without) <= LONGEST_MESSAGE
    assert without.splitlines() in ([], [without])
