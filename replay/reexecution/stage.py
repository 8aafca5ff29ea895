"""Keeps the daemon's code in step with the record: whose answer comes next, and is it the same?

While a command runs, the daemon has more than one request under way. Each waits here for its turn:
the answer that was recorded next is handed out at its recorded time, on a virtual clock, and what
the daemon appends because of it is compared. It ends at the first difference, for what follows
builds on it. The doubles in `world` call this, and `execution` makes one for each life.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import attrs
import trio

from events.lifecycle import Effect, EffectDeferred, Transition
from events.log import Draft
from events.observations import Observation
from events.submission import Submission, evolve, what_next
from replay.reexecution.comparison import Appended, Divergence, Step, compare
from replay.reexecution.debugging import Pause, leave_if_left, pause
from replay.reexecution.recording import Entry, Life, effect_behind
from replay.verification import FieldDifference, differences
from replay.words import EFFECTS, duration

SLACK_SECONDS: Final = 0.01
"""Stamps and sleeps of the record may be so far off each other."""

PATIENCE_SECONDS: Final = 600.0
"""Of virtual time: ten times the longest delay that the decider gives."""


@attrs.define(eq=False)
class Stage:
    """One life that is being lived again.

    Attributes:
        report: is told each step.
        pause: where the debugger is to be called.
        submission: the fold of what is recorded before `at`.
        at: the index of the entry that comes next.
        divergence: the first one.
        stood_in: the entry at `at` is an error that the daemon was handed as it is recorded.
        scope: ends the life.
    """

    life: Life
    report: Callable[[Step], None]
    pause: Pause
    submission: Submission
    at: int
    divergence: Divergence | None = None
    stood_in: bool = False
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _began: float = attrs.field(factory=trio.current_time)
    _due_from: float = 0.0
    _asking: list[Effect] = attrs.field(factory=list)
    _calls: set[str] = attrs.field(factory=set)
    _moved: trio.Event = attrs.field(factory=trio.Event)

    @property
    def next(self) -> Entry | None:
        """What the record of this life has next; None at its end."""
        index = self.at - self.life.first
        return self.life.entries[index] if index < len(self.life.entries) else None

    @property
    def handed_out(self) -> Entry | None:
        """The observation that the daemon has been given the answer for, and not recorded yet."""
        return self.next if self._calls else None

    # --- answers ----------------------------------------------------------------------------

    async def turn(self, effect: Effect, call: str) -> Entry:
        """Wait until the record has the outcome of an effect next, and until its time.

        Args:
            effect: what the daemon is about.
            call: what it calls for that; each call is answered once in a turn.
        """
        asked_at = trio.current_time()
        await self._refuse_haste(effect, asked_at)
        entry = await self._in_its_turn(effect, call)
        begun, due = bool(self._calls), self._began + entry.due
        self._calls.add(call)
        if begun:
            return entry
        if asked_at > due + SLACK_SECONDS:
            late = duration(asked_at - due)
            await self.diverge(f"the daemon asks {late} after the time at which it was answered")
        await trio.sleep_until(due)
        if self.pause.is_wanted(entry):
            pause(entry)
        return entry

    async def _in_its_turn(self, effect: Effect, call: str) -> Entry:
        self._asking.append(effect)
        while True:
            entry = self.next
            fits = entry is not None and effect_behind(entry.event) is effect
            if entry is not None and fits and call not in self._calls:
                self._asking.remove(effect)
                return entry
            await self._moved.wait()

    async def _refuse_haste(self, effect: Effect, now: float) -> None:
        """Check that what was put off is not tried before its time."""
        deferred, owed = self.submission.deferred, what_next(self.submission)
        if deferred is None or not owed:
            return
        # After a proposal without an answer it is the reading of the run that waits.
        waits = deferred.effect if deferred.effect in owed else owed[0]
        if effect is waits and now < self._due_from - SLACK_SECONDS:
            early = duration(self._due_from - now)
            await self.diverge(f"the daemon is about to {EFFECTS[effect]}, {early} too early")

    async def expect(self, what: str, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Check that the daemon asks for just that which the log says it was about to ask for."""
        if found := tuple(differences(recorded, now)):
            await self.diverge(f"{what} is not as the log announces it", found)

    # --- appends ----------------------------------------------------------------------------

    async def append(
        self, stream: str, expected_version: int, drafts: Sequence[Draft], *, closes: bool
    ) -> None:
        """Compare what the daemon appends with the record, and go on behind it."""
        for number, draft in enumerate(drafts, start=1):
            last = closes and number == len(drafts)
            await self._compare(Appended(stream, expected_version + number, draft, last))
        following = self.next
        if following is not None and isinstance(following.event, Transition):
            await self.diverge("the daemon does not decide on this any more")
        self._calls.clear()
        self.stood_in = False
        moved, self._moved = self._moved, trio.Event()
        moved.set()
        if following is None and not self.life.entries[-1].record.closes:
            # The agent was killed here, or the record ends: what it was about remains undone.
            self.scope.cancel()
        await trio.lowlevel.checkpoint()

    async def _compare(self, now: Appended) -> None:
        entry = self.next
        if entry is None:
            await self.diverge(f"the daemon appends {now.draft.type} after the end of the record")
        found = compare(entry, now)
        self.report(Step(entry, now.event, found, self.stood_in))
        if found:
            await self.diverge(_in_words(entry, now), found)
        self.stood_in = False
        self.at += 1
        self.submission = evolve(self.submission, entry.event, now.stream)
        if isinstance(entry.event, EffectDeferred):
            self._due_from = trio.current_time() + entry.event.delay_seconds

    def look_on(self, observation: Observation) -> None:
        """Call the debugger if it is wanted where the daemon decides on this observation."""
        leave_if_left(observation)
        for index in range(self.at - self.life.first, len(self.life.entries)):
            entry = self.life.entries[index]
            if entry.index > self.at and not isinstance(entry.event, Transition):
                return
            if self.pause.is_wanted(entry):
                pause(entry)

    # --- divergences ------------------------------------------------------------------------

    async def diverge(self, problem: str, fields: tuple[FieldDifference, ...] = ()) -> NoReturn:
        """Note a divergence and end the life."""
        self.note_divergence(problem, fields)
        await trio.sleep_forever()

    def note_divergence(self, problem: str, fields: tuple[FieldDifference, ...] = ()) -> None:
        """Note a divergence, if it is the first, and let the life end."""
        if self.divergence is None:
            self.divergence = Divergence(self.next, problem, fields)
        self.scope.cancel()

    async def watch(self) -> None:
        """Notice when the daemon does not do what the record has next, nor anything else."""
        while True:
            entry, now = self.next, trio.current_time()
            due = self._began + entry.due if entry else now
            with trio.move_on_at(max(due, now) + PATIENCE_SECONDS) as waiting:
                await self._moved.wait()
            if waiting.cancelled_caught:
                wishes = " and to ".join(EFFECTS[effect] for effect in self._asking)
                doing = f"wants to {wishes}" if wishes else "waits for nothing that is recorded"
                self.note_divergence(f"here the daemon {doing}")
                return


def _in_words(entry: Entry, now: Appended) -> str:
    if entry.record.type != now.draft.type:
        return f"the daemon appends {now.draft.type} here"
    if isinstance(entry.event, Transition):
        return "the daemon decides it otherwise"
    return "the daemon records it otherwise"
