"""Drives the daemon's own code with recorded answers and the recorded clock: `replay run`.

The one place in `replay` that imports `agent`, and with it trio and httpx; `replay.commands.
rerunning` imports it when it is called for. `recording` reads a stream, `world` stands in for all
that the daemon acts on (`answers` says what the server replies), `stage` keeps the order of the
record and compares, `execution` lets the driver live its lives again, and `telling` prints.
"""
