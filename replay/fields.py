"""The fields of records and folds as flat lists of paths and values: for showing and comparing.

`replay show --full` and `replay step` print them; the latter also says what a step changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from events.log import Record


def fields_in(record: Record) -> Any:
    """Return what a record holds, as JSON values.

    From the record and not from the event, so that fields of a newer release are there too.
    """
    try:
        return orjson.loads(record.data)
    except ValueError:
        return {"(not JSON)": record.data}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the innermost values of a JSON value, each with its path, e.g. `command[2]`."""
    match value:
        case dict() if value:
            for key, inner in value.items():
                yield from leaves(inner, f"{path}.{key}" if path else str(key))
        case list() | tuple() if value:
            for index, inner in enumerate(value):
                yield from leaves(inner, f"{path}[{index}]")
        case _:
            yield path, value


def as_text(value: Any) -> str:
    """Return a leaf as it is shown."""
    return "null" if value is None else str(value)
