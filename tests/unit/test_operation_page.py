"""The systemd unit and docs/operation.md keep their word: options and exit statuses exist."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from agent import cli
from agent.status import EXIT_NO_AGENT

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "docs" / "pluperfect-agent.service"
PAGE = (ROOT / "docs" / "operation.md").read_text()


@pytest.fixture
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have case
    parser.read(UNIT)
    return parser


def test_the_unit_starts_the_agent_with_options_that_it_has(
    unit: configparser.ConfigParser,
) -> None:
    _program, group, command, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert (group, command) == ("agent", "start")
    cli.start.make_context("start", arguments)


def test_the_unit_leaves_alone_what_runs(unit: configparser.ConfigParser) -> None:
    assert unit["Service"]["KillMode"] == "process"
    assert unit["Service"]["OOMPolicy"] == "continue"


def test_the_unit_does_not_restart_what_can_not_mend_itself(
    unit: configparser.ConfigParser,
) -> None:
    never = {int(word) for word in unit["Service"]["RestartPreventExitStatus"].split()}
    assert never == {cli.EXIT_USAGE, cli.EXIT_LOG_UNUSABLE}
    assert unit["Service"]["Restart"] == "on-failure"


def test_the_unit_keeps_its_state_where_it_says(unit: configparser.ConfigParser) -> None:
    arguments = shlex.split(unit["Service"]["ExecStart"])
    state = arguments[arguments.index("--state") + 1]
    assert state == f"/var/lib/{unit['Service']['StateDirectory']}"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    # The program has to be there, and the user: those of this machine.
    text = re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text())
    copy.write_text(re.sub(r"(?m)^User=.*$", "User=root", text))
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert UNIT.name not in done.stderr


def test_the_page_has_every_exit_status(unit: configparser.ConfigParser) -> None:
    table = PAGE.partition("| exit status of `start` |")[2].partition("\n\n")[0]
    told = [int(number) for number in re.findall(r"^\| (\d) \|", table, re.MULTILINE)]
    assert told == [0, cli.EXIT_POLL_FAILED, cli.EXIT_USAGE, cli.EXIT_LOG_UNUSABLE,
                    cli.EXIT_LOG_WRITE_FAILED]  # fmt: skip
    table = PAGE.partition("| exit status of `status` |")[2].partition("\n\n")[0]
    told = [int(number) for number in re.findall(r"^\| (\d) \|", table, re.MULTILINE)]
    assert told == [0, EXIT_NO_AGENT, cli.EXIT_USAGE, cli.EXIT_LOG_UNUSABLE]


def test_the_page_names_options_that_exist() -> None:
    commands: list[click.Command] = [cli.start, cli.status]
    known = {name for command in commands for param in command.params for name in param.opts}
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) - known == set()
