"""Tells people what is lost of a log, what is intact, and what to look after now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from events.codec import UndecodableRecord, decode, unstructure
from events.lifecycle import State
from events.log import ArchivedRange
from events.notices import AGENT_STREAM
from events.observations import RunOffered
from replay.salvage import Diagnosis, Torn
from replay.screen import Screen
from replay.verifying import positions
from replay.words import clock_time

SHOWN: Final = 20
"""Lines of each kind; `--json` has them all."""

TO_CHECK: Final[Mapping[State, str]] = {
    State.ABSENT: "nothing is known of it before the loss: ask the server what became of it",
    State.DISCOVERED: (
        "it may have been claimed, and launched: if it is Pending at the server and nothing of it"
        " runs, schedule it again there"
    ),
    State.PENDING: (
        "it was claimed, and may have been launched: if it is Pending at the server and nothing of"
        " it runs, schedule it again there"
    ),
    State.RESOLVING: (
        "it was claimed, and may have been launched: if it is Pending at the server and nothing of"
        " it runs, schedule it again there"
    ),
    State.LAUNCHING: (
        "it may run, or have run: look for its process, and at its state at the server, before"
        " anything starts it again"
    ),
    State.STARTED: "it was running: look whether it still is, and at its state at the server",
    State.EXITED: (
        "it has ended, but the server may not know: see that its state there is a last one"
    ),
    State.FAILED: (
        "it was not launched, but the server may not know: see that its state there is a last one"
    ),
    State.CANCELLED: (
        "it was cancelled, but the server may not know: see that its state there is a last one"
    ),
    State.ABORTED: "it was another agent's: there is nothing to look after",
}
"""What may have become of a submission whose end is lost, by the last state that is known."""


def to_check(torn: Torn) -> str | None:
    """Say what is to be looked after at the server and the host; None when nothing is."""
    if torn.is_closed or not torn.is_likely or torn.stream == AGENT_STREAM:
        return None
    state = torn.submission.state
    if state is State.ABSENT and torn.before is not None:
        state = State.DISCOVERED  # It was offered, and perhaps claimed.
    return TO_CHECK[state]


def print_diagnosis(found: Diagnosis, output: Path | None, screen: Screen) -> None:
    """Print what is the matter, and what was written."""
    if found.is_sound:
        intact = _many(found.intact, "record")
        screen.line(("sound", "good"), (f"  {intact}, none is lost; nothing to salvage", ""))
        return
    in_all = found.intact + found.lost_records
    screen.line(
        ("damaged", "bad"),
        (f"  {_of(found.lost_records, in_all)} lost,", ""),
        (f" {found.intact:,} intact", "strong"),
    )
    screen.hanging([("  ", "")], [(_how_far(found), "")])
    screen.hanging([("  it can't be read as usual: ", "dim")], [(str(found.complaint), "dim")])
    if found.unreadable:
        screen.hanging([("  ", "")], [(_pages(found.unreadable), "dim")])
    for note in found.notes:
        screen.hanging([("  ", "")], [(note, "wait")])
    for piece in found.unproven[:SHOWN]:
        screen.hanging([("  ", "")], [(
            f"{piece.length - 1:,} records from position {piece.first + 1} hang together, but"
            " nothing shows that they are this log's: they are left out", "wait")])  # fmt: skip
    _print_lost(found, screen)
    _print_concerned(found, screen)
    if output is not None and found.intact:
        screen.line()
        screen.line(("written", "good"), (f"  {_many(found.intact, 'record')} to {output}", ""))
    elif output is not None:
        screen.line(("nothing is intact, and nothing was written", "bad"))


def _how_far(found: Diagnosis) -> str:
    if not found.intact:
        return "no record of it is intact"
    if not found.lost:
        return "no record is lost: what is damaged is only what leads to them"
    if found.lost[0].first == 1:
        return f"lost from its beginning; intact again from position {found.first}"
    return f"intact up to position {found.lost[0].first - 1}"


def _pages(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN]))
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return f"pages of the file that can't be read: {shown}{more}"


def _print_lost(found: Diagnosis, screen: Screen) -> None:
    if not found.lost:
        return
    screen.line()
    screen.line(("lost", "heading"))
    shown = found.lost[:SHOWN]
    width = max(len(positions(gone)) for gone in shown)
    count = max(len(_many(_length(gone), "record")) for gone in shown)
    for gone in shown:
        many = f"{_many(_length(gone), 'record'):>{count}}"
        start = f"  {positions(gone):<{width}}  {many}  "
        screen.hanging([(start, "strong")], [(gone.reason, "")])
    if len(found.lost) > SHOWN:
        screen.line((f"  and {len(found.lost) - SHOWN:,} more places", "dim"))


def _print_concerned(found: Diagnosis, screen: Screen) -> None:
    concerned = [torn for torn in found.torn if torn.is_likely and _is_told(torn)]
    looked_after = [torn for torn in concerned if to_check(torn) is not None]
    closed = [torn for torn in concerned if to_check(torn) is None]
    if looked_after:
        screen.line()
        screen.line(("to look after, at the server and on the host", "heading"))
        for torn in looked_after[:SHOWN]:
            screen.line(("  ", ""), (_name(torn), "strong"), (f"  {torn.stream}", ""))
            screen.hanging([("    ", "")], [(_known(torn), "")])
            screen.hanging([("    ", "")], [(to_check(torn) or "", "wait")])
        if len(looked_after) > SHOWN:
            screen.line((f"  and {len(looked_after) - SHOWN:,} more; --json has them all", "dim"))
    if closed:
        screen.line()
        screen.line(("closed, with a gap in what is known", "heading"))
        for torn in closed[:SHOWN]:
            screen.line(
                ("  ", ""), (_name(torn), "strong"), (f"  {torn.stream}  {_versions(torn)}", "")
            )
        if len(closed) > SHOWN:
            screen.line((f"  and {len(closed) - SHOWN:,} more; --json has them all", "dim"))


def _is_told(torn: Torn) -> bool:
    # Of the agent's own notices there may always be one more.
    return torn.stream != AGENT_STREAM or bool(torn.lost)


def _name(torn: Torn) -> str:
    if torn.stream == AGENT_STREAM:
        return "the agent's own notices"
    if torn.before is not None and torn.before.type == RunOffered.__name__:
        with suppress(UndecodableRecord):
            return str(unstructure(decode(torn.before))["run_name"])
    run = torn.submission.discovered
    return "?" if run is None else run.run_name


def _known(torn: Torn) -> str:
    lost = f"{_versions(torn)} lost" if torn.lost else "what came after it may be lost"
    if torn.before is None:
        return f"the beginning is lost: {lost}"
    state = torn.submission.state
    known = "offered" if state is State.ABSENT else state.value.upper()
    pid = torn.submission.confirmed
    where = f" as {pid.infrastructure_pid}" if pid is not None else ""
    when = clock_time(torn.before.recorded_at, day=True)
    return f"last known at {when}, position {torn.before.position}: {known}{where}; {lost}"


def _versions(torn: Torn) -> str:
    if not torn.lost:
        return "the last ones" if torn.is_closed else "the last ones, perhaps"
    parts = [str(a) if a == b else f"{a} to {b}" for a, b in torn.lost]
    return f"version{'s' * (len(torn.lost) > 1 or ' ' in parts[0])} {', '.join(parts)}"


def _length(gone: ArchivedRange) -> int:
    return gone.last - gone.first + 1


def _of(number: int, in_all: int) -> str:
    return f"{number:,} of {_many(in_all, 'record')}"


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def diagnosis_object(found: Diagnosis, output: Path | None) -> dict[str, Any]:
    """Return a diagnosis as JSON values."""
    return {
        "log": str(found.log),
        "sound": found.is_sound,
        "complaint": found.complaint,
        "notes": found.notes,
        "log_id": str(found.identity.log_id) if found.identity else None,
        "intact_records": found.intact,
        "first_intact": found.first or None,
        "last_intact": found.last or None,
        "lost_records": found.lost_records,
        "archived_records": found.archived,
        "unproven_records": sum(piece.length - 1 for piece in found.unproven),
        "unreadable_pages": list(found.unreadable),
        "lost": [
            {"first": gone.first, "last": gone.last, "reason": gone.reason} for gone in found.lost
        ],
        "torn": [_torn_object(torn) for torn in found.torn if torn.is_likely],
        "written": str(output) if output and found.intact and not found.is_sound else None,
    }


def _torn_object(torn: Torn) -> dict[str, Any]:
    run, before = torn.submission.discovered, torn.before
    return {
        "stream": torn.stream,
        "run_name": run.run_name if run else None,
        "lost_versions": torn.lost,
        "closed": torn.is_closed,
        "last_known_state": torn.submission.state.value,
        "last_known_position": before.position if before else None,
        "last_known_at": before.recorded_at if before else None,
        "to_check": to_check(torn),
    }
