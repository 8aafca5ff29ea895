"""What a demo's run executes in place of Prefect's engine: Running, some sleep, and an end.

A script of the standard library only, run as `python -I engine.py`. It appends the run's id to
the ledger named by PLUPERFECT_DEMO_LEDGER first of all, so launches are counted by somebody who
knows nothing of the agent.
"""

import argparse
import json
import os
import sys
import time
import urllib.request


def main() -> int:
    """Play one flow run and return its exit status."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=float, default=0.0)
    arguments.add_argument("--fail", action="store_true", help="end the run as Failed")
    arguments.add_argument("--crash", action="store_true", help="die without a word")
    options = arguments.parse_args()
    run = os.environ["PREFECT__FLOW_RUN_ID"]
    if ledger := os.environ.get("PLUPERFECT_DEMO_LEDGER"):
        with open(ledger, "a") as lines:
            lines.write(f"{run}\n")
    while (wait := propose(run, "RUNNING")) is not None:
        time.sleep(wait)
    print(f"run {run}: working for {options.seconds} s", flush=True)
    time.sleep(options.seconds)
    if options.crash:
        return 3
    propose(run, "FAILED" if options.fail else "COMPLETED")
    # Prefect 2's engine exits with 1 when its flow has failed.
    return 1 if options.fail else 0


def propose(run: str, state_type: str) -> float | None:
    """Propose a state; return how long the server says to wait, None when it has answered."""
    url = f"{os.environ['PREFECT_API_URL']}/flow_runs/{run}/set_state"
    body = json.dumps({"state": {"type": state_type}, "force": False}).encode()
    headers = {"Content-Type": "application/json", "X-PREFECT-API-VERSION": "0.8.4"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - the agent's own URL
    for _attempt in range(30):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                found = json.load(answer)
        except OSError:
            time.sleep(1)
            continue
        if found["status"] == "WAIT":
            return float(found["details"]["delay_seconds"])
        return None
    raise SystemExit("the server does not answer")


if __name__ == "__main__":
    sys.exit(main())
