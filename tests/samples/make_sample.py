"""Makes a small log in which everything happens, through the real decider and a real store.

`python -m tests.samples.make_sample PATH` writes one; the log of each release is kept beside this
file and must stay readable for good. The replay tests build theirs from the same stories.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid5

import attrs

from events.codec import encode
from events.decider import decide
from events.lifecycle import Effect, Verdict
from events.log import ABSENT, Append, EventStore, Record, Stamp
from events.notices import (
    AGENT_STREAM,
    AgentStarted,
    AgentStopped,
    Notice,
    PollingFailed,
    PollingResumed,
    QueueCreated,
)
from events.observations import (
    AgentRestarted,
    CommandEnded,
    CommandRefused,
    CommandStarted,
    EvidenceFound,
    InfrastructureResolved,
    LaunchUncertain,
    Observation,
    PidAcknowledged,
    ProposalAnswered,
    RequestFailed,
    ResolutionFailed,
    RunOffered,
    RunRead,
)
from events.submission import Submission, evolve, launch_key, stream_name

NAMESPACE = UUID("6f0c1f3e-52f5-4f0c-9a53-0d6a1f6f7b11")
AGENT_ID = uuid5(NAMESPACE, "agent")
BEGIN = datetime(2026, 11, 24, 2, 0, 0, tzinfo=UTC)
PYTHON = "/opt/flows/venv/bin/python"


@attrs.define
class SettableClock:
    """A clock that stands where it was put. A reboot sets the monotonic one back."""

    seconds: float = 0.0
    booted_at: float = -86_400.0

    def __call__(self) -> Stamp:
        wall = (BEGIN + timedelta(seconds=self.seconds)).isoformat(timespec="microseconds")
        return Stamp(wall, round((self.seconds - self.booted_at) * 1e9))


@attrs.define
class Recorder:
    """Appends observations with what follows from them, exactly as the daemon does."""

    store: EventStore
    clock: SettableClock
    folds: dict[str, Submission] = attrs.field(factory=dict)
    versions: dict[str, int] = attrs.field(factory=dict)
    last_transitions: dict[str, int] = attrs.field(factory=dict)
    starts: int = 0

    def observe(self, stream: str, observation: Observation) -> Submission:
        before = after = self.folds.get(stream, Submission())
        transitions = decide(before, observation)
        for transition in transitions:
            after = evolve(after, transition, stream)
        seen = self.versions.get(stream, ABSENT) + 1
        drafts = [encode(observation, self.last_transitions.get(stream))]
        drafts += [encode(transition, seen) for transition in transitions]
        self._commit(Append(stream, seen - 1, drafts, closes=after.is_closed))
        if transitions:
            self.last_transitions[stream] = self.versions[stream]
        self.folds[stream] = after
        return after

    def post(self, notice: Notice) -> None:
        version = self.versions.get(AGENT_STREAM, ABSENT)
        self._commit(Append(AGENT_STREAM, version, [encode(notice)]))

    def start_agent(self, boot: str) -> None:
        """A new agent opens the log, and takes over what is open."""
        still_open = [s for s, fold in self.folds.items() if not fold.is_closed]
        self.starts += 1
        self.post(
            AgentStarted(
                version="0.1.0",
                agent_id=AGENT_ID,
                hostname="batch-7",
                pid=4000 + self.starts,
                boot_id=str(uuid5(NAMESPACE, boot)),
                server="https://prefect.example/api",
                queues=("default", "reports"),
                limit=20,
                prefetch_seconds=15.0,
                open_submissions=len(still_open),
            )
        )
        for stream in still_open:
            self.observe(stream, AgentRestarted())

    def _commit(self, append: Append) -> None:
        (outcome,) = self.store.commit([append])
        if not isinstance(outcome, Sequence):
            raise outcome
        last: Record = outcome[-1]
        self.versions[append.stream] = last.version


@attrs.frozen
class Run:
    """A flow run that stories are told of; all its ids derive from its name."""

    name: str
    queue: str = "default"
    ordinal: int = 1

    def id(self, what: str) -> UUID:
        return uuid5(NAMESPACE, f"{self.name}/{what}")

    @property
    def flow_run_id(self) -> UUID:
        return self.id("run")

    @property
    def stream(self) -> str:
        return stream_name(self.flow_run_id, self.ordinal)

    @property
    def scheduled(self) -> UUID:
        return self.id(f"scheduled/{self.ordinal}")

    @property
    def transition_id(self) -> UUID:
        key = launch_key(self.flow_run_id, self.scheduled, 1)
        return uuid5(AGENT_ID, f"{key}/pending")

    def offered(self) -> RunOffered:
        return RunOffered(
            agent_id=AGENT_ID,
            flow_run_id=self.flow_run_id,
            run_name=self.name,
            flow_id=self.id("flow"),
            deployment_id=self.id("deployment"),
            queue=self.queue,
            ordinal=self.ordinal,
            attempt=1,
            scheduled_state_id=self.scheduled,
            scheduled_time=BEGIN.isoformat(),
        )

    def claimed(self) -> ProposalAnswered:
        return ProposalAnswered(
            Effect.PROPOSE_PENDING,
            "ACCEPT",
            state_type="PENDING",
            state_name="Pending",
            state_id=self.id("pending"),
            transition_id=self.transition_id,
            scheduled_time=BEGIN.isoformat(),
        )

    def resolved(self, *command: str) -> InfrastructureResolved:
        return InfrastructureResolved(
            infrastructure="process",
            name=self.name,
            command=command or (PYTHON, "-m", "prefect.engine"),
            working_dir="/srv/flows",
            env={"PREFECT_API_URL": "5d41402abc4b2a76", "PREFECT__FLOW_RUN_ID": "b9719d911017c592"},
            labels={
                "prefect.io/flow-run-id": str(self.flow_run_id),
                "prefect.io/flow-run-name": self.name,
                "prefect.io/deployment-name": "nightly",
                "prefect.io/flow-name": "load",
            },
        )

    def started(self, pid: int) -> CommandStarted:
        return CommandStarted(f"batch-7:{pid}", pid, 777_000 + pid, str(uuid5(NAMESPACE, "boot 1")))

    def evidence(self, verdict: Verdict, detail: str, pid: int | None = None) -> EvidenceFound:
        if pid is None:
            return EvidenceFound(verdict, detail)
        who = self.started(pid)
        return EvidenceFound(
            verdict, detail, who.infrastructure_pid, who.pid, who.start_time, who.boot_id
        )

    def read(self, type_: str, *, ours: bool = False, pid: str | None = None) -> RunRead:
        transition = self.transition_id if ours else None
        due = BEGIN.isoformat() if type_ == "PENDING" else None
        return RunRead(type_, type_.capitalize(), self.id(type_), transition, pid, due)

    def reported(self, type_: str) -> ProposalAnswered:
        return ProposalAnswered(
            Effect.REPORT_OUTCOME,
            "ACCEPT",
            state_type=type_,
            state_name=type_.capitalize(),
            state_id=self.id(type_),
        )


Happening = tuple[float, Run, Observation]
"""Seconds after the beginning, which run, what was learned."""


def claimed_and_launched(run: Run, at: float, pid: int) -> list[Happening]:
    return [
        (at, run, run.offered()),
        (at + 0.034, run, run.claimed()),
        (at + 0.211, run, run.resolved()),
        (at + 0.239, run, run.started(pid)),
        (at + 0.262, run, PidAcknowledged()),
    ]


def good_run(run: Run, at: float, lasts: float = 12.0, pid: int = 5001) -> list[Happening]:
    return [
        *claimed_and_launched(run, at, pid),
        (at + lasts, run, CommandEnded(0, "")),
        (at + lasts + 0.02, run, run.read("COMPLETED", pid=f"batch-7:{pid}")),
    ]


def failed_resolution(run: Run, at: float) -> list[Happening]:
    error = (
        f"the deployment's infrastructure document {run.id('document')} does not exist; choose"
        " another one for the deployment, or give it none to use the agent's default"
    )
    return [
        (at, run, run.offered()),
        (at + 0.031, run, run.claimed()),
        (at + 0.090, run, ResolutionFailed(error)),
        (at + 0.121, run, run.reported("FAILED")),
    ]


def failed_launch(run: Run, at: float) -> list[Happening]:
    return [
        (at, run, run.offered()),
        (at + 0.030, run, run.claimed()),
        (at + 0.140, run, run.resolved("/opt/flows/bin/nightly", "--date", "2026-11-24")),
        (at + 0.160, run, CommandRefused("no such command: /opt/flows/bin/nightly")),
        (at + 0.200, run, run.reported("CRASHED")),
    ]


def refused_claim(run: Run, at: float) -> list[Happening]:
    reason = "This run is in a PENDING state and cannot transition to a PENDING state."
    answer = ProposalAnswered(Effect.PROPOSE_PENDING, "ABORT", reason)
    return [(at, run, run.offered()), (at + 0.028, run, answer)]


def claim_without_an_answer(run: Run, at: float) -> list[Happening]:
    """The request times out after the server has taken it; the run says that it is ours."""
    lost = RequestFailed(
        Effect.PROPOSE_PENDING, "POST /flow_runs/…/set_state: read timed out", True, 0.5
    )
    rest = good_run(run, at + 31.0, pid=5002)[2:]
    return [
        (at, run, run.offered()),
        (at + 30.0, run, lost),
        (at + 31.01, run, run.read("PENDING", ours=True)),
        *rest,
    ]


def exit_without_running(run: Run, at: float) -> list[Happening]:
    """The command ends with status 0, but no engine ever told the server that it ran."""
    return [
        *claimed_and_launched(run, at, 5003),
        (at + 1.9, run, CommandEnded(0, "")),
        (at + 1.93, run, run.read("PENDING", ours=True, pid="batch-7:5003")),
        (at + 1.97, run, run.reported("CRASHED")),
    ]


def killed_command(run: Run, at: float) -> list[Happening]:
    """Out of memory; and the server is away when it is to be told."""
    away = "POST /flow_runs/…/set_state: connection refused by prefect.example"
    return [
        *claimed_and_launched(run, at, 5004),
        (at + 95.0, run, CommandEnded(-9, "")),
        (at + 95.02, run, run.read("RUNNING", pid="batch-7:5004")),
        (at + 95.05, run, RequestFailed(Effect.REPORT_OUTCOME, away, True, 0.5)),
        (at + 96.1, run, RequestFailed(Effect.READ_RUN, away, True, 0.5)),
        (at + 98.2, run, run.read("RUNNING", pid="batch-7:5004")),
        (at + 98.3, run, run.reported("CRASHED")),
    ]


def adopted(run: Run, at: float, restart: float) -> list[Happening]:
    """It runs while the agent is killed; the next agent adopts it."""
    return [
        *claimed_and_launched(run, at, 5005),
        (restart + 0.2, run, run.evidence(Verdict.RUNNING, "worker.lock is held", 5005)),
        (restart + 40.0, run, CommandEnded(0, "")),
        (restart + 40.03, run, run.read("COMPLETED", pid="batch-7:5005")),
    ]


def launched_again(run: Run, at: float, restart: float) -> list[Happening]:
    """The agent is killed between the intent to launch and the launch."""
    never = run.evidence(Verdict.NEVER_RAN, "no exec record, and both locks are free")
    rest = [(t, r, o) for t, r, o in good_run(run, restart + 0.4, 9.0, 5006)[2:]]
    return [
        (at, run, run.offered()),
        (at + 0.04, run, run.claimed()),
        (at + 0.2, run, run.resolved()),
        (restart + 0.1, run, never),
        (restart + 0.15, run, run.read("PENDING", ours=True)),
        *rest,
    ]


def still_running(run: Run, at: float) -> list[Happening]:
    return claimed_and_launched(run, at, 5007)


def launching_with_a_wait(run: Run, at: float) -> list[Happening]:
    """Open in the middle of a launch: nobody knows whether it happened, and it has to wait."""
    doubt = LaunchUncertain("the keeper did not say whether it started the command within 10 s")
    unreadable = RequestFailed(
        Effect.EXAMINE, "the spool can't be read: Input/output error", True, 0.5
    )
    return [
        (at, run, run.offered()),
        (at + 0.03, run, run.claimed()),
        (at + 0.2, run, run.resolved()),
        (at + 10.2, run, doubt),
        (at + 10.3, run, unreadable),
    ]


def tell_everything(recorder: Recorder) -> None:
    """Record a night: an agent is killed and replaced at 60 s, the host rebooted by 600 s."""
    kill = 60.0
    retried = Run("ancient-otter")
    stories: Iterable[Sequence[Happening]] = (
        good_run(Run("quiet-lynx"), 1.0),
        failed_resolution(Run("brave-toad"), 1.1),
        failed_launch(Run("nightly-report", "reports"), 2.0),
        refused_claim(Run("shy-heron"), 3.0),
        exit_without_running(retried, 5.0),
        claim_without_an_answer(Run("slow-mole"), 8.0),
        adopted(Run("patient-crane"), 20.0, kill),
        launched_again(Run("lucky-newt"), 58.0, kill),
        killed_command(Run("hungry-bear", "reports"), 120.0),
        good_run(attrs.evolve(retried, ordinal=2), 130.0, 7.5, 5008),
        still_running(Run("große-日本-run"), 610.0),
        launching_with_a_wait(Run("unlucky-ant", "reports"), 615.0),
    )
    happenings = sorted((h for story in stories for h in story), key=lambda h: h[0])
    interludes: list[tuple[float, Callable[[], None]]] = [
        (0.0, lambda: recorder.start_agent("boot 1")),
        (0.2, lambda: recorder.post(QueueCreated("reports"))),
        (kill, lambda: recorder.start_agent("boot 1")),
        (216.0, lambda: recorder.post(PollingFailed("connection refused by prefect.example"))),
        (218.0, lambda: recorder.post(PollingResumed(2.0))),
        (400.0, lambda: recorder.post(AgentStopped("SIGTERM", 0))),
        (600.0, lambda: _reboot(recorder)),
    ]
    for seconds, run, observation in happenings:
        while interludes and interludes[0][0] <= seconds:
            recorder.clock.seconds, interlude = interludes.pop(0)
            interlude()
        recorder.clock.seconds = seconds
        recorder.observe(run.stream, observation)


def _reboot(recorder: Recorder) -> None:
    recorder.clock.booted_at = recorder.clock.seconds - 8.0
    recorder.start_agent("boot 2")


def write_night(path: Path) -> None:
    """Write that night to a new log."""
    from events.sqlite import SqliteStore

    clock = SettableClock()
    store = SqliteStore.open(path, clock)
    tell_everything(Recorder(store, clock))
    store.close()


def main() -> None:
    write_night(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
