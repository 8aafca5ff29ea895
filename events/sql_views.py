"""SQL views in the log itself: `submissions`, `state_spans` and `events`.

With them sqlite3, Datasette or DuckDB can be pointed at a log (docs/sql.md). `events.sqlite_file`
puts them there; nothing of ours reads them, and no record depends on them.

SQL can't call `evolve`, so what the views say of a type is generated from the table of moves, and a
test compares every column with the fold. Each column is a lookup of its own: a query pays for those
that it uses, and `ORDER BY … LIMIT 50` for fifty submissions and not for all.

The syntax is older than the log's own (3.37): a SQLite that can't parse a view can't read the file,
and DuckDB carries an old one, after having read the view with a parser of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Final

import attrs

from events import lifecycle, notices, observations
from events.lifecycle import (
    TRANSITIONS,
    EffectDeferred,
    Event,
    InfrastructureExited,
    LaunchConfirmed,
    LaunchRepeated,
    LaunchVoided,
    OutcomeProposed,
    OutcomeSettled,
    PendingRefused,
    RecoveryStarted,
    RunDiscovered,
    State,
    SubmissionCancelled,
    SubmissionFailed,
    Transition,
)
from events.notices import AGENT_STREAM, AgentStarted, Notice
from events.observations import InfrastructureResolved, Observation


def _states_entered() -> dict[type[Transition], State]:
    """Return, for each transition that can change the state, the one state that it leads to."""
    entered: dict[type[Transition], State] = {}
    for source, moves in TRANSITIONS.items():
        entered |= {type_: target for type_, target in moves.items() if target is not source}
    return entered


ENTERS: Final[Mapping[type[Transition], State]] = _states_entered()
"""Which state a transition leads to, whatever it came from; those that never move are not in it."""

_ORDER: Final = {"first": "", "last": " DESC"}


def _types(*kinds: type[Event]) -> str:
    names = ", ".join(f"'{kind.__name__}'" for kind in kinds)
    return f"IN ({names})" if len(kinds) > 1 else f"= {names}"


def _field(name: str, *kinds: type[Event]) -> str:
    """Return the SQL of a field, or of a value in it, after a look at whether each event has it."""
    for kind in kinds:
        if name.partition(".")[0] not in attrs.fields_dict(kind):
            raise LookupError(f"{kind.__name__} has no field {name}")
    return f"json_extract(data, '$.{name}')"


def _found(which: str, kinds: Iterable[type[Event]], what: str) -> str:
    """Return the SQL of something in the first or last record of some types in a stream."""
    return (
        f"(SELECT {what} FROM records AS r WHERE r.stream = began.stream"
        f" AND r.type {_types(*kinds)} ORDER BY r.version{_ORDER[which]} LIMIT 1)"
    )


def _discovered(name: str) -> str:
    return _found("first", [RunDiscovered], _field(name, RunDiscovered))


def _last(name: str, *kinds: type[Event]) -> str:
    return _found("last", kinds, _field(name, *kinds))


def _label(name: str) -> str:
    return _last(f'labels."{name}"', InfrastructureResolved)


def _count(*kinds: type[Event], what: str = "count(version)") -> str:
    return (
        f"(SELECT {what} FROM records AS r WHERE r.stream = began.stream"
        f" AND r.type {_types(*kinds)})"
    )


# --- states --------------------------------------------------------------------------------

_MOVES: Final = f"type {_types(*ENTERS)}"
_STATE: Final = (
    "CASE {0}.type "
    + " ".join(f"WHEN '{kind.__name__}' THEN '{state.value}'" for kind, state in ENTERS.items())
    + " END"
)


def _state_at(of: str, condition: str = "") -> str:
    """Return the SQL of the state that the last move led to in the stream of `of`."""
    return (
        f"(SELECT {_STATE.format('m')} FROM records AS m WHERE m.stream = {of}.stream"
        f" AND m.{_MOVES}{condition} ORDER BY m.version DESC LIMIT 1)"
    )


# --- time ----------------------------------------------------------------------------------

_END: Final = "(SELECT max(position) FROM records)"


def _closing(of: str, what: str) -> str:
    return (
        f"(SELECT {what} FROM records AS c WHERE c.stream = {of}.stream AND c.closes = 1"
        " ORDER BY c.version DESC LIMIT 1)"
    )


def _boot(position: str) -> str:
    return (
        f"(SELECT {_field('boot_id', AgentStarted)} FROM records AS a"
        f" WHERE a.stream = '{AGENT_STREAM}' AND a.type {_types(AgentStarted)}"
        f" AND a.position <= {position} ORDER BY a.version DESC LIMIT 1)"
    )


def _seconds(since: str, until: str) -> str:
    """Return the SQL of the time between two records.

    As in `replay.timeline`: the monotonic clock within one boot, else the wall clock. After a
    reboot the monotonic one has lost at least the time that the host had been up, so where both
    agree to a second it was one boot; only where they don't are the agents asked which it was.
    """
    wall = (
        f"(strftime('%s', substr({until}.recorded_at, 1, 19)) + substr({until}.recorded_at, 20, 7)"
        f" - strftime('%s', substr({since}.recorded_at, 1, 19))"
        f" - substr({since}.recorded_at, 20, 7))"
    )
    boots = f"({until}.monotonic_ns - {since}.monotonic_ns) / 1e9"
    return (
        f"CASE WHEN abs({wall} - {boots}) < 1"
        f" OR {_boot(f'{since}.position')} = {_boot(f'{until}.position')}"
        f" THEN {boots} ELSE round({wall}, 6) END"
    )


# --- the views -----------------------------------------------------------------------------

_ENDINGS: Final = (PendingRefused, SubmissionFailed, SubmissionCancelled)

_SUBMISSIONS: Final[Mapping[str, str]] = {
    "position": "began.position",
    "stream": "began.stream",
    "flow_run_id": _discovered("flow_run_id"),
    "run_name": _discovered("run_name"),
    "queue": _discovered("queue"),
    "deployment_name": _label("prefect.io/deployment-name"),
    "flow_name": _label("prefect.io/flow-name"),
    "deployment_id": _discovered("deployment_id"),
    "flow_id": _discovered("flow_id"),
    "ordinal": _discovered("ordinal"),
    "attempt": _discovered("attempt"),
    "scheduled_time": _discovered("scheduled_time"),
    "launch_key": _discovered("launch_key"),
    "state": f"ifnull({_state_at('began')}, '{State.ABSENT.value}')",
    "open": "EXISTS (SELECT 1 FROM open_streams AS o WHERE o.position = began.position)",
    "began": "began.recorded_at",
    "ended": _closing("began", "c.recorded_at"),
    "seconds": f"(SELECT {_seconds('began', 'e')} FROM records AS e"
    f" WHERE e.position = ifnull({_closing('began', 'c.position')}, {_END}))",
    "infrastructure_pid": _last("infrastructure_pid", LaunchConfirmed),
    "exit_code": _last("exit_code", InfrastructureExited),
    "failed_step": _last("step", SubmissionFailed),
    "reported": _last("state_type", OutcomeProposed),
    "server_state": _last("server_state", OutcomeSettled, PendingRefused, SubmissionCancelled),
    "reason": "coalesce("
    + _found(
        "last", _ENDINGS, "coalesce(json_extract(data, '$.error'), json_extract(data, '$.reason'))"
    )
    + f", nullif({_last('reason', InfrastructureExited)}, '')"
    + f", nullif({_last('message', OutcomeProposed)}, ''))",
    "recoveries": _count(RecoveryStarted),
    "waits": _count(EffectDeferred),
    "waits_seconds": _count(
        EffectDeferred, what=f"total({_field('delay_seconds', EffectDeferred)})"
    ),
    "voided_launches": _count(LaunchVoided, LaunchRepeated),
    "records": "(SELECT max(version) FROM records AS r WHERE r.stream = began.stream)",
}

# Resolution can begin again while it is under way: that is a move in the table, and no new span.
_STAYED: Final = _state_at("moved", " AND m.version < moved.version")
_NEXT: Final = (
    "(SELECT {0} FROM records AS n WHERE n.stream = moved.stream AND n.version > moved.version"
    f" AND n.{_MOVES} AND {_STATE.format('n')} <> {_STATE.format('moved')}"
    " ORDER BY n.version LIMIT 1)"
)
_SPANS: Final[Mapping[str, str]] = {
    "position": "moved.position",
    "stream": "moved.stream",
    "state": _STATE.format("moved"),
    "began": "moved.recorded_at",
    "ended": f"ifnull({_NEXT.format('n.recorded_at')}, {_closing('moved', 'c.recorded_at')})",
    "seconds": f"(SELECT {_seconds('moved', 'e')} FROM records AS e WHERE e.position ="
    f" coalesce({_NEXT.format('n.position')}, {_closing('moved', 'c.position')}, {_END}))",
}


def _family(module: ModuleType, family: type[Event]) -> str:
    # Not `events.codec.EVENT_TYPES`: whoever opens a log would wait for cattrs.
    members = [value for value in vars(module).values() if isinstance(value, type)]
    kinds = [kind for kind in members if issubclass(kind, family) and kind is not family]
    return f"WHEN r.type {_types(*kinds)} THEN '{family.__name__.lower()}'"


_EVENTS: Final[Mapping[str, str]] = {
    "position": "r.position",
    "stream": "r.stream",
    "version": "r.version",
    "recorded_at": "r.recorded_at",
    "family": f"CASE {_family(lifecycle, Transition)} {_family(observations, Observation)}"
    f" {_family(notices, Notice)} ELSE 'unknown' END",
    "type": "r.type",
    "state": f"{_state_at('r', ' AND m.version <= r.version')}",
    "cause": "r.cause",
    "closes": "r.closes",
    "data": "r.data",
}


def _view(name: str, columns: Mapping[str, str], rest: str) -> str:
    lines = ",\n".join(f"  {sql} AS {column}" for column, sql in columns.items())
    return f"CREATE VIEW {name} AS SELECT\n{lines}\n{rest}"


VIEWS: Final[Mapping[str, str]] = {
    "submissions": _view(
        "submissions",
        _SUBMISSIONS,
        f"FROM records AS began WHERE began.version = 1 AND began.stream <> '{AGENT_STREAM}'",
    ),
    "state_spans": _view(
        "state_spans",
        _SPANS,
        f"FROM records AS moved WHERE moved.{_MOVES}"
        f" AND {_STATE.format('moved')} <> ifnull({_STAYED}, '')",
    ),
    "events": _view("events", _EVENTS, "FROM records AS r"),
}
"""The name of each view, and the statement that makes it, as SQLite keeps it."""
