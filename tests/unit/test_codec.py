"""Records of other releases, and records that are none."""

from __future__ import annotations

from uuid import UUID

import pytest

from events import codec
from events.codec import UndecodableRecord, decode, encode
from events.lifecycle import Effect, EffectDeferred, PendingProposed
from events.log import Draft

ID = UUID("0c0ffee0-0000-4000-8000-000000000000")


def test_the_bytes_of_an_event_are_these() -> None:
    draft = encode(PendingProposed(ID), cause=3)
    data = '{"transition_id":"0c0ffee0-0000-4000-8000-000000000000"}'
    assert draft == Draft("PendingProposed", 1, data, 3)


def test_an_unknown_event_is_said_to_be_unknown() -> None:
    with pytest.raises(UndecodableRecord, match=r"RunTeleported.*newer"):
        decode(Draft("RunTeleported", 1, "{}"))


def test_a_newer_schema_asks_for_a_newer_release() -> None:
    with pytest.raises(UndecodableRecord, match=r"PendingProposed record of schema 9.*newer"):
        decode(Draft("PendingProposed", 9, "{}"))


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("{}", "transition_id"),
        ('{"transition_id": 7}', r"transition_id"),
        ('{"transition_id": "no-uuid"}', r"transition_id"),
        ("[]", ""),
        ("not json", ""),
    ],
)
def test_a_malformed_record_names_the_field(data: str, names: str) -> None:
    with pytest.raises(UndecodableRecord, match=rf"PendingProposed.*{names}"):
        decode(Draft("PendingProposed", 1, data))


def test_old_records_are_upcast_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def to_2(fields: dict[str, object]) -> dict[str, object]:
        return {"effect": fields["what"], "delay": fields["delay"], "reason": "unknown"}

    def to_3(fields: dict[str, object]) -> dict[str, object]:
        return {**fields, "delay_seconds": fields["delay"]}

    monkeypatch.setattr(EffectDeferred, "SCHEMA", 3)
    monkeypatch.setitem(codec.UPCASTERS, ("EffectDeferred", 1), to_2)
    monkeypatch.setitem(codec.UPCASTERS, ("EffectDeferred", 2), to_3)
    event = decode(Draft("EffectDeferred", 1, '{"what":"resolve","delay":2.5}'))
    assert event == EffectDeferred(Effect.RESOLVE, 2.5, "unknown")


def test_every_schema_step_of_every_event_has_its_upcaster() -> None:
    for name, event_class in codec.EVENT_TYPES.items():
        for schema in range(1, event_class.SCHEMA):
            assert (name, schema) in codec.UPCASTERS
