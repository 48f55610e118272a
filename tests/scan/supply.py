"""Subjects for the scanners of the supply chain, and what they find in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from capwasm.caps import standard_capabilities
from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.pack import pack
from capwasm.review.finding import Finding, Report
from capwasm.scan.model import Context, Scanner
from capwasm.scan.run import scan
from capwasm.scan.subject import Subject

from .natives import TRIPLE

ID, VERSION = "acme.weather", "1.2.0"
COMPONENT: Final = b"\0asm\x0d\0\x01\0"


def manifest(kind: str = "component", licence: str = "Apache-2.0", more: str = "") -> bytes:
    said = f'license = "{licence}"\n' if licence else ""
    return (
        f'schema = 1\n[plugin]\nid = "{ID}"\nname = "Weather"\nversion = "{VERSION}"\n{said}'
        f'requires-core = ">=0.1"\nkind = "{kind}"\n{more}'
    ).encode()


def subject(members: Mapping[str, bytes]) -> Subject:
    """A capsule that nobody signed, with these members."""
    artifact = read_artifact(pack(members))
    return Subject.unproven(artifact, standard_capabilities(), "nobody signed it")


def component(**members: bytes) -> Subject:
    """A component with more members; `sbom` stands for sbom.cdx.json."""
    names = {"sbom": "sbom.cdx.json"}
    more = {names.get(name, name): data for name, data in members.items()}
    return subject({"plugin.toml": manifest(), "plugin.wasm": COMPONENT, **more})


def native(library: bytes, triple: str = TRIPLE) -> Subject:
    return subject({"plugin.toml": manifest("native"), f"lib/{triple}/plugin.so": library})


def report(scanners: Sequence[Scanner], what: Subject, context: Context | None = None) -> Report:
    return scan(what, context or Context(capabilities=standard_capabilities()), scanners)


def findings(
    scanners: Sequence[Scanner], what: Subject, context: Context | None = None
) -> dict[str, Finding]:
    """The findings by rule, the first of each; the scanners themselves did not fail."""
    made = report(scanners, what, context)
    found = {f.rule: f for f in reversed(made.findings)}
    assert "scan.failed" not in found, found
    assert "scan.timeout" not in found, found
    return found


def bill(*components: Mapping[str, Any], **changes: Any) -> bytes:
    """An SBOM of the plugin with these components."""
    doc: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "plugin",
                "name": ID,
                "version": VERSION,
            }
        },
        "components": list(components),
    }
    doc |= changes
    return json.dumps({k: v for k, v in doc.items() if v is not None}).encode()


def part(kind: str, name: str, version: str = "", **more: Any) -> dict[str, Any]:
    """A component of an SBOM; `kind` is that of its purl."""
    tail = f"@{version}" if version else ""
    made = {
        "type": "library",
        "bom-ref": f"{kind}-{name}-{version}",
        "name": name.rpartition("/")[2],
        "version": version,
        "purl": f"pkg:{kind}/{name}{tail}",
    }
    return {k: v for k, v in (made | more).items() if v}
