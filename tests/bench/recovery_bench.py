"""How long an agent takes to find what it has to recover, in a log of a million events.

`python -m tests.bench.recovery_bench`: makes the log in batches, then measures in a fresh process,
as a start does it: open the store (which checks every record of the open streams), list what is
open, and fold it. The target is 0.2 s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID, uuid5

from events.codec import decode, encode
from events.decider import decide
from events.lifecycle import Effect
from events.log import Append, Draft
from events.observations import (
    CommandEnded,
    CommandStarted,
    InfrastructureResolved,
    Observation,
    PidAcknowledged,
    ProposalAnswered,
    RunOffered,
    RunRead,
)
from events.sqlite import SqliteStore
from events.submission import Submission, evolve, fold, stream_name

NAMESPACE = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
BATCH = 500
TARGET_SECONDS = 0.2


def history(number: int, *, ends: bool) -> tuple[str, Sequence[Draft], Submission]:
    """Return the stream of one submission as a daemon writes it."""
    run = uuid5(NAMESPACE, str(number))
    submission, drafts = Submission(), list[Draft]()
    last: int | None = None

    def see(observation: Observation) -> None:
        nonlocal submission, last
        transitions = decide(submission, observation)
        drafts.append(encode(observation, cause=last))
        seen = len(drafts)
        for transition in transitions:
            submission = evolve(submission, transition)
            drafts.append(encode(transition, cause=seen))
        last = len(drafts) if transitions else last

    see(RunOffered(
        agent_id=NAMESPACE, flow_run_id=run, run_name=f"run-{number}", flow_id=run,
        deployment_id=run, queue="default", ordinal=1, attempt=1, scheduled_state_id=run,
        scheduled_time="2026-01-01T12:00:00+00:00",
    ))  # fmt: skip
    claim = submission.claim
    assert claim is not None
    see(ProposalAnswered(
        Effect.PROPOSE_PENDING, "ACCEPT", None, state_type="PENDING", state_name="Pending",
        state_id=run, transition_id=claim.transition_id, scheduled_time="2026-01-01T12:00:00+00:00",
    ))  # fmt: skip
    for observation in afterwards(run, number, ends=ends):
        see(observation)
    return stream_name(run, 1), drafts, submission


def afterwards(run: UUID, number: int, *, ends: bool) -> Iterator[Observation]:
    """Yield what is seen of a run from its claim on."""
    yield InfrastructureResolved(
        infrastructure="process", name=f"run-{number}", command=("python", "-m", "prefect.engine"),
        env={}, working_dir=None, labels={},
    )  # fmt: skip
    yield CommandStarted(f"host:{number}", number, number, "boot")
    yield PidAcknowledged()
    if ends:
        yield CommandEnded(0, "")
        yield RunRead("COMPLETED", "Completed", run, None, f"host:{number}")


def make_log(path: Path, events: int, open_submissions: int) -> int:
    """Write so many events, with the open submissions spread over them; return how many it has."""
    store = SqliteStore.open(path)
    written, number, opened = 0, 0, 0
    while written < events or opened < open_submissions:
        appends: list[Append] = []
        for _ in range(BATCH):
            ends = written < (opened + 1) * events // (open_submissions + 1) or (
                opened == open_submissions
            )
            stream, drafts, submission = history(number, ends=ends)
            assert submission.is_closed == ends
            appends.append(Append(stream, 0, drafts, closes=ends))
            number, opened, written = number + 1, opened + (not ends), written + len(drafts)
        store.commit(appends)
    store.close()
    return written


def measure(path: Path) -> tuple[float, float, int]:
    """Return the seconds to open the log, those to fold what is open, and how many that was."""
    began = time.perf_counter()
    store = SqliteStore.open(path)
    opened = time.perf_counter()
    streams = store.open_streams()
    for stream in streams:
        fold((decode(record) for record in store.read_stream(stream)), stream)
    folded = time.perf_counter()
    store.close()
    return opened - began, folded - opened, len(streams)


def main() -> None:
    """Make the log, measure five starts, print the figures; exit status 1 if it is too slow."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--events", type=int, default=1_000_000)
    options.add_argument("--open", type=int, default=100)
    options.add_argument("--measure", type=Path, help="only measure one start, on this log")
    asked = options.parse_args()
    if asked.measure:
        print(*measure(asked.measure))
        return
    with tempfile.TemporaryDirectory(prefix="recovery-bench-") as folder:
        path = Path(folder) / "events.sqlite"
        began = time.perf_counter()
        written = make_log(path, asked.events, asked.open)
        made = time.perf_counter() - began
        size = path.stat().st_size / 1e6
        print(f"{written} events, {size:.0f} MB, made in {made:.0f} s")
        command = [sys.executable, "-m", "tests.bench.recovery_bench", "--measure", str(path)]
        totals = []
        for _ in range(5):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            opening, folding, count = done.stdout.split()
            totals.append(float(opening) + float(folding))
            print(f"open {float(opening):.3f} s, fold {count} streams {float(folding):.3f} s")
    print(f"slowest {max(totals):.3f} s, fastest {min(totals):.3f} s; target {TARGET_SECONDS} s")
    sys.exit(1 if min(totals) > TARGET_SECONDS else 0)


if __name__ == "__main__":
    main()
