"""Arranges and looks at things on any Prefect server, real or stand-in, through REST alone.

For the conformance tests, and for every test that needs a deployment and some runs on a server
without caring which. Speaks httpx and JSON only, so that it shares no code with the client under
test.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import attrs
import httpx

JSON = dict[str, Any]

BUSY_TRIES = 40

NOBODY = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
"""An id that nothing has."""


def soon(seconds: float) -> str:
    """A time so many seconds from now, ISO 8601."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def new_run(server: Rest, *, in_seconds: float = -5.0) -> str:
    """A scheduled run, overdue unless told otherwise, on a queue of its own."""
    return server.schedule(server.deployment(f"queue-{uuid4()}"), in_seconds=in_seconds)


class _Patient(httpx.HTTPTransport):
    """Tries again while SQLite is busy, on a connection of its own each time.

    After a 503 both real servers close the connection without saying so: the next request on a
    kept one would be reset.
    """

    def __init__(self) -> None:
        super().__init__(limits=httpx.Limits(max_keepalive_connections=0))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for _ in range(BUSY_TRIES):
            answer = super().handle_request(request)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return answer
            answer.close()
        return super().handle_request(request)


@attrs.frozen
class Proposed:
    """What the server made of a proposed state."""

    http_status: int
    status: str
    state: JSON
    details: JSON

    @property
    def reason(self) -> str | None:
        """The server's words, None for ACCEPT."""
        found: str | None = self.details.get("reason")
        return found


class Rest:
    """A server's REST API, as a person with curl would use it.

    Args:
        url: PREFECT_API_URL.
        flavour: "2.20" or "3": what kind of server it is or plays.
    """

    def __init__(self, url: str, flavour: str) -> None:
        self.url, self.flavour = url, flavour
        self.http = httpx.Client(
            base_url=url, timeout=90, transport=_Patient(), follow_redirects=False
        )

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """Make a request and return the answer, whatever it is."""
        return self.http.request(method, path, json=body, **options)

    def get(self, path: str) -> Any:
        """Read something that is there."""
        return self._expect(self.ask("GET", path))

    def post(self, path: str, body: JSON) -> Any:
        """Post something that is taken."""
        return self._expect(self.ask("POST", path, body))

    def patch(self, path: str, body: JSON) -> None:
        """Change something that is there."""
        self._expect(self.ask("PATCH", path, body))

    def _expect(self, answer: httpx.Response) -> Any:
        assert answer.is_success, f"{answer.request.method} {answer.url}: {answer.text[:500]}"
        return answer.json() if answer.content else None

    # --- arranging ---------------------------------------------------------------------------

    def queue(self, name: str | None = None, **fields: Any) -> JSON:
        """Make a work queue, by default one that nobody else uses."""
        body = {"name": name or f"queue-{uuid4()}"} | fields
        queue: JSON = self.post("/work_queues/", body)
        return queue

    def deployment(
        self,
        queue: str,
        *,
        infrastructure: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> JSON:
        """Make a deployment, and a flow of its own, on a queue.

        Args:
            queue: the queue's name.
            infrastructure: id of a block document.
            overrides: infra_overrides or job_variables, under the name that the server takes.
        """
        flow = self.post("/flows/", {"name": f"flow-{uuid4()}"})
        kind = "infra_overrides" if self.flavour == "2.20" else "job_variables"
        body = {
            "name": f"deployment-{uuid4()}",
            "flow_id": flow["id"],
            "work_queue_name": queue,
            "infrastructure_document_id": infrastructure,
            kind: dict(overrides or {}),
        }
        deployment: JSON = self.post("/deployments/", body | fields)
        return deployment

    def block(self, slug: str, data: JSON, *, name: str | None = None) -> JSON:
        """Make a block document, anonymous unless it has a name.

        3.x has no infrastructure block types any more, but takes them when they are made.
        """
        type_id = self._block_type(slug)
        filters = {"block_schemas": {"block_type_id": {"any_": [type_id]}}}
        schema = self.post("/block_schemas/filter", filters)[0]
        body = {
            "data": data,
            "block_type_id": type_id,
            "block_schema_id": schema["id"],
            "is_anonymous": name is None,
        }
        document: JSON = self.post(
            "/block_documents/", body if name is None else body | {"name": name}
        )
        return document

    def _block_type(self, slug: str) -> str:
        answer = self.ask("GET", f"/block_types/slug/{slug}")
        if answer.status_code != httpx.codes.NOT_FOUND:
            found: str = self._expect(answer)["id"]
            return found
        made: str = self.post("/block_types/", {"name": slug.title(), "slug": slug})["id"]
        fields = {"title": slug.title(), "type": "object", "properties": {}, "secret_fields": []}
        fields |= {"block_type_slug": slug, "block_schema_references": {}}
        schema = {"fields": fields, "block_type_id": made, "capabilities": ["run-infrastructure"]}
        self.post("/block_schemas/", schema)
        return made

    def schedule(
        self,
        deployment: JSON,
        *,
        in_seconds: float = -5.0,
        at: datetime | None = None,
        **fields: Any,
    ) -> str:
        """Schedule a run of a deployment, by default an overdue one, and return its id."""
        due = at or datetime.now(UTC) + timedelta(seconds=in_seconds)
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
        path = f"/deployments/{deployment['id']}/create_flow_run"
        run_id: str = self.post(path, {"state": state} | fields)["id"]
        return run_id

    # --- acting and looking ------------------------------------------------------------------

    def propose(
        self,
        run_id: str,
        type_: str,
        name: str | None = None,
        *,
        transition_id: str | None = None,
        scheduled_time: str | None = None,
        force: bool = False,
        **fields: Any,
    ) -> Proposed:
        """Propose a state, with a transition id that is new unless one is given."""
        details = {"transition_id": transition_id or str(uuid4()), "scheduled_time": scheduled_time}
        state = {"type": type_, "name": name, "state_details": details} | fields
        answer = self.ask(
            "POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": force}
        )
        found = self._expect(answer)
        return Proposed(answer.status_code, found["status"], found["state"], found["details"])

    def lead(self, run_id: str, *states: str) -> None:
        """Bring a run through states, each of which has to be accepted. `TYPE` or `TYPE/Name`."""
        for state in states:
            type_, _, name = state.partition("/")
            made = self.propose(run_id, type_, name or None)
            assert made.status == "ACCEPT", f"{state}: {made}"

    def run(self, run_id: str) -> JSON:
        """Read a run."""
        found: JSON = self.get(f"/flow_runs/{run_id}")
        return found

    def state(self, run_id: str) -> str:
        """Read a run's state, as `TYPE/Name`."""
        run = self.run(run_id)
        return f"{run['state']['type']}/{run['state']['name']}"

    def states(self, run_id: str) -> list[str]:
        """Read a run's history, oldest first, as `TYPE/Name`."""
        found = self.get(f"/flow_run_states/?flow_run_id={run_id}")
        return [f"{state['type']}/{state['name']}" for state in found]

    def get_runs(self, queue_id: str, **body: Any) -> list[str]:
        """Ask a queue for runs, and return their ids in the order in which they came."""
        return [run["id"] for run in self.post(f"/work_queues/{queue_id}/get_runs", body)]
