"""Finds the submissions that a person means: by id, unique prefix, name, or `id/ordinal`.

Ids come first, for they are found by the log's index; names only when no id fits, for that means
walking through the log.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from events.codec import UndecodableRecord, decode
from events.lifecycle import RunDiscovered
from events.log import LogReader
from events.notices import AGENT_STREAM

_ID: Final = re.compile(r"(?P<id>[0-9a-f-]+)(?:/(?P<ordinal>\d+))?", re.IGNORECASE)


class NoSuchRun(Exception):
    """Nothing in the log fits; `similar` are names that nearly do."""

    def __init__(self, wanted: str, similar: Sequence[str]) -> None:
        self.wanted, self.similar = wanted, similar
        super().__init__(f"no run's id begins with {wanted!r}, and none has that name")


def find(reader: LogReader, wanted: str) -> list[str]:
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


def _by_id(reader: LogReader, wanted: str) -> list[str]:
    match = _ID.fullmatch(wanted)
    if match is None:
        return []
    prefix, ordinal = match["id"].lower(), match["ordinal"]
    if len(prefix) == 32 and "-" not in prefix:
        prefix = str(UUID(prefix))
    streams = [stream for stream in reader.streams(prefix) if stream != AGENT_STREAM]
    return [stream for stream in streams if ordinal is None or stream.endswith(f"/{ordinal}")]


def _by_name(reader: LogReader, wanted: str) -> list[str]:
    name, slash, ordinal = wanted.rpartition("/")
    names: dict[str, str] = {}
    for record in reader.read_all():
        if record.type != RunDiscovered.__name__:
            continue
        try:
            event = decode(record)
        except UndecodableRecord:
            continue  # It has no name that could be read, but its id still finds it.
        if isinstance(event, RunDiscovered):
            names[record.stream] = event.run_name
    found = [stream for stream, given in names.items() if given == wanted]
    if not found and slash:
        found = [s for s, given in names.items() if given == name and s.endswith(f"/{ordinal}")]
    if not found:
        raise NoSuchRun(wanted, difflib.get_close_matches(wanted, sorted({*names.values()})))
    return found
