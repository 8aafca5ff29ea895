"""How fast a log is verified, beside the floor: reading its records and parsing their JSON.

`python -m tests.bench.verify_bench [LOG]`: alternates the two over a log (by default one of a
million events, made first), in this one process, and prints CPU time for each: this machine's
speed cancels out of the ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from events.archive import open_log
from events.sqlite_reader import SqliteReader
from replay.verification import Tally, verify
from tests.bench.recovery_bench import make_log

ROUNDS = 3


def floor(reader: SqliteReader) -> int:
    """Read every record and parse its JSON."""
    count = 0
    for row in reader.read_rows():
        orjson.loads(row[9])
        count += 1
    return count


def whole(reader: SqliteReader) -> int:
    """Verify chain, shape, legality and every decision."""
    tally = Tally()
    for divergence in verify(reader, reader.log_id, tally):
        raise SystemExit(f"diverged: {divergence}")
    return tally.records


def rate(work: Callable[[SqliteReader], int], reader: SqliteReader) -> float:
    """Return records a second of CPU time."""
    began = time.process_time()
    records = work(reader)
    return records / (time.process_time() - began)


@contextlib.contextmanager
def _log(named: Path | None, events: int) -> Iterator[Path]:
    if named is not None:
        yield named
        return
    with tempfile.TemporaryDirectory(prefix="verify-bench-") as folder:
        path = Path(folder) / "events.sqlite"
        make_log(path, events, 100)
        yield path


def main() -> None:
    """Measure, and print the best of each."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("log", type=Path, nargs="?")
    options.add_argument("--events", type=int, default=1_000_000)
    asked = options.parse_args()
    with _log(asked.log, asked.events) as path, open_log(path) as reader:
        rates = [(rate(floor, reader), rate(whole, reader)) for _ in range(ROUNDS)]
    for reading, verifying in rates:
        print(
            f"read and parse {reading:9,.0f} records/s   verify {verifying:9,.0f} records/s"
            f"   {reading / verifying:.2f} times the floor"
        )


if __name__ == "__main__":
    main()
