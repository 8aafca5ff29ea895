"""What a setting's text may be: one type each, with what is expected in words.

A cattrs converter reads the strings of the environment and the values of TOML alike, as Prefect
does (`yes` and `on` are true, lists of status codes come with commas, headers as JSON). Called by
`agent.settings` only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NewType
from urllib.parse import urlsplit
from uuid import UUID

from cattrs import Converter

from agent.secret import Secret

ApiUrl = NewType("ApiUrl", str)
Seconds = NewType("Seconds", float)
"""0 or more."""
Timeout = NewType("Timeout", float)
"""Above 0."""
Count = NewType("Count", int)
Factor = NewType("Factor", float)
StatusCodes = NewType("StatusCodes", frozenset[int])
Headers = NewType("Headers", Mapping[str, Secret])
LogLevel = NewType("LogLevel", str)

TRUE: Final = frozenset({"1", "on", "t", "true", "y", "yes"})
FALSE: Final = frozenset({"0", "off", "f", "false", "n", "no"})
"""The words that pydantic, and so Prefect, reads as booleans, in any case."""

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

EXPECTED: Final[Mapping[Any, str]] = {
    ApiUrl: "an http:// or https:// URL with a host, such as http://127.0.0.1:4200/api",
    Secret: "text in ASCII, on one line",
    bool: "true or false (also 1/0, yes/no, on/off)",
    Path: "a path",
    Timeout: "a number of seconds above 0",
    Seconds: "a number of seconds, 0 or more",
    Count: "a whole number, 0 or more",
    Factor: "a number, 0 or more",
    StatusCodes: "HTTP status codes between 100 and 599, separated by commas",
    Headers: 'a JSON object of header names and values, such as {"X-Team": "data"}',
    LogLevel: f"one of {', '.join(LEVELS)}",
    UUID: "the id (a UUID) of a block document",
    str: "text",
}
"""By a setting's type: how a usable value is described."""

_TOKEN: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
"""Characters of a header's name (RFC 9110, section 5.6.2)."""


def structure(raw: Any, kind: Any) -> Any:
    """Make a setting's value of what was found.

    Raises:
        ValueError, TypeError, cattrs.BaseValidationError: it is not what `EXPECTED` describes.
    """
    return _CONVERTER.structure(raw, kind)


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError("not text")
    return raw.strip()


def _boolean(raw: Any, _type: Any) -> bool:
    word = str(raw).strip().lower()
    if word not in TRUE | FALSE:
        raise ValueError("not a boolean")
    return word in TRUE


def _number(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        raise TypeError("not a number")
    number = float(raw)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _not_negative(raw: Any, _type: Any) -> float:
    number = _number(raw)
    if number < 0:
        raise ValueError("negative")
    return number


def _positive(raw: Any, _type: Any) -> float:
    number = _number(raw)
    if number <= 0:
        raise ValueError("not above 0")
    return number


def _count(raw: Any, _type: Any) -> int:
    number = _number(raw)
    if number < 0 or number != int(number):
        raise ValueError("not a whole number, 0 or more")
    return int(number)


def _status_codes(raw: Any, _type: Any) -> frozenset[int]:
    parts = raw.split(",") if isinstance(raw, str) else raw if isinstance(raw, list) else [raw]
    codes = frozenset(_count(part, None) for part in parts)
    if not all(100 <= code <= 599 for code in codes):
        raise ValueError("not a status code")
    return codes


def _headers(raw: Any, _type: Any) -> Mapping[str, Secret]:
    found = json.loads(raw) if isinstance(raw, str) else raw
    if not isinstance(found, dict):
        raise TypeError("not an object")
    return {_header_name(name): _secret(value, None) for name, value in found.items()}


def _header_name(name: str) -> str:
    if not name or not _TOKEN.issuperset(name):
        raise ValueError("not a header name")
    return name


def _secret(raw: Any, _type: Any) -> Secret:
    # It becomes part of a header: anything else would only fail, or be smuggled in, later.
    text = _text(raw)
    if not (text.isascii() and text.isprintable()):
        raise ValueError("not printable ASCII")
    return Secret(text)


def _url(raw: Any, _type: Any) -> str:
    text = _text(raw).rstrip("/")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("not an API's URL")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("not printable ASCII")
    return text


def _level(raw: Any, _type: Any) -> str:
    text = _text(raw).upper()
    if text not in LEVELS:
        raise ValueError("not a level")
    return text


def _path(raw: Any, _type: Any) -> Path:
    return raw if isinstance(raw, Path) else Path(_text(raw))


def _plain(raw: Any, _type: Any) -> str:
    return _text(raw)


def _uuid(raw: Any, _type: Any) -> UUID:
    return UUID(_text(raw))


def _converter() -> Converter:
    converter = Converter()
    readers: Mapping[Any, Any] = {
        ApiUrl: _url,
        Secret: _secret,
        bool: _boolean,
        Path: _path,
        Timeout: _positive,
        Seconds: _not_negative,
        Count: _count,
        Factor: _not_negative,
        StatusCodes: _status_codes,
        Headers: _headers,
        LogLevel: _level,
        UUID: _uuid,
        str: _plain,
    }
    for kind, reader in readers.items():
        converter.register_structure_hook(kind, reader)
    return converter


_CONVERTER: Final = _converter()
