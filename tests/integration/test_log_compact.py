"""`pluperfect log compact`, as its user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.infrastructure.keeper import EXEC
from events.archive import open_log
from events.codec import decode
from events.lock import LogLock
from events.submission import fold

SAMPLE = Path(__file__).parents[1] / "samples" / "v0.1.0.sqlite"
PLUPERFECT = Path(sys.executable).parent / "pluperfect"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder whose log is some days old, with a launch folder for each submission."""
    (tmp_path / "events.sqlite").write_bytes(SAMPLE.read_bytes())
    for key in keys(tmp_path):
        (tmp_path / "spool" / key).mkdir(parents=True)
    return tmp_path


def keys(state: Path) -> Sequence[str]:
    with open_log(state / "events.sqlite") as reader:
        streams = [s for s in reader.streams() if "/" in s and not reader.is_archived(s)]
        return [fold(map(decode, reader.read_stream(s))).run.launch_key for s in streams]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(PLUPERFECT), *map(str, words)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "PLUP"))}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_old_submissions_move_and_everything_can_still_be_read(state: Path) -> None:
    listed = run("replay", "list", "--json", state).stdout.splitlines()

    done = run("log", "compact", "--older-than", "0m", "--state", state)

    assert done.returncode == 0, done.stderr
    assert "submissions" in done.stdout
    (archive,) = (state / "archive").iterdir()
    for log in (state / "events.sqlite", archive):
        verified = run("replay", "verify", log)
        assert (verified.returncode, verified.stdout[:5]) == (0, "sound")
        assert "kept elsewhere" in verified.stdout
    in_log = run("replay", "list", "--json", state).stdout.splitlines()
    in_archive = run("replay", "list", "--json", archive).stdout.splitlines()
    assert in_archive
    streams = [json.loads(line)["stream"] for line in listed]
    assert sorted(json.loads(x)["stream"] for x in in_log + in_archive) == sorted(streams)


def test_launch_folders_of_what_moved_are_deleted_and_others_stay(state: Path) -> None:
    everything = set(keys(state))
    done = run("log", "compact", "--older-than", "0m", "--state", state, "--json")

    told = json.loads(done.stdout)
    left = set(os.listdir(state / "spool"))
    assert left == set(keys(state)) & everything
    assert told["folders_deleted"] == len(everything - left) > 0
    assert told["folders_kept"] == []


def test_a_launch_folder_that_is_not_clear_is_kept_and_said(state: Path) -> None:
    for folder in (state / "spool").iterdir():
        (folder / EXEC).write_text("nonsense")

    done = run("log", "compact", "--older-than", "0m", "--state", state)

    assert done.returncode == 0
    assert "kept the launch folder" in done.stdout


def test_whoever_asks_the_log_for_a_run_that_moved_is_told_where_it_is(state: Path) -> None:
    run("log", "compact", "--older-than", "0m", "--state", state)
    (archive,) = (state / "archive").iterdir()
    moved = json.loads(run("replay", "list", "--json", archive).stdout.splitlines()[0])["stream"]

    asked = run("replay", "show", state, moved)

    assert asked.returncode == 2
    assert archive.name in asked.stderr
    assert run("replay", "show", archive, moved).returncode == 0


def test_nothing_old_enough_is_said(state: Path) -> None:
    done = run("log", "compact", "--older-than", "36500d", "--state", state)
    assert (done.returncode, done.stdout) == (0, "nothing is old enough; nothing was moved\n")
    assert not (state / "archive").exists()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--older-than", "soon"], 2, "30d"),
        ([], 2, "--older-than"),
        (["--older-than", "1d", "--state", "/nowhere"], 3, "no such file"),
    ],
)
def test_bad_input_gets_one_clear_line(words: Sequence[str], status: int, said: str) -> None:
    done = run("log", "compact", *words)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_compaction_is_refused(state: Path) -> None:
    lock = LogLock.take(state / "events.sqlite.compact", "now")
    try:
        done = run("log", "compact", "--older-than", "0m", "--state", state)
    finally:
        lock.release()
    assert done.returncode == 3
    assert "in use" in done.stderr
