"""What is exported as JSON Lines and imported again is the same log, whatever is in it."""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from events.archive import compact, open_log
from events.log import Append, Draft
from events.sqlite import SqliteReader, SqliteStore
from replay.importing import import_jsonl
from replay.jsonl import write_jsonl
from tests.unit.log_fixtures import ticking_clock

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def encoded(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        return repr(value)


DATA = st.one_of(
    VALUES.map(encoded),  # as an agent writes it
    VALUES.map(lambda value: encoded(value).replace(":", ": ")),  # JSON, in another spelling
    st.sampled_from(['{"a":1,"a":2}', '{"b":1,"a":2}', "1e400", "[1.0e2]", "[" * 300 + "]" * 300]),
    TEXTS,
)
STREAMS = st.tuples(TEXTS.filter(bool), st.lists(DATA, min_size=1, max_size=4), st.booleans())


def write(path: Path, streams: Sequence[tuple[str, Sequence[str], bool]]) -> None:
    with closing(SqliteStore.open(path, ticking_clock())) as store:
        for name, texts, closes in streams:
            drafts = [Draft("Happened", n, t, n - 1 or None) for n, t in enumerate(texts, 1)]
            store.commit([Append(name, 0, drafts, closes)])


def everything(reader: SqliteReader) -> dict[str, Any]:
    return {
        "identity": reader.identity,
        "tip": reader.tip(),
        "records": list(reader.read_all()),
        "open": reader.open_streams(),
        "streams": reader.streams(),
        "archived": list(reader.archived_streams()),
        "ranges": [r for n in range(1, 100) if (r := reader.archived_range(n)) is not None],
    }


def export(reader: SqliteReader) -> bytes:
    out = io.BytesIO()
    write_jsonl(reader, out)
    return out.getvalue()


@given(streams=st.lists(STREAMS, max_size=6, unique_by=lambda s: s[0]), archived=st.integers(0, 6))
def test_an_export_imported_is_the_same_log_and_is_exported_alike(
    streams: Sequence[tuple[str, Sequence[str], bool]], archived: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "log", streams[:archived])
        moved = compact(folder / "log", folder / "archive", "9999")
        write(folder / "log", streams[archived:])
        numbers = itertools.count()
        for path in [folder / "log", *([moved.archive] if moved.archive else [])]:
            with open_log(path) as reader:
                before, lines = everything(reader), export(reader)
            again = folder / f"again-{next(numbers)}"

            import_jsonl(io.BytesIO(lines), "the export", again)

            with open_log(again) as reader:
                assert everything(reader) == before
                assert export(reader) == lines
                assert len(list(reader.verified())) == len(before["records"])
                reader.check_file()
