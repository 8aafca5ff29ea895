"""`replay report` as a person runs it: what it writes where, and how it says so."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

from tests.integration.reports import report
from tests.integration.test_replay_cli import replay


def test_a_line_says_what_was_written(night_log: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"

    done = replay("report", night_log, "-o", output)

    assert (done.returncode, done.stderr) == (0, "")
    size = f"{output.stat().st_size / 1e3:.0f} kB"
    assert done.stdout == (f"{output}: 12 submissions, 189 events, {size}; open it in a browser\n")


def test_for_machines_it_says_the_same_as_an_object(night_log: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"

    done = replay("report", night_log, "-o", output, "--json")

    assert json.loads(done.stdout) == {
        "path": str(output),
        "bytes": output.stat().st_size,
        "submissions": 12,
        "events": 189,
        "left_out": 0,
    }


def test_the_page_can_go_to_the_standard_output(night_log: Path, tmp_path: Path) -> None:
    done = replay("report", night_log, "-o", "-")

    assert done.stdout.encode() == report(night_log, tmp_path / "report.html").read_bytes()


def test_only_the_newest_are_shown_where_there_are_too_many(
    night_log: Path, tmp_path: Path
) -> None:
    done = replay("report", night_log, "-o", tmp_path / "report.html", "--last", "5")

    assert done.returncode == 0
    assert ": 5 submissions, " in done.stdout
    assert done.stderr == (
        "pluperfect replay: 7 older submissions are left out; --last N shows more\n"
    )


def test_a_file_that_is_there_is_replaced_whole_and_is_its_owners_alone(
    night_log: Path, tmp_path: Path
) -> None:
    output = tmp_path / "report.html"
    output.write_text("what was there before")
    output.chmod(0o644)

    report(night_log, output)

    assert output.read_bytes().startswith(b"<!DOCTYPE html>")
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [output]


def test_a_place_that_can_not_be_written_ends_in_a_line_and_changes_nothing(
    night_log: Path, tmp_path: Path
) -> None:
    done = replay("report", night_log, "-o", tmp_path / "missing" / "report.html")

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        f"pluperfect replay: {tmp_path}/missing/report.html can't be written:"
        " No such file or directory\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_written_to_and_not_replaced(night_log: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(
        [sys.executable, "-m", "replay", "report", night_log, "-o", pipe], stdout=subprocess.DEVNULL
    ) as process:
        page = pipe.read_bytes()
        process.wait(60)

    assert page.startswith(b"<!DOCTYPE html>")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_span_that_ends_before_it_begins_is_refused(night_log: Path, tmp_path: Path) -> None:
    done = replay("report", night_log, "-o", tmp_path / "r.html", "--since", "1h", "--until", "2h")

    assert done.returncode == 2
    assert done.stderr == "pluperfect replay: --since is after --until: nothing can be between\n"


def test_without_an_output_it_says_what_is_missing(night_log: Path) -> None:
    done = replay("report", night_log)

    assert done.returncode == 2
    assert "Missing option '-o'" in done.stderr
