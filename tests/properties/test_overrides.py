"""What holds for every override."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.infrastructure.errors import ResolutionError
from agent.infrastructure.overrides import apply_overrides

PARTS = st.text("abc", min_size=1, max_size=2)
PATHS = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
VALUES = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
DOCUMENTS = st.recursive(
    st.dictionaries(PARTS, VALUES, max_size=3),
    lambda inner: st.dictionaries(PARTS, inner | VALUES, max_size=3),
    max_leaves=8,
)


def at(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document[part]
    return document


@given(DOCUMENTS, PATHS, VALUES)
def test_an_override_is_there_afterwards_or_says_why_not(
    document: dict[str, Any], path: str, value: Any
) -> None:
    before = copy.deepcopy(document)
    try:
        result = apply_overrides(document, {path: value})
    except ResolutionError as error:
        assert path in error.reason  # noqa: PT017 - either is right, and each is checked
    else:
        assert at(result, path) == value
    assert document == before


@given(PATHS, VALUES)
def test_an_override_makes_the_mappings_that_are_missing_on_its_way(path: str, value: Any) -> None:
    assert at(apply_overrides({}, {path: value}), path) == value


@pytest.mark.parametrize("path", ["", ".", "env.", ".env", "env..A"])
def test_a_path_with_an_empty_part_is_refused(path: str) -> None:
    with pytest.raises(ResolutionError):
        apply_overrides({}, {path: 1})
