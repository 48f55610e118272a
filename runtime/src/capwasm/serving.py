"""What one instance is served: interfaces bound to capability states, opened when first called.

A plugin's grants are checked, opened and linked once, at load.  An instance that never touches a
file opens no directory: each capability takes its power at the first call of one of its functions,
which keeps a fresh instance a matter of microseconds.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .capability import Capability, Grant, HostFunc, Interface, OpenContext
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
    """

    capabilities: tuple[Capability[Any, Any], ...]
    manifest: Manifest
    granted: Mapping[str, Grant[Any]]
    limits: Limits
    name: str
    recorder: Recorder
    data_dir: Path
    wasi: WasiConfig = field(default_factory=WasiConfig)


class Serving:
    """The served side of one instance.  Used by the thread that runs the instance, and closed once."""

    def __init__(self, terms: Terms) -> None:
        """Nothing is opened yet."""
        self._terms = terms
        self._declared = {
            c.name: c for c in terms.capabilities if c.name in terms.manifest.requests
        }
        self._owners = {i: c.name for c in self._declared.values() for i in c.interfaces}
        self._implied = self._used_only(terms)
        self._owners |= {i: c.name for i, c in self._implied.items()}
        self._states: dict[str, Any] = {}
        self._functions: dict[str, Mapping[str, HostFunc]] = {}
        self._stack = contextlib.ExitStack()
        self._ctx = OpenContext(
            plugin=terms.name,
            plugin_id=terms.manifest.id,
            instance=next(_NUMBERS),
            limits=terms.limits,
            recorder=terms.recorder,
            data_dir=terms.data_dir,
            opened=_Granted(self),
        )
        self._wasi = WasiServer(self._ctx, terms.wasi)

    def function(self, interface: str, name: str) -> HostFunc:
        """A function of a served interface; its capability is opened if it wasn't yet.

        Raises:
            CapabilityError: the host's side of the grant can't be used (any more).
        """
        functions = self._functions.get(interface)
        if functions is None:
            owner = self._owners.get(interface)
            served = self._wasi.serve(interface) if owner is None else self._serve(owner)
            self._functions |= {i.name: i.functions for i in served}
            functions = self._functions[interface]
        return functions[name]

    def everything(self) -> list[Interface]:
        """Every interface, with every declared capability opened: what a component is linked with.

        Raises:
            CapabilityError: the host's side of a grant can't be used.
        """
        served = [i for name in self._declared for i in self._serve(name)]
        implied = {c.name for c in self._implied.values()}
        served += [i for name in implied for i in self._serve(name) if i.name in self._implied]
        return served + self._wasi.everything()

    def state(self, name: str) -> Any:
        """The state of a capability, opened if it wasn't yet."""
        if name not in self._states:
            capability = self._capability(name)
            # Declared and not granted, or only used by another: it refuses everything.
            grant = self._terms.granted.get(name, _NOTHING)
            self._states[name] = capability.open(grant, self._ctx)
            self._stack.callback(capability.close, self._states[name])
        return self._states[name]

    def _serve(self, name: str) -> list[Interface]:
        return list(self._capability(name).serve(self.state(name)))

    def _capability(self, name: str) -> Capability[Any, Any]:
        return next(c for c in self._terms.capabilities if c.name == name)

    def _used_only(self, terms: Terms) -> dict[str, Capability[Any, Any]]:
        """Interfaces that are not asked for, but whose types an interface that is asked for uses."""
        used = {i for c in self._declared.values() for i in c.uses if i not in self._owners}
        return {i: c for c in terms.capabilities for i in c.interfaces if i in used}

    def granted(self) -> list[str]:
        """The capabilities of which something was granted, in order."""
        return [n for n in self._declared if n in self._terms.granted]

    def close(self) -> None:
        """Let go of all power, newest first."""
        self._stack.close()


class _Granted(Mapping[str, Any]):
    """`OpenContext.opened`: what was granted, opened when it is asked for."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def __getitem__(self, name: str) -> Any:
        if name not in self._serving.granted():
            raise KeyError(name)
        return self._serving.state(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._serving.granted())

    def __len__(self) -> int:
        return len(self._serving.granted())
