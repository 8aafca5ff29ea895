"""The lines of `replay tail`: one for each record, aligned, a colour for each run.

A terminal gets what fits into its width; a pipe gets everything, with the date.
"""

from __future__ import annotations

import zlib
from typing import Final

import attrs

from events.lifecycle import State, Transition
from events.notices import AGENT_STREAM
from replay.screen import Line, Screen, Span, cells, padded, shortened
from replay.showing import NAME_COLUMNS, STATE_COLUMNS, WIDE
from replay.summary import STATE_STYLES
from replay.tailing import Entry, Who
from replay.words import clock_time, zone

RUN_COLOURS: Final = tuple(
    f"color({number})" for number in (33, 37, 133, 166, 99, 30, 168, 136, 69, 65, 173, 97)
)
"""For runs: legible on dark and on light, and none that means something (red, green, yellow)."""

NARROW_RUN: Final = 14
WIDE_RUN: Final = 22
WITH_POSITION: Final = 70
"""A terminal with fewer columns goes without the positions."""


@attrs.define
class Lines:
    """Prints entries; remembers the day, which a terminal is told only when it changes.

    Attributes:
        position_columns: room for the positions, so that they stand below each other.
    """

    screen: Screen
    position_columns: int = 3
    day: str = ""

    def print(self, entry: Entry) -> None:
        """Print the line of one entry."""
        width = self.screen.width
        record = entry.step.record
        if width is None:
            time = clock_time(record.recorded_at, day=True, milliseconds=True)
            self.screen.line(*self._columns(entry, time, WIDE_RUN), (entry.words, ""))
            return
        self._print_day(clock_time(record.recorded_at, day=True)[:10])
        if width >= WIDE:
            time = clock_time(record.recorded_at, milliseconds=True)
            start = self._columns(entry, time, WIDE_RUN)
        else:
            start = self._narrow(entry, clock_time(record.recorded_at), width)
        self.screen.line(*_fitted([*start, (entry.words, _quieter(entry))], width))

    def _print_day(self, day: str) -> None:
        if day != self.day:
            times = "" if self.day else f"  times: {zone()}"
            self.screen.line((f"── {day} ──{times}", "dim"))
        self.day = day

    def _columns(self, entry: Entry, time: str, run_columns: int) -> Line:
        type_columns = NAME_COLUMNS - cells(_indent(entry))
        return [
            (f"{time}  ", "time"),
            (f"{entry.step.record.position:>{self.position_columns}}  ", "quiet"),
            _run(entry.who, run_columns),
            ("  ", ""),
            _state(entry),
            ("  ", ""),
            (_indent(entry), "quiet"),
            (padded(entry.step.record.type, type_columns) + " ", type_style(entry)),
        ]

    def _narrow(self, entry: Entry, time: str, width: int) -> Line:
        position = f"{entry.step.record.position:>{self.position_columns}} "
        moved: list[Span] = []
        if entry.placed and entry.step.after.state is not entry.step.before.state:
            state = entry.step.after.state
            moved = [(" → ", "quiet"), (state.value.upper(), STATE_STYLES[state])]
        return [
            (f"{time} ", "time"),
            (position if width >= WITH_POSITION else "", "quiet"),
            _run(entry.who, NARROW_RUN),
            (" ", ""),
            (_indent(entry), "quiet"),
            (entry.step.record.type, type_style(entry)),
            *moved,
            ("  ", ""),
        ]


def _run(who: Who, columns: int) -> Span:
    if who.stream == AGENT_STREAM:
        return padded(AGENT_STREAM, columns), "strong"
    # The colour is the run's, whichever of its submissions it is, today and tomorrow.
    run = who.stream.partition("/")[0]
    colour = RUN_COLOURS[zlib.crc32(run.encode()) % len(RUN_COLOURS)]
    name = shortened(who.name or run[:8], columns - cells(who.again))
    return padded(name + who.again, columns), colour


def _state(entry: Entry) -> Span:
    if entry.who.stream == AGENT_STREAM:
        return " " * STATE_COLUMNS, ""
    if not entry.placed:
        return padded("?", STATE_COLUMNS), "quiet"
    before, after = entry.step.before.state, entry.step.after.state
    if after is before:
        return padded("" if after is State.ABSENT else after.value, STATE_COLUMNS), "quiet"
    return padded(after.value.upper(), STATE_COLUMNS), STATE_STYLES[after]


def _indent(entry: Entry) -> str:
    return "└ " if isinstance(entry.step.event, Transition) else ""


def type_style(entry: Entry) -> str:
    """Return the style of an event's name: that of its family, unless something went wrong."""
    if entry.severity:
        return entry.severity
    return "transition" if isinstance(entry.step.event, Transition) else "observation"


def _quieter(entry: Entry) -> str:
    # The words of what went wrong are for reading; colour is for finding them.
    return "" if entry.severity else "dim"


def _fitted(spans: Line, width: int) -> Line:
    """Return spans that take at most so many columns, the last one with an ellipsis."""
    fitted: list[Span] = []
    room = width
    for text, style in spans:
        if room <= 0:
            break
        fitted.append((shortened(text, room), style))
        room -= cells(fitted[-1][0])
    return fitted
