"""An agent that does nothing but launch: run by tests as a process of its own, to be killed.

`python -m tests.integration.process_launcher_agent SPOOL LEDGER KEY...` brings every key to its
end, as the daemon would after a restart: it examines, launches what never ran, waits for what
runs. Each command appends its key to the ledger, so executions can be counted. The word `go` on
the standard output says that it begins, `ended KEY STATUS` what became of each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from agent.infrastructure.launcher import Launcher, LaunchFailed, LaunchInDoubt, ProcessSpec
from agent.infrastructure.process import ProcessLauncher
from events.lifecycle import Verdict

STATUS = 7
AT_ONCE = 4


def ledger_command(ledger: Path, key: str) -> ProcessSpec:
    """Return a command that notes its execution, takes a little time, and ends with `STATUS`."""
    script = f'echo "$1" >> "$2"; sleep 0.03; exit {STATUS}'
    return ProcessSpec(["sh", "-c", script, "sh", key, str(ledger)], {}, stream_output=False)


async def see_through(launcher: Launcher, key: str, spec: ProcessSpec) -> int | str | None:
    """Bring one key to its end, whatever an earlier agent did with it; return how it ended."""
    while True:
        try:
            evidence = await launcher.examine(key, evidence_id="", known=None)
            if evidence.verdict is Verdict.NEVER_RAN:
                await launcher.launch(key, spec)
            elif evidence.verdict is Verdict.RUNNING:
                await launcher.wait(key, known=None)
            else:
                return evidence.ended.exit_code if evidence.ended else evidence.verdict.value
        except LaunchFailed as error:
            return error.reason
        except LaunchInDoubt:
            await trio.sleep(0.01)


async def main(spool: Path, ledger: Path, keys: list[str]) -> None:
    """Bring all keys to their ends, a few at once."""
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one(key: str) -> None:
        async with limit:
            ended = await see_through(launcher, key, ledger_command(ledger, key))
        print("ended", key, ended, flush=True)

    async with ProcessLauncher.open(spool) as launcher, trio.open_nursery() as nursery:
        print("go", flush=True)
        for key in keys:
            nursery.start_soon(one, key)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
