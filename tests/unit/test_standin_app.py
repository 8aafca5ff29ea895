"""The stand-in by itself: what conformance can't ask of a shared real server, and determinism."""

from __future__ import annotations

import ast
import base64
import random
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import httpx
import orjson
import pytest
import trio

import agent.standin
from agent.standin.app import Request, Response, StandinApp
from agent.standin.http import serve
from agent.standin.state import StandinState
from agent.standin.transport import StandinTransport

FLAVOURS = ("2.20", "3")
START = datetime(2026, 1, 1, tzinfo=UTC)


@attrs.define
class Clock:
    """A clock that stands still until it is moved."""

    time: datetime = START

    def __call__(self) -> datetime:
        return self.time

    def move(self, **by: float) -> None:
        self.time += timedelta(**by)


def seeded(seed: int = 1) -> Any:
    source = random.Random(seed)
    return lambda: UUID(int=source.getrandbits(128), version=4)


def make(flavour: str = "2.20", clock: Clock | None = None, **protection: Any) -> StandinApp:
    return StandinApp(StandinState(clock or Clock(), seeded(), flavour), **protection)


def ask(
    app: StandinApp,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    sent = b"" if body is None else orjson.dumps(body)
    return app.handle(Request(method, f"/api{path}", headers or {}, sent))


def said(answer: Response) -> Any:
    return orjson.loads(answer.body)


def a_run(app: StandinApp) -> str:
    flow = app.state.add(app.state.flows, {"name": "flow"})
    deployment, _ = app.state.create_deployment("d", flow["id"], {"work_queue_name": "q"})
    run_id: str = app.state.create_run(deployment, {"type": "SCHEDULED"}, {})["id"]
    return run_id


# --- determinism ---------------------------------------------------------------------------


def play(flavour: str) -> list[bytes]:
    """A little history, as the bytes of its answers."""
    clock = Clock()
    app = make(flavour, clock)
    answers = [ask(app, "POST", "/work_queues/", {"name": "q"})]
    answers.append(ask(app, "POST", "/flows/", {"name": "f"}))
    flow = said(answers[-1])["id"]
    body = {"name": "d", "flow_id": flow, "work_queue_name": "q"}
    answers.append(ask(app, "POST", "/deployments/", body))
    deployment = said(answers[-1])["id"]
    for _ in range(5):
        answers.append(ask(app, "POST", f"/deployments/{deployment}/create_flow_run", {}))
        clock.move(seconds=1)
    for run in app.state.runs:
        state = {"state": {"type": "PENDING"}}
        answers.append(ask(app, "POST", f"/flow_runs/{run}/set_state", state))
    answers.append(ask(app, "POST", "/flow_runs/filter", {}))
    return [answer.body for answer in answers]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_same_seed_and_clock_give_the_same_bytes(flavour: str) -> None:
    assert play(flavour) == play(flavour)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_states_stay_in_order_when_the_clock_stands_still(flavour: str) -> None:
    app = make(flavour)
    run = a_run(app)
    for type_ in ("PENDING", "RUNNING", "COMPLETED"):
        app.state.set_state(run, {"type": type_}, force=False)
    times = [datetime.fromisoformat(state["timestamp"]) for state in app.state.history[run]]
    assert times == [START + timedelta(microseconds=n) for n in range(4)]


@pytest.mark.parametrize(
    "written", ["2026-01-01T05:00:00+05:00", "2026-01-01T00:00:00", "2026-01-01T00:00:00Z"]
)
def test_a_time_given_directly_is_written_as_the_server_writes_it(written: str) -> None:
    app = make("3")
    run = a_run(app)
    details = {"scheduled_time": written}
    app.state.set_state(run, {"type": "SCHEDULED", "state_details": details}, force=False)
    assert app.state.runs[run]["next_scheduled_start_time"] == "2026-01-01T00:00:00Z"


def test_overdue_runs_become_late_once_and_keep_their_time() -> None:
    clock = Clock()
    app = make("3", clock)
    run = a_run(app)
    before = app.state.runs[run]["state"]
    assert app.state.mark_late_runs() == []
    clock.move(seconds=15)
    assert app.state.mark_late_runs() == [run]
    after = app.state.runs[run]["state"]
    assert (after["type"], after["name"]) == ("SCHEDULED", "Late")
    assert after["id"] != before["id"]
    assert after["state_details"]["scheduled_time"] == before["state_details"]["scheduled_time"]
    assert app.state.mark_late_runs() == []


def test_every_answer_tells_the_servers_time() -> None:
    assert ask(make(), "GET", "/health").headers["date"] == "Thu, 01 Jan 2026 00:00:00 GMT"
    assert "date" in ask(make(), "GET", "/nosuch").headers


# --- credentials (probed on a 3.8.8 server with PREFECT_SERVER_API_AUTH_STRING) -------------

BASIC = base64.b64encode(b"admin:pa:ss").decode()


@pytest.mark.parametrize(
    "given", [None, "", f"basic {BASIC}", f"Bearer {BASIC}", "Basic !!", "Basic YWRtaW46bm8="]
)
def test_a_wrong_password_is_unauthorised_everywhere_but_at_the_health(given: str | None) -> None:
    app = make("3", auth_string="admin:pa:ss")
    headers = {} if given is None else {"authorization": given}
    for path in ("/admin/version", "/nosuch", "/csrf-token?client=a"):
        answer = ask(app, "GET", path, headers=headers)
        assert (answer.status, said(answer)) == (401, {"exception_message": "Unauthorized"})
    assert ask(app, "GET", "/health", headers=headers).status == 200
    assert ask(app, "GET", "/ready", headers=headers).status == 200


def test_the_right_password_or_key_gets_in() -> None:
    basic = {"authorization": f"Basic {BASIC}"}
    bearer = {"authorization": "Bearer k"}
    guarded = make("3", auth_string="admin:pa:ss")
    assert ask(guarded, "GET", "/admin/version", headers=basic).status == 200
    assert ask(make(api_key="k"), "GET", "/admin/version", headers=bearer).status == 200
    assert ask(make(api_key="k"), "GET", "/admin/version", headers=basic).status == 401


def test_no_secret_is_in_the_apps_repr() -> None:
    assert "hunter2" not in repr(make(api_key="hunter2-key", auth_string="u:hunter2"))


# --- CSRF (probed on both with PREFECT_SERVER_CSRF_PROTECTION_ENABLED) ----------------------


def csrf(app: StandinApp, client: str = "c") -> dict[str, str]:
    token = said(ask(app, "GET", f"/csrf-token?client={client}"))["token"]
    return {"prefect-csrf-token": token, "prefect-csrf-client": client}


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_a_change_without_a_token_is_forbidden_before_anything_else(method: str) -> None:
    answer = ask(make(csrf=True), method, "/nosuch", {})
    assert (answer.status, said(answer)) == (403, {"detail": "Missing CSRF token."})


def test_each_way_of_having_the_wrong_token_is_forbidden_in_its_own_words() -> None:
    app = make(csrf=True)
    good = csrf(app)
    wrong = {
        "Missing client identifier.": {"prefect-csrf-token": good["prefect-csrf-token"]},
        "Missing CSRF token.": {"prefect-csrf-client": "c"},
    }
    for words, headers in wrong.items():
        assert said(ask(app, "POST", "/flows/", {"name": "f"}, headers)) == {"detail": words}
    for headers in (good | {"prefect-csrf-token": "x"}, good | {"prefect-csrf-client": "other"}):
        answer = ask(app, "POST", "/flows/", {"name": "f"}, headers)
        assert said(answer) == {"detail": "Invalid CSRF token or client identifier."}
    assert ask(app, "POST", "/flows/", {"name": "f"}, good).status == 201
    assert ask(app, "GET", "/work_queues/name/x").status == 404


def test_a_fresh_token_voids_the_one_before() -> None:
    app = make(csrf=True)
    old, new = csrf(app), csrf(app)
    assert ask(app, "POST", "/flows/", {"name": "f"}, old).status == 403
    assert ask(app, "POST", "/flows/", {"name": "f"}, new).status == 201


def test_a_token_lasts_an_hour_or_until_it_is_forgotten() -> None:
    clock = Clock()
    app = make(clock=clock, csrf=True)
    token = csrf(app)
    clock.move(minutes=59)
    assert ask(app, "POST", "/flows/", {"name": "f"}, token).status == 201
    clock.move(minutes=2)
    assert ask(app, "POST", "/flows/", {"name": "f"}, token).status == 403
    token = csrf(app)
    app.forget_csrf_tokens()
    assert ask(app, "POST", "/flows/", {"name": "f"}, token).status == 403


# --- carriers ------------------------------------------------------------------------------


async def test_httpx_reaches_the_app_without_a_socket() -> None:
    app = make()
    async with httpx.AsyncClient(
        transport=StandinTransport(app), base_url="http://standin/api"
    ) as client:
        made = await client.post("/work_queues/", json={"name": "a b?"})
        found = await client.get("/work_queues/name/a%20b%3F")
        gone = await client.delete(f"/work_queues/{made.json()['id']}")
    assert made.status_code == 201
    assert found.json() == made.json()
    assert (gone.status_code, gone.content) == (204, b"")


async def test_many_requests_go_over_one_connection_and_many_connections_at_once(
    nursery: trio.Nursery,
) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(serve, make(), listeners)
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/api"
    answers: list[int] = []

    async def use(client: httpx.AsyncClient, name: str) -> None:
        for method, path, body in (
            ("POST", "/work_queues/", {"name": name}),
            ("GET", f"/work_queues/name/{name}", None),
            ("GET", "/nosuch", None),
        ):
            answer = await client.request(method, path, json=body)
            answers.append(answer.status_code)

    async with httpx.AsyncClient(base_url=url) as client, trio.open_nursery() as users:
        for number in range(20):
            users.start_soon(use, client, f"q{number}")
    assert sorted(answers) == [200] * 20 + [201] * 20 + [404] * 20
    nursery.cancel_scope.cancel()


async def test_a_client_that_talks_nonsense_or_goes_away_harms_nobody(
    nursery: trio.Nursery,
) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(serve, make(), listeners)
    port = listeners[0].socket.getsockname()[1]
    for sent in (b"nonsense\r\n\r\n", b"POST /api/flows/ HTTP/1.1\r\nhost: x\r\ncontent-length: 9"):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(sent)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/api/health")
    assert answer.json() is True
    nursery.cancel_scope.cancel()


# --- the house rule ------------------------------------------------------------------------


def imported_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_the_stand_in_imports_nothing_of_the_daemons() -> None:
    folder = Path(agent.standin.__path__[0])
    # The demo is a user of both: it starts an agent against the stand-in and reads its log.
    for path in folder.glob("*.py"):
        ours = {n for n in imported_names(path) if n.split(".")[0] in ("agent", "events", "replay")}
        if path.name != "demo.py":
            assert all(name.startswith("agent.standin") for name in ours), path


def test_the_engine_is_a_script_of_the_standard_library() -> None:
    engine = Path(agent.standin.__path__[0]) / "engine.py"
    roots = {name.split(".")[0] for name in imported_names(engine)}
    assert roots <= sys.stdlib_module_names
