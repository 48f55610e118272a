"""The JSON Schemas of `plugin.toml` and `policy.toml`, for editors: made from what parses them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from capwasm.capability import Side

from ._document import AnyCapability, limits_schema
from .manifest import MAX_WHY, Plugin
from .tables import Head, Tables

__all__ = ["manifest_schema", "policy_schema"]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_NOTES: Final[dict[str, Any]] = {
    "optional": {
        "type": "boolean",
        "default": False,
        "description": "The plugin can do without it: refusing it does not refuse the plugin.",
    },
    "why": {
        "type": "string",
        "maxLength": MAX_WHY,
        "description": "What the plugin needs it for, for the person who decides.",
    },
}


def manifest_schema(capabilities: Sequence[AnyCapability]) -> dict[str, Any]:
    """JSON Schema of a `plugin.toml`.  It is advice to an editor; `parse_manifest` decides."""
    defs: dict[str, Any] = {}
    plugin = _hoist("plugin", Plugin.model_json_schema(), defs)
    properties = {"schema": {"const": 1}, "plugin": plugin, "limits": limits_schema()}
    for capability in capabilities:
        properties[capability.name] = _tables(capability, "manifest", defs, notes=True)
    return _document("plugin.toml", properties, ["schema", "plugin"], defs)


def policy_schema(capabilities: Sequence[AnyCapability]) -> dict[str, Any]:
    """JSON Schema of a `policy.toml`.  It is advice to an editor; `Policy.load` decides."""
    defs: dict[str, Any] = {}
    tables = {c.name: _tables(c, "policy", defs) for c in capabilities}
    deny = {"type": "object", "additionalProperties": False, "properties": tables}
    rules = {**deny, "properties": {"limits": limits_schema(), "deny": deny, **tables}}
    properties = {
        "schema": {"const": 1},
        **_hoist("head", Head.model_json_schema(), defs)["properties"],
        **{word: _once(word, defs) for word in Tables.model_fields},
        "limits": limits_schema(),
        "deny": deny,
        "plugins": {"type": "object", "additionalProperties": rules},
    }
    return _document("policy.toml", properties, ["schema"], defs)


def _document(
    title: str, properties: Mapping[str, Any], required: list[str], defs: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "$schema": _DIALECT,
        "title": title,
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": dict(properties),
        **({"$defs": dict(defs)} if defs else {}),
    }


def _tables(
    capability: AnyCapability, side: Side, defs: dict[str, Any], *, notes: bool = False
) -> dict[str, Any]:
    """One capability's place in the document: a table, or an array of them."""
    table = _hoist(capability.name, capability.schema(side), defs)
    if notes:
        table = {**table, "properties": {**table.get("properties", {}), **_NOTES}}
    table.setdefault("description", capability.title)
    return {"type": "array", "items": table} if capability.repeated else table


def _once(word: str, defs: dict[str, Any]) -> dict[str, Any]:
    """A table that speaks of no capability."""
    return _hoist(word, type(getattr(Tables(), word)).model_json_schema(), defs)


def _hoist(owner: str, schema: Mapping[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """`schema` with its own `$defs` moved to the document's, under names that are its own."""
    text = json.dumps(schema).replace('"#/$defs/', f'"#/$defs/{owner}.')
    moved: dict[str, Any] = json.loads(text)
    for name, value in moved.pop("$defs", {}).items():
        defs[f"{owner}.{name}"] = value
    return moved
