"""The code of one plugin that runs in processes of its own, and how its instances are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from capwasm.capability import Interface
from capwasm.engine import types as t
from capwasm.engine.crossing import HostKind
from capwasm.engine.engine import PluginEngine
from capwasm.engine.exports import Export, ExportTable
from capwasm.engine.link import Linked
from capwasm.engine.sealed import Sealed
from capwasm.errors import ShimError
from capwasm.grants.isolation import Isolation
from capwasm.instance import Served
from capwasm.keeping import Keeper
from capwasm.limits import Limits
from capwasm.serving import Terms
from capwasm_shim import layers
from capwasm_shim.layers import File, Spec

from .codec import Codec
from .instance import Code, ProcessInstance
from .native import NativeCode, NativeServed
from .parcel import CODE, Parcel, budget, code_of
from .process import Recipe
from .server import ShimServer
from .supervisor import MOST_LANES, Supervisor

__all__ = ["Apart", "component_apart", "native_apart"]

_LIBRARY: Final = "plugin.so"
_THREADS: Final = 16
"""Of a native plugin, its first one included."""
_LONG_SECONDS: Final = 30 * 24 * 3600


@dataclass(frozen=True)
class Apart:
    """A plugin's code, in the place of what would run in process.

    Attributes:
        exports: its functions.   laned, imports: as of `Linked`; none of native code.
        supervisor: of its processes.
    """

    exports: ExportTable
    laned: tuple[str, ...]
    supervisor: Supervisor
    _code: Code
    _serve: Callable[[Terms], Served]
    imports: tuple[str, ...] = ()

    def prepare(self, engine: PluginEngine, terms: Terms, keeper: Keeper) -> ProcessInstance:
        """An instance to start; see `Opener.prepare`.

        Raises:
            InstancesExceeded: the runtime holds as many instances as it may.
        """
        return ProcessInstance(
            engine,
            self._code,
            terms.name,
            terms.limits,
            self._serve(terms),
            keeper,
            supervisor=self.supervisor,
        )

    def close(self) -> None:
        """Start nothing more; what runs ends with its instances."""
        self.supervisor.close()


# -- components -----------------------------------------------------------------------------------


class _ComponentCode:
    """See `instance.Code`."""

    opens = True

    def __init__(self, linked: Linked) -> None:
        self._compiled = linked.compiled  # whose descriptor each process is given
        self.slots: Sequence[tuple[str, str]] = linked.slots
        self.kinds: Mapping[t.ResourceId, HostKind] = linked.kinds
        classes = linked.plans.classes
        # In the order of the slots; see `link`.
        self.codecs = [
            Codec(name, type_, classes)
            for wanted in linked.types.imports
            for name, type_ in wanted.functions
        ]
        self._exports = [Codec(e.name, e.type, classes) for e in linked.exports]

    def export(self, export: Export) -> tuple[Any, Codec]:
        return export.index, self._exports[export.index]


def component_apart(
    server: ShimServer,
    linked: Linked,
    terms: Terms,
    isolation: Isolation,
    *,
    serve: Callable[[Terms], Served],
    ready: int,
) -> Apart:
    """A component in processes of its own.

    Args:
        server: starts them.
        linked: the component, joined with what it is served; compiled with `keep`.
        terms: on which it is served.
        isolation: which layers must hold.
        serve: makes the served side of an instance.
        ready: instances that are made ahead.
    """
    limits = terms.limits
    single = terms.manifest.plugin.instance == "single"
    lanes = 1 if single else min(limits.concurrency + ready, MOST_LANES)
    recipe = Recipe(
        plugin=terms.name,
        spec=Spec("component", required=isolation.required, limits=budget(limits, lanes)),
        load=Parcel.of(linked, terms.name, limits).to_load(),
        fds=((CODE, code_of(linked.compiled)),),
        holds=linked.compiled,
        lanes=lanes,
        value_bytes=limits.value_bytes,
    )
    supervisor = Supervisor(
        server, recipe, lambda layer: isolation.line_without([layer]), terms.recorder
    )
    code = _ComponentCode(linked)
    return Apart(linked.exports, linked.laned, supervisor, code, serve, linked.imports)


# -- native code ----------------------------------------------------------------------------------


def native_apart(
    server: ShimServer,
    library: bytes,
    served: Sequence[Interface],
    terms: Terms,
    isolation: Isolation,
) -> Apart:
    """Native code, in a process for each of its instances.

    Args:
        server: starts them.
        library: the shared object.
        served: every interface that the plugin is served with.
        terms: on which it is served.
        isolation: which layers must hold.

    Raises:
        ShimError: there is no memory for the code.
    """
    try:
        sealed = Sealed.holding(library)
    except OSError as exc:
        raise ShimError(f"no memory for the code: {exc.strerror}", context=terms.name) from exc
    limits, code = terms.limits, NativeCode(served)
    recipe = Recipe(
        plugin=terms.name,
        spec=Spec(
            "native",
            required=isolation.required,
            limits=_native_budget(limits, once=terms.manifest.plugin.instance == "per-call"),
            files=(File(_LIBRARY),),
        ),
        load={"limit": limits.value_bytes},
        fds=(("file", sealed.fd),),
        holds=sealed,
        lanes=1,
        value_bytes=limits.value_bytes,
        describes=code.check_description,
    )
    supervisor = Supervisor(
        server, recipe, lambda layer: isolation.line_without([layer]), terms.recorder
    )
    return Apart(code.exports, (), supervisor, code, NativeServed)


def _native_budget(limits: Limits, *, once: bool) -> layers.Limits:
    """What the process of an instance may use.

    Args:
        limits: of the plugin.
        once: whether it serves a single call; then its processor time is known to be bounded.
    """
    seconds = math.ceil(limits.wall_ms / 1000)
    return layers.Limits(
        memory=limits.memory,
        cpu_seconds=min(_LONG_SECONDS, 2 * seconds * _THREADS) if once else _LONG_SECONDS,
        threads=_THREADS,
        # As much as a call in process can take, also between calls, when no deadline runs.
        cpu_percent=100,
    )
