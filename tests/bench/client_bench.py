"""Measures the client: what it costs to import and make, and CPU and time a request.

Run `python -m tests.bench.client_bench [API-URL]`. Without a URL it starts the stand-in server in
a process of its own, so that only the client's share of the CPU is counted.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import orjson
import trio

from agent.prefect import wire
from agent.prefect.client import PrefectClient
from agent.prefect.models import FlowRun, structure
from agent.settings import load

REQUESTS = 1000
IN_FLIGHT = (1, 2, 4, 8, 16)
REPEATS = 5


def main() -> None:
    """Print the figures."""
    for module in ("agent.settings", "agent.prefect.client"):
        print(f"import {module:<22} {_import_ms(module):7.1f} ms")
    for url in ("http://127.0.0.1:1/api", "https://127.0.0.1:1/api"):
        print(f"make a client for {url:<25} {_making_ms(url):5.1f} ms")
    print(f"structure 200 runs           {_structuring_ms():7.2f} ms")
    with _server(sys.argv[1:]) as url:
        for in_flight in IN_FLIGHT:
            wire.CONNECTIONS = in_flight  # type: ignore[misc]
            rounds = [trio.run(_requests, url, in_flight) for _ in range(REPEATS)]
            cpu, wall = (statistics.median(values) for values in zip(*rounds, strict=True))
            print(
                f"{in_flight:2} in flight: {cpu / REQUESTS * 1e3:5.2f} ms CPU a request,"
                f" {REQUESTS / wall:6.0f} requests/s"
            )


def _import_ms(module: str) -> float:
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        for _ in range(REPEATS)
    ]
    return min(map(float, runs)) * 1e3


def _making_ms(url: str) -> float:
    settings = load({"PREFECT_API_URL": url}, {})
    began = time.perf_counter()
    for _ in range(REPEATS):
        PrefectClient(settings)
    return (time.perf_counter() - began) / REPEATS * 1e3


def _structuring_ms() -> float:
    date = "2026-01-01T12:00:00.123456+00:00"
    state = {"id": str(uuid4()), "type": "SCHEDULED", "timestamp": date, "state_details": {}}
    run = {"id": str(uuid4()), "name": "a", "state": state, "next_scheduled_start_time": date}
    text = orjson.dumps([run] * 200)
    began = time.perf_counter()
    for _ in range(REPEATS):
        structure(orjson.loads(text), list[FlowRun])
    return (time.perf_counter() - began) / REPEATS * 1e3


@contextmanager
def _server(arguments: list[str]) -> Iterator[str]:
    if arguments:
        yield arguments[0]
        return
    command = [sys.executable, "-m", "agent.standin"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None:
            raise LookupError("the stand-in has no output")
        yield process.stdout.readline().strip()
        process.terminate()


async def _requests(url: str, in_flight: int) -> tuple[float, float]:
    """Read one queue again and again; return seconds of CPU and of time."""
    settings = load({"PREFECT_API_URL": url}, {})
    name = f"bench-{uuid4()}"
    async with PrefectClient(settings) as prefect:
        await prefect.create_work_queue(name)

        async def some() -> None:
            for _ in range(REQUESTS // in_flight):
                await prefect.read_work_queue_by_name(name)

        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(in_flight):
                nursery.start_soon(some)
        after, ended = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, ended - began


if __name__ == "__main__":
    main()
