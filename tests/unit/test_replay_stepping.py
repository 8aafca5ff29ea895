"""One run's story a step at a time: what changed, what was decided, what was owed, and moves."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import decider
from events.lifecycle import Effect, EffectDeferred, State, Transition
from events.log import Record
from events.notices import AGENT_STREAM
from events.observations import EvidenceFound, Observation
from events.submission import Submission
from replay.screen import open_screen
from replay.step_moves import Place, grown, press
from replay.step_panes import print_view
from replay.stepping import (
    Change,
    Walk,
    applied,
    changes_between,
    fold_fields,
    view_object,
)
from replay.timeline import Agents
from tests.samples.edited import with_fields
from tests.samples.make_sample import BEGIN, Run
from tests.unit.test_replay_tailing import NIGHT, READER

STREAMS = sorted(READER.streams())
NEWT, BEAR = Run("lucky-newt"), Run("hungry-bear")


def walk(stream: str, records: Sequence[Record] | None = None) -> Walk:
    made = Walk(stream, Agents(NIGHT))
    made.add(READER.read_stream(stream) if records is None else records)
    return made


def pressed(place: Place, keys: Sequence[str], in_: Walk) -> Place:
    for key in keys:
        after = press(place, key, in_)
        assert after is not None, key
        place = after
    return place


# --- views -------------------------------------------------------------------------------------


@given(st.sampled_from(STREAMS), st.data())
def test_a_view_is_the_same_whichever_way_one_came(stream: str, data: st.DataObject) -> None:
    story = walk(stream)
    straight = [view_object(view) for view in story.views()]

    for index in data.draw(st.lists(st.integers(0, len(story) - 1), max_size=10)):
        assert view_object(story.view(index)) == straight[index]


@pytest.mark.parametrize("stream", STREAMS)
def test_the_changes_made_to_the_fold_before_give_the_fold_after(stream: str) -> None:
    for view in walk(stream).views():
        assert applied(view.changes, view.before) == view.after


@given(*[st.dictionaries(st.sampled_from("abcde"), st.integers(0, 2) | st.text(max_size=2))] * 2)
def test_changes_between_any_two_sets_of_fields_lead_from_one_to_the_other(
    before: dict[str, object], after: dict[str, object]
) -> None:
    changes = changes_between(before, after)

    assert applied(changes, before) == after
    assert not any(change.before == change.after for change in changes)


@pytest.mark.parametrize("stream", STREAMS)
def test_the_fold_before_a_step_is_the_fold_after_the_one_before(stream: str) -> None:
    views = list(walk(stream).views())

    for earlier, later in pairwise(views):
        assert later.before == earlier.after
        assert later.owed_before == earlier.owed_after


def test_a_walk_that_grew_is_the_one_that_was_read_at_once() -> None:
    records = READER.read_stream(NEWT.stream)
    grew = walk(NEWT.stream, records[:7])
    grew.add(records[7:])

    assert [view_object(v) for v in grew.views()] == [
        view_object(v) for v in walk(NEWT.stream).views()
    ]


def test_the_fields_of_a_fold_are_named_by_their_paths() -> None:
    fields = fold_fields(walk(NEWT.stream).steps[7].after)

    assert fields["state"] == "launching"
    assert fields["discovered.run_name"] == "lucky-newt"
    assert fields["launch.command[2]"] == "prefect.engine"
    assert "outcome" not in fields
    assert fields["tries"] == 0


def test_a_change_says_whether_something_came_went_or_is_another() -> None:
    signs = [Change("a", *pair).sign for pair in ((None, 0), (0, None), (0, 1))]

    assert signs == ["+", "-", "~"]


def test_a_voided_launch_takes_the_launch_out_of_the_fold() -> None:
    story = walk(NEWT.stream)
    view = next(v for v in story.views() if v.step.record.type == "LaunchVoided")

    assert {c.sign for c in view.changes if c.path.startswith("launch.")} == {"-"}
    assert Change("state", "launching", "resolving") in view.changes
    assert (view.owed_before, view.owed_after) == ((Effect.EXAMINE,), (Effect.READ_RUN,))


# --- decisions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [s for s in STREAMS if s != AGENT_STREAM])
def test_what_this_release_recorded_it_decides_again(stream: str) -> None:
    for view in walk(stream).views():
        assert view.decision is not None
        assert view.decision.is_same
        assert view.step is view.decision.observation or view.step in view.decision.recorded


def test_an_altered_field_is_named_as_what_would_be_decided_otherwise() -> None:
    records = list(READER.read_stream(BEAR.stream))
    index = next(i for i, r in enumerate(records) if r.type == "EffectDeferred")
    records[index] = with_fields(records[index], delay_seconds=30.0)

    decision = walk(BEAR.stream, records).decision(index)

    assert decision is not None
    assert not decision.is_same
    (otherwise,) = decision.otherwise
    assert (otherwise.recorded, otherwise.today) == ("EffectDeferred", "EffectDeferred")
    (field,) = otherwise.fields
    assert (field.path, field.recorded, field.decided) == ("$.delay_seconds", 30.0, 1.0)


def test_another_decider_shows_what_it_would_decide_instead() -> None:
    def cautious(submission: Submission, seen: Observation) -> Sequence[Transition]:
        if isinstance(seen, EvidenceFound):
            return (EffectDeferred(Effect.EXAMINE, 1.0, "look twice"),)
        return decider.decide(submission, seen)

    story = Walk(NEWT.stream, Agents(NIGHT), cautious)
    story.add(READER.read_stream(NEWT.stream))
    otherwise = [view_object(v)["decided_again"]["otherwise"] for v in story.views()]

    assert [o for o in otherwise if o] == [
        [{"recorded": "LaunchVoided", "today": "EffectDeferred", "fields": ()}]
    ] * 2  # seen from the observation, and from the transition


def test_a_missing_transition_is_one_that_would_follow_as_well() -> None:
    records = READER.read_stream(NEWT.stream)

    decision = walk(NEWT.stream, records[:2]).decision(0)

    assert decision is not None
    assert [(o.recorded, o.today) for o in decision.otherwise] == [(None, "PendingProposed")]


def test_what_a_newer_release_recorded_is_not_judged() -> None:
    records = list(READER.read_stream(NEWT.stream))
    records[4] = attrs.evolve(records[4], type="PendingPondered")

    decision = walk(NEWT.stream, records).decision(3)

    assert decision is not None
    assert decision.trouble == "this release can't read the PendingPondered that followed"


def test_a_decider_that_breaks_is_no_end_of_the_walk() -> None:
    def broken(_submission: Submission, _seen: Observation) -> Sequence[Transition]:
        raise LookupError("no rule for this")

    story = Walk(NEWT.stream, Agents(NIGHT), broken)
    story.add(READER.read_stream(NEWT.stream))
    decision = story.decision(0)

    assert decision is not None
    assert decision.trouble == "it can't be decided: LookupError: no rule for this"


def test_the_agents_own_notices_have_no_decisions() -> None:
    assert {view.decision for view in walk(AGENT_STREAM).views()} == {None}


# --- printed -----------------------------------------------------------------------------------


def printed(story: Walk, *, full: bool = False) -> str:
    out = io.StringIO()
    for view in story.views():
        print_view(view, open_screen(out), full=full)
    return out.getvalue()


@pytest.mark.parametrize("stream", STREAMS)
def test_a_printed_story_has_every_step(stream: str) -> None:
    story = walk(stream)
    heads = [line for line in printed(story).splitlines() if line.startswith("step ")]

    assert len(heads) == len(story)


def test_every_field_is_printed_when_all_are_asked_for() -> None:
    told = printed(walk(NEWT.stream), full=True)

    assert "env.PREFECT_API_URL  5d41402abc4b2a76" in told
    assert "- launch.command[2]  prefect.engine" in told
    assert "by pluperfect 0.1.0, process 4002 on batch-7" in told


# --- moves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [["right"], ["n"], [" "], ["j"], ["down"]])
def test_keys_that_go_on(keys: list[str]) -> None:
    assert pressed(Place(3), keys, walk(NEWT.stream)).at == 4


@pytest.mark.parametrize("keys", [["left"], ["p"], ["k"], ["up"], ["backspace"]])
def test_keys_that_go_back(keys: list[str]) -> None:
    assert pressed(Place(3), keys, walk(NEWT.stream)).at == 2


@given(st.integers(0, 23), st.integers(0, 40))
def test_so_many_steps_on_and_back_lead_to_the_same_place_but_at_the_end(at: int, n: int) -> None:
    story = walk(NEWT.stream)
    there = pressed(Place(at), ["n"] * n, story)

    assert there.at == min(at + n, 23)
    assert pressed(there, ["p"] * (there.at - at), story).at == at


def test_the_ends_are_said() -> None:
    story = walk(NEWT.stream)

    assert pressed(Place(0), ["p"], story).message == "this is the first step"
    assert pressed(Place(0), ["end", "n"], story).message == "this is the last step"
    assert pressed(Place(5), ["page_down", "page_down"], story).at == 23
    assert pressed(Place(5), ["home"], story).at == 0


@pytest.mark.parametrize(
    ("key", "is_wanted"),
    [
        ("o", lambda s: s.kind == "observation"),
        ("d", lambda s: s.kind == "transition"),
        ("s", lambda s: s.before.state is not s.after.state),
        ("r", lambda s: s.record.type == "AgentRestarted"),
    ],
)
def test_a_letter_goes_to_the_next_of_its_kind_and_a_capital_back(
    key: str, is_wanted: Callable[[object], bool]
) -> None:
    story = walk(NEWT.stream)
    wanted = [i for i, taken in enumerate(story.steps) if i and is_wanted(taken)]

    on = Place(0)
    for index in wanted:
        on = pressed(on, [key], story)
        assert on.at == index
    back = pressed(on, [key, key.upper()], story)
    assert back.at == (wanted[-2] if len(wanted) > 1 else on.at)
    assert pressed(on, [key], story).message.startswith("no ")


def test_e_goes_to_what_went_wrong() -> None:
    story = walk(BEAR.stream)

    types = []
    place = Place(0)
    for _ in range(4):
        place = pressed(place, ["e"], story)
        types.append(story.steps[place.at].record.type)
    assert types == ["CommandEnded", "InfrastructureExited", "OutcomeProposed", "RequestFailed"]


def test_x_goes_to_what_would_be_decided_otherwise() -> None:
    records = list(READER.read_stream(BEAR.stream))
    index = next(i for i, r in enumerate(records) if r.type == "EffectDeferred")
    records[index] = with_fields(records[index], delay_seconds=30.0)
    story = walk(BEAR.stream, records)

    assert pressed(Place(0), ["x"], story).at == index - 1
    assert pressed(Place(0), ["x"], walk(BEAR.stream)).message.startswith("no decision that")


def test_digits_and_enter_go_to_a_position() -> None:
    story = walk(NEWT.stream)

    assert pressed(Place(0), [*"110", "enter"], story).at == 11
    assert pressed(Place(0), [":", *"9x", "backspace", "9", "enter"], story).at == 3
    missed = pressed(Place(0), [*"105", "enter"], story)
    assert (missed.at, missed.message) == (7, "nothing of this run is at 105; this is at 103")
    assert "is no position" in pressed(Place(0), [":", *"x", "enter"], story).message


def test_a_text_is_sought_on_and_back_and_round_the_end() -> None:
    story = walk(BEAR.stream)
    place = pressed(Place(0), ["/", *"REFUSED", "enter"], story)
    seen = [place.at]
    for key in ("n", "n", "n", "n", "N", "N"):
        place = pressed(place, [key], story)
        seen.append(place.at)

    assert seen == [16, 17, 18, 19, 16, 19, 18]
    assert pressed(place, ["escape", "n"], story).at == 19


def test_a_text_that_is_nowhere_is_said() -> None:
    place = pressed(Place(2), ["/", *"zebra", "enter"], walk(BEAR.stream))

    assert (place.at, place.sought, place.message) == (2, "", "no step holds 'zebra'")


def test_escape_leaves_the_prompt_and_then_the_walk() -> None:
    story = walk(BEAR.stream)
    place = pressed(Place(2), ["/", "q", "escape"], story)

    assert place == Place(2)
    assert press(place, "escape", story) is None
    assert press(place, "q", story) is None


def test_all_fields_are_scrolled_by_the_keys_that_step_otherwise() -> None:
    story = walk(BEAR.stream)
    place = pressed(Place(2), ["f", "down", "page_down", "up"], story)

    assert (place.at, place.scroll) == (2, 10)
    assert pressed(place, ["right"], story).scroll == 0
    assert not pressed(place, ["f"], story).full


def test_new_steps_are_followed_only_by_whoever_asked_for_the_last_one() -> None:
    story = walk(NEWT.stream, READER.read_stream(NEWT.stream)[:5])
    stays, follows = Place(4), pressed(Place(0), ["G"], story)
    story.add(READER.read_stream(NEWT.stream)[5:])

    assert grown(stays, story, 19).at == 4
    assert grown(stays, story, 19).message == "19 new steps (G: to the last)"
    assert grown(follows, story, 19).at == 23
    assert not pressed(follows, ["p"], story).follows


@given(st.sampled_from(STREAMS), st.lists(st.sampled_from([
    *"njpkgGodserxODSERX/:f?123 aq", "up", "down", "left", "right", "home", "end", "page_up",
    "page_down", "escape", "enter", "backspace", "tab", "ß",
]), max_size=40))  # fmt: skip
def test_whatever_is_pressed_one_stays_in_the_story(stream: str, keys: list[str]) -> None:
    story = walk(stream)
    place = Place()
    for key in keys:
        after = press(place, key, story)
        if after is None:
            return
        place = after
        assert 0 <= place.at < len(story)
        assert place.scroll >= 0


def test_a_place_is_found_by_position_and_by_time() -> None:
    story = walk(NEWT.stream)

    assert [story.index_at(p) for p in (0, 96, 97, 105, 999)] == [0, 0, 1, 7, 23]
    assert story.index_at_time(BEGIN + timedelta(seconds=60.05)) == 9
    assert story.index_at_time(datetime(2000, 1, 1, tzinfo=UTC)) == 0
    assert story.steps[9].after.state is State.LAUNCHING
