"""What a component really imports, held against what its manifest declares; nothing is run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from capwasm.errors import Fault, LinkError

if TYPE_CHECKING:
    from capwasm.grants.manifest import Manifest

__all__ = ["check_imports", "permissions", "warnings"]

# What a manifest's author would write, table by table, to declare an interface.
_LINES: Final = {
    "fs": '[[fs]]\nmount = "/data"\nbind = "app-data"\naccess = "read"',
    "net": '[[net]]\nallow = "https://api.example.com/*"\nmethods = ["GET"]',
    "secret": '[[secret]]\nname = "token"\nuse = "inject"\nfor = ["https://api.example.com"]\n'
    'header = "Authorization: Bearer {}"',
    "config": '[config]\nkeys = ["setting"]',
    "exec": '[[exec]]\ncommand = "thumbnail"',
}
# What else in a source shows that a capability is used, besides its module of the guest SDK.
_SIGNS: Final = {
    "clock": {"time", "datetime", "logging"},
    "random": {"random", "secrets", "uuid", "tempfile", "os"},
    "fs": {"pathlib", "os", "io", "shutil", "open"},
    "net": {"urllib.request"},
}


def check_imports(
    code: bytes, manifest: Manifest, capabilities: Sequence[Any], cache: Path | None
) -> list[str]:
    """Link the component as a load would, with every declared capability and nothing granted.

    Returns:
        Every interface that it imports.

    Raises:
        ArtifactError: it is not a component, or can't be compiled.
        LinkError: it imports what the manifest does not declare, or what nobody offers; each with
            the lines of plugin.toml that are missing.
    """
    from capwasm.engine.compile import Compiler
    from capwasm.engine.engine import PluginEngine
    from capwasm.engine.link import read_types
    from capwasm.scan.world import import_faults

    with closing(PluginEngine()) as engine:
        types, _ = read_types(engine, Compiler(engine, cache).compile(code))
    faults = import_faults(types, manifest, capabilities)
    if faults:
        undeclared = any(fault.fix is not None for fault in faults)
        raise LinkError(
            "the component imports what it may not have",
            code="link.undeclared-import" if undeclared else "link.unknown-import",
            context=manifest.id,
            faults=[_with_lines(f) for f in faults],
        )
    return sorted(i.name for i in types.imports)


def _with_lines(fault: Fault) -> Fault:
    if fault.fix is None:
        return fault
    name = fault.fix
    lines = _LINES.get(name, f"[{name}]")
    return Fault(fault.path, f"plugin.toml does not declare {lines.partition(chr(10))[0]}", lines)


def permissions(manifest: Manifest, capabilities: Iterable[Any]) -> list[dict[str, Any]]:
    """All that the manifest asks, with how grave it is, the gravest first."""
    rows = []
    for capability in capabilities:
        request = manifest.requests.get(capability.name)
        for asked in request.asked if request else ():
            for clause in asked.clauses:
                risk, reason = capability.risk(clause)
                rows.append(
                    {
                        "path": asked.path,
                        "capability": capability.name,
                        "text": clause.describe(),
                        "risk": risk.value,
                        "risk-why": reason,
                        "optional": asked.optional,
                        "why": asked.why,
                    }
                )
    order = {"high": 0, "medium": 1, "low": 2}
    return sorted(rows, key=lambda row: order[row["risk"]])


def warnings(
    manifest: Manifest,
    capabilities: Sequence[Any],
    imports: Sequence[str],
    names: set[str] | None,
) -> list[str]:
    """What an author should look at: what is declared and, as far as can be seen, never used.

    Args:
        manifest: what is declared.
        capabilities: those that there are.
        imports: what the component imports.
        names: by which its sources use capabilities, where the component imports all that is
            declared, used or not.
    """
    from capwasm.scan.world import unused

    found = []
    if names is not None and "clock" not in manifest.requests:
        needs = sorted(names & {"time", "datetime", "logging"})
        found += [
            f"{name} reads the clock, and plugin.toml does not declare [clock]" for name in needs
        ]
    # A traceback is a use of the log, and a Python plugin draws random bytes when it starts.
    idle = set(unused(manifest, capabilities, imports)) if names is None else set()
    for capability in capabilities:
        name = capability.name
        if names is not None and name in manifest.requests and name not in {"log", "random"}:
            module = {"net": "fetch", "secret": "secrets"}.get(name, name)
            signs = {f"capwasm_guest.{module}", f"capwasm_{module}", *_SIGNS.get(name, ())}
            if not (names & signs or (name == "secret" and "secret=" in names)):
                idle.add(name)
        if name in idle:
            table = f"[[{name}]]" if capability.repeated else f"[{name}]"
            found.append(f"plugin.toml declares {table}, and the plugin does not seem to use it")
    return found
