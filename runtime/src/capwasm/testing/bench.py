"""The bench: one plugin, in a home of its own, with the grants that its manifest asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from capwasm.authoring.devhome import DevHome, Wishes, throwaway_home
from capwasm.authoring.project import ready_capsule
from capwasm.capability import Capability
from capwasm.caps import standard_capabilities
from capwasm.caps.clock import Clock
from capwasm.caps.kv import Kv
from capwasm.caps.log import Log, PluginRecord
from capwasm.caps.random import Random
from capwasm.caps.random.handle import SeededBytes
from capwasm.caps.secrets import MemoryVault, Secrets
from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.pack import pack
from capwasm.engine.compile import COMPONENT_MAGIC
from capwasm.engine.exports import Namespace
from capwasm.engine.pool import Capacity
from capwasm.errors import BuildError, CapwasmError
from capwasm.events import DENIED, Event
from capwasm.grants.consent_store import ConsentStore
from capwasm.grants.manifest import Manifest
from capwasm.handles import Handle
from capwasm.isolation.commands import Commands
from capwasm.isolation.server import ShimServer
from capwasm.learning import Learner, Proposal
from capwasm.plugin import Plugin
from capwasm.record.recorders import Recorders
from capwasm.record.redact import Redactor
from capwasm.serving import Serving, Terms

from .cassette import Recording, Replay
from .errors import BenchError
from .fetch import BenchNet, Fetches
from .plain import Handles
from .plain import Secrets as SecretNames
from .served import BenchRuntime, Between, Uses, cause_of
from .store import Store
from .times import SteppedTime

__all__ = ["Bench"]

SEED: Final = b"capwasm.testing"
# Limits and interrupts end a call and are told as its error.
_ENDS: Final = frozenset({"kill", "limit"})


class Bench:
    """Runs one plugin for a test.  A context manager; the plugin is loaded at the first need.

    Attributes:
        fetch: the answers to what it fetches, and what it fetched.
        clock: stands still until it is stepped, or the plugin sleeps.
        logs: what it logged and printed, in order.
        events: what would stand in the audit log, in order.
    """

    def __init__(
        self,
        source: str | PathLike[str],
        *,
        config: Mapping[str, str] | None = None,
        secrets: Mapping[str, bytes | str] | None = None,
        binds: Mapping[str, str | PathLike[str]] | None = None,
        policy: str = "",
        seed: bytes = SEED,
        module: str = "plugin",
    ) -> None:
        """Name what is to run; it is built when it is needed, unless these very sources were.

        Args:
            source: a project's directory, a `.capsule`, or a `.wasm` beside its `plugin.toml`.
            config: setting → value.
            secrets: name → value.
            binds: name of a directory → the directory; an empty one of the bench's own if not given.
            policy: tables of a `policy.toml` that are added to what allows all that it asks: a
                denial, or what only an operator can say, such as what a command is.
            seed: of the random bytes.
            module: the Python module of a project in Python.
        """
        self.source = Path(source)
        self._module, self._policy = module, policy
        self.clock = SteppedTime()
        self.logs: list[PluginRecord] = []
        self.events: list[Event] = []
        values = {n: v.encode() if isinstance(v, str) else v for n, v in (secrets or {}).items()}
        self._values = values
        self._vault = MemoryVault(values)
        self._wishes = Wishes(
            {name: Path(path).absolute() for name, path in (binds or {}).items()},
            dict(config or {}),
            values,
        )
        self._random = SeededBytes(seed)
        self._redactor = Redactor()
        self.fetch = Fetches(self._redactor.text)
        self._uses = Uses()
        self._between: Between | None = None
        self._stack = contextlib.ExitStack()
        self._dev: DevHome | None = None
        self._runtime: BenchRuntime | None = None
        self._capsule = b""
        self._plugin: Plugin | None = None
        self._learner: Learner | None = None
        self._places: dict[str, Path] = {}
        self._kinds: dict[str, type[Handle]] | None = None

    # -- the plugin ----------------------------------------------------------------------------

    @property
    def plugin(self) -> Plugin:
        """The plugin, loaded.

        Raises:
            BenchError: its start did what the test has no answer for.
            CapwasmError: it can't be built or loaded.
        """
        if self._plugin is None:
            with self._told():
                self._plugin = self._open().load(self._capsule)
                self._learn.imports(self._plugin.imports)
        return self._plugin

    @property
    def manifest(self) -> Manifest:
        """Its `plugin.toml`."""
        self._open()
        manifest = self._learn.manifest
        assert manifest is not None
        return manifest

    def call(self, function: str, *args: Any) -> Any:
        """Call one of its functions, and return the value; see `capwasm.values`.

        Args:
            function: its name, as short as it is unambiguous.
            args: one a parameter.

        Raises:
            BenchError: it did what the test has no answer for.
            GuestError: it trapped or went over a limit.
            TypeError, ValueError: an argument does not fit its type.
        """
        plugin = self.plugin
        with self._told():
            return plugin.call(function, *args)

    @property
    def exports(self) -> Namespace:
        """Its functions as attributes: `bench.exports.api.greet("Ada")`."""
        plugin = self.plugin
        return Namespace(plugin.functions, lambda e: lambda *args: self.call(e.whole, *args))

    # -- what it sees --------------------------------------------------------------------------

    @property
    def kv(self) -> Store:
        """Its key-value store: to put in what it shall find, and to look at what it left."""
        self._open()
        return Store(self._home.home.root / "data" / self.manifest.id, self.manifest.id, self.clock)

    def files(self, bind: str) -> Path:
        """The directory that stands for a name of a `[[fs]]` table.

        Raises:
            BenchError: the manifest names none so.
        """
        self._open()
        place = self._places.get(bind)
        if place is None:
            names = ", ".join(self._places) or "none"
            raise BenchError(f"plugin.toml asks for no directory {bind}; it asks for {names}")
        return place

    # -- what it did ---------------------------------------------------------------------------

    @property
    def granted(self) -> frozenset[str]:
        """The capabilities of which something was granted."""
        return frozenset(self.plugin.grants.by_capability)

    @property
    def used(self) -> frozenset[str]:
        """The capabilities that it used: a call to them was let through."""
        logged = {"log"} if self.logs else set()
        return self._uses.names | logged

    @property
    def unused(self) -> frozenset[str]:
        """Those that were granted, and that it did not use."""
        return self.granted - self.used

    @property
    def denied(self) -> list[Event]:
        """What it was refused, each as the audit log has it."""
        return [e for e in self.events if e.verdict == DENIED and e.kind not in _ENDS]

    def assert_only_used(self, *names: str) -> None:
        """Pass if it used these capabilities and no others, and was refused nothing.

        Raises:
            AssertionError: with those that it used besides, those that it did not, and refusals.
        """
        wanted = set(names)
        unknown = sorted(wanted - {c.name for c in self._open().capabilities})
        if unknown:
            raise BenchError(f"there is no capability {', '.join(unknown)}")
        more, less = sorted(self.used - wanted), sorted(wanted - self.used)
        told = [
            *([f"it also used {', '.join(more)}"] if more else []),
            *([f"it did not use {', '.join(less)}"] if less else []),
            *(f"it was refused {_line(e)}" for e in self.denied),
        ]
        if told:
            raise AssertionError("\n".join(told))

    def assert_nothing_denied(self) -> None:
        """Pass if it was refused nothing.

        Raises:
            AssertionError: with each refusal.
        """
        if refused := [_line(e) for e in self.denied]:
            raise AssertionError("it was refused\n  " + "\n  ".join(refused))

    def forget(self) -> None:
        """Forget logs, events, fetches and uses so far: what a test sets up is not what it asserts."""
        del self.logs[:], self.events[:], self.fetch.requests[:]
        self._uses.clear()

    def manifest_for_run(self) -> Proposal:
        """What `plugin.toml` would have to ask for what it was refused, on top of what it asks."""
        words = self.manifest.plugin.model_dump(by_alias=True, exclude_defaults=True)
        return self._learn.propose(words)

    # -- host calls on record ------------------------------------------------------------------

    @contextlib.contextmanager
    def record(self, cassette: str | PathLike[str]) -> Iterator[None]:
        """Write down every host call of this block, and how it ended.

        The plugin is loaded anew for it, since what it does at its start belongs to it.  Calls within
        the block come one after the other.  The file is written if the block ends well.

        Args:
            cassette: the file; directories above it are made.

        Raises:
            BenchError: a secret would stand in it; it can't be written; or there is a block already.
        """
        recording = Recording(self._name(), self._resources, self._secrets())
        with self._in_between(recording):
            yield
        recording.save(Path(cassette))

    @contextlib.contextmanager
    def replay(self, cassette: str | PathLike[str]) -> Iterator[None]:
        """Answer every host call of this block as it was answered when it was recorded.

        Nothing is opened, sent or decided then; so there are no events, and no limit but those of
        the guest's own code.  What it logs is in `logs`.

        Args:
            cassette: the file.

        Raises:
            ReplayMismatchError: it made another call than was recorded, with the difference, or
                fewer.
            BenchError: the file is no cassette; or there is a block already.
        """
        replay = Replay(Path(cassette), self._resources, self._secrets())
        with self._in_between(replay):
            yield
        replay.check_done()

    @contextlib.contextmanager
    def _in_between(self, between: Between) -> Iterator[None]:
        if self._between is not None:
            raise BenchError("a block of record or replay stands in another")
        self._unload()
        self._between = between
        try:
            yield
        finally:
            self._unload()
            self._between = None

    def _unload(self) -> None:
        plugin, self._plugin = self._plugin, None
        if plugin is not None:
            plugin.close()

    def _name(self) -> str:
        return f"{self.manifest.id}@{self.manifest.version}"

    def _secrets(self) -> SecretNames:
        return SecretNames(self._values, _names(self.manifest, "secret", "name"))

    def _resources(self, terms: Terms) -> dict[str, type[Handle]]:
        if self._kinds is None:
            with contextlib.closing(Serving(terms)) as serving:
                self._kinds = Handles.resources_of(serving.everything())
        return self._kinds

    # -- life ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _v: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the plugin, and remove its home.  Called again, does nothing."""
        self._plugin = self._runtime = None
        self._stack.close()

    @property
    def _home(self) -> DevHome:
        assert self._dev is not None
        return self._dev

    @property
    def _learn(self) -> Learner:
        assert self._learner is not None
        return self._learner

    def _open(self) -> BenchRuntime:
        """The runtime, in a home that allows what the manifest asks."""
        if self._runtime is not None:
            return self._runtime
        capsule = _capsule_of(self.source, self._module)
        with contextlib.ExitStack() as stack:
            self._dev = dev = stack.enter_context(throwaway_home())
            ready = dev.prepare(capsule, self._wishes)
            dev.consent(ready)
            with dev.home.policy_file.open("a", encoding="utf-8") as file:
                file.write(f"\n{self._policy}\n")
            self._capsule = ready.capsule
            self._places = {
                name: self._wishes.binds.get(name) or dev.files / name
                for name in _names(ready.manifest, "fs", "bind")
            }
            home, shim = dev.home, ShimServer()
            commands = Commands(shim)
            capabilities = self._capabilities(home.protected(), commands)
            self._learner = Learner(capabilities, ready.manifest)
            policy = home.policy(capabilities)
            commands.required = policy.isolation.required
            recorder = Recorders(_Book(), self._redactor, hook=self._note, log=False)
            runtime = BenchRuntime(
                policy=policy,
                trust=home.trust(),
                recorder=recorder,
                home=home.root,
                core_version=version("capwasm"),
                capabilities=capabilities,
                consents=ConsentStore(home.consents, recorder=recorder),
                # Instances made ahead would draw random bytes before it is their turn.
                capacity=Capacity(instances=64, ready=0),
                shim=shim,
            )
            runtime.uses, runtime.between = self._uses, lambda: self._between
            stack.callback(runtime.close)
            self._stack = stack.pop_all()
        self._runtime = runtime
        return runtime

    def _capabilities(self, protected: list[Path], commands: Commands) -> tuple[Any, ...]:
        """All that there are; those by which a run differs from the next, from this bench."""
        ours: list[Capability[Any, Any]] = [
            Clock(self.clock),
            Random(self._random),
            Kv(lambda: self.clock.wall_ns() / 1e9),
            Log(self._redactor, self.logs.append),
            Secrets(self._vault, self._redactor, lambda: self.clock.monotonic_ns() / 1e9),
            BenchNet(self.fetch),
        ]
        by_name = {c.name: c for c in ours}
        known = standard_capabilities(protected=protected, spawner=commands)
        return tuple(by_name.get(c.name, c) for c in known)

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self._learn.record(event)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What the bench itself has to say comes through as it is."""
        try:
            yield
        except CapwasmError as exc:
            told = cause_of(exc, BenchError)
            if told is None:
                raise
            raise told.with_traceback(None) from told.__cause__


class _Book:
    """In the place of an audit log: the bench's own hook keeps the events."""

    def record(self, event: Event) -> None:
        """Nothing more to do."""


def _names(manifest: Manifest, capability: str, word: str) -> list[str]:
    """What the tables of a capability name by that word."""
    request = manifest.requests.get(capability)
    tables = [c.to_toml() for a in (request.asked if request else ()) for c in a.clauses]
    return [str(table[word]) for table in tables if word in table]


def _line(event: Event) -> str:
    what = " ".join(part for part in (event.kind, event.action, event.target) if part)
    return f"{what} ({event.reason})"


def _capsule_of(source: Path, module: str) -> bytes:
    if source.is_dir():
        return ready_capsule(source, module=module)[0]
    data = read_artifact(source).data
    if not data.startswith(COMPONENT_MAGIC):
        return bytes(data)
    manifest = source.parent / "plugin.toml"
    if not manifest.is_file():
        raise BuildError(
            "there is no plugin.toml beside it", code="build.project", context=str(source)
        )
    return pack({"plugin.toml": manifest.read_bytes(), "plugin.wasm": bytes(data)})
