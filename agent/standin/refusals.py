"""How a Prefect server says no: the three shapes of its error bodies.

`state`, `blocks` and `bodies` raise these; `app` turns them into responses. Which shape is used
where is the servers' own whim, and was probed route by route.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

JSON = dict[str, Any]

INTEGRITY_CONFLICT = (
    "Data integrity conflict. This usually means a unique or foreign key constraint was violated."
    " See server logs for details."
)


class Refusal(Exception):
    """A request that gets an error for an answer.

    Attributes:
        status: HTTP status.
        body: JSON of the answer.
    """

    def __init__(self, status: int, body: JSON) -> None:
        self.status, self.body = status, body
        super().__init__(f"{status}: {body}")


def detail(status: int, message: str) -> Refusal:
    """Return the usual shape: `{"detail": message}`."""
    return Refusal(status, {"detail": message})


def not_found(what: str) -> Refusal:
    """Return the 404 for a missing thing."""
    return detail(404, f"{what} not found")


def from_below(status: int, message: str) -> Refusal:
    """Return the shape of errors that come up from below the routes: `exception_message`."""
    return Refusal(status, {"exception_message": message})


def invalid_request(problems: Sequence[JSON], request_body: Any) -> Refusal:
    """Return the shape for what does not validate: where, why, and the body back again."""
    return Refusal(
        422,
        {
            "exception_message": "Invalid request received.",
            "exception_detail": list(problems),
            "request_body": request_body,
        },
    )
