"""Hypothesis strategies for every event there is."""

from __future__ import annotations

import math
from uuid import UUID

import attrs
from hypothesis import strategies as st

from events.codec import EVENT_TYPES
from events.lifecycle import Effect, Event, Transition, Verdict
from events.observations import Observation

st.register_type_strategy(float, st.floats(0, 1e6).filter(math.isfinite))
st.register_type_strategy(int, st.integers(-(2**31), 2**53))
st.register_type_strategy(str, st.text(max_size=20))
st.register_type_strategy(UUID, st.uuids())

STATE_TYPES = ("SCHEDULED", "PENDING", "RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLING")

KINDS = sorted(EVENT_TYPES.values(), key=lambda kind: kind.__name__)


def events() -> st.SearchStrategy[Event]:
    """Any event."""
    return st.sampled_from(KINDS).flatmap(st.from_type)


def transitions() -> st.SearchStrategy[Transition]:
    """Any transition."""
    kinds = [kind for kind in KINDS if issubclass(kind, Transition)]
    return st.sampled_from(kinds).flatmap(st.from_type)


def observations() -> st.SearchStrategy[Observation]:
    """Any observation, with few enough values that some fit together."""
    kinds = [kind for kind in KINDS if issubclass(kind, Observation)]
    return st.sampled_from(kinds).flatmap(_likely)


_LIKELY = {
    "status": st.sampled_from(("ACCEPT", "REJECT", "ABORT", "WAIT")),
    "state_type": st.none() | st.sampled_from(STATE_TYPES),
    "effect": st.sampled_from(Effect),
    "verdict": st.sampled_from(Verdict),
    "transition_id": st.none() | st.uuids(),
    "jitter": st.floats(0, 1, exclude_max=True),
}


def _likely(kind: type[Observation]) -> st.SearchStrategy[Observation]:
    fields = {
        field.name: _LIKELY[field.name] for field in attrs.fields(kind) if field.name in _LIKELY
    }
    return st.builds(kind, **fields)
