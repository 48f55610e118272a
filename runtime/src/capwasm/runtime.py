"""The runtime: the one place where trust, policy, consent, capabilities and the engine are wired.

`load` walks the way of the data once, and nothing on it can be skipped, since each stage takes the
type that only the stage before can make::

    bytes → Artifact → VerifiedArtifact → Manifest (+ Policy + Consent) → Grants → Plugin
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .call import call_under_way
from .capability import Capability
from .caps import standard_capabilities
from .capsule.artifact import read_artifact
from .capsule.legacy import Proven, recognise
from .capsule.trust import TrustStore, utc_now
from .capsule.verify import VerifiedArtifact, verify
from .engine.advisories import reachable_line
from .engine.compile import CompileLimits, Compiler, Compiling
from .engine.engine import PluginEngine
from .engine.pool import Capacity
from .errors import CapabilityError, RegistryError
from .events import ALLOWED, DENIED, Event, Recorder
from .grants.consent_store import ConsentStore
from .grants.isolation import Place
from .grants.policy import Policy
from .home import Home, make_private
from .instance import Instance, Served
from .isolation.commands import Commands
from .isolation.server import ShimServer
from .lifecycle import Lifecycle, Overseer
from .limits import CEILING, Limits
from .loading import AtMost, Loader
from .monitor.lapse import Lapses
from .plugin import Plugin
from .record.audit import AuditLog  # noqa: F401 - with this module, not at the first `open`
from .record.logs import get_logger
from .record.metrics import Metrics
from .record.redact import Redactor
from .registry.shelf import Shelf
from .revocation.guard import Guard
from .serving import Serving, Terms
from .strict import StrictRoom
from .threads import Workers

if TYPE_CHECKING:  # an extra, and only for who uses it
    from opentelemetry.trace import TracerProvider

__all__ = ["Runtime"]


class Runtime:
    """Loads plugins and runs them.  Safe from many threads; a context manager that closes it.

    Everything is denied by default: without a trust store no capsule is verified, without a policy
    nothing is allowed, and without a consent nothing is granted.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        trust: TrustStore,
        recorder: Recorder,
        home: str | PathLike[str],
        core_version: str,
        capabilities: Sequence[Capability[Any, Any]],
        consents: ConsentStore | None = None,
        registry: Shelf | None = None,
        revocations: Guard | None = None,
        compile_limits: CompileLimits | None = None,
        on_slow: Callable[[str], None] | None = None,
        on_compile: Callable[[Compiling], None] | None = None,
        workers: int = 256,
        capacity: Capacity | None = None,
        lane: bool = True,
        shim: ShimServer | None = None,
        owned: contextlib.ExitStack | None = None,
        trace: Callable[[Instance], None] | None = None,
    ) -> None:
        """Wire a runtime.  Most cores want `Runtime.open`.

        Args:
            policy: what the operator allows, parsed with the same `capabilities`.
            trust: whose signatures count.
            recorder: takes every event; see `audit`.  There is no default, on purpose.
            home: the runtime's own directory, for compiled code and plugins' stores (0700).
            core_version: the version of the application, which a manifest's `requires-core` names.
            capabilities: those that plugins may be granted, in the order in which they open.
            consents: where consents are kept; none: only what policy consents to by itself.
            registry: what is installed, and which versions may no longer be loaded.
            revocations: what the revocation feed denies; what it keeps is watched from the first
                load on.
            compile_limits: see there.
            on_slow: told one line when something will take seconds (compiling a large plugin).
            on_compile: told how far it is with a compilation that takes long; see `Compiler`.
            workers: threads at most for `acall`, and where a caller's stack is too small for a guest;
                each plugin takes up to its `limits.concurrency` of them, started when needed.
            capacity: how many instances there may be, and whether room for them is set aside.
            lane: whether plugins get the bulk lane, on which lists cross at the speed of memory;
                without it they are compiled as they came, and all else is the same.
            shim: starts processes, and is closed with this; one of its own, if not given.
            owned: closed last, when the closing of the plugins has been recorded; also if this
                fails.
            trace: is given each instance before it runs; see `monitor.traces`.

        Raises:
            CapabilityError: `home` can't be made, or is not this user's own.
            AuditError: the start can't be recorded.
        """
        self._home = Path(home).absolute()
        self.policy = policy
        self.trust = trust
        self.recorder = recorder
        self.consents = consents
        self.registry = registry
        self.core_version = core_version
        self.capabilities = tuple(capabilities)
        self._shim = shim or ShimServer()  # starts at the first need
        self._closers = owned or contextlib.ExitStack()
        lapses = Lapses(registry, policy.review, self.capabilities)
        self._overseer = Overseer(
            revocations, registry, recorder, self._home, policy.strikes, lapses
        )
        # Re-entrant, for a signal handler may close the runtime.
        self._lock = threading.RLock()
        self._trace = trace
        self._plugins: list[Plugin] = []
        self._closed = False
        with contextlib.ExitStack() as undo:
            undo.callback(self._closers.close)
            self._start_up(workers, capacity, compile_limits, on_slow, on_compile, lane=lane)
            undo.pop_all()

    def _start_up(
        self,
        workers: int,
        capacity: Capacity | None,
        compile_limits: CompileLimits | None,
        on_slow: Callable[[str], None] | None,
        on_compile: Callable[[Compiling], None] | None,
        *,
        lane: bool,
    ) -> None:
        make_private(self._home)
        due = self.policy.governance(utc_now().date())
        for line in (reachable_line(), due.line()):
            if line is not None:
                get_logger(Redactor()).warning(line)
        self._engine = PluginEngine(capacity)
        if self._engine.why_not_pooled and (capacity is None or capacity.pooled):
            get_logger(Redactor()).warning(f"no pool of instances: {self._engine.why_not_pooled}")
        self._closers.callback(self._engine.close)
        self._closers.callback(self._shim.close)
        self._compiler = Compiler(
            self._engine, self._home / "cache", compile_limits, on_slow, on_compile, lane=lane
        )
        self._workers = Workers(workers)
        self._closers.callback(self._workers.close)
        self._closers.callback(self._overseer.close)
        self._room = StrictRoom()
        self._closers.callback(self._room.close)
        self._record(
            "runtime.start",
            ALLOWED,
            details={
                "policy": self.policy.digest,
                "keys": len(self.trust.keys),
                "core": self.core_version,
                "governance": due.to_dict(),
            },
        )

    @classmethod
    def open(
        cls,
        home: str | PathLike[str],
        *,
        core_version: str,
        capacity: Capacity | None = None,
        compile_limits: CompileLimits | None = None,
        on_slow: Callable[[str], None] | None = None,
        on_compile: Callable[[Compiling], None] | None = None,
        lane: bool = True,
        metrics: Metrics | None = None,
        hook: Callable[[Event], None] | None = None,
        tracer_provider: TracerProvider | None = None,
        **options: Any,
    ) -> Self:
        """A runtime on a home directory: policy, trust, consents, vault, audit log.

        Args:
            home: holds `policy.toml`, `trust.toml` (or `trust/`), `consents/`, `vault/`, `audit/`;
                what is missing there is missing, and so denied.
            core_version: the version of the application that embeds the runtime.
            capacity: how many instances there may be at a time; see there.
            compile_limits: of each compilation, and of the cache.
            on_slow: told one line when something will take seconds.
            on_compile: told how far it is with a compilation that takes long; see `Compiler`.
            lane: whether plugins get the bulk lane for lists.
            metrics: counts every event; see `metrics.Metrics`.
            hook: given every event once it is recorded; quick; see `Recorders` for the thread.
            tracer_provider: OpenTelemetry's; each call is a span then, with its capability calls.
            options: for `standard_capabilities`: `resolver`, `tls_ca_file`, …

        Raises:
            PolicyError: the policy or the trust store is malformed, with all faults.
            CapabilityError: `home` can't be made, or is not this user's own; the vault can't be
                opened.
            AuditError: the audit log can't be written, or does not verify.
        """
        with contextlib.ExitStack() as stack:
            place = Home(Path(home))
            make_private(place.root)
            redactor = Redactor()
            shim = ShimServer()
            commands = Commands(shim)
            capabilities = standard_capabilities(
                vault=place.vault(),
                redactor=redactor,
                protected=place.protected(),
                spawner=commands,
                **options,
            )
            policy = place.policy(capabilities)
            commands.required = policy.isolation.required
            trust = place.trust()
            recorder = stack.enter_context(place.recorder(redactor, metrics, hook, policy.audit))
            trace = None
            if tracer_provider is not None:
                from .monitor.traces import Traces

                traces = Traces(tracer_provider, redactor)
                recorder.listen(traces.observe)
                trace = traces.attach
            guard = place.guard(recorder, trust=trust, policy=policy, capabilities=capabilities)
            runtime = cls(
                policy=policy,
                trust=trust,
                recorder=recorder,
                home=place.root,
                core_version=core_version,
                capabilities=capabilities,
                consents=ConsentStore(place.consents, recorder=recorder),
                registry=stack.enter_context(
                    place.registry(
                        recorder,
                        trust=trust,
                        policy=policy,
                        capabilities=capabilities,
                        guard=guard,
                    )
                ),
                revocations=guard,
                capacity=capacity,
                compile_limits=compile_limits,
                on_slow=on_slow,
                on_compile=on_compile,
                lane=lane,
                shim=shim,
                trace=trace,
                owned=stack.pop_all(),
            )
            if metrics is not None:
                runtime._tell_now(metrics)
            return runtime

    def _tell_now(self, metrics: Metrics) -> None:
        """Have these metrics tell of what there is now, as long as this is open."""
        from .monitor.gauges import Gauges

        gauges = Gauges(
            lambda: self.plugins,
            self._engine,
            self._compiler,
            self.registry,
            self._overseer.strikes,
        )
        self._closers.callback(gauges.join(metrics))

    # -- loading --------------------------------------------------------------------------------

    def verify(self, source: str | PathLike[str] | bytes) -> VerifiedArtifact:
        """Read a capsule, and a Sigstore bundle beside it, once and prove it; see `verify.verify`.

        Raises:
            ArtifactError, VerificationError: as a load would.
        """
        artifact = read_artifact(source, beside=True)
        return verify(artifact, self.trust, requirement=self.policy.requirement)

    def load(
        self,
        source: str | PathLike[str] | bytes,
        *,
        at_most: Limits = CEILING,
        isolation: Place = "in-process",
    ) -> Plugin:
        """Verify, grant, compile, link and start a plugin.

        What the registry knows of the plugin counts too: its owner, and the versions that may no
        longer run.

        Args:
            source: the path of a `.capsule`, or its bytes.
            at_most: limits that this core sets on top; they can only lower what is granted.
            isolation: `process` for a process of its own, also where policy does not want one.

        Raises:
            ArtifactError, VerificationError: not what a trusted key signed, or older than what was
                accepted, or revoked.
            RevocationError: the revocation feed is older than policy allows, or can't be believed.
            RegistryError: the plugin is suspended or another's, or the registry can't be believed.
            ManifestError: its declaration is malformed.
            GrantDeniedError: it asks for more than is allowed; every missing permission with the
                line that would allow it.
            LinkError: it imports what it does not declare.
            GuestError: its start failed.
            AuditError: the load can't be recorded, and so does not happen.
            ValueError: `isolation` is none of its words.
        """

        def prove() -> VerifiedArtifact:
            artifact = self.verify(source)
            if self.registry is not None:
                self.registry.admit(artifact)
            return artifact

        return self._load(prove, "", AtMost(at_most, isolation))

    def load_installed(
        self, plugin_id: str, *, at_most: Limits = CEILING, isolation: Place = "in-process"
    ) -> Plugin:
        """Load the version of an installed plugin that serves.

        Its capsule is taken from the store by its digest and verified again, as any other; nothing
        is believed because it was installed.

        Args:
            plugin_id: as signed.
            at_most: as for `load`.
            isolation: as for `load`.

        Raises:
            RegistryError: `registry.unknown`, `registry.pending`, `registry.state`; the capsule or
                the registry is not what it was.
            The others as for `load`.
        """

        def prove() -> VerifiedArtifact:
            if self.registry is None:
                raise RegistryError("this runtime has no registry", code="registry.unknown")
            artifact, record = self.registry.serving(plugin_id)
            self._overseer.try_out(record)
            return artifact

        return self._load(prove, plugin_id, AtMost(at_most, isolation))

    def load_legacy(
        self, source: str | PathLike[str] | bytes, *, at_most: Limits = CEILING
    ) -> Plugin:
        """Run a component or shared object that has no manifest and no signature, in strict mode.

        The policy must list its digest, `[isolation] legacy`.  It runs in a process of its own, is
        granted nothing but an empty directory at /tmp, and has the smallest limits; what it tries
        is on record.  The registry never knows it; a revocation feed can name its digest.

        Args:
            source: the file's path, or its bytes.  They are read once, and those run.
            at_most: as for `load`.

        Raises:
            ArtifactError: it can't be read, or `artifact.legacy`: it is nothing that could run.
            GrantDeniedError: `grant.legacy`: the policy does not list it; with the line that does.
            The others as for `load`.
        """
        return self._load(lambda: recognise(read_artifact(source)), "legacy", AtMost(at_most))

    def _load(self, prove: Callable[[], Proven], name: str, at_most: AtMost) -> Plugin:
        self._check_open()
        loader = Loader(
            engine=self._engine,
            compiler=self._compiler,
            workers=self._workers,
            overseer=self._overseer,
            policy=self.policy,
            consents=self.consents,
            capabilities=self.capabilities,
            core_version=self.core_version,
            recorder=self.recorder,
            home=self._home,
            shim=self._shim,
            room=self._room,
            on_close=self._forget,
            serve=self._serve,
            trace=self._trace,
        )
        plugin = loader.load(prove, name, at_most)
        with self._lock:
            if not self._closed:
                self._plugins.append(plugin)
                return plugin
        plugin.close()
        raise RuntimeError("the runtime is closed")

    # -- what runs ------------------------------------------------------------------------------

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """The plugins that are loaded."""
        with self._lock:
            return tuple(self._plugins)

    def subscribe(self, hook: Callable[[Lifecycle], None]) -> Callable[[], None]:
        """Have `hook` told what becomes of plugins: installed, pending, activated, revoked.

        Also of what another process does in the same home.  It is called on a thread of the
        runtime's, one event at a time, and is quick; what it raises is recorded.

        Returns:
            A function that ends it.
        """
        self._check_open()
        return self._overseer.subscribe(hook)

    def revoke_secret(self, name: str, reason: str) -> None:
        """Revoke a secret for every plugin, also within running calls; no use begins after this.

        Raises:
            CapabilityError: the vault can't be written; in this process it is revoked all the same.
        """
        for capability in self.capabilities:
            revoke = getattr(capability, "revoke", None)
            if capability.name == "secret" and revoke is not None:
                try:
                    self._record("revoke", DENIED, action="secret", target=name, reason=reason)
                finally:
                    # Also when it can't be recorded.
                    revoke(name, reason)
                    for plugin in self.plugins:
                        plugin.forget_ready()
                return
        raise CapabilityError("this runtime has no secrets", code="capability.vault")

    def close(self) -> None:
        """Close every plugin and let go of everything.  Called again, does nothing.

        Calls under way are interrupted, and waited for as long as a host call may block.  A host
        function or a hook may close the runtime that it runs in: its own call is not waited for,
        and what that call still does can't be recorded.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            doomed = list(self._plugins)
        with contextlib.ExitStack() as each:
            each.callback(self._closers.close)
            each.callback(self._wait_quiet, doomed)
            for plugin in doomed:
                each.callback(plugin.close)

    def _wait_quiet(self, plugins: Sequence[Plugin]) -> None:
        if call_under_way() is not None or self._engine.is_forked:
            return
        longest = max((p.limits.host_call_ms for p in plugins), default=0) / 1000 + 1
        until = time.monotonic() + longest
        for plugin in plugins:
            plugin.wait_quiet(until - time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside ---------------------------------------------------------------------------------

    def _check_open(self) -> None:
        self._engine.check()

    def _serve(self, terms: Terms) -> Served:
        """What one instance of a component is served: the one place where a tool can look on."""
        return Serving(terms)

    def _forget(self, plugin: Plugin) -> None:
        self._overseer.leave(plugin)
        with self._lock, contextlib.suppress(ValueError):
            self._plugins.remove(plugin)

    def _record(self, kind: str, verdict: str, **fields: Any) -> None:
        self.recorder.record(Event(kind=kind, verdict=verdict, **fields))
