"""`python -m replay step` as a person uses it, in a real terminal and without one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pyte
import pytest

from events.sqlite import SqliteStore
from tests.integration.test_replay_cli import ROOT, good, imported_by, refused, replay
from tests.samples.edited import altered, rewrite
from tests.samples.make_sample import (
    Recorder,
    Run,
    SettableClock,
    failed_launch,
    write_night,
)

VOLE = Run("vexed-vole", "reports")
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that tells every story there is. Not to be changed."""
    path = tmp_path_factory.mktemp("night") / "events.sqlite"
    write_night(path)
    return path


# --- without a terminal ------------------------------------------------------------------------


def test_without_a_terminal_the_steps_come_one_after_the_other(night: Path) -> None:
    told = good("step", night, "lucky-newt").split("\n\n")

    assert len(told) == 25
    lines = told[11].splitlines()
    assert lines[0] == (
        "step 12 of 24 · position 110 · 2026-11-24 02:01:00.100 · with the step before"
        " · 2.10 s from the beginning"
    )
    assert lines[1] == "EVENT  LaunchVoided  was decided on EvidenceFound at 109"
    assert "STATE  launching → RESOLVING" in lines
    assert "DECIDED  the same today  LaunchVoided" in lines
    assert lines[-2:] == [
        "OWED  to read the run's state at the server",
        "  before  to examine the evidence of the launch",
    ]


def test_it_can_begin_at_a_position_or_a_time(night: Path) -> None:
    whole = good("step", night, "lucky-newt")
    late = good("step", night, "lucky-newt", "--position", 110)

    assert late.startswith("step 12 of 24")
    assert whole.endswith(late)
    at = good("step", night, "lucky-newt", "--at", "2026-11-24T02:01:00.150", TZ="UTC")
    assert at.startswith("step 14 of 24")


def test_for_machines_each_step_is_an_object(night: Path) -> None:
    steps = [json.loads(line) for line in good("step", "--json", night, "lucky-newt").splitlines()]

    assert [s["number"] for s in steps] == [*range(1, 25)]
    voided = steps[11]
    assert (voided["type"], voided["state_before"], voided["state_after"]) == (
        *("LaunchVoided", "launching", "resolving"),
    )
    assert {"path": "launch.name", "before": "lucky-newt", "after": None} in voided["diff"]
    assert (voided["owed_before"], voided["owed_after"]) == (["examine"], ["read_run"])
    assert (voided["decided_on"], voided["decided_again"]["same"]) == (109, True)
    assert [d["type"] for d in voided["decided"]] == ["LaunchVoided"]


def test_a_decision_that_would_be_another_today_is_shown(night: Path, tmp_path: Path) -> None:
    log = tmp_path / "copy.sqlite"
    log.write_bytes(night.read_bytes())
    rewrite(log, altered("EffectDeferred", delay_seconds=9.0), rechain=True)

    told = good("step", log, "slow-mole")

    assert "DECIDED  otherwise today  EffectDeferred" in told
    assert "    $.delay_seconds  recorded 9.0, today 1.0" in told


def test_the_agents_own_notices_are_stepped_through_as_well(night: Path) -> None:
    told = good("step", night, "agent")

    assert told.count("EVENT  AgentStarted  happened to the agent") == 3
    assert "STATE" not in told


def test_an_unknown_run_ends_in_a_line(night: Path) -> None:
    assert "none has that name" in refused(2, "step", night, "nobody")
    assert replay("step").returncode == 2


# --- in a terminal -----------------------------------------------------------------------------


SHELL = """
import fcntl, os, signal, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = subprocess.Popen(sys.argv[1:], process_group=0)
os.tcsetpgrp(0, child.pid)
status = child.wait()
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""
"""What a shell does to run a program in the foreground of its terminal."""


@attrs.define
class Terminal:
    """A terminal with a program in it, whose screen is what a person would see."""

    process: subprocess.Popen[bytes]
    master: int
    slave: int
    before: list[Any]
    screen: pyte.Screen
    stream: pyte.ByteStream
    raw: bytearray = attrs.field(factory=bytearray)

    def press(self, keys: str | bytes) -> None:
        os.write(self.master, keys.encode() if isinstance(keys, str) else keys)

    def until(self, wanted: Callable[[list[str]], bool]) -> list[str]:
        """Wait until the screen is as wanted, and drawn to its end; return its lines."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self._read() or not wanted(self.lines):
            assert time.monotonic() < end, "\n".join(self.lines)
        return self.lines

    def shows(self, text: str) -> list[str]:
        return self.until(lambda lines: any(text in line for line in lines))

    def ended(self) -> int:
        """Wait for its end; return its status."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < end
            self._read()
        self._read()
        return self.process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to the program (and not to its shell)."""
        os.kill(os.tcgetpgrp(self.master), number)

    @property
    def lines(self) -> list[str]:
        # A wide character takes two cells, of which the second is empty.
        return [line.rstrip() for line in self.screen.display]

    @property
    def is_restored(self) -> bool:
        """Whether modes, cursor and screen are as they were found."""
        same = termios.tcgetattr(self.slave) == self.before
        last = self.raw.rfind(b"\x1b[?1049")
        return same and self.raw[last:].startswith(b"\x1b[?1049l") and b"\x1b[?25h" in self.raw

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        set_size(self.slave, columns, lines)  # The kernel tells the program.

    def _read(self) -> bool:
        """Take what the program has written; tell whether there was anything."""
        if not select.select([self.master], [], [], 0.1)[0]:
            return False
        data = os.read(self.master, 65536)
        self.raw += data
        self.stream.feed(data)
        return True


def state_of(pid: int) -> str:
    """Return the letter that the kernel has for what a process is doing; T: it is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def set_size(terminal: int, columns: int, lines: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@contextlib.contextmanager
def terminal(
    *arguments: object, columns: int = 80, lines: int = 24, **environment: str
) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    set_size(slave, columns, lines)
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        [sys.executable, "-c", SHELL, sys.executable, "-m", "replay", "step", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"TZ": "UTC", "TERM": "xterm-256color"} | environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    screen = pyte.Screen(columns, lines)
    opened = Terminal(process, master, slave, before, screen, pyte.ByteStream(screen))
    try:
        yield opened
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)
        with contextlib.suppress(OSError):
            os.close(slave)


def test_keys_move_through_the_story_and_q_gives_the_terminal_back(night: Path) -> None:
    with terminal(night, "lucky-newt") as tty:
        tty.shows("step 1/24")
        assert tty.lines[0].startswith("lucky-newt  f3d66aed/1  EXITED  exit 0")
        for keys, number in [
            *((b"\x1b[C", 2), (b" ", 3), (b"\x1b[D", 2), (b"o", 4), (b"s", 5), (b"\x1b[6~", 15)),
            *((b"g", 1), (b"r", 9), (b"110\r", 12), (b"G", 24), (b"p", 23), (b"D", 22)),
        ]:
            tty.press(keys)
            tty.shows(f"step {number}/24")
        tty.press("q")

        assert tty.ended() == 0
        assert tty.is_restored


def test_a_step_shows_event_state_decision_and_what_is_owed_side_by_side(night: Path) -> None:
    with terminal(night, "lucky-newt", "--position", 110, columns=140, lines=40) as tty:
        lines = tty.shows("step 12/24")

        rows = [next(line for line in lines if text in line) for text in ("EVENT", "DECIDED")]
        assert rows[0].split("│")[1].strip().startswith("EVENT  LaunchVoided")
        assert rows[0].split("│")[2].strip() == "STATE  launching → RESOLVING"
        assert "the same today" in rows[1].split("│")[1]
        assert any("- launch.name  lucky-newt" in line for line in lines)
        assert any("OWED  to read the run's state at the server" in line for line in lines)


@pytest.mark.parametrize(("columns", "lines"), [(60, 15), (120, 40), (40, 12)])
def test_another_size_of_the_window_redraws(night: Path, columns: int, lines: int) -> None:
    with terminal(night, "lucky-newt", "--position", 110) as tty:
        tty.shows("step 12/24")
        tty.resize(columns, lines)

        shown = tty.until(lambda rows: rows[2] == "─" * columns and "OWED" in "\n".join(rows))
        assert "step 12/24" in shown[0]
        assert "quit" in shown[-1] or columns < 60


def test_help_and_search_and_all_fields(night: Path) -> None:
    with terminal(night, "hungry-bear") as tty:
        tty.shows("step 1/24")
        tty.press("?")
        tty.shows("decision that would be another today")
        tty.press("x")
        tty.shows("OWED")
        tty.press("/refused")
        tty.shows("look for: refused")
        tty.press("\r")
        tty.shows("step 17/24")
        tty.press("n")
        tty.shows("step 18/24")
        tty.press("f")
        tty.shows("caused by version")
        tty.press(b"\x1b")
        tty.shows("f back")
        tty.press(b"\x1b")

        assert tty.ended() == 0
        assert tty.is_restored


def test_wide_characters_keep_their_columns(night: Path) -> None:
    with terminal(night, "große-日本-run") as tty:
        lines = tty.shows("step 1/12")

        assert lines[0].replace(" ", "").startswith("große-日本-run")
        bars = {line.index("│") for line in lines[3:-1]}
        assert bars == {33}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_it_gives_the_terminal_back(night: Path, number: int) -> None:
    with terminal(night, "lucky-newt") as tty:
        tty.shows("step 1/24")
        tty.signal(number)

        assert tty.ended() == -number
        assert tty.is_restored


def test_ctrl_c_gives_the_terminal_back(night: Path) -> None:
    with terminal(night, "lucky-newt") as tty:
        tty.shows("step 1/24")
        tty.press(b"\x03")

        assert tty.ended() == 130
        assert tty.is_restored


def test_ctrl_z_lends_the_terminal_to_the_shell_until_it_comes_back(night: Path) -> None:
    with terminal(night, "lucky-newt") as tty:
        tty.shows("step 1/24")
        tty.signal(signal.SIGTSTP)
        tty.until(lambda _lines: tty.raw.endswith(b"\x1b[?1049l"))
        tty.until(lambda _lines: state_of(os.tcgetpgrp(tty.master)) == "T")
        assert tty.is_restored

        tty.screen.reset()
        tty.signal(signal.SIGCONT)
        tty.shows("step 1/24")
        tty.press("n")
        tty.shows("step 2/24")
        tty.press("q")

        assert tty.ended() == 0
        assert tty.is_restored


def test_an_error_gives_the_terminal_back(tmp_path: Path, night: Path) -> None:
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import replay.step_app as app\n"
        "def shown(*_): raise RuntimeError('broken on purpose')\n"
        "app._shown = shown\n"
    )
    with terminal(night, "lucky-newt", PYTHONPATH=f"{tmp_path}:{ROOT}") as tty:
        assert tty.ended() == 1
        assert b"broken on purpose" in tty.raw
        assert tty.raw.index(b"\x1b[?1049l") < tty.raw.index(b"broken on purpose")
        assert tty.is_restored


def test_no_colour_is_honoured(night: Path) -> None:
    with terminal(night, "lucky-newt") as coloured, terminal(
        night, "lucky-newt", NO_COLOR="1"
    ) as plain:  # fmt: skip
        coloured.shows("step 1/24")
        plain.shows("step 1/24")

        assert plain.lines == coloured.lines
        assert b"\x1b[36m" in coloured.raw
        assert b"\x1b[36m" not in plain.raw


def test_new_steps_of_a_submission_appear(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    clock = SettableClock()
    store = SqliteStore.open(path, clock)
    recorder = Recorder(store, clock)
    recorder.start_agent("boot 1")
    story = failed_launch(VOLE, 20.0)
    for _seconds, run, observation in story[:3]:
        recorder.observe(run.stream, observation)
    with terminal(path, "vexed-vole") as tty:
        tty.shows("step 1/8")
        tty.press("G")
        tty.shows("follows the log")
        _seconds, run, observation = story[3]
        recorder.observe(run.stream, observation)
        tty.shows("step 11/11")
        tty.press("p")
        tty.shows("step 10/11")
        _seconds, run, observation = story[4]
        recorder.observe(run.stream, observation)
        tty.shows("2 new steps (G: to the last)")
        assert "step 10/13" in tty.lines[0]
    store.close()


def test_a_terminal_that_cannot_do_it_gets_plain_text(night: Path) -> None:
    with terminal(night, "shy-heron", TERM="dumb") as tty:
        assert tty.ended() == 0
        assert b"\x1b[?1049h" not in tty.raw
        assert b"EVENT  PendingRefused" in tty.raw


def test_it_needs_neither_the_daemon_nor_the_network(night: Path) -> None:
    loaded = imported_by("step", night, "lucky-newt")

    assert not loaded & {"agent", "trio", "httpx", "h11", "anyio", "ssl", "rich"}
