"""When a request is repeated, and after how long. Pure: no clock, no random source, no network.

The rules are those of Prefect's own client (2.20 and 3.8): 408, 429, 502, 503 and what
PREFECT_CLIENT_RETRY_EXTRA_CODES adds; `Retry-After`, else powers of two, with jitter. Called by
`agent.prefect.wire`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

ALWAYS_REPEATED: Final = frozenset({408, 429, 502, 503})

LONGEST_BACKOFF_SECONDS: Final = 60.0
"""Prefect's powers of two are not bounded; with more than five retries they reach hours."""

UNDER_MAINTENANCE: Final = ("prefect-maintenance", "true")
"""The header by which Prefect Cloud says so (3.x clients): tries are then not counted."""


def is_under_maintenance(headers: Mapping[str, str]) -> bool:
    """Tell whether an answer asks to be tried again for however long it takes."""
    name, value = UNDER_MAINTENANCE
    return headers.get(name, "").strip().lower() == value


def date_of(headers: Mapping[str, str]) -> datetime | None:
    """Return the server's time of an answer, from its `Date` header."""
    return _http_date(headers.get("date", ""))


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return how long an answer asks to wait, from its `Retry-After` header.

    The header has seconds or a date (RFC 9110, 10.2.3; clients before 3.x crash on a date). A
    date is compared with the answer's own `Date`, so that the clocks need not agree.

    Args:
        headers: of the answer, names in lower case or a case-insensitive mapping.
        now: for answers without a `Date`; aware.

    Returns:
        Seconds, 0 or more; None when the header is missing or says nothing usable.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        until = _http_date(value)
        if until is None:
            return None
        seconds = (until - (date_of(headers) or now)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def delay_seconds(
    tries: int, retry_after: float | None, *, jitter_factor: float, draw: float
) -> float:
    """Return how long to wait before the next try.

    Args:
        tries: how often it was tried, from 1.
        retry_after: what the server asked for, in seconds: it is never waited less, and up to
            (1 + jitter_factor) times as long.
        jitter_factor: else the delay is so far off 2**tries at most, as a part of it.
        draw: random, from [0, 1).
    """
    if retry_after is not None:
        return retry_after * (1.0 + jitter_factor * draw)
    backoff = min(2.0 ** min(tries, 30), LONGEST_BACKOFF_SECONDS)
    return max(0.0, backoff * (1.0 + jitter_factor * (2.0 * draw - 1.0)))


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
