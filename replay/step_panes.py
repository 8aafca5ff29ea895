"""What stands in the panes of `replay step`: the event, the state, the decision, what is owed.

`StepView` in, titled lines out, wrapped to a width. `replay.step_screen` lays them out on a
terminal; without one they are printed one below the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, Final

import attrs

from events.codec import unstructure
from events.lifecycle import Event, Transition
from replay.boxes import length, wrapped
from replay.fields import as_text, leaves
from replay.player import Step
from replay.screen import Line, Screen, Span
from replay.severity import severity
from replay.stepping import Change, Decision, Fields, Otherwise, StepView
from replay.summary import STATE_STYLES, due_in_words
from replay.words import clock_time, describe, duration

LABEL: Final = "heading"
SIGN_STYLES: Final = {"+": "good", "-": "bad", "~": "wait"}
LONGEST: Final = 10_000
"""Columns where nothing is wrapped."""


@attrs.frozen
class Pane:
    """A part of the screen: its title says what matters when there is no room for the lines."""

    title: Line
    lines: list[Line]

    @property
    def height(self) -> int:
        """How many lines it would take."""
        return 1 + len(self.lines)


def panes(view: StepView, width: int, *, full: bool) -> list[Pane]:
    """Return the panes of a step, the most urgent first.

    Args:
        width: columns; no line takes more.
        full: every field of the event, the record and the fold, on lines of their own.
    """
    event = _event_pane(view, width, full=full)
    if view.step.kind == "notice":
        return [event]
    return [
        event,
        _state_pane(view, width, full=full),
        _decision_pane(view, width, full=full),
        _owed_pane(view, width),
    ]


# --- the event -----------------------------------------------------------------------------


def _event_pane(view: StepView, width: int, *, full: bool) -> Pane:
    taken = view.step
    title: Line = [
        ("EVENT  ", LABEL),
        (taken.record.type, step_style(taken)),
        (f"  {_origin(view)}", "dim"),
    ]
    lines: list[Line] = []
    for text, style in _words(taken):
        lines += wrapped([("  ", "")], text, style, width)
    for path, value in view.fields:
        if path and (full or value not in (None, "", {}, [])):
            lines += wrapped([(f"  {path}  ", "dim")], as_text(value), "", width)
    if full:
        for text in _record_in_words(view):
            lines += wrapped([("  ", "")], text, "quiet", width)
    return Pane(title, lines)


def _words(taken: Step) -> Iterator[Span]:
    if taken.trouble:
        yield taken.trouble, "bad"
    words = describe(taken.event) if taken.event else ""
    if words and not taken.trouble:
        yield words, severity(taken.event)


def _origin(view: StepView) -> str:
    decision = view.decision
    match view.step.kind:
        case "observation":
            return "was learned"
        case "transition" if decision is not None:
            seen = decision.observation.record
            return f"was decided on {seen.type} at {seen.position}"
        case "transition":
            return "was decided"
        case "notice":
            return "happened to the agent"
        case _:
            return "can't be read by this release"


def _record_in_words(view: StepView) -> Iterator[str]:
    record, agent = view.step.record, view.written_by
    cause = f", caused by version {record.cause}" if record.cause is not None else ""
    last = ", the last of its stream" if record.closes else ""
    yield f"version {record.version} of schema {record.schema}{cause}{last}"
    yield f"recorded at {record.recorded_at}, hash {record.hash.hex()}"
    if agent is not None:
        notice = agent.notice
        yield f"by pluperfect {notice.version}, process {notice.pid} on {notice.hostname}"


def step_style(taken: Step) -> str:
    """Return the style of an event's name: that of its family, unless something went wrong."""
    if taken.trouble:
        return "bad"
    wrong = severity(taken.event)
    return wrong or ("transition" if isinstance(taken.event, Transition) else "observation")


# --- the state -----------------------------------------------------------------------------


def _state_pane(view: StepView, width: int, *, full: bool) -> Pane:
    before, after = view.step.before.state, view.step.after.state
    title: list[Span] = [("STATE  ", LABEL)]
    if before is not after:
        title += [(before.value, "quiet"), (" → ", "quiet")]
    title.append((after.value.upper(), STATE_STYLES[after]))
    changes = [change for change in view.changes if change.path != "state"]
    if not changes:
        title.append(("  the rest as before" if before is not after else "  as before", "quiet"))
    lines: list[Line] = []
    for group in _by_field(changes):
        lines += _change_lines(group, width, full=full)
    changed = {change.path.partition(".")[0] for change in changes}
    lines += _unchanged_lines(view.after, changed, width, full=full)
    return Pane(title, lines)


def _by_field(changes: list[Change]) -> list[list[Change]]:
    groups = groupby(changes, key=lambda change: change.path.partition(".")[0])
    return [list(group) for _field, group in groups]


def _change_lines(group: list[Change], width: int, *, full: bool) -> list[Line]:
    """Return the lines of the changes to one field; one that came or went whole is one line."""
    signs = {change.sign for change in group}
    if not full and len(group) > 1 and len(signs) == 1 and "~" not in signs:
        field = group[0].path.partition(".")[0]
        pairs = {c.path: c.after if c.after is not None else c.before for c in group}
        return _signed(group[0].sign, field, _summary(pairs), width)
    lines: list[Line] = []
    for change in group:
        before, after = as_text(change.before), as_text(change.after)
        text = {"+": after, "-": before}.get(change.sign, f"{before} → {after}")
        lines += _signed(change.sign, change.path, text, width)
    return lines


def _signed(sign: str, path: str, text: str, width: int) -> list[Line]:
    style = SIGN_STYLES[sign]
    return wrapped([(f"{sign} ", style), (f"{path}  ", style)], text, "", width)


def _unchanged_lines(after: Fields, changed: set[str], width: int, *, full: bool) -> list[Line]:
    same = {p: v for p, v in after.items() if p != "state" and p.partition(".")[0] not in changed}
    lines: list[Line] = []
    if full:
        for path, value in same.items():
            lines += wrapped([(f"  {path}  ", "quiet")], as_text(value), "quiet", width)
        return lines
    for field, paths in groupby(same, key=lambda path: path.partition(".")[0]):
        pairs = {path: same[path] for path in paths}
        if list(pairs.values()) in ([False], [0]):
            continue  # As it is in the fold of an empty stream: nothing to know.
        lines.append([(f"  {field}  ", "quiet"), (_summary(pairs), "quiet")])
    return lines


def _summary(pairs: Mapping[str, Any]) -> str:
    """Return the leaves of one field as one text."""
    texts = []
    for path, value in pairs.items():
        if value == "":
            continue
        _field, dot, inner = path.partition(".")
        texts.append(f"{inner}={as_text(value)}" if dot else as_text(value))
    return " ".join(texts)


# --- the decision --------------------------------------------------------------------------


def _decision_pane(view: StepView, width: int, *, full: bool) -> Pane:
    decision = view.decision
    if decision is None:
        return Pane([("DECIDED  ", LABEL), ("it follows from nothing that was learned", "bad")], [])
    names = ", ".join(taken.record.type for taken in decision.recorded) or "nothing followed"
    title: list[Span] = [("DECIDED  ", LABEL), _verdict(decision), (f"  {names}", "")]
    lines: list[Line] = []
    said = describe(decision.observation.event) if decision.observation.event else ""
    for taken in decision.recorded:
        here = taken is view.step
        mark: Line = [("▸ " if here else "  ", ""), (f"└ {taken.record.type}  ", step_style(taken))]
        words = describe(taken.event, said) if taken.event else ""
        lines += wrapped(mark, words, "" if here else "dim", width)
    lines += _today_lines(decision, width, full=full)
    return Pane(title, lines)


def _verdict(decision: Decision) -> Span:
    if decision.trouble:
        return "can't be asked again", "wait"
    return ("the same today", "good") if decision.is_same else ("otherwise today", "bad")


def _today_lines(decision: Decision, width: int, *, full: bool) -> list[Line]:
    lines: list[Line] = []
    if decision.trouble:
        lines += wrapped([("  ", "")], decision.trouble, "wait", width)
    for otherwise in decision.otherwise:
        lines += wrapped([("! ", "bad")], _otherwise_in_words(otherwise), "bad", width)
        for field in otherwise.fields:
            text = f"recorded {as_text(field.recorded)}, today {as_text(field.decided)}"
            lines += wrapped([(f"    {field.path}  ", "bad")], text, "", width)
    if full and decision.otherwise:
        for event in decision.today:
            lines += _event_lines(event, width)
    return lines


def _otherwise_in_words(otherwise: Otherwise) -> str:
    if otherwise.recorded == otherwise.today:
        return f"{otherwise.today} with other fields"
    if otherwise.today is None:
        return f"{otherwise.recorded} would not follow today"
    if otherwise.recorded is None:
        return f"{otherwise.today} would follow as well today"
    return f"{otherwise.today} would follow today instead of {otherwise.recorded}"


def _event_lines(event: Event, width: int) -> list[Line]:
    lines = wrapped([("  today  ", "quiet")], type(event).__name__, "", width)
    for path, value in leaves(unstructure(event)):
        if path:
            lines += wrapped([(f"    {path}  ", "quiet")], as_text(value), "quiet", width)
    return lines


# --- what is owed --------------------------------------------------------------------------


def _owed_pane(view: StepView, width: int) -> Pane:
    before = due_in_words(view.step.before) or "nothing"
    after = due_in_words(view.step.after) or "nothing"
    title = [("OWED  ", LABEL), (after, "quiet" if after == "nothing" else "")]
    lines: list[Line] = []
    if length(title) > width:
        lines += wrapped([("  then    ", "dim")], after, "", width)
    if before != after:
        lines += wrapped([("  before  ", "dim")], before, "quiet", width)
    else:
        lines.append([("  as before", "quiet")])
    return Pane(title, lines)


# --- without a screen ----------------------------------------------------------------------


def head_in_words(view: StepView) -> str:
    """Return where in the story and in time a step is."""
    record = view.step.record
    parts = [
        f"position {record.position}",
        clock_time(record.recorded_at, day=True, milliseconds=True),
    ]
    if view.number > 1:
        parts.append(f"+{duration(view.seconds)}" if view.seconds else "with the step before")
        parts.append(f"{duration(view.seconds_in_all)} from the beginning")
    return " · ".join(parts)


def print_view(view: StepView, screen: Screen, *, full: bool) -> None:
    """Print one step below the one before."""
    width = screen.width or LONGEST
    screen.line(
        (f"step {view.number} of {view.count}", "strong"), (f" · {head_in_words(view)}", "")
    )
    for pane in panes(view, width, full=full):
        screen.line(*pane.title)
        for line in pane.lines:
            screen.line(*line)
    screen.line()
