"""Makes the answer, or the broken connection, from which the client makes a recorded error again.

The log keeps an error's words. Those that `agent.prefect.errors` and `agent.prefect.wire` write
are read backwards here: the status and the server's own words, the field that could not be
understood, the way in which the connection failed.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from typing import Any, Final

import attrs
import httpx
import orjson

JSON = Any

Reply = Callable[[JSON], httpx.Response]
"""Makes a bad answer out of the good one, or raises an `httpx.RequestError`."""

_WITH_ENDPOINT: Final = re.compile(r"(?P<words>.*) \((?P<endpoint>[A-Z]+ /\S*)\)", re.DOTALL)
_UNREACHABLE: Final = re.compile(r"no answer from (?P<url>\S+): (?P<reason>.*)", re.DOTALL)
_ACCESS: Final = re.compile(
    r"the server refuses access with status (?P<status>\d+)(: (?P<detail>.*))?;"
    r" check (what )?"
    r"(?P<credentials>PREFECT_API_KEY|PREFECT_API_AUTH_STRING|PREFECT_API_KEY or .*?)"
    r"( may do, and for which workspace)?",
    re.DOTALL,
)
_REFUSED: Final = re.compile(
    r"(refused with status|the server is in trouble, status) (?P<status>\d+)(: (?P<detail>.*))?",
    re.DOTALL,
)
_BAD: Final = re.compile(
    r"the server's answer can't be understood: (the answer|field (?P<field>\S+)) (?P<problem>.*)",
    re.DOTALL,
)
_OF_KIND: Final = re.compile(r"is (?P<kind>an object|a list|text|true or false|a number|null), .*")
_NOT_JSON: Final = re.compile(r"is not JSON but (?P<type>[^;]+)(; is PREFECT_API_URL right\?.*)?")
_STEP: Final = re.compile(r"\[(?P<index>\d+)\]|(?P<name>[^.\[\]]+)")
_TIMEOUT: Final = re.compile(r"no (connection|complete answer) within (?P<seconds>[\d.e+-]+) s")

OF_KIND: Final[dict[str, JSON]] = {
    "an object": {},
    "a mapping": {},
    "a list": [],
    "text": "'",  # no id, no date, no status, and as a command a quotation that is left open
    "true or false": True,
    "a number": 1.5,
    "null": None,
}
"""A value of each kind that errors name, unfit wherever another kind is expected."""


@attrs.frozen
class Failure:
    """A request that failed.

    Attributes:
        endpoint: which one, as errors name it: `GET /flow_runs/{id}`.
        reply: makes the client say so again.
    """

    endpoint: str
    reply: Reply


@attrs.frozen
class ServerFacts:
    """What error texts tell about the client that wrote them.

    Attributes:
        url: of the API, without credentials.
        timeout: of a request, in seconds, as it is written; None where no error tells.
        credentials: the variable that the client's credentials came from.
        asks_for_tokens: a request for a CSRF token failed.
    """

    url: str | None = None
    timeout: str | None = None
    credentials: str | None = None
    asks_for_tokens: bool = False

    def told_by(self, error: str) -> ServerFacts:
        """Return the facts, with what an error adds to them."""
        match = _WITH_ENDPOINT.fullmatch(error)
        if match is None:
            return self
        found, words = self, match["words"]
        if match["endpoint"] == "GET /csrf-token":
            found = attrs.evolve(found, asks_for_tokens=True)
        if silence := _UNREACHABLE.fullmatch(words):
            found = attrs.evolve(found, url=silence["url"])
            if limit := _TIMEOUT.fullmatch(silence["reason"]):
                found = attrs.evolve(found, timeout=limit["seconds"])
        if refusal := _ACCESS.fullmatch(words):
            found = attrs.evolve(found, credentials=refusal["credentials"])
        return found


def read_failure(error: str) -> Failure | None:
    """Read an error's words; None for words that are not the client's."""
    match = _WITH_ENDPOINT.fullmatch(error)
    if match is None:
        return None
    for pattern, make in _READERS:
        if (found := pattern.fullmatch(match["words"])) and (reply := make(found)):
            return Failure(match["endpoint"], reply)
    return None


def missing(what: str) -> httpx.Response:
    """Return the 404 that Prefect itself gives: it knows the route, and not the thing."""
    return httpx.Response(404, json={"detail": f"{what} not found"})


# --- answers that are refusals -----------------------------------------------------------------


def _refusal(found: re.Match[str]) -> Reply:
    detail = found["detail"]
    body = {} if detail is None else {"detail": detail}
    return lambda _good: httpx.Response(int(found["status"]), json=body)


# --- answers that can't be understood ----------------------------------------------------------


def _nonsense(found: re.Match[str]) -> Reply | None:
    field, problem = found["field"], found["problem"]
    if field is None and problem.startswith("is a 404 "):
        return lambda _good: httpx.Response(404, json={"detail": "Not Found"})
    if field is None and (not_json := _NOT_JSON.fullmatch(problem)):
        known = not_json["type"] != "of no known type"
        headers = {"content-type": not_json["type"]} if known else {}
        return lambda _good: httpx.Response(200, content=b"<", headers=headers)
    if problem == "is missing":
        return lambda good: _json(_spoilt(good, field or "", lambda at, key: at.pop(key)))
    if match := _OF_KIND.fullmatch(problem):
        value = OF_KIND[match["kind"]]
        if field is None:
            return lambda _good: _json(value)
        return lambda good: _json(_spoilt(good, field, lambda at, key: _put(at, key, value)))
    return None


def _spoilt(good: JSON, field: str, change: Callable[[Any, Any], object]) -> JSON:
    """Return an answer with one field changed; unchanged if it has no such place."""
    answer = orjson.loads(orjson.dumps(good))
    steps = [int(m["index"]) if m["index"] else m["name"] for m in _STEP.finditer(field)]
    at = answer
    try:
        for step in steps[:-1]:
            at = at[step]
        change(at, steps[-1])
    except (KeyError, IndexError, TypeError):
        return answer
    return answer


def _put(at: Any, key: Any, value: JSON) -> None:
    at[key] = value


def _json(body: JSON) -> httpx.Response:
    return httpx.Response(200, content=orjson.dumps(body), headers=_IS_JSON)


_IS_JSON: Final = {"content-type": "application/json"}


# --- no answer ---------------------------------------------------------------------------------


def _silence(found: re.Match[str]) -> Reply:
    def reply(_good: JSON) -> httpx.Response:
        raise _broken(found["reason"])

    return reply


def _broken(reason: str) -> httpx.RequestError:
    if limit := _TIMEOUT.fullmatch(reason):
        return httpx.ConnectTimeout("") if limit[1] == "connection" else httpx.ReadTimeout("")
    if match := _DISTRUST.fullmatch(reason):
        error = httpx.ConnectError("")
        error.__cause__ = cause = ssl.SSLCertVerificationError()
        cause.verify_message = match["why"]
        return error
    kind = _BROKEN.get(reason)
    return httpx.ConnectError(reason) if kind is None else kind("")


_DISTRUST: Final = re.compile(
    r"its certificate is not trusted \((?P<why>.*)\); see PREFECT_API_SSL_CERT_FILE"
)
_BROKEN: Final[dict[str, type[httpx.RequestError]]] = {
    "no connection": httpx.ConnectError,
    "it closed the connection in the middle, or does not speak HTTP": httpx.RemoteProtocolError,
    "the connection broke": httpx.ReadError,
    "DecodingError": httpx.DecodingError,
    "LocalProtocolError": httpx.LocalProtocolError,
    "UnsupportedProtocol": httpx.UnsupportedProtocol,
}

_READERS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Reply | None]], ...]] = (
    (_UNREACHABLE, _silence),
    (_ACCESS, _refusal),
    (_REFUSED, _refusal),
    (_BAD, _nonsense),
)
