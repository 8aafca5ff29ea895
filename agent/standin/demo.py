"""`pluperfect demo`: thirty runs, a SIGKILL in the middle, and what the log says afterwards.

Everything is real but the server: the agent is a process of its own, so are the commands that it
launches, and each command writes a line to a ledger that neither the agent nor the log knows
of. `--prefect` replaces the stand-in server too, by a real one out of a virtual environment.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import click
import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from events.codec import decode
from events.lifecycle import State
from events.places import LOG_NAME
from events.sqlite import SqliteReader
from events.submission import Submission, fold

QUEUE: Final = "demo"
PATIENCE_SECONDS: Final = 180.0
TERMINAL: Final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@attrs.frozen
class Kind:
    """One kind of run: how many, what it does, and the state it must end in."""

    count: int
    overrides: Mapping[str, Any]
    ends: str


def _command(*arguments: str) -> dict[str, Any]:
    engine = Path(__file__).with_name("engine.py")
    return {"command": [sys.executable, "-I", str(engine), *arguments]}


def kinds() -> Mapping[str, Kind]:
    """Return the kinds of run of the demo, thirty runs in all."""
    return {
        "quick": Kind(16, _command("--seconds", "0.3"), "COMPLETED"),
        "slow": Kind(6, _command("--seconds", "6"), "COMPLETED"),
        "failing": Kind(4, _command("--seconds", "0.5", "--fail"), "FAILED"),
        "crashing": Kind(2, _command("--seconds", "0.5", "--crash"), "CRASHED"),
        "command-not-there": Kind(1, {"command": ["no-such-command"]}, "CRASHED"),
        "unresolvable": Kind(1, {"env": {"A": "text"}, "env.A.B": "below text"}, "FAILED"),
    }


@click.command()
@click.option(
    "--prefect",
    "prefect_venv",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="VENV",
    help="Use a real Prefect server, from the virtual environment in this folder.",
)
@click.option("--keep", is_flag=True, help="Keep the log and the spool, and say where they are.")
def demo(prefect_venv: Path | None, keep: bool) -> None:
    """Kill an agent in the middle of 30 runs, start it again, and count.

    Needs no server and no network: a stand-in server runs on the loopback interface. Exit
    status 1 if a run was lost or launched twice.
    """
    console = Console()
    with contextlib.ExitStack() as stack:
        if keep:
            home = Path(tempfile.mkdtemp(prefix="pluperfect-demo-"))
        else:
            home = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(
                        prefix="pluperfect-demo-", ignore_cleanup_errors=True
                    )
                )
            )
        api = stack.enter_context(_server(prefect_venv, home, console))
        client = stack.enter_context(httpx.Client(base_url=api, timeout=30))
        expected = _schedule(client)
        console.print(f"{len(expected)} runs are scheduled in queue {QUEUE!r}.")
        _run_with_a_kill(api, client, home, expected, console)
        good = _tell(client, home, expected, console)
    if keep:
        console.print(f"Look closer: pluperfect replay list {home}")
    sys.exit(0 if good else 1)


@contextlib.contextmanager
def _server(prefect_venv: Path | None, home: Path, console: Console) -> Iterator[str]:
    """Start a server on loopback, yield its API's URL, and end it."""
    port = _free_port()
    environment = dict(os.environ)
    if prefect_venv is None:
        command = [sys.executable, "-m", "agent.standin", "--port", str(port)]
        console.print("Starting the stand-in server on the loopback interface.")
    else:
        command = [str(prefect_venv / "bin" / "prefect"), "server", "start", "--port", str(port)]
        environment |= {
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        console.print(f"Starting a real Prefect server from {prefect_venv} (some seconds).")
    with (home / "server.log").open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            api = f"http://127.0.0.1:{port}/api"
            _wait_until_healthy(api, process, home / "server.log")
            yield api
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def _free_port() -> int:
    """Return a port of the loopback interface that nobody listens on.

    Below the ephemeral range (32768 on Linux): polling one of those before the server listens can
    connect to itself.
    """
    while True:
        port = random.randrange(10_000, 32_000)  # noqa: S311 - any will do
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _wait_until_healthy(api: str, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{api}/health").status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    tail = output.read_text(errors="replace")[-2000:]
    raise click.ClickException(f"the server did not start; its last words:\n{tail}")


def _schedule(client: httpx.Client) -> dict[str, tuple[str, str]]:
    """Make a deployment for each kind and schedule its runs; return id -> (name, end state)."""
    flow_id = _post(client, "/flows/", {"name": "demo"})["id"]
    queue = client.get(f"/work_queues/name/{QUEUE}")
    if queue.status_code == httpx.codes.NOT_FOUND:
        _post(client, "/work_queues/", {"name": QUEUE})
    expected: dict[str, tuple[str, str]] = {}
    for name, kind in kinds().items():
        body = {"name": name, "flow_id": flow_id, "work_queue_name": QUEUE}
        # Prefect 2 knows both names, Prefect 3 and the stand-in the newer one.
        body |= {"job_variables": dict(kind.overrides)}
        deployment = _post(client, "/deployments/", body)["id"]
        for number in range(kind.count):
            run = _post(
                client,
                f"/deployments/{deployment}/create_flow_run",
                {"state": {"type": "SCHEDULED"}, "name": f"{name}-{number + 1}"},
            )
            expected[run["id"]] = (run["name"], kind.ends)
    return expected


def _post(client: httpx.Client, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    answer = client.post(path, json=dict(body))
    for _attempt in range(10):
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(0.5)  # a Prefect server on SQLite that is busy with its own services
        answer = client.post(path, json=dict(body))
    if answer.is_error:
        raise click.ClickException(f"the server answered {answer.status_code} to POST {path}")
    found: dict[str, Any] = answer.json()
    return found


def _start_agent(api: str, home: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "agent", "start", "-q", QUEUE, "--hide-welcome"]
    environment = os.environ | {
        "PREFECT_API_URL": api,
        "PREFECT_AGENT_QUERY_INTERVAL": "1",
        "PLUPERFECT_STATE": str(home),
        "PLUPERFECT_DEMO_LEDGER": str(home / "ledger"),
    }
    with (home / "agent.log").open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own command line
            command, env=environment, stdout=output, stderr=output
        )


def _run_with_a_kill(
    api: str, client: httpx.Client, home: Path, expected: Mapping[str, Any], console: Console
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("agent at work", total=len(expected))
        agent = _start_agent(api, home)
        killed = False
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while time.monotonic() < deadline:
                states = _states(client, expected)
                ended = sum(states[run] in TERMINAL for run in expected)
                progress.update(bar, completed=ended)
                if ended == len(expected) and not _open_submissions(home):
                    break
                if not killed and len(_ledger(home)) >= len(expected) // 3:
                    agent.kill()
                    agent.wait()
                    killed = True
                    progress.console.print(_at_the_kill(states, agent.pid), highlight=False)
                    agent = _start_agent(api, home)
                    progress.update(bar, description="second agent at work")
                time.sleep(0.02 if not killed else 0.2)
        finally:
            agent.terminate()
            agent.wait()


def _at_the_kill(states: Mapping[str, str], pid: int) -> str:
    counted = ", ".join(
        f"{n} {state.lower()}" for state, n in sorted(Counter(states.values()).items())
    )
    return (
        f"[bold red]SIGKILL[/] to the agent (process {pid}) with {counted}."
        " Starting another one on the same log."
    )


def _states(client: httpx.Client, expected: Mapping[str, Any]) -> dict[str, str]:
    body = {"flow_runs": {"id": {"any_": list(expected)}}}
    answer = client.post("/flow_runs/filter", json=body).json()
    return {run["id"]: run["state"]["type"] for run in answer}


def _ledger(home: Path) -> Sequence[str]:
    ledger = home / "ledger"
    return ledger.read_text().split() if ledger.exists() else ()


def _open_submissions(home: Path) -> bool:
    reader = SqliteReader.open(home / LOG_NAME)
    try:
        return reader.open_streams() != ["agent"]
    finally:
        reader.close()


def _tell(
    client: httpx.Client, home: Path, expected: Mapping[str, tuple[str, str]], console: Console
) -> bool:
    """Print what became of every run; return whether all is as it must be."""
    states = _states(client, expected)
    launches = Counter(_ledger(home))
    table = Table(title="What the log says, beside the server and the ledger of launches")
    for heading in ("run", "server", "log", "launched", "what happened"):
        table.add_column(heading)
    good = True
    for run, (name, ends) in sorted(expected.items(), key=lambda item: item[1]):
        submissions = _submissions(home, run)
        count = launches[run]
        right = states[run] == ends and count == (0 if _never_launched(submissions) else 1)
        good = good and right
        log = " ".join(s.state.value for s in submissions) or "nothing"
        mark = "" if right else " [bold red]WRONG[/]"
        table.add_row(name, states[run].lower(), log, str(count), _history(submissions) + mark)
    console.print(table)
    lost = sum(state not in TERMINAL for state in states.values())
    twice = sum(count > 1 for count in launches.values())
    console.print(f"[bold]{len(expected)} runs: {lost} lost, {twice} launched twice.[/]")
    return good and not lost and not twice


def _submissions(home: Path, flow_run_id: str) -> list[Submission]:
    reader = SqliteReader.open(home / LOG_NAME)
    try:
        return [
            fold(decode(record) for record in reader.read_stream(stream))
            for stream in reader.streams(f"{flow_run_id}/")
        ]
    finally:
        reader.close()


def _never_launched(submissions: Sequence[Submission]) -> bool:
    return all(submission.state is State.FAILED for submission in submissions)


def _history(submissions: Sequence[Submission]) -> str:
    words = []
    for submission in submissions:
        if submission.confirmed is not None:
            words.append("adopted" if submission.confirmed.adopted else "launched")
        if submission.exited is not None:
            words.append(f"exit status {submission.exited.exit_code}")
        if submission.outcome is not None:
            words.append(submission.outcome.message)
    return "; ".join(words)
