"""From proven bytes to a plugin that runs: declared, granted, recorded, linked, started.

All loads of a runtime go this one way, whatever proves the bytes: a signature, or, for a file
without a manifest, a policy that lists their digest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from capwasm_shim.layers import Layer

from .capability import Capability, Grant
from .capsule.legacy import LegacyFile, Proven
from .capsule.target import library_of
from .capsule.trust import utc_now
from .engine.compile import Compiler
from .engine.engine import PluginEngine
from .engine.link import Linked, link
from .errors import CapwasmError, GuestError
from .events import ALLOWED, DENIED, Event, Recorder, record_all
from .grants.consent import Subject, consent_for
from .grants.consent_store import ConsentStore
from .grants.isolation import Place
from .grants.manifest import Manifest, parse_manifest
from .grants.policy import Policy
from .grants.resolve import Grants, resolve
from .home import make_private
from .instance import Instance, Served
from .isolation.server import ShimServer
from .lifecycle import Overseer
from .limits import CEILING, Limits
from .opener import Opener
from .plugin import Plugin
from .review.rules import Matter
from .revocation.guard import subject_of
from .revocation.index import Subject as Revocable
from .serving import Serving, Terms
from .strict import StrictRoom, strict_grants
from .threads import Workers
from .wasi import DECLARED, unserved_reason

if TYPE_CHECKING:
    from .isolation.apart import Apart

__all__ = ["AtMost", "Loader"]


@dataclass(frozen=True, slots=True)
class AtMost:
    """What a core wants of one load, on top of all that policy says.  It can only take away.

    Attributes:
        limits: the upper bounds.
        isolation: `process` for a process of its own.

    Raises:
        ValueError: `isolation` is no such word; a wish for more must not get lost in a slip.
    """

    limits: Limits = CEILING
    isolation: Place = "in-process"

    def __post_init__(self) -> None:
        """Refuse what would be taken for no wish."""
        if self.isolation not in get_args(Place):
            raise ValueError(f"isolation must be one of {', '.join(get_args(Place))}")

    def of(self, grants: Grants) -> Grants:
        """The grants that are left."""
        lowered = grants.lowered(self.limits)
        return lowered.apart("the core") if self.isolation == "process" else lowered


@dataclass(frozen=True)
class Loader:
    """Loads the plugins of one runtime.

    Attributes:
        home: the runtime's directory.
        shim: starts processes.
        room: what files without a manifest get.
        on_close: told when a plugin ends.
        serve: makes the served side of an instance of a component.
        trace: see `Opener`.
    """

    engine: PluginEngine
    compiler: Compiler
    workers: Workers
    overseer: Overseer
    policy: Policy
    consents: ConsentStore | None
    capabilities: tuple[Capability[Any, Any], ...]
    core_version: str
    recorder: Recorder
    home: Path
    shim: ShimServer
    room: StrictRoom
    on_close: Callable[[Plugin], None]
    serve: Callable[[Terms], Served] = Serving
    trace: Callable[[Instance], None] | None = None

    def load(self, prove: Callable[[], Proven], name: str, at_most: AtMost) -> Plugin:
        """Load and start a plugin.

        Args:
            prove: makes the proven bytes; what it raises is the load's refusal.
            name: what it is called as long as nothing is proven; may be empty.
            at_most: what the core wants.

        Raises:
            CapwasmError: every refusal, and each is on record; see `Runtime.load`.
        """
        try:
            self.overseer.start()
            self.policy.governance(utc_now().date()).check()
            proven = prove()
            name = f"{proven.id}@{proven.version}"
            subject = subject_of(proven)
            self.overseer.admit(subject)
            manifest, granted = self._granted(proven, name)
            grants = at_most.of(granted)
            matter = self._matter(proven, manifest)
            self._admit(subject, grants, matter)
            self.record_load(proven, grants, name)
            return self._start(proven, manifest, grants, name, matter)
        except CapwasmError as exc:
            self.recorder.record(
                Event(
                    "load",
                    DENIED,
                    plugin=name,
                    action="load",
                    reason=exc.code,
                    target=exc.message[:300],
                    details={"faults": [f"{f.path}: {f.message}" for f in exc.faults[:20]]},
                )
            )
            raise

    def _granted(self, proven: Proven, name: str) -> tuple[Manifest, Grants]:
        if isinstance(proven, LegacyFile):
            return strict_grants(proven, self.policy, self.capabilities, core=self.core_version)
        manifest = parse_manifest(proven.manifest_bytes, self.capabilities, context=name)
        proven.check_identity(manifest.id, manifest.version, manifest.plugin.kind)
        # Native code has a file for each target: the consent is to all of them.
        digest = proven.code_digest if proven.kind == "component" else proven.digest
        subject = Subject.of(manifest, digest)
        consent = self.consents.find(subject) if self.consents else consent_for(subject)
        return manifest, resolve(
            manifest, self.policy, consent, self.capabilities, core=self.core_version
        )

    def record_load(self, proven: Proven, grants: Grants, name: str) -> None:
        """Record that it is loaded, and each of its grants, before anything of it runs."""
        if isinstance(proven, LegacyFile):
            details: dict[str, Any] = {"legacy": True, "kind": proven.kind, "file": proven.name}
        else:
            details = {"signers": [f"{s.name} {s.key_id}" for s in proven.signers]}
        if grants.isolation.process:
            details["process"] = list(grants.isolation.by)
        load = Event("load", ALLOWED, name, "load", proven.digest, details=details)
        given = [
            Event("grant", ALLOWED, name, capability, granted.clause.describe())
            for capability, grant in grants.by_capability.items()
            for granted in grant.allow
        ]
        record_all(self.recorder, [load, *given])

    def _admit(self, subject: Revocable, grants: Grants, matter: Matter | None) -> None:
        """Pass if no feed denies it, and all that must be said of it counts now."""
        self.overseer.admit(subject, grants)
        if matter is not None:
            self.overseer.lapses.admit(matter)

    def _matter(self, proven: Proven, manifest: Manifest) -> Matter | None:
        """What a review is about; a file without a manifest is let by, by its digest, by policy."""
        if isinstance(proven, LegacyFile):
            return None
        return self.overseer.lapses.matter(proven, manifest)

    def _start(
        self,
        proven: Proven,
        manifest: Manifest,
        grants: Grants,
        name: str,
        matter: Matter | None,
    ) -> Plugin:
        terms = self._terms(proven, manifest, grants, name)
        code = self._code(proven, grants, terms)
        opener = Opener(self.engine, code, terms, grants, self.serve, self.trace)
        subject = subject_of(proven)

        def enter(plugin: Plugin) -> None:
            self.overseer.enter(plugin, subject, matter)
            self._admit(subject, grants, matter)  # a feed may have come meanwhile

        try:
            plugin = Plugin(
                proven,
                opener,
                workers=self.workers,
                on_close=self.on_close,
                on_open=enter,
            )
        except GuestError:
            self._admit(subject, grants, matter)  # if it was stopped, that is why
            raise
        if not plugin.alive:
            self._admit(subject, grants, matter)
        if not isinstance(opener.code, Linked):
            self._record_layers(plugin, opener.code)
        return plugin

    def _record_layers(self, plugin: Plugin, apart: Apart) -> None:
        """Record what its sandbox lacks: policy let it start all the same (NAT-13)."""
        for process in apart.supervisor.processes[:1]:
            missing = [str(layer) for layer in Layer if layer not in process.layers]
            event = Event("instance", ALLOWED, plugin.name, "sandbox", details={"missing": missing})
            try:
                self.recorder.record(event)
            except BaseException:
                plugin.close()
                raise

    def _code(self, proven: Proven, grants: Grants, terms: Terms) -> Linked | Apart:
        """What is to run, and where."""
        isolation = grants.isolation
        if isolation.process or proven.kind == "native":
            # Not at start-up: most cores have no plugin in a process of its own.
            from .isolation.apart import component_apart, native_apart
        # Everything is opened once here, so that a load fails where a call would.
        with contextlib.closing(Serving(terms)) as serving:
            if proven.kind == "native":
                return native_apart(
                    self.shim, library_of(proven), serving.everything(), terms, isolation
                )
            component = self.compiler.compile(
                proven.code,
                sha256=proven.code_digest,
                value_bytes=grants.limits.value_bytes,
                keep=isolation.process,
            )
            linked = link(
                self.engine,
                component,
                serving.everything,
                owners=_owners(self.capabilities),
                unserved=unserved_reason,
            )
        if not isolation.process:
            return linked
        ready = self.engine.capacity.ready if terms.manifest.plugin.instance == "per-call" else 0
        return component_apart(self.shim, linked, terms, isolation, serve=self.serve, ready=ready)

    def _terms(self, proven: Proven, manifest: Manifest, grants: Grants, name: str) -> Terms:
        granted: Mapping[str, Grant[Any]] = grants.by_capability
        if isinstance(proven, LegacyFile):
            granted, data_dir = {**granted, **self.room.given()}, self.room.data
        else:
            data_dir = self._data_dir(manifest.id)
        return Terms(
            capabilities=self.capabilities,
            manifest=manifest,
            granted=granted,
            limits=grants.limits,
            name=name,
            recorder=self.recorder,
            data_dir=data_dir,
        )

    def _data_dir(self, plugin_id: str) -> Path:
        # The id is made of lower-case labels and dots alone (MAN-09), so it is one path component.
        path = self.home / "data" / plugin_id
        make_private(path.parent)
        make_private(path)
        return path


def _owners(capabilities: Sequence[Capability[Any, Any]]) -> dict[str, str]:
    """For each interface of ours, without its version, the table that asks for it."""
    tables = {c.name: f"[[{c.name}]]" if c.repeated else f"[{c.name}]" for c in capabilities}
    own = {i.partition("@")[0]: tables[c.name] for c in capabilities for i in c.interfaces}
    return own | {i: tables[name] for i, name in DECLARED.items() if name in tables}
