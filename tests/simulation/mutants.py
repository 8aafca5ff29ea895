"""Bugs of the kind that the simulator is there to find, each planted by a patch.

`test_planted_bugs` plants one after the other and expects the simulator to notice. A planted bug
that goes unnoticed is a hole in the invariants or in the faults.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock
from uuid import UUID, uuid4, uuid5

from agent.daemon import Daemon
from agent.prefect.models import StateProposal
from agent.submission import SubmissionDriver, _answered
from events import decider, recovery, submission
from events.lifecycle import (
    Effect,
    InfrastructureExited,
    LaunchRepeated,
    OutcomeSettled,
    PendingRefused,
    State,
    Transition,
    Verdict,
)
from events.log import LogWriteFailed
from events.observations import Observation, RequestFailed, RunOffered
from events.submission import Submission

Mutant = Callable[[], AbstractContextManager[Any]]


def launches_before_the_log_has_it() -> AbstractContextManager[Any]:
    """The effect comes before its intent."""
    resolve = SubmissionDriver._resolve

    async def mutant(driver: SubmissionDriver) -> Observation:
        resolved = await resolve(driver)
        if driver._spec is not None:
            with contextlib.suppress(Exception):
                await driver.world.launcher.launch(driver._key, driver._spec)
        return resolved

    return _executor(Effect.RESOLVE, mutant)


def claims_before_the_log_has_it() -> AbstractContextManager[Any]:
    """The claim comes before its intent."""
    begin = SubmissionDriver.begin.__func__  # type: ignore[attr-defined]

    async def mutant(
        cls: type[SubmissionDriver],
        world: Any,
        stream: str,
        offer: RunOffered,
        *rest: Any,
        **more: Any,
    ) -> SubmissionDriver:
        claim = decider.decide(Submission(), offer)[1]
        proposal = StateProposal("PENDING", "Pending", None, claim.transition_id)  # type: ignore[attr-defined]
        with contextlib.suppress(Exception):
            await world.server.set_state(offer.flow_run_id, proposal, retry=False)
        driver: SubmissionDriver = await begin(cls, world, stream, offer, *rest, **more)
        return driver

    return mock.patch.object(SubmissionDriver, "begin", classmethod(mutant))


def forgets_what_it_owes_at_the_end() -> AbstractContextManager[Any]:
    """An obligation is lost."""
    return mock.patch.object(submission, "_owed_at_the_end", return_value=())


def launches_again_what_may_run() -> AbstractContextManager[Any]:
    """A launch is repeated without evidence that it never ran."""

    def mutant(found: Submission, _seen: Any) -> Sequence[Transition]:
        return (LaunchRepeated(submission.key_after(found.launch_key), "to be sure"),)

    return _rule_of_the_launcher(State.LAUNCHING, Verdict.RUNNING, mutant)


def makes_the_claims_id_anew() -> AbstractContextManager[Any]:
    """A repeated request is another request."""

    async def mutant(driver: SubmissionDriver) -> Observation:
        proposal = StateProposal("PENDING", "Pending", None, uuid4())
        answer = await driver.world.server.set_state(driver._run_id, proposal, retry=False)
        return _answered(Effect.PROPOSE_PENDING, answer)

    return _executor(Effect.PROPOSE_PENDING, mutant)


def takes_a_lost_answer_for_a_refusal() -> AbstractContextManager[Any]:
    """A claim without an answer is believed to have failed."""
    return _failed_request(Effect.PROPOSE_PENDING, lambda: PendingRefused("no answer", None))


def gives_up_a_report_without_an_answer() -> AbstractContextManager[Any]:
    """A report without an answer is believed to have arrived."""
    return _failed_request(Effect.REPORT_OUTCOME, lambda: OutcomeSettled("no answer", None))


def recovers_all_but_one_state() -> AbstractContextManager[Any]:
    """Recovery skips submissions that were being resolved."""
    start = Daemon._start

    def mutant(daemon: Daemon, driver: SubmissionDriver, nursery: Any) -> None:
        if not (driver.submission.in_doubt and driver.submission.state is State.RESOLVING):
            start(daemon, driver, nursery)

    return mock.patch.object(Daemon, "_start", mutant)


def owes_nothing_for_a_command_that_never_was_running() -> AbstractContextManager[Any]:
    """A command that ended before its run was Running is left alone."""
    return _rule_of_the_server(State.EXITED, recovery.Standing.OURS, recovery._settle)


def adopts_nothing() -> AbstractContextManager[Any]:
    """A command that still runs after a restart is believed to be lost."""

    def mutant(_found: Submission, seen: Any) -> Sequence[Transition]:
        return (InfrastructureExited(None, seen.detail),)

    return _rule_of_the_launcher(State.STARTED, Verdict.RUNNING, mutant)


def claims_with_the_id_of_every_other_agent() -> AbstractContextManager[Any]:
    """Two agents send the same claim, and both believe it theirs."""
    return mock.patch.object(decider, "uuid5", lambda _agent, name: uuid5(UUID(int=1), name))


def launches_what_another_agent_has_finished() -> AbstractContextManager[Any]:
    """A claim that comes late counts all the same."""
    with contextlib.ExitStack() as both:
        both.enter_context(mock.patch.object(decider, "is_misplaced", return_value=False))
        both.enter_context(mock.patch.object(recovery, "is_misplaced", return_value=False))
        return both.pop_all()


def goes_on_when_the_log_does_not() -> AbstractContextManager[Any]:
    """An append that failed is ignored."""
    append = SubmissionDriver._append

    async def mutant(driver: SubmissionDriver, drafts: Any, *, closes: bool) -> None:
        with contextlib.suppress(LogWriteFailed):
            await append(driver, drafts, closes=closes)

    return mock.patch.object(SubmissionDriver, "_append", mutant)


MUTANTS: Sequence[Mutant] = (
    launches_before_the_log_has_it,
    claims_before_the_log_has_it,
    forgets_what_it_owes_at_the_end,
    launches_again_what_may_run,
    makes_the_claims_id_anew,
    takes_a_lost_answer_for_a_refusal,
    gives_up_a_report_without_an_answer,
    recovers_all_but_one_state,
    owes_nothing_for_a_command_that_never_was_running,
    adopts_nothing,
    claims_with_the_id_of_every_other_agent,
    launches_what_another_agent_has_finished,
    goes_on_when_the_log_does_not,
)


def _executor(effect: Effect, mutant: Any) -> AbstractContextManager[Any]:
    from agent import submission as driving

    return mock.patch.dict(driving._EXECUTORS, {effect: mutant})


def _rule_of_the_launcher(
    state: State, verdict: Verdict, follows: recovery.Follows
) -> AbstractContextManager[Any]:
    rule = recovery.Rule("planted", follows, ())
    return mock.patch.dict(recovery.AT_LAUNCHER, {(state, verdict): rule})


def _rule_of_the_server(
    state: State, standing: recovery.Standing, follows: recovery.Follows
) -> AbstractContextManager[Any]:
    rule = recovery.Rule("planted", follows, ())
    return mock.patch.dict(recovery.AT_SERVER, {(state, standing): rule})


@contextlib.contextmanager
def _failed_request(effect: Effect, instead: Callable[[], Transition]) -> Iterator[None]:
    decide = decider._DECISIONS[RequestFailed]

    def mutant(found: Submission, seen: RequestFailed) -> Sequence[Transition]:
        if seen.effect is effect and effect in submission.what_next(found):
            return (instead(),)
        return decide(found, seen)

    with mock.patch.dict(decider._DECISIONS, {RequestFailed: mutant}):
        yield
