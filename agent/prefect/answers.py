"""Understands the server's answers: models out of good ones, errors with a story out of others.

Called by `agent.prefect.wire` for refusals and by `agent.prefect.client` for the rest. What a
server says is repeated to people only shortened, on one line, and with our secrets masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import attrs
import httpx
import orjson

from agent.prefect.errors import (
    ApiError,
    BadAnswer,
    Endpoint,
    NotFound,
    Rejected,
    ServerTrouble,
    Unauthorised,
)
from agent.prefect.models import Unstructurable, structure
from agent.secret import MASK

T = TypeVar("T")

LONGEST_DETAIL: Final = 300
"""Characters of the server's words that an error repeats."""

NO_SUCH_ROUTE: Final = "Not Found"
"""What FastAPI says of an unknown path. Of an unknown run or queue, Prefect says which it is."""


@attrs.frozen
class Reader:
    """Reads one server's answers.

    Attributes:
        secrets: what is masked should the server (or a proxy) repeat it to us.
        credentials: for people: what we authenticate with.
    """

    secrets: Sequence[str] = attrs.field(repr=False)
    credentials: str

    def refusal(self, endpoint: Endpoint, what: str, response: httpx.Response) -> ApiError:
        """Make an error of an answer that is not a success."""
        status, detail = response.status_code, self._detail(response)
        if status == 404:
            return _missing(endpoint, what, detail)
        if status in (401, 403):
            return Unauthorised(endpoint, status, detail, self.credentials)
        if status >= 500:
            return ServerTrouble(endpoint, status, detail)
        return Rejected(endpoint, status, detail)

    def _detail(self, response: httpx.Response) -> str:
        """Return the server's reason, or nothing when it gives none that can be read."""
        try:
            body = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            return ""
        return self._fit(_words(body))

    def _fit(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, MASK)
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= LONGEST_DETAIL else text[:LONGEST_DETAIL] + "…"


def read(endpoint: Endpoint, response: httpx.Response, kind: type[T]) -> T:
    """Make a model of a good answer.

    Raises:
        BadAnswer: it is not JSON, or not of that shape.
    """
    try:
        return structure(orjson.loads(response.content), kind)
    except orjson.JSONDecodeError:
        was = response.headers.get("content-type", "").partition(";")[0] or "of no known type"
        hint = "; is PREFECT_API_URL right? It usually ends in /api" if was == "text/html" else ""
        raise BadAnswer(endpoint, "", f"is not JSON but {was}{hint}") from None
    except Unstructurable as error:
        raise BadAnswer(endpoint, error.field, error.problem) from None


def _missing(endpoint: Endpoint, what: str, detail: str) -> ApiError:
    """Tell Prefect's "there is no such run" from a proxy's or a wrong address's "no such page".

    The difference matters: on the first, what we owe the server about the run is dropped.
    """
    if detail and detail != NO_SUCH_ROUTE:
        return NotFound(endpoint, what)
    return BadAnswer(
        endpoint,
        "",
        "is a 404 that does not come from this route of a Prefect API; is PREFECT_API_URL right?"
        " It usually ends in /api",
    )


def _words(body: Any) -> str:
    """Find the reason in an error's body. Prefect's 422 also repeats the request: not that."""
    if not isinstance(body, dict):
        return ""
    for key in ("exception_detail", "detail", "exception_message"):
        found = body.get(key)
        if isinstance(found, str):
            return found
        if isinstance(found, list):
            return "; ".join(_complaint(item) for item in found if isinstance(item, dict))
    return ""


def _complaint(item: dict[str, Any]) -> str:
    where = item.get("loc")
    place = ".".join(str(step) for step in where) if isinstance(where, list) else "?"
    return f"{place}: {item.get('msg')}"
