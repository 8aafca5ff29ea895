"""The screen of `replay step` at every size: it fits, and what matters is on it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.boxes import allotted, beside, filled, fitted, length, wrapped
from replay.screen import Line, cells
from replay.step_moves import Place
from replay.step_panes import panes
from replay.step_screen import Frame, render
from replay.stepping import Walk
from tests.samples.make_sample import Run
from tests.unit.test_replay_stepping import BEAR, NEWT, STREAMS, walk
from tests.unit.test_replay_tailing import NIGHT, READER

SIZES = [(80, 24), (120, 40), (60, 15), (140, 50), (200, 20), (40, 10), (76, 9), (60, 60)]
WIDE_NAME = Run("große-日本-run")
TEXTS = st.text("ab 日本ß\n\x1b\u0301", max_size=60)


def text(frame: Frame) -> list[str]:
    return ["".join(part for part, _style in line) for line in frame.lines]


def assert_fits(frame: Frame, width: int, height: int) -> None:
    assert len(frame.lines) == height
    assert max((cells(line) for line in text(frame)), default=0) <= width
    assert all(line.isprintable() for line in text(frame))


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("stream", STREAMS)
def test_every_step_of_every_story_fits(stream: str, width: int, height: int) -> None:
    story = walk(stream)
    for index in range(len(story)):
        for full in (False, True):
            assert_fits(render(story, Place(index, full=full), width, height), width, height)


PLACES = st.builds(
    Place,
    at=st.integers(0, 23),
    full=st.booleans(),
    help=st.booleans(),
    scroll=st.integers(0, 90),
)


@given(st.integers(1, 220), st.integers(1, 70), PLACES)
def test_it_fits_into_any_size(width: int, height: int, place: Place) -> None:
    assert_fits(render(walk(BEAR.stream), place, width, height), width, height)


@given(st.integers(10, 140), st.integers(5, 40), TEXTS, st.sampled_from(["/", ":", ""]))
def test_what_is_typed_fits(width: int, height: int, typed: str, prompt: str) -> None:
    story = walk(WIDE_NAME.stream)
    place = Place(0, prompt=prompt, typed=typed, message="" if prompt else typed)

    assert_fits(render(story, place, width, height), width, height)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 15), (140, 40)])
def test_head_state_decision_and_owed_are_there_on_any_usual_screen(
    width: int, height: int
) -> None:
    story = walk(NEWT.stream)
    shown = "\n".join(text(render(story, Place(11), width, height)))

    assert "lucky-newt" in shown
    assert "step 12/24" in shown
    assert "position 110" in shown
    assert "EVENT  LaunchVoided" in shown
    assert "STATE  launching → RESOLVING" in shown
    assert "- launch" in shown
    assert "DECIDED  the same today" in shown
    assert "OWED  to read the run's state at the server" in shown
    assert "? help" in shown


def test_the_present_step_is_marked_in_the_list() -> None:
    shown = text(render(walk(NEWT.stream), Place(11), 80, 24))

    (marked,) = [line for line in shown if line.startswith("▶")]
    assert marked.startswith("▶110 └ LaunchVoided")


def test_a_narrow_and_high_screen_has_the_list_above() -> None:
    shown = text(render(walk(NEWT.stream), Place(11), 60, 45))

    assert [line.startswith("▶110") for line in shown].index(True) < 10


def test_what_is_cut_off_is_counted_and_all_fields_can_be_scrolled_to() -> None:
    story = walk(NEWT.stream)
    cut = "\n".join(text(render(story, Place(6), 60, 15)))
    frame = render(story, Place(6, full=True), 60, 15)
    assert " more: f" in cut
    assert frame.most_scroll > 0

    seen: set[str] = set()
    for scroll in range(frame.most_scroll + 1):
        seen |= {*text(render(story, Place(6, full=True, scroll=scroll), 60, 15))}
    for pane in panes(story.view(6), 60, full=True):
        for line in (pane.title, *pane.lines):
            assert "".join(part for part, _style in fitted(line, 60)) in seen


def test_scrolling_past_the_end_shows_the_end() -> None:
    story = walk(NEWT.stream)
    most = render(story, Place(6, full=True), 60, 15).most_scroll

    last, beyond = (render(story, Place(6, full=True, scroll=n), 60, 15) for n in (most, most + 9))
    assert last.lines == beyond.lines


def test_what_a_stranger_wrote_moves_no_cursor() -> None:
    records = [
        attrs.evolve(r, type="Evil\x1b[2J", data='{"error": "a\\u001b[31m\\nb"}')
        if r.version == 5
        else r
        for r in READER.read_stream(NEWT.stream)
    ]
    story = Walk(NEWT.stream, walk(NEWT.stream).agents)
    story.add(records)

    for index in range(len(story)):
        assert_fits(render(story, Place(index), 80, 24), 80, 24)
    assert "Evil\\x1b[2J" in "\n".join(text(render(story, Place(4), 80, 24)))


def test_the_newest_step_of_an_open_submission_says_that_it_follows() -> None:
    story = walk(WIDE_NAME.stream)

    foot = text(render(story, Place(len(story) - 1, follows=True), 80, 24))[-1]

    assert foot.startswith("follows the log")


# --- boxes -------------------------------------------------------------------------------------


@given(st.lists(TEXTS, max_size=4), st.integers(0, 50))
def test_filled_is_exact_and_fitted_is_no_wider(texts: list[str], width: int) -> None:
    line: Line = [(each, "") for each in texts]

    assert length(fitted(line, width)) <= width
    assert length(filled(line, width)) == width


@given(TEXTS, TEXTS, st.integers(2, 60))
def test_wrapped_is_no_wider_and_loses_nothing(start: str, words: str, width: int) -> None:
    lines = wrapped([("", "")], words.replace("\x1b", "").replace("\u0301", ""), "", width)
    for line in [*lines, *wrapped([(start, "dim")], words, "", width)]:
        assert length(line) <= width

    shown = "".join(part for line in lines for part, _style in line)
    kept = words.replace("\x1b", "").replace("\u0301", "")
    assert "".join(shown.split()) == "".join(kept.split())


@given(st.lists(st.integers(0, 30), max_size=6), st.integers(0, 60))
def test_lines_are_shared_so_that_nobody_starves(needs: list[int], room: int) -> None:
    given_ = allotted(needs, room)

    assert sum(given_) == min(sum(needs), max(room, 0))
    assert all(got <= need for got, need in zip(given_, needs, strict=True))
    short = [got for got, need in zip(given_, needs, strict=True) if got < need]
    assert all(max(given_) <= least + 1 for least in short)


@given(st.lists(st.lists(TEXTS, max_size=5), min_size=1, max_size=3), st.integers(0, 8))
def test_columns_stand_side_by_side(columns: Sequence[Sequence[str]], height: int) -> None:
    rows = beside([([[(t, "")] for t in c], 10) for c in columns], height, ("|", ""))

    assert [length(row) for row in rows] == [11 * len(columns) - 1] * height


def test_the_kept_stories_are_those_of_the_night() -> None:
    assert {r.stream for r in NIGHT} == set(STREAMS)
