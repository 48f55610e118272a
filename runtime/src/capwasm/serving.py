"""What one instance is served: interfaces bound to capability states, opened when first called.

A plugin's grants are checked, opened and linked once, at load.  An instance that never touches a
file opens no directory: each capability takes its power at the first call of one of its functions,
which keeps a fresh instance a matter of microseconds.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from .capability import Capability, Grant, HostFunc, Interface, OpenContext
from .errors import InternalError
from .events import Recorder
from .grants.manifest import Manifest
from .lattice import ClauseSet
from .limits import Limits
from .wasi import WasiConfig, WasiServer

__all__ = ["Serving", "Terms"]

_NUMBERS = itertools.count(1)
_NOTHING: Grant[Any] = Grant((), ClauseSet.of())


@dataclass(frozen=True)
class Terms:
    """On which terms every instance of one plugin is served.

    Attributes:
        granted: by capability; what was asked for and is not here is served and refuses.
        name: `id@version`, as the audit log names the plugin.
        capabilities: in the order in which they open.
        data_dir: the plugin's own directory.
        wasi: what a program is given: arguments, variables, streams.
    """

    capabilities: tuple[Capability[Any, Any], ...]
    manifest: Manifest
    granted: Mapping[str, Grant[Any]]
    limits: Limits
    name: str
    recorder: Recorder
    data_dir: Path
    wasi: WasiConfig = field(default_factory=WasiConfig)

    @cached_property
    def declared(self) -> Mapping[str, Capability[Any, Any]]:
        """The capabilities that the manifest asks for, by name, in order."""
        return {c.name: c for c in self.capabilities if c.name in self.manifest.requests}

    @cached_property
    def used_only(self) -> Mapping[str, Capability[Any, Any]]:
        """Interfaces that are not asked for, but whose types an interface that is asked for uses."""
        asked = {i for c in self.declared.values() for i in c.interfaces}
        used = {i for c in self.declared.values() for i in c.uses} - asked
        return {i: c for c in self.capabilities for i in c.interfaces if i in used}

    @cached_property
    def owners(self) -> Mapping[str, Capability[Any, Any]]:
        """Each interface that is served by a capability, and by which."""
        asked = {i: c for c in self.declared.values() for i in c.interfaces}
        return asked | dict(self.used_only)

    @cached_property
    def granted_names(self) -> tuple[str, ...]:
        """The capabilities of which something was granted, in order."""
        return tuple(name for name in self.declared if name in self.granted)


class Serving:
    """The served side of one instance.  Used by the thread that runs the instance, and closed once.

    Most instances call no host function, or one; so making this costs nothing, and whatever it needs
    is made by the first call that needs it.
    """

    __slots__ = ("_closed", "_ctx", "_functions", "_stack", "_states", "_terms", "_wasi")

    def __init__(self, terms: Terms) -> None:
        """Nothing is opened yet."""
        self._terms = terms
        self._ctx: OpenContext | None = None
        self._closed = False

    def _begin(self) -> OpenContext:
        """The context in which capabilities open, and places for what they give.

        Raises:
            InternalError: the instance was closed: nothing is served any more.
        """
        if self._closed:
            raise InternalError("a closed instance is served nothing")
        ctx = self._ctx
        if ctx is None:
            terms = self._terms
            self._states: dict[str, Any] = {}
            self._functions: dict[str, Mapping[str, HostFunc]] = {}
            self._stack = contextlib.ExitStack()
            self._wasi: WasiServer | None = None
            self._ctx = ctx = OpenContext(
                plugin=terms.name,
                plugin_id=terms.manifest.id,
                instance=next(_NUMBERS),
                limits=terms.limits,
                recorder=terms.recorder,
                data_dir=terms.data_dir,
                opened=_Granted(self, terms),
            )
        return ctx

    def function(self, interface: str, name: str) -> HostFunc:
        """A function of a served interface; its capability is opened if it wasn't yet.

        Raises:
            CapabilityError: the host's side of the grant can't be used (any more).
        """
        self._begin()
        functions = self._functions.get(interface)
        if functions is None:
            owner = self._terms.owners.get(interface)
            served = self._wasi_server().serve(interface) if owner is None else self._serve(owner)
            self._functions |= {i.name: i.functions for i in served}
            functions = self._functions[interface]
        return functions[name]

    def everything(self, imports: Collection[str] | None = None) -> list[Interface]:
        """Every interface, with every declared capability opened: what a component is linked with.

        Args:
            imports: what the component imports, if that is known: some of the rest is left out.

        Raises:
            CapabilityError: the host's side of a grant can't be used.
        """
        served = [i for c in self._terms.declared.values() for i in self._serve(c)]
        used = self._terms.used_only
        served += [
            i for c in dict.fromkeys(used.values()) for i in self._serve(c) if i.name in used
        ]
        http = imports is None or any(name.startswith("wasi:http/") for name in imports)
        return served + self._wasi_server().everything(http=http)

    def state(self, capability: Capability[Any, Any]) -> Any:
        """The state of a capability, opened if it wasn't yet."""
        ctx, name = self._begin(), capability.name
        if name not in self._states:
            # Declared and not granted, or only used by another: it refuses everything.
            grant = self._terms.granted.get(name, _NOTHING)
            self._states[name] = capability.open(grant, ctx)
            self._stack.callback(capability.close, self._states[name])
        return self._states[name]

    def _serve(self, capability: Capability[Any, Any]) -> Sequence[Interface]:
        return capability.serve(self.state(capability))

    def _wasi_server(self) -> WasiServer:
        ctx = self._begin()
        if self._wasi is None:
            net = self._terms.declared.get("net")
            way = None if net is None else partial(self.state, net)
            self._wasi = WasiServer(ctx, self._terms.wasi, way)
        return self._wasi

    def close(self) -> None:
        """Let go of all power, newest first.  Called again, does what an interrupt left undone."""
        self._closed = True
        if self._ctx is not None:
            self._stack.close()
            # The context knows us, and we know it: a million instances are not to wait for the
            # garbage collector.
            self._states.clear()
            self._functions.clear()
            self._ctx = self._wasi = None


class _Granted(Mapping[str, Any]):
    """`OpenContext.opened`: what was granted, opened when it is asked for."""

    def __init__(self, serving: Serving, terms: Terms) -> None:
        self._serving = serving
        self._terms = terms

    def __getitem__(self, name: str) -> Any:
        if name not in self._terms.granted_names:
            raise KeyError(name)
        return self._serving.state(self._terms.declared[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._terms.granted_names)

    def __len__(self) -> int:
        return len(self._terms.granted_names)
