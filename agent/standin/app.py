"""The stand-in server as a function: a request in, an answer out, no sockets.

`http` serves this on the loopback interface, `transport` plugs it into httpx inside one process.
Here is what comes before the routes: credentials, CSRF tokens, API versions, finding the route.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final
from urllib.parse import parse_qsl, unquote
from uuid import UUID

import attrs
import orjson

from agent.standin import blocks
from agent.standin.calls import Call, Handler, Reply
from agent.standin.refusals import JSON, Refusal, detail, from_below, invalid_request
from agent.standin.routes import ROUTES
from agent.standin.state import StandinState

PREFIX: Final = "/api"
OLDEST_API_VERSION: Final = (0, 8, 0)
CSRF_LIFETIME: Final = timedelta(hours=1)
CHANGING: Final = ("POST", "PUT", "PATCH", "DELETE")


@attrs.frozen
class Request:
    """An HTTP request. Header names are in lower case; the target is path and query, encoded."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@attrs.frozen
class Response:
    """An HTTP answer; the body is JSON. `headers` are those beyond its type and length."""

    status: int
    body: bytes
    headers: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def of(cls, status: int, content: Any, headers: Mapping[str, str] | None = None) -> Response:
        """Encode an answer; None is no body."""
        return cls(status, b"" if content is None else orjson.dumps(content), headers or {})


@attrs.define(eq=False)
class StandinApp:
    """The server: its state, and how it lets requests in.

    Attributes:
        api_key: bearer key that is asked for (as Cloud does); None lets everybody in.
        auth_string: `user:password` that is asked for. Real 2.20 servers know no password; this
            one asks in both flavours, so that clients can be tried with either.
        csrf: whether changing requests need a token.
    """

    state: StandinState
    api_key: str | None = attrs.field(default=None, repr=False)
    auth_string: str | None = attrs.field(default=None, repr=False)
    csrf: bool = False
    _tokens: dict[str, tuple[str, datetime]] = attrs.field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not self.state.block_types:
            blocks.register_known_types(self.state)

    def handle(self, request: Request) -> Response:
        """Answer one request. It takes effect at once and as a whole, or not at all."""
        headers = {"date": format_datetime(self.state.now(), usegmt=True)}
        try:
            return Response.of(*self._answer(request, headers), headers)
        except Refusal as refusal:
            return Response.of(refusal.status, refusal.body, headers)

    def _answer(self, request: Request, headers: dict[str, str]) -> Reply:
        target, _, query_string = request.target.partition("?")
        path, query = unquote(target), dict(parse_qsl(query_string))
        if path not in (f"{PREFIX}/health", f"{PREFIX}/ready"):
            self._check_credentials(request)
        self._check_csrf_token(request)
        if (request.method, path) == ("GET", f"{PREFIX}/csrf-token"):
            _check_api_version(request)
            return 200, self._make_csrf_token(query)
        match = _find(request.method, path, headers)
        if match is None:
            host = request.headers.get("host", "standin")
            headers["location"] = f"http://{host}{_other_slash(path)}"
            return 307, None
        handler, found = match
        if path != f"{PREFIX}/health":
            _check_api_version(request)
        peek = request.headers.get("x-prefect-ui", "").lower() in ("true", "1")
        return handler(Call(self.state, self._checked(found), query, request.body, peek))

    # --- whom it lets in ----------------------------------------------------------------------

    def _check_credentials(self, request: Request) -> None:
        if self.auth_string is not None:
            wanted = "Basic " + base64.b64encode(self.auth_string.encode()).decode()
        elif self.api_key is not None:
            wanted = f"Bearer {self.api_key}"
        else:
            return
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), wanted.encode()):
            raise from_below(401, "Unauthorized")

    def _check_csrf_token(self, request: Request) -> None:
        if not self.csrf or request.method not in CHANGING:
            return
        token = request.headers.get("prefect-csrf-token")
        client = request.headers.get("prefect-csrf-client")
        if token is None:
            raise detail(403, "Missing CSRF token.")
        if client is None:
            raise detail(403, "Missing client identifier.")
        known, expiration = self._tokens.get(client, ("", self.state.now()))
        if token != known or expiration < self.state.now():
            raise detail(403, "Invalid CSRF token or client identifier.")

    def _make_csrf_token(self, query: Mapping[str, str]) -> JSON:
        """Return a fresh token for a client; the one that it had before is void."""
        if "client" not in query:
            problem = {"loc": ["query", "client"], "msg": "field required", "type": "missing"}
            raise invalid_request([problem], None)
        if not self.csrf:
            raise detail(422, "CSRF protection is disabled.")
        state = self.state
        token, expiration = f"{state.new_id().hex}{state.new_id().hex}", state.now() + CSRF_LIFETIME
        self._tokens[query["client"]] = (token, expiration)
        return {
            "id": str(state.new_id()),
            "created": state.timestamp(),
            "updated": state.timestamp(),
            "token": token,
            "client": query["client"],
            "expiration": state.timestamp(expiration),
        }

    def forget_csrf_tokens(self) -> None:
        """Make every token void that was given out, as a server does that lost its database."""
        self._tokens.clear()

    def _checked(self, path: Mapping[str, str]) -> Mapping[str, str]:
        """Check and normalise the id in a path. 2.20 calls a bad one invalid, 3.x unknown."""
        if "id" not in path:
            return path
        try:
            return {**path, "id": str(UUID(path["id"]))}
        except ValueError as error:
            if self.state.traits.bad_id_status == 404:
                raise detail(404, "Not Found") from error
            message, type_ = "value is not a valid uuid", "type_error.uuid"
            problem = {"loc": ["path", "id"], "msg": message, "type": type_}
            raise invalid_request([problem], None) from error


def _check_api_version(request: Request) -> None:
    given = request.headers.get("x-prefect-api-version")
    if given is None:
        return
    parts = given.split(".")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise detail(
            400,
            "Invalid X-PREFECT-API-VERSION header format."
            f"Expected header in format 'x.y.z' but received {given}",
        )
    if tuple(map(int, parts)) < OLDEST_API_VERSION:
        oldest = ".".join(map(str, OLDEST_API_VERSION))
        raise detail(
            400,
            f"The request specified API version {given} but this server requires version"
            f" {oldest} or higher.",
        )


# --- finding the route -----------------------------------------------------------------------


def _find(
    method: str, path: str, headers: dict[str, str]
) -> tuple[Handler, Mapping[str, str]] | None:
    """Find the route; None when it would be found with another slash at the end.

    Raises:
        Refusal: 404, or 405 where the path has other methods (they go into the headers).
    """
    allowed = []
    for wanted, pattern, handler in ROUTES:
        found = _match(pattern, path)
        if found is None:
            continue
        if wanted == method:
            return handler, found
        allowed.append(wanted)
    if allowed:
        headers["allow"] = ", ".join(allowed)
        raise detail(405, "Method Not Allowed")
    if any(_match(pattern, _other_slash(path)) is not None for _, pattern, _ in ROUTES):
        return None
    raise detail(404, "Not Found")


def _match(pattern: str, path: str) -> Mapping[str, str] | None:
    wanted, given = pattern.split("/"), path.removeprefix(PREFIX).split("/")
    if len(wanted) != len(given) or not path.startswith(PREFIX):
        return None
    found = {}
    for want, got in zip(wanted, given, strict=True):
        if want.startswith("{") and got:
            found[want[1:-1]] = got
        elif want != got:
            return None
    # A fixed word is no id: `/flow_runs/filter` is not the run called filter.
    return None if found.get("id") in ("filter", "count") else found


def _other_slash(path: str) -> str:
    return path.removesuffix("/") if path.endswith("/") else f"{path}/"
