"""Prefect 2.20's own agent resolves the same documents: where we agree, and each difference."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import trio

from agent.infrastructure.resolve import ResolutionError, Resolver
from agent.prefect.models import FlowRun, structure
from tests.servers import ensure_installed
from tests.unit.prefect_documents import (
    RUN,
    Documents,
    block_body,
    deployment_body,
    flow_body,
    run_body,
)

pytestmark = pytest.mark.real

# Reads documents as a server sends them, and prints what PrefectAgent makes of them.
RESOLVE = """
import asyncio, json, sys, warnings
warnings.simplefilter("ignore")
from prefect.agent import PrefectAgent
from prefect.client.schemas.objects import BlockDocument, Flow, FlowRun
from prefect.client.schemas.responses import DeploymentResponse

class Client:
    def __init__(self, case):
        # Read before anything is tried: a body that Prefect can't read is a mistake of the test.
        self.deployment = DeploymentResponse.parse_obj(case["deployment"])
        self.flow = Flow.parse_obj(case["flow"])
        self.block = BlockDocument.parse_obj(case["block"])
        self.run = FlowRun.parse_obj(case["run"])
    async def read_deployment(self, _id):
        return self.deployment
    async def read_flow(self, _id):
        return self.flow
    async def read_block_document(self, _id):
        return self.block

async def resolve(case):
    agent = PrefectAgent(work_queues=["default"])
    agent.client = client = Client(case)
    try:
        made = await agent.get_infrastructure(client.run)
    except Exception as error:
        return {"error": type(error).__name__}
    return {
        "command": list(made.command),
        "env": made._get_environment_variables(include_os_environ=False),
        "labels": made.labels,
        "name": made.name,
        "working_dir": str(made.working_dir) if made.working_dir else None,
        "stream_output": made.stream_output,
    }

async def main():
    print(json.dumps([await resolve(case) for case in json.load(sys.stdin)]))

asyncio.run(main())
"""

LOGGING = {"PREFECT_LOGGING_LEVEL": "WARNING"}


def case(
    data: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    of_run: Mapping[str, Any] | None = None,
    **deployment: Any,
) -> dict[str, Any]:
    return {
        "run": run_body(job_variables=dict(of_run or {})),
        "deployment": deployment_body(overrides, **deployment),
        "flow": flow_body(),
        "block": block_body(data),
    }


FULL = {
    "type": "process",
    "env": {"A": "block", "GONE": None, "PREFECT_LOGGING_LEVEL": "DEBUG"},
    "labels": {"team": "data", "prefect.io/flow-name": "renamed"},
    "name": "loader",
    "command": ["python", "-c", "print(1)"],
    "stream_output": False,
    "working_dir": "/srv/flows",
}

SAME: Mapping[str, dict[str, Any]] = {
    "an empty block": case({}),
    "every field": case(FULL),
    "no block": case(infrastructure_document_id=None),
    "one variable": case(FULL, {"env.A": "override"}),
    "one variable more": case(FULL, {"env.B": "new"}),
    "a variable unset": case(FULL, {"env.A": None}),
    "a base variable unset": case(FULL, {"env.PREFECT_LOGGING_LEVEL": None}),
    "the whole env": case(FULL, {"env": {"C": "only"}}),
    "env, then one variable": case(FULL, {"env": {"C": "1"}, "env.D": "2"}),
    "one variable, then env": case(FULL, {"env.D": "2", "env": {"C": "1"}}),
    "numbers and booleans": case(FULL, {"env": {"I": 1, "F": 1.5, "B": True}, "labels.n": 3}),
    "words for booleans": case(FULL, {"stream_output": "yes"}),
    "command": case(FULL, {"command": ["sleep", 5]}),
    "an empty command": case(FULL, {"command": []}),
    "an empty name": case(FULL, {"name": ""}),
    "an empty working directory": case(FULL, {"working_dir": ""}),
    "fields of other blocks": case(FULL, {"image": "x:2"}),
    "a deployment that was never updated": case(FULL, updated=None),
    "another time zone": case(FULL, updated="2026-03-04T05:06:07.089123+05:30"),
}

BOTH_REFUSE: Mapping[str, dict[str, Any]] = {
    "a path through text": case(FULL, {"env.A.B": "1"}),
    "a list for a variable": case(FULL, {"env.A": ["1"]}),
    "a list for the variables": case(FULL, {"env": ["A=1"]}),
    "null in the command": case(FULL, {"command": ["sleep", None]}),
    "null for a label": case(FULL, {"labels.team": None}),
    "a word that is no boolean": case(FULL, {"stream_output": "maybe"}),
    "a mapping for the directory": case(FULL, {"working_dir": {"a": "b"}}),
    "another type": case(FULL, {"type": "docker-container"}),
}

# Prefect's answer (an error's type, or what of the result differs), and ours.
DIFFERENT: Mapping[str, tuple[dict[str, Any], Any, Any]] = {
    "a missing key on the way is made": (
        case({}, {"env.A": "1"}),
        "KeyError",
        {"env": {"A": "1"}},
    ),
    "overrides count without a block": (
        case(overrides={"env": {"A": "1"}}, infrastructure_document_id=None),
        {},
        {"env": {"A": "1"}},
    ),
    "a run's own variables count": (
        case({"env": {"A": "block"}}, {"env.A": "deployment"}, of_run={"env": {"B": "run"}}),
        {"env": {"A": "deployment"}},
        {"env": {"A": "deployment", "B": "run"}},
    ),
    "nobody takes the run's id away": (
        case({"env": {"PREFECT__FLOW_RUN_ID": "other"}}),
        {"env": {"PREFECT__FLOW_RUN_ID": "other"}},
        {},
    ),
    "a command may be one line": (
        case({}, {"command": "sleep '5'"}),
        "ValidationError",
        {"command": ["sleep", "5"]},
    ),
    "null is not said": (
        case({"env": None, "labels": None, "stream_output": None}),
        "ValidationError",
        {},
    ),
}


@attrs.frozen
class Prefect:
    """What the real thing made of every case, and what it was given."""

    python: str
    base: Mapping[str, str]
    answers: Mapping[str, Any]


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Prefect:
    python = ensure_installed("2.20")
    home = str(tmp_path_factory.mktemp("prefect"))
    base = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_HOME": home} | LOGGING
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("PREFECT", "PYTHON"))}
    cases = {**SAME, **BOTH_REFUSE, **{name: d[0] for name, d in DIFFERENT.items()}}
    ran = subprocess.run(
        [str(python), "-c", RESOLVE],
        input=json.dumps(list(cases.values())),
        env=plain | base,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout.splitlines()[-1])
    return Prefect(str(python), base, dict(zip(cases, answers, strict=True)))


async def ours(prefect: Prefect, bodies: Mapping[str, Any]) -> dict[str, Any]:
    server = Documents(bodies["deployment"], bodies["flow"], bodies["block"])
    resolver = Resolver(server, prefect.base, prefect.python)
    run = structure(bodies["run"], FlowRun)
    spec = await resolver.resolve(run, fresh_since=trio.current_time())
    return {
        "command": list(spec.command),
        "env": {name: value for name, value in spec.env.items() if value is not None},
        "labels": dict(spec.labels),
        "name": spec.name,
        "working_dir": spec.working_dir,
        "stream_output": spec.stream_output,
    }


def without_version(answer: dict[str, Any]) -> dict[str, Any]:
    """Prefect also labels with its own version; no Prefect submits, so we do not."""
    labels = dict(answer["labels"])
    assert labels.pop("prefect.io/version").startswith("2.20.")
    return answer | {"labels": labels}


@pytest.mark.parametrize("name", SAME)
async def test_a_run_is_prepared_as_prefect_prepares_it(prefect: Prefect, name: str) -> None:
    assert await ours(prefect, SAME[name]) == without_version(prefect.answers[name])


@pytest.mark.parametrize("name", BOTH_REFUSE)
async def test_what_prefect_refuses_is_refused(prefect: Prefect, name: str) -> None:
    assert "error" in prefect.answers[name]
    with pytest.raises(ResolutionError):
        await ours(prefect, BOTH_REFUSE[name])


@pytest.mark.parametrize("name", DIFFERENT)
async def test_the_differences_from_prefect_are_those_documented(
    prefect: Prefect, name: str
) -> None:
    bodies, theirs, own = DIFFERENT[name]
    plain = {
        "command": [prefect.python, "-m", "prefect.engine"],
        "env": {**prefect.base, "PREFECT__FLOW_RUN_ID": str(RUN)},
        "labels": {
            "prefect.io/flow-run-id": str(RUN),
            "prefect.io/flow-run-name": "brave-otter",
            "prefect.io/deployment-name": "nightly",
            "prefect.io/deployment-updated": "2026-03-04T05:06:07.089000Z",
            "prefect.io/flow-name": "load-orders",
        },
        "name": "brave-otter",
        "working_dir": None,
        "stream_output": True,
    }

    def changed(by: Mapping[str, Any]) -> dict[str, Any]:
        return {**plain, **by, "env": {**plain["env"], **by.get("env", {})}}  # type: ignore[dict-item]

    answer = prefect.answers[name]
    if isinstance(theirs, str):
        assert answer == {"error": theirs}
    else:
        assert without_version(answer) == changed(theirs)
    assert await ours(prefect, bodies) == changed(own)
