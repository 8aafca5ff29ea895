"""Overrides: a deployment's and a run's values put over an infrastructure document.

Pure. Prefect knows them as `infra_overrides`, later `job_variables`: a dotted path into the
document, and the value that belongs there. Called by `agent.infrastructure.resolve`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from agent.infrastructure.errors import ResolutionError

ENV: Final = "env"

_KINDS: Final[Mapping[type, str]] = {
    dict: "a mapping",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def apply_overrides(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a document with overrides set in it, in the order that they are given.

    What is missing on the way is made, as mappings; Prefect 2.20's agent raises KeyError there.
    The value replaces what was at the end of the path, as a whole: `env` drops all variables of
    the document, `env.FOO` sets one.

    Raises:
        ResolutionError: a path has an empty part, or leads through something that is no mapping.
    """
    result: dict[str, Any] = copy.deepcopy(dict(document))
    for path, value in overrides.items():
        _put(result, path, value)
    return result


def apply_job_variables(
    document: Mapping[str, Any], of_deployment: Mapping[str, Any], of_run: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a copy of a document with a deployment's overrides in it, then the run's own.

    A run's `env` adds to the variables that are there, key by key, as Prefect 3's workers have
    it: who starts one run with one more variable does not mean to drop all others.

    Raises:
        ResolutionError: as `apply_overrides`.
    """
    result = apply_overrides(document, of_deployment)
    for path, value in of_run.items():
        there = result.get(ENV)
        if path == ENV and isinstance(value, dict) and isinstance(there, dict):
            there.update(copy.deepcopy(value))
        else:
            _put(result, path, value)
    return result


def kind_of(value: Any) -> str:
    """Return what a value out of JSON is, in words that tell nothing else of it."""
    return _KINDS.get(type(value), type(value).__name__)


def _put(document: dict[str, Any], path: str, value: Any) -> None:
    *way, last = parts = path.split(".")
    if "" in parts:
        raise ResolutionError(f"the override {path!r} has an empty part")
    target = document
    for depth, part in enumerate(way, start=1):
        below = target.setdefault(part, {})
        if not isinstance(below, dict):
            so_far = ".".join(way[:depth])
            raise ResolutionError(
                f"the override {path!r} leads through {so_far!r}, which is {kind_of(below)}"
                " and not a mapping"
            )
        target = below
    target[last] = copy.deepcopy(value)
