"""`replay run`: a line for each event that is appended again, and what came of it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

import attrs

from events.codec import unstructure
from events.lifecycle import Event, Transition
from events.submission import what_next
from replay.reexecution.comparison import Divergence, Step
from replay.reexecution.debugging import FRAMES_UP
from replay.reexecution.execution import Outcome
from replay.reexecution.recording import Entry, Recording
from replay.screen import Line, Screen, Span, padded
from replay.showing import NAME_COLUMNS, WIDE
from replay.verification import MISSING, FieldDifference
from replay.words import EFFECTS, clock_time, describe, duration

STOOD_IN: Final = " (handed over as recorded)"


@attrs.define
class Steps:
    """Prints the steps as they come.

    Attributes:
        said: the words of the last observation, which its transitions need not repeat.
        before: when the entry before was recorded, in its life.
    """

    recording: Recording
    screen: Screen
    said: str = ""
    before: float = 0.0

    def head(self) -> None:
        """Say which submission it is, and what is going to happen."""
        run = self.recording.discovered
        self.screen.hanging(
            [], [(run.run_name, "strong"), (f"  {self.recording.stream}  queue {run.queue}", "")]
        )
        lives = len(self.recording.lives)
        agents = f", in the lives of {lives} agents" if lives > 1 else ""
        release = f"pluperfect {version('pluperfect')}"
        what = f"the code of {release} lives it again: recorded answers, virtual time{agents}"
        self.screen.hanging([], [(what, "dim")])
        self.screen.line()

    def tell(self, step: Step) -> None:
        """Print one step."""
        mark = ("same  ", "good") if step.same else ("OTHER ", "bad")
        event = step.entry.event
        decided = isinstance(event, Transition)
        words = describe(event, self.said if decided and step.same else "")
        if not decided:
            self.said = words
        details: list[Span] = [(words, "")]
        if step.stood_in:
            details.append((STOOD_IN, "wait"))
        self._print(step.entry, mark, details)
        self.before = step.entry.due

    def announce(self, entry: Entry) -> None:
        """Say where the debugger is called, and how to get to the daemon's code."""
        self._print(entry, ("next  ", "wait"), [(describe(entry.event), "")])
        how = (
            f"the debugger: `up {FRAMES_UP}` is the daemon's code, `p recorded.event` what is"
            " recorded, `c` goes on, `q` ends it"
        )
        self.screen.hanging([], [(how, "wait")])

    def _print(self, entry: Entry, mark: Span, details: Line) -> None:
        decided = isinstance(entry.event, Transition)
        hook: list[Span] = [("└ ", "quiet")] if decided else []
        start = [*self._start(entry), mark, *hook]
        name, style = entry.record.type, "transition" if decided else "observation"
        if self.screen.width is not None and self.screen.width < WIDE:
            self.screen.hanging(start, [(f"{name}  ", style), *details])
            return
        columns = NAME_COLUMNS - (2 if decided else 0)
        self.screen.hanging([*start, (padded(name, columns) + " ", style)], details)

    def _start(self, entry: Entry) -> Line:
        columns = max(len(str(self.recording.entries[-1].record.position)), 3)
        decided = isinstance(entry.event, Transition)
        time = "" if decided else clock_time(entry.record.recorded_at, milliseconds=True)
        # A life begins anew with a restart; how long that took is not this agent's time.
        passed = entry.due - self.before
        delta = "" if decided or entry.due == 0 else f"+{duration(passed)}"
        return [
            (f"{entry.record.position:>{columns}}  ", "quiet"),
            (f"{time:<12} {delta:>10}  ", "time"),
        ]


def print_outcome(recording: Recording, outcome: Outcome, seconds: float, screen: Screen) -> None:
    """Print the verdict, with what it does not cover.

    Args:
        seconds: that the re-execution took.
    """
    screen.line()
    done = sum(step.same for step in outcome.steps)
    took = f"{duration(outcome.virtual_seconds)} of the agent's time in {duration(seconds)}"
    if outcome.divergence is not None:
        _print_divergence(recording, outcome.divergence, screen)
        screen.line((f"before it: {_events(done)} the same, {took}", "dim"))
    elif outcome.left:
        screen.line(("left", "wait"), (f"  the debugger ended it after {_events(done)}", ""))
    else:
        screen.line(("same", "good"), (f"  {_events(done)} appended again, {took}", ""))
        if not recording.is_closed:
            owed = " and to ".join(EFFECTS[effect] for effect in what_next(outcome.submission))
            screen.hanging(
                [("      ", "")], [(f"the record ends here, before the daemon is to {owed}", "dim")]
            )
    for caveat in _caveats(outcome):
        screen.hanging([("      ", "")], [(caveat, "dim")])


def _events(number: int) -> str:
    return f"{number} event{'s' * (number != 1)}"


def _caveats(outcome: Outcome) -> list[str]:
    """Say what was compared less than whole."""
    caveats = []
    if number := outcome.values_not_kept:
        them = (
            "value of an environment variable is"
            if number == 1
            else ("values of environment variables are")
        )
        caveats.append(
            f"{number} {them} not in the log: placeholders stood in, and only names were compared"
        )
    if number := outcome.stood_in:
        caveats.append(
            f"{number} error{'s' * (number != 1)} handed over as recorded: no answer of a server or"
            " launcher is known that would lead to these words"
        )
    return caveats


def _print_divergence(recording: Recording, found: Divergence, screen: Screen) -> None:
    entry = found.entry
    where = _place(recording, found)
    screen.line(("different", "bad"), (f" {where}", "strong"))
    screen.hanging([("  ", "")], [(found.problem, "")])
    if entry is not None and not found.fields:
        words = f"{entry.record.type}  {describe(entry.event)}"
        screen.hanging([("  recorded  ", "dim")], [(words, "")])
    for field in found.fields:
        screen.line(("    ", ""), (field.path, "strong"))
        screen.hanging([("      recorded  ", "dim")], [(_value(field.recorded), "bad")])
        screen.hanging([("      now       ", "dim")], [(_value(field.decided), "good")])
    rest = len(recording.entries) - (entry.index + 1 if entry else len(recording.entries))
    if rest:
        screen.line((f"  the {_events(rest)} that follow were not compared", "dim"))


def _place(recording: Recording, found: Divergence) -> str:
    if found.entry is None:
        return f"after position {recording.entries[-1].record.position}, the last of the record"
    record = found.entry.record
    return f"at position {record.position} ({record.type}, version {record.version})"


def _value(value: Any) -> str:
    if value is None:
        return "null"
    return repr(value) if isinstance(value, str) and value is not MISSING else str(value)


# --- for machines ------------------------------------------------------------------------------


def outcome_object(
    log: str, recording: Recording, outcome: Outcome, seconds: float
) -> dict[str, Any]:
    """Return what came of a re-execution as JSON values."""
    found = outcome.divergence
    return {
        "log": log,
        "stream": recording.stream,
        "same": outcome.same,
        "left": outcome.left,
        "events": sum(step.same for step in outcome.steps),
        "lives": len(recording.lives),
        "open": not recording.is_closed,
        "owed": [effect.value for effect in what_next(outcome.submission)],
        "values_not_kept": outcome.values_not_kept,
        "stood_in": outcome.stood_in,
        "virtual_seconds": outcome.virtual_seconds,
        "seconds": seconds,
        "steps": [_step_object(step) for step in outcome.steps],
        "divergence": None if found is None else _divergence_object(found),
    }


def _step_object(step: Step) -> dict[str, Any]:
    record = step.entry.record
    return {
        "position": record.position,
        "version": record.version,
        "type": record.type,
        "same": step.same,
        "stood_in": step.stood_in,
        "recorded": _event_object(step.entry.event),
        "now": None if step.same else _event_object(step.appended),
        "differences": [_field_object(field) for field in step.differences],
    }


def _event_object(event: Event) -> dict[str, Any]:
    return {"type": type(event).__name__, **unstructure(event)}


def _field_object(field: FieldDifference) -> dict[str, Any]:
    return {"path": field.path, "recorded": field.recorded, "now": field.decided}


def _divergence_object(found: Divergence) -> dict[str, Any]:
    record = found.entry.record if found.entry else None
    return {
        "problem": found.problem,
        "position": record.position if record else None,
        "version": record.version if record else None,
        "type": record.type if record else None,
        "fields": [_field_object(field) for field in found.fields],
    }
