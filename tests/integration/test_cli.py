"""The command line as its user meets it: bad input, exit statuses, signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

CANARY = "canary-5up3r-s3cr3t"


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """A stand-in server, as a process."""
    server = subprocess.Popen(
        [sys.executable, "-m", "agent.standin"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    yield server.stdout.readline().strip()
    server.kill()
    server.wait()
    server.stdout.close()


def environment(state: Path, **variables: str) -> dict[str, str]:
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "PLUPERFECT"))}
    return mine | {"PLUPERFECT_STATE": str(state), "PREFECT_HOME": str(state)} | variables


def start(state: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", "start", *options],
        env=environment(state, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_clear(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert CANARY not in done.stderr + done.stdout
    for word in words:
        assert word in done.stderr


def test_no_api_url(tmp_path: Path) -> None:
    assert_clear(start(tmp_path, "-q", "q"), 2, "--api", "PREFECT_API_URL")


def test_no_queue(tmp_path: Path) -> None:
    assert_clear(start(tmp_path), 2, "-q NAME")


def test_queues_and_prefixes_together(tmp_path: Path) -> None:
    assert_clear(start(tmp_path, "-q", "a", "-m", "b"), 2, "not both")


def test_an_unknown_option(tmp_path: Path) -> None:
    assert_clear(start(tmp_path, "--pool", "x"), 2, "No such option")


def test_a_queue_name_that_prefect_refuses(tmp_path: Path) -> None:
    assert_clear(start(tmp_path, "-q", "a/b"), 2, "'a/b'")


def test_a_setting_that_is_no_number(tmp_path: Path) -> None:
    done = start(tmp_path, "-q", "q", PREFECT_AGENT_QUERY_INTERVAL="soon")
    assert_clear(done, 2, "PREFECT_AGENT_QUERY_INTERVAL")


def test_run_once_against_no_server_says_so_by_its_exit_status(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    done = start(tmp_path, "-q", "q", "--run-once", PREFECT_API_URL=url)
    assert_clear(done, 1, "no answer from", url)
    assert done.stderr.count("no answer from") == 1


def test_a_server_that_refuses_access(tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_about: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/api"
        variables = {"PREFECT_API_URL": url, "PREFECT_API_KEY": CANARY}
        done = start(tmp_path, "-q", "q", "--run-once", **variables)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert_clear(done, 1, "401", "PREFECT_API_KEY")


def test_a_log_of_another_program(tmp_path: Path, api: str) -> None:
    other = sqlite3.connect(tmp_path / "events.sqlite")
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    done = start(tmp_path, "-q", "q", "--run-once", PREFECT_API_URL=api)
    assert_clear(done, 3, "another program's")


def test_a_log_of_a_newer_version(tmp_path: Path, api: str) -> None:
    assert start(tmp_path, "-q", "q", "--run-once", PREFECT_API_URL=api).returncode == 0
    log = sqlite3.connect(tmp_path / "events.sqlite")
    log.execute("PRAGMA user_version = 99")
    log.close()
    done = start(tmp_path, "-q", "q", "--run-once", PREFECT_API_URL=api)
    assert_clear(done, 3, "format 99", "newer")


def test_an_altered_log(tmp_path: Path, api: str) -> None:
    assert start(tmp_path, "-q", "q", "--run-once", PREFECT_API_URL=api).returncode == 0
    log = sqlite3.connect(tmp_path / "events.sqlite")
    log.executescript(
        "DROP TRIGGER records_are_never_changed; UPDATE records SET recorded_at = '2020'"
        " WHERE position = (SELECT max(position) FROM records);"
    )
    log.close()
    done = start(tmp_path, "-q", "q", "--run-once", PREFECT_API_URL=api)
    assert_clear(done, 3, "damaged", "altered")


def test_a_truncated_log(tmp_path: Path, api: str) -> None:
    assert start(tmp_path, "-q", "q", "--run-once", PREFECT_API_URL=api).returncode == 0
    log = tmp_path / "events.sqlite"
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size // 2)
    done = start(tmp_path, "-q", "q", "--run-once", PREFECT_API_URL=api)
    assert_clear(done, 3, "damaged")


def test_a_living_agent_holds_its_log_and_stops_on_a_signal(tmp_path: Path, api: str) -> None:
    command = [sys.executable, "-m", "agent", "start", "-q", "held", "--log-format", "json"]
    with (tmp_path / "output").open("wb") as output:
        holder = subprocess.Popen(
            command, env=environment(tmp_path, PREFECT_API_URL=api), stderr=output
        )
    deadline = time.monotonic() + 30
    while httpx.get(f"{api}/work_queues/name/held").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = start(tmp_path, "-q", "held", PREFECT_API_URL=api)
    assert_clear(second, 3, f"in use by process {holder.pid}")
    holder.send_signal(signal.SIGTERM)
    assert holder.wait(30) == 0
    lines = [json.loads(line) for line in (tmp_path / "output").read_text().splitlines()]
    assert lines[-1]["message"].startswith("stopped (SIGTERM)")


def test_the_state_directory_is_a_file(tmp_path: Path, api: str) -> None:
    (tmp_path / "file").touch()
    done = start(tmp_path / "file", "-q", "q", PREFECT_API_URL=api)
    assert_clear(done, 2, str(tmp_path / "file"))


def test_a_console_that_nobody_reads_stops_nothing(tmp_path: Path, api: str) -> None:
    """Standard error is a pipe that is full from the start; the agent works and ends."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    command = [sys.executable, "-m", "agent", "start", "-q", "stalled", "--run-once"]
    agent = subprocess.Popen(command, env=environment(tmp_path, PREFECT_API_URL=api), stderr=writer)
    assert agent.wait(60) == 0
    os.close(reader)
    os.close(writer)
    assert httpx.get(f"{api}/work_queues/name/stalled").status_code == 200


def test_help_names_the_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from agent.cli import main; main()", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("agent", "replay", "demo"):
        assert command in done.stdout


def test_the_demo_loses_nothing() -> None:
    """The README's first command: kill and recovery, with real processes."""
    done = subprocess.run(
        [sys.executable, "-c", "from agent.cli import main; main()", "demo"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SIGKILL" in done.stdout
    assert "30 runs: 0 lost, 0 launched twice." in done.stdout
