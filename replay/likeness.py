"""When two steps of two submissions are the same: all but what is expected to differ.

Ids, times, pids and names differ between any two submissions and say nothing. Here they are taken
out of events, and out of the texts in which they are mentioned; what is left can be compared.
Pure; `replay.alignment` and `replay.comparison` use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Final

import attrs
import orjson

from events.codec import unstructure
from events.submission import Submission
from replay.player import Step

EXPECTED: Final = frozenset(
    {
        "agent_id", "flow_run_id", "run_name", "ordinal", "scheduled_state_id", "scheduled_time",
        "launch_key", "transition_id", "state_id", "infrastructure_pid", "pid", "start_time",
        "boot_id", "before_id", "before_transition_id", "restores", "name", "jitter",
    }
)  # fmt: skip
"""Fields that differ between any two submissions, in whatever event."""

EXPECTED_IN: Final[Mapping[str, frozenset[str]]] = {
    # Jitter is part of it.
    "EffectDeferred": frozenset({"delay_seconds"}),
}
"""event type -> more such fields of it."""

SETTINGS: Final = frozenset(
    {
        "deployment_id", "flow_id", "queue", "attempt", "infrastructure", "command", "working_dir",
        "env", "labels", "evidence_id", "on_uncertain",
    }
)  # fmt: skip
"""Fields that say what a submission was given, and not what became of it."""

EXPECTED_KEYS: Final = frozenset(
    {"PREFECT__FLOW_RUN_ID", "prefect.io/flow-run-id", "prefect.io/flow-run-name"}
)
"""Variables and labels that say which run it is."""

CHOICES: Final = (
    "effect", "status", "state_type", "server_state", "verdict", "step", "exit_code", "retryable",
)  # fmt: skip
"""Fields that make an event another kind of news: a refusal is no acceptance."""

SHORTEST_NAME: Final = 4
"""A run's name that is shorter may well be part of another word."""


@attrs.frozen(slots=False)
class Own:
    """The names by which one submission is mentioned in texts.

    Attributes:
        names: what it is called -> what is put in its place.
        everything: nothing is expected to differ, and nothing is taken out.
        settings_apart: what a submission was given is compared by itself, and not in its steps.
    """

    names: Mapping[str, str] = attrs.field(factory=dict)
    everything: bool = False
    settings_apart: bool = False

    @classmethod
    def of(
        cls, submission: Submission, *, everything: bool = False, settings_apart: bool = False
    ) -> Own:
        """Collect the names of a submission."""
        names: dict[str, str] = {}
        if submission.discovered is not None:
            run = submission.discovered
            names |= {str(run.flow_run_id): "(run id)", run.flow_run_id.hex: "(run id)"}
            names |= {run.launch_key: "(launch key)", submission.launch_key: "(launch key)"}
            names |= {str(run.scheduled_state_id): "(state id)", run.run_name: "(run name)"}
        if submission.launch is not None:
            names.setdefault(submission.launch.name, "(name)")
        if submission.confirmed is not None:
            names[submission.confirmed.infrastructure_pid] = "(pid)"
        told = {name: place for name, place in names.items() if len(name) >= SHORTEST_NAME}
        return cls({} if everything else told, everything, settings_apart)

    def fields(self, step: Step) -> dict[str, Any]:
        """Return the fields of a step's event by which it can be compared."""
        fields = raw_fields(step)
        if self.settings_apart:
            fields = {name: value for name, value in fields.items() if name not in SETTINGS}
        if self.everything:
            return fields
        dropped = EXPECTED | EXPECTED_IN.get(step.record.type, frozenset())
        return {k: self.likened(v) for k, v in fields.items() if k not in dropped}

    def likened(self, value: Any) -> Any:
        """Return a value without this submission's names."""
        match value:
            case str():
                return self._pattern.sub(self._placeholder, value) if self.names else value
            case Mapping():
                return {k: self.likened(v) for k, v in value.items() if k not in EXPECTED_KEYS}
            case list() | tuple():
                return [self.likened(item) for item in value]
            case _:
                return value

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.names, key=len, reverse=True)
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")

    def _placeholder(self, match: re.Match[str]) -> str:
        return self.names[match.group()]


def raw_fields(step: Step) -> dict[str, Any]:
    """Return all fields of a step's event; of one that can't be read, as they were recorded."""
    if step.event is not None:
        return unstructure(step.event)
    try:
        fields = orjson.loads(step.record.data)
    except ValueError:
        return {"(not JSON)": step.record.data}
    return fields if isinstance(fields, dict) else {"(no object)": fields}


Shape = tuple[Any, ...]


def shape(step: Step) -> Shape:
    """Return what kind of news a step is; steps are aligned by this."""
    return (step.record.type, *(getattr(step.event, name, None) for name in CHOICES))


def shapes(steps: Iterable[Step]) -> list[Shape]:
    """Return the shape of each step."""
    return [shape(step) for step in steps]
