"""`replay import`, `redact` and `salvage` as a person runs them."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from events.archive import compact, open_log
from events.sqlite import SqliteReader
from replay.jsonl import write_jsonl
from tests.integration.test_replay_cli import (
    KEPT,
    ROOT,
    good,
    imported_by,
    living,
    night,
    refused,
    replay,
)
from tests.samples.edited import altered, rewrite
from tests.samples.make_sample import Run

__all__ = ["living", "night"]

TOAD = Run("brave-toad")


@pytest.fixture
def log(night: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(night / "events.sqlite", tmp_path / "log.sqlite"))


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.iterdir()
    }


# --- import --------------------------------------------------------------------------------


@pytest.fixture
def exported(log: Path, tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    with closing(SqliteReader.open(log)) as reader, path.open("wb") as file:
        write_jsonl(reader, file)
    return path


def test_import_makes_the_same_log_again(log: Path, exported: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.sqlite"

    assert good("import", exported, "-o", new) == f"imported  196 records into {new}\n"

    assert good("list", "--json", new) == good("list", "--json", log)
    assert good("verify", new).startswith("sound  196 records, 12 submissions, 82 decisions")
    assert stat.S_IMODE(new.stat().st_mode) == 0o600


def test_import_reads_gzip_from_the_standard_input(exported: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.sqlite"
    done = subprocess.run(
        [sys.executable, "-m", "replay", "import", "-", "-o", new],
        cwd=ROOT,
        input=gzip.compress(exported.read_bytes()),
        capture_output=True,
        check=True,
    )

    assert done.stderr == b""
    assert good("verify", new).startswith("sound  196 records")


def test_import_says_what_is_wrong_by_line_and_field(exported: Path, tmp_path: Path) -> None:
    lines = exported.read_bytes().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines, 1) if b'"InfrastructureResolved"' in line)
    lines[number - 1] = lines[number - 1].replace(b'"process"', b'"docker"')
    exported.write_bytes(b"".join(lines))
    new = tmp_path / "new.sqlite"

    said = refused(3, "import", exported, "-o", new)

    assert said.startswith(
        f"pluperfect replay: {exported}, line {number}: `hash` does not fit: altered"
    )
    assert len(said.splitlines()) == 1
    assert not new.exists()


def test_import_never_replaces_anything(exported: Path, log: Path) -> None:
    before = log.read_bytes()

    assert f"{log} is there already" in refused(4, "import", exported, "-o", log)
    assert log.read_bytes() == before


def test_import_of_a_file_that_is_missing_ends_in_a_line(tmp_path: Path) -> None:
    said = refused(3, "import", tmp_path / "none", "-o", tmp_path / "new")

    assert said == f"pluperfect replay: can't read {tmp_path}/none: No such file or directory\n"


# --- redact --------------------------------------------------------------------------------

TELLING = (
    "lynx", "toad", "heron", "otter", "mole", "crane", "newt", "bear", "ant", "日本", "batch-7",
    "reports", "nightly", "prefect.example", "5d41402abc4b2a76",
)  # fmt: skip


def test_redact_leaves_nothing_that_tells_whose_log_it_is(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out" / "copy.sqlite"
    copy.parent.mkdir()

    assert good("redact", log, "-o", copy) == f"redacted  196 records into {copy}\n"

    assert [path.name for path in copy.parent.iterdir()] == ["copy.sqlite"]
    content = copy.read_bytes().decode(errors="replace")
    for word in TELLING:
        assert not re.search(rf"(?<![a-z]){word}(?![a-z])", content), word
    with open_log(log) as reader:
        ids = set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", "".join(
            [str(reader.log_id), *(f"{r.stream} {r.data}" for r in reader.read_all())]
        )))  # fmt: skip
    assert len(ids) > 60
    for each in ids:
        assert each not in content
        assert each.replace("-", "") not in content


def test_a_redacted_copy_verifies_and_tells_the_same_story(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    good("redact", log, "-o", copy)

    assert good("verify", copy).startswith("sound  196 records, 12 submissions, 82 decisions")
    kept = ("ordinal", "attempt", "state", "open", "began", "ended", "seconds", "records",
            "recoveries", "waits", "waits_seconds", "exit_code", "owed", "states")  # fmt: skip
    before, after = (
        [json.loads(line) for line in good("list", "--json", path).splitlines()]
        for path in (log, copy)
    )
    assert [list(each) for each in before] == [list(each) for each in after]
    for one, other in zip(before, after, strict=True):
        for name in kept:
            assert one.get(name) == other.get(name), name
    failed = next(each for each in after if "resolve" in json.dumps(each) and not each["open"])
    told = good("show", copy, failed["stream"])
    assert "to resolve: the deployment's infrastructure document" in told
    assert "does not exist; choose another one for the deployment, or give it none" in told


def names_in(path: Path) -> list[str]:
    return [json.loads(line)["run_name"] for line in good("list", "--json", path).splitlines()]


def test_without_a_key_file_nobody_can_tell_that_two_copies_are_of_one_log(
    log: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        good("redact", log, "-o", tmp_path / name)

    assert not {*names_in(tmp_path / "one")} & {*names_in(tmp_path / "two")}


def test_with_a_key_file_several_copies_have_the_same_names(log: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    for name in ("one", "two"):
        good("redact", log, "-o", tmp_path / name, "--key-file", key)

    assert names_in(tmp_path / "one") == names_in(tmp_path / "two")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == 32
    key.write_bytes(b"short")
    said = refused(2, "redact", log, "-o", tmp_path / "three", "--key-file", key)
    assert "a key has 32 bytes" in said
    assert not (tmp_path / "three").exists()


def test_a_copy_of_a_suspicious_log_is_found_out_at_the_same_place(
    log: Path, tmp_path: Path
) -> None:
    rewrite(log, altered("LaunchRequested", command=["/bin/rm", "-rf"]), rechain=True)
    copy = tmp_path / "copy.sqlite"
    good("redact", log, "-o", copy)

    before, after = (json.loads(replay("verify", "--json", p).stdout) for p in (log, copy))

    for name in ("kind", "position", "type", "version"):
        assert before["divergence"][name] == after["divergence"][name]
    assert [f["path"] for f in before["divergence"]["fields"]] == [
        f["path"] for f in after["divergence"]["fields"]
    ]


def test_redact_refuses_a_damaged_log_for_its_copy_would_hide_that(
    log: Path, tmp_path: Path
) -> None:
    rewrite(log, altered("LaunchRequested", name="evil"), rechain=False)

    said = refused(3, "redact", log, "-o", tmp_path / "copy")

    assert "is damaged at position 19: altered" in said
    assert not (tmp_path / "copy").exists()


def test_redact_refuses_what_it_can_not_read_and_names_the_position(
    log: Path, tmp_path: Path
) -> None:
    rewrite(log, altered("CommandEnded", exit_code="secret"), rechain=True)

    said = refused(3, "redact", log, "-o", tmp_path / "copy")

    assert re.search(r"position 56 \(stream .*\) can't be redacted", said)
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "copy").exists()


def test_an_archive_and_the_log_it_left_are_redacted_alike(log: Path, tmp_path: Path) -> None:
    moved = compact(log, tmp_path / "archive", "9999")
    assert moved.archive is not None
    for path, name in ((log, "log"), (moved.archive, "archived")):
        good("redact", path, "-o", tmp_path / name, "--key-file", tmp_path / "key")

    said = good("verify", tmp_path / "log")
    assert "sound" in said
    assert "of this log kept elsewhere" in said
    assert "sound" in good("verify", tmp_path / "archived")
    with open_log(tmp_path / "log") as here, open_log(tmp_path / "archived") as there:
        archived = {each.stream for each in here.archived_streams()}
        assert archived == {*there.streams()}
        assert here.log_id == there.log_id


def test_no_agent_goes_on_with_a_redacted_copy(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "state" / "events.sqlite"
    copy.parent.mkdir()
    good("redact", log, "-o", copy)

    done = subprocess.run(
        [sys.executable, "-m", "agent", "start", "-q", "default", "--state", copy.parent],
        cwd=ROOT,
        env=os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode != 0
    assert "it is a redacted copy of a log, for reading only" in done.stderr
    assert "Traceback" not in done.stderr


# --- salvage -------------------------------------------------------------------------------


def page_with(log: Path, position: int) -> int:
    """Return the page of the file that holds a record."""
    leaves = (
        "SELECT pageno, sum(ncell) OVER (ORDER BY path) FROM dbstat"
        " WHERE name = 'records' AND pagetype = 'leaf' ORDER BY path"
    )
    with closing(apsw.Connection(f"file:{log}?immutable=1", 0x41)) as connection:
        return next(int(page) for page, last in connection.execute(leaves) if last >= position)


def overwrite(log: Path, *pages: int) -> None:
    with log.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * 4096)
            file.write(bytes(4096))


def test_salvage_of_a_sound_log_says_so_and_writes_nothing(log: Path, tmp_path: Path) -> None:
    said = good("salvage", log, "-o", tmp_path / "new")

    assert said == "sound  196 records, none is lost; nothing to salvage\n"
    assert not (tmp_path / "new").exists()
    assert json.loads(good("salvage", "--json", log))["sound"]
    assert good("salvage", KEPT) == said


def test_salvage_says_what_is_lost_and_what_to_look_after(log: Path) -> None:
    ant = Run("unlucky-ant", "reports").stream
    with closing(apsw.Connection(str(log))) as connection:
        connection.execute("DROP TRIGGER records_are_never_changed")
        connection.execute("UPDATE records SET type = 'X' WHERE stream = ? AND version > 1", (ant,))
    page = page_with(log, 27)
    overwrite(log, page)

    done = replay("salvage", log)

    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"damaged  \d+ of 196 records lost, \d+ intact", lines[0])
    assert lines[1] == "  intact up to position 26"
    assert f"  pages of the file that can't be read: {page}" in lines
    assert any(re.match(r"  27 to 40 +14 records  not found on any page", line) for line in lines)
    assert "to look after, at the server and on the host" in lines
    at = next(n for n, line in enumerate(lines) if line.startswith("  unlucky-ant"))
    assert "offered; versions 2 to 12 lost" in lines[at + 1]
    assert "if it is Pending at the server and nothing of it runs" in lines[at + 2]
    closed = lines[lines.index("closed, with a gap in what is known") :]
    assert any(line.startswith("  nightly-report") for line in closed)


def test_salvage_writes_what_is_intact_and_that_verifies(log: Path, tmp_path: Path) -> None:
    overwrite(log, page_with(log, 27))
    new = tmp_path / "new.sqlite"

    done = replay("salvage", log, "-o", new)

    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == f"written  182 records to {new}"
    verdict = good("verify", new).splitlines()
    assert verdict[0].startswith("sound  182 records")
    assert verdict[1].strip() == (
        "but 14 records (positions 27 to 40) were lost, and 2 streams checked up to there only"
    )
    told = json.loads(good("verify", "--json", new))
    assert (told["sound"], told["lost_records"], told["torn_streams"]) == (True, 14, 2)


def test_show_says_where_a_salvaged_stream_has_a_gap(log: Path, tmp_path: Path) -> None:
    with closing(apsw.Connection(str(log))) as connection:
        connection.execute("DROP TRIGGER records_are_never_changed")
        connection.execute(
            "UPDATE records SET type = 'X' WHERE stream = ? AND version IN (5, 6)", (TOAD.stream,)
        )
    assert replay("salvage", log, "-o", tmp_path / "new").returncode == 1

    lines = good("show", tmp_path / "new", "brave-toad").splitlines()

    gap = lines.index("── versions 5 to 6 are lost ──")
    assert "ProposalAnswered" in lines[gap - 1]
    assert "ResolutionFailed" in lines[gap + 1]
    assert "not legal" not in lines[gap + 1]


def test_salvage_for_machines(log: Path, tmp_path: Path) -> None:
    overwrite(log, page_with(log, 27))

    done = replay("salvage", "--json", log, "-o", tmp_path / "new")

    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["sound"], told["intact_records"], told["lost_records"]) == (False, 182, 14)
    assert told["lost"][0]["first"] == 27
    assert told["written"] == str(tmp_path / "new")
    assert {each["closed"] for each in told["torn"]} == {True}


def test_salvage_touches_nothing_also_where_it_may_not(night: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    folder.mkdir()
    log = Path(shutil.copy(night / "events.sqlite", folder / "events.sqlite"))
    overwrite(log, page_with(log, 27))
    (folder / "events.sqlite-wal").write_bytes(b"garbage" * 1000)
    before = fingerprint(folder)
    log.chmod(0o400)
    folder.chmod(0o500)
    try:
        done = replay("salvage", folder, "-o", tmp_path / "new")
        good("verify", tmp_path / "new")
    finally:
        folder.chmod(0o700)

    assert done.returncode == 1
    assert fingerprint(folder) == before


def test_a_log_that_is_being_written_is_sound(living: Path) -> None:
    for _ in range(5):
        assert good("salvage", living).startswith("sound  ")


def test_salvage_ends_in_a_line_when_there_is_no_log_or_no_place(log: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a log\n" * 1000)

    assert "not a SQLite file" in refused(3, "salvage", text)
    assert "no such file" in refused(3, "salvage", tmp_path / "none")
    overwrite(log, page_with(log, 27))
    assert "is there already" in refused(4, "salvage", log, "-o", text)
    assert "No such file or directory" in refused(4, "salvage", log, "-o", tmp_path / "no" / "new")


def test_these_commands_need_neither_the_daemon_nor_the_network(log: Path, tmp_path: Path) -> None:
    for command in ("redact", "salvage"):
        loaded = imported_by(command, log, "-o", tmp_path / command)
        assert not loaded & {"agent", "trio", "httpx", "h11", "anyio", "ssl", "pendulum"}


def test_a_copy_takes_whatever_a_log_may_hold(living: Path, tmp_path: Path) -> None:
    """While an agent writes, as much of the log as there was when it began."""
    good("redact", living, "-o", tmp_path / "copy")

    assert good("verify", tmp_path / "copy").startswith("sound  ")
