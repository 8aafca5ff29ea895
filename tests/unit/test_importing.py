"""What is wrong with an export is named by line and field, and nothing is written then."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import orjson
import pytest

from events.archive import compact
from events.copying import CompactedMeanwhile, CopyFailed
from events.sqlite import SqliteReader, SqliteStore
from replay import jsonl
from replay.importing import NotAnExport, import_jsonl
from replay.jsonl import write_jsonl
from tests.unit.log_fixtures import REPOSITORY, append, ticking_clock

Line = dict[str, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    with closing(SqliteStore.open(path, ticking_clock())) as store:
        store.commit([append("a", 0, 2, closes=True), append("b", 0, 2)])
    compact(path, tmp_path / "archive", "9999")
    return path


@pytest.fixture
def lines(path: Path) -> list[Line]:
    """A header, an archived range, two records, an archived stream, and the end."""
    with closing(SqliteReader.open(path)) as reader:
        out = io.BytesIO()
        write_jsonl(reader, out)
    return [orjson.loads(line) for line in out.getvalue().splitlines()]


def written(lines: list[Line]) -> io.BytesIO:
    return io.BytesIO(b"".join(orjson.dumps(line) + b"\n" for line in lines))


def refusal(file: io.BytesIO, folder: Path) -> str:
    before = sorted(folder.iterdir())
    with pytest.raises(NotAnExport) as caught:
        import_jsonl(file, "FILE", folder / "new")
    assert sorted(folder.iterdir()) == before, "nothing was written"
    return str(caught.value)


def changed(number: int, **fields: Any) -> Callable[[list[Line]], None]:
    def change(lines: list[Line]) -> None:
        line = lines[number - 1]
        inner = line if len(line) > 1 else next(iter(line.values()))
        inner |= fields

    return change


def without(number: int, field: str) -> Callable[[list[Line]], None]:
    return lambda lines: lines[number - 1].pop(field)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (changed(1, format="another"), "line 1: `log.format` is not 'pluperfect log'"),
        (changed(1, version=2), "line 1: it has version 2 of the format, and this release knows 1"),
        (changed(1, log_id="7"), "line 1: `log_id` is no UUID"),
        (changed(1, log_id="7" * 32), "line 2: `hash_before` is not the hash of the record before"),
        (changed(2, first=2), "line 2: `first` is 2, where 1 belongs"),
        (changed(2, last=0), "line 2: `last` comes before `first`"),
        (changed(2, hash_after="00" * 16), "line 3: `hash` does not fit"),
        (changed(3, position=4), "line 3: `position` is 4, where 3 belongs"),
        (changed(3, data={"n": 2}), "line 3: `hash` does not fit: altered"),
        (changed(3, version="1"), "line 3: `version` is no integer"),
        (changed(3, version=True), "line 3: `version` is no integer"),
        (changed(3, closes=0), "line 3: `closes` is neither true nor false"),
        (changed(3, schema=0), "line 3: `schema` counts from 1"),
        (changed(3, monotonic_ns=2**63), "line 3: `monotonic_ns` is no integer"),
        (changed(3, data_text="{}"), "line 3: a record has either `data` or `data_text`"),
        (changed(3, more=1), "line 3: `more` is no field of a record"),
        (changed(4, hash="xy"), "line 4: `hash` is no hash of 32 hex digits"),
        (without(4, "stream"), "line 4: `stream` is missing"),
        (without(4, "cause"), "line 4: `cause` is missing"),
        (changed(5, version=None), "line 5: `version` is missing"),
        (changed(6, records=3), "line 6: `records` is 3, and 2 came"),
        (changed(6, hash="00" * 16), "line 6: `position` and `hash` are not those of the last"),
        (lambda lines: lines.pop(), "line 6: the file ends here; it was cut off"),
        (lambda lines: lines.clear(), "line 1: the file ends here"),
        (lambda lines: lines.pop(0), "line 1: an exported log begins with a line `log`"),
        (lambda lines: lines.pop(1), "line 2: `position` is 3, where 1 belongs"),
        (lambda lines: lines.insert(4, lines[3]), "line 5: `position` is 4, where 5 belongs"),
        (lambda lines: lines.append(lines[-1]), "line 7: more follows after the last line"),
        (lambda lines: lines.insert(5, lines[4]), "line 6: `stream` a does not come after a"),
        (lambda lines: lines.insert(2, {"news": {}}), "line 3: this release knows no line `news`"),
        (lambda lines: lines.insert(2, {"end": 1}), "line 3: `end` is no JSON object"),
        (lambda lines: lines.insert(2, {}), "line 3: it is neither a record nor any other line"),
        (
            lambda lines: lines.insert(1, {"torn_stream": {"stream": "b", "version": 1}}),
            "line 2: `torn_stream` is for copies only",
        ),
    ],
)
def test_what_is_wrong_is_named_by_line_and_field(
    lines: list[Line], tmp_path: Path, change: Callable[[list[Line]], None], says: str
) -> None:
    change(lines)

    assert f"FILE, {says}" in refusal(written(lines), tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\x00\xff", "it is not JSON"),
        (b'{"log": ', "it is not JSON"),
        (b"[1]\n", "it is no JSON object"),
        (b'"log"\n', "it is no JSON object"),
        (b"\x1f\x8b\x08", "it can't be unpacked"),
    ],
)
def test_what_is_no_export_at_all_is_refused(text: bytes, says: str, tmp_path: Path) -> None:
    assert f"FILE, line 1: {says}" in refusal(io.BytesIO(text), tmp_path)


def test_an_export_cut_off_anywhere_is_noticed(lines: list[Line], tmp_path: Path) -> None:
    whole = written(lines).getvalue()
    for length in range(len(whole) - 2):  # without its last line break it is still whole
        refusal(io.BytesIO(whole[:length]), tmp_path)
    packed = gzip.compress(whole)
    for length in range(2, len(packed), 7):
        refusal(io.BytesIO(packed[:length]), tmp_path)


def test_what_is_there_already_is_never_replaced(lines: list[Line], tmp_path: Path) -> None:
    there = tmp_path / "new"
    there.write_text("mine")
    with pytest.raises(CopyFailed, match="new is there already"):
        import_jsonl(written(lines), "FILE", there)
    assert there.read_text() == "mine"


def test_the_companions_of_an_older_log_are_not_taken_over(
    lines: list[Line], tmp_path: Path
) -> None:
    """SQLite would put what is in them into the new log."""
    (tmp_path / "new-wal").write_text("another log's")
    with pytest.raises(CopyFailed, match="new-wal is there already"):
        import_jsonl(written(lines), "FILE", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_log_that_appears_meanwhile_is_not_replaced(
    lines: list[Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def appear(source: Path, target: Path) -> None:
        target.write_text("mine")
        link(source, target)

    monkeypatch.setattr("events.copying.os.link", appear)
    with pytest.raises(CopyFailed, match="File exists"):
        import_jsonl(written(lines), "FILE", tmp_path / "new")
    assert (tmp_path / "new").read_text() == "mine"


def test_a_file_system_without_links_will_do(
    lines: list[Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_source: Path, _target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr("events.copying.os.link", refuse)
    import_jsonl(written(lines), "FILE", tmp_path / "new")

    assert (tmp_path / "new").exists()


def test_an_imported_log_is_its_owners_alone_and_an_agent_can_go_on(
    lines: list[Line], tmp_path: Path
) -> None:
    new = tmp_path / "new"
    import_jsonl(written(lines), "FILE", new)

    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    with closing(SqliteStore.open(new, ticking_clock())) as store:
        assert store.open_streams() == ["b"]
        store.commit([append("b", 2)])
        assert len(list(store.verified())) == 3
    with closing(apsw.Connection(str(new))) as connection, pytest.raises(apsw.ConstraintError):
        connection.execute("DELETE FROM records")


def test_a_folder_that_is_missing_is_told(lines: list[Line], tmp_path: Path) -> None:
    with pytest.raises(CopyFailed, match="No such file or directory"):
        import_jsonl(written(lines), "FILE", tmp_path / "nowhere" / "new")


def test_a_log_compacted_while_it_is_exported_gives_no_whole_export(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteStore.open(path, ticking_clock())) as store:
        store.commit([append("b", 2, 1, closes=True), append("c", 0)])

    def compact_meanwhile(record: Any) -> Any:
        monkeypatch.undo()
        code = "import sys; from tests.unit.test_archive import *; squeeze(Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, str(path)], cwd=REPOSITORY, check=True)
        return line_of(record)

    line_of = jsonl._record_line
    monkeypatch.setattr(jsonl, "_record_line", compact_meanwhile)
    out = io.BytesIO()
    with closing(SqliteReader.open(path)) as reader, pytest.raises(CompactedMeanwhile):
        write_jsonl(reader, out)

    assert b'"end"' not in out.getvalue()


def test_what_is_appended_while_it_is_exported_is_left_out(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = SqliteStore.open(path, ticking_clock())

    def append_meanwhile(record: Any) -> Any:
        store.commit([append(f"more {record.position}", 0)])
        return line_of(record)

    line_of = jsonl._record_line
    monkeypatch.setattr(jsonl, "_record_line", append_meanwhile)
    out = io.BytesIO()
    with closing(store), closing(SqliteReader.open(path)) as reader:
        write_jsonl(reader, out)

    assert import_jsonl(io.BytesIO(out.getvalue()), "FILE", tmp_path / "new") == 2
