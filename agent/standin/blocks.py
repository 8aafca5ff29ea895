"""Block types, schemas and documents: where 2.x keeps what a deployment runs on, and secrets.

Functions on a `StandinState`, for `routes`. Only what an agent reads is true to life: documents
with nested references inlined, and secret fields masked unless they are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID, uuid5

import orjson

from agent.standin import wire
from agent.standin.refusals import INTEGRITY_CONFLICT, JSON, detail, not_found
from agent.standin.state import StandinState

# Of each type that may be there from the start: its name, its secret fields, its capabilities.
_KNOWN: Final[Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]]] = MappingProxyType(
    {
        "process": ("Process", (), ("run-infrastructure",)),
        "docker-container": (
            "Docker Container",
            ("image_registry.password",),
            ("run-infrastructure",),
        ),
        "docker-registry": ("Docker Registry", ("password",), ("docker-login",)),
        "secret": ("Secret", ("value",), ()),
    }
)
_NAMESPACE: Final = UUID("5bd0c0de-0000-4000-8000-000000000002")


def register_known_types(state: StandinState) -> None:
    """Make the block types that a server of this flavour has from the start.

    Their ids are fixed, so that no id of the injected source is spent on them.
    """
    for slug in state.traits.block_types:
        name, secrets, capabilities = _KNOWN[slug]
        type_id = str(uuid5(_NAMESPACE, slug))
        kind = _dated(state, type_id) | {"name": name, "slug": slug, "is_protected": True}
        state.block_types[type_id] = kind
        fields = {
            "title": name.replace(" ", ""),
            "type": "object",
            "properties": {},
            "block_type_slug": slug,
            "secret_fields": list(secrets),
            "block_schema_references": {},
        }
        schema_id = str(uuid5(_NAMESPACE, f"{slug}/schema"))
        state.block_schemas[schema_id] = _dated(state, schema_id) | _schema(
            type_id, fields, capabilities, state.traits.server_version
        )


def _dated(state: StandinState, id_: str) -> JSON:
    now = state.timestamp()
    return {"id": id_, "created": now, "updated": now}


def _schema(type_id: str, fields: JSON, capabilities: Sequence[str], version: str) -> JSON:
    canonical = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    return {
        "checksum": "sha256:" + hashlib.sha256(canonical).hexdigest(),
        "fields": fields,
        "block_type_id": type_id,
        "capabilities": list(capabilities),
        "version": version,
    }


def create_type(state: StandinState, name: str, slug: str) -> JSON:
    """Make a block type, or refuse with 409."""
    if any(kind["slug"] == slug for kind in state.block_types.values()):
        raise detail(409, f'Block type with slug "{slug}" already exists')
    row = {"name": name, "slug": slug, "is_protected": False}
    return show_type(state.add(state.block_types, row))


def type_by_slug(state: StandinState, slug: str) -> JSON:
    """Return a block type, or refuse with 404."""
    for kind in state.block_types.values():
        if kind["slug"] == slug:
            return show_type(kind)
    raise not_found("Block type")


def show_type(row: JSON) -> JSON:
    """Return a block type as the server answers it."""
    pictures = ("logo_url", "documentation_url", "description", "code_example")
    return dict.fromkeys(pictures) | {"id": None, "name": None, "is_protected": False} | row


def create_schema(
    state: StandinState, type_id: str, fields: JSON, capabilities: Sequence[str], version: str
) -> JSON:
    """Make a block schema, or refuse with 409 when there is no such type."""
    if type_id not in state.block_types:
        raise detail(409, INTEGRITY_CONFLICT)
    row = _schema(type_id, fields, capabilities, version)
    return show_schema(state, state.add(state.block_schemas, row))


def schemas_of(state: StandinState, type_ids: Sequence[str] | None) -> list[JSON]:
    """Return the schemas of some block types (None: of all), newest first."""
    return [
        show_schema(state, schema)
        for schema in reversed(state.block_schemas.values())
        if type_ids is None or schema["block_type_id"] in type_ids
    ]


def show_schema(state: StandinState, row: JSON) -> JSON:
    """Return a block schema, with its type, as the server answers it."""
    return row | {"block_type": show_type(state.block_types[row["block_type_id"]])}


def create_document(
    state: StandinState,
    type_id: str,
    schema_id: str,
    data: JSON,
    *,
    name: str | None,
    is_anonymous: bool,
) -> JSON:
    """Make a document. A field `{"$ref": {"block_document_id": id}}` refers to another one.

    Raises:
        Refusal: 409, the name is taken, or what is referred to is not there.
    """
    references = {
        field: target
        for field, value in data.items()
        if (target := _referred_to(value)) is not None
    }
    missing = any(target not in state.blocks for target in references.values())
    if missing or type_id not in state.block_types or schema_id not in state.block_schemas:
        raise detail(409, INTEGRITY_CONFLICT)
    slug = state.block_types[type_id]["slug"]
    if any(
        (row["block_type"]["slug"], row["name"]) == (slug, name) for row in state.blocks.values()
    ):
        raise detail(409, "Block already exists")
    row = {
        "name": name or f"anonymous-{state.new_id()}",
        "data": {field: value for field, value in data.items() if field not in references},
        "block_schema_id": schema_id,
        "block_schema": show_schema(state, state.block_schemas[schema_id]),
        "block_type_id": type_id,
        "block_type_name": state.block_types[type_id]["name"],
        "block_type": show_type(state.block_types[type_id]),
        "is_anonymous": is_anonymous,
    }
    added = state.add(state.blocks, row)
    state.block_references[added["id"]] = references
    return added


def _referred_to(value: Any) -> str | None:
    match value:
        case {"$ref": {"block_document_id": str(target)}}:
            return target
        case _:
            return None


def show_document(state: StandinState, row: JSON, *, include_secrets: bool) -> JSON:
    """Return a document as the server answers it: references inlined, secrets masked or not."""
    return row | {
        "data": _data(state, row, include_secrets=include_secrets),
        "block_document_references": _references(state, row),
    }


def _nested(state: StandinState, row: JSON) -> Mapping[str, JSON]:
    """Return what a document refers to. A field whose document was deleted is just gone."""
    references = state.block_references.get(row["id"], {})
    return {
        field: state.blocks[target]
        for field, target in references.items()
        if target in state.blocks
    }


def _data(state: StandinState, row: JSON, *, include_secrets: bool) -> JSON:
    data = dict(row["data"])
    for field, nested in _nested(state, row).items():
        data[field] = _data(state, nested, include_secrets=include_secrets)
    if include_secrets:
        return data
    fields = (row.get("block_schema") or {}).get("fields") or {}
    return wire.masked(data, fields.get("secret_fields") or ())


def _references(state: StandinState, row: JSON) -> JSON:
    return {
        field: {
            "block_document": {
                "id": nested["id"],
                "name": nested["name"],
                "block_type": nested["block_type"],
                "is_anonymous": nested.get("is_anonymous", False),
                "block_document_references": _references(state, nested),
            }
        }
        for field, nested in _nested(state, row).items()
    }
