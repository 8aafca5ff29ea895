"""The server, as far as a record tells: what it replies to each request of the daemon's client.

An observation in the log is what the daemon made of an answer; here is an answer of which it must
make the same observation again. What no answer is known for is raised as it is recorded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

import attrs
import httpx

from agent.infrastructure.errors import ResolutionError
from agent.prefect import client
from agent.prefect.errors import ApiError, Endpoint
from agent.prefect.wire import GET_CSRF_TOKEN
from events.lifecycle import Effect, RunDiscovered
from events.observations import (
    InfrastructureResolved,
    Observation,
    ProposalAnswered,
    RequestFailed,
    ResolutionFailed,
    RunMissing,
    RunRead,
)
from events.submission import Submission
from replay.reexecution.documents import NAMESPACE, Documents, ResolverFacts, documents_for
from replay.reexecution.failures import JSON, ServerFacts, missing, read_failure
from replay.reexecution.recording import Entry, Life, effect_behind

_IN_ORDER: Final[Mapping[Effect, Sequence[Endpoint]]] = {
    Effect.PROPOSE_PENDING: (GET_CSRF_TOKEN, client.SET_STATE),
    Effect.REPORT_OUTCOME: (client.READ_RUN_STATES, GET_CSRF_TOKEN, client.SET_STATE),
    Effect.READ_RUN: (client.READ_RUN, client.READ_RUN_STATES),
    Effect.REPORT_PID: (GET_CSRF_TOKEN, client.UPDATE_RUN),
    Effect.RESOLVE: (client.READ_DEPLOYMENT, client.READ_FLOW, client.READ_BLOCK),
}
"""The requests that an effect makes at most, one after the other."""


class AsRecorded(ApiError):
    """A recorded error that no answer is known for, in its own words."""

    def __init__(self, endpoint: Endpoint, recorded: RequestFailed) -> None:
        super().__init__(endpoint, recorded.error)
        self.args = (recorded.error,)
        self.retryable = recorded.retryable


@attrs.frozen
class Reply:
    """What a request leads to.

    Attributes:
        response: None when an error is raised instead.
        stands_in: that error is the recorded one, and not what the client would make of an answer.
    """

    response: httpx.Response | None = None
    error: Exception | None = None
    stands_in: bool = False


@attrs.frozen
class RecordedServer:
    """The server of one life.

    Attributes:
        run: which run it is all about.
        facts: see `ServerFacts`.
        resolver_facts: see `ResolverFacts`.
    """

    run: RunDiscovered
    life: Life
    facts: ServerFacts
    resolver_facts: ResolverFacts

    @classmethod
    def of(cls, run: RunDiscovered, life: Life) -> RecordedServer:
        """Gather what a life tells about its server."""
        facts, resolver_facts = ServerFacts(), ResolverFacts()
        for failed in life.of_type(RequestFailed):
            facts = facts.told_by(failed.error)
        for unresolved in life.of_type(ResolutionFailed):
            facts = facts.told_by(unresolved.error)
            resolver_facts = resolver_facts.told_by(unresolved)
        for resolved in life.of_type(InfrastructureResolved):
            resolver_facts = resolver_facts.told_by(resolved)
        return cls(run, life, facts, resolver_facts)

    def reply(self, endpoint: Endpoint, entry: Entry, submission: Submission) -> Reply:
        """Reply to a request that is made for the effect behind an entry."""
        seen = entry.event
        effect = effect_behind(seen)
        if effect is None or endpoint not in _IN_ORDER.get(effect, ()):
            return Reply(error=LookupError(f"{endpoint} is not asked for to {effect}"))
        # An attempt that failed on the way is given any documents at all: each reads them anew.
        ending = seen if isinstance(seen, InfrastructureResolved | ResolutionFailed) else None
        documents = documents_for(self.run, ending, self.resolver_facts)
        good = self._good(endpoint, seen, documents, submission)
        match seen:
            case RequestFailed(error=error) | ResolutionFailed(error=error):
                return self._bad(endpoint, seen, good, error, documents)
            case RunMissing() if endpoint in (client.SET_STATE, client.READ_RUN, client.UPDATE_RUN):
                return Reply(missing("Flow run"))
            case _:
                return _replied(good)

    def _bad(
        self,
        endpoint: Endpoint,
        seen: RequestFailed | ResolutionFailed,
        good: JSON,
        error: str,
        documents: Documents,
    ) -> Reply:
        order = [str(each) for each in _IN_ORDER[effect_behind(seen) or Effect.RESOLVE]]
        failure = read_failure(error)
        if failure is None and isinstance(seen, ResolutionFailed) and documents.natural:
            return _replied(good)
        # A request that comes after the one that failed means that this one was not sent.
        if failure is None or failure.endpoint not in order[order.index(str(endpoint)) :]:
            if isinstance(seen, ResolutionFailed):
                return Reply(error=ResolutionError(error), stands_in=True)
            return Reply(error=AsRecorded(endpoint, seen), stands_in=True)
        if failure.endpoint != str(endpoint):
            return _replied(good)
        try:
            return Reply(failure.reply(good))
        except httpx.RequestError as broken:
            return Reply(error=broken)

    def _good(
        self, endpoint: Endpoint, seen: Any, documents: Documents, submission: Submission
    ) -> JSON:
        """Return the body of a good answer; None for what does not exist."""
        match endpoint:
            case client.SET_STATE:
                return _answer(seen)
            case client.READ_RUN:
                return self._flow_run(seen)
            case client.READ_RUN_STATES:
                return _states(seen, submission)
            case client.READ_DEPLOYMENT:
                return documents.deployment
            case client.READ_FLOW:
                return documents.flow
            case client.READ_BLOCK:
                return documents.block
            case _:
                return {"token": "not recorded", "expiration": _time(0)}

    def _flow_run(self, seen: Observation) -> JSON:
        run = self.run
        known = {
            "id": str(run.flow_run_id),
            "name": run.run_name,
            "flow_id": run.flow_id and str(run.flow_id),
            "deployment_id": run.deployment_id and str(run.deployment_id),
            "work_queue_name": run.queue,
        }
        if not isinstance(seen, RunRead):
            # Its states could not be read, and they are asked for over a Cancelling only.
            return known | {"state": _state("CANCELLING", "Cancelling", _made_up("state"))}
        state = None if seen.state_type is None else _present_state(seen)
        return known | {"state": state, "infrastructure_pid": seen.infrastructure_pid}


def _replied(good: JSON) -> Reply:
    return Reply(missing("It was") if good is None else httpx.Response(200, json=good))


# --- bodies ------------------------------------------------------------------------------------


def _state(
    type_: str | None,
    name: str | None,
    id_: UUID | None,
    transition_id: UUID | None = None,
    due: str | None = None,
) -> dict[str, JSON]:
    details = {"transition_id": transition_id and str(transition_id), "scheduled_time": due}
    return {"id": id_ and str(id_), "type": type_, "name": name, "state_details": details}


def _present_state(seen: RunRead | ProposalAnswered) -> dict[str, JSON]:
    return _state(
        seen.state_type, seen.state_name, seen.state_id, seen.transition_id, seen.scheduled_time
    )


def _answer(seen: Observation) -> JSON:
    if not isinstance(seen, ProposalAnswered):
        return {"status": "ACCEPT", "state": _state("PENDING", "Pending", _made_up("state"))}
    state = None if seen.state_type is None else _present_state(seen)
    details = {"reason": seen.reason, "delay_seconds": seen.delay_seconds}
    return {"status": seen.status, "state": state, "details": details}


def _states(seen: Observation, submission: Submission) -> JSON:
    """Return the run's history, as far as it is known: oldest first."""
    if isinstance(seen, RunRead):
        before = _state(
            seen.before_type, seen.before_name, seen.before_id, seen.before_transition_id
        )
        states = [before, _present_state(seen)] if seen.before_id else [_present_state(seen)]
    else:
        # A state is to be given back; what it held is not in the log.
        owed = submission.outcome
        restored = owed.restores if owed else None
        first = owed.state_type if owed else "COMPLETED"
        states = [
            _state(first, None, restored or _made_up("earlier")),
            _state("PENDING", "Pending", _made_up("state")),
        ]
    return [state | {"timestamp": _time(number)} for number, state in enumerate(states)]


def _made_up(what: str) -> UUID:
    return uuid5(NAMESPACE, what)


def _time(seconds: int) -> str:
    return (datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)).isoformat()


# --- which request it is -----------------------------------------------------------------------

_ENDPOINTS: Final = tuple(dict.fromkeys(e for order in _IN_ORDER.values() for e in order))


def endpoint_of(method: str, path: str) -> Endpoint | None:
    """Return the endpoint of a request, by its path below the API's URL."""
    for endpoint in _ENDPOINTS:
        pattern = re.escape(endpoint.path).replace(re.escape("{id}"), "[^/]+")
        if method == endpoint.method and re.fullmatch(pattern, path):
            return endpoint
    return None
