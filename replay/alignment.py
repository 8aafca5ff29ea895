"""Lays the steps of two submissions side by side, so that what is the same stands in one row.

Pure; `replay.comparison` and `replay.two_logs` read the rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterator, Sequence
from typing import Final

import attrs

from replay.likeness import Own, shapes
from replay.player import Step
from replay.verification import FieldDifference, differences

MOST_PAIRS: Final = 4_000_000
"""Aligning takes time in proportion to the product of the lengths; a submission that was put off
for weeks has tens of thousands of steps. What goes beyond is set against each other in order."""


@attrs.frozen
class Row:
    """One step of each submission, or of one alone.

    Attributes:
        fields: those that differ and were not expected to; `recorded` is the left one's.
    """

    left: Step | None
    right: Step | None
    fields: tuple[FieldDifference, ...] = ()

    @property
    def same(self) -> bool:
        """Whether both took this step, and alike."""
        return self.left is not None and self.right is not None and not self.fields


def align(left: Sequence[Step], right: Sequence[Step], left_own: Own, right_own: Own) -> list[Row]:
    """Return all steps of both in order.

    Args:
        left_own, right_own: what of each is expected to differ.
    """
    rows = []
    for one, other in _paired(left, right):
        fields: tuple[FieldDifference, ...] = ()
        if one is not None and other is not None:
            pair = left_own.fields(one), right_own.fields(other)
            fields = () if pair[0] == pair[1] else tuple(differences(*pair))
        rows.append(Row(one, other, fields))
    return rows


Pair = tuple[Step | None, Step | None]


def _paired(left: Sequence[Step], right: Sequence[Step]) -> Iterator[Pair]:
    """Pair steps of the same shape; between those, steps of the same type."""
    for a1, a2, b1, b2, same in _blocks(shapes(left), shapes(right)):
        if same:
            yield from zip(left[a1:a2], right[b1:b2], strict=True)
        else:
            yield from _paired_by_type(left[a1:a2], right[b1:b2])


def _paired_by_type(left: Sequence[Step], right: Sequence[Step]) -> Iterator[Pair]:
    types = [step.record.type for step in left], [step.record.type for step in right]
    for a1, a2, b1, b2, same in _blocks(*types):
        if same:
            yield from zip(left[a1:a2], right[b1:b2], strict=True)
        else:
            yield from ((step, None) for step in left[a1:a2])
            yield from ((None, step) for step in right[b1:b2])


Block = tuple[int, int, int, int, bool]


def _blocks(left: Sequence[Hashable], right: Sequence[Hashable]) -> Iterator[Block]:
    """Yield ranges that are the same in both, and those between them."""
    start = 0
    while start < min(len(left), len(right)) and left[start] == right[start]:
        start += 1
    if start:
        yield 0, start, 0, start, True
    rest, other = left[start:], right[start:]
    if len(rest) * len(other) > MOST_PAIRS:
        yield start, len(left), start, len(right), False
        return
    matcher = difflib.SequenceMatcher(None, rest, other, autojunk=False)
    for tag, a1, a2, b1, b2 in matcher.get_opcodes():
        yield start + a1, start + a2, start + b1, start + b2, tag == "equal"
