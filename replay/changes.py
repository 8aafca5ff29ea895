"""One thing changed in what was recorded: an observation left out or replaced, another setting.

Pure: a record in, what is shown to the decider instead of it out. `replay.whatif` asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs
import orjson

from events.codec import EVENT_TYPES, UndecodableRecord, decode
from events.lifecycle import OnUncertain
from events.log import Draft, Record
from events.observations import EvidenceFound, Observation, RunOffered


class UnfitChange(Exception):
    """A change that can't be made, and why."""


@attrs.frozen
class Changes:
    """What is to be otherwise than it was recorded; nothing by default.

    Attributes:
        left_out: positions of observations that are not shown.
        replaced: what is shown instead of the observation at a position.
        on_uncertain: `--on-uncertain` of the agent.
        max_late_seconds: `--max-late` of the agent; None where it stays as it was.
    """

    left_out: frozenset[int] = frozenset()
    replaced: Mapping[int, Draft] = attrs.field(factory=dict)
    on_uncertain: OnUncertain | None = None
    max_late_seconds: float | None = None

    def shown(self, record: Record) -> Record | Draft | None:
        """Return what is shown for a recorded observation; None when it is left out."""
        if record.position in self.left_out:
            return None
        draft = self.replaced.get(record.position)
        if draft is not None:
            return draft
        if self.max_late_seconds is not None and record.type == RunOffered.__name__:
            late = lateness(record)
            if late is not None and late > self.max_late_seconds:
                return None
        if self.on_uncertain is not None and record.type == EvidenceFound.__name__:
            fields = fields_of(record) | {"on_uncertain": self.on_uncertain.value}
            return Draft(record.type, record.schema, _canonical(fields))
        return record


def lateness(offered: Record) -> float | None:
    """Return how many seconds after it was due a run was offered; None when it was never due."""
    try:
        due = orjson.loads(offered.data)["scheduled_time"]
        if due is None:
            return None
        found, expected = datetime.fromisoformat(offered.recorded_at), datetime.fromisoformat(due)
        return (found - expected).total_seconds()
    except (ValueError, KeyError, TypeError):
        return None  # Altered, or of a release that says it otherwise.


def replacement(record: Record, wanted: Mapping[str, Any]) -> Draft:
    """Return an observation that takes the place of a recorded one.

    Args:
        record: the recorded observation.
        wanted: the fields that are to be other than recorded; with another `type`, all that
            observation's fields.

    Raises:
        UnfitChange: there is no such observation or field, or a value does not fit.
    """
    type_ = wanted.get("type", record.type)
    event_class = EVENT_TYPES.get(type_) if isinstance(type_, str) else None
    if event_class is None or not issubclass(event_class, Observation):
        kinds = sorted(n for n, kind in EVENT_TYPES.items() if issubclass(kind, Observation))
        raise UnfitChange(f"{type_!r} is no observation; there are {', '.join(kinds)}")
    fields = {name: value for name, value in wanted.items() if name != "type"}
    known = [field.name for field in attrs.fields(event_class)]
    for name in fields:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UnfitChange(f"{type_} has no field {name!r}; {has}")
    if type_ == record.type:
        fields = fields_of(record) | fields
    draft = Draft(type_, record.schema if type_ == record.type else event_class.SCHEMA, "")
    draft = attrs.evolve(draft, data=_canonical(fields))
    try:
        decode(draft)
    except UndecodableRecord as error:
        raise UnfitChange(f"it would be no {type_}: {error.reason}") from error
    return draft


def fields_of(draft: Record | Draft) -> dict[str, Any]:
    """Return an event's fields as they were recorded; none where they were altered beyond that."""
    try:
        fields = orjson.loads(draft.data)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _canonical(fields: Mapping[str, Any]) -> str:
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()
