"""The stand-in's routes for block types, schemas and documents.

One function per route; `routes` has the table that they are looked up in.
"""

from __future__ import annotations

from typing import Any

from agent.standin import blocks
from agent.standin.bodies import read_id
from agent.standin.calls import Call, Reply
from agent.standin.refusals import invalid_request


def create_block_type(call: Call) -> Reply:
    """Make a block type."""
    fields = call.fields()
    name, slug = fields.name("name"), fields.required_text("slug")
    fields.ignore("logo_url", "documentation_url", "description", "code_example")
    fields.forbid_others()
    fields.check()
    return 201, blocks.create_type(call.state, name, slug)


def read_block_type_by_slug(call: Call) -> Reply:
    """Answer with a block type."""
    return 200, blocks.type_by_slug(call.state, call.path["slug"])


def create_block_schema(call: Call) -> Reply:
    """Make a block schema."""
    fields = call.fields()
    shape, type_id = fields.mapping("fields"), str(fields.required_uuid("block_type_id"))
    capabilities = fields.items("capabilities") or []
    version = fields.text("version", "non-versioned")
    fields.forbid_others()
    fields.check()
    return 201, blocks.create_schema(call.state, type_id, shape, capabilities, version)


def filter_block_schemas(call: Call) -> Reply:
    """Answer with the schemas of some block types, newest first."""
    fields = call.fields()
    type_ids: list[Any] | None = None
    schemas = fields.nested("block_schemas")
    types = None if schemas is None else schemas.nested("block_type_id")
    if types is not None:
        type_ids = types.items("any_", read_id)
        types.forbid_others()
    if schemas is not None:
        schemas.forbid_others()
    fields.check()
    wanted = None if type_ids is None else [str(type_id) for type_id in type_ids]
    return 200, blocks.schemas_of(call.state, wanted)


def create_block_document(call: Call) -> Reply:
    """Make a block document; the answer masks its secrets."""
    fields, state = call.fields(), call.state
    is_anonymous, name = fields.flag("is_anonymous"), fields.text("name")
    if not is_anonymous and not name:
        fields.wrong((), "Names must be provided for block documents.", "value_error", None)
    data, type_id = fields.mapping("data"), str(fields.required_uuid("block_type_id"))
    schema_id = str(fields.required_uuid("block_schema_id"))
    fields.forbid_others()
    fields.check()
    row = blocks.create_document(
        state, type_id, schema_id, data, name=name, is_anonymous=is_anonymous
    )
    return 201, blocks.show_document(state, row, include_secrets=False)


def read_block_document(call: Call) -> Reply:
    """Answer with a block document, with its secrets only when they are asked for."""
    asked = call.query.get("include_secrets", "false").lower()
    if asked not in ("true", "false", "1", "0"):
        problem = {"loc": ["query", "include_secrets"], "msg": "not a bool", "type": "bool_parsing"}
        raise invalid_request([problem], None)
    row = call.row(call.state.blocks, "Block document")
    return 200, blocks.show_document(call.state, row, include_secrets=asked in ("true", "1"))


def delete_block_document(call: Call) -> Reply:
    """Delete a block document."""
    del call.state.blocks[call.row(call.state.blocks, "Block document")["id"]]
    return 204, None
