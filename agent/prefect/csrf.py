"""The CSRF token that some self-hosted servers want with every changing request.

2.17 and newer servers with PREFECT_SERVER_CSRF_PROTECTION_ENABLED hand out a token for an id that
the client chooses; both go with each POST, PUT, PATCH and DELETE. Called by `agent.prefect.wire`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

import attrs
import trio

from agent.prefect.models import CsrfToken

CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
CLIENT_HEADER: Final = "Prefect-Csrf-Client"
TOKEN_HEADER: Final = "Prefect-Csrf-Token"  # noqa: S105 - the name of a header

EARLY_SECONDS: Final = 30.0
"""A token is fetched anew so long before it expires: the request has to arrive in time too."""


@attrs.frozen
class Issued:
    """A token, and the server's time when it was issued."""

    token: CsrfToken
    at: datetime


@attrs.define(eq=False)
class CsrfTokens:
    """The token of one client.

    Attributes:
        client_id: names the client to the server, for as long as it lives.
        allowed: False when the settings or the kind of server rule tokens out.
        fetch: asks the server for a token; None when it has none to give.
    """

    client_id: UUID
    allowed: bool
    fetch: Callable[[UUID], Awaitable[Issued | None]]
    _wanted: bool = True
    _token: str | None = attrs.field(default=None, repr=False)
    _stale_at: float = math.inf
    _fetching: trio.Lock = attrs.field(factory=trio.Lock)

    async def headers(self) -> Mapping[str, str]:
        """Return what to send with a changing request, fetching a token when there is none.

        Raises:
            ApiError: no token can be had.
        """
        if not (self.allowed and self._wanted):
            return {}
        async with self._fetching:
            if self._token is None or trio.current_time() >= self._stale_at:
                await self._renew()
        return (
            {TOKEN_HEADER: self._token, CLIENT_HEADER: str(self.client_id)} if self._token else {}
        )

    def was_refused(self, sent: Mapping[str, str]) -> bool:
        """Take in that the server refused a request for its token, or for having none.

        The latter means that the server was restarted with tokens switched on, or that its token
        route was not there for a moment; Prefect's clients do not recover from that.

        Returns:
            Whether it is worth sending again with a fresh token.
        """
        if sent.get(TOKEN_HEADER) == self._token:  # else another task has a new one already
            self._token = None
        self._wanted = True
        return self.allowed

    async def _renew(self) -> None:
        issued = await self.fetch(self.client_id)
        if issued is None:
            self._wanted, self._token = False, None
            return
        self._token, expiration = issued.token.token, issued.token.expiration
        if expiration is None:
            self._stale_at = math.inf
            return
        # By the server's clock and trio's: the host's clock may be wrong, or be set.
        lifetime = expiration.timestamp() - issued.at.timestamp()
        self._stale_at = trio.current_time() + max(lifetime - EARLY_SECONDS, lifetime / 2, 1.0)
