"""Makes the log of a busy night: thousands of submissions that differ as real ones do.

`python -m tests.samples.busy_night PATH [--submissions N] [--seed S]` writes one, through the real
decider and a real store: bursts at full hours and quiet stretches, several queues and deployments,
commands that take seconds and some that take an hour, a few that fail for a few reasons, an agent
that is killed and one that is stopped, and an outage of the server. The same seed makes the same
night. Reports, statistics and their benchmarks are tried on it.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

import attrs

from events.lifecycle import Effect, State, Verdict
from events.log import EventStore
from events.notices import AgentStopped, PollingFailed, PollingResumed, QueueCreated
from events.observations import (
    CommandEnded,
    CommandRefused,
    EvidenceFound,
    InfrastructureResolved,
    LaunchUncertain,
    Observation,
    PidAcknowledged,
    ProposalAnswered,
    RequestFailed,
    ResolutionFailed,
    RunMissing,
    RunOffered,
    RunRead,
)
from events.sqlite import SqliteStore
from events.submission import Submission, what_next
from tests.samples.make_sample import BEGIN, NAMESPACE, Recorder, Run, SettableClock

HOURS: Final = 9.0
POLL_SECONDS: Final = 10.0
AWAY: Final = "no answer from https://prefect.example/api: connection refused"
RETRIED: Final = ("bad", "oom")
ADJECTIVES: Final = (
    "amber", "brisk", "calm", "dusky", "eager", "fuzzy", "gentle", "hazy", "icy", "jolly", "keen",
    "lucid", "merry", "nimble", "opal", "proud", "quick", "rusty", "solemn", "tidy", "vivid", "wry",
)  # fmt: skip
ANIMALS: Final = (
    "badger", "civet", "dingo", "egret", "falcon", "gecko", "heron", "ibex", "jackal", "koala",
    "lemur", "marmot", "newt", "otter", "puffin", "quokka", "raven", "stoat", "tapir", "vole",
)  # fmt: skip


@attrs.frozen
class Work:
    """A deployment: where it is queued, how long it takes, how often it comes and fails.

    Attributes:
        share: of all submissions.
        median_seconds, spread: of a log-normal duration.
        hourly: comes in bursts at full hours; else at any time.
        fates: what can become of a run but ending well, with how likely each is.
    """

    name: str
    queue: str
    share: float
    median_seconds: float
    spread: float
    hourly: bool = False
    fates: Mapping[str, float] = attrs.field(factory=dict)

    @property
    def id(self) -> UUID:
        return uuid5(NAMESPACE, f"deployment/{self.name}")

    @property
    def document(self) -> UUID:
        return uuid5(NAMESPACE, f"document/{self.name}")


WORKS: Final = (
    Work("ingest-orders", "ingest", 0.30, 14.0, 0.7, fates={"bad": 0.004, "wait": 0.04}),
    Work("ingest-clicks", "ingest", 0.24, 8.0, 0.5, fates={"flow": 0.01, "refused": 0.01}),
    Work("sync-crm", "default", 0.14, 31.0, 0.9, fates={"flow": 0.03, "cancelled": 0.01}),
    Work("build-features", "ml", 0.08, 210.0, 0.8, fates={"oom": 0.05, "wait": 0.08}),
    Work("score-customers", "ml", 0.06, 95.0, 0.6, fates={"import": 0.04, "doubt": 0.02}),
    Work("daily-report", "reports", 0.10, 44.0, 0.7, hourly=True, fates={"launch": 0.03}),
    Work("finance-export", "reports", 0.06, 120.0, 0.5, hourly=True, fates={"resolve": 0.06}),
    Work("rebuild-warehouse", "default", 0.02, 1500.0, 0.6, hourly=True, fates={"oom": 0.06}),
)


@attrs.frozen
class Trouble:
    """When the agent is gone and when the server is, in seconds after the beginning.

    Attributes:
        restarts: the end of one agent, the start of the next, and how it ended.
        outage: from when to when the server answers nothing.
    """

    restarts: Sequence[tuple[float, float, str]]
    outage: tuple[float, float]

    @classmethod
    def of(cls, hours: float) -> Trouble:
        """Spread the night's trouble over so many hours."""
        hour = 3600.0 * hours / HOURS
        return cls(
            restarts=(
                (1.72 * hour, 1.72 * hour + 38.0, "killed"),
                (5.5 * hour, 5.5 * hour + 11.0, "SIGTERM"),
                (7.1 * hour, 7.1 * hour + 190.0, "reboot"),
            ),
            outage=(3.4 * hour, 3.62 * hour),
        )

    def is_server_away(self, at: float) -> bool:
        return self.outage[0] <= at < self.outage[1]

    def when_an_agent_is_there(self, at: float) -> float:
        for gone, back, _how in self.restarts:
            if gone <= at < back:
                return back + 0.3
        return at

    def rebooted(self, since: float, until: float) -> bool:
        return any(how == "reboot" and since < gone < until for gone, _back, how in self.restarts)


@attrs.define
class Job:
    """One submission on its way: what is known of it here, and what will become of it."""

    run: Run
    work: Work
    fate: str
    due: float
    lasts: float
    pid: int
    random: random.Random
    waits: int = 2
    began: float | None = None

    @property
    def ends(self) -> float:
        return 0.0 if self.began is None else self.began + self.lasts

    def scheduled_again(self, due: float) -> Job:
        """Return the same run's next submission, which goes well."""
        run = attrs.evolve(self.run, ordinal=self.run.ordinal + 1)
        return Job(run, self.work, "good", due, self.lasts, self.pid + 20_000, self.random)

    def takes(self, median: float, spread: float = 0.6) -> float:
        """Return how long something takes that mostly takes the median."""
        return median * self.random.lognormvariate(0.0, spread)


def jobs(number: int, seed: int, hours: float) -> Iterator[Job]:
    """Yield so many submissions in the order in which they are due."""
    chance = random.Random(seed)
    shares = [work.share for work in WORKS]
    picked = chance.choices(WORKS, shares, k=number)
    due = sorted((_due(work, chance, hours), index) for index, work in enumerate(picked))
    for serial, (seconds, index) in enumerate(due):
        work = picked[index]
        name = f"{chance.choice(ADJECTIVES)}-{chance.choice(ANIMALS)}-{serial}"
        fates = list(work.fates)
        weights = [work.fates[fate] for fate in fates]
        fate = chance.choices([*fates, "good"], [*weights, 1.0 - sum(weights)])[0]
        lasts = work.median_seconds * chance.lognormvariate(0.0, work.spread)
        own = random.Random(f"{seed}/{serial}")
        yield Job(Run(name, work.queue), work, fate, seconds, lasts, 5_000 + serial, own)


def _due(work: Work, chance: random.Random, hours: float) -> float:
    whole = hours * 3600.0
    if work.hourly:
        return min(chance.randrange(max(1, int(hours))) * 3600.0 + chance.uniform(5, 8), whole)
    # More in the evening than towards the morning.
    return whole * chance.betavariate(1.1, 1.5)


def tell_busy_night(
    recorder: Recorder, number: int = 10_000, seed: int = 7, hours: float = HOURS
) -> None:
    """Record a night of so many submissions."""
    trouble = Trouble.of(hours)
    night = _Night(recorder, trouble)
    for job in jobs(number, seed, hours):
        night.expect(_polled(job.due, trouble, job.random), job)
    night.play()


def _polled(due: float, trouble: Trouble, chance: random.Random) -> float:
    """Return when a run that is due is handed out: at a poll, in turn, by a server that answers."""
    at = due - due % POLL_SECONDS + POLL_SECONDS + chance.uniform(0.02, 2.5)
    at = trouble.when_an_agent_is_there(at)
    return trouble.outage[1] + chance.uniform(4.0, 12.0) if trouble.is_server_away(at) else at


@attrs.define
class _Night:
    """The world around the recorder: it answers whatever a submission owes, when its time comes."""

    recorder: Recorder
    trouble: Trouble
    _agenda: list[tuple[float, int, Job | str]] = attrs.field(factory=list)
    _serial: Iterator[int] = attrs.field(factory=itertools.count)
    _boot: int = 1

    def expect(self, at: float, what: Job | str) -> None:
        heapq.heappush(self._agenda, (at, next(self._serial), what))

    def play(self) -> None:
        self._at(0.0)
        self.recorder.start_agent("boot 1")
        self._at(0.2)
        self.recorder.post(QueueCreated("ml"))
        for gone, back, how in self.trouble.restarts:
            self.expect(gone, f"gone {how}")
            self.expect(back, f"back {how}")
        self.expect(self.trouble.outage[0] + 3.0, "outage")
        self.expect(self.trouble.outage[1] + 2.0, "resumed")
        last = self._last_of_the_night()
        while self._agenda and self._agenda[0][0] <= last:
            at, _serial, what = heapq.heappop(self._agenda)
            self._happens(at, what)

    def _last_of_the_night(self) -> float:
        # What still runs then is open in the log.
        return max(at for at, _serial, _what in self._agenda) + 4.0

    def _at(self, seconds: float) -> None:
        self.recorder.clock.seconds = seconds

    def _happens(self, at: float, what: Job | str) -> None:
        self._at(at)
        if isinstance(what, Job):
            self._wake(at, what)
        elif what == "outage":
            self.recorder.post(PollingFailed(AWAY))
        elif what == "resumed":
            self.recorder.post(PollingResumed(self.trouble.outage[1] - self.trouble.outage[0]))
        elif what == "gone SIGTERM":
            running = [f for f in self.recorder.folds.values() if f.state is State.STARTED]
            self.recorder.post(AgentStopped("SIGTERM", len(running)))
        elif what.startswith("back"):
            if what == "back reboot":
                self._boot += 1
                self.recorder.clock.booted_at = at - 20.0
            self.recorder.start_agent(f"boot {self._boot}")

    def _wake(self, at: float, job: Job) -> None:
        there = self.trouble.when_an_agent_is_there(at)
        if there != at:
            self.expect(there + job.random.uniform(0.0, 1.5), job)
            return
        stream = job.run.stream
        before = self.recorder.folds.get(stream, Submission())
        if before.state is State.ABSENT:
            after = self.recorder.observe(stream, _offered(job))
        else:
            after = self.recorder.observe(stream, _answer(job, before, at, self.trouble))
            if after.state is State.STARTED and job.began is None:
                job.began = at
        if not after.is_closed:
            self.expect(max(at + 0.001, _next_time(job, after, at)), job)
        elif job.fate in RETRIED and job.run.ordinal == 1:
            again = job.scheduled_again(at + 60.0)
            self.expect(_polled(again.due, self.trouble, again.random), again)


def _next_time(job: Job, after: Submission, at: float) -> float:
    if after.deferred is not None:
        return at + after.deferred.delay_seconds + 0.005
    match _urgent(after):
        case Effect.WATCH:
            return job.ends
        case Effect.RESOLVE:
            return at + job.takes(0.085, 0.9)
        case Effect.LAUNCH:
            return at + job.takes(0.028, 0.5)
        case Effect.REPORT_OUTCOME | Effect.READ_RUN | Effect.PROPOSE_PENDING:
            return at + job.takes(0.034)
        case _:
            return at + job.takes(0.02)


def _urgent(submission: Submission) -> Effect:
    owed = what_next(submission)
    return Effect.REPORT_PID if Effect.REPORT_PID in owed else owed[0]


def _offered(job: Job) -> RunOffered:
    due = (BEGIN + timedelta(seconds=job.due)).isoformat()
    return attrs.evolve(
        job.run.offered(),
        deployment_id=job.work.id,
        flow_id=uuid5(NAMESPACE, f"flow/{job.work.name}"),
        scheduled_time=due,
    )


def _answer(job: Job, now: Submission, at: float, trouble: Trouble) -> Observation:
    """Return what is learned of the effect that a submission owes first."""
    effect = _urgent(now)
    of_the_server = effect not in (Effect.WATCH, Effect.LAUNCH, Effect.EXAMINE)
    if of_the_server and trouble.is_server_away(at):
        return RequestFailed(effect, AWAY, retryable=True, jitter=job.random.random())
    match effect:
        case Effect.PROPOSE_PENDING:
            return _claimed(job, now)
        case Effect.RESOLVE:
            return _resolved(job)
        case Effect.LAUNCH:
            return _launched(job)
        case Effect.EXAMINE:
            return _examined(job, at, trouble)
        case Effect.WATCH:
            return CommandEnded(_exit_code(job), "")
        case Effect.REPORT_PID:
            return PidAcknowledged()
        case Effect.READ_RUN:
            return _read(job, now)
        case Effect.REPORT_OUTCOME:
            return job.run.reported(now.outcome.state_type if now.outcome else "CRASHED")


def _claimed(job: Job, now: Submission) -> ProposalAnswered:
    if job.fate == "refused":
        reason = "This run is in a PENDING state and cannot transition to a PENDING state."
        return ProposalAnswered(Effect.PROPOSE_PENDING, "ABORT", reason)
    if job.fate == "wait" and job.waits:
        job.waits -= 1
        reason = "Concurrency limit for the 'warehouse' tag has been reached"
        return ProposalAnswered(
            Effect.PROPOSE_PENDING, "WAIT", reason, delay_seconds=job.random.choice((15.0, 30.0))
        )
    return attrs.evolve(job.run.claimed(), scheduled_time=now.run.scheduled_time)


def _resolved(job: Job) -> Observation:
    if job.fate == "resolve":
        return ResolutionFailed(
            f"infrastructure block {job.work.document} of deployment {job.work.name!r} no longer"
            " exists; choose another one for the deployment, or give it none to use the agent's"
            f" default (GET /block_documents/{job.work.document})"
        )
    command = ("/opt/flows/bin/nightly-report",) if job.fate == "launch" else ()
    plain: InfrastructureResolved = job.run.resolved(*command)
    labels = {
        "prefect.io/flow-run-id": str(job.run.flow_run_id),
        "prefect.io/flow-run-name": job.run.name,
        "prefect.io/deployment-name": job.work.name,
        "prefect.io/flow-name": job.work.name.replace("-", "_"),
    }
    return attrs.evolve(plain, labels=labels)


def _launched(job: Job) -> Observation:
    if job.fate == "launch":
        return CommandRefused("no such command: /opt/flows/bin/nightly-report")
    if job.fate == "doubt" and job.began is None and job.waits:
        job.waits = 0
        return LaunchUncertain("the keeper did not say whether it started the command within 10 s")
    return job.run.started(job.pid)


def _examined(job: Job, at: float, trouble: Trouble) -> EvidenceFound:
    run = job.run
    if job.began is None:
        return run.evidence(Verdict.NEVER_RAN, "no exec record, and both locks are free")
    if trouble.rebooted(job.began, at):
        return run.evidence(Verdict.LOST, "the host was rebooted while it ran", job.pid)
    if at < job.ends:
        return run.evidence(Verdict.RUNNING, "worker.lock is held", job.pid)
    found = run.evidence(Verdict.FINISHED, "there is an exit record", job.pid)
    return attrs.evolve(found, exit_code=_exit_code(job))


def _exit_code(job: Job) -> int:
    return {"bad": 1, "oom": -9, "import": 1, "cancelled": -15}.get(job.fate, 0)


def _read(job: Job, now: Submission) -> RunRead | RunMissing:
    run, pid = job.run, f"batch-7:{job.pid}"
    if now.state is State.DISCOVERED:
        return attrs.evolve(run.read("SCHEDULED"), state_id=run.scheduled)
    if now.exited is None or job.fate == "import" or now.exited.exit_code is None:
        started = now.exited is not None and job.fate != "import"
        seen = run.read("RUNNING", pid=pid) if started else run.read("PENDING", ours=True)
        due = now.run.scheduled_time if not started else None
        return attrs.evolve(seen, scheduled_time=due)
    type_ = {"flow": "FAILED", "cancelled": "CANCELLING", "oom": "RUNNING", "bad": "RUNNING"}
    return run.read(type_.get(job.fate, "COMPLETED"), pid=pid)


def write_busy_night(path: Path, number: int = 10_000, seed: int = 7, hours: float = HOURS) -> None:
    """Write a night to a new log; 3 s for a thousand submissions."""
    clock = SettableClock()
    # Every observation is a commit of its own, as it was at night; in memory that is ten times
    # faster than on a disk, and a log can be moved when nobody has it open.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        store: EventStore = SqliteStore.open(Path(folder) / "events.sqlite", clock)
        tell_busy_night(Recorder(store, clock), number, seed, hours)
        store.close()
        shutil.move(Path(folder) / "events.sqlite", path)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("path", type=Path)
    options.add_argument("--submissions", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--hours", type=float, default=HOURS)
    asked = options.parse_args()
    write_busy_night(asked.path, asked.submissions, asked.seed, asked.hours)


if __name__ == "__main__":
    main()
