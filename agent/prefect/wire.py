"""Gets one request to the server and its answer back: headers, CSRF, redirects, retries.

A repeated request is the same bytes each time; what makes that safe (the transition id) is in
them. Knows HTTP, but nothing of queues and runs: those are `agent.prefect.client`, which calls it.
"""

from __future__ import annotations

import base64
import logging
import random
import ssl
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from platform import python_version
from typing import Final
from uuid import UUID

import attrs
import httpx
import trio

from agent.prefect import answers, retry
from agent.prefect.csrf import CHANGING, CLIENT_HEADER, TOKEN_HEADER, CsrfTokens, Issued
from agent.prefect.errors import (
    BadAnswer,
    ClientMisconfigured,
    Endpoint,
    NotFound,
    Rejected,
    Unreachable,
)
from agent.prefect.models import CsrfToken
from agent.prefect.tls import ssl_context
from agent.settings import Settings, shown_url

logger = logging.getLogger(__name__)

API_VERSION: Final = "0.8.4"
"""Of the API that we speak: 2.20 and 3.x accept 0.8.0 up to their own, which is this one."""

CONNECTIONS: Final = 4
"""More are no faster: 0.36 ms of CPU a request and 2800 requests/s with 2 to 4 in flight, 0.47 ms
and 2100 requests/s with 16 (tests/bench/client_bench.py)."""

KEEP_ALIVE_SECONDS: Final = 25.0
"""Prefect Cloud's load balancer drops idle connections after 30 s."""

WHOLE_ANSWER: Final = 4
"""An answer has to be complete within so many times the timeout. The timeout itself starts again
with each byte, so that a server that drips would hold a connection for ever."""

REDIRECTS: Final = 5

LONG_WAIT_SECONDS: Final = 60.0
"""A wait that a server asks for is said when it is longer than this."""

OURS: Final = frozenset(
    name.lower()
    for name in ("User-Agent", CLIENT_HEADER, TOKEN_HEADER, "Content-Type", "Content-Length")
)
"""Headers that PREFECT_CLIENT_CUSTOM_HEADERS does not set. Prefect keeps the first three."""

GET_CSRF_TOKEN: Final = Endpoint("GET", "/csrf-token")


@attrs.frozen
class Call:
    """One request, ready to be sent any number of times.

    Attributes:
        path: below the API's URL, percent-encoded.
        what: is asked for or changed, for people; a 404 means that this does not exist.
        content: the body's bytes, JSON.
    """

    endpoint: Endpoint
    path: str
    what: str
    params: Mapping[str, str] = attrs.field(factory=dict)
    content: bytes | None = attrs.field(default=None, repr=False)


class Wire:
    """The connection to one server.

    Attributes:
        url: of the API, without credentials.
        reader: reads what this server answers.
        requests: how many were sent, repeated ones and those for CSRF tokens included.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx.AsyncBaseTransport | None,
        rng: random.Random,
        now: Callable[[], datetime],
    ) -> None:
        """Prepare a connection; nothing is sent.

        Args:
            settings: see docs/settings.md.
            transport: instead of the network.
            rng: for jitter and for the CSRF client's id.
            now: the wall clock (aware); asked only when an answer carries no `Date`.

        Raises:
            NoApiUrl: the settings do not say which server.
            ClientMisconfigured: certificates or proxies that can't be used.
        """
        self.url = settings.shown_api_url
        self.reader = answers.Reader(list(_secrets(settings)), _credentials(settings))
        self.requests = 0
        self._settings, self._rng, self._now = settings, rng, now
        self._repeated = retry.ALWAYS_REPEATED | settings.retry_extra_codes
        self._http = _http_client(settings, transport)
        is_cloud = settings.require_api_url().startswith(settings.cloud_api_url)
        self._csrf = CsrfTokens(
            client_id=UUID(int=rng.getrandbits(128), version=4),
            allowed=settings.csrf_support_enabled and not is_cloud,
            fetch=self._fetch_csrf_token,
        )
        self._was_reached = self._is_silent = False
        # httpx tells each request at INFO, with the whole URL and so the credentials in it.
        for chatty in ("httpx", "httpcore"):
            logging.getLogger(chatty).setLevel(logging.WARNING)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def send(self, call: Call, *, repeat: bool = True) -> httpx.Response:
        """Send a request until it succeeds or there is no more point in it.

        Args:
            call: what to send.
            repeat: False to send it once only (and once more with a fresh CSRF token, should the
                server want one: it looks at that before anything else).

        Raises:
            ApiError: why there is no good answer.
        """
        tries = counted = 0
        renewed = False
        while True:
            csrf = await self._csrf.headers() if call.endpoint.method in CHANGING else {}
            tries += 1
            try:
                response = await self._exchange(call, csrf)
            except httpx.RequestError as error:
                counted += 1
                unreachable = Unreachable(call.endpoint, self.url, self._reason(error))
                if not repeat or counted > self._settings.max_retries or not self._passes(error):
                    raise unreachable from None
                self._note_silence(unreachable)
                wait = None
            else:
                self._was_reached, self._is_silent = True, False
                if response.is_success:
                    return response
                if not renewed and _is_csrf_refusal(response) and self._csrf.was_refused(csrf):
                    renewed = True
                    continue
                counted += not retry.is_under_maintenance(response.headers)
                passes = response.status_code in self._repeated
                if not repeat or counted > self._settings.max_retries or not passes:
                    raise self.reader.refusal(call.endpoint, call.what, response)
                wait = retry.retry_after_seconds(response.headers, self._now())
            await self._pause(call, tries, wait)

    async def _exchange(self, call: Call, csrf: Mapping[str, str]) -> httpx.Response:
        """Send once, and follow redirects that stay with this server and this method."""
        request = self._http.build_request(
            call.endpoint.method,
            call.path,
            params=call.params or None,
            content=call.content,
            headers={**csrf, "Content-Type": "application/json"} if call.content else csrf,
        )
        with trio.move_on_after(WHOLE_ANSWER * self._settings.request_timeout):
            for _ in range(REDIRECTS):
                self.requests += 1
                response = await self._http.send(request)
                if response.next_request is None:
                    return response
                request = _follow(call.endpoint, request, response)
            raise httpx.TooManyRedirects("it redirects in circles", request=request)
        raise httpx.ReadTimeout("", request=request)

    async def _pause(self, call: Call, tries: int, retry_after: float | None) -> None:
        delay = retry.delay_seconds(
            tries,
            retry_after,
            jitter_factor=self._settings.retry_jitter_factor,
            draw=self._rng.random(),
        )
        if retry_after is not None and delay > LONG_WAIT_SECONDS:
            logger.warning("the server asks to wait %.0f s before %s", delay, call.endpoint)
        await trio.sleep(delay)

    def _note_silence(self, error: Unreachable) -> None:
        # Once in an outage: retries last a minute, and nobody should wonder for so long.
        if not self._is_silent:
            self._is_silent = True
            logger.warning("no answer from %s: %s; trying again", error.url, error.reason)

    def _passes(self, error: httpx.RequestError) -> bool:
        """Tell whether trying again may help.

        Before the first answer ever, a refused connection is likelier a wrong address than a
        restart: it is reported at once (as in Prefect 3.8), and whoever polls tries again.
        """
        if not isinstance(error, httpx.TransportError) or _distrust(error) is not None:
            return False
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            return self._was_reached
        return not isinstance(error, httpx.UnsupportedProtocol)

    def _reason(self, error: httpx.RequestError) -> str:
        """Say in words what happened; httpx's own words may quote headers and answers."""
        timeout = f"{self._settings.request_timeout:g} s"
        if (distrust := _distrust(error)) is not None:
            return f"its certificate is not trusted ({distrust}); see PREFECT_API_SSL_CERT_FILE"
        match error:
            case httpx.ConnectTimeout():
                return f"no connection within {timeout}"
            case httpx.TimeoutException():
                return f"no complete answer within {timeout}"
            case httpx.ConnectError() | httpx.ProxyError() | httpx.TooManyRedirects():
                return _first_words(error) or "no connection"
            case httpx.RemoteProtocolError():
                return "it closed the connection in the middle, or does not speak HTTP"
            case httpx.NetworkError():
                return "the connection broke"
            case _:
                return type(error).__name__

    async def _fetch_csrf_token(self, client_id: UUID) -> Issued | None:
        """Ask for a token; None from servers that have none to give (protocol.md 1.1)."""
        params = {"client": str(client_id)}
        call = Call(GET_CSRF_TOKEN, "/csrf-token", "the CSRF token", params)
        try:
            response = await self.send(call)
        except (NotFound, BadAnswer):
            # A 404: the server is older than tokens. Should it have been a proxy's, then the
            # server will refuse the next change for its missing token, and we ask again.
            return None
        except Rejected as error:
            if error.status == 422 and "CSRF protection is disabled" in error.detail:
                return None
            raise
        token = answers.read(GET_CSRF_TOKEN, response, CsrfToken)
        return Issued(token, retry.date_of(response.headers) or self._now())


def _http_client(
    settings: Settings, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    url = settings.require_api_url()
    try:
        return httpx.AsyncClient(
            base_url=url,
            headers=_headers(settings),
            timeout=httpx.Timeout(settings.request_timeout, pool=None),
            limits=httpx.Limits(
                max_connections=CONNECTIONS,
                max_keepalive_connections=CONNECTIONS,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            ),
            verify=True if transport else ssl_context(settings, at_once=url.startswith("https:")),
            transport=transport,
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        # A proxy out of the environment: its URL may hold a password, so it is not repeated.
        raise ClientMisconfigured(
            "the proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY can't be used: expected an http://"
            f" or https:// URL ({type(error).__name__})"
        ) from None


def _headers(settings: Settings) -> dict[str, str]:
    headers = {"X-PREFECT-API-VERSION": API_VERSION}
    if settings.api_auth_string is not None:
        # It wins over a key, as in Prefect 3.
        headers["Authorization"] = f"Basic {_basic(settings.api_auth_string.reveal())}"
    elif settings.api_key is not None:
        headers["Authorization"] = f"Bearer {settings.api_key.reveal()}"
    for name, value in settings.custom_headers.items():
        if name.lower() in OURS:
            logger.warning("PREFECT_CLIENT_CUSTOM_HEADERS can't set %s; it is left out", name)
            continue
        headers = {k: v for k, v in headers.items() if k.lower() != name.lower()}
        headers[name] = value.reveal()
    # Never `prefect/...`: 3.x servers read a version out of that, and treat some specially.
    product = f"pluperfect/{version('pluperfect')}"
    return headers | {"User-Agent": f"{product} (Python {python_version()}; API {API_VERSION})"}


def _basic(auth_string: str) -> str:
    return base64.b64encode(auth_string.encode()).decode("ascii")


def _secrets(settings: Settings) -> Iterator[str]:
    """Name all that must not come back to us in an error; what contains another one comes first."""
    if settings.api_key:
        yield settings.api_key.reveal()
    url = httpx.URL(settings.require_api_url())
    auth_string = settings.api_auth_string.reveal() if settings.api_auth_string else ""
    for pair in (auth_string, f"{url.username}:{url.password}"):
        if pair.strip(":"):
            yield from (pair, _basic(pair), pair.partition(":")[2] or pair)
    yield from (value.reveal() for value in settings.custom_headers.values() if value)


def _credentials(settings: Settings) -> str:
    if settings.api_auth_string is not None:
        return "PREFECT_API_AUTH_STRING"
    if settings.api_key is not None:
        return "PREFECT_API_KEY"
    return "PREFECT_API_KEY or PREFECT_API_AUTH_STRING (neither is set)"


def _is_csrf_refusal(response: httpx.Response) -> bool:
    """Tell "Invalid CSRF token or client identifier." and "Missing CSRF token." from other 403s."""
    return response.status_code == 403 and b"CSRF token" in response.content


def _follow(endpoint: Endpoint, sent: httpx.Request, response: httpx.Response) -> httpx.Request:
    """Return the request that a redirect asks for, if it is still the same request.

    A 301 or 302 turns a POST into a GET, and another host (or plain http after https) must not
    get our headers.

    Raises:
        ApiError: it is not.
    """
    following = response.next_request
    if following is None:
        raise LookupError("not a redirect")
    is_safe = following.url.host == sent.url.host and (
        following.url.scheme == "https" or sent.url.scheme == "http"
    )
    if is_safe and following.method == sent.method:
        return following
    raise Rejected(
        endpoint,
        response.status_code,
        f"redirected to {shown_url(str(following.url))}; set PREFECT_API_URL to where the API is",
    )


def _distrust(error: BaseException) -> str | None:
    """Find a certificate's rejection among an error's causes."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
    return None


def _first_words(error: BaseException) -> str:
    """Return what the first of an error and its causes has to say; a failed handshake has none."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {cause.reason or cause.strerror or 'failed'}"
        if text := str(cause):
            return text
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
