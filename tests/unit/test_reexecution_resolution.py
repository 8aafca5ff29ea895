"""Whatever the daemon's resolver has made of documents, re-execution makes it make that again."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

import attrs
import pytest
import trio
from hypothesis import event, given
from hypothesis import strategies as st

from agent.infrastructure.errors import ResolutionError
from agent.infrastructure.redact import redact
from agent.prefect.models import FlowRun
from events.observations import InfrastructureResolved, ResolutionFailed, RunOffered
from tests.samples.make_sample import Run
from tests.unit.prefect_documents import (
    BLOCK,
    Documents,
    block_body,
    deployment_body,
    flow_body,
    resolver,
)
from tests.unit.reexecuted import expect_the_same, told_again

RUN = Run("weary-yak")
SECRET = "hunter2-hunter2"

names = st.text(min_size=1, max_size=8) | st.sampled_from(
    ["it's", 'a "b"', "both ' and \"", "a; b"]
)
unfit: st.SearchStrategy[Any] = st.sampled_from([{}, [], "'", True, 1.5, None])
texts = st.sampled_from(["", "x", f"--key={SECRET}", "two words", "é", "\\", "3 is text, expected"])
scalars = texts | st.integers() | st.floats(allow_nan=False) | st.booleans()
labels = st.dictionaries(
    names | st.sampled_from(["prefect.io/flow-name", "prefect.io/deployment-updated"]),
    scalars | st.just("2026-03-04T05:06:07Z"),
)
fit = st.fixed_dictionaries(
    {},
    optional={
        "type": st.just("process"),
        "command": st.lists(scalars, max_size=3) | texts,
        "env": st.dictionaries(
            names | st.just("MY_TOKEN"), scalars | st.sampled_from([None, SECRET])
        ),
        "labels": labels,
        "name": scalars,
        "working_dir": texts,
        "stream_output": st.sampled_from([True, "no", 0]),
    },
)
partly_unfit = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["process", "docker", 3]),
        "command": st.lists(scalars | unfit, max_size=3) | unfit,
        "env": st.dictionaries(names, scalars | unfit) | unfit,
        "labels": st.dictionaries(names, scalars | unfit) | unfit,
        "name": scalars | unfit,
        "working_dir": texts | unfit,
        "stream_output": st.sampled_from([True, "perhaps", 7, None, []]),
    },
)
overrides = st.dictionaries(
    st.sampled_from(
        ["env.A", "env.A.B", "env..C", "labels", "labels.x.y", "command", "env", "name"]
    ),
    scalars | unfit,
    max_size=3,
)


def deployments(
    variables: st.SearchStrategy[dict[str, Any]],
) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        deployment_body,
        variables,
        name=names,
        updated=st.sampled_from([None, "2026-03-04T05:06:07.089+00:00", "2026-03-04T05:06:07Z"]),
        flow_id=st.sampled_from([None, deployment_body()["flow_id"]]),
        infrastructure_document_id=st.sampled_from([None, str(BLOCK)]),
    )


flows = st.builds(lambda name: flow_body() | {"name": name}, names)
whole = st.builds(
    Documents,
    deployment=deployments(st.just({})),
    flow=flows,
    block=st.builds(block_body, fit, name=st.none() | names),
)
broken = st.builds(
    Documents,
    deployment=deployments(overrides),
    flow=flows,
    block=st.builds(block_body, partly_unfit),
)
incomplete = st.builds(
    Documents,
    deployment=st.none() | deployments(overrides),
    flow=st.none() | flows,
    block=st.none()
    | st.builds(
        block_body,
        st.sampled_from([{}, {"type": "docker"}, {"type": 3}]),
        name=st.none() | names,
        block_type=st.sampled_from([None, {"slug": "docker-container"}]),
        block_schema=st.none(),
    ),
)
offers = st.builds(
    partial(attrs.evolve, RUN.offered()),
    flow_id=st.none() | st.just(UUID(int=3)),
    deployment_id=st.sampled_from([UUID(int=4)] * 5 + [None]),
)


def resolution(
    server: Documents, offer: RunOffered, default: UUID | None, variables: dict[str, Any]
) -> InfrastructureResolved | ResolutionFailed:
    """Return what the driver records of a resolution."""
    run = FlowRun(
        id=offer.flow_run_id,
        name=offer.run_name,
        flow_id=offer.flow_id,
        deployment_id=offer.deployment_id,
        job_variables=variables,
    )
    resolve = partial(resolver(server, default).resolve, run, fresh_since=0.0)
    try:
        spec = trio.run(resolve)
    except ResolutionError as error:
        return ResolutionFailed(error.reason)
    return attrs.evolve(redact(spec, b"key"), evidence_id="spool-1")


@given(
    server=whole | broken | incomplete,
    offer=offers,
    default=st.none() | st.just(UUID(int=9)),
    variables=st.just({}) | overrides,
)
def test_a_resolution_is_made_again_from_what_the_log_has_of_it(
    server: Documents, offer: RunOffered, default: UUID | None, variables: dict[str, Any]
) -> None:
    """For every document that can be resolved, and every way in which one can't be."""
    seen = resolution(server, offer, default, variables)
    event(seen.error.partition(": ")[0][:24] if isinstance(seen, ResolutionFailed) else "resolved")

    follows = [RUN.started(77)] if isinstance(seen, InfrastructureResolved) else []
    outcome = told_again(RUN, offer, RUN.claimed(), seen, *follows)

    expect_the_same(outcome)


@pytest.mark.parametrize(
    "error",
    [
        "internal error, KeyError at resolve.py:77",
        "the infrastructure of deployment 'x': the moon is full",
        "flow 7 of deployment 'nightly' no longer exists",
        r"the infrastructure of deployment '\xZZ': type is not 'process'",
        "the infrastructure of deployment 'x': env is a list, expected a mapping;"
        " env['a'] is null, expected text",
    ],
)
def test_words_that_no_documents_lead_to_are_handed_over_and_counted(error: str) -> None:
    outcome = told_again(RUN, RUN.offered(), RUN.claimed(), ResolutionFailed(error))

    expect_the_same(outcome, stood_in=1)
