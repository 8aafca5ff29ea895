"""What can go wrong between the agent and the Prefect server, one type for each kind of trouble.

Every error names the endpoint and says what to do where that is known; none holds a header, a
key, a request's body or a value out of an answer that may be secret. Raised by
`agent.prefect.client`; caught by polling, by the submission driver and by resolution.
"""

from __future__ import annotations

from typing import Final

import attrs

MAY_PASS: Final = frozenset({408, 409, 423, 425, 429})
"""4xx that are about the moment, not about the request. 409 is what a server under heavy
contention answers to set_state; 429 is a rate limit that outlasted the client's own retries."""


@attrs.frozen
class Endpoint:
    """A route of the API, as documented: method, and path with placeholders."""

    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class ApiError(Exception):
    """A request got no usable answer.

    Attributes:
        endpoint: which one.
        retryable: False when the same request will never get a better answer.
    """

    retryable: bool = True

    def __init__(self, endpoint: Endpoint, message: str) -> None:
        self.endpoint = endpoint
        super().__init__(f"{message} ({endpoint})")


class NotFound(ApiError):
    """The server does not know what was asked for.

    Attributes:
        what: e.g. `flow run 0b1c…`.
    """

    retryable = False

    def __init__(self, endpoint: Endpoint, what: str) -> None:
        self.what = what
        super().__init__(endpoint, f"{what} does not exist at the server")


class Unauthorised(ApiError):
    """The server does not let us in. Retryable: a person can mend the key, or its rights."""

    def __init__(self, endpoint: Endpoint, status: int, detail: str, credentials: str) -> None:
        self.status = status
        if status == 401:
            advice = f"check {credentials}"
        else:
            advice = f"check what {credentials} may do, and for which workspace"
        super().__init__(
            endpoint, f"the server refuses access with status {status}{_said(detail)}; {advice}"
        )


class Rejected(ApiError):
    """The server refuses this very request (a 4xx that is none of the above).

    Attributes:
        status: HTTP status.
        detail: the server's words.
    """

    def __init__(self, endpoint: Endpoint, status: int, detail: str) -> None:
        self.status, self.detail = status, detail
        self.retryable = status in MAY_PASS
        super().__init__(endpoint, f"refused with status {status}{_said(detail)}")


class ServerTrouble(ApiError):
    """The server (or what stands before it) is in trouble: a 5xx."""

    def __init__(self, endpoint: Endpoint, status: int, detail: str) -> None:
        self.status = status
        super().__init__(endpoint, f"the server is in trouble, status {status}{_said(detail)}")


class Unreachable(ApiError):
    """No answer came: no connection, a broken one, or too late.

    Attributes:
        url: the API's, without credentials.
        reason: for people.
    """

    def __init__(self, endpoint: Endpoint, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(endpoint, f"no answer from {url}: {reason}")


class BadAnswer(ApiError):
    """An answer came that can't be understood.

    It says nothing about what the server did, and the same request may get a good one next time.

    Attributes:
        field: where in the answer, e.g. `[3].state.id`; empty for the whole of it.
    """

    def __init__(self, endpoint: Endpoint, field: str, problem: str) -> None:
        self.field = field
        where = f"field {field}" if field else "the answer"
        super().__init__(endpoint, f"the server's answer can't be understood: {where} {problem}")


class ClientMisconfigured(Exception):
    """No client can be made with these settings. One line: which one, why, what to do."""


def _said(detail: str) -> str:
    return f": {detail}" if detail else ""
