"""A log as CSV (RFC 4180): a row for each submission, or for each record.

For spreadsheets, and so for people: text out of a log is a stranger's, and a cell must neither be
calculated nor move a cursor. A text that begins with `=`, `+`, `-`, `@` or an apostrophe gets an
apostrophe in front, and control characters other than line breaks are shown as escapes. JSON Lines
keep every text as it is.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from operator import attrgetter
from typing import Any, BinaryIO, Final

from events.codec import EVENT_TYPES
from events.lifecycle import State, Transition
from events.log import Record
from events.observations import Observation
from events.sqlite_reader import SqliteReader
from replay.export.lives import state_after
from replay.screen import visible
from replay.selection import Selection
from replay.summary import as_object, went_wrong
from replay.timeline import Moment, Timeline

Row = Sequence[Any]

STATES: Final = tuple(state.value for state in State if state is not State.ABSENT)

_FLAT: Final = (
    "stream", "flow_run_id", "run_name", "ordinal", "attempt", "queue", "deployment_name",
    "deployment_id", "flow_name", "flow_id", "scheduled_time", "launch_key", "state", "open",
    "began", "ended", "seconds", "seconds_to_start", "infrastructure_pid", "recoveries", "waits",
    "waits_seconds", "voided_launches", "records", "summary", "trouble",
)  # fmt: skip
"""What `replay list --json` has as it is."""

_NESTED: Final = (
    "went_wrong", "owed", "deferred", "deferred_seconds", "deferred_reason", "exit_code",
    "exit_reason", "ending", "ending_step", "ending_reason", "reported", "reported_message",
    "settled", "server_state",
)  # fmt: skip

SUBMISSION_COLUMNS: Final = (*_FLAT, *_NESTED, *(f"seconds_{state}" for state in STATES))

EVENT_COLUMNS: Final = (
    "position", "stream", "version", "recorded_at", "monotonic_ns", "family", "type", "schema",
    "cause", "closes", "state", "data",
)  # fmt: skip

_ROWS_AT_ONCE: Final = 500

_CALCULATED: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "'")  # noqa: RUF001
"""What a spreadsheet takes for the beginning of a formula; the apostrophe so that it can be
taken off again without a guess."""


def write_submissions(selection: Selection, out: BinaryIO) -> None:
    """Write a row for each submission."""
    rows = (_submission(timeline, selection.now) for timeline in selection.timelines())
    _write(SUBMISSION_COLUMNS, rows, out)


def write_events(selection: Selection, out: BinaryIO) -> None:
    """Write a row for each record, of the agent's own too.

    Where a time is asked for, it is that of the record.
    """
    wanted = selection.wanted
    rows = (
        row
        for record, row in _events(_records(selection.reader, wanted.streams))
        if wanted.since <= record.recorded_at < wanted.until
    )
    _write(EVENT_COLUMNS, rows, out)


def _write(columns: Row, rows: Iterable[Row], out: BinaryIO) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    for number, row in enumerate(rows, start=1):
        writer.writerow(map(cell, row))
        if number % _ROWS_AT_ONCE == 0:
            out.write(text.getvalue().encode())
            text.seek(0)
            text.truncate()
    out.write(text.getvalue().encode())


def cell(value: Any) -> Any:
    """Return a value as it is written; numbers and what is missing (an empty cell) as they are."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return value
    text = visible(value, keep_breaks=True)
    return f"'{text}" if text.lstrip().startswith(_CALCULATED) else text


def _submission(timeline: Timeline, now: Moment | None) -> Row:
    told = as_object(timeline, now)
    deferred, exited, ending = (told[name] or {} for name in ("deferred", "exited", "ending"))
    reported, settled = (told[name] or {} for name in ("reported", "settled"))
    nested = (
        went_wrong(timeline),
        " ".join(told["owed"]) or None,
        deferred.get("effect"),
        deferred.get("delay_seconds"),
        deferred.get("reason"),
        exited.get("exit_code"),
        exited.get("reason"),
        ending.get("type"),
        ending.get("step"),
        ending.get("error", ending.get("reason")),
        reported.get("state_type"),
        reported.get("message"),
        settled.get("answer"),
        settled.get("server_state"),
    )
    seconds = dict.fromkeys(STATES, None) | _seconds_of_states(told["states"])
    return (*(told[name] for name in _FLAT), *nested, *(seconds[state] for state in STATES))


def _seconds_of_states(stretches: Iterable[dict[str, Any]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for stretch in stretches:
        state = stretch["state"]
        total[state] = total.get(state, 0.0) + stretch["seconds"]
    return total


def _records(reader: SqliteReader, streams: Sequence[str] | None) -> Iterator[Record]:
    if streams is not None:
        records = (record for stream in streams for record in reader.read_stream(stream))
        return iter(sorted(records, key=attrgetter("position")))
    last = reader.last_position()  # What is written meanwhile is left out, so that this ends.
    return takewhile(lambda record: record.position <= last, reader.read_all())


def _events(records: Iterable[Record]) -> Iterator[tuple[Record, Row]]:
    """Yield each record with its row; only the states of open submissions are kept."""
    states: dict[str, State] = {}
    for record in records:
        state = state_after(states.pop(record.stream, State.ABSENT), record)
        if not record.closes and state is not State.ABSENT:
            states[record.stream] = state
        yield (
            record,
            (
                record.position,
                record.stream,
                record.version,
                record.recorded_at,
                record.monotonic_ns,
                family(record),
                record.type,
                record.schema,
                record.cause,
                record.closes,
                None if state is State.ABSENT else state.value,
                record.data,
            ),
        )


def family(record: Record) -> str:
    """Return which kind of event a record holds: transition, observation, notice or unknown."""
    kind = EVENT_TYPES.get(record.type)
    if kind is None:
        return "unknown"
    if issubclass(kind, Transition):
        return "transition"
    return "observation" if issubclass(kind, Observation) else "notice"
