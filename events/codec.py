"""Events to JSON records and back, across versions.

Every event class has a schema version. A record that an older release wrote is *upcast* on read,
one pure step from version n to n+1 after the other; the bytes on disk never change, so fields
that this release does not know survive in the record. A kept log of every release is in
tests/samples and must decode for good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from types import ModuleType
from typing import Any, Final, TypeVar
from uuid import UUID

import attrs
import cattrs
import cattrs.errors
import orjson

from events import lifecycle, notices, observations
from events.lifecycle import Event
from events.log import Draft, LogError, Record

E = TypeVar("E", bound=Event)

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTERS: Final[dict[tuple[str, int], Upcaster]] = {}
"""(event type, schema n) -> the pure function from its fields in n to those in n+1."""


class UndecodableRecord(LogError):
    """A record that this release can't turn into an event."""

    def __init__(self, type_: str, schema: int, reason: str) -> None:
        self.type, self.schema, self.reason = type_, schema, reason
        super().__init__(f"can't decode a {type_} record of schema {schema}: {reason}")


def encode(event: Event, cause: int | None = None) -> Draft:
    """Return an event as a draft record; `cause` is a version in the stream it will go to."""
    return Draft(type(event).__name__, event.SCHEMA, canonical(event), cause)


def canonical(event: Event) -> str:
    """Return an event's fields as the text that a record holds: equal events, equal texts."""
    # Events are flat, and orjson writes ids, enums, tuples and dicts itself.
    fields = {name: getattr(event, name) for name in _NAMES[type(event)]}
    return orjson.dumps(fields, default=dict, option=orjson.OPT_SORT_KEYS).decode()


def decode(record: Record | Draft) -> Event:
    """Return the event that a record holds.

    Raises:
        UndecodableRecord: of an unknown type, of a newer schema, or with fields that don't fit.
    """
    return decode_fields(record.type, record.schema, record.data)


def decode_fields(type_: str, schema: int, data: str) -> Event:
    """Return the event that a record of this type and schema holds; see `decode`."""
    event_class = EVENT_TYPES.get(type_)
    if event_class is None:
        raise UndecodableRecord(
            type_, schema, "no such event in this release; a newer one may know it"
        )
    if schema > event_class.SCHEMA:
        reason = f"this release knows schemas up to {event_class.SCHEMA}; use a newer one"
        raise UndecodableRecord(type_, schema, reason)
    try:
        fields = orjson.loads(data)
        for older in range(schema, event_class.SCHEMA):
            fields = UPCASTERS[type_, older](fields)
        try:
            return _quick(type_)(fields, event_class)
        except Exception:
            return structure(fields, event_class)  # half as fast, but it says what is wrong
    except (ValueError, KeyError, TypeError, cattrs.errors.BaseValidationError) as error:
        reason = "; ".join(_explain(error))
        raise UndecodableRecord(type_, schema, reason) from error


def structure(fields: Mapping[str, Any], event_class: type[E]) -> E:
    """Build an event of a known class from its unstructured fields."""
    return _converter().structure(fields, event_class)


def unstructure(event: Event) -> dict[str, Any]:
    """Return an event's fields as JSON values: for comparing, showing and exporting."""
    fields: dict[str, Any] = _converter().unstructure(event)
    return fields


def _explain(error: Exception) -> list[str]:
    if isinstance(error, cattrs.errors.BaseValidationError):
        return cattrs.transform_error(error, path="data")
    return [str(error) or type(error).__name__]


def _event_types(*modules: ModuleType) -> dict[str, type[Event]]:
    families = (Event, lifecycle.Transition, observations.Observation, notices.Notice)
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Event) and value not in families
    }


EVENT_TYPES: Final[Mapping[str, type[Event]]] = _event_types(lifecycle, observations, notices)
"""Every event that can be in a log, by the name it is recorded under."""

_NAMES: Final[Mapping[type[Event], tuple[str, ...]]] = {
    class_: tuple(field.name for field in attrs.fields(class_)) for class_ in EVENT_TYPES.values()
}


@cache
def _converter() -> cattrs.Converter:
    """Return the converter that explains itself; made when first used, for it compiles code."""
    return _prepared(cattrs.Converter())


@cache
def _quick(type_: str) -> Callable[[Any, type[Event]], Event]:
    """Return what structures a type three times as fast, and does not say what is wrong."""
    return _quick_converter().get_structure_hook(EVENT_TYPES[type_])


@cache
def _quick_converter() -> cattrs.Converter:
    converter = _prepared(cattrs.Converter(detailed_validation=False))
    for kind in (str, int, float):
        converter.register_structure_hook(
            kind | None, lambda value, _t, k=kind: None if value is None else k(value)
        )
    converter.register_structure_hook(
        UUID | None, lambda value, _t: None if value is None else _to_uuid(value, UUID)
    )
    return converter


def _prepared(converter: cattrs.Converter) -> cattrs.Converter:
    converter.register_unstructure_hook(UUID, str)
    converter.register_structure_hook(UUID, _to_uuid)
    for class_ in EVENT_TYPES.values():
        attrs.resolve_types(class_)
    return converter


def _to_uuid(value: Any, _type: type[UUID]) -> UUID:
    if not isinstance(value, str):
        raise TypeError(f"an id is a string, not {type(value).__name__}")
    return _parsed_uuid(value)


@lru_cache(maxsize=4096)
def _parsed_uuid(text: str) -> UUID:
    # The same few ids (flows, deployments, the agent) come again and again.
    return UUID(text)
