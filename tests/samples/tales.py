"""The sample logs of docs/replay-stories.md: five nights that went wrong, each in its own way.

`python -m tests.samples.tales` writes them to tests/samples/stories, through the real decider and a
real store; a test holds the kept files to what this makes. The last one is altered afterwards, as
somebody would who wanted to hide something.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from uuid import uuid5

import apsw
import attrs

from events.lifecycle import Effect, Verdict
from events.notices import AgentStopped, PollingFailed, PollingResumed
from events.observations import (
    CommandEnded,
    CommandRefused,
    InfrastructureResolved,
    RequestFailed,
    RunOffered,
)
from events.sqlite import SqliteStore
from tests.samples.busy_night import tell_busy_night
from tests.samples.make_sample import (
    NAMESPACE,
    Happening,
    Recorder,
    Run,
    SettableClock,
    claimed_and_launched,
    good_run,
)

FOLDER: Final = Path(__file__).parent / "stories"

LOG_ID: Final = uuid5(NAMESPACE, "stories")


@attrs.frozen
class Deployed(Run):
    """A run of a deployment that has a name; its runs share what they are launched on."""

    deployment: str = "nightly"

    def offered(self) -> RunOffered:
        return attrs.evolve(
            super().offered(),
            deployment_id=uuid5(NAMESPACE, f"{self.deployment}/deployment"),
            flow_id=uuid5(NAMESPACE, f"{self.deployment}/flow"),
        )

    def resolved(self, *command: str) -> InfrastructureResolved:
        resolved = super().resolved(*command)
        names = {"prefect.io/deployment-name": self.deployment, "prefect.io/flow-name": "load"}
        return attrs.evolve(resolved, labels={**resolved.labels, **names})


def _play(
    recorder: Recorder,
    stories: Sequence[Sequence[Happening]],
    interludes: Mapping[float, Callable[[], None]],
) -> None:
    happenings = sorted((h for story in stories for h in story), key=lambda h: h[0])
    waiting = sorted(interludes.items())
    for seconds, run, observation in happenings:
        while waiting and waiting[0][0] <= seconds:
            recorder.clock.seconds, interlude = waiting.pop(0)
            interlude()
        recorder.clock.seconds = seconds
        recorder.observe(run.stream, observation)


def stuck_in_pending(recorder: Recorder) -> None:
    """A proxy answers 502 for one block document; the run that needs it stays Pending."""
    sync = Deployed("invoice-sync", "finance", deployment="invoices")
    bad_gateway = "the server is in trouble, status 502: Bad Gateway (GET /block_documents/{id})"
    tries = [(1.5, 0.4), (2.7, 0.5), (4.9, 0.5), (9.1, 0.6), (17.4, 0.4), (33.8, 0.5), (66.0, 0.5)]
    stuck: list[Happening] = [(2.0, sync, sync.offered()), (2.04, sync, sync.claimed())]
    at = 2.0
    for later, jitter in [*tries, *((60.2, 0.5) for _ in range(6))]:
        at += later
        stuck.append((at, sync, RequestFailed(Effect.RESOLVE, bad_gateway, True, jitter)))
    others = [
        good_run(Deployed("daily-orders", "finance", deployment="orders"), 1.0, 40.0, 6001),
        good_run(Deployed("hourly-stock", "warehouse", deployment="stock"), 200.0, 20.0, 6002),
    ]
    _play(recorder, [stuck, *others], {0.0: lambda: recorder.start_agent("boot 1")})


def failed_to_launch(recorder: Recorder) -> None:
    """The deployment's command was changed to one that this host does not have."""
    before = Deployed("report-monday", "reports", deployment="sales-report")
    after = Deployed("report-tuesday", "reports", deployment="sales-report")
    launched = claimed_and_launched(before, 10.0, 6101)
    launched[2] = (10.21, before, before.resolved("/opt/flows/bin/report", "--full"))
    good: list[Happening] = [
        *launched,
        (95.0, before, CommandEnded(0, "")),
        (95.02, before, before.read("COMPLETED", pid="batch-7:6101")),
    ]
    at = 86_410.0
    bad: list[Happening] = [
        (at, after, after.offered()),
        (at + 0.03, after, after.claimed()),
        (at + 0.14, after, after.resolved("/opt/flows/bin/reprot", "--full")),
        (at + 0.16, after, CommandRefused("no such command: /opt/flows/bin/reprot")),
        (at + 0.20, after, after.reported("CRASHED")),
    ]
    other = good_run(Deployed("ingest", "default", deployment="ingest"), at + 3, 30.0, 6102)
    _play(recorder, [good, bad, other], {0.0: lambda: recorder.start_agent("boot 1")})


def slow_night(recorder: Recorder) -> None:
    """A server that goes away for a while, and a night of runs that have to wait for it."""
    tell_busy_night(recorder, 120, seed=11, hours=3.0)


def restart_in_the_middle(recorder: Recorder) -> None:
    """The host runs out of memory, the agent is killed in the middle of a launch."""
    kill, back = 60.0, 71.0
    running = Deployed("train-model", "ml", deployment="training")
    between = Deployed("score-batch", "ml", deployment="scoring")
    never = between.evidence(Verdict.NEVER_RAN, "no exec record, and both locks are free")
    rest = [(t, r, o) for t, r, o in good_run(between, back + 0.4, 9.0, 6202)[2:]]
    stories: list[list[Happening]] = [
        [
            *claimed_and_launched(running, 20.0, 6201),
            (back + 0.2, running, running.evidence(Verdict.RUNNING, "worker.lock is held", 6201)),
            (back + 400.0, running, CommandEnded(0, "")),
            (back + 400.03, running, running.read("COMPLETED", pid="batch-7:6201")),
        ],
        [
            (kill - 0.30, between, between.offered()),
            (kill - 0.26, between, between.claimed()),
            (kill - 0.10, between, between.resolved()),
            (back + 0.1, between, never),
            (back + 0.15, between, between.read("PENDING", ours=True)),
            *rest,
        ],
        good_run(Deployed("cleanup", deployment="cleanup"), 5.0, 8.0, 6203),
    ]
    _play(
        recorder,
        stories,
        {
            0.0: lambda: recorder.start_agent("boot 1"),
            back: lambda: recorder.start_agent("boot 1"),
            300.0: lambda: recorder.post(PollingFailed("connection refused by prefect.example")),
            312.0: lambda: recorder.post(PollingResumed(12.0)),
            500.0: lambda: recorder.post(AgentStopped("SIGTERM", 0)),
        },
    )


def suspicious_log(recorder: Recorder) -> None:
    """A payment run was killed; afterwards somebody makes the log say that it ended well."""
    pay = Deployed("pay-suppliers", "finance", deployment="payments")
    killed: list[Happening] = [
        *claimed_and_launched(pay, 30.0, 6301),
        (75.0, pay, CommandEnded(-9, "")),
        (75.02, pay, pay.read("RUNNING", pid="batch-7:6301")),
        (75.06, pay, pay.reported("CRASHED")),
    ]
    others = [
        good_run(Deployed("daily-orders", "finance", deployment="orders"), 1.0, 20.0, 6302),
        good_run(Deployed("hourly-stock", "warehouse", deployment="stock"), 90.0, 20.0, 6303),
    ]
    _play(recorder, [killed, *others], {0.0: lambda: recorder.start_agent("boot 1")})


def falsify(path: Path) -> None:
    """Change what a log says behind the agent's back."""
    connection = apsw.Connection(str(path))
    with connection:
        trigger = "records_are_never_changed"
        sql = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (trigger,)).get
        connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(
            "UPDATE records SET data = replace(data, '-9', '0')"
            " WHERE type IN ('CommandEnded', 'InfrastructureExited') AND data LIKE '%-9%'"
        )
        connection.execute(sql)
    connection.close()


TALES: Final[Mapping[str, Callable[[Recorder], None]]] = {
    "pending": stuck_in_pending,
    "launch": failed_to_launch,
    "slow": slow_night,
    "restart": restart_in_the_middle,
    "suspicious": suspicious_log,
}


def write_tale(name: str, path: Path) -> None:
    """Write one of the logs. Its folder must be there, and it must not."""
    with tempfile.TemporaryDirectory(prefix="tale-") as folder:
        made, clock = Path(folder) / "events.sqlite", SettableClock()
        store = SqliteStore.open(made, clock, new_id=lambda: LOG_ID)
        TALES[name](Recorder(store, clock))
        store.close()
        if name == "suspicious":
            falsify(made)
        connection = apsw.Connection(str(made))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        shutil.copy(made, path)


def main() -> None:
    """Write all of them, in place of those that are there."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for name in TALES:
        path = folder / f"{name}.sqlite"
        path.unlink(missing_ok=True)
        write_tale(name, path)


if __name__ == "__main__":
    main()
