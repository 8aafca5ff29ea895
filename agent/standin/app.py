"""The stand-in server's routes: a request in, an answer out, no sockets.

`http` serves this on the loopback interface, `transport` plugs it into httpx inside one process.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import attrs
import orjson

from agent.standin.state import JSON, STATE_TYPES, Refusal, StandinState, mask_secrets, not_found


@attrs.frozen
class Request:
    """An HTTP request. Header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@attrs.frozen
class Response:
    """An HTTP answer; the body is JSON."""

    status: int
    body: bytes

    @classmethod
    def of(cls, status: int, content: Any) -> Response:
        """Encode an answer; None is no body."""
        return cls(status, b"" if content is None else orjson.dumps(content))


Handler = Callable[["StandinApp", JSON, Mapping[str, str], str], tuple[int, Any]]

ROUTES: Final[list[tuple[str, re.Pattern[str], Handler]]] = []


def route(method: str, path: str) -> Callable[[Handler], Handler]:
    """Register a handler of (app, body, query, id in the path)."""

    def register(handler: Handler) -> Handler:
        pattern = re.compile(re.sub(r"\{\w+\}", "([^/]+)", path))
        ROUTES.append((method, pattern, handler))
        return handler

    return register


@attrs.define(eq=False)
class StandinApp:
    """The server: its state, and how it lets requests in.

    Attributes:
        api_key: bearer key that is asked for; None lets everybody in.
        auth_string: `user:password` that is asked for.
        csrf: whether changing requests need a token.
    """

    state: StandinState
    api_key: str | None = None
    auth_string: str | None = None
    csrf: bool = False

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        url = urlsplit(request.target)
        path = url.path.removeprefix("/api")
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        try:
            self._let_in(request, path)
            handler, id_ = _find(request.method, path)
            body = _json(request.body)
            return Response.of(*handler(self, body, query, id_))
        except Refusal as refusal:
            return Response.of(refusal.status, refusal.body)

    def _let_in(self, request: Request, path: str) -> None:
        if path in ("/health", "/ready"):
            return
        given = request.headers.get("authorization", "")
        if self.auth_string is not None:
            wanted = "Basic " + base64.b64encode(self.auth_string.encode()).decode()
        else:
            wanted = "" if self.api_key is None else f"Bearer {self.api_key}"
        if wanted and given != wanted:
            raise Refusal(401, {"exception_message": "Unauthorized"})
        version = request.headers.get("x-prefect-api-version", "0.8.4")
        if not re.fullmatch(r"\d+\.\d+\.\d+", version):
            detail = (
                "Invalid X-PREFECT-API-VERSION header format. Expected header in format 'x.y.z'"
            )
            raise Refusal(400, {"detail": detail})
        if tuple(map(int, version.split("."))) < (0, 8, 0):
            detail = (
                f"The request specified API version {version} but this server requires version"
                " 0.8.0 or higher."
            )
            raise Refusal(400, {"detail": detail})
        if self.csrf and request.method != "GET":
            token = request.headers.get("prefect-csrf-token")
            if token != _csrf_token(request.headers.get("prefect-csrf-client", "")):
                raise Refusal(403, {"detail": "Invalid CSRF token or client identifier."})


def _csrf_token(client: str) -> str:
    return f"token-of-{client}"


def _find(method: str, path: str) -> tuple[Handler, str]:
    for wanted, pattern, handler in ROUTES:
        if wanted == method and (match := pattern.fullmatch(path)):
            return handler, match[1] if match.groups() else ""
    raise Refusal(404, {"detail": "Not Found"})


def _json(body: bytes) -> JSON:
    try:
        found = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        raise _invalid("body", "JSON decode error") from None
    if not isinstance(found, dict):
        raise _invalid("body", "Input should be a valid dictionary")
    return found


def _invalid(where: str, message: str) -> Refusal:
    return Refusal(
        422,
        {
            "exception_message": "Invalid request received.",
            "exception_detail": [{"loc": [where], "msg": message}],
        },
    )


def _id(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        raise _invalid("path", "Input should be a valid UUID") from None


def _time(value: str | None) -> datetime | None:
    if value is None:
        return None
    when = datetime.fromisoformat(value)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _one(table: Mapping[str, JSON], id_: str, what: str) -> JSON:
    try:
        return table[_id(id_)]
    except KeyError:
        raise not_found(what) from None


def _limit(body: JSON, most: int = 200) -> int:
    limit = body.get("limit")
    if limit is None:
        return most
    if not isinstance(limit, int) or not 0 <= limit <= most:
        raise _invalid("limit", f"Invalid limit: must be less than or equal to {most}.")
    return limit


# --- the server itself ---------------------------------------------------------------------


@route("GET", "/health")
def _health(_app: StandinApp, _body: JSON, _query: Mapping[str, str], _id_: str) -> tuple[int, Any]:
    return 200, True


@route("GET", "/csrf-token")
def _csrf(app: StandinApp, _body: JSON, query: Mapping[str, str], _id_: str) -> tuple[int, Any]:
    if not app.csrf:
        raise Refusal(422, {"detail": "CSRF protection is disabled."})
    client = query.get("client", "")
    expiration = app.state.now().replace(year=app.state.now().year + 1)
    token = {"token": _csrf_token(client), "client": client}
    return 200, token | {"expiration": app.state.timestamp(expiration)}


# --- work queues ---------------------------------------------------------------------------


@route("GET", "/work_queues/name/{name}")
def _queue_by_name(app: StandinApp, _b: JSON, _q: Mapping[str, str], name: str) -> tuple[int, Any]:
    return 200, app.state.queue_named(name)


@route("POST", "/work_queues/")
def _create_queue(app: StandinApp, body: JSON, _q: Mapping[str, str], _i: str) -> tuple[int, Any]:
    return 201, app.state.create_queue(**{k: v for k, v in body.items() if v is not None})


@route("POST", "/work_queues/filter")
def _filter_queues(app: StandinApp, body: JSON, _q: Mapping[str, str], _i: str) -> tuple[int, Any]:
    names = ((body.get("work_queues") or {}).get("name")) or {}
    prefixes = tuple(names.get("startswith_") or ("",))
    found = [q for q in app.state.queues.values() if q["name"].startswith(prefixes)]
    offset = body.get("offset") or 0
    return 200, sorted(found, key=lambda q: str(q["name"]))[offset : offset + _limit(body)]


@route("POST", "/work_queues/{id}/get_runs")
def _get_runs(app: StandinApp, body: JSON, _q: Mapping[str, str], id_: str) -> tuple[int, Any]:
    queue = _one(app.state.queues, id_, "work queue")
    return 200, app.state.scheduled_runs(queue, _limit(body), _time(body.get("scheduled_before")))


@route("PATCH", "/work_queues/{id}")
def _update_queue(app: StandinApp, body: JSON, _q: Mapping[str, str], id_: str) -> tuple[int, Any]:
    _one(app.state.queues, id_, "work queue").update(body)
    return 204, None


# --- flows, deployments, blocks ------------------------------------------------------------


@route("POST", "/flows/")
def _create_flow(app: StandinApp, body: JSON, _q: Mapping[str, str], _i: str) -> tuple[int, Any]:
    for flow in app.state.flows.values():
        if flow["name"] == body["name"]:
            return 200, flow
    return 201, app.state.add(app.state.flows, {"name": body["name"], "tags": []})


@route("GET", "/flows/{id}")
def _read_flow(app: StandinApp, _b: JSON, _q: Mapping[str, str], id_: str) -> tuple[int, Any]:
    return 200, _one(app.state.flows, id_, "Flow")


@route("POST", "/deployments/")
def _create_deployment(
    app: StandinApp, body: JSON, _q: Mapping[str, str], _i: str
) -> tuple[int, Any]:
    name = body.get("work_queue_name") or "default"
    queue = next((q for q in app.state.queues.values() if q["name"] == name), None)
    queue = queue or app.state.create_queue(name)
    variables = body.get("job_variables") or body.get("infra_overrides") or {}
    fields = {
        "name": body["name"],
        "flow_id": body["flow_id"],
        "work_queue_id": queue["id"],
        "work_queue_name": name,
        "infrastructure_document_id": body.get("infrastructure_document_id"),
        "job_variables": variables,
    }
    if app.state.flavour != "3":
        fields["infra_overrides"] = variables
    return 201, app.state.add(app.state.deployments, fields)


@route("GET", "/deployments/{id}")
def _read_deployment(app: StandinApp, _b: JSON, _q: Mapping[str, str], id_: str) -> tuple[int, Any]:
    return 200, _one(app.state.deployments, id_, "Deployment")


@route("DELETE", "/deployments/{id}")
def _delete_deployment(
    app: StandinApp, _b: JSON, _q: Mapping[str, str], id_: str
) -> tuple[int, Any]:
    del app.state.deployments[_one(app.state.deployments, id_, "Deployment")["id"]]
    return 204, None


@route("POST", "/deployments/{id}/create_flow_run")
def _create_run(app: StandinApp, body: JSON, _q: Mapping[str, str], id_: str) -> tuple[int, Any]:
    deployment = _one(app.state.deployments, id_, "Deployment")
    state = body.get("state") or {"type": "SCHEDULED"}
    return 201, app.state.create_run(deployment, state, body)


@route("GET", "/block_documents/{id}")
def _read_block(app: StandinApp, _b: JSON, query: Mapping[str, str], id_: str) -> tuple[int, Any]:
    block = _one(app.state.blocks, id_, "Block document")
    return 200, block if query.get("include_secrets") == "true" else mask_secrets(block)


# --- flow runs -----------------------------------------------------------------------------


@route("POST", "/flow_runs/filter")
def _filter_runs(app: StandinApp, body: JSON, _q: Mapping[str, str], _i: str) -> tuple[int, Any]:
    wanted = body.get("flow_runs") or {}
    ids = (wanted.get("id") or {}).get("any_")
    types = ((wanted.get("state") or {}).get("type") or {}).get("any_")
    found = [
        run
        for run in app.state.runs.values()
        if (ids is None or run["id"] in ids) and (types is None or run["state"]["type"] in types)
    ]
    offset = body.get("offset") or 0
    return 200, found[offset : offset + _limit(body)]


@route("GET", "/flow_run_states/")
def _run_states(app: StandinApp, _b: JSON, query: Mapping[str, str], _i: str) -> tuple[int, Any]:
    return 200, app.state.history.get(query.get("flow_run_id", ""), [])


@route("GET", "/flow_runs/{id}")
def _read_run(app: StandinApp, _b: JSON, _q: Mapping[str, str], id_: str) -> tuple[int, Any]:
    return 200, app.state.run(_id(id_))


@route("PATCH", "/flow_runs/{id}")
def _update_run(app: StandinApp, body: JSON, _q: Mapping[str, str], id_: str) -> tuple[int, Any]:
    app.state.run(_id(id_)).update({k: v for k, v in body.items() if k == "infrastructure_pid"})
    return 204, None


@route("DELETE", "/flow_runs/{id}")
def _delete_run(app: StandinApp, _b: JSON, _q: Mapping[str, str], id_: str) -> tuple[int, Any]:
    del app.state.runs[app.state.run(_id(id_))["id"]]
    return 204, None


@route("POST", "/flow_runs/{id}/set_state")
def _set_state(app: StandinApp, body: JSON, _q: Mapping[str, str], id_: str) -> tuple[int, Any]:
    proposed = body.get("state")
    if not isinstance(proposed, dict) or proposed.get("type") not in STATE_TYPES:
        raise _invalid("state", "Input should be a valid state")
    return app.state.set_state(_id(id_), proposed, force=bool(body.get("force")))
