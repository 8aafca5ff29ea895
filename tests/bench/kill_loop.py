"""SIGKILL in a loop: agents of real commands on a real server are killed, and runs are counted.

`python -m tests.bench.kill_loop --server 2.20 --runs 300 --kills 40 --seed 1` runs it long;
`tests/integration/test_kill_loop.py` runs it short. Launches are counted by a ledger that the
commands write themselves: neither the agent nor its log knows of it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

import attrs
import httpx

from agent.infrastructure import keeper
from agent.standin import engine
from events.codec import decode
from events.log import LogError, Record
from events.notices import AGENT_STREAM, AgentStarted
from events.sqlite import SqliteReader
from tests import servers
from tests.rest import Rest
from tests.servers import RealServer

T = TypeVar("T")

ENDED: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
LONGEST_LIFE_SECONDS: Final = 3.0
"""An agent that finds nothing to do is killed after this long."""

SETTLING_SECONDS: Final = 240.0
PAGE: Final = 100
KEEPER_FILE: Final = str(Path(keeper.__file__))


@attrs.frozen
class Kind:
    """One kind of command: what the run must end as, and how often it must be launched."""

    share: int
    variables: Mapping[str, Any]
    ends: str
    launches: int = 1


def kinds(ledger: Path) -> Mapping[str, Kind]:
    """Return the kinds of runs; a plain command never reaches Running, an engine does."""
    note = f"echo $PREFECT__FLOW_RUN_ID >> {shlex.quote(str(ledger))}"

    def shell(then: str) -> Mapping[str, Any]:
        return {"command": ["sh", "-c", f"{note}; {then}"]}

    def play(*options: str) -> Mapping[str, Any]:
        command = [sys.executable, "-I", engine.__file__, *options]
        return {"command": command, "env": {"PLUPERFECT_DEMO_LEDGER": str(ledger)}}

    return {
        "exit-0": Kind(4, shell("exit 0"), "CRASHED"),
        "exit-1": Kind(3, shell("exit 1"), "CRASHED"),
        "sleep-then-exit-0": Kind(4, shell("sleep 2; exit 0"), "CRASHED"),
        "sleep-then-exit-7": Kind(2, shell("sleep 1; exit 7"), "CRASHED"),
        "completes": Kind(4, play("--seconds", "0.5"), "COMPLETED"),
        "fails": Kind(1, play("--fail"), "FAILED"),
        "no-such-command": Kind(1, {"command": ["no-such-command"]}, "CRASHED", 0),
        "unresolvable": Kind(1, {"env": {"A": "text"}, "env.A.B": "below text"}, "FAILED", 0),
    }


@attrs.frozen
class Plan:
    """What a loop does.

    Attributes:
        agents: how many serve the queue at once, each with a log of its own.
        restarts: how often the server is killed and started again; agents are killed meanwhile.
        kill_keepers: with every other agent, kill one keeper too.
    """

    runs: int
    kills: int
    seed: int
    agents: int = 1
    restarts: int = 0
    kill_keepers: bool = False


@attrs.define
class Figures:
    """What came of a loop. `lost`, `twice`, `wrong` and `unsound` say which, and must be empty."""

    kills: int = 0
    keeper_kills: int = 0
    restarts: int = 0
    launched: int = 0
    never_launched: int = 0
    recovered: int = 0
    seconds: float = 0.0
    states: Counter[str] = attrs.field(factory=Counter)
    lost: list[str] = attrs.field(factory=list)
    twice: list[str] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)
    unsound: list[str] = attrs.field(factory=list)

    @property
    def faults(self) -> Sequence[str]:
        """All that must not be."""
        return [*self.lost, *self.twice, *self.wrong, *self.unsound]


@attrs.define
class AgentProcess:
    """An agent that is killed and started again, always on the same log.

    Attributes:
        folder: what it prints is kept there.
        state: its log and spool.
    """

    folder: Path
    command: Sequence[str]
    environment: Mapping[str, str]
    state: Path = attrs.field(
        default=attrs.Factory(lambda self: self.folder / "state", takes_self=True)
    )
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """The log's file."""
        return self.state / "events.sqlite"

    def start(self) -> None:
        """Start it; it need not live long enough to do anything."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "agent.log").open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                env={**self.environment, "PLUPERFECT_STATE": str(self.state)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def end(self, how: signal.Signals) -> int:
        """Signal the agent, and only it; return its exit status."""
        assert self._process is not None
        self._process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        """Wait until it ends; return its exit status."""
        assert self._process is not None
        status = self._process.wait(60)
        self._process = None
        return status

    def is_alive(self) -> bool:
        """Tell whether it runs."""
        return self._process is not None and self._process.poll() is None

    def position(self) -> int:
        """Return how long its log is."""
        return self._read(lambda reader: reader.last_position(), 0)

    def open_submissions(self) -> Sequence[str]:
        """Return the submissions that are not closed."""
        nothing: Sequence[str] = ()
        found = self._read(lambda reader: reader.open_streams(), nothing)
        return [stream for stream in found if stream != AGENT_STREAM]

    def recovered(self) -> int:
        """Return how many open submissions its starts found, all together."""
        nothing: Sequence[Record] = ()
        notices = self._read(lambda reader: reader.read_stream(AGENT_STREAM), nothing)
        events = [decode(record) for record in notices]
        return sum(e.open_submissions for e in events if isinstance(e, AgentStarted))

    def _read(self, what: Callable[[SqliteReader], T], otherwise: T) -> T:
        if not self.log.exists():
            return otherwise
        try:
            reader = SqliteReader.open(self.log)
        except LogError:
            return otherwise  # killed while it made the log
        try:
            return what(reader)
        finally:
            reader.close()

    def verify(self) -> subprocess.CompletedProcess[str]:
        """Check its log as a user would."""
        command = [sys.executable, "-m", "replay", "verify", str(self.state)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@attrs.define
class KillLoop:
    """One loop on one server. Make it, `run` it once."""

    server: RealServer
    folder: Path
    plan: Plan
    figures: Figures = attrs.field(factory=Figures)
    _expected: dict[str, tuple[str, Kind]] = attrs.field(factory=dict)

    def run(self) -> Figures:
        """Schedule, kill, wait until everything is told, count."""
        began = time.monotonic()
        rng = random.Random(self.plan.seed)
        queue = f"kill-{uuid4()}"
        self._schedule(queue, rng)
        agents = [self._agent(number, queue) for number in range(self.plan.agents)]
        for agent in agents:
            agent.start()
        try:
            self._kill(agents, rng)
            self._settle(agents)
        finally:
            for agent in agents:
                if agent.is_alive():
                    agent.end(signal.SIGTERM)
        self._count(agents)
        self.figures.seconds = time.monotonic() - began
        return self.figures

    @property
    def _ledger(self) -> Path:
        return self.folder / "ledger"

    def _rest(self) -> contextlib.closing[Rest]:
        return contextlib.closing(Rest(self.server.url, self.server.version))

    def _schedule(self, queue: str, rng: random.Random) -> None:
        """Spread the runs over the time that the kills will take."""
        self.folder.mkdir(exist_ok=True)
        self._ledger.touch()
        span = self.plan.kills * 1.5 / self.plan.agents
        found = kinds(self._ledger)
        with self._rest() as rest:
            if rest.ask("GET", f"/work_queues/name/{queue}").status_code == httpx.codes.NOT_FOUND:
                rest.queue(queue)
            made = {
                name: rest.deployment(queue, overrides=kind.variables)
                for name, kind in found.items()
            }
            chosen = [name for name, kind in found.items() for _ in range(kind.share)]
            for number in range(self.plan.runs):
                name = chosen[number % len(chosen)]
                run = rest.schedule(made[name], in_seconds=rng.uniform(0, span))
                self._expected[run] = (name, found[name])

    def _agent(self, number: int, queue: str) -> AgentProcess:
        mine = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "PLUP"))}
        mine |= self.server.client_environment | {"PREFECT_AGENT_QUERY_INTERVAL": "1"}
        command = [sys.executable, "-m", "agent", "start", "-q", queue, "--prefetch-seconds", "0"]
        return AgentProcess(self.folder / f"agent-{number}", command, mine)

    # --- the faults -----------------------------------------------------------------------------

    def _kill(self, agents: Sequence[AgentProcess], rng: random.Random) -> None:
        """Kill agents after they have written so much, or lived so long; sometimes the server."""
        kills, restarts = self.plan.kills, self.plan.restarts
        with_restart = {(n + 1) * kills // (restarts + 1) for n in range(restarts)}
        restarting: threading.Thread | None = None
        for number in range(kills):
            agent = rng.choice(agents)
            if number in with_restart:
                if restarting is not None:
                    restarting.join()
                self.server.kill()
                restarting = threading.Thread(target=self.server.start)
                restarting.start()
                self.figures.restarts += 1
            self._let_it_write(agent, rng.randint(0, 80))
            if self.plan.kill_keepers and number % 2:
                self._kill_a_keeper(agent, rng)
            assert agent.is_alive(), (agent.folder / "agent.log").read_text()[-3000:]
            agent.end(signal.SIGKILL)
            self.figures.kills += 1
            agent.start()
        if restarting is not None:
            restarting.join()

    def _let_it_write(self, agent: AgentProcess, records: int) -> None:
        enough = agent.position() + records
        deadline = time.monotonic() + LONGEST_LIFE_SECONDS
        while agent.position() < enough and time.monotonic() < deadline:
            time.sleep(0.002)

    def _kill_a_keeper(self, agent: AgentProcess, rng: random.Random) -> None:
        spool = str(agent.folder / "state" / "spool")
        found = []
        for entry in Path("/proc").iterdir():
            # Whoever ends meanwhile is no candidate.
            with contextlib.suppress(OSError):
                if entry.name.isdigit():
                    line = os.fsdecode((entry / "cmdline").read_bytes())
                    if KEEPER_FILE in line and spool in line:
                        found.append(int(entry.name))
        if found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(found), signal.SIGKILL)
                self.figures.keeper_kills += 1

    # --- the count ------------------------------------------------------------------------------

    def _settle(self, agents: Sequence[AgentProcess]) -> None:
        """Wait until every run has ended at the server and nothing is owed; or for too long."""
        deadline = time.monotonic() + SETTLING_SECONDS
        while time.monotonic() < deadline:
            states = self._states()
            told = all(states.get(run, ("",))[0] in ENDED for run in self._expected)
            if told and not any(agent.open_submissions() for agent in agents):
                return
            time.sleep(0.2)

    def _states(self) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = {}
        ids = list(self._expected)
        with self._rest() as rest:
            for start in range(0, len(ids), PAGE):
                body = {"flow_runs": {"id": {"any_": ids[start : start + PAGE]}}}
                for run in rest.post("/flow_runs/filter", body):
                    state = run["state"]
                    found[run["id"]] = (state["type"], state["message"] or "")
        return found

    def _count(self, agents: Sequence[AgentProcess]) -> None:
        figures, states = self.figures, self._states()
        launches = Counter(self._ledger.read_text().split())
        for run, (name, kind) in self._expected.items():
            state, message = states.get(run, ("GONE", ""))
            count = launches[run]
            line = f"{run} ({name}): {state} {message!r}, launched {count} times"
            figures.states[state] += 1
            figures.launched += count
            figures.never_launched += count == 0
            if state not in ENDED:
                figures.lost.append(line)
            elif count > 1:
                figures.twice.append(line)
            elif not self._is_right(kind, state, message, count):
                figures.wrong.append(line)
        for agent in agents:
            figures.recovered += agent.recovered()
            if left := agent.open_submissions():
                figures.unsound.append(f"{agent.log} still has {left} open")
            if (done := agent.verify()).returncode:
                figures.unsound.append(f"{agent.log}: {done.stdout}{done.stderr}")

    def _is_right(self, kind: Kind, state: str, message: str, count: int) -> bool:
        if state == "CRASHED" and not message:
            return False
        if (state, count) == (kind.ends, kind.launches):
            return True
        # A keeper that was killed at the commit point: whether it let the command go can't be
        # known, so it is never launched again, and reported.
        return self.plan.kill_keepers and state == "CRASHED" and "was lost" in message


def describe(figures: Figures) -> str:
    """Return the figures for people, and every fault on a line of its own."""
    told = (
        f"{figures.states.total()} runs, {figures.kills} agents and {figures.keeper_kills} keepers"
        f" killed, {figures.restarts} server restarts, {figures.recovered} submissions recovered,"
        f" in {figures.seconds:.0f} s\n"
        f"ends: {dict(figures.states)}; launches: {figures.launched};"
        f" never launched and reported: {figures.never_launched}\n"
        f"{len(figures.lost)} lost, {len(figures.twice)} twice, {len(figures.wrong)} wrong,"
        f" {len(figures.unsound)} unsound logs"
    )
    return "\n".join([told, *figures.faults])


def main() -> None:
    """Run it long; exit status 1 if anything was lost, launched twice or told wrongly."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--server", choices=list(servers.REQUIREMENTS), default="2.20")
    options.add_argument("--runs", type=int, default=300)
    options.add_argument("--kills", type=int, default=40)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--agents", type=int, default=1, help="on one queue at once")
    options.add_argument("--restart-server", type=int, nargs="?", const=5, default=0, metavar="N")
    options.add_argument("--kill-keepers", action="store_true")
    options.add_argument("--keep", type=Path, help="keep logs and spools in this new folder")
    asked = options.parse_args()
    plan = Plan(
        runs=asked.runs,
        kills=asked.kills,
        seed=asked.seed,
        agents=asked.agents,
        restarts=asked.restart_server,
        kill_keepers=asked.kill_keepers,
    )
    with contextlib.ExitStack() as stack:
        if asked.keep:
            asked.keep.mkdir(parents=True)
            home = asked.keep
        else:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kill-loop-")))
        server = servers.start(asked.server, home / "server")
        stack.callback(server.stop)
        figures = KillLoop(server, home / "loop", plan).run()
    print(f"prefect {asked.server}, {plan}\n{describe(figures)}")
    sys.exit(1 if figures.faults else 0)


if __name__ == "__main__":
    main()
