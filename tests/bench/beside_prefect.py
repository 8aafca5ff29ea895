"""Our agent beside `prefect agent` 2.20, on one real server, in one run.

    python -m tests.bench.beside_prefect [--runs 40]

Measures, for each: seconds from the process's start to the first launch, and until all of the
scheduled runs (whose command is `true`) were launched; resident memory when idle and at its peak;
requests per run, counted by a proxy that both go through. Single figures mean little on a noisy
machine; the two columns of one run can be compared.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import httpx
from rich.console import Console
from rich.table import Table

from tests import servers
from tests.bench.counting_proxy import CountingProxy

DEPLOY = """
import sys
from prefect.deployments import Deployment
from prefect.infrastructure import Process
import flows
command = ["sh", "-c", f"echo $PREFECT__FLOW_RUN_ID >> {sys.argv[3]}"]
deployment = Deployment.build_from_flow(
    flow=flows.nothing, name=sys.argv[2], work_queue_name=sys.argv[2], path=sys.argv[1],
    entrypoint="flows.py:nothing", infrastructure=Process(command=command),
)
print(deployment.apply())
"""
FLOWS = "from prefect import flow\n\n@flow\ndef nothing():\n    pass\n"


@attrs.define
class Figures:
    """What was measured of one agent."""

    idle_mb: float = 0.0
    peak_mb: float = 0.0
    first_seconds: float = 0.0
    all_seconds: float = 0.0
    requests_per_run: float = 0.0


def measure(
    name: str, command: Sequence[str], server: servers.RealServer, runs: int, folder: Path
) -> Figures:
    """Start an agent on a queue that has nothing, then on one that has all the runs."""
    figures = Figures()
    folder.mkdir()
    (folder / "code").mkdir()
    (folder / "code" / "flows.py").write_text(FLOWS)
    ledger = folder / "ledger"
    ledger.touch()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "PLUP"))}
    environment |= server.client_environment | {"PLUPERFECT_STATE": str(folder / "state")}
    made = subprocess.run(
        [str(server.python), "-W", "ignore", "-c", DEPLOY, str(folder / "code"), name, str(ledger)],
        cwd=folder / "code",
        env={**environment, "PYTHONPATH": str(folder / "code")},
        capture_output=True,
        text=True,
        check=True,
    )
    deployment = made.stdout.split()[-1]
    with CountingProxy(server.port) as proxy:
        environment["PREFECT_API_URL"] = f"http://127.0.0.1:{proxy.port}/api"
        idle = _spawn([*command, "-q", f"{name}-idle"], environment, folder)
        time.sleep(12)
        figures.idle_mb = _resident_mb(idle)
        _end(idle)
        for _number in range(runs):
            _schedule(server.url, deployment)
        proxy.requests = 0
        began = time.monotonic()
        agent = _spawn([*command, "-q", name], environment, folder)
        peak = threading.Thread(target=_watch_peak, args=(agent, figures), daemon=True)
        peak.start()
        deadline = began + 180
        while time.monotonic() < deadline:
            launched = len(ledger.read_text().split())
            if launched and not figures.first_seconds:
                figures.first_seconds = time.monotonic() - began
            if launched >= runs:
                break
            time.sleep(0.01)
        figures.all_seconds = time.monotonic() - began
        time.sleep(5)  # what is reported afterwards belongs to the runs as well
        figures.requests_per_run = proxy.requests / runs
        _end(agent)
        peak.join(2)
    return figures


def _schedule(url: str, deployment: str) -> None:
    for _attempt in range(20):
        body: dict[str, Any] = {"state": {"type": "SCHEDULED"}}
        answer = httpx.post(f"{url}/deployments/{deployment}/create_flow_run", json=body)
        if answer.status_code == 201:
            return
        time.sleep(0.2)
    answer.raise_for_status()


def _spawn(
    command: Sequence[str], environment: dict[str, str], folder: Path
) -> subprocess.Popen[bytes]:
    with (folder / "agent.log").open("ab") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _resident_mb(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


def _watch_peak(process: subprocess.Popen[bytes], figures: Figures) -> None:
    while process.poll() is None:
        try:
            figures.peak_mb = max(figures.peak_mb, _resident_mb(process))
        except OSError:
            return
        time.sleep(0.05)


def main() -> None:
    """Measure both and print them side by side."""
    options = argparse.ArgumentParser()
    options.add_argument("--runs", type=int, default=40)
    runs = options.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="pluperfect-bench-") as name:
        home = Path(name)
        server = servers.start("2.20", home / "server")
        try:
            prefect = [str(server.python.parent / "prefect"), "agent", "start", "--hide-welcome"]
            ours = [sys.executable, "-m", "agent", "start", "--hide-welcome"]
            columns = {
                "prefect agent 2.20": measure("theirs", prefect, server, runs, home / "theirs"),
                "pluperfect": measure("ours", ours, server, runs, home / "ours"),
            }
        finally:
            server.stop()
    table = Table(title=f"{runs} scheduled runs, default settings, one server, one run")
    table.add_column("")
    for heading in columns:
        table.add_column(heading, justify="right")
    for label, field in (
        ("start to first launch, s", "first_seconds"),
        ("start to last launch, s", "all_seconds"),
        ("resident, idle, MB", "idle_mb"),
        ("resident, peak, MB", "peak_mb"),
        ("requests per run", "requests_per_run"),
    ):
        table.add_row(label, *(f"{getattr(c, field):.2f}" for c in columns.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
