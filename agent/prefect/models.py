"""What the agent reads from Prefect's API: just those fields, typed; all others are ignored.

Ids are UUIDs and dates are pendulum's, in UTC. Servers from 2.5 to 3.x are covered; where they
differ, the field says how. `structure` is called by `agent.prefect.client` on every answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeVar, get_args, get_origin
from uuid import UUID

import attrs
import cattrs
import pendulum
from cattrs import AttributeValidationNote, IterableValidationNote
from cattrs.gen import make_dict_structure_fn
from cattrs.preconf.orjson import make_converter

T = TypeVar("T")

Status = Literal["ACCEPT", "REJECT", "ABORT", "WAIT"]
"""What a server can make of a proposed state."""


@attrs.frozen
class WorkQueue:
    """A work queue.

    Attributes:
        concurrency_limit: at most this many of its runs are pending or running; None for no limit.
        work_pool_name: the pool it belongs to; None on servers before pools (2.5 to 2.7).
    """

    id: UUID
    name: str
    is_paused: bool = False
    concurrency_limit: int | None = None
    work_pool_name: str | None = None


@attrs.frozen
class StateDetails:
    """What belongs to a state. `transition_id` is that of the request which made it."""

    transition_id: UUID | None = None
    scheduled_time: pendulum.DateTime | None = None


@attrs.frozen
class State:
    """A state of a flow run.

    Attributes:
        type: SCHEDULED, PENDING, ...: text, for a newer server may have types unknown to us.
        message: for people; servers keep what engines and agents put there.
    """

    id: UUID
    type: str
    name: str | None = None
    message: str | None = None
    timestamp: pendulum.DateTime | None = None
    state_details: StateDetails = StateDetails()


@attrs.frozen
class PastState:
    """A state that a run has or had.

    Attributes:
        data: a result, or where it is kept; it may be anything, secrets included.
    """

    id: UUID
    type: str
    name: str | None = None
    timestamp: pendulum.DateTime | None = None
    state_details: StateDetails = StateDetails()
    data: Any = attrs.field(default=None, repr=False)


@attrs.frozen
class FlowRun:
    """A flow run.

    Attributes:
        deployment_id: None for ad-hoc runs that were put on a queue.
        state: None for a run that never had one.
        job_variables: per-run overrides (3.x and late 2.x); they may hold secrets.
        retry_type: `in_process` while an engine retries the run by itself: such a run is
            Scheduled, and work queues hand it out all the same (probed on 2.20.26 and 3.8.8).
    """

    id: UUID
    name: str
    flow_id: UUID | None = None
    deployment_id: UUID | None = None
    work_queue_name: str | None = None
    state: State | None = None
    next_scheduled_start_time: pendulum.DateTime | None = None
    infrastructure_pid: str | None = None
    job_variables: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    retry_type: str | None = None


@attrs.frozen
class Deployment:
    """A deployment.

    Attributes:
        job_variables: overrides for the infrastructure; `infra_overrides` until 2.18, both names
            in 2.20, `job_variables` only in 3.x. They may hold secrets.
    """

    id: UUID
    name: str
    flow_id: UUID | None = None
    updated: pendulum.DateTime | None = None
    infrastructure_document_id: UUID | None = None
    job_variables: Mapping[str, Any] = attrs.field(factory=dict, repr=False)


@attrs.frozen
class Flow:
    """A flow."""

    id: UUID
    name: str


@attrs.frozen
class BlockDocument:
    """A block document, with its secrets and with nested documents put in by the server.

    Attributes:
        name: None for an anonymous document on some servers.
        data: the block's fields. Secrets!
        block_type_slug: e.g. `process`; None when the server does not say.
        block_document_references: which fields of `data` come from documents of their own.
    """

    id: UUID
    name: str | None = None
    data: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    block_type_slug: str | None = None
    is_anonymous: bool = False
    block_document_references: Mapping[str, Any] = attrs.field(factory=dict, repr=False)


@attrs.frozen
class StateProposal:
    """A state that we ask the server to give a run.

    Attributes:
        transition_id: makes the request exact: a repeated one is recognised by the server
            (2.14 and newer), and what it made can be told from what others made.
        data, scheduled_time: only for a state that is given back to a run.
    """

    type: str
    name: str
    message: str | None
    transition_id: UUID
    data: Any = attrs.field(default=None, repr=False)
    scheduled_time: pendulum.DateTime | None = None


@attrs.frozen
class StateAnswer:
    """What the server made of a proposal.

    Attributes:
        status: it tells little without the state: repeating an accepted request is a REJECT.
        state: that the run has now, whoever made it. Old servers answer ABORT without one.
        reason: for REJECT, ABORT and WAIT.
        delay_seconds: for WAIT: propose again after so long.
    """

    status: Status
    state: State | None = None
    reason: str | None = None
    delay_seconds: float | None = None


@attrs.frozen
class CsrfToken:
    """What `GET /csrf-token` gives."""

    token: str = attrs.field(repr=False)
    expiration: pendulum.DateTime | None = None


class Unstructurable(Exception):
    """An answer is not of the expected shape.

    Attributes:
        field: path of the first field at fault, e.g. `[3].state.id`.
        problem: what is wrong with it, in terms of types: values may be secret.
    """

    def __init__(self, field: str, problem: str) -> None:
        self.field, self.problem = field, problem
        super().__init__(f"{field} {problem}")


def structure(raw: Any, kind: type[T]) -> T:
    """Make a model of decoded JSON.

    Raises:
        Unstructurable: it is not of that shape.
    """
    if get_origin(kind) is list and not isinstance(raw, list):
        raise Unstructurable("", f"is {_KINDS.get(type(raw), 'unknown')}, expected a list")
    try:
        return _CONVERTER.structure(raw, kind)
    except (cattrs.BaseValidationError, ValueError, TypeError, KeyError) as error:
        path, cause = _first_cause(error)
        raise Unstructurable(_as_path(path), _problem(raw, path, cause)) from None


# --- reading the wire ----------------------------------------------------------------------


class _Unexpected(ValueError):
    """Something else was there. Its text is the expected type, nothing of the value."""


def _instance(expected: type[T], word: str, raw: Any) -> T:
    # bool is an int to Python, but `true` is not a number to JSON.
    if not isinstance(raw, expected) or (isinstance(raw, bool) and expected is not bool):
        raise _Unexpected(word)
    return raw


def _text(raw: Any, _type: Any) -> str:
    return _instance(str, "text", raw)


def _boolean(raw: Any, _type: Any) -> bool:
    return _instance(bool, "true or false", raw)


def _integer(raw: Any, _type: Any) -> int:
    return _instance(int, "a whole number", raw)


def _number(raw: Any, _type: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        raise _Unexpected("a number")
    return float(raw)


def _id(raw: Any, _type: Any) -> UUID:
    try:
        return UUID(_text(raw, str))
    except ValueError:
        raise _Unexpected("a UUID") from None


def _date(raw: Any, _type: Any) -> pendulum.DateTime:
    # `+00:00` until 2.20, `Z` from 3.x; without a zone it is UTC.
    try:
        return pendulum.instance(datetime.fromisoformat(_text(raw, str))).in_timezone("UTC")
    except (ValueError, OverflowError):
        raise _Unexpected("an ISO 8601 date and time") from None


def _status(raw: Any, _type: Any) -> Any:
    statuses = get_args(Status)
    if raw not in statuses:
        raise _Unexpected(f"one of {', '.join(statuses)}")
    return raw


def _mapping(raw: Any, _type: Any) -> Mapping[str, Any]:
    # `null` stands for no overrides in some servers.
    return {} if raw is None else _instance(dict, "an object", raw)


def _converter() -> cattrs.Converter:
    converter = make_converter()
    readers: Mapping[Any, Any] = {
        str: _text,
        bool: _boolean,
        int: _integer,
        float: _number,
        UUID: _id,
        pendulum.DateTime: _date,
    }
    for kind, reader in readers.items():
        converter.register_structure_hook(kind, reader)
    converter.register_structure_hook_func(lambda kind: kind == Status, _status)
    converter.register_structure_hook_func(lambda kind: kind == Mapping[str, Any], _mapping)
    for model, prepare in _MODELS.items():
        _prepare_first(converter, model, prepare)
    return converter


def _prepare_first(
    converter: cattrs.Converter,
    model: type[Any],
    prepare: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    plain = make_dict_structure_fn(model, converter)

    def read(raw: Any, kind: Any) -> Any:
        return plain(prepare(_instance(dict, "an object", raw)), kind)

    converter.register_structure_hook(model, read)


def _unchanged(raw: dict[str, Any]) -> dict[str, Any]:
    return raw


def _flow_run(raw: dict[str, Any]) -> dict[str, Any]:
    policy = raw.get("empirical_policy")
    retry_type = policy.get("retry_type") if isinstance(policy, dict) else None
    return raw | {"retry_type": retry_type}


def _deployment(raw: dict[str, Any]) -> dict[str, Any]:
    if raw.get("job_variables") is None and "infra_overrides" in raw:
        return raw | {"job_variables": raw["infra_overrides"]}
    return raw


def _block_document(raw: dict[str, Any]) -> dict[str, Any]:
    block_type = raw.get("block_type")
    if not isinstance(block_type, dict):
        # Early 2.x servers nest the type in the schema only.
        schema = raw.get("block_schema")
        block_type = schema.get("block_type") if isinstance(schema, dict) else None
    if isinstance(block_type, dict):
        return raw | {"block_type_slug": block_type.get("slug")}
    return raw


def _state_answer(raw: dict[str, Any]) -> dict[str, Any]:
    details = raw.get("details")
    details = details if isinstance(details, dict) else {}
    return raw | {
        "reason": details.get("reason"),
        "delay_seconds": details.get("delay_seconds"),
    }


# A model comes after those that it is made of.
_MODELS: Final[Mapping[type[Any], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    WorkQueue: _unchanged,
    StateDetails: _unchanged,
    State: _unchanged,
    FlowRun: _flow_run,
    Deployment: _deployment,
    Flow: _unchanged,
    BlockDocument: _block_document,
    StateAnswer: _state_answer,
    CsrfToken: _unchanged,
}

_CONVERTER: Final = _converter()


# --- saying what is wrong ------------------------------------------------------------------


def _first_cause(error: BaseException) -> tuple[tuple[str | int, ...], BaseException]:
    """Follow cattrs' groups to the first plain error, and note the way."""
    if isinstance(error, cattrs.BaseValidationError):
        for inner in error.exceptions:
            for note in getattr(inner, "__notes__", ()):
                if isinstance(note, (AttributeValidationNote, IterableValidationNote)):
                    path, cause = _first_cause(inner)
                    return (_step(note), *path), cause
    return (), error


def _step(note: AttributeValidationNote | IterableValidationNote) -> str | int:
    return note.name if isinstance(note, AttributeValidationNote) else note.index


def _as_path(path: tuple[str | int, ...]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _problem(raw: Any, path: tuple[str | int, ...], cause: BaseException) -> str:
    if isinstance(cause, KeyError):
        return "is missing"
    for step in path:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return "is not as expected"
    expected = f", expected {cause}" if isinstance(cause, _Unexpected) else ""
    return f"is {_KINDS.get(type(raw), 'of an unknown kind')}{expected}"


_KINDS: Final = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
