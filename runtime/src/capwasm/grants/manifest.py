"""Stage 3: verified bytes of `plugin.toml` become a `Manifest`: what a plugin is, and what it asks.

A manifest grants nothing.  It is parsed once, whole, and strictly: an unknown word is a fault, and
all faults are told at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, final

from pydantic import AfterValidator, Field

from capwasm._model import Model, parse_toml, validate
from capwasm._stage import Proof
from capwasm.capsule.identity import LEGACY, Identity, Kind, PluginId, Version
from capwasm.capsule.members import COMPONENT
from capwasm.errors import Fault, ManifestError
from capwasm.lattice import Clause, ClauseSet
from capwasm.limits import DEFAULTS, Limits

from ._document import (
    AnyCapability,
    join,
    parse_limits,
    parse_tables,
    plain_faults,
    table_of,
    text_fault,
    told,
    unknown_words,
)
from .isolation import Place
from .semver import VersionRange

__all__ = [
    "SCHEMA",
    "Asked",
    "Instancing",
    "Manifest",
    "Plugin",
    "Request",
    "parse_manifest",
    "strict_manifest",
]

SCHEMA: Final = 1
MAX_WHY: Final = 200

# per-call: a fresh store for each call.  pooled: the plugin says that it keeps nothing between
# calls, so warm instances are used again.  single: one instance keeps state, one call at a time.
Instancing = Literal["per-call", "pooled", "single"]


def _one_line(text: str) -> str:
    if (fault := text_fault(text)) is not None:
        raise ValueError(fault)
    if text != text.strip():
        raise ValueError("begins or ends with a space")
    return text


def _range(text: str) -> str:
    VersionRange.parse(text)
    return text


class Plugin(Model):
    """The `[plugin]` table: who the plugin is and how it runs."""

    id: Annotated[PluginId, Field(description="Two or more labels, such as acme.weather.")]
    name: Annotated[
        str,
        Field(min_length=1, max_length=80, description="The name that people see."),
        AfterValidator(_one_line),
    ]
    version: Annotated[Version, Field(description="SemVer 2.0.0.")]
    author: Annotated[
        str, Field(max_length=200, description="Who made it."), AfterValidator(_one_line)
    ] = ""
    description: Annotated[
        str, Field(max_length=500, description="What it does, in one line."),
        AfterValidator(_one_line),
    ] = ""  # fmt: skip
    license: Annotated[
        str, Field(max_length=100, description="An SPDX expression."), AfterValidator(_one_line)
    ] = ""
    needs_license: Annotated[
        bool, Field(description="Whether the core must hold a licence for it before it runs.")
    ] = False
    requires_core: Annotated[
        str,
        Field(description="Versions of the core that it works with, such as >=0.3,<1."),
        AfterValidator(_range),
    ]
    kind: Annotated[Kind, Field(description="A component, or legacy native code.")]
    entry: Annotated[
        str | None,
        Field(description=f"The file with the code: {COMPONENT}.  Native code names none."),
    ] = None
    world: Annotated[
        str | None,
        Field(
            max_length=160,
            pattern=r"^[a-z][a-z0-9-]*:[a-z][a-z0-9-]*/[a-z][a-z0-9-]*(@[0-9A-Za-z.+-]+)?$",
            description="The WIT world that it was built for, such as capwasm:plugin/plugin@0.1.0.",
        ),
    ] = None
    instance: Annotated[
        Instancing,
        Field(description="A fresh instance for each call, warm ones used again, or just one."),
    ] = "per-call"
    isolation: Annotated[
        Place,
        Field(description="Where its code runs; native code always in a process of its own."),
    ] = "in-process"

    @property
    def identity(self) -> Identity:
        """Id, version and kind."""
        return Identity(self.id, self.version, self.kind)


@dataclass(frozen=True, slots=True)
class Asked:
    """One table of a capability.

    Attributes:
        path: where it stands in the manifest: `net[0]`.
        clauses: what it asks.
        optional: the plugin can do without it, so it may be narrowed without a denial.
        why: the plugin's own words to the reviewer: never more than its claim.
    """

    path: str
    clauses: tuple[Clause, ...]
    optional: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """All that a plugin asks of one capability."""

    asked: tuple[Asked, ...]
    clauses: ClauseSet[Any]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Manifest(Proof):
    """What a plugin is and asks.  Made by `parse_manifest`, or `strict_manifest` where none is.

    Attributes:
        plugin: the `[plugin]` table.
        requests: by capability, in the order of the capabilities; only those that it asks for.
        limits: what it asks, with the default for each that it leaves out.
        named_limits: the limits that it does name, as written.
        digest: SHA-256 of the bytes that it was parsed from, in hex.
        legacy: SHA-256 of the file that it stands for, in hex; empty for one that was parsed.
    """

    plugin: Plugin
    requests: Mapping[str, Request]
    limits: Limits
    named_limits: frozenset[str]
    digest: str = field(repr=False)
    legacy: str = ""

    @property
    def id(self) -> str:
        """The plugin's id."""
        return self.plugin.id

    @property
    def version(self) -> str:
        """The plugin's version."""
        return self.plugin.version

    @property
    def identity(self) -> Identity:
        """Id, version and kind."""
        return self.plugin.identity

    @property
    def requires_core(self) -> VersionRange:
        """The versions of the core that it works with."""
        return VersionRange.parse(self.plugin.requires_core)


def parse_manifest(
    data: bytes, capabilities: Sequence[AnyCapability], *, context: str = "plugin.toml"
) -> Manifest:
    """Make a manifest of the bytes of a `plugin.toml`.

    The caller has these bytes from a `VerifiedArtifact`, and MUST pass the result's identity to
    its `check_identity`; a tool that only shows a draft need not.

    Args:
        data: the file, whole.
        capabilities: those that there are; a table of any other is an unknown word.
        context: what errors call the file.

    Raises:
        ManifestError: `manifest.toml` for text that is no TOML or is an attack on its parser,
            `manifest.schema` for one of the future, else `manifest.invalid` with all faults.
    """
    doc = parse_toml(data, ManifestError, code="manifest.toml", context=context)
    _refuse_newer(doc.get("schema"), context)
    faults = plain_faults(doc)
    if faults:  # Nothing below may meet such a value.
        raise _invalid(faults, context)
    if type(doc.get("schema")) is not int or doc["schema"] != SCHEMA:
        faults.append(Fault("schema", f"write schema = {SCHEMA} as the first line"))
    names = [c.name for c in capabilities]
    faults += unknown_words(doc, ["schema", "plugin", "limits", *names], "")
    plugin = _plugin(doc, faults)
    requests = {}
    for capability in capabilities:
        if capability.name in doc:
            request = _request(capability, doc[capability.name], faults)
            if request.clauses:
                requests[capability.name] = request
    named = table_of(doc, "limits", "", faults)
    limits = parse_limits(named, "limits", DEFAULTS, faults)
    if faults or plugin is None:
        raise _invalid(faults, context)
    return Manifest.made(
        plugin=plugin,
        requests=MappingProxyType(requests),
        limits=limits,
        named_limits=frozenset(named),
        digest=hashlib.sha256(data).hexdigest(),
    )


def strict_manifest(
    identity: Identity, sha256: str, limits: Limits, capabilities: Sequence[AnyCapability]
) -> Manifest:
    """The manifest of a file that has none: it asks for nothing.

    It declares every capability all the same, so that whatever the file imports is there, and
    refuses.  A policy that lists the digest is all that lets it run.

    Args:
        identity: what it is called.
        sha256: of the file, in hex.
        limits: under which it runs.
        capabilities: those that there are.
    """
    about = {
        "id": identity.id,
        "name": "A file without a manifest",
        "version": identity.version,
        "requires-core": ">=0",
        "kind": identity.kind,
        "isolation": "process",
    }
    nothing = Request((), ClauseSet.of())
    return Manifest.made(
        plugin=validate(Plugin, about, ManifestError),
        requests=MappingProxyType({c.name: nothing for c in capabilities}),
        limits=limits,
        named_limits=frozenset(),
        digest=sha256,
        legacy=sha256,
    )


def _invalid(faults: Sequence[Fault], context: str) -> ManifestError:
    message, shown = told(faults)
    return ManifestError(message, context=context, faults=shown)


def _refuse_newer(schema: object, context: str) -> None:
    if isinstance(schema, int) and SCHEMA < schema < 2**63:
        raise ManifestError(
            f"schema {schema}; this runtime knows up to {SCHEMA}: update the runtime",
            code="manifest.schema",
            context=context,
        )


def _plugin(doc: Mapping[str, Any], faults: list[Fault]) -> Plugin | None:
    if "plugin" not in doc:
        faults.append(Fault("plugin", "missing: a [plugin] table says who the plugin is"))
        return None
    table = table_of(doc, "plugin", "", faults)
    try:
        plugin = validate(Plugin, table, ManifestError)
    except ManifestError as exc:
        faults += [
            Fault(join("plugin", f.path) if f.path else "plugin", f.message) for f in exc.faults
        ]
        return None
    # The capsule holds its code under one name; a manifest that could point elsewhere is FS-26.
    expected = COMPONENT if plugin.kind == "component" else None
    if plugin.entry not in (None, expected):
        only = (
            f"only {COMPONENT} is" if expected else "native code has one file a target: nothing is"
        )
        faults.append(Fault("plugin.entry", f"{only} valid here"))
    if plugin.id.startswith(LEGACY):
        faults.append(Fault("plugin.id", "the name of a file without a manifest"))
    if plugin.kind == "native" and table.get("isolation") == "in-process":
        faults.append(Fault("plugin.isolation", "native code runs in a process of its own"))
    return plugin


def _request(capability: AnyCapability, value: Any, faults: list[Fault]) -> Request:
    """One capability's tables, less the two words that belong to every table."""
    name = capability.name
    rows = value if isinstance(value, list) else [value]
    notes: list[tuple[bool, str]] = []
    for index, row in enumerate(rows):
        place = f"{name}[{index}]" if isinstance(value, list) else name
        notes.append(_note(row, place, faults) if isinstance(row, dict) else (False, ""))
    bare = [
        {k: v for k, v in r.items() if k not in _NOTES} if isinstance(r, dict) else r for r in rows
    ]
    tables = parse_tables(
        capability, bare if isinstance(value, list) else bare[0], "manifest", name, faults
    )
    asked = tuple(
        Asked(table.path, table.clauses, optional, why)
        for table, (optional, why) in zip(tables, notes, strict=False)
    )
    return Request(asked, ClauseSet.of(c for a in asked for c in a.clauses))


_NOTES: Final = frozenset({"optional", "why"})


def _note(row: Mapping[str, Any], place: str, faults: list[Fault]) -> tuple[bool, str]:
    optional, why = row.get("optional", False), row.get("why", "")
    if not isinstance(optional, bool):
        faults.append(Fault(f"{place}.optional", "must be true or false"))
    if not isinstance(why, str) or len(why) > MAX_WHY:
        faults.append(Fault(f"{place}.why", f"must be text of at most {MAX_WHY} characters"))
    return optional is True, why if isinstance(why, str) else ""
