"""What a launch costs: its latency one by one and ten at once, and the memory of each keeper.

Run from the repository's root: `python -m tests.bench.launch_bench [LAUNCHES]`. It prints a few
lines and judges nothing; the targets are at most 25 ms for a launch and 6 MB for a keeper.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio

from agent.infrastructure.launcher import ProcessSpec
from agent.infrastructure.process import ProcessLauncher
from agent.infrastructure.spool import LaunchFolder

AT_ONCE = 10
KEEPERS = 20
LOOP_PROBE_SECONDS = 0.001


class Stopwatch:
    """Collects durations; `key` numbers the launches."""

    def __init__(self, launcher: ProcessLauncher) -> None:
        self.launcher = launcher
        self.launches = 0
        self.seconds: list[float] = []

    async def launch(self, spec: ProcessSpec) -> str:
        """Launch under a fresh key, and note how long it took."""
        self.launches += 1
        key = f"bench{self.launches}"
        began = trio.current_time()
        await self.launcher.launch(key, spec)
        self.seconds.append(trio.current_time() - began)
        return key

    async def launch_and_wait(self, spec: ProcessSpec) -> None:
        """Launch, and see it end; only the launch is timed."""
        await self.launcher.wait(await self.launch(spec))

    def lap(self) -> Sequence[float]:
        """Return the durations since the last lap."""
        lap, self.seconds = self.seconds, []
        return lap


def in_words(seconds: Sequence[float]) -> str:
    """Return the median and the 95th percentile, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return f"p50 {cuts[49] * 1e3:6.1f} ms   p95 {cuts[94] * 1e3:6.1f} ms   (n={len(seconds)})"


def memory_kib(pid: int, kind: str) -> int:
    """Return one sum of a process's smaps_rollup, in KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1])
    raise LookupError(f"no {kind} for process {pid}")


async def probe_loop(late: list[float]) -> None:
    """Note how late the event loop comes back from a short sleep: what launching blocks it for."""
    while True:
        began = trio.current_time()
        await trio.sleep(LOOP_PROBE_SECONDS)
        late.append(trio.current_time() - began - LOOP_PROBE_SECONDS)


async def measure(launcher: ProcessLauncher, launches: int) -> None:
    """Measure, and print."""
    watch = Stopwatch(launcher)
    quick = ProcessSpec(["true"], {}, stream_output=False)
    await watch.launch_and_wait(quick)
    watch.lap()
    late: list[float] = []
    async with trio.open_nursery() as probing:
        probing.start_soon(probe_loop, late)
        for _ in range(launches):
            await watch.launch_and_wait(quick)
        print("one at a time   ", in_words(watch.lap()))
        began = trio.current_time()
        for _ in range(launches // AT_ONCE):
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(watch.launch_and_wait, quick)
        rate = launches // AT_ONCE * AT_ONCE / (trio.current_time() - began)
        print(f"{AT_ONCE} at once      ", in_words(watch.lap()), f"  {rate:.0f} launches/s")
        probing.cancel_scope.cancel()
    print("event loop late ", in_words(late), f"  worst {max(late) * 1e3:.1f} ms")
    idle = ProcessSpec(["sleep", "1000"], {}, stream_output=False)
    keys = [await watch.launch(idle) for _ in range(KEEPERS)]
    folders = [LaunchFolder.of(launcher.spool, key) for key in keys]
    pids = [started.keeper_pid for f in folders if (started := f.look().started) is not None]
    for kind in ("Pss", "Private_Dirty", "Rss"):
        mean = statistics.mean(memory_kib(pid, kind) for pid in pids)
        print(f"each of {len(pids)} keepers: {kind:<13} {mean / 1024:5.2f} MB")
    for key in keys:
        await launcher.kill(key, 0)


async def main(launches: int) -> None:
    """Measure in a spool of its own."""
    with tempfile.TemporaryDirectory(prefix="launch-bench-") as folder:
        async with ProcessLauncher.open(Path(folder) / "spool") as launcher:
            await measure(launcher, launches)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 100)
