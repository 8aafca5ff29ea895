"""`replay diff` of two submissions: side by side where there is room, else one below the other."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from events.codec import unstructure
from events.lifecycle import Transition
from replay.alignment import Row
from replay.comparison import Comparison
from replay.explaining import explain
from replay.player import Step
from replay.screen import Line, Screen, Span, cells, padded, shortened
from replay.showing import Story
from replay.summary import STATE_STYLES, as_object, outcome, span_of_time, state_in_words
from replay.timeline import Moment
from replay.verification import MISSING, FieldDifference
from replay.words import describe, duration, zone

WIDE: Final = 130
"""From this many columns on, two submissions have room beside each other."""

SIDES: Final = (("A", "wait"), ("B", "busy"))

MUCH_SLOWER: Final = 2.0
"""A state that took this many times as long as in the other is pointed out…"""
WORTH_SAYING_SECONDS: Final = 0.5
"""…if it was this much longer."""


def print_comparison(comparison: Comparison, screen: Screen) -> None:
    """Print who they are, why they went differently, and each step."""
    for side, name, story in _sides(comparison):
        _print_head(side, name, story, screen)
    screen.line()
    for sentence in explain(comparison):
        screen.hanging([], [(sentence, "strong")])
    _print_settings(comparison, screen)
    _print_times(comparison, screen)
    screen.line()
    _Rows(comparison, screen).print()
    screen.line((f"times: {zone()}", "dim"))


def _sides(comparison: Comparison) -> Iterator[tuple[Span, str, Story]]:
    stories = comparison.left, comparison.right
    yield from zip(SIDES, comparison.names, stories, strict=True)


def _print_head(side: Span, name: str, story: Story, screen: Screen) -> None:
    timeline = story.timeline
    words, style = outcome(timeline)
    state = state_in_words(timeline).upper()
    label = "" if name in ("A", "B") else f"{name}  "
    screen.hanging([side, ("  ", "")], [(label, "strong"), (timeline.stream, "dim")])
    screen.hanging([("   ", ""), (f"{state}  ", style)], [(words, "")])
    start = story.agents.at(timeline.began.position) if timeline.began else None
    agent = ""
    if start is not None:
        notice = start.notice
        agent = f" · pluperfect {notice.version}, process {notice.pid} on {notice.hostname}"
    screen.hanging([("   ", "")], [(span_of_time(timeline, story.now) + agent, "dim")])


def _print_settings(comparison: Comparison, screen: Screen) -> None:
    if not comparison.settings:
        return
    screen.line()
    screen.line(("what they were given", "heading"))
    width = max(cells(setting.name) for setting in comparison.settings)
    for setting in comparison.settings:
        start = padded(setting.name, width)
        for side, value in zip(SIDES, (setting.left, setting.right), strict=True):
            screen.hanging([(f"  {start}  ", "dim"), side, ("  ", "")], [(_value(value), "")])
            start = " " * width


def _value(value: Any) -> str:
    if value is None or value == "":
        return "(none)"
    return "(nothing)" if value == MISSING else str(value)


def _print_times(comparison: Comparison, screen: Screen) -> None:
    screen.line()
    columns = [padded("A", 11, right=True), padded("B", 11, right=True)]
    screen.line((f"{padded('time in', 12)}{''.join(columns)}", "heading"))
    for state, left, right in comparison.times:
        took = "".join(
            padded("-" if seconds is None else duration(seconds), 11, right=True)
            for seconds in (left, right)
        )
        screen.line(
            (padded(f"  {state.value}", 12), STATE_STYLES[state]), (took, ""),
            (_slower(left, right), "wait"),
        )  # fmt: skip


def _slower(left: float | None, right: float | None) -> str:
    if left is None or right is None:
        return ""
    short, long = sorted((left, right))
    if long - short < WORTH_SAYING_SECONDS or long < MUCH_SLOWER * short:
        return ""
    times = f", {long / short:.0f} times as long" if short > 0 and long < 1000 * short else ""
    return f"  {'A' if left > right else 'B'} took {duration(long - short)} longer{times}"


# --- the steps -----------------------------------------------------------------------------


@attrs.define
class _Rows:
    """Prints aligned steps; what is the same is folded, but for the step before a difference.

    Attributes:
        said: of each side, what the last observation told; it is not told again.
    """

    comparison: Comparison
    screen: Screen
    said: list[str] = attrs.field(factory=lambda: ["", ""])

    def print(self) -> None:
        for same, block in itertools.groupby(self.comparison.rows, key=lambda row: row.same):
            rows = list(block)
            if same:
                self._print_same(rows, followed=rows[-1] is not self.comparison.rows[-1])
            else:
                for row in _beside_each_other(rows) if self._is_wide else rows:
                    self._print_row(row)

    @property
    def _is_wide(self) -> bool:
        return self.screen.width is not None and self.screen.width >= WIDE

    def _print_same(self, rows: Sequence[Row], *, followed: bool) -> None:
        folded = len(rows) - 1 if followed else len(rows)
        if folded > 1:
            first, last = rows[0].left, rows[folded - 1].left
            names = f"{first.record.type} to {last.record.type}" if first and last else ""
            self.screen.line((f"   … {folded} same steps: {names}", "quiet"))
            rows = rows[folded:]
        for row in rows:
            if self._is_wide:
                self._print_beside(row, "quiet")
            else:
                spans = self._cell(row.left, 0, "quiet")
                self.screen.hanging([("=  ", "quiet"), *spans[:2]], spans[2:])

    def _print_row(self, row: Row) -> None:
        if self._is_wide:
            self._print_beside(row, "")
        else:
            for number, step in enumerate((row.left, row.right)):
                if step is not None:
                    spans = self._cell(step, number, "")
                    self.screen.hanging([SIDES[number], ("  ", ""), *spans[:2]], spans[2:])
        for field in row.fields:
            path = field.path.removeprefix("$.")
            for side, value in zip(SIDES, (field.recorded, field.decided), strict=True):
                start: Line = [(f"{'':23}{path}  ", "dim"), side, ("  ", "")]
                self.screen.hanging(start, [(_value(value), "")])

    def _print_beside(self, row: Row, style: str) -> None:
        half = ((self.screen.width or WIDE) - 3) // 2
        left = _cut(self._cell(row.left, 0, style), half)
        right = _cut(self._cell(row.right, 1, style), half)
        fill = " " * (half - sum(cells(text) for text, _style in left))
        self.screen.line(*left, (f"{fill} │ ", "quiet"), *right)

    def _cell(self, step: Step | None, number: int, style: str) -> list[Span]:
        if step is None:
            return []
        decided = isinstance(step.event, Transition)
        story = (self.comparison.left, self.comparison.right)[number]
        at = "" if decided else f"+{duration(_since_the_beginning(story, step))}"
        name_style = "transition" if decided else "observation"
        return [
            (f"{step.record.position:>6} {at:>10}  ", style or "time"),
            ("└ " if decided else "", "quiet"),
            (f"{step.record.type}  ", style or ("bad" if step.trouble else name_style)),
            (self._words(step, number), style),
        ]

    def _words(self, step: Step, number: int) -> str:
        if step.event is None:
            return step.trouble or ""
        if isinstance(step.event, Transition):
            words = describe(step.event, self.said[number])
        else:
            words = self.said[number] = describe(step.event)
        return " ".join(words.split())


def _beside_each_other(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield rows of which those with a step of one side alone share a line where they can."""
    left: deque[Step] = deque()
    right: deque[Step] = deque()
    for row in [*rows, None]:
        if row is not None and row.left is not None and row.right is None:
            left.append(row.left)
        elif row is not None and row.right is not None and row.left is None:
            right.append(row.right)
        else:
            for one, other in itertools.zip_longest(left, right):
                yield Row(one, other)
            left.clear()
            right.clear()
            if row is not None:
                yield row


def _since_the_beginning(story: Story, step: Step) -> float:
    began = story.timeline.began
    if began is None:
        return 0.0
    return story.agents.seconds_between(began, Moment.of(step.record))


def _cut(spans: Sequence[Span], width: int) -> list[Span]:
    """Return spans that take at most so many columns."""
    kept: list[Span] = []
    for text, style in spans:
        room = width - sum(cells(before) for before, _style in kept)
        if room <= 0:
            break
        kept.append((shortened(text, room), style))
    return kept


# --- for machines --------------------------------------------------------------------------


def comparison_object(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    left, right = comparison.left, comparison.right
    return {
        "same": comparison.same,
        "explanation": explain(comparison),
        "a": as_object(left.timeline, left.now),
        "b": as_object(right.timeline, right.now),
        "settings": [
            {"name": setting.name, "a": setting.left, "b": setting.right}
            for setting in comparison.settings
        ],
        "times": [
            {"state": state.value, "a": one, "b": other} for state, one, other in comparison.times
        ],
        "first": comparison.first,
        "steps": [
            {
                "same": row.same,
                "a": _step_object(row.left),
                "b": _step_object(row.right),
                "fields": [_field_object(field) for field in row.fields],
            }
            for row in comparison.rows
        ],
    }


def _step_object(step: Step | None) -> dict[str, Any] | None:
    if step is None:
        return None
    return {
        "position": step.record.position,
        "recorded_at": step.record.recorded_at,
        "type": step.record.type,
        "event": unstructure(step.event) if step.event else None,
        "state": step.after.state.value,
        "trouble": step.trouble,
    }


def _field_object(field: FieldDifference) -> dict[str, Any]:
    return {"path": field.path, "a": field.recorded, "b": field.decided}
