"""The deployment, flow and block from which the daemon's resolver makes a recorded resolution.

Pure. The log has the result: a command, a name, labels, the names of variables; or the words in
which resolution failed. Here are documents that lead there, in the shape of the server's answers.
Values of variables were never in the log; placeholders stand in for them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

import attrs

from agent.infrastructure.prepare import RUN_ID
from events.lifecycle import RunDiscovered
from events.observations import InfrastructureResolved, ResolutionFailed
from replay.reexecution.failures import JSON, OF_KIND

NAMESPACE: Final = UUID("5c3d4f0e-8a53-4f0e-9d61-2b7f6f1f9a3e")

_DEPLOYMENT_NAME: Final = "prefect.io/deployment-name"
_DEPLOYMENT_UPDATED: Final = "prefect.io/deployment-updated"
_FLOW_NAME: Final = "prefect.io/flow-name"
_RUN_LABELS: Final[Mapping[str, str]] = {
    "prefect.io/flow-run-id": "flow_run_id",
    "prefect.io/flow-run-name": "run_name",
}
_ENGINE: Final = ("-m", "prefect.engine")

_DEFAULT: Final = "the agent's default infrastructure"


@attrs.frozen
class Documents:
    """What the server has about one run's infrastructure.

    Attributes:
        deployment, flow, block: the answers; None for what does not exist (any more).
        natural: False when no documents are known that lead to the recorded words.
    """

    deployment: JSON | None
    flow: JSON | None
    block: JSON | None
    natural: bool = True


@attrs.frozen
class ResolverFacts:
    """What a life's records tell about the settings of its resolver.

    Attributes:
        python: the interpreter of the default command.
        default_document: the block for deployments that name none.
    """

    python: str = "python"
    default_document: UUID | None = None

    def told_by(self, seen: InfrastructureResolved | ResolutionFailed) -> ResolverFacts:
        """Return the facts, with what an observation adds to them."""
        if isinstance(seen, InfrastructureResolved):
            is_default = seen.command[1:] == _ENGINE
            return attrs.evolve(self, python=seen.command[0]) if is_default else self
        if _DEFAULT not in seen.error:
            return self
        gone = _BLOCK_GONE.fullmatch(seen.error)
        document = UUID(gone["id"]) if gone else uuid5(NAMESPACE, "default")
        return attrs.evolve(self, default_document=document)


def documents_for(
    run: RunDiscovered,
    seen: InfrastructureResolved | ResolutionFailed | None,
    facts: ResolverFacts,
) -> Documents:
    """Return documents that lead to a resolution; any at all if there was none."""
    plain = Documents(_deployment(run), _flow(run), _block(run))
    match seen:
        case None:
            return plain
        case InfrastructureResolved():
            return _leading_to(run, seen, facts)
        case ResolutionFailed(error=error):
            return _failing_with(run, plain, error) or attrs.evolve(plain, natural=False)


def _deployment(run: RunDiscovered, **fields: JSON) -> JSON:
    defaults = {
        "id": str(run.deployment_id),
        "name": "deployment",
        "flow_id": str(run.flow_id or uuid5(NAMESPACE, "flow")),
        "infrastructure_document_id": str(uuid5(NAMESPACE, "block")),
        "job_variables": {},
    }
    return defaults | fields


def _flow(run: RunDiscovered, name: str = "flow") -> JSON:
    return {"id": str(run.flow_id or uuid5(NAMESPACE, "flow")), "name": name}


def _block(run: RunDiscovered, **fields: JSON) -> JSON:
    defaults = {
        "id": str(uuid5(NAMESPACE, "block")),
        "name": "block",
        "block_type": {"slug": "process"},
        "data": {},
    }
    return defaults | fields


# --- what was resolved -------------------------------------------------------------------------


def _leading_to(
    run: RunDiscovered, seen: InfrastructureResolved, facts: ResolverFacts
) -> Documents:
    labels = seen.labels
    has_flow = _FLOW_NAME in labels
    deployment = _deployment(run, name=labels.get(_DEPLOYMENT_NAME, "deployment"))
    if _is_time(labels.get(_DEPLOYMENT_UPDATED, "")):
        deployment |= {"updated": labels[_DEPLOYMENT_UPDATED]}
    if not has_flow and run.flow_id is None:
        deployment |= {"flow_id": None}
    flow = _flow(run, labels[_FLOW_NAME]) if has_flow else _flow(run)
    return Documents(deployment, flow, _block(run, data=_data(run, seen, facts)))


def _data(
    run: RunDiscovered, seen: InfrastructureResolved, facts: ResolverFacts
) -> dict[str, JSON]:
    """Return what the block says; what the daemon prepares by itself is left to it."""
    data: dict[str, JSON] = {
        "type": "process",
        "env": {
            name: None if digest is None else f"(value of {name}, which no log has)"
            for name, digest in seen.env.items()
            if name != RUN_ID
        },
        "labels": dict(_own_labels(run, seen)),
    }
    if seen.command != (facts.python, *_ENGINE):
        data["command"] = list(seen.command)
    if seen.working_dir is not None:
        data["working_dir"] = seen.working_dir
    if seen.name != run.run_name:
        data["name"] = seen.name
    return data


def _own_labels(run: RunDiscovered, seen: InfrastructureResolved) -> Iterator[tuple[str, str]]:
    """Yield the labels that the daemon does not put there by itself."""
    for name, value in seen.labels.items():
        match name:
            case _ if name in _RUN_LABELS:
                prepared = value == str(getattr(run, _RUN_LABELS[name]))
            case _ if name == _DEPLOYMENT_UPDATED:
                prepared = _is_time(value)
            case _:
                prepared = name in (_DEPLOYMENT_NAME, _FLOW_NAME)
        if not prepared:
            yield name, value


def _is_time(text: str) -> bool:
    """Tell whether a label is a time as the daemon writes one, and not what a block says."""
    try:
        return text.endswith("Z") and datetime.fromisoformat(text).tzinfo is UTC
    except ValueError:
        return False


# --- what could not be resolved ----------------------------------------------------------------

_ID: Final = r"(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_REPR: Final = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_USER: Final = rf"(?:deployment (?P<name>{_REPR})|{_DEFAULT})"


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.DOTALL)


_NO_DEPLOYMENT: Final = _pattern("the flow run has no deployment, so nothing says how to run it")
_DEPLOYMENT_GONE: Final = _pattern(rf"deployment {_ID} no longer exists")
_FLOW_GONE: Final = _pattern(rf"flow {_ID} of deployment (?P<name>{_REPR}) no longer exists")
_BLOCK_GONE: Final = _pattern(rf"infrastructure block {_ID} of {_USER} no longer exists")
_OTHER_BLOCK: Final = _pattern(
    rf"this release launches 'process' blocks; {_USER} uses"
    rf" (?:(?P<kind>{_REPR}) block|the untyped block) (?P<block>{_REPR})"
)
_ABOUT: Final = rf"the infrastructure of deployment (?P<name>{_REPR}): "
_EMPTY_PART: Final = _pattern(rf"{_ABOUT}the override (?P<path>{_REPR}) has an empty part")
_THROUGH: Final = _pattern(
    rf"{_ABOUT}the override (?P<path>{_REPR}) leads through (?P<way>{_REPR}), which is"
    r" (?P<kind>[a-z ]+) and not a mapping"
)
_OTHER_TYPE: Final = _pattern(rf"{_ABOUT}type is not 'process'")
_KIND: Final = "a mapping|a list|text|true or false|a number|null"
_FIELD: Final = (
    rf"\w+(?:\[(?:\d{{1,4}}|{_REPR})\])? is (?:{_KIND}),"
    r" expected (?:text|true or false|a mapping|a list of text"
    r"|a list, or text with its quotations closed)"
)
_FIELDS: Final = _pattern(rf"{_ABOUT}(?P<fields>{_FIELD}(?:; {_FIELD})*)")
_ONE_FIELD: Final = _pattern(
    rf"(?P<field>\w+)(?:\[(?:(?P<index>\d+)|(?P<key>{_REPR}))\])? is (?P<kind>{_KIND}), expected "
)


def _failing_with(run: RunDiscovered, plain: Documents, error: str) -> Documents | None:
    for pattern, make in _FAILURES:
        if found := pattern.fullmatch(error):
            try:
                return make(run, plain, found)
            except (ValueError, SyntaxError, TypeError, AttributeError):
                return None  # words that no resolver of ours has written
    return None


def _named(plain: Documents, found: re.Match[str], **fields: JSON) -> JSON:
    """Return the deployment by the name in the words, which without one use the agent's block."""
    name = found["name"]
    told: JSON = {"infrastructure_document_id": None} if name is None else {"name": _literal(name)}
    return plain.deployment | told | fields


def _literal(text: str) -> str:
    return str(ast.literal_eval(text))


def _without_deployment(_run: RunDiscovered, plain: Documents, _found: Any) -> Documents:
    return attrs.evolve(plain, deployment=None)


def _without_flow(_run: RunDiscovered, plain: Documents, found: re.Match[str]) -> Documents:
    deployment = _named(plain, found, flow_id=found["id"])
    return attrs.evolve(plain, deployment=deployment, flow=None)


def _without_block(_run: RunDiscovered, plain: Documents, found: re.Match[str]) -> Documents:
    own = {"infrastructure_document_id": found["id"]} if found["name"] else {}
    return attrs.evolve(plain, deployment=_named(plain, found, **own), block=None)


def _with_another_block(run: RunDiscovered, plain: Documents, found: re.Match[str]) -> Documents:
    kind = found["kind"] and _literal(found["kind"])
    block = _block(run, name=_literal(found["block"]), block_type={"slug": kind})
    return attrs.evolve(plain, deployment=_named(plain, found), block=block)


def _with_empty_part(_run: RunDiscovered, plain: Documents, found: re.Match[str]) -> Documents:
    variables = {_literal(found["path"]): None}
    return attrs.evolve(plain, deployment=_named(plain, found, job_variables=variables))


def _leading_through(_run: RunDiscovered, plain: Documents, found: re.Match[str]) -> Documents:
    way, path = _literal(found["way"]), _literal(found["path"])
    variables = {way: OF_KIND.get(found["kind"]), path: None}
    return attrs.evolve(plain, deployment=_named(plain, found, job_variables=variables))


def _of_another_type(run: RunDiscovered, plain: Documents, found: re.Match[str]) -> Documents:
    block = _block(run, data={"type": "another"})
    return attrs.evolve(plain, deployment=_named(plain, found), block=block)


def _with_unfit_fields(run: RunDiscovered, plain: Documents, found: re.Match[str]) -> Documents:
    data: dict[str, JSON] = {}
    for each in _ONE_FIELD.finditer(found["fields"]):
        field, index, key, value = each["field"], each["index"], each["key"], OF_KIND[each["kind"]]
        if index is not None:
            items = data.setdefault(field, [])
            items += ["item"] * (int(index) - len(items))
            items.append(value)
        elif key is not None:
            data.setdefault(field, {})[_literal(key)] = value
        else:
            data[field] = value
    return attrs.evolve(plain, deployment=_named(plain, found), block=_block(run, data=data))


_FAILURES: Final = (
    (_NO_DEPLOYMENT, _without_deployment),
    (_DEPLOYMENT_GONE, _without_deployment),
    (_FLOW_GONE, _without_flow),
    (_BLOCK_GONE, _without_block),
    (_OTHER_BLOCK, _with_another_block),
    (_EMPTY_PART, _with_empty_part),
    (_THROUGH, _leading_through),
    (_OTHER_TYPE, _of_another_type),
    (_FIELDS, _with_unfit_fields),
)
