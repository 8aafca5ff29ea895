"""How long a compaction takes, and how long an agent waits for it.

    python -m tests.bench.compact_bench [--records 1000000]

Makes a log of closed submissions of ten records, compacts it in another process, and commits all
the while as an agent would.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from events.log import Append, Draft
from events.sqlite import SqliteStore

DATA = '{"a":"' + "x" * 200 + '"}'
COMPACT = """
import sys
from pathlib import Path
from events.archive import compact
compact(Path(sys.argv[1]), Path(sys.argv[1]).parent / "archive", "9999")
"""


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser()
    options.add_argument("--records", type=int, default=1_000_000)
    streams = options.parse_args().records // 10
    drafts = [Draft("Happened", 1, DATA)] * 10
    with tempfile.TemporaryDirectory(prefix="pluperfect-bench-") as name:
        path = Path(name) / "log"
        with closing(SqliteStore.open(path)) as store:
            for first in range(0, streams, 500):
                numbers = range(first, min(first + 500, streams))
                store.commit([Append(f"s{n}", 0, drafts, closes=True) for n in numbers])
            began = time.perf_counter()
            waits: list[float] = []
            with subprocess.Popen([sys.executable, "-c", COMPACT, str(path)]) as compactor:
                while compactor.poll() is None:
                    before = time.perf_counter()
                    store.commit([Append("agent", len(waits), drafts[:1])])
                    waits.append(time.perf_counter() - before)
                    time.sleep(0.005)
            took = time.perf_counter() - began
        (archive,) = (Path(name) / "archive").iterdir()
        size, packed = path.stat().st_size, archive.stat().st_size
    waits.sort()
    print(f"{streams * 10:,} records moved in {took:.1f} s; {size:,} bytes became {packed:,}")
    print(f"{len(waits)} commits meanwhile: median {waits[len(waits) // 2] * 1e3:.1f} ms,", end=" ")
    print(f"99 % {waits[len(waits) * 99 // 100] * 1e3:.1f} ms, longest {waits[-1] * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
