"""Real Prefect servers for the tests: installs each version once, starts and stops it.

`tests/conftest.py` makes session fixtures of this, and scripts under tests/bench call it directly.
Every version lives in a virtual environment of its own under `.servers/`, so that neither meets the
other or this project. Nothing here is ever skipped: a server that can't be had is an error that
shows the tail of its log.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import attrs

SERVERS = Path(__file__).resolve().parent.parent / ".servers"

REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "2.20": ("prefect>=2.20,<2.21",),
    # 3.8 and no newer: the rules and bodies of the stand-in's flavour "3" were probed on it.
    # 3.8.8 asks for fastapi>=0.139.0 and passes Body(min_items=...), which the newest releases no
    # longer take: 0.139 installs and boots, 0.165 installs and does not.
    "3": ("prefect>=3.8,<3.9", "fastapi==0.139.*"),
}

INSTALL_SECONDS = 900.0
START_SECONDS = 120.0
STOP_SECONDS = 15.0

# The server is one process (the CLI would put another in front of it, which a kill then hits
# instead), and it ends when the tests do, however they end: the other end of its stdin is ours.
_BOOT = """
import os, sys, threading
def end_with_the_tests():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=end_with_the_tests, daemon=True).start()
import uvicorn
uvicorn.run("prefect.server.api.server:create_app", factory=True, host="127.0.0.1",
            port=int(sys.argv[1]), log_level="warning", timeout_keep_alive=5)
"""

_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "2.20": {
        f"PREFECT_API_SERVICES_{service}_ENABLED": "false"
        for service in (
            "SCHEDULER",
            "LATE_RUNS",
            "FLOW_RUN_NOTIFICATIONS",
            "PAUSE_EXPIRATIONS",
            "CANCELLATION_CLEANUP",
            "FOREMAN",
        )
    },
    "3": {"PREFECT__SERVER_WEBSERVER_ONLY": "1"},
}

_COMMON_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_UI_ENABLED": "false",
}


class ServerUnavailable(Exception):
    """A real server could not be installed or started; the message ends with its log's tail."""

    def __init__(self, what: str, log: Path) -> None:
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        super().__init__("\n".join([f"{what}; the tail of {log}:", *lines[-25:]]))


def ensure_installed(version: str) -> Path:
    """Make the virtual environment of a version when it is missing or its pins have changed.

    Args:
        version: `"2.20"` or `"3"`.

    Returns:
        the environment's Python.

    Raises:
        ServerUnavailable: it can't be installed.
    """
    folder = SERVERS / f"prefect-{version}"
    python = folder / "bin" / "python"
    marker = folder / "installed.txt"
    wanted = "\n".join(REQUIREMENTS[version]) + "\n"
    SERVERS.mkdir(exist_ok=True)
    with (SERVERS / f"prefect-{version}.lock").open("w") as lock:
        # Two test processes may come here at once; the second finds the marker.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists() or marker.read_text() != wanted:
            marker.unlink(missing_ok=True)
            log = SERVERS / f"prefect-{version}.install.log"
            pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
            with log.open("wb") as output:
                for command in (
                    [sys.executable, "-m", "venv", str(folder)],
                    [*pip, *REQUIREMENTS[version]],
                ):
                    _run_installation(version, command, output, log)
            marker.write_text(wanted)
    return python


def _run_installation(version: str, command: list[str], output: IO[bytes], log: Path) -> None:
    try:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=INSTALL_SECONDS,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise ServerUnavailable(f"prefect {version} can't be installed ({error})", log) from error


@attrs.define
class RealServer:
    """A real Prefect server that runs on loopback, as one process with its own SQLite database.

    Attributes:
        version: `"2.20"` or `"3"`.
        python: the Python of its virtual environment, which also has the flow engine.
        home: its PREFECT_HOME: database, profiles, results.
        port: stays the same over restarts.
        settings: environment variables beyond the usual ones.
    """

    version: str
    python: Path
    home: Path
    port: int
    settings: Mapping[str, str] = attrs.field(factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """PREFECT_API_URL, ending in `/api`."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def log(self) -> Path:
        """What the server printed, all its starts together."""
        return self.home / "server.log"

    @property
    def client_environment(self) -> dict[str, str]:
        """What a Prefect client or engine of this version has to have in its environment."""
        return {
            "PREFECT_API_URL": self.url,
            "PREFECT_HOME": str(self.home / "client"),
            "DO_NOT_TRACK": "1",
        }

    @property
    def pid(self) -> int | None:
        """The server's process, None when it is down."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerUnavailable: it ended, or did not answer within `START_SECONDS`.
        """
        if self._process is not None:
            raise RuntimeError(f"the server at {self.url} runs already")
        self.home.mkdir(parents=True, exist_ok=True)
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT", "PYTHON"))
        }
        environment |= {**_COMMON_SETTINGS, **_SETTINGS[self.version], **self.settings}
        environment["PREFECT_HOME"] = str(self.home)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(self.python), "-c", _BOOT, str(self.port)],
                cwd=self.home,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the tests, which then stop their servers in order.
                start_new_session=True,
            )
        self._wait_until_healthy(self._process)

    def _wait_until_healthy(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self._ended(process)
                what = f"prefect {self.version} ended at once with status {process.returncode}"
                raise ServerUnavailable(what, self.log)
            # Refused or reset: not listening yet.
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer,
            ):
                if answer.status == 200:
                    return
            time.sleep(0.05)
        self.kill()
        what = f"prefect {self.version} did not answer within {START_SECONDS:.0f} s"
        raise ServerUnavailable(what, self.log)

    def stop(self) -> None:
        """End it in order (SIGTERM, and SIGKILL when it takes too long). Stopping twice is fine."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL). The port stays its own for `start`."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it in order and start it again, at the same URL on the same database."""
        self.stop()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._ended(process)

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is not None:
            process.stdin.close()
        self._process = None


def start(version: str, home: Path, settings: Mapping[str, str] | None = None) -> RealServer:
    """Install a version when needed, and start a server of it with an empty database.

    Args:
        version: `"2.20"` or `"3"`.
        home: a folder of its own, made when missing.
        settings: further environment variables, e.g. a service switched on again.

    Raises:
        ServerUnavailable: with the tail of the log.
    """
    python = ensure_installed(version)
    server = RealServer(version, python, home, _free_port(), settings or {})
    server.start()
    return server


def _free_port() -> int:
    """Find a free loopback port below the range that the kernel takes source ports from.

    A client that asks a port of that range before anybody listens there can be connected to itself
    (the kernel picks the very port as the source): it then reads its own request as the answer,
    and keeps the server from binding. Seen here, while waiting for a server to start.
    """
    lowest_source_port = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, lowest_source_port)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
