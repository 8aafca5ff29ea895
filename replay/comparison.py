"""Two submissions held against each other: steps, settings, times, and the first difference.

Pure; `replay.diffing` prints it, `replay.explaining` puts it into sentences.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from events.lifecycle import State
from events.notices import AgentStarted
from events.observations import EvidenceFound, InfrastructureResolved, Observation, RunOffered
from replay.alignment import Row, align
from replay.likeness import EXPECTED_KEYS, Own
from replay.player import Step
from replay.showing import Story
from replay.verification import MISSING


@attrs.frozen
class Setting:
    """Something that both were given, and not alike. Of a secret, the values are digests."""

    name: str
    left: Any
    right: Any


@attrs.frozen
class Comparison:
    """Two submissions, aligned.

    Attributes:
        left, right: each with its steps; `names` is what to call them.
        settings: those that differ.
        times: state -> seconds in it of each, None for one that never was there.
    """

    left: Story
    right: Story
    names: tuple[str, str]
    rows: Sequence[Row]
    settings: Sequence[Setting]
    times: Sequence[tuple[State, float | None, float | None]]

    @property
    def same(self) -> bool:
        """Whether nothing differs but what is expected to."""
        return not self.settings and all(row.same for row in self.rows)

    @property
    def first(self) -> int | None:
        """The number of the first row that differs."""
        return next((n for n, row in enumerate(self.rows) if not row.same), None)

    @property
    def turning(self) -> tuple[Step | None, Step | None] | None:
        """What each learned when their ways parted for good; None when they ended alike."""
        return _turning(_steps(self.left), _steps(self.right))


def compare(left: Story, right: Story, *, everything: bool = False) -> Comparison:
    """Hold two submissions against each other.

    Args:
        everything: also what is expected to differ: ids, times, pids, names.
    """
    stories = left, right
    own = [
        Own.of(story.timeline.submission, everything=everything, settings_apart=True)
        for story in stories
    ]
    rows = align(_steps(left), _steps(right), *own)
    given = [_settings(story, each) for story, each in zip(stories, own, strict=True)]
    settings = list(_differing(*given))
    return Comparison(left, right, _names(left, right), rows, settings, list(_times(left, right)))


def _steps(story: Story) -> list[Step]:
    return [step for step, _seconds in story.steps]


def _names(left: Story, right: Story) -> tuple[str, str]:
    """Return names by which the two can be told apart."""
    runs = left.timeline.submission.discovered, right.timeline.submission.discovered
    if runs[0] is None or runs[1] is None or runs[0].flow_run_id == runs[1].flow_run_id:
        names = _with_ordinal(left, "A"), _with_ordinal(right, "B")
        return names if names[0] != names[1] else ("A", "B")
    if runs[0].run_name == runs[1].run_name:
        return "A", "B"
    return runs[0].run_name, runs[1].run_name


def _with_ordinal(story: Story, otherwise: str) -> str:
    run = story.timeline.submission.discovered
    return f"{run.run_name}/{run.ordinal}" if run else otherwise


# --- what they were given ------------------------------------------------------------------


Given = dict[str, dict[str, Any]]
"""stage -> setting -> value. A submission that never got to a stage was given nothing there."""


def _differing(left: Given, right: Given) -> Iterator[Setting]:
    for stage in left:
        if stage not in right:
            continue
        for name in dict.fromkeys([*left[stage], *right[stage]]):
            pair = left[stage].get(name, MISSING), right[stage].get(name, MISSING)
            if pair[0] != pair[1]:
                yield Setting(name, *pair)


def _settings(story: Story, own: Own) -> Given:
    given: Given = {}
    for step in _steps(story):
        match step.event:
            case RunOffered() as offered:
                given["offer"] = {
                    "deployment": offered.deployment_id and str(offered.deployment_id),
                    "flow": offered.flow_id and str(offered.flow_id),
                    "queue": offered.queue,
                    "attempt": offered.attempt,
                }
            case InfrastructureResolved() as resolved:
                launch = _launch_settings(resolved, everything=own.everything)
                given["launch"] = {name: own.likened(value) for name, value in launch.items()}
            case EvidenceFound() as evidence:
                given["evidence"] = {"--on-uncertain": evidence.on_uncertain.value}
    began = story.timeline.began
    start = story.agents.at(began.position) if began else None
    if start is not None:
        given["agent"] = _agent_settings(start.notice)
    return given


def _launch_settings(resolved: InfrastructureResolved, *, everything: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "infrastructure": resolved.infrastructure,
        "command": shlex.join(resolved.command),
        "working dir": resolved.working_dir,
        "evidence": resolved.evidence_id,
    }
    for kind, values in (("env", resolved.env), ("label", resolved.labels)):
        for name, value in sorted(values.items()):
            if everything or name not in EXPECTED_KEYS:
                settings[f"{kind} {name}"] = value
    return settings


def _agent_settings(notice: AgentStarted) -> dict[str, Any]:
    return {
        "agent version": notice.version,
        "agent host": notice.hostname,
        "agent server": notice.server,
        "agent limit": notice.limit,
        "agent prefetch": notice.prefetch_seconds,
    }


# --- how long it took ----------------------------------------------------------------------


def _times(left: Story, right: Story) -> Iterator[tuple[State, float | None, float | None]]:
    sums: list[dict[State, float]] = []
    for story in (left, right):
        total: dict[State, float] = {}
        for stretch in story.timeline.all_stretches(story.now):
            total[stretch.state] = total.get(stretch.state, 0.0) + stretch.seconds
        sums.append(total)
    for state in State:
        pair = sums[0].get(state), sums[1].get(state)
        if any(pair):
            yield state, *pair


# --- where their ways part -----------------------------------------------------------------


def _turning(left: Sequence[Step], right: Sequence[Step]) -> tuple[Step | None, Step | None] | None:
    paths = _path(left), _path(right)
    for number in range(max(map(len, paths))):
        ways = [path[number] if number < len(path) else None for path in paths]
        states = [
            steps[way].after.state if way is not None else None
            for steps, way in zip((left, right), ways, strict=True)
        ]
        if states[0] is not states[1]:
            return _learned(left, ways[0]), _learned(right, ways[1])
    return _turning_of_the_end(left, right)


def _path(steps: Sequence[Step]) -> list[int]:
    """Return the numbers of the steps that changed the state."""
    return [n for n, step in enumerate(steps) if step.after.state is not step.before.state]


def _learned(steps: Sequence[Step], number: int | None) -> Step | None:
    """Return the last observation up to a step; for None, of all."""
    upto = steps if number is None else steps[: number + 1]
    return next((step for step in reversed(upto) if isinstance(step.event, Observation)), None)


def _turning_of_the_end(
    left: Sequence[Step], right: Sequence[Step]
) -> tuple[Step | None, Step | None] | None:
    """Return where two that took the same way through the states came to different ends."""
    ends = [steps[-1].after if steps else None for steps in (left, right)]
    if ends[0] is None or ends[1] is None:
        return None
    codes = [end.exited and end.exited.exit_code for end in ends if end]
    if codes[0] != codes[1]:
        return _first(left, "InfrastructureExited"), _first(right, "InfrastructureExited")
    reported = [end.outcome and end.outcome.state_type for end in ends if end]
    if reported[0] != reported[1]:
        kinds = "OutcomeProposed", "OutcomeSettled"
        return _first(left, *kinds), _first(right, *kinds)
    return None


def _first(steps: Sequence[Step], *types: str) -> Step | None:
    number = next((n for n, step in enumerate(steps) if step.record.type in types), None)
    return _learned(steps, number)
