"""What to call a submission when it is mentioned: its run's name, as a person would type it."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from events.log import Record


def name_of(stream: str, records: Sequence[Record]) -> str:
    """Return a submission's name: `nightly-load`, `nightly-load/2`, or its stream's if it has none.

    Args:
        records: of that stream; only the first is read.
    """
    try:
        fields = orjson.loads(records[0].data)
        name, ordinal = fields["run_name"], fields["ordinal"]
    except (IndexError, ValueError, KeyError, TypeError):
        return stream
    if not isinstance(name, str):
        return stream
    return f"{name}/{ordinal}" if ordinal != 1 else name
