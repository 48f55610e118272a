"""`capwasm manifest check | schema` and `capwasm policy check | schema`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from ._output import console, epilog, home_option, json_option, say_json, shown
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


@click.group(epilog="\b\nExample:\n  capwasm policy check policy.toml\n  capwasm policy schema")
def policy() -> None:
    """Check a policy.toml, and print its JSON Schema."""


@policy.command("check", epilog=epilog("capwasm policy check policy.toml", codes=_CODES))
@click.argument("file", type=PATH, required=False)
@home_option
@json_option
def check_policy(file: Path | None, home_path: Path, as_json: bool) -> None:
    """Tell every fault of a policy.toml, and what its owner should know.

    Without FILE, it is the policy of the runtime's home.
    """
    from capwasm.grants.policy import Policy

    file = file or home_path / "policy.toml"
    known = capabilities()
    found = Policy.load(file, known)
    remarks = found.remarks(known, datetime.now(UTC).date())
    if as_json:
        say_json(
            {
                "policy": str(file),
                "owner": found.owner,
                "review-by": None if found.review_by is None else found.review_by.isoformat(),
                "require": sorted(found.requirement.any_of),
                "reviewed": found.requirement.reviewed,
                "automatic": sorted(found.automatic),
                "plugins": list(found.patterns),
                "isolation": {
                    "process": list(found.isolation.rule.process),
                    "native": list(found.isolation.rule.native),
                    "legacy": list(found.isolation.rule.legacy),
                    "required": sorted(found.isolation.required),
                },
                "digest": found.digest,
                "remarks": [{"path": r.path, "message": r.message} for r in remarks],
            },
            indent=2,
        )
        return
    out = console()
    out.print(f"{shown(file)}: sound, {len(found.patterns)} selector(s)", markup=False)
    for remark in remarks:
        out.print(f"  note: {shown(remark)}", markup=False)


@policy.command("schema", epilog=epilog("capwasm policy schema > policy.schema.json"))
def schema_of_policy() -> None:
    """Print the JSON Schema of policy.toml, for an editor."""
    from capwasm.grants.schema import policy_schema

    say_json(policy_schema(capabilities()), indent=2)


commands: list[click.Command] = [manifest, policy]
