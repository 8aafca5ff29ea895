"""`replay stats`: how long it took in each state, for whom, what failed and why, what was put off.

Streaming: of each submission only a handful of numbers is kept (about 60 bytes), so that the
percentiles are exact.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import attrs

from events.lifecycle import ON_THE_WAY, State
from replay.causes import cause_of
from replay.screen import Screen, Span, cells, padded, shortened
from replay.selection import Selection
from replay.summary import STATE_STYLES, went_wrong
from replay.timeline import Moment, Timeline
from replay.words import clock_time, duration, zone

PERCENTILES: Final = (50, 95, 99)

MOST_ROWS: Final = 15
"""As many queues, deployments or causes are printed; `--json` has all."""


@attrs.define
class Durations:
    """Seconds, of which the percentiles are asked."""

    values: array[float] = attrs.field(factory=lambda: array("d"))

    def add(self, seconds: float) -> None:
        """Take one in; what is not a number (a log without times) is passed over."""
        if not math.isnan(seconds):
            self.values.append(seconds)

    def percentiles(self) -> Mapping[str, float]:
        """Return the count, p50, p95, p99 and the greatest, each a value that occurred."""
        if not self.values:
            return {"count": 0}
        ordered = sorted(self.values)
        result: dict[str, float] = {"count": len(ordered)}
        for percent in PERCENTILES:
            rank = math.ceil(percent / 100 * len(ordered))  # the nearest-rank definition
            result[f"p{percent}"] = ordered[rank - 1]
        return result | {"max": ordered[-1]}


@attrs.define
class Group:
    """The submissions of one queue or deployment."""

    submissions: int = 0
    failed: int = 0
    to_start: Durations = attrs.field(factory=Durations)
    running: Durations = attrs.field(factory=Durations)


@attrs.define
class Cause:
    """Why some submissions failed. `example`: the newest of them, as `replay show` takes it."""

    count: int = 0
    example: str = ""


@attrs.define
class Statistics:
    """Numbers about submissions, as they go by.

    Attributes:
        to_start: from discovery to start, of those that came to one.
        late: from when it was due to its start; claims come up to the prefetch time earlier.
        again: submissions that were not their run's first: retries, resumes, reschedules.
        repeated_claims: submissions whose Scheduled state had been submitted before.
        waits_for: how often each effect was put off.
    """

    submissions: int = 0
    open: int = 0
    failed: int = 0
    first: Moment | None = None
    last: Moment | None = None
    in_state: dict[State, Durations] = attrs.field(factory=dict)
    to_start: Durations = attrs.field(factory=Durations)
    late: Durations = attrs.field(factory=Durations)
    ended_in: Counter[State] = attrs.field(factory=Counter)
    queues: dict[str, Group] = attrs.field(factory=dict)
    deployments: dict[str, Group] = attrs.field(factory=dict)
    causes: dict[str, Cause] = attrs.field(factory=dict)
    again: int = 0
    repeated_claims: int = 0
    put_off: int = 0
    waits: int = 0
    waits_seconds: float = 0.0
    recovered: int = 0
    recoveries: int = 0
    voided: int = 0

    def add(self, timeline: Timeline, now: Moment | None) -> None:
        """Take one submission in."""
        self.submissions += 1
        self.open += timeline.is_open
        self.first = self.first or timeline.began
        self.last = timeline.latest
        self.ended_in[timeline.state] += 1
        self._add_durations(timeline, now)
        self._add_trouble(timeline)

    def _add_durations(self, timeline: Timeline, now: Moment | None) -> None:
        stretches = timeline.all_stretches(now)
        for stretch in stretches:
            self.in_state.setdefault(stretch.state, Durations()).add(stretch.seconds)
        started = any(stretch.state is State.STARTED for stretch in stretches)
        to_start = sum(s.seconds for s in stretches if s.state in ON_THE_WAY)
        run = timeline.submission.discovered
        id_ = str(run.deployment_id) if run and run.deployment_id else "(none)"
        groups = (
            self.queues.setdefault(run.queue if run else "?", Group()),
            self.deployments.setdefault(timeline.deployment_name or id_, Group()),
        )
        for group in groups:
            group.submissions += 1
            group.failed += went_wrong(timeline)
            for stretch in stretches:
                if stretch.state is State.STARTED:
                    group.running.add(stretch.seconds)
        if started:
            for durations in (self.to_start, *(group.to_start for group in groups)):
                durations.add(to_start)
            if run is not None and run.scheduled_time and timeline.began is not None:
                due = datetime.fromisoformat(run.scheduled_time).timestamp()
                self.late.add(timeline.began.wall_seconds + to_start - due)

    def _add_trouble(self, timeline: Timeline) -> None:
        cause = cause_of(timeline)
        if cause is not None:
            self.failed += 1
            found = self.causes.setdefault(cause, Cause())
            found.count, found.example = found.count + 1, timeline.stream
        run = timeline.submission.discovered
        self.again += run is not None and run.ordinal > 1
        self.repeated_claims += run is not None and run.attempt > 1
        self.put_off += timeline.waits > 0
        self.waits += timeline.waits
        self.waits_seconds += timeline.waits_seconds
        self.recovered += timeline.recoveries > 0
        self.recoveries += timeline.recoveries
        self.voided += timeline.voided


def statistics_of(selection: Selection) -> Statistics:
    """Return the numbers about the submissions that are wanted."""
    numbers = Statistics()
    for timeline in selection.timelines():
        numbers.add(timeline, selection.now)
    return numbers


# --- for people ----------------------------------------------------------------------------


def print_statistics(numbers: Statistics, starts: int, screen: Screen) -> None:
    """Print all of it on a page. `starts`: how often an agent started."""
    if not numbers.submissions or numbers.first is None or numbers.last is None:
        screen.line(("no such submissions in this log", "dim"))
        return
    span = f"{clock_time(numbers.first.recorded_at, day=True)} to "
    span += clock_time(numbers.last.recorded_at, day=True)
    counts = [f"{numbers.submissions:,} submissions", f"{numbers.failed:,} failed"]
    counts.append(f"{numbers.open:,} open")
    screen.hanging([], [(", ".join(counts), "strong"), (f"  {span}", "dim")])
    _print_states(numbers, screen)
    _print_groups("QUEUE", numbers.queues, screen)
    _print_groups("DEPLOYMENT", numbers.deployments, screen)
    _print_causes(numbers, screen)
    screen.line()
    for words in _other_numbers(numbers, starts):
        screen.hanging([], [(words, "")])
    screen.line((f"times: {zone()}", "dim"))


def _print_states(numbers: Statistics, screen: Screen) -> None:
    rows: list[tuple[Span, Mapping[str, float]]] = [
        ((state.value, STATE_STYLES[state]), numbers.in_state[state].percentiles())
        for state in State
        if state in numbers.in_state and max(numbers.in_state[state].values, default=0.0) > 0
    ]
    rows.append((("discovery to start", "strong"), numbers.to_start.percentiles()))
    rows.append((("due to start", "strong"), numbers.late.percentiles()))
    screen.line()
    _print_table(("TIME IN STATE", "TIMES", "P50", "P95", "P99", "MAX"), [
        [name, (_count(found["count"]), ""), *_times(found)] for name, found in rows
    ], screen)  # fmt: skip


def _print_groups(heading: str, groups: Mapping[str, Group], screen: Screen) -> None:
    shown = sorted(groups.items(), key=lambda item: (-item[1].submissions, item[0]))
    rows = []
    for name, group in shown[:MOST_ROWS]:
        share = group.failed / group.submissions
        failed = f"{group.failed:,} ({share:.0%})" if group.failed else "0"
        style = "bad" if group.failed else "dim"
        times = [
            *_times(group.to_start.percentiles())[:2],
            *_times(group.running.percentiles())[:2],
        ]
        rows.append([(name, ""), (_count(group.submissions), ""), (failed, style), *times])
    screen.line()
    columns = (heading, "SUBMISSIONS", "FAILED", "START P50", "P95", "RUNNING P50", "P95")
    _print_table(columns, rows, screen)
    if len(shown) > MOST_ROWS:
        screen.line((f"and {len(shown) - MOST_ROWS} more, with fewer submissions", "dim"))


def _print_causes(numbers: Statistics, screen: Screen) -> None:
    if not numbers.causes:
        return
    screen.line()
    screen.line(("FAILURES BY CAUSE", "dim"))
    shown = sorted(numbers.causes.items(), key=lambda item: (-item[1].count, item[0]))
    width = len(f"{shown[0][1].count:,}")
    for words, cause in shown[:MOST_ROWS]:
        start: list[Span] = [(f"{cause.count:>{width},}  ", "bad")]
        screen.hanging(start, [(words, ""), (f"  e.g. {cause.example}", "quiet")])
    if len(shown) > MOST_ROWS:
        screen.line((f"and {len(shown) - MOST_ROWS} other causes", "dim"))


def _other_numbers(numbers: Statistics, starts: int) -> Iterable[str]:
    yield (
        f"submitted again: {numbers.again:,} (retries, resumes, reschedules)"
        f" · claimed again after a refusal: {numbers.repeated_claims:,}"
    )
    yield (
        f"put off: {numbers.put_off:,} submissions, {numbers.waits:,} times,"
        f" {duration(numbers.waits_seconds)} in all"
    )
    yield (
        f"agents started: {starts:,} · submissions recovered: {numbers.recovered:,},"
        f" {numbers.recoveries:,} times · launches found not to have happened: {numbers.voided:,}"
    )


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _times(found: Mapping[str, float]) -> list[Span]:
    names = (*(f"p{percent}" for percent in PERCENTILES), "max")
    return [(duration(found[name]) if name in found else "-", "") for name in names]


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[Span]], screen: Screen) -> None:
    widths = [
        max(cells(heading), *(cells(row[column][0]) for row in rows), 0)
        for column, heading in enumerate(headings)
    ]
    if screen.width is not None:
        # The first column gives way: numbers can't be shortened.
        widths[0] = max(min(widths[0], screen.width - sum(widths[1:]) - 2 * len(widths)), 12)
    for row in ([(heading, "dim") for heading in headings], *rows):
        spans: list[Span] = []
        for column, (text, style) in enumerate(row):
            shown = padded(shortened(text, widths[column]), widths[column], right=column > 0)
            spans += [(shown, style), ("  ", "")]
        screen.line(*spans)


# --- for machines --------------------------------------------------------------------------


def statistics_object(numbers: Statistics, starts: int) -> dict[str, Any]:
    """Return all of it as JSON values; durations in seconds."""
    return {
        "submissions": numbers.submissions,
        "open": numbers.open,
        "failed": numbers.failed,
        "first": numbers.first.recorded_at if numbers.first else None,
        "last": numbers.last.recorded_at if numbers.last else None,
        "states": {state.value: number for state, number in numbers.ended_in.items()},
        "time_in_state": {s.value: d.percentiles() for s, d in numbers.in_state.items()},
        "discovery_to_start": numbers.to_start.percentiles(),
        "due_to_start": numbers.late.percentiles(),
        "queues": {name: _group_object(group) for name, group in numbers.queues.items()},
        "deployments": {name: _group_object(group) for name, group in numbers.deployments.items()},
        "causes": [
            {"cause": words, "count": cause.count, "example": cause.example}
            for words, cause in sorted(numbers.causes.items(), key=lambda item: -item[1].count)
        ],
        "submitted_again": numbers.again,
        "claimed_again": numbers.repeated_claims,
        "put_off": numbers.put_off,
        "waits": numbers.waits,
        "waits_seconds": numbers.waits_seconds,
        "agents_started": starts,
        "recovered": numbers.recovered,
        "recoveries": numbers.recoveries,
        "voided_launches": numbers.voided,
    }


def _group_object(group: Group) -> dict[str, Any]:
    return {
        "submissions": group.submissions,
        "failed": group.failed,
        "discovery_to_start": group.to_start.percentiles(),
        "running": group.running.percentiles(),
    }
