"""Measures the event log: `python -m tests.bench.log_bench [FOLDER]` prints a small table.

The folder decides which disk is measured; a temporary one is made in it. Nothing is asserted.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import trio

from events.group_commit import group_commit
from events.log import Append, Draft, LogReader
from events.sqlite import SqliteReader, SqliteStore

SECONDS = 2.0
DATA = '{"detail":"' + "x" * 200 + '"}'
STREAM_LENGTH = 14
"""Records of a submission that goes well."""

Commit = Callable[[Sequence[Append]], object]


def submissions(name: str) -> Iterator[Append]:
    """Yield one submission after the other, two records at a time, for ever."""
    number = 0
    while True:
        number += 1
        for version in range(0, STREAM_LENGTH, 2):
            drafts = (
                Draft("ProposalAnswered", 1, DATA, version or None),
                Draft("PendingAccepted", 1, DATA, version + 1),
            )
            closes = version + 2 == STREAM_LENGTH
            yield Append(f"{name}-{number:032}/1", version, drafts, closes)


def bench_store(store: SqliteStore, size: int) -> tuple[float, float]:
    """Commit groups of a size; return appends a second and the median of a commit in seconds."""
    sources = [submissions(f"store{size}-{n}") for n in range(size)]
    took: list[float] = []
    begin = time.perf_counter()
    while (start := time.perf_counter()) < begin + SECONDS:
        store.commit([next(source) for source in sources])
        took.append(time.perf_counter() - start)
    return len(took) * size / (time.perf_counter() - begin), statistics.median(took)


async def bench_tasks(store: SqliteStore, tasks: int) -> tuple[float, float]:
    """Append from several tasks; return appends a second and the median of one in seconds."""
    took: list[float] = []

    async def append_all(source: Iterator[Append]) -> None:
        while (start := time.perf_counter()) < begin + SECONDS:
            each = next(source)
            await log.append(each.stream, each.expected_version, each.drafts, closes=each.closes)
            took.append(time.perf_counter() - start)

    async with group_commit(store) as log, trio.open_nursery() as nursery:
        begin = time.perf_counter()
        for number in range(tasks):
            nursery.start_soon(append_all, submissions(f"tasks{tasks}-{number}"))
    return len(took) / (time.perf_counter() - begin), statistics.median(took)


def rate(log: LogReader, read: Callable[[], Iterator[object]]) -> float:
    """Return how many records a second are read."""
    begin = time.perf_counter()
    for _ in read():
        pass
    return log.last_position() / (time.perf_counter() - begin)


def fill(store: SqliteStore, records: int) -> None:
    """Add records, quickly."""
    sources = [submissions(f"fill{n}") for n in range(1000)]
    while store.last_position() < records:
        store.commit([append for source in sources for append in islice(source, 7)])


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        path = Path(folder) / "log"
        store = SqliteStore.open(path)
        print("two records an append          appends/s   median")
        for size in (1, 10, 100):
            speed, median = bench_store(store, size)
            print(
                f"raw commits of {size:3}            {speed:10,.0f} {median * 1e3:6.2f} ms a commit"
            )
        for tasks in (1, 10, 100):
            speed, median = trio.run(bench_tasks, store, tasks)
            row = f"{speed:10,.0f} {median * 1e3:6.2f} ms an append"
            print(f"tasks appending: {tasks:3}          {row}")
        fill(store, 300_000)
        reader = SqliteReader.open(path)
        print(f"\n{reader.last_position():,} records           records/s")
        print(f"read_all                      {rate(reader, reader.read_all):10,.0f}")
        print(f"verified (with hashes)        {rate(reader, reader.verified):10,.0f}")
        begin = time.perf_counter()
        reader.check_file()
        print(f"check_file                    {time.perf_counter() - begin:10.2f} s")
        begin = time.perf_counter()
        opened = len(reader.open_streams())
        print(f"{opened} open streams listed in {(time.perf_counter() - begin) * 1e3:13.2f} ms")
        reader.close()
        store.close()


if __name__ == "__main__":
    main()
