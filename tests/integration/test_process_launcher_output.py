"""What commands write: kept in the spool, and copied to the agent's output by one task."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio

from agent.infrastructure.keeper import EXIT, OUTPUT
from agent.infrastructure.launcher import Ended
from agent.infrastructure.process import ProcessLauncher
from tests.integration.process_launcher_world import (
    clean_launcher,
    exists,
    output_of,
    shell,
    until,
)


@attrs.define
class Terminal:
    """The agent's output, as its reader sees it. Nothing is read until asked."""

    read_end: int
    write_end: int
    text: str = ""

    def shows(self, text: str) -> bool:
        """Read what is there, and tell whether that text has come by now."""
        try:
            while part := os.read(self.read_end, 65536):
                self.text += part.decode()
        except BlockingIOError:
            return text in self.text
        return text in self.text


def is_read_by_us(path: Path) -> bool:
    folder = "/proc/self/fd"
    links = [f"{folder}/{name}" for name in os.listdir(folder)]
    return str(path) in [os.readlink(link) for link in links if os.path.lexists(link)]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    yield Terminal(read_end, write_end)
    os.close(read_end)
    os.close(write_end)


async def test_output_and_errors_are_copied_in_order_and_kept(
    tmp_path: Path, terminal: Terminal
) -> None:
    async with clean_launcher(tmp_path, terminal.write_end) as launcher:
        await launcher.launch("key", shell("echo one; echo two >&2; echo three", stream=True))
        await launcher.wait("key")
        await until(lambda: terminal.shows("three\n"))
        assert terminal.text == output_of(launcher, "key") == "one\ntwo\nthree\n"


async def test_output_is_copied_while_the_command_runs(tmp_path: Path, terminal: Terminal) -> None:
    async with clean_launcher(tmp_path, terminal.write_end) as launcher:
        await launcher.launch("key", shell("echo working; exec sleep 100", stream=True))
        await until(lambda: terminal.shows("working\n"))


async def test_output_is_not_copied_unless_asked_for(tmp_path: Path, terminal: Terminal) -> None:
    async with clean_launcher(tmp_path, terminal.write_end) as launcher:
        await launcher.launch("quiet", shell("echo quiet"))
        await launcher.wait("quiet")
        await launcher.launch("loud", shell("echo loud", stream=True))
        await launcher.wait("loud")
        await until(lambda: terminal.shows("loud\n"))
        assert terminal.text == "loud\n"
        assert output_of(launcher, "quiet") == "quiet\n"


async def test_the_last_words_are_copied_without_a_newline_too(
    tmp_path: Path, terminal: Terminal
) -> None:
    async with clean_launcher(tmp_path, terminal.write_end) as launcher:
        await launcher.launch("key", shell("printf 'a\\nlast words'", stream=True))
        await launcher.wait("key")
        await until(lambda: terminal.shows("last words"))


async def test_the_agents_end_does_not_cut_off_what_was_written(
    tmp_path: Path, terminal: Terminal
) -> None:
    async with ProcessLauncher.open(tmp_path, output=terminal.write_end) as launcher:
        await launcher.launch("key", shell("seq 1000", stream=True))
        await launcher.wait("key")
    assert terminal.shows("\n1000\n")


async def test_lines_of_different_commands_do_not_cut_into_each_other(
    tmp_path: Path, terminal: Terminal
) -> None:
    async with clean_launcher(tmp_path, terminal.write_end) as launcher:
        script = "printf half; touch $READY; while [ ! -e $GO ]; do sleep 0.01; done; echo way"
        env = {"READY": str(tmp_path / "ready"), "GO": str(tmp_path / "go")}
        await launcher.launch("slow", shell(script, env, stream=True))
        await until(lambda: exists(tmp_path / "ready"))
        await launcher.launch("quick", shell("echo quick", stream=True))
        await launcher.wait("quick")
        await until(lambda: terminal.shows("quick\n"))
        (tmp_path / "go").touch()
        await launcher.wait("slow")
        await until(lambda: terminal.shows("halfway\n"))
        assert sorted(terminal.text.splitlines()) == ["halfway", "quick"]


async def test_a_stalled_reader_stops_the_copying_and_nothing_else(
    tmp_path: Path, terminal: Terminal
) -> None:
    async with clean_launcher(tmp_path, terminal.write_end) as launcher:
        # More than the pipe and the copier's hands can hold.
        await launcher.launch("chatty", shell("seq 100000; echo end of chatty", stream=True))
        assert await launcher.wait("chatty") == Ended(0)
        for number in range(12):
            await launcher.launch(f"key{number}", shell("exit 6", stream=True))
            assert await launcher.wait(f"key{number}") == Ended(6)
        await until(lambda: terminal.shows("end of chatty\n"))
        assert terminal.text == output_of(launcher, "chatty")


async def test_a_stalled_reader_does_not_keep_the_agent_from_ending(
    tmp_path: Path, terminal: Terminal
) -> None:
    with trio.fail_after(20):
        async with ProcessLauncher.open(tmp_path, output=terminal.write_end) as launcher:
            await launcher.launch("key", shell("seq 100000", stream=True))
            await launcher.wait("key")
    # Lets the copying thread go.
    await until(lambda: terminal.shows("\n20000\n"))


async def test_a_reader_that_went_away_stops_the_copying_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    async with clean_launcher(tmp_path, write_end) as launcher:
        for key in ("first", "second"):
            await launcher.launch(key, shell("echo hello", stream=True))
            assert await launcher.wait(key) == Ended(0)
        await until(lambda: "no longer copied" in caplog.text)
        assert output_of(launcher, "first") == "hello\n"
    os.close(write_end)


async def test_an_adopted_command_is_copied_from_where_it_was_at_its_adoption(
    tmp_path: Path, terminal: Terminal
) -> None:
    script = "echo before; while [ ! -e $GO ]; do sleep 0.01; done; echo after"
    env = {"GO": str(tmp_path / "go")}
    async with ProcessLauncher.open(tmp_path / "spool", output=2) as first:
        await first.launch("key", shell(script, env, stream=True))
        await until(lambda: output_of(first, "key"))
    async with clean_launcher(tmp_path / "spool", terminal.write_end) as second:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.wait, "key")
            await until(lambda: is_read_by_us(second.spool / "key" / OUTPUT))
            (tmp_path / "go").touch()
        await until(lambda: terminal.shows("after\n"))
        assert terminal.text == "after\n"


async def test_a_file_that_was_emptied_is_copied_from_its_start_again(
    tmp_path: Path, terminal: Terminal
) -> None:
    script = "echo a long line; while [ ! -e $GO ]; do sleep 0.01; done; echo short"
    env = {"GO": str(tmp_path / "go")}
    async with clean_launcher(tmp_path / "spool", terminal.write_end) as launcher:
        await launcher.launch("key", shell(script, env, stream=True))
        await until(lambda: terminal.shows("a long line\n"))
        os.truncate(launcher.spool / "key" / OUTPUT, 0)
        (tmp_path / "go").touch()
        await until(lambda: exists(launcher.spool / "key" / EXIT))
        await until(lambda: terminal.shows("short\n"))
