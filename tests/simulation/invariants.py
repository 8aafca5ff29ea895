"""What must hold in every simulation: at the end here, all the time in `simulator`."""

from __future__ import annotations

from events.notices import AGENT_STREAM
from replay.verification import Tally, verify
from tests.simulation.simulator import CANARY, Simulation

ENDED = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


def at_rest(simulation: Simulation) -> bool:
    """Tell whether nothing is left to be done."""
    world = simulation.world
    streams = {s for a in simulation.agents for s in a.store.open_streams()} - {AGENT_STREAM}
    commands = simulation.processes.commands.values()
    return (
        not streams
        and all(command.ended.is_set() for command in commands)
        and all(run["state"]["type"] != "SCHEDULED" for run in world.state.runs.values())
    )


def check_at_the_end(simulation: Simulation) -> None:
    """Complain of everything that is not as it has to be once the faults have stopped."""
    _check_runs(simulation)
    _check_logs(simulation)


def _check_runs(simulation: Simulation) -> None:
    launches = simulation.processes.launches
    for run, scheduled in simulation.scheduled.items():
        launched = launches.count(run)
        if launched > scheduled:
            simulation.complain(f"{run}: launched {launched} times, scheduled {scheduled} times")
        if run not in simulation.world.state.runs:
            continue
        state = simulation.world.state_of(run)
        if state == "RUNNING" and run in simulation.touched and launched > 1:
            # A person scheduled it anew while its command lived: docs/recovery.md, what is not
            # covered.
            continue
        if state not in ENDED:
            simulation.complain(f"{run}: is {state} at the end, launched {launched} times")
        elif run not in simulation.touched and not launched and state not in ("FAILED", "CRASHED"):
            simulation.complain(f"{run}: is {state}, but was never launched")


def _check_logs(simulation: Simulation) -> None:
    for agent in simulation.agents:
        store = agent.store
        left = set(store.open_streams()) - {AGENT_STREAM}
        if left:
            simulation.complain(f"agent {agent.number} still owes something about {left}")
        for divergence in verify(store, store.log_id, Tally()):
            simulation.complain(f"agent {agent.number}: {divergence}")
        for record in store.read_all():
            if CANARY in record.data:
                simulation.complain(f"a secret is in the log at {record.position}")
            if "internal error" in record.data:
                simulation.complain(f"{record.stream}: {record.type} {record.data}")
