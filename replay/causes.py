"""Why a submission failed, in words that are the same for all that failed for the same reason.

`cause_of` names the step that went wrong and the message of it, with what differs from run to run
(ids, numbers, paths, times) taken out, so that causes can be counted. Pure; reports and statistics
group by it.
"""

from __future__ import annotations

import re
from typing import Final

from events.lifecycle import InfrastructureExited, State, SubmissionFailed
from replay.summary import BAD_AT_THE_SERVER, went_wrong
from replay.timeline import Timeline
from replay.words import exit_in_words

LONGEST_MESSAGE: Final = 160
"""Characters of a cause that are kept: enough to tell causes apart, few enough for a table."""

_READ_AT_MOST: Final = 2_000

_VARYING: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), placeholder)
    for pattern, placeholder in (
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<id>"),
        (r"\b[a-z][a-z0-9+.-]*://[^\s'\"`,;()<>]*[^\s'\"`,;()<>:.]", "<url>"),
        (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?", "<time>"),
        (r"(?<![\w<>/.~])(?:~|\.\.?)?/[^\s'\"`,;:()<>\[\]{}|]+", "<path>"),
        # A launch key, or any other long name that has a digit in it.
        (r"\b(?=[a-z]*[2-7])[a-z2-7]{26}\b", "<id>"),
        (r"\b(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]{8,}\b", "<id>"),
        # A status, an exit code and an error number say what went wrong, and stay.
        (r"(?<!status )(?<!code )(?<!errno )(?<!exit )(?<![\d.])\d+(?:[.,]\d+)*", "<n>"),
    )
)


def cause_of(timeline: Timeline) -> str | None:
    """Return why a submission failed, as `step: what`; None for one that did not fail.

    The steps are resolve, launch and recover (the command never ran), run (it did, or was lost)
    and read (the log itself can't be read on). What counts as a failure is what `replay list`
    shows as one.
    """
    if not went_wrong(timeline):
        return None
    if timeline.trouble:
        return f"read: {without_varying_parts(timeline.trouble)}"
    if timeline.state is State.FAILED:
        return _why_never_launched(timeline)
    return f"run: {_what_went_wrong(timeline)}"


def _why_never_launched(timeline: Timeline) -> str:
    ending = timeline.ending
    if not isinstance(ending, SubmissionFailed):
        return "launch: nothing says why"
    return f"{ending.step}: {without_varying_parts(ending.error)}"


def _what_went_wrong(timeline: Timeline) -> str:
    submission = timeline.submission
    exited, owed = submission.exited, submission.outcome
    if exited is None:
        return "nothing says how it ended"
    how = _how_it_ended(exited)
    if owed is None:
        settled = timeline.settled.server_state if timeline.settled else None
        return f"{how}, the run {settled}" if settled in BAD_AT_THE_SERVER else how
    if owed.state_type == "CANCELLED":
        return "cancelled while it ran"
    if owed.restores is not None:
        return "claimed late, and given back"
    # The words of `events.outcomes`: it never got as far as its flow.
    never_ran = "before the run was Running" in owed.message
    return f"{how}, before the run was Running" if never_ran else how


def _how_it_ended(exited: InfrastructureExited) -> str:
    how = exit_in_words(exited.exit_code)
    if exited.exit_code is not None:
        return how  # Whoever noticed it, and by what, makes no difference.
    reason = without_varying_parts(exited.reason)
    return f"{how}: {reason}" if reason else how


def without_varying_parts(message: str) -> str:
    """Return a message on one line, with ids, numbers, paths, addresses and times taken out."""
    text = " ".join(message[:_READ_AT_MOST].split())
    for pattern, placeholder in _VARYING:
        text = pattern.sub(placeholder, text)
    if len(text) <= LONGEST_MESSAGE:
        return text
    return text[: LONGEST_MESSAGE - 1].rstrip() + "…"
