"""Runs a check for `replay check`: which records of which log, changed how, decided by whom."""

from __future__ import annotations

import contextlib
import heapq
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from events.lifecycle import OnUncertain
from events.log import Draft, LogReader, Record
from events.notices import AGENT_STREAM
from replay.against import OtherVersion
from replay.changes import Changes, UnfitChange, replacement
from replay.check_report import Report
from replay.decider_worker import Judge, cycles_left_alone
from replay.noticed import Claimed, Overdue, Watcher, watched
from replay.whatif import Ask, is_observation, play_again


@attrs.frozen
class Wanted:
    """What a check is to be about.

    Attributes:
        streams: the submissions; None for all.
        against: a checkout whose decider decides; None for today's.
        dropped: positions of observations that are left out.
        replaced: position -> fields that are to be otherwise; see `changes.replacement`.
        examples: how many differences of each kind are told in full.
    """

    streams: Sequence[str] | None = None
    against: Path | None = None
    dropped: Sequence[int] = ()
    replaced: Mapping[int, Mapping[str, Any]] = attrs.field(factory=dict)
    on_uncertain: OnUncertain | None = None
    max_late_seconds: float | None = None
    overdue_after_seconds: float | None = None
    examples: int = 1


def check_log(reader: LogReader, log: str, wanted: Wanted) -> Report:
    """Make the decisions again.

    Raises:
        UnfitChange: an observation can't be left out or replaced as wanted.
        NoDecider: the checkout holds none that works.
        NeedsNewerRelease: the log holds an event that this release does not know.
    """
    changed = [_observation_at(reader, at) for at in (*wanted.dropped, *wanted.replaced)]
    changes = Changes(
        frozenset(wanted.dropped),
        _replacements(changed, wanted.replaced),
        wanted.on_uncertain,
        wanted.max_late_seconds,
    )
    streams = _streams(wanted, changed)
    watchers = _watchers(wanted)
    began = time.perf_counter()
    with _judge(wanted.against) as ask, cycles_left_alone():
        records = watched(_records(reader, streams), watchers)
        findings = play_again(records, changes, ask, wanted.examples)
    notices = [notices for watcher in watchers for notices in watcher.finish()]
    seconds = time.perf_counter() - began
    return Report(log, _in_words(wanted), findings, notices, seconds, reader)


def _observation_at(reader: LogReader, position: int) -> Record:
    record = next(reader.read_all(position - 1), None)
    if record is None or record.position != position:
        raise UnfitChange(f"there is no record at position {position}")
    if not is_observation(record):
        raise UnfitChange(
            f"position {position} holds {record.type}, which is no observation: only what was"
            " learned can be changed, and what is decided follows"
        )
    return record


def _replacements(
    changed: Sequence[Record], replaced: Mapping[int, Mapping[str, Any]]
) -> dict[int, Draft]:
    drafts = {}
    for record in changed:
        if record.position in replaced:
            try:
                drafts[record.position] = replacement(record, replaced[record.position])
            except UnfitChange as error:
                raise UnfitChange(f"position {record.position}: {error}") from error
    return drafts


def _streams(wanted: Wanted, changed: Sequence[Record]) -> Sequence[str] | None:
    """Return the submissions that are played: a changed observation concerns its own only."""
    if wanted.streams is None:
        return list(dict.fromkeys(record.stream for record in changed)) or None
    for record in changed:
        if record.stream not in wanted.streams:
            raise UnfitChange(f"position {record.position} belongs to {record.stream}")
    return wanted.streams


def _records(reader: LogReader, streams: Sequence[str] | None) -> Iterator[Record]:
    if streams is None:
        yield from reader.read_all()
        return
    # The agent's own stream tells by which clock to measure, and which notices there were.
    wanted = [reader.read_stream(stream) for stream in (AGENT_STREAM, *streams)]
    yield from heapq.merge(*wanted, key=lambda record: record.position)


def _watchers(wanted: Wanted) -> list[Watcher]:
    watchers: list[Watcher] = []
    if wanted.max_late_seconds is not None:
        watchers.append(Claimed(wanted.max_late_seconds))
    if wanted.overdue_after_seconds is not None:
        watchers.append(Overdue(wanted.overdue_after_seconds))
    return watchers


@contextlib.contextmanager
def _judge(against: Path | None) -> Iterator[Ask]:
    if against is None:
        yield Judge().ask
        return
    with OtherVersion(against) as other:
        yield other.ask


def _in_words(wanted: Wanted) -> str:
    parts = [f"decided by {wanted.against}"] if wanted.against else []
    parts += [f"without position {at}" for at in wanted.dropped]
    parts += [f"with another observation at position {at}" for at in wanted.replaced]
    if wanted.on_uncertain:
        parts.append(f"with --on-uncertain {wanted.on_uncertain.value}")
    if wanted.max_late_seconds is not None:
        parts.append(f"with --max-late {wanted.max_late_seconds:g}s")
    if wanted.overdue_after_seconds is not None:
        parts.append(f"with --overdue-after {wanted.overdue_after_seconds:g}s")
    return ", ".join(parts)
