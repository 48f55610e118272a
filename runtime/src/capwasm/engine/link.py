"""A component and the interfaces it may have, joined once; instances only look their functions up.

Every import is decided here, at load: served with exactly the signature of the ABI table, or
refused with the line of the manifest that would ask for it.  Nothing is ever defined as a stub that
traps later.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import wasmtime
import wasmtime.component

from capwasm.call import current_call
from capwasm.capability import Interface
from capwasm.errors import Fault, InternalError, LinkError
from capwasm.record.redact import printable
from capwasm.threads import LOCAL

from .abi import canonical, signature, split_version
from .compiled import Compiled
from .crossing import Boundary, EngineFault, HostKind
from .engine import PluginEngine
from .exports import ExportTable
from .host import failure_of
from .lane.choose import Chosen, present
from .lane.choose import chosen as functions_of
from .lane.wire import LANE_IMPORTS, without_lane
from .plan import Plans, define_func, define_resource
from .start import Startable
from .types import ComponentTypes, InterfaceType, ResourceId
from .walk import walk

__all__ = ["Linked", "Unserved", "link", "match_imports", "read_types"]

# Host resource kinds are told apart by number; one number a kind, never used twice (TYP-09).
_KIND_NUMBERS = itertools.count(1)

# A component may import thousands of things; a person reads so many.
_MAX_FAULTS = 100

# interface -> why it is not served, and what would change that.
Unserved = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Linked:
    """A component ready to be instantiated, as often as wanted, for one shape of grants.

    Attributes:
        slots: for each imported function, the served interface's name and the function's; the
            place in this tuple is the number by which an instance is asked for it.
        kinds: for each imported resource, its number and the `Handle` class that stands for it.
        lane: the functions that take the bulk lane; none if the component runs as it came.
        compiled: kept, so that who wants the same code meanwhile gets it from the compiler's memory.
    """

    startable: Startable
    types: ComponentTypes
    exports: ExportTable
    plans: Plans
    slots: tuple[tuple[str, str], ...]
    kinds: Mapping[ResourceId, HostKind]
    lane: Chosen
    compiled: Compiled

    @property
    def imports(self) -> tuple[str, ...]:
        """The interfaces that the component imports, with their versions."""
        return tuple(i.name for i in self.types.imports if i.name)

    @property
    def laned(self) -> tuple[str, ...]:
        """The functions on the bulk lane, exports and then imports, by their whole names.

        All others work as well, and are slower with long lists.
        """
        return tuple(
            f"{f.interface}#{f.name}" if f.interface else f.name
            for f in (*self.lane.exports, *self.lane.imports)
        )


def read_types(engine: PluginEngine, compiled: Compiled) -> tuple[ComponentTypes, Chosen]:
    """What the plugin imports and exports, and what of that takes the lane; see `walk`."""
    found = compiled.types or walk(compiled.component, engine.wasm)
    if not compiled.laned:
        return found, Chosen((), ())
    types = without_lane(found)
    return types, present(found, functions_of(types))


def link(
    engine: PluginEngine,
    compiled: Compiled,
    served: Sequence[Interface] | Callable[[Collection[str]], Sequence[Interface]],
    *,
    owners: Mapping[str, str],
    unserved: Unserved,
) -> Linked:
    """Join a component with the interfaces in `served`.

    Args:
        engine: the engine that compiled it.
        compiled: the component.
        served: what this plugin may import, or what gives it once the imports are known; only names,
            functions and classes are read here.
        owners: for each interface of ours, without version, the manifest table that asks for it.
        unserved: says of an interface why it is not served, or None if it knows nothing of it.

    Raises:
        LinkError: with one fault for each import that is not served, or not in that shape.
    """
    types, lane = read_types(engine, compiled)
    if callable(served):
        served = served([i.name for i in types.imports])
    chosen, faults = match_imports(types, served, owners=owners, unserved=unserved)
    if faults:
        undeclared = any(fault.fix is not None for fault in faults)
        if len(faults) > _MAX_FAULTS:
            more = len(faults) - _MAX_FAULTS
            faults[_MAX_FAULTS:] = [Fault("", f"and {more} faults more")]
        raise LinkError(
            "the component imports what it may not have",
            code="link.undeclared-import" if undeclared else "link.unknown-import",
            faults=faults,
        )
    return _define(engine, compiled, types, chosen, lane)


def match_imports(
    types: ComponentTypes,
    served: Sequence[Interface],
    *,
    owners: Mapping[str, str],
    unserved: Unserved,
) -> tuple[list[tuple[InterfaceType, Interface]], list[Fault]]:
    """Each import with the interface that serves it, and a fault for each that none does.

    Args:
        types: the component's.
        served: as for `link`.
        owners: as for `link`; a fault of an interface that is not declared has it as its fix.
        unserved: as for `link`.
    """
    by_name = {split_version(i.name)[0]: i for i in served}
    chosen: list[tuple[InterfaceType, Interface]] = []
    faults: list[Fault] = []
    for wanted in types.imports:
        offer, why = _choose(wanted, by_name, owners, unserved)
        if offer is None:
            faults.append(why)
        else:
            chosen.append((wanted, offer))
            faults += _shape_faults(wanted, offer)
    return chosen, faults


def _choose(
    wanted: InterfaceType,
    by_name: Mapping[str, Interface],
    owners: Mapping[str, str],
    unserved: Unserved,
) -> tuple[Interface | None, Fault]:
    """The served interface that satisfies an import, or the fault that says why there is none."""
    if not wanted.name:
        items = [n for n, _ in wanted.functions] + [n for n, _ in wanted.resources]
        why = f"{_short(', '.join(items))}: nothing is offered outside an interface"
        return None, Fault("import", why)
    where = _short(wanted.name)
    try:
        name, version = split_version(wanted.name)
    except ValueError:
        return None, Fault(where, "not a version of anything that this runtime offers")
    offer = by_name.get(name)
    if offer is None:
        if name in owners:
            table = owners[name]
            return None, Fault(where, f"the manifest does not declare {table}", fix=table)
        return None, Fault(where, unserved(wanted.name) or "this runtime does not offer it")
    _, ours = split_version(offer.name)
    # As the component model has it: same major, or same minor below 1.0, and not newer than ours.
    track = slice(0, 1) if ours[0] else slice(0, 2)
    if version[track] != ours[track] or version > ours:
        return None, Fault(where, f"this runtime offers {offer.name}")
    return offer, Fault("", "")


def _short(text: str) -> str:
    """Words of the component's own, for a message."""
    shown = printable(text)
    return shown if len(shown) <= 300 else f"{shown[:297]}..."


def _shape_faults(wanted: InterfaceType, offer: Interface) -> list[Fault]:
    """Where the imported shape is not the served one (TYP-10)."""
    faults = []
    for name, type_ in wanted.functions:
        ours = offer.signatures.get(name) or signature(offer.name, name)
        where = _short(f"{wanted.name}#{name}")
        if name not in offer.functions or ours is None:
            faults.append(Fault(where, "this runtime does not offer it"))
        elif (theirs := canonical(type_)) != ours:
            faults.append(Fault(where, f"imported as {_short(theirs)}, offered as {ours}"))
    own = split_version(wanted.name)[0]
    for name, identity in wanted.resources:
        where = _short(f"{wanted.name}#{name}")
        if split_version(identity.interface)[0] != own:
            continue
        if name not in offer.resources:
            faults.append(Fault(where, "this runtime does not offer it"))
        elif offer.resources[name] is not offer.resources.get(identity.name):
            # Two names for one type: it would stand for two kinds of handle at once (TYP-09).
            faults.append(Fault(where, f"imported as the same resource as {identity.name}"))
    return faults


def _define(
    engine: PluginEngine,
    compiled: Compiled,
    types: ComponentTypes,
    chosen: Sequence[tuple[InterfaceType, Interface]],
    lane: Chosen,
) -> Linked:
    kinds: dict[ResourceId, HostKind] = {}
    for wanted, offer in chosen:
        for name, identity in wanted.resources:
            own = identity.interface == wanted.name and identity.imported
            if own and identity not in kinds:  # else an alias, as `headers` is one of `fields`
                kinds[identity] = HostKind(next(_KIND_NUMBERS), offer.resources[name])
    plans = Plans(types, lane=lane)
    slots: list[tuple[str, str]] = []
    numbers: dict[tuple[str, str], int] = {}
    linker = wasmtime.component.Linker(engine.wasm)
    try:
        with linker.root() as root:
            for wanted, offer in chosen:
                with root.add_instance(wanted.name) as instance:
                    for name, identity in wanted.resources:
                        if identity.interface == wanted.name:
                            define_resource(
                                instance, name, kinds[identity].type_id, _on_drop, _on_failure
                            )
                    for name, _ in wanted.functions:
                        define_func(
                            instance,
                            plans.host(wanted.name, name),
                            _invoker(len(slots)),
                            _on_failure,
                            _boundary,
                        )
                        numbers[wanted.name, name] = len(slots)
                        slots.append((offer.name, name))
            if lane.imports:
                with root.add_instance(LANE_IMPORTS) as instance:
                    for f in lane.imports:
                        # Another way to the very same function of the host.
                        define_func(
                            instance,
                            plans.lane_host(f.interface, f.name),
                            _invoker(numbers[f.interface, f.name]),
                            _on_failure,
                            _boundary,
                        )
    except wasmtime.WasmtimeError as exc:
        raise InternalError(f"can't define the imports: {exc}") from exc
    startable = Startable(compiled.component, linker)
    return Linked(startable, types, ExportTable(types), plans, tuple(slots), kinds, lane, compiled)


# -- what the linker's functions do: find the running instance, and ask it ------------------------


def _boundary() -> Boundary:
    boundary: Boundary = LOCAL.here.call.owner.boundary  # type: ignore[union-attr]
    return boundary


def _invoker(slot: int) -> Callable[[tuple[object, ...]], object]:
    def invoke(args: tuple[object, ...]) -> object:
        # Only within a call; anything else fails, and is caught where C calls us.
        return LOCAL.here.call.owner.host_call(slot, args)  # type: ignore[union-attr]

    return invoke


def _on_drop(rep: int) -> None:
    current_call().owner.handles.drop(rep)


def _on_failure(error: BaseException) -> str:
    """Keep what must end the call on the call's own record; the engine gets a bare word."""
    if isinstance(error, EngineFault):
        # What the guest passed on the lane is no value of its type: it trapped.
        return str(error)
    current_call().fail(failure_of(error))
    return "host call failed"
