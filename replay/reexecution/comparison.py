"""Holds what the daemon appends now against what is recorded, field by field. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs

from events.codec import decode, unstructure
from events.lifecycle import Event
from events.log import Draft
from events.observations import InfrastructureResolved
from replay.reexecution.recording import Entry
from replay.verification import FieldDifference, differences

NEVER_KEPT: Final = "$.env"
"""Where the digests of values are that the log does not have: only their names can be compared."""


@attrs.frozen
class Appended:
    """One event that the daemon appends.

    Attributes:
        closes: it is marked as the last of its stream.
    """

    stream: str
    version: int
    draft: Draft
    closes: bool

    @property
    def event(self) -> Event:
        """What it says."""
        return decode(self.draft)


@attrs.frozen
class Step:
    """A recorded event, and what the daemon appends in its place.

    Attributes:
        differences: none when it is the same.
        stood_in: the daemon was handed the recorded error, for no answer is known that would lead
            to it.
    """

    entry: Entry
    appended: Event
    differences: tuple[FieldDifference, ...] = ()
    stood_in: bool = False

    @property
    def same(self) -> bool:
        """Whether the daemon appends what is recorded."""
        return not self.differences


@attrs.frozen
class Divergence:
    """The first place where the daemon does otherwise than is recorded.

    Attributes:
        entry: what is recorded there; None behind its end.
        problem: what is otherwise, for people.
        fields: which fields, when the right event comes with other contents.
    """

    entry: Entry | None
    problem: str
    fields: tuple[FieldDifference, ...] = ()


def compare(entry: Entry, now: Appended) -> tuple[FieldDifference, ...]:
    """Return the fields in which a recorded event and an appended one differ.

    Both are compared as this release understands them, so that what an older release did not know
    yet is no difference. Of events of two types only that is said.
    """
    record, draft = entry.record, now.draft
    if record.type != draft.type:
        return (FieldDifference("type", record.type, draft.type),)
    return tuple(_column_differences(entry, now)) + tuple(
        differences(unstructure(entry.event), _comparable(unstructure(now.event), entry.event))
    )


def values_not_kept(event: Event) -> int:
    """Return how many values the log only has a digest of, so that they can't be compared."""
    if not isinstance(event, InfrastructureResolved):
        return 0
    return sum(digest is not None for digest in event.env.values())


def _column_differences(entry: Entry, now: Appended) -> Iterator[FieldDifference]:
    record, draft = entry.record, now.draft
    # An older schema was brought up to date when it was read; a newer one can't be read at all.
    schema = max(record.schema, type(entry.event).SCHEMA)
    for column, recorded, appended in (
        ("stream", record.stream, now.stream),
        ("version", record.version, now.version),
        ("schema", schema, draft.schema),
        ("cause", record.cause, draft.cause),
        ("closes", record.closes, now.closes),
    ):
        if recorded != appended:
            yield FieldDifference(column, recorded, appended)


def _comparable(fields: dict[str, Any], recorded: Event) -> dict[str, Any]:
    """Put the recorded digests in place of those that were made of placeholders."""
    if not isinstance(recorded, InfrastructureResolved):
        return fields
    env = {
        name: recorded.env.get(name) or digest if digest is not None else None
        for name, digest in fields["env"].items()
    }
    return fields | {"env": env}
