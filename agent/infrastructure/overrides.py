"""Overrides: a deployment's (and a run's) values put over an infrastructure document.

Pure. Prefect's agents know them as `infra_overrides`, later `job_variables`: a dotted path into
the document, and the value that belongs there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from agent.infrastructure.errors import ResolutionError

_KINDS: Mapping[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    type(None): "null",
}


def apply_overrides(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a document with overrides set in it, in the order that they are given.

    Mappings that are missing on the way are made (Prefect's agents raise KeyError there). The
    value at the end of a path replaces what was there, as a whole.

    Raises:
        ResolutionError: a path has an empty part, or leads through something that is no mapping.
            The message names the path and what is there, never a value.
    """
    result: dict[str, Any] = copy.deepcopy(dict(document))
    for path, value in overrides.items():
        *way, last = path.split(".")
        if "" in (*way, last):
            raise ResolutionError(f"the override {path!r} has an empty part")
        target = result
        for depth, part in enumerate(way):
            below = target.setdefault(part, {})
            if not isinstance(below, dict):
                so_far = ".".join(way[: depth + 1])
                kind = _KINDS.get(type(below), type(below).__name__)
                raise ResolutionError(
                    f"the override {path!r} leads through {so_far!r}, which is {kind} and not a"
                    " mapping"
                )
            target = below
        target[last] = copy.deepcopy(value)
    return result


def merge_overrides(deployment: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Put a run's own overrides over its deployment's; `env` is merged variable by variable."""
    merged = {**deployment, **run}
    if isinstance(deployment.get("env"), Mapping) and isinstance(run.get("env"), Mapping):
        merged["env"] = {**deployment["env"], **run["env"]}
    return merged
