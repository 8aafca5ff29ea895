"""Makes a document ready for one flow run: the run's id, Prefect's labels, the default command.

Pure but for `default_python`, which looks around once, at the agent's start. Facts are those of
`prepare_for_flow_run` in Prefect 2.20; a test runs the real one beside this. Called by
`agent.infrastructure.resolve`.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.infrastructure.document import ProcessDocument
from agent.infrastructure.launcher import ProcessSpec
from agent.prefect.models import Deployment, Flow, FlowRun

RUN_ID: Final = "PREFECT__FLOW_RUN_ID"
"""Where the engine finds which run it is to execute."""


def prepare(
    document: ProcessDocument,
    run: FlowRun,
    deployment: Deployment,
    flow: Flow | None,
    *,
    base_environment: Mapping[str, str],
    python: str,
) -> ProcessSpec:
    """Make a document ready for one run, as Prefect 2.20's agent does.

    What the document says wins over what is prepared here, but for the run's id: without it, or
    with another one, the engine would execute nothing, or somebody else's run.

    Args:
        document: what the deployment says, overrides applied.
        run: which run.
        deployment: its deployment.
        flow: the deployment's flow; None when it has none. For a label only.
        base_environment: what every job is given; the document's `env` wins over it.
        python: the interpreter of the default command, `python -m prefect.engine`.
    """
    return ProcessSpec(
        command=tuple(document.command or (python, "-m", "prefect.engine")),
        env={**base_environment, **(document.env or {}), RUN_ID: str(run.id)},
        working_dir=document.working_dir or None,
        stream_output=document.stream_output is not False,
        labels={**_labels(run, deployment, flow), **(document.labels or {})},
        name=document.name or run.name,
    )


def _labels(run: FlowRun, deployment: Deployment, flow: Flow | None) -> dict[str, str]:
    # `prefect.io/version`, the seventh, is left out: it is that of the Prefect which submits, and
    # no Prefect does.
    labels = {
        "prefect.io/flow-run-id": str(run.id),
        "prefect.io/flow-run-name": run.name,
        "prefect.io/deployment-name": deployment.name,
    }
    if deployment.updated is not None:
        labels["prefect.io/deployment-updated"] = deployment.updated.to_iso8601_string()
    if flow is not None:
        labels["prefect.io/flow-name"] = flow.name
    return labels


def default_python(asked_for: str | None = None) -> str:
    """Return the interpreter of the default command.

    Prefect's agent takes its own, for that one has Prefect. Ours is taken when Prefect is
    installed beside us; else the `python`, or `python3`, of PATH: that of the activated virtual
    environment. Nothing is imported or executed to find out.

    Args:
        asked_for: what the settings say; it wins.
    """
    if asked_for:
        return asked_for
    if _has_prefect_engine():
        return sys.executable
    # The bare name, when there is none: the launch then says that the command was not found.
    return shutil.which("python") or shutil.which("python3") or "python"


def _has_prefect_engine() -> bool:
    # A folder `prefect` in the working directory is a package to Python, too: look for the file.
    spec = importlib.util.find_spec("prefect")
    folders = spec.submodule_search_locations if spec else None
    return any(Path(folder, "engine.py").is_file() for folder in folders or ())
