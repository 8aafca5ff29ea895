"""Reads request bodies as strictly as the servers do, and says what is wrong in their shape.

`routes` asks a `Fields` for one field after another and then calls `check`, which raises one
`Refusal` with everything that was wrong. The two flavours differ in what they coerce.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from agent.standin.flavours import Flavour
from agent.standin.refusals import JSON, invalid_request
from agent.standin.rules import STATE_TYPES

_MISSING = object()


def parse_moment(text: str) -> datetime:
    """Read an ISO 8601 time. One without an offset is UTC, as on the servers.

    Raises:
        ValueError: it is none.
    """
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Fields:
    """The fields of one JSON object in a request, with what turned out to be wrong with them."""

    def __init__(
        self,
        raw: Any,
        flavour: Flavour,
        *,
        loc: tuple[str | int, ...] = ("body",),
        parent: Fields | None = None,
    ) -> None:
        self.raw: Mapping[str, Any] = raw if isinstance(raw, dict) else {}
        self.flavour = flavour
        self._whole: Any = parent._whole if parent else raw
        self._loc = loc
        self._asked: set[str] = set()
        self._errors: list[JSON] = parent._errors if parent else []
        if not isinstance(raw, dict):
            self.wrong((), "Input should be a valid dictionary", "dict_type", raw)

    @classmethod
    def parse(cls, body: bytes, flavour: Flavour) -> Fields:
        """Read a request's body; an empty one is an empty object.

        Raises:
            Refusal: it is no JSON.
        """
        try:
            raw = orjson.loads(body) if body.strip() else {}
        except orjson.JSONDecodeError as error:
            text = body.decode(errors="replace")
            problem = {"loc": ["body", error.pos], "msg": error.msg, "type": "json_invalid"}
            raise invalid_request([problem], text) from error
        return cls(raw, flavour)

    def __contains__(self, name: str) -> bool:
        return name in self.raw

    def wrong(self, at: tuple[str | int, ...], message: str, kind: str, value: Any) -> None:
        """Note that something is wrong, below this object."""
        problem: JSON = {"loc": [*self._loc, *at], "msg": message, "type": kind}
        if self.flavour.name == "3":
            problem["input"] = value
        self._errors.append(problem)

    def _get(
        self, name: str, read: Callable[[Any], Any], what: str, default: Any, *, nullable: bool
    ) -> Any:
        self._asked.add(name)
        value = self.raw.get(name, _MISSING)
        if value is _MISSING:
            if default is _MISSING:
                self.wrong((name,), "field required", "missing", dict(self.raw))
            return default
        if value is None and nullable:
            return None if default is _MISSING else default
        try:
            return read(value)
        except (ValueError, TypeError, KeyError) as error:
            self.wrong((name,), str(error) or f"Input should be a valid {what}", what, value)
            return default

    def _as_text(self, value: Any) -> str:
        if isinstance(value, int | float) and self.flavour.coerces_text:
            return str(value)
        if not isinstance(value, str):
            raise TypeError("Input should be a valid string")
        return value

    def text(self, name: str, default: Any = None) -> Any:
        """A text, or the default for none and null."""
        return self._get(name, self._as_text, "string", default, nullable=True)

    def required_text(self, name: str) -> str:
        """A text that has to be there."""
        value = self._get(name, self._as_text, "string", _MISSING, nullable=False)
        return value if isinstance(value, str) else ""

    def name(self, name: str) -> str:
        """A name that has to be there and is free of the characters that names may not have."""

        def read(value: Any) -> str:
            text = self._as_text(value)
            if not text or any(c in text for c in "/%&><"):
                raise ValueError("String should match pattern '^[^/%&><]+$'")
            return text

        found = self._get(name, read, "string_pattern_mismatch", _MISSING, nullable=False)
        return found if isinstance(found, str) else ""

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""

        def read(value: Any) -> bool:
            if not isinstance(value, bool):
                raise TypeError("Input should be a valid boolean")
            return value

        return bool(self._get(name, read, "bool", default, nullable=False))

    def whole(self, name: str, default: Any = None, *, at_least: int | None = 0) -> Any:
        """A whole number, or the default for none and null."""

        def read(value: Any) -> int:
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError("Input should be a valid integer")
            if at_least is not None and value < at_least:
                raise ValueError(f"Input should be greater than or equal to {at_least}")
            return value

        return self._get(name, read, "int", default, nullable=True)

    def moment(self, name: str) -> datetime | None:
        """A time, UTC."""

        def read(value: Any) -> datetime:
            try:
                return parse_moment(value)
            except (ValueError, TypeError) as error:
                raise ValueError(f"Unable to parse string [{value}]") from error

        found = self._get(name, read, "value_error", None, nullable=True)
        return found if isinstance(found, datetime) else None

    def uuid(self, name: str, default: Any = None) -> Any:
        """An id, or the default for none and null."""
        return self._get(name, read_id, "uuid_parsing", default, nullable=True)

    def id_text(self, name: str) -> str | None:
        """An id as text, or None."""
        found = self.uuid(name)
        return None if found is None else str(found)

    def required_uuid(self, name: str) -> UUID:
        """An id that has to be there."""
        found = self._get(name, read_id, "uuid_parsing", _MISSING, nullable=False)
        return found if isinstance(found, UUID) else UUID(int=0)

    def required(self, name: str, read: Callable[[Any], Any]) -> Any:
        """A value that has to be there, read by a function; None when it is wrong."""
        found = self._get(name, read, "value", _MISSING, nullable=False)
        return None if found is _MISSING else found

    def mapping(self, name: str) -> JSON:
        """An object whose fields are anybody's."""

        def read(value: Any) -> JSON:
            if not isinstance(value, dict):
                raise TypeError("Input should be a valid dictionary")
            return value

        return dict(self._get(name, read, "dict_type", None, nullable=True) or {})

    def items(self, name: str, read: Callable[[Any], Any] | None = None) -> list[Any] | None:
        """A list, each element read; None for none and null. An element is wrong on its own."""

        def read_all(value: Any) -> list[Any]:
            if not isinstance(value, list):
                raise TypeError("Input should be a valid list")
            return value

        found = self._get(name, read_all, "list_type", None, nullable=True)
        if not isinstance(found, list):
            return None
        values = []
        for index, value in enumerate(found):
            try:
                values.append((read or self._as_text)(value))
            except (ValueError, TypeError, KeyError) as error:
                self.wrong((name, index), str(error), "value_error", value)
        return values

    def nested(self, name: str) -> Fields | None:
        """An object of its own, None for none and null."""
        self._asked.add(name)
        if self.raw.get(name) is None:
            return None
        return Fields(self.raw[name], self.flavour, loc=(*self._loc, name), parent=self)

    def ignore(self, *names: str) -> None:
        """Allow fields that the servers take and the stand-in has no use for."""
        self._asked.update(names)

    def forbid_others(self) -> None:
        """Object to every field that has not been asked for."""
        for name in self.raw:
            if name not in self._asked:
                self.wrong((name,), "extra fields not permitted", "extra", self.raw[name])

    def check(self) -> None:
        """Raise what was wrong, all of it.

        Raises:
            Refusal: something was.
        """
        if self._errors:
            raise invalid_request(self._errors, self._whole)


def read_id(value: Any) -> UUID:
    """Read an id."""
    if not isinstance(value, str):
        raise TypeError("Input should be a valid UUID")
    try:
        return UUID(value)
    except ValueError as error:
        raise ValueError("Input should be a valid UUID") from error


def read_state_type(value: Any) -> str:
    """Read a state's type; its case matters."""
    if value not in STATE_TYPES:
        raise ValueError(f"Input should be one of {', '.join(STATE_TYPES)}")
    return str(value)


def read_state(fields: Fields) -> JSON:
    """Read a proposed state. Neither flavour uses an `id` or `timestamp`; 2.20 allows them."""
    type_ = fields.required("type", read_state_type)
    name, message = fields.text("name"), fields.text("message")
    fields.ignore("data")
    if fields.flavour.state_may_carry_id:
        fields.ignore("id", "timestamp")
    details = _read_details(fields)
    fields.forbid_others()
    return {
        "type": type_,
        "name": name,
        "message": message,
        "data": fields.raw.get("data"),
        "state_details": details,
    }


def _read_details(fields: Fields) -> JSON:
    if "state_details" in fields and fields.raw["state_details"] is None:
        fields.wrong(("state_details",), "none is not an allowed value", "dict_type", None)
    nested = fields.nested("state_details")
    if nested is None:
        return {}
    due, transition = nested.moment("scheduled_time"), nested.uuid("transition_id")
    return {
        "scheduled_time": None if due is None else due.isoformat(),
        "transition_id": None if transition is None else str(transition),
        "pause_key": nested.text("pause_key"),
        "pause_reschedule": nested.flag("pause_reschedule"),
    }
