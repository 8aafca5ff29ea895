"""What is printed: durations, times and events in words, for terminals and for pipes."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import pytest

from events.codec import EVENT_TYPES
from events.lifecycle import Effect, EffectDeferred, State, SubmissionFailed
from replay.player import play
from replay.screen import cells, open_screen, padded, shortened, visible
from replay.showing import print_story, tell
from replay.summary import STATE_STYLES
from replay.words import _WORDS, EFFECTS, clock_time, describe, duration, exit_in_words
from tests.samples.edited import RecordsReader, record
from tests.samples.make_sample import Run, failed_resolution, good_run

LYNX = Run("quiet-lynx")


def test_every_event_effect_and_state_has_its_words() -> None:
    assert set(_WORDS) == set(EVENT_TYPES.values())
    assert set(EFFECTS) == set(Effect)
    assert set(STATE_STYLES) == set(State)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0.0 ms"),
        (0.0012, "1.2 ms"),
        (0.031, "31 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 m 00 s"),
        (3599.6, "1 h 00 m"),
        (7500, "2 h 05 m"),
        (90_000, "1 d 01 h"),
        (-2.5, "-2.50 s"),
        (math.nan, "?"),
    ],
)
def test_a_duration_is_as_exact_as_anybody_needs(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit 0"),
        (3, "exit 3"),
        (-9, "killed by SIGKILL"),
        (-99, "killed by signal 99"),
        (None, "lost"),
    ],
)
def test_an_exit_code_that_is_a_signal_is_named(code: int | None, words: str) -> None:
    assert exit_in_words(code) == words


def test_a_time_that_is_no_time_is_shown_as_it_is() -> None:
    assert clock_time("yesterday") == "yesterday"


def test_what_an_observation_told_is_not_told_again() -> None:
    error = "the block document does not exist"

    assert describe(SubmissionFailed("resolve", error), error) == "to resolve: …"
    assert describe(SubmissionFailed("resolve", "no"), "no") == "to resolve: no"


def test_a_wait_says_for_what_how_long_and_why() -> None:
    waits = EffectDeferred(Effect.LAUNCH, 2.0, "busy")

    assert describe(waits) == "to launch it, again in 2.00 s: busy"


def test_playing_a_log_gives_the_state_before_and_after_each_record() -> None:
    steps = list(play(record(good_run(LYNX, 1.0), failed_resolution(Run("brave-toad"), 1.05))))

    moved = [
        (step.before.state, step.after.state)
        for step in steps
        if step.record.stream == LYNX.stream and step.before.state is not step.after.state
    ]
    assert [after for _before, after in moved] == [
        State.DISCOVERED,
        State.PENDING,
        State.RESOLVING,
        State.LAUNCHING,
        State.STARTED,
        State.EXITED,
    ]
    assert steps[-1].owed == ()


def test_control_characters_are_made_visible() -> None:
    assert visible("a\x1b[2Jb\r\nc\u202ed") == "a\\x1b[2Jb\\r\\nc\\u202ed"
    assert visible("a\nb", keep_breaks=True) == "a\nb"
    assert visible("a\u00a0日") == "a\u00a0日"


def test_wide_characters_count_twice() -> None:
    assert cells("日本") == 4
    assert padded("日本", 6) == "日本  "
    assert padded("ab", 4, right=True) == "  ab"
    assert shortened("日本語", 5) == "日本…"
    assert shortened("日本語", 6) == "日本語"
    assert cells(shortened("日本語", 4)) <= 4


def test_a_pipe_gets_every_line_whole_and_without_colours() -> None:
    out = io.StringIO()
    story = tell(RecordsReader(record(failed_resolution(LYNX, 1.0), agent=True)), LYNX.stream)

    print_story(story, open_screen(out), full=False)

    lines = out.getvalue().splitlines()
    (failed,) = (line for line in lines if "ResolutionFailed" in line)
    assert failed.endswith("or give it none to use the agent's default")
    assert "\x1b" not in out.getvalue()
    assert all(line == line.rstrip() for line in lines)


def test_a_pipe_that_knows_few_characters_gets_question_marks_and_no_error(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w", encoding="latin-1") as out:
        open_screen(out).line(("└ 日本 ü", ""))

    assert path.read_text(encoding="latin-1") == "? ?? ü\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_a_terminal_gets_every_word_and_no_line_that_is_too_wide(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    run = Run("日本" * 40)
    story = tell(RecordsReader(record(failed_resolution(run, 1.0), agent=True)), run.stream)
    out = Terminal()

    print_story(story, open_screen(out), full=False)

    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert max(map(cells, lines)) <= columns
    assert "\x1b[" in out.getvalue()
    words = "".join("".join(lines).split())
    assert "giveitnonetousetheagent'sdefault" in words
