"""`replay import`: makes the log again that was exported as JSON Lines, or says what is wrong.

Nothing is taken on trust: the lines come in their order, every field has its type, every hash
follows from the record and the hash before it, and the last line counts them all. What is wrong
is named by line and field, and then nothing is written.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from uuid import UUID

import attrs
import orjson

from events.chain import HASH_BYTES, ChainVerifier, genesis
from events.copying import Copy, new_log
from events.log import ArchivedRange, ArchivedStream, LogError, LostRange, Record, TornStream
from events.sqlite_file import Identity
from replay.jsonl import COUNTED, FORMAT, VERSION, data_text

_LONGEST_LINE: Final = 1 << 28
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GREATEST: Final = 2**63 - 1


class NotAnExport(LogError):
    """A line is not what `replay export` writes, or does not follow from the lines before it."""

    def __init__(self, source: str, line: int, problem: str) -> None:
        self.source, self.line, self.problem = source, line, problem
        super().__init__(f"{source}, line {line}: {problem}")


class _Wrong(Exception):
    """Something about the line at hand."""


def import_jsonl(file: BinaryIO, source: str, path: Path) -> int:
    """Write the log that an export holds to a path where nothing is.

    Args:
        file: the export, perhaps compressed with gzip.
        source: what it is called in errors.
        path: of the new log.

    Returns:
        How many records it has.

    Raises:
        NotAnExport: the first line that is wrong; nothing was written.
        CopyFailed: it can't be written.
    """
    lines = _Lines(file, source)
    try:
        identity = _identity(_only(lines.next(), "log"))
        with new_log(path, identity) as copy:
            reading = _Import(copy, ChainVerifier(genesis(identity.log_id)))
            while not reading.is_complete:
                reading.take(lines.next())
            lines.expect_no_more()
            return copy.records
    except _Wrong as error:
        raise NotAnExport(source, lines.number, str(error)) from error


class _Lines:
    """The lines of a file, each a JSON object."""

    def __init__(self, file: BinaryIO, source: str) -> None:
        self.number = 0
        self._source = source
        buffered = io.BufferedReader(cast(io.RawIOBase, file))  # whatever it is, it can be peeked
        packed = buffered.peek(2)[:2] == _GZIP_MAGIC
        self._file = gzip.GzipFile(fileobj=buffered) if packed else buffered

    def next(self) -> Mapping[str, Any]:
        line = self._read()
        if not line:
            raise _Wrong("the file ends here; it was cut off, for the last line of an export says"
                         " `end`")  # fmt: skip
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise _Wrong(f"it is not JSON: {error.msg}, column {error.colno}") from error
        if not isinstance(value, dict):
            raise _Wrong("it is no JSON object")
        return value

    def expect_no_more(self) -> None:
        if self._read():
            raise _Wrong("more follows after the last line of an export")

    def _read(self) -> bytes:
        self.number += 1
        try:
            line: bytes = self._file.readline(_LONGEST_LINE)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise _Wrong(f"it can't be unpacked: {error}") from error
        except OSError as error:
            raise _Wrong(f"it can't be read: {error.strerror or error}") from error
        if len(line) == _LONGEST_LINE:
            raise _Wrong("it is too long for a line of an export")
        return line


def _identity(fields: Mapping[str, Any]) -> Identity:
    if fields.get("format") != FORMAT:
        raise _Wrong(f"`log.format` is not {FORMAT!r}: this is no exported log")
    version = _integer(fields, "version")
    if version > VERSION:
        raise _Wrong(f"it has version {version} of the format, and this release knows {VERSION}:"
                     " use a newer one")  # fmt: skip
    kind = fields.get("kind")
    if kind is not None and not isinstance(kind, str):
        raise _Wrong("`kind` is neither text nor null")
    try:
        return Identity(UUID(_text(fields, "log_id")), _text(fields, "created"), kind)
    except ValueError as error:
        raise _Wrong("`log_id` is no UUID") from error


@attrs.define
class _Import:
    """An import under way: the log that is written, and where the lines have come to."""

    copy: Copy
    chain: ChainVerifier
    counts: Counter[str] = attrs.field(factory=Counter)
    last_torn: str = ""
    last_archived: str = ""
    is_complete: bool = False

    def take(self, line: Mapping[str, Any]) -> None:
        """Take in the next line."""
        if "position" in line:
            self._record(line)
            return
        if len(line) != 1:
            raise _Wrong("it is neither a record nor any other line of an export")
        ((name, fields),) = line.items()
        if name not in _TAKES:
            raise _Wrong(f"this release knows no line `{name}`")
        if not isinstance(fields, dict):
            raise _Wrong(f"`{name}` is no JSON object")
        _TAKES[name](self, fields)

    def _record(self, line: Mapping[str, Any]) -> None:
        if self.counts["archived"]:
            raise _Wrong("a record comes after the archived streams, which are last")
        record = _record(line)
        if record.position != self.chain.position + 1:
            raise _Wrong(
                f"`position` is {record.position}, where {self.chain.position + 1} belongs"
            )
        damage = self.chain.check(record)
        if damage is not None:
            raise _Wrong(f"`hash` does not fit: {damage.kind}: {damage.detail}")
        self.copy.add(record)
        self.counts["records"] += 1

    def _archived_range(self, fields: Mapping[str, Any]) -> None:
        self._leave_out(ArchivedRange(*_range(fields)))

    def _lost_range(self, fields: Mapping[str, Any]) -> None:
        if self.copy.identity.kind is None:
            raise _Wrong("`lost_range` is for copies only, and `log.kind` says that this is none")
        self._leave_out(LostRange(*_range(fields), _text(fields, "reason")))

    def _leave_out(self, gone: ArchivedRange) -> None:
        if gone.first != self.chain.position + 1:
            raise _Wrong(f"`first` is {gone.first}, where {self.chain.position + 1} belongs")
        if gone.last < gone.first:
            raise _Wrong("`last` comes before `first`")
        if gone.hash_before != self.chain.previous:
            raise _Wrong("`hash_before` is not the hash of the record before the range")
        self.copy.leave_out(gone)
        self.chain.previous, self.chain.position = gone.hash_after, gone.last
        self.counts["ranges"] += 1

    def _archived_stream(self, fields: Mapping[str, Any]) -> None:
        name = self.last_archived = _next_name(fields, self.last_archived)
        numbers = (_integer(fields, "position"), _integer(fields, "version"))
        self.copy.add_archived(ArchivedStream(name, *numbers, _text(fields, "archive")))
        self.counts["archived"] += 1
        self.counts["streams"] += 1

    def _torn_stream(self, fields: Mapping[str, Any]) -> None:
        if self.copy.identity.kind is None:
            raise _Wrong("`torn_stream` is for copies only, and `log.kind` says that this is none")
        if self.chain.position:
            raise _Wrong("a torn stream comes after a record; they are first")
        name = self.last_torn = _next_name(fields, self.last_torn)
        self.copy.add_torn(TornStream(name, _integer(fields, "version")))
        self.chain.torn.add(name)
        self.counts["streams"] += 1

    def _end(self, fields: Mapping[str, Any]) -> None:
        for name in COUNTED:
            if _integer(fields, name) != self.counts[name]:
                raise _Wrong(f"`{name}` is {fields[name]}, and {self.counts[name]} came: some are"
                             " missing or came twice")  # fmt: skip
        tip = self.copy.tip
        if (_integer(fields, "position"), _hash(fields, "hash")) != (tip.position, tip.hash):
            raise _Wrong("`position` and `hash` are not those of the last record")
        self.is_complete = True


_TAKES: Final[Mapping[str, Callable[[_Import, Mapping[str, Any]], None]]] = {
    "archived_range": _Import._archived_range,
    "lost_range": _Import._lost_range,
    "archived_stream": _Import._archived_stream,
    "torn_stream": _Import._torn_stream,
    "end": _Import._end,
}


# --- fields --------------------------------------------------------------------------------

_RECORD: Final = {field.name for field in attrs.fields(Record)} - {"data"}


def _record(line: Mapping[str, Any]) -> Record:
    unknown = sorted({*line} - _RECORD - {"data", "data_text"})
    if unknown:
        raise _Wrong(f"`{unknown[0]}` is no field of a record")
    if ("data" in line) == ("data_text" in line):
        raise _Wrong("a record has either `data` or `data_text`")
    cause = None if line.get("cause", 0) is None else _integer(line, "cause")
    if not isinstance(line.get("closes"), bool):
        raise _Wrong("`closes` is neither true nor false")
    data = data_text(line["data"]) if "data" in line else _text(line, "data_text")
    schema = _integer(line, "schema")
    if schema < 1:
        raise _Wrong("`schema` counts from 1")
    return Record(
        _integer(line, "position"),
        _text(line, "stream"),
        _integer(line, "version"),
        _text(line, "type"),
        schema,
        cause,
        line["closes"],
        _text(line, "recorded_at"),
        _integer(line, "monotonic_ns"),
        data,
        _hash(line, "hash"),
    )


def _range(fields: Mapping[str, Any]) -> tuple[int, int, bytes, bytes]:
    places = _integer(fields, "first"), _integer(fields, "last")
    return *places, _hash(fields, "hash_before"), _hash(fields, "hash_after")


def _only(line: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    fields = line.get(name)
    if len(line) != 1 or not isinstance(fields, dict):
        raise _Wrong(f"an exported log begins with a line `{name}`")
    return fields


def _next_name(fields: Mapping[str, Any], after: str) -> str:
    name = _text(fields, "stream")
    if name <= after:
        raise _Wrong(f"`stream` {name} does not come after {after}")
    return name


def _integer(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not -_GREATEST <= value <= _GREATEST:  # True is an int as well
        raise _Wrong(f"`{name}` is {_missing_or(value, 'no integer')}")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise _Wrong(f"`{name}` is {_missing_or(value, 'no text')}")
    return value


def _hash(fields: Mapping[str, Any], name: str) -> bytes:
    text = _text(fields, name)
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != HASH_BYTES:
        raise _Wrong(f"`{name}` is no hash of {2 * HASH_BYTES} hex digits")
    return value


def _missing_or(value: Any, problem: str) -> str:
    return "missing" if value is None else problem
