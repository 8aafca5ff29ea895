"""The filters of `POST /flow_runs/filter` and `/count`: those that agents and the tests use.

A filter that the stand-in does not know is refused, never ignored: an ignored one would let a
client pass that asks for too much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from agent.standin.bodies import Fields, read_id, read_state_type
from agent.standin.refusals import JSON
from agent.standin.wire import POOL_NAME

Test = Callable[[JSON], bool]

_ORDERS: Final = (
    "ID_DESC",
    "START_TIME_ASC",
    "START_TIME_DESC",
    "EXPECTED_START_TIME_ASC",
    "EXPECTED_START_TIME_DESC",
    "NAME_ASC",
    "NAME_DESC",
    "NEXT_SCHEDULED_START_TIME_ASC",
    "END_TIME_DESC",
)


def read_filters(
    fields: Fields, deployments: Mapping[str, JSON], flows: Mapping[str, JSON]
) -> list[Test]:
    """Read the filters of a request's body, noting there what is wrong with them.

    Returns:
        what a run has to pass, all of it.
    """
    tests: list[Test] = []
    runs = fields.nested("flow_runs")
    if runs is not None:
        tests += _read_run_filter(runs)
    tests += _read_named(fields, "deployments", "deployment_id", deployments)
    tests += _read_named(fields, "flows", "flow_id", flows)
    queue = fields.nested("work_pool_queues")
    if queue is not None:
        tests += _read_any(queue, "name", lambda run: run["work_queue_name"])
        tests += _read_any(queue, "id", lambda run: run["work_queue_id"], _id_text)
        queue.forbid_others()
    pool = fields.nested("work_pools")
    if pool is not None:
        tests += _read_any(pool, "name", lambda run: POOL_NAME if run["work_queue_id"] else None)
        pool.forbid_others()
    return tests


def _id_text(value: Any) -> str:
    return str(read_id(value))


def _read_run_filter(fields: Fields) -> list[Test]:
    tests = _read_any(fields, "id", lambda run: run["id"], _id_text, inverse=True)
    tests += _read_any(fields, "name", lambda run: run["name"])
    tests += _read_any(fields, "deployment_id", lambda run: run["deployment_id"], _id_text)
    tests += _read_any(fields, "work_queue_name", lambda run: run["work_queue_name"])
    state = fields.nested("state")
    if state is not None:
        # 2.20 has no `not_any_` for states, and refuses it.
        inverse = state.flavour.name == "3"
        tests += _read_any(
            state, "type", lambda run: run["state"]["type"], read_state_type, inverse=inverse
        )
        tests += _read_any(state, "name", lambda run: run["state"]["name"], inverse=inverse)
        state.forbid_others()
    fields.forbid_others()
    return tests


def _read_named(fields: Fields, name: str, own: str, table: Mapping[str, JSON]) -> list[Test]:
    nested = fields.nested(name)
    if nested is None:
        return []
    tests = _read_any(nested, "id", lambda run: run[own], _id_text)
    tests += _read_any(nested, "name", lambda run: table.get(run[own], {}).get("name"))
    nested.forbid_others()
    return tests


def _read_any(
    fields: Fields,
    name: str,
    own: Callable[[JSON], Any],
    read: Callable[[Any], Any] | None = None,
    *,
    inverse: bool = False,
) -> list[Test]:
    """Read `{name: {"any_": [...]}}`, and `not_any_` where it exists. An empty any_ has no run."""
    nested = fields.nested(name)
    if nested is None:
        return []
    tests: list[Test] = []
    wanted = nested.items("any_", read)
    if wanted is not None:
        tests.append(lambda run: own(run) in wanted)
    unwanted = nested.items("not_any_", read) if inverse else None
    if unwanted is not None:
        tests.append(lambda run: own(run) not in unwanted)
    nested.forbid_others()
    return tests


def read_order(value: Any) -> str:
    """Read the name of an order."""
    if value not in _ORDERS:
        raise ValueError(f"Input should be one of {', '.join(_ORDERS)}")
    return str(value)


def in_order(runs: Iterable[JSON], order: str | None) -> list[JSON]:
    """Sort runs; without an order as `ID_DESC`, as the servers do."""
    field, _, direction = (order or "ID_DESC").rpartition("_")
    by_id = sorted(runs, key=lambda run: str(run["id"]))
    return sorted(by_id, key=lambda run: str(run[field.lower()]), reverse=direction == "DESC")
