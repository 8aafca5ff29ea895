"""One launch, step by step in one thread: run by tests under strace, to be killed at each step.

`python -m tests.integration.process_launcher_once SPOOL LEDGER KEY` does what
`ProcessLauncher.launch` does, between two looks at files that are not there: marks in the trace.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent.infrastructure.process import compose, spawn
from agent.infrastructure.spool import LaunchFolder
from tests.integration.process_launcher_agent import ledger_command

BEGIN = "/the-launch-begins"
END = "/the-launch-has-ended"

if __name__ == "__main__":
    spool, ledger, key = sys.argv[1:]
    os.path.exists(BEGIN)
    spawned = spawn(LaunchFolder.of(Path(spool), key))
    os.write(spawned.order, compose(ledger_command(Path(ledger), key), "host"))
    os.close(spawned.order)
    os.read(spawned.report, 4096)
    os.path.exists(END)
    # Its keeper outlives it, as it should, and Popen need not warn.
    os._exit(0)
