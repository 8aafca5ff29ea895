"""`replay export` as a person runs it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from events.archive import compact
from events.sqlite import SqliteStore
from tests.samples.edited import altered, rewrite
from tests.samples.make_sample import Recorder, Run, SettableClock, good_run, tell_everything

ROOT = Path(__file__).parents[2]
OTTER = Run("ancient-otter")
FORMATS = ("chrome", "otlp", "csv", "mermaid")

Finished = subprocess.CompletedProcess[str]


def export(*arguments: object, **options: Any) -> Finished:
    done = subprocess.run(
        [sys.executable, "-m", "replay", "export", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"TZ": "UTC"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **({"stdout": subprocess.PIPE} | options),
    )
    assert "Traceback" not in done.stderr
    return done


def good(*arguments: object) -> str:
    done = export(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(status: int, *arguments: object) -> str:
    done = export(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    return done.stderr


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory whose log tells every story there is. Not to be changed."""
    state = tmp_path_factory.mktemp("state")
    clock = SettableClock()
    store = SqliteStore.open(state / "events.sqlite", clock)
    tell_everything(Recorder(store, clock))
    store.close()
    return state


@pytest.fixture
def log(night: Path, tmp_path: Path) -> Path:
    """A copy of that log, to be changed."""
    return Path(shutil.copy(night / "events.sqlite", tmp_path / "copy.sqlite"))


def names_in_csv(text: str) -> list[str]:
    return [row["run_name"] for row in csv.DictReader(io.StringIO(text, newline=""))]


def submissions_in_trace(text: str) -> list[str]:
    events = json.loads(text)["traceEvents"]
    return [event["name"] for event in events if event.get("cat") == "submission"]


# --- to the standard output ------------------------------------------------------------------


def test_each_format_is_written_to_the_standard_output(night: Path) -> None:
    assert len(submissions_in_trace(good("-f", "chrome", night))) == 12
    lines = good("-f", "otlp", night).splitlines()
    assert [list(json.loads(line)) for line in lines] == [["resourceSpans"]]
    assert names_in_csv(good("-f", "csv", night))[0] == "quiet-lynx"
    assert good("-f", "csv", "--events", night).count("\n") == 197
    assert "stateDiagram-v2" in good("-f", "mermaid", "--run", "quiet-lynx", night)


def test_one_run_is_exported_with_all_its_submissions(night: Path) -> None:
    assert names_in_csv(good("-f", "csv", "--run", OTTER.name, night)) == [OTTER.name] * 2
    assert len(submissions_in_trace(good("-f", "chrome", "--run", "ancient-otter/2", night))) == 1
    assert len(good("-f", "otlp", "--run", OTTER.flow_run_id, night).splitlines()) == 1


def test_two_exports_that_share_a_moment_have_every_submission_once(night: Path) -> None:
    moment = "2026-11-24T02:00:58"

    earlier = names_in_csv(good("-f", "csv", "--until", moment, night))
    later = names_in_csv(good("-f", "csv", "--since", moment, night))

    assert earlier + later == names_in_csv(good("-f", "csv", night))
    assert later[0] == "lucky-newt"
    drawn = submissions_in_trace(good("-f", "chrome", "--since", moment, night))
    assert drawn == later


def test_the_agents_own_records_are_in_the_table_of_events(night: Path) -> None:
    told = good("-f", "csv", "--events", "--run", "agent", night)

    rows = list(csv.DictReader(io.StringIO(told, newline="")))
    assert len(rows) == 7
    assert {row["family"] for row in rows} == {"notice"}


# --- to a file -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_has_what_the_standard_output_would_have(
    night: Path, tmp_path: Path, name: str
) -> None:
    options = ("-f", name, "--run", "hungry-bear")
    target = tmp_path / "out"

    said = good(*options, "-o", target, night)

    expected = subprocess.run(
        [sys.executable, "-m", "replay", "export", *options, night],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    assert target.read_bytes() == expected
    assert said.startswith(f"{target}: {name}, {len(expected):,} bytes; open it with ")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_is_told_to_machines_as_an_object(night: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"

    said = json.loads(good("-f", "csv", "-o", target, "--json", night))

    assert said == {"format": "csv", "file": str(target), "bytes": target.stat().st_size}


def test_an_export_that_fails_leaves_the_file_that_was_there(log: Path, tmp_path: Path) -> None:
    target = tmp_path / "trace.json"
    target.write_text("of yesterday")
    content = bytearray(log.read_bytes())
    content[8 * 4096 : 20 * 4096] = b"\xff" * (12 * 4096)
    log.write_bytes(content)

    done = export("-f", "csv", "--events", "-o", target, log)

    assert done.returncode == 3
    assert "damaged" in done.stderr
    assert target.read_text() == "of yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.sqlite", "trace.json"]


def test_a_place_that_takes_nothing_is_said_in_a_line(night: Path, tmp_path: Path) -> None:
    said = refused(4, "-f", "csv", "-o", tmp_path / "nowhere" / "out", night)
    assert said.startswith(f"pluperfect replay: can't write {tmp_path}/nowhere/out: No such file")
    with open("/dev/full", "w") as full:
        done = export("-f", "csv", night, stdout=full)
    assert (done.returncode, done.stderr) == (
        4,
        "pluperfect replay: can't write the output: No space left on device\n",
    )


def test_a_device_is_written_to_and_a_link_stays_one(night: Path, tmp_path: Path) -> None:
    good("-f", "csv", "-o", "/dev/null", night)
    assert Path("/dev/null").is_char_device()
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)

    good("-f", "csv", "-o", link, night)

    assert link.is_symlink()
    assert names_in_csv(target.read_text())


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_the_log_itself_is_never_overwritten(log: Path, suffix: str) -> None:
    before = log.read_bytes()
    target = log.with_name(log.name + suffix)

    assert "is the log itself" in refused(2, "-f", "csv", "-o", target, log)

    assert log.read_bytes() == before


# --- what it refuses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-f", "mermaid"), "mermaid is of one submission: add --run"),
        (("-f", "mermaid", "--run", OTTER.name), "could be any of 2 submissions"),
        (("-f", "chrome", "--run", "agent"), "the agent's own notices are no run"),
        (("-f", "csv", "--run", "nobody"), "none has that name"),
        (("-f", "chrome", "--events"), "--events means nothing to chrome"),
        (("-f", "jsonl", "--since", "1h"), "--since/--until means nothing to jsonl"),
        (("-f", "csv", "--run", "x", "--since", "1h"), "--run or --since/--until, not both"),
        (("-f", "svg"), "'svg' is not one of"),
        ((), "Missing option '-f'"),
    ],
)
def test_what_makes_no_sense_is_refused(night: Path, options: Sequence[str], reason: str) -> None:
    assert reason in refused(2, *options, night)


# --- other logs ------------------------------------------------------------------------------


def test_an_archive_is_exported_as_a_log_is(log: Path, tmp_path: Path) -> None:
    archive = compact(log, tmp_path / "archive", "2026-11-24T02:05").archive
    assert archive is not None

    moved, kept = (names_in_csv(good("-f", "csv", each)) for each in (archive, log))

    assert (len(moved), kept) == (10, ["große-日本-run", "unlucky-ant"])
    assert len(submissions_in_trace(good("-f", "chrome", archive))) == 10
    assert "[*] --> DISCOVERED" in good("-f", "mermaid", "--run", "quiet-lynx", archive)


def test_a_log_is_exported_while_an_agent_writes_it(tmp_path: Path) -> None:
    path, clock = tmp_path / "events.sqlite", SettableClock()
    store = SqliteStore.open(path, clock)
    recorder = Recorder(store, clock)
    run = Run("first")
    for seconds, _run, observation in good_run(run, 1.0)[:3]:
        clock.seconds = seconds
        recorder.observe(run.stream, observation)

    told = {name: good("-f", name, "--run", "first", path) for name in FORMATS}

    assert submissions_in_trace(told["chrome"]) == ["first"]
    assert "note right of LAUNCHING" in told["mermaid"]
    store.close()


def test_an_empty_log_is_exported_as_nothing_that_is_still_valid(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    SqliteStore.open(path).close()

    assert submissions_in_trace(good("-f", "chrome", path)) == []
    assert good("-f", "otlp", path) == ""
    assert names_in_csv(good("-f", "csv", path)) == []


def test_text_from_a_log_can_neither_be_calculated_nor_move_the_cursor(log: Path) -> None:
    rewrite(log, altered("SubmissionFailed", error='=HYPERLINK("x")\x1b[2J'), rechain=True)

    told = {name: good("-f", name, "--run", "brave-toad", log) for name in FORMATS}

    assert not any("\x1b" in text for text in told.values())
    (row,) = csv.DictReader(io.StringIO(told["csv"], newline=""))
    assert row["ending_reason"] == '\'=HYPERLINK("x")\\x1b[2J'


def test_an_export_needs_neither_the_daemon_nor_the_network(night: Path) -> None:
    probe = (
        "import sys\nfrom replay.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    for name in FORMATS:
        options = ["export", "-f", name, "--run", "quiet-lynx", str(night)]
        done = subprocess.run(
            [sys.executable, "-c", probe, *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert not set(done.stderr.split()) & {"agent", "trio", "httpx", "h11", "ssl"}
