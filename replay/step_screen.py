"""The screen of `replay step` at any size: the list of steps, and panes beside or below it.

Pure: a walk and a place in it, a width and a height in; so many lines out, none of them wider.
`replay.step_app` puts them on the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from events.lifecycle import Transition
from replay.boxes import allotted, beside, filled, fitted, length
from replay.screen import Line, Span
from replay.step_moves import Place
from replay.step_panes import LABEL, Pane, head_in_words, panes, step_style
from replay.stepping import StepView, Walk
from replay.summary import outcome, state_in_words

LIST_COLUMNS: Final = 32
"""Room for a position and the longest name of an event, `└ InfrastructureResolved`."""
WITH_LIST: Final = 76
"""From so many columns on the list of steps stands beside the panes."""
TWO_COLUMNS: Final = 130
"""From so many columns on the panes stand in two columns."""
LIST_ABOVE: Final = 30
"""A narrow screen of so many lines has a short list of steps above the panes."""
LINES_ABOVE: Final = 7
WITH_RULES: Final = 10
"""A screen of fewer lines goes without the line below the head."""

BAR: Final[Span] = (" │ ", "quiet")

HELP: Final = (
    ("→ n j space ↓", "the next step"),
    ("← p k ↑", "the step before"),
    ("PageDown PageUp", "ten steps on, ten steps back"),
    ("g Home, G End", "the first step; the last, also when more are added"),
    ("o", "the next observation; O: the one before, and so below"),
    ("d D", "decision"),
    ("s S", "change of state"),
    ("e E", "step that went wrong"),
    ("r R", "restart of the agent"),
    ("x X", "decision that would be another today"),
    ("/", "find a text in an event; then n N, and Esc when done"),
    (": or digits", "a position of the log, with Enter"),
    ("f", "every field, in a list that ↑ ↓ PageUp PageDown move"),
    ("q Esc", "leave"),
)


@attrs.frozen
class Frame:
    """A drawn screen. `most_scroll`: how far its list of all fields can be scrolled."""

    lines: Sequence[Line]
    most_scroll: int = 0


def render(walk: Walk, place: Place, width: int, height: int) -> Frame:
    """Draw a place in a walk: exactly `height` lines of at most `width` columns."""
    view = walk.view(place.at)
    head = _head(walk, view, width)
    if height >= WITH_RULES:
        head.append([("─" * width, "quiet")])
    else:
        head = head[: max(height - 2, 0)]
    room = max(height - len(head) - 1, 0)
    frame = _body(walk, view, place, width, room)
    body = [*frame.lines[:room], *[[("", "")]] * (room - len(frame.lines))]
    lines = [*head, *body, _foot(walk, place, width)]
    return Frame([fitted(line, width) for line in lines][:height], frame.most_scroll)


def _head(walk: Walk, view: StepView, width: int) -> list[Line]:
    count: Line = [(f"  step {view.number}/{view.count}", "strong")]
    left = filled(_name_and_outcome(walk), max(width - length(count), 0))
    return [[*left, *count], [(head_in_words(view), "dim")]]


def _name_and_outcome(walk: Walk) -> Line:
    if walk.is_of_agent:
        return [("the agent's own notices", "strong")]
    run = walk.timeline.submission.discovered
    name = run.run_name if run else "(nothing discovered)"
    id_, _, ordinal = walk.stream.partition("/")
    words, style = outcome(walk.timeline)
    state = state_in_words(walk.timeline).upper()
    short = f"  {id_[:8]}/{ordinal}  "
    return [(name, "strong"), (short, "dim"), (state, style), (f"  {' '.join(words.split())}", "")]


def _body(walk: Walk, view: StepView, place: Place, width: int, room: int) -> Frame:
    if place.help:
        return Frame(_help())
    with_list = width >= WITH_LIST
    inner = width - LIST_COLUMNS - length([BAR]) if with_list else width
    if place.full:
        frame = _everything(view, place, inner, room)
    elif with_list and width >= TWO_COLUMNS:
        frame = Frame(_in_two_columns(view, inner, room))
    elif not with_list and room >= LIST_ABOVE:
        above: list[Line] = [*_list(walk, place, LINES_ABOVE, width), [("─" * width, "quiet")]]
        return Frame([*above, *_in_one_column(view, width, room - len(above))])
    else:
        frame = Frame(_in_one_column(view, inner, room))
    if not with_list:
        return frame
    columns: list[tuple[Sequence[Line], int]] = [
        (_list(walk, place, room, LIST_COLUMNS), LIST_COLUMNS),
        (frame.lines, inner),
    ]
    return Frame(beside(columns, room, BAR), frame.most_scroll)


def _help() -> list[Line]:
    lines: list[Line] = [[("KEYS", LABEL)]]
    for keys, what in HELP:
        lines.append([(f"  {keys:<16}", "strong"), (what, "")])
    return lines


def _everything(view: StepView, place: Place, width: int, room: int) -> Frame:
    lines: list[Line] = []
    for pane in panes(view, width, full=True):
        lines += [pane.title, *pane.lines]
    most = max(len(lines) - room, 0)
    return Frame(lines[min(place.scroll, most) :][:room], most)


def _in_one_column(view: StepView, width: int, room: int) -> list[Line]:
    short, full = panes(view, width, full=False), panes(view, width, full=True)
    return _stacked(_as_full_as_fits(short, full, room), room, width)


def _in_two_columns(view: StepView, width: int, room: int) -> list[Line]:
    """Return what happened at the left, and what it made of the submission at the right."""
    if view.step.kind == "notice":
        return _in_one_column(view, width, room)
    left = (width - length([BAR])) // 2
    right = width - length([BAR]) - left
    columns: list[tuple[list[Line], int]] = []
    for column, which in ((left, (0, 2)), (right, (1, 3))):
        short, full = panes(view, column, full=False), panes(view, column, full=True)
        chosen = _as_full_as_fits([short[i] for i in which], [full[i] for i in which], room)
        columns.append((_stacked(chosen, room, column), column))
    return beside(columns, room, BAR)


def _as_full_as_fits(short: list[Pane], full: list[Pane], room: int) -> list[Pane]:
    """Return panes with every field where that leaves the others what they need."""
    chosen = list(short)
    for index, pane in enumerate(full):
        tried = [*chosen[:index], pane, *chosen[index + 1 :]]
        if sum(each.height + 1 for each in tried) <= room:
            chosen = tried
    return chosen


def _stacked(parts: list[Pane], room: int, width: int) -> list[Line]:
    """Return panes one above the other, each with its share of the lines."""
    gaps = len(parts) - 1 if sum(part.height for part in parts) + len(parts) <= room else 0
    lines: list[Line] = []
    for part, share in zip(parts, allotted([p.height for p in parts], room - gaps), strict=True):
        if share:
            lines += [fitted(part.title, width), *_cut(part.lines, share - 1, width)]
        if gaps and part is not parts[-1]:
            lines.append([("", "")])
    return lines


def _cut(lines: list[Line], room: int, width: int) -> list[Line]:
    """Return the first lines, the last of them with a word about how many more there are."""
    if len(lines) <= room or room == 0:
        return [fitted(line, width) for line in lines[:room]]
    more: Line = [(f" … {len(lines) - room} more: f", "quiet")]
    last = [*filled(lines[room - 1], max(width - length(more), 0)), *more]
    return [*(fitted(line, width) for line in lines[: room - 1]), fitted(last, width)]


def _list(walk: Walk, place: Place, room: int, width: int) -> list[Line]:
    """Return the steps around the present one."""
    begin = min(max(place.at - room // 2, 0), max(len(walk) - room, 0))
    columns = len(str(walk.steps[-1].record.position))
    lines: list[Line] = []
    for index in range(begin, min(begin + room, len(walk))):
        taken = walk.steps[index]
        indent = "└ " if isinstance(taken.event, Transition) else ""
        position = f"{taken.record.position:>{columns}} "
        if index == place.at:
            text = f"▶{position}{indent}{taken.record.type}"
            lines.append(filled([(text, "reverse")], width))
        else:
            style = step_style(taken)
            lines.append([(f" {position}{indent}", "quiet"), (taken.record.type, style)])
    return lines


def _foot(walk: Walk, place: Place, width: int) -> Line:
    if place.prompt:
        what = "look for" if place.prompt == "/" else "position"
        return [(f"{what}: ", "strong"), (place.typed, ""), ("█", "dim")]
    if place.message:
        return [(place.message, "wait")]
    if place.help:
        return [("any key: back", "dim")]
    if place.sought:
        return [(f"/{place.sought}", "strong"), ("   n next  N before  Esc done", "dim")]
    if place.full:
        return [("↑↓ move the list  ←→ step  f back  ? help  q quit", "dim")]
    following = "follows the log  " if place.follows and walk.timeline.is_open else ""
    long = "←→ step  o observation  d decision  s state  e wrong  / find  : position  f fields"
    short = "←→ step  o d s e r next  / find  f fields"
    keys = long if width >= len(long) + 18 + len(following) else short
    return [(following, "busy"), (f"{keys}  ? help  q quit", "dim")]
