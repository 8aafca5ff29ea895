"""Finds the submissions that a person means: by id, unique prefix, name, or `id/ordinal`.

Ids come first, for they are found by the log's index; names only when no id fits, for that means
looking through the log.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from events.notices import AGENT_STREAM
from events.sqlite_reader import SqliteReader

_ID: Final = re.compile(r"(?P<id>[0-9a-f-]+)(?:/(?P<ordinal>\d+))?", re.IGNORECASE)


class NoSuchRun(Exception):
    """Nothing in the log fits; `similar` are names that nearly do."""

    def __init__(self, wanted: str, similar: Sequence[str]) -> None:
        self.wanted, self.similar = wanted, similar
        super().__init__(f"no run's id begins with {wanted!r}, and none has that name")


def find(reader: SqliteReader, wanted: str) -> list[str]:
    """Return the streams that fit, oldest first; at least one.

    Args:
        wanted: `agent` for the agent's own stream, a flow run's id or the beginning of one, with
            `/n` for its n-th submission, or a flow run's name.

    Raises:
        NoSuchRun: nothing fits.
    """
    if wanted == AGENT_STREAM and reader.streams(AGENT_STREAM):
        return [AGENT_STREAM]
    return _by_id(reader, wanted) or _by_name(reader, wanted)


def _by_id(reader: SqliteReader, wanted: str) -> list[str]:
    match = _ID.fullmatch(wanted)
    if match is None:
        return []
    prefix, ordinal = match["id"].lower(), match["ordinal"]
    if len(prefix) == 32 and "-" not in prefix:
        prefix = str(UUID(prefix))
    streams = [stream for stream in reader.streams(prefix) if stream != AGENT_STREAM]
    return [stream for stream in streams if ordinal is None or stream.endswith(f"/{ordinal}")]


def _by_name(reader: SqliteReader, wanted: str) -> list[str]:
    name, slash, ordinal = wanted.rpartition("/")
    found = _named(reader, wanted)
    if not found and slash:
        found = [stream for stream in _named(reader, name) if stream.endswith(f"/{ordinal}")]
    if not found:
        raise NoSuchRun(wanted, difflib.get_close_matches(wanted, _newest_names(reader)))
    return found


def _named(reader: SqliteReader, name: str) -> list[str]:
    query = f"SELECT stream FROM records WHERE {_NAME} = ? ORDER BY position"  # noqa: S608 - ours
    return [stream for (stream,) in reader.select(query, (name,))]


def _newest_names(reader: SqliteReader) -> list[str]:
    query = (
        f"SELECT {_NAME} FROM records WHERE type = 'RunDiscovered'"  # noqa: S608 - ours
        f" ORDER BY position DESC LIMIT {_NAMES_COMPARED}"
    )
    return sorted({str(name) for (name,) in reader.select(query) if name is not None})


# SQLite looks through a million records in this way in a second. One whose data is not JSON has
# no name that could be read, but its id still finds it.
_NAME: Final = (
    "CASE WHEN type = 'RunDiscovered' AND json_valid(data) THEN json_extract(data, '$.run_name')"
    " END"
)

_NAMES_COMPARED: Final = 5000
"""So many of the newest are searched for a similar one."""
