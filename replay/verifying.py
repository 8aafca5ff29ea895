"""`replay verify`: says in one line that a log is sound, or shows the first place where not."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from events.log import ArchivedRange, LogDamaged, LostRange, Tip
from events.sqlite_reader import SqliteReader
from replay.progress import watched
from replay.screen import Screen
from replay.verification import Divergence, Kind, Tally, verify


@attrs.frozen
class Verdict:
    """What came out of a verification.

    Attributes:
        divergence: the first one; None for a sound log.
        seconds: how long it took.
        archived: how many records the log says are in archives (in one: are not).
        believed: the position up to which it was not checked.
        lost: of a salvaged copy, what is lost.
        torn: how many streams have lost records, or may have; they are checked up to there.
    """

    log: str
    tally: Tally
    seconds: float
    archived: int = 0
    divergence: Divergence | None = None
    believed: int = 0
    lost: Sequence[LostRange] = ()
    torn: int = 0

    @property
    def lost_records(self) -> int:
        """How many records this log has lost, by its own account."""
        return sum(gone.last - gone.first + 1 for gone in self.lost)

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return self.divergence is None


def verify_log(reader: SqliteReader, name: str, since: str | None = None) -> Verdict:
    """Verify a log up to the first divergence.

    Args:
        reader: the log.
        name: what it is called in the verdict.
        since: UTC, ISO 8601 as records have it: what was recorded before is believed, and the
            file's pages are not checked.

    Raises:
        NeedsNewerRelease: it holds an event that this release does not know.
    """
    began = time.perf_counter()
    tally = Tally()
    after = None if since is None else _last_before(reader, since)
    lost: Sequence[LostRange] = ()
    torn: Mapping[str, int] = {}
    try:
        lost = reader.lost_ranges()
        torn = {each.stream: each.version for each in reader.torn_streams()}
        with watched(reader.count_after(after.position if after else 0), "records") as watch:
            found = verify(reader, reader.log_id, tally, after=after, torn=torn, watch=watch)
            divergence = next(found, None)
        if divergence is None and after is None:
            reader.check_file()
    except LogDamaged as error:
        problem = f"the file is damaged: {error.reason}"
        divergence = Divergence(Kind.CHAIN, error.position or tally.records + 1, problem)
    except TypeError:  # nothing stands where something must
        problem = "the file is damaged: a record lacks a field"
        divergence = Divergence(Kind.CHAIN, tally.records + 1, problem)
    archived = reader.archived_records() if divergence is None else 0
    seconds, believed = time.perf_counter() - began, after.position if after else 0
    return Verdict(name, tally, seconds, archived, divergence, believed, lost, len(torn))


def _last_before(reader: SqliteReader, since: str) -> Tip | None:
    """Return the last record before the first one that was recorded at a time or later."""
    (first,) = reader.select("SELECT min(position) FROM records WHERE recorded_at >= ?", (since,))
    last = reader.last_record(until=(first[0] or reader.last_position() + 1) - 1)
    return None if last is None else Tip(last.position, last.hash)


def print_verdict(verdict: Verdict, screen: Screen) -> None:
    """Print a line for a sound log, a few for the first divergence."""
    tally = verdict.tally
    checked = (
        f"{_many(tally.records, 'record')}, {_many(tally.submissions, 'submission')},"
        f" {_many(tally.decisions, 'decision')} made again in {verdict.seconds:.2f} s"
    )
    found = verdict.divergence
    if found is None:
        screen.line(("sound", "good"), (f"  {checked}", ""))
        if verdict.believed:
            before = f"from position {verdict.believed + 1} on; what came before was believed"
            screen.line((f"       {before}", "dim"))
        if verdict.lost:
            _print_lost(verdict, screen)
        if verdict.archived:
            elsewhere = f"{_many(verdict.archived, 'record')} of this log kept elsewhere"
            screen.line((f"       {elsewhere}, by its own account: verify that file too", "dim"))
        return
    what = f": {found.type}" if found.type else ""
    where = f" (stream {found.stream}, version {found.version})" if found.version else ""
    screen.line((f"{found.kind.value} fails", "bad"), (f" at position {found.position}", "strong"))
    if what:
        screen.hanging([("  ", "")], [(f"{found.type}{where}", "")])
    screen.hanging([("  ", "")], [(found.problem, "")])
    for field in found.fields:
        screen.line(("    ", ""), (field.path, "strong"))
        screen.hanging([("      recorded  ", "dim")], [(_value(field.recorded), "bad")])
        screen.hanging([("      decided   ", "dim")], [(_value(field.decided), "good")])
    if found.version and found.kind is not Kind.CHAIN:
        screen.line((f"  see it in its place: replay show {verdict.log} {found.stream}", "dim"))
    screen.line((f"before it: {checked}", "dim"))


def _print_lost(verdict: Verdict, screen: Screen) -> None:
    shown = [positions(gone) for gone in verdict.lost[:LOST_SHOWN]]
    more = len(verdict.lost) - len(shown)
    where = ", ".join(shown) + (f" and {_many(more, 'more place')}" if more else "")
    were = "was" if verdict.lost_records == 1 else "were"
    words = f"but {_many(verdict.lost_records, 'record')} (positions {where}) {were} lost, and"
    torn = f"{_many(verdict.torn, 'stream')} checked up to there only"
    screen.hanging([("       ", "")], [(f"{words} {torn}", "bad")])


LOST_SHOWN: Final = 5


def positions(gone: ArchivedRange) -> str:
    """Return the positions of a range for people."""
    return str(gone.first) if gone.first == gone.last else f"{gone.first} to {gone.last}"


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _value(value: Any) -> str:
    return "null" if value is None else repr(value) if isinstance(value, str) else str(value)


def verdict_object(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON values."""
    found = verdict.divergence
    divergence = None
    if found is not None:
        divergence = attrs.asdict(found) | {"kind": found.kind.value}
    return {
        "log": verdict.log,
        "sound": verdict.sound,
        "records": verdict.tally.records,
        "submissions": verdict.tally.submissions,
        "decisions": verdict.tally.decisions,
        "seconds": verdict.seconds,
        "archived_records": verdict.archived,
        "lost_records": verdict.lost_records,
        "torn_streams": verdict.torn,
        "believed_up_to": verdict.believed,
        "divergence": divergence,
    }
