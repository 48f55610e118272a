"""What a component imports and exports, held against what its manifest says: both ways.

An import that the manifest does not declare would not load.  One that it declares and never imports is
a permission that a person is asked for, and that nobody needs: a later version may.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from capwasm.capability import Capability, Risk
from capwasm.engine.abi import known_interfaces
from capwasm.engine.link import match_imports
from capwasm.engine.types import ComponentTypes
from capwasm.errors import Fault
from capwasm.events import NullRecorder
from capwasm.grants.manifest import Manifest
from capwasm.review.finding import Finding, Severity
from capwasm.serving import Serving, Terms
from capwasm.wasi import DECLARED, NEEDS, unserved_reason

from .model import Context, NotLooked, Rule, Scanner
from .subject import Subject
from .witworld import world_exports

__all__ = ["SCANNERS", "import_faults", "unused"]

CODE: Final = "plugin.wasm"
# Interfaces that hosts of WASI call, and the room in which componentize-py starts Python.
_ENTRIES: Final = frozenset({"wasi:cli/run", "wasi:http/incoming-handler", "exports"})
# A request of wasi:http may name a secret that the host is to put in.
_ALSO: Final = {"secret": {"wasi:http/outgoing-handler"}}

UNREADABLE: Final = Rule(
    "component.unreadable",
    Severity.HIGH,
    "What the component imports and exports can't be read, so it can't be held against its manifest.",
    "Build it with the toolchain of one of the guest SDKs.",
)
UNDECLARED: Final = Rule(
    "imports.undeclared",
    Severity.HIGH,
    "The component imports a capability that its manifest does not declare; it can't be loaded.",
    "Declare the table in plugin.toml, or do not import the interface.",
)
UNSERVED: Final = Rule(
    "imports.unserved",
    Severity.HIGH,
    "The component imports what this runtime does not offer; it can't be loaded.",
    "Build it against the WIT of this runtime.",
)
POWERLESS: Final = Rule(
    "imports.powerless",
    Severity.NOTE,
    "The component imports interfaces of WASI for which its manifest asks no power: each call fails.",
    "Declare the table if the plugin needs it.",
)
UNUSED: Final = Rule(
    "imports.unused",
    Severity.LOW,
    "The manifest asks for a capability that the component never imports.",
    "Take the table out of plugin.toml.",
)
NOTHING: Final = Rule(
    "exports.none",
    Severity.MEDIUM,
    "The component exports no function, so there is nothing that a core could call.",
    "Export an interface with at least one function.",
)
MISSING: Final = Rule(
    "exports.missing",
    Severity.MEDIUM,
    "The component does not export what the world of its manifest says.",
    "Build it for the world that plugin.toml names, or name the one that it was built for.",
)
OUTSIDE: Final = Rule(
    "exports.outside",
    Severity.MEDIUM,
    "The component exports what the world of its manifest does not say.",
    "Name the world that it was built for, and put its WIT in wit/.",
)
UNSEEN: Final = Rule(
    "exports.unseen-world",
    Severity.NOTE,
    "The capsule does not hold the WIT of its world, so its exports can't be held against it.",
    "Put the WIT in wit/: capwasm build does.",
)
HOSTS: Final = Rule(
    "exports.host-interface",
    Severity.MEDIUM,
    "The component exports an interface that is the host's to offer.",
    "Give the interface a package name of your own.",
)


def import_faults(
    types: ComponentTypes, manifest: Manifest, capabilities: Sequence[Capability[Any, Any]]
) -> list[Fault]:
    """What a load would refuse of the imports, with all that is declared, and nothing granted.

    A fault's `fix` is the table that is not declared.
    """
    owners = {i.partition("@")[0]: c.name for c in capabilities for i in c.interfaces} | DECLARED
    # With nothing granted nothing is opened, and nothing kept anywhere.
    serving = Serving(
        Terms(
            tuple(capabilities),
            manifest,
            {},
            manifest.limits,
            manifest.id,
            NullRecorder(),
            Path("/"),
        )
    )
    try:
        served = serving.everything()
    finally:
        serving.close()
    return match_imports(types, served, owners=owners, unserved=unserved_reason)[1]


def unused(
    manifest: Manifest, capabilities: Sequence[Capability[Any, Any]], imports: Collection[str]
) -> Iterator[str]:
    """The capabilities that are declared and not imported, in their own words or in those of WASI.

    The log is left out: the runtime itself may write a plugin's last words there.
    """
    bare = {i.partition("@")[0] for i in imports}
    for capability in capabilities:
        name = capability.name
        wasi = {i for i, table in NEEDS.items() if table == name}
        ours = {i.partition("@")[0] for i in capability.interfaces} | _ALSO.get(name, set())
        if name in manifest.requests and name != "log" and not bare & (ours | wasi):
            yield name


def _world(subject: Subject, _context: Context) -> Iterator[Finding]:
    types, manifest = subject.types, subject.manifest
    if types is None:
        yield UNREADABLE.at(CODE, subject.types_fault)
        return
    if manifest is None:
        raise NotLooked("the manifest can't be read, which is a finding of its own")
    yield from _imports(subject, manifest, types)
    yield from _exports(subject, manifest, types)


def _imports(subject: Subject, manifest: Manifest, types: ComponentTypes) -> Iterator[Finding]:
    known = subject.capabilities
    for fault in import_faults(types, manifest, known):
        if fault.fix is None:
            yield UNSERVED.at(f"{CODE}:{fault.path}", fault.message)
        else:
            yield UNDECLARED.at(f"{CODE}:{fault.path}", f"no table [{fault.fix}]")
    names = [i.name for i in types.imports]
    tables = {i: NEEDS.get(i.partition("@")[0]) for i in names}
    idle = [i for i, table in tables.items() if table and table not in manifest.requests]
    if idle:
        yield POWERLESS.at(CODE, ", ".join(sorted(i.partition("@")[0] for i in idle)))
    for name in unused(manifest, known, names):
        asked = [(a, c, r) for a, c, r in subject.permissions(name)]
        grave = any(risk is Risk.HIGH for _, _, risk in asked)
        for where, clause, _ in asked[:1]:
            yield UNUSED.at(
                f"plugin.toml:{where.path}",
                clause.describe(),
                severity=Severity.MEDIUM if grave else None,
            )


def _exports(subject: Subject, manifest: Manifest, types: ComponentTypes) -> Iterator[Finding]:
    found = {
        i.name.partition("@")[0] for i in types.exports if i.name and (i.functions or i.resources)
    } | {name for i in types.exports if not i.name for name, _ in i.functions}
    if not any(i.functions for i in types.exports if i.name != "exports"):
        yield NOTHING.at(CODE)
    hosts = found & set(known_interfaces())
    for name in sorted(hosts):
        yield HOSTS.at(CODE, name)
    declared = world_exports(manifest.plugin.world, subject.members)
    if declared is None:
        if manifest.plugin.world is not None:
            yield UNSEEN.at(CODE, manifest.plugin.world)
        return
    for name in sorted(declared - found):
        yield MISSING.at(CODE, f"{manifest.plugin.world}: export {name}")
    for name in sorted(found - declared - hosts - _ENTRIES):
        yield OUTSIDE.at(CODE, name)


SCANNERS: Final = (
    Scanner(
        "world",
        _world,
        (
            UNREADABLE,
            UNDECLARED,
            UNSERVED,
            POWERLESS,
            UNUSED,
            NOTHING,
            MISSING,
            OUTSIDE,
            UNSEEN,
            HOSTS,
        ),
        kinds=frozenset({"component"}),
        seconds=60.0,
    ),
)
