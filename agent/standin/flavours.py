"""The two generations of Prefect server that the stand-in can be, and how they differ.

Every difference was seen on real servers (2.20.26 and 3.8.8) and is asked of them again by the
conformance tests. The rest of the package reads these fields and never a version number.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs


@attrs.frozen
class Flavour:
    """What tells the generations apart on the wire.

    Attributes:
        name: `"2.20"` or `"3"`.
        server_version: what `/admin/version` answers.
        utc_suffix: how timestamps end.
        state_ids_are_ordered: states (and nothing else) have UUIDv7 ids.
        pending_may_be_renamed: Pending → Submitting → InfrastructurePending are accepted.
        cancelled_is_final: a Cancelled run can't be scheduled again without force.
        late_once: Late over Late is refused.
        cancels_paused_runs: Paused → Cancelling is accepted.
        keeps_results: Completed without a result over Completed with one is refused.
        clears_retry_type: the last failure of a retried run forgets how it was retried.
        keeps_unnamed_deployment_fields: creating a deployment again changes only what is named.
        offers_tell_the_pool: runs that are handed out name their work pool.
        bad_id_status: for a path whose id is no UUID: 422, or 404 as for an unknown route.
        coerces_text: numbers are taken where text is asked for.
        state_may_carry_id: a proposed state may have (and loses) `id` and `timestamp`.
        overrides_field: what a deployment calls its overrides in answers.
        accepted_overrides_fields: and in requests.
        has_labels: flows, deployments and runs carry labels.
        block_types: the block types that exist from the start.
    """

    name: str
    server_version: str
    utc_suffix: str
    state_ids_are_ordered: bool
    pending_may_be_renamed: bool
    cancelled_is_final: bool
    late_once: bool
    cancels_paused_runs: bool
    keeps_results: bool
    clears_retry_type: bool
    keeps_unnamed_deployment_fields: bool
    offers_tell_the_pool: bool
    bad_id_status: int
    coerces_text: bool
    state_may_carry_id: bool
    overrides_field: str
    accepted_overrides_fields: tuple[str, ...]
    has_labels: bool
    block_types: tuple[str, ...]


PREFECT_2 = Flavour(
    name="2.20",
    server_version="2.20.26",
    utc_suffix="+00:00",
    state_ids_are_ordered=False,
    pending_may_be_renamed=False,
    cancelled_is_final=True,
    late_once=False,
    cancels_paused_runs=False,
    keeps_results=False,
    clears_retry_type=False,
    keeps_unnamed_deployment_fields=False,
    offers_tell_the_pool=True,
    bad_id_status=422,
    coerces_text=True,
    state_may_carry_id=True,
    overrides_field="infra_overrides",
    accepted_overrides_fields=("infra_overrides", "job_variables"),
    has_labels=False,
    block_types=("process", "docker-container", "docker-registry", "secret"),
)

PREFECT_3 = Flavour(
    name="3",
    server_version="3.8.8",
    utc_suffix="Z",
    state_ids_are_ordered=True,
    pending_may_be_renamed=True,
    cancelled_is_final=False,
    late_once=True,
    cancels_paused_runs=True,
    keeps_results=True,
    clears_retry_type=True,
    keeps_unnamed_deployment_fields=True,
    offers_tell_the_pool=False,
    bad_id_status=404,
    coerces_text=False,
    state_may_carry_id=False,
    overrides_field="job_variables",
    accepted_overrides_fields=("job_variables",),
    has_labels=True,
    block_types=("secret",),
)

FLAVOURS: Mapping[str, Flavour] = MappingProxyType({f.name: f for f in (PREFECT_2, PREFECT_3)})
