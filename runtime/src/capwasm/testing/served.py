"""What an instance of a plugin on a bench is served, and the one place that sees all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from capwasm.capability import HostFunc
from capwasm.errors import CapwasmError
from capwasm.instance import Served
from capwasm.runtime import Runtime
from capwasm.serving import Serving, Terms
from capwasm.wasi import NEEDS

__all__ = ["BenchRuntime", "Between", "Uses"]

# To have them says nothing: libraries ask for them whether they use them or not.
_IDLE: Final = frozenset({"wasi:filesystem/preopens", "wasi:cli/stdout", "wasi:cli/stderr"})
_IDLE_CALLS: Final = frozenset({"[method]descriptor.get-type", "[method]descriptor.get-flags"})


class Between(Protocol):
    """Stands between the plugin and what it is served: records, or answers in its place."""

    def enter(self, serving: Served, terms: Terms) -> Served:
        """What a new instance is served instead of `serving`."""


class Uses:
    """Which capabilities were used: a function of theirs was called, and did not refuse."""

    def __init__(self) -> None:
        """None yet."""
        self._names: set[str] = set()
        self._lock = threading.Lock()

    @property
    def names(self) -> frozenset[str]:
        """Their names."""
        return frozenset(self._names)

    def add(self, name: str) -> None:
        """That one was used."""
        with self._lock:
            self._names.add(name)

    def clear(self) -> None:
        """Forget them."""
        with self._lock:
            self._names.clear()


class _Watched:
    """A `Served` whose functions tell that they were used."""

    def __init__(self, served: Served, terms: Terms, uses: Uses) -> None:
        self._served, self._terms, self._uses = served, terms, uses

    def function(self, interface: str, name: str) -> HostFunc:
        function = self._served.function(interface, name)
        owner = self._terms.owners.get(interface)
        bare = interface.partition("@")[0]
        capability = owner.name if owner is not None else NEEDS.get(bare)
        if capability is None or bare in _IDLE or name in _IDLE_CALLS:
            return function
        uses = self._uses

        def used(*args: Any) -> Any:
            value = function(*args)
            uses.add(capability)
            return value

        return used

    def close(self) -> None:
        self._served.close()


class BenchRuntime(Runtime):
    """A runtime that lets a bench look on; it decides all as any other."""

    uses: Uses
    between: Callable[[], Between | None]

    def _serve(self, terms: Terms) -> Served:
        served: Served = Serving(terms)
        between = self.between()
        if between is not None:
            served = between.enter(served, terms)
        return _Watched(served, terms, self.uses)


def cause_of(error: CapwasmError, kind: type[BaseException]) -> BaseException | None:
    """What a host function raised, below what became of it."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, kind):
        found = found.__cause__
    return found
