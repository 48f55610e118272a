"""`capwasm manifest check | schema`."""

from __future__ import annotations

from pathlib import Path

import click

from ._output import console, epilog, json_option, say_json, shown
from ._plugin import PATH, capabilities, read_manifest

__all__ = ["commands"]

_CODES = "0 it is sound, 1 it has faults, 2 wrong usage"


@click.group(epilog="\b\nExample:\n  capwasm manifest check plugin.toml\n  capwasm manifest schema")
def manifest() -> None:
    """Check a plugin.toml, and print its JSON Schema."""


@manifest.command("check", epilog=epilog("capwasm manifest check plugin.toml", codes=_CODES))
@click.argument("file", type=PATH)
@json_option
def check_manifest(file: Path, as_json: bool) -> None:
    """Tell every fault of a plugin.toml, or what it asks for."""
    found = read_manifest(file)
    risks = {c.name: c.risk for c in capabilities()}
    permissions = [
        (name, asked, clause, *risks[name](clause))
        for name, request in found.requests.items()
        for asked in request.asked
        for clause in asked.clauses
    ]
    if as_json:
        say_json(
            {
                "id": found.id,
                "version": found.version,
                "kind": found.plugin.kind,
                "instance": found.plugin.instance,
                "requires-core": found.plugin.requires_core,
                "digest": found.digest,
                "permissions": [
                    {
                        "path": asked.path,
                        "capability": name,
                        "text": clause.describe(),
                        "toml": clause.to_toml(),
                        "risk": risk.value,
                        "risk-why": why,
                        "optional": asked.optional,
                        "why": asked.why,
                    }
                    for name, asked, clause, risk, why in permissions
                ],
                "limits": found.limits.to_table(),
            },
            indent=2,
        )
        return
    out = console()
    out.print(f"{found.identity}: sound", markup=False)
    for _, asked, clause, risk, _ in permissions:
        optional = ", optional" if asked.optional else ""
        line = f"  {asked.path}: {shown(clause.describe())} ({risk.value} risk{optional})"
        out.print(line, markup=False)
    if not permissions:
        out.print("  asks for no permission")


@manifest.command("schema", epilog=epilog("capwasm manifest schema > plugin.schema.json"))
def schema_of_manifest() -> None:
    """Print the JSON Schema of plugin.toml, for an editor."""
    from capwasm.grants.schema import manifest_schema

    say_json(manifest_schema(capabilities()), indent=2)


commands: list[click.Command] = [manifest]
