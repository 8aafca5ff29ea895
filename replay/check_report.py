"""`replay check`: how many decisions would be others, by kind, with examples told in full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from events.codec import UndecodableRecord, decode
from events.lifecycle import Effect
from events.log import Draft, LogReader, Record
from replay.changes import fields_of
from replay.names import name_of
from replay.noticed import Notices
from replay.screen import Screen, Span, cells, padded
from replay.summary import outcome, state_in_words
from replay.timeline import Agents, Timeline
from replay.whatif import Difference, End, Findings, Group, Step
from replay.words import EFFECTS, describe


@attrs.frozen
class Report:
    """What a check came to.

    Attributes:
        condition: what was otherwise, in words; empty when it is today's decider alone.
        seconds: how long it took.
        reader: the log, for looking up names.
    """

    log: str
    condition: str
    findings: Findings
    notices: Sequence[Notices]
    seconds: float
    reader: LogReader

    @property
    def same(self) -> bool:
        """Whether nothing would be otherwise."""
        found = self.findings
        return not found.differing and not found.unreadable and not any(
            notices.count for notices in self.notices
        )  # fmt: skip

    def name_of(self, stream: str) -> str:
        """Return a submission's name as a person would type it."""
        return name_of(stream, self.reader.read_stream(stream))


def print_report(report: Report, screen: Screen) -> None:
    """Print a line when nothing would be otherwise; else the kinds, and an example of each."""
    found = report.findings
    if report.condition:
        screen.hanging([], [(report.condition, "dim")])
    took = f"in {report.seconds:.2f} s"
    if report.same:
        made = f"{_many(found.submissions, 'submission')}, {_many(found.decisions, 'decision')}"
        screen.line(("same", "good"), (f"  {made} made again {took}: none would differ", ""))
        return
    differing = f"{found.differing:,} of {_many(found.decisions, 'decision')} would differ"
    where = f", in {found.submissions_differing:,} of {_many(found.submissions, 'submission')}"
    screen.line(
        (differing, "bad" if found.differing else "good"), (f"{where}; made again {took}", "")
    )
    _print_unreadable(report, screen)
    _print_kinds(report, screen)
    for group in _by_count(found):
        for example in group.examples:
            _Example(example, report, screen).print()


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _by_count(found: Findings) -> list[Group]:
    return sorted(found.groups.values(), key=lambda group: -group.count)


def _print_unreadable(report: Report, screen: Screen) -> None:
    found = report.findings
    if found.unreadable_first is None:
        return
    record, reason = found.unreadable_first
    words = (
        f"can't be read by that version; the first is {record.type} at position"
        f" {record.position} of {report.name_of(record.stream)}: {reason}"
    )
    screen.hanging([(_many(found.unreadable, "observation") + " ", "bad")], [(words, "")])


def _print_kinds(report: Report, screen: Screen) -> None:
    rows = [
        (group.count, group.kind, [(at, report.name_of(s)) for at, s in group.places], group.ends)
        for group in _by_count(report.findings)
    ]
    rows += [
        (notices.count, notices.kind, _places(notices, report), Counter())
        for notices in report.notices
        if notices.count
    ]
    if not rows:
        return
    number = max(len(f"{count:,}") for count, *_rest in rows)
    screen.line()
    for count, kind, places, ends in rows:
        screen.hanging([(f"{count:>{number},}  ", "strong")], [(kind, "strong")])
        indent: Span = (" " * (number + 2), "")
        listed = ", ".join(f"{name} at {at}" for at, name in places)
        more = f", and {count - len(places):,} more" if count > len(places) else ""
        screen.hanging([indent], [(listed + more, "dim")])
        for end, times in sorted(ends.items(), key=lambda item: -item[1]):
            screen.hanging([indent], [(f"→ {times:,} {_end_in_words(end)}", "")])


def _places(notices: Notices, report: Report) -> list[tuple[int, str]]:
    return [
        (at, f"{report.name_of(about)} ({words})" if "/" in about else words)
        for at, about, words in notices.examples
    ]


def _end_in_words(end: End) -> str:
    state = end.state.upper()
    if end.state == "absent":
        return "would not have been touched"
    if end.closed:
        return f"would have ended {state}"
    owed = " and ".join(f"to {_effect(effect)}" for effect in end.owed) or "nothing"
    return f"would be {state}, owing {owed}: the log can't tell what the world would have answered"


def _effect(value: str) -> str:
    try:
        return EFFECTS[Effect(value)]
    except ValueError:
        return value


@attrs.frozen
class _Example:
    """One difference, told in full."""

    found: Difference
    report: Report
    screen: Screen

    def print(self) -> None:
        found, screen = self.found, self.screen
        name = self.report.name_of(found.observation.stream)
        screen.line()
        screen.line((found.kind, "heading"), (f"  at {found.observation.position} of {name}", ""))
        self._print_shown()
        if not found.fields:
            self._print_side("recorded", found.recorded, "bad", None)
            self._print_side("instead", found.decided, "good", found.trouble)
        for type_, field in found.fields:
            screen.line(("    ", ""), (f"{type_} {field.path}", "strong"))
            screen.hanging([("      recorded  ", "dim")], [(_value(field.recorded), "bad")])
            screen.hanging([("      decided   ", "dim")], [(_value(field.decided), "good")])
        if found.departs and found.trouble is None:
            self._print_path()
        screen.line((f"  see it in its place: replay show {self.report.log}"
                     f" {found.observation.stream}", "dim"))  # fmt: skip

    def _print_shown(self) -> None:
        found = self.found
        recorded = found.observation
        if found.shown is None:
            self._line("left out  ", recorded, "observation")
        elif (found.shown.type, found.shown.data) != (recorded.type, recorded.data):
            self._line("recorded  ", recorded, "quiet")
            self._line("shown     ", found.shown, "observation")
        else:
            self._line("on        ", recorded, "observation")

    def _line(self, start: str, draft: Record | Draft, style: str) -> None:
        words = _words(draft)
        self.screen.hanging([(f"  {start}", "dim"), (draft.type, style), ("  ", "")], [(words, "")])

    def _print_side(
        self, side: str, drafts: Sequence[Record | Draft], style: str, trouble: str | None
    ) -> None:
        start = f"    {side:<8}  "
        for draft in drafts:
            spans: list[Span] = [(start, "dim"), (f"{draft.type}  ", style)]
            self.screen.hanging(spans, [(_words(draft), "")])
            start = " " * len(start)
        if trouble is not None:
            self.screen.hanging([(start, "dim")], [(trouble, "bad")])
        elif not drafts:
            self.screen.line((start, "dim"), ("nothing", style))

    def _print_path(self) -> None:
        steps = self.found.steps
        if steps:
            self.screen.line(("    what was recorded later, shown all the same:", "dim"))
        number = max((len(str(step.position)) for step in steps), default=0)
        column = max((cells(_type(step)) for step in steps), default=0)
        for step in steps:
            start: list[Span] = [
                (f"      {step.position:>{number}}  ", "quiet"),
                (padded(_type(step), column) + "  ", "observation"),
            ]
            self.screen.hanging(start, list(_what_followed(step)))
        if self.found.end is not None:
            words = _end_in_words(self.found.end)
            self.screen.hanging([("    it ", "dim")], [(words, "strong")])
        self.screen.hanging([("    recorded: ", "dim")], [(self._recorded_end(), "")])

    def _recorded_end(self) -> str:
        stream = self.found.observation.stream
        timeline = Timeline(stream, Agents(()))
        for record in self.report.reader.read_stream(stream):
            timeline.follow(record)
        return f"{state_in_words(timeline).upper()}  {outcome(timeline)[0]}"


def _type(step: Step) -> str:
    return "(left out)" if step.shown is None else step.shown.type


def _what_followed(step: Step) -> Iterator[Span]:
    if step.trouble is not None:
        yield step.trouble, "bad"
    elif not step.decided:
        yield "nothing follows", "quiet"
    for number, draft in enumerate(step.decided):
        words = _words(draft)
        yield ("; " if number else "→ "), "quiet"
        yield draft.type, "transition"
        yield (f" {words}" if words else ""), ""


def _words(draft: Record | Draft) -> str:
    """Return what matters of an event, or all of it where only another version can read it."""
    try:
        return " ".join(describe(decode(_as_draft(draft))).split())
    except UndecodableRecord:
        return draft.data


def _as_draft(draft: Record | Draft) -> Draft:
    return Draft(draft.type, draft.schema, draft.data)


def _value(value: Any) -> str:
    return "null" if value is None else repr(value) if isinstance(value, str) else str(value)


# --- for machines --------------------------------------------------------------------------


def report_object(report: Report) -> dict[str, Any]:
    """Return a report as JSON values."""
    found = report.findings
    first = found.unreadable_first
    unreadable = None if first is None else {
        "observations": found.unreadable,
        "position": first[0].position,
        "stream": first[0].stream,
        "type": first[0].type,
        "reason": first[1],
    }  # fmt: skip
    return {
        "log": report.log,
        "condition": report.condition,
        "same": report.same,
        "submissions": found.submissions,
        "decisions": found.decisions,
        "differing": found.differing,
        "submissions_differing": found.submissions_differing,
        "seconds": report.seconds,
        "unreadable": unreadable,
        "kinds": [_group_object(group, report.name_of) for group in _by_count(found)],
        "notices": [
            {
                "kind": notices.kind,
                "count": notices.count,
                "first": [
                    {"position": at, "about": about, "words": words}
                    for at, about, words in notices.examples
                ],
            }
            for notices in report.notices
        ],
    }


def _group_object(group: Group, name_of: Callable[[str], str]) -> dict[str, Any]:
    return {
        "kind": group.kind,
        "count": group.count,
        "first": [
            {"position": at, "stream": stream, "run": name_of(stream)}
            for at, stream in group.places
        ],
        "ends": [{**_end_object(end), "count": count} for end, count in group.ends.most_common()],
        "examples": [_example_object(found) for found in group.examples],
    }


def _example_object(found: Difference) -> dict[str, Any]:
    observation = found.observation
    return {
        "position": observation.position,
        "stream": observation.stream,
        "recorded_observation": _draft_object(observation),
        "shown": _draft_object(found.shown) if found.shown else None,
        "recorded": [_draft_object(draft) for draft in found.recorded],
        "decided": [_draft_object(draft) for draft in found.decided],
        "fields": [{"type": type_, **attrs.asdict(field)} for type_, field in found.fields],
        "trouble": found.trouble,
        "departs": found.departs,
        "path": [
            {
                "position": step.position,
                "shown": _draft_object(step.shown) if step.shown else None,
                "decided": [_draft_object(draft) for draft in step.decided],
                "trouble": step.trouble,
            }
            for step in found.steps
        ],
        "end": _end_object(found.end) if found.end else None,
    }


def _end_object(end: End) -> dict[str, Any]:
    return {"state": end.state, "owed": list(end.owed), "closed": end.closed}


def _draft_object(draft: Record | Draft) -> dict[str, Any]:
    return {"type": draft.type, "schema": draft.schema, "fields": fields_of(draft)}
