"""Packs bars into lanes in which none overlaps another, as few as were under way at once. Pure."""

from __future__ import annotations

import heapq

import attrs


@attrs.define
class Lanes:
    """The lanes of one group of bars, from 0. Each bar takes the lowest that is free.

    Bars come in the order of their beginnings. Where one begins before the one that came before it
    (the clock was set back) it may get a lane more than it would need, but never an overlap.
    """

    _ends: list[int] = attrs.field(factory=list)
    _busy: list[tuple[int, int]] = attrs.field(factory=list)
    _free: list[int] = attrs.field(factory=list)

    def take(self, begin: int, end: int) -> int:
        """Return the lane for a bar, and whoever asks next does not get it before its end."""
        while self._busy and self._busy[0][0] <= begin:
            heapq.heappush(self._free, heapq.heappop(self._busy)[1])
        if self._free and self._ends[self._free[0]] <= begin:
            lane = heapq.heappop(self._free)
        else:
            lane = len(self._ends)
            self._ends.append(end)
        self._ends[lane] = end
        heapq.heappush(self._busy, (end, lane))
        return lane
