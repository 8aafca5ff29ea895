"""Every event survives the log."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from events.codec import decode, encode
from events.lifecycle import Event
from events.log import Draft
from tests.properties.strategies import events


@given(events())
def test_every_event_round_trips(event: Event) -> None:
    assert decode(encode(event)) == event


@given(events())
def test_encoding_is_canonical(event: Event) -> None:
    draft = encode(event)
    assert encode(decode(draft)) == draft
    fields = orjson.loads(draft.data)
    assert orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode() == draft.data


@given(events(), st.integers())
def test_fields_of_a_later_release_are_left_alone(event: Event, value: int) -> None:
    draft = encode(event)
    fields = orjson.loads(draft.data) | {"from_the_future": str(value)}
    later = Draft(draft.type, draft.schema, orjson.dumps(fields).decode())
    assert decode(later) == event
