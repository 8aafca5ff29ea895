"""A string that must not be seen: API keys, auth strings, header values.

Its repr, str and format are a mask, so that no log line, error message or traceback shows it by
accident; only `reveal` gives it away. Made by the settings, opened by the client and by whoever
builds a job's environment.
"""

from __future__ import annotations

from typing import Final

import attrs

MASK: Final = "********"
"""What Prefect's own API shows in place of a secret."""


@attrs.frozen(repr=False, str=False)
class Secret:
    """A secret string. Two are equal when what they hold is."""

    _value: str

    def reveal(self) -> str:
        """Return what must not be logged."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __bool__(self) -> bool:
        return bool(self._value)
