"""A whole log as JSON Lines, and back: for jq, DuckDB and pandas, and for keeping.

Nothing is left out, so that `read_jsonl` makes the same log of it again. The lines are:

- `{"log": …}`, the first: the format and its version, the log's id and when it was made;
- `{"torn_stream": …}`, in a salvaged copy: a stream that has lost records;
- a record on each line, its fields at the top, `data` as JSON. Where the recorded text is not the
  one that JSON would be written as again, it is kept as it is in `data_text` instead;
- `{"archived_range": …}` (or `lost_range`) in the place of records that are not in this log;
- `{"archived_stream": …}` after the last record: its name stays taken;
- `{"end": …}`, the last: where the log ends and how many lines of each kind there were, so that a
  file that was cut off is noticed.

`replay export` and `replay import` are the callers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

import attrs
import orjson

from events.chain import genesis
from events.copying import contents
from events.log import (
    ArchivedRange,
    ArchivedStream,
    LogDamaged,
    LostRange,
    Record,
    Tip,
    TornStream,
)
from events.sqlite_reader import SqliteReader

FORMAT: Final = "pluperfect log"
VERSION: Final = 1
COUNTED: Final = ("records", "ranges", "streams")

_NAMES: Final = {
    kind: tuple(field.name for field in attrs.fields(kind))
    for kind in (Record, ArchivedRange, LostRange, ArchivedStream, TornStream)
}


def write_jsonl(reader: SqliteReader, out: BinaryIO) -> None:
    """Write a log as it is now; what is appended meanwhile is not in it.

    Args:
        reader: of the log.
        out: takes bytes. Without the last line, which is not written after an error, what is
            there can't be imported.

    Raises:
        LogDamaged: a record is missing or can't be read.
        CompactedMeanwhile: try again.
    """
    for line in _lines(reader):
        out.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def _lines(reader: SqliteReader) -> Iterator[Mapping[str, Any]]:
    own = {"log_id": reader.log_id, "created": reader.created, "kind": reader.kind}
    yield {"log": {"format": FORMAT, "version": VERSION, **own}}
    counts = Counter[str]()
    for torn in reader.torn_streams():
        yield {"torn_stream": _fields(torn)}
        counts["streams"] += 1
    tip, end = reader.tip(), Tip(0, genesis(reader.log_id))
    for item in contents(reader, tip):
        if isinstance(item, Record):
            yield _record_line(item)
            counts["records"] += 1
            end = Tip(item.position, item.hash)
        else:
            yield _range_line(item)
            counts["ranges"] += 1
    for stream in reader.archived_streams():
        yield {"archived_stream": _fields(stream)}
        counts["streams"] += 1
    if end != tip:
        reason = "its note of its last record differs from that record"
        raise LogDamaged(reader.path, end.position, reason)
    counted = {name: counts[name] for name in COUNTED}
    yield {"end": {**counted, "position": tip.position, "hash": tip.hash.hex()}}


def _record_line(record: Record) -> Mapping[str, Any]:
    line = _fields(record)
    text = line.pop("data")
    if _comes_back(text):
        line["data"] = orjson.Fragment(text)
    else:
        line["data_text"] = text
    return line


def _comes_back(text: str) -> bool:
    """Tell whether reading the text as JSON and writing it again gives the same text."""
    try:
        return data_text(orjson.loads(text)) == text
    except (ValueError, TypeError):  # not JSON, or nested deeper than can be written
        return False


def data_text(data: Any) -> str:
    """Return the text that `data` of a line stands for: as events are encoded."""
    return orjson.dumps(data, option=orjson.OPT_SORT_KEYS).decode()


def _range_line(gone: ArchivedRange) -> Mapping[str, Any]:
    name = "lost_range" if isinstance(gone, LostRange) else "archived_range"
    return {name: _fields(gone)}


def _fields(value: Any) -> dict[str, Any]:
    """Return a flat value's fields, hashes as hex digits; `attrs.asdict` takes much longer."""
    return {
        name: field.hex() if isinstance(field, bytes) else field
        for name in _NAMES[type(value)]
        for field in (getattr(value, name),)
    }
