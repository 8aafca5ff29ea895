"""Plays seeds for as long as asked, or shows one again.

    python -m tests.simulation.soak --seconds 600 --jobs 2
    python -m tests.simulation.soak --seed 17 --faults 'kill_at_step:0:12:0'

Prints every failure with its smallest schedule, and at the end what was visited. Exit status 1 when
anything failed.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation import faults
from tests.simulation.simulator import Outcome, shrink, simulate

BATCH = 100


def main() -> int:
    """Do what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, help="play this seed only")
    parser.add_argument("--faults", help="with these faults instead of its own")
    parser.add_argument("--first", type=int, default=1_000_000, help="the first of many seeds")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if asked.seed is not None:
        schedule = None if asked.faults is None else faults.parse(asked.faults)
        return _show(simulate(asked.seed, schedule))
    return _soak(asked.first, asked.seconds, asked.jobs)


def _show(outcome: Outcome) -> int:
    print(f"faults: {faults.written(outcome.schedule) or 'none'}")
    print(f"killed: {outcome.kills or 'never'}; {outcome.steps} steps, {outcome.appends} appends")
    print("\n".join(outcome.broken) or "everything holds")
    return 1 if outcome.broken else 0


def _play_batch(first: int) -> tuple[Counter[str], list[str]]:
    logging.disable(logging.CRITICAL)
    seen: Counter[str] = Counter()
    failures: list[str] = []
    for seed in range(first, first + BATCH):
        outcome = simulate(seed)
        seen.update(outcome.kills)
        seen.update(seeds=1, steps=outcome.steps, appends=outcome.appends)
        if outcome.broken:
            smallest = shrink(outcome)
            failures.append("\n".join([*smallest.broken, smallest.replay_command]))
    return seen, failures


def _soak(first: int, seconds: float, jobs: int) -> int:
    began = time.monotonic()
    total: Counter[str] = Counter()
    failed = 0
    with ProcessPoolExecutor(jobs) as pool:
        while time.monotonic() - began < seconds:
            starts = range(first, first + jobs * BATCH, BATCH)
            first += jobs * BATCH
            for seen, failures in pool.map(_play_batch, starts):
                total += seen
                failed += len(failures)
                for failure in failures:
                    print(failure, flush=True)
    took = time.monotonic() - began
    print(f"{total.pop('seeds')} seeds in {took:.0f} s, {failed} failed;", end=" ")
    print(f"{total.pop('steps')} steps and {total.pop('appends')} appends of agents; killed:")
    for where, count in total.most_common():
        print(f"  {count:8} {where}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
