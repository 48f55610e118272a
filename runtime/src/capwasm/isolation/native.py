"""Native plugins: the code for this machine, the one world that they have, and how they are served.

A native plugin has the functions of all capabilities in its tables, since C knows no imports.  What its
manifest doesn't declare is refused here, where a component would not have been linked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from capwasm.capability import HostFunc, Interface
from capwasm.caps.fs import File
from capwasm.engine import types as t
from capwasm.engine.abi import split_version
from capwasm.engine.abi_types import function_type
from capwasm.engine.classes import Classes
from capwasm.engine.crossing import HostKind
from capwasm.engine.exports import Export, ExportTable
from capwasm.errors import CapError, Fault, InternalError, LinkError
from capwasm.events import DENIED, Event
from capwasm.handles import Lease
from capwasm.serving import Serving, Terms
from capwasm_shim.frames import ProtocolFault
from capwasm_shim.native_table import DESCRIPTOR, SERVED

from .broker import Descriptor
from .codec import Codec

__all__ = ["NativeCode", "NativeServed"]

_HANDLER: Final = "capwasm:plugin/handler@0.1.0"
_HANDLE: Final = t.FuncType(
    (("topic", t.Prim("string")), ("message", t.List(t.Prim("u8")))),
    t.Result(t.List(t.Prim("u8")), t.Prim("string")),
)
_MAX_NAME: Final = 128
_MAX_TOPICS: Final = 256


class NativeCode:
    """See `instance.Code`."""

    slots: Sequence[tuple[str, str]] = SERVED
    opens = False

    def __init__(self, served: Sequence[Interface]) -> None:
        """For a plugin that is served so.

        Args:
            served: with all resources that it may hold.
        """
        world = t.InterfaceType(_HANDLER, (("handle", _HANDLE),))
        self.exports = ExportTable(t.ComponentTypes((), (world,)))
        classes = Classes()
        self.codecs = [
            Codec(name, _type_of(interface, name), classes) for interface, name in SERVED
        ]
        self.kinds: Mapping[t.ResourceId, HostKind] = {
            t.ResourceId(split_version(each.name)[0], name, imported=True): HostKind(0, handle)
            for each in served
            for name, handle in each.resources.items()
        }
        self._handle = Codec("handle", _HANDLE, classes)

    def export(self, _export: Export) -> tuple[Any, Codec]:
        """There is one."""
        return "handle", self._handle

    @staticmethod
    def check_description(said: Any) -> None:
        """Pass if that is what a plugin says of itself, once loaded.

        Raises:
            ProtocolFault: it is not.
        """
        match said:
            case [1, str() as name, list() as topics] if (
                len(name) <= _MAX_NAME
                and len(topics) <= _MAX_TOPICS
                and all(type(topic) is str for topic in topics)
            ):
                return
        raise ProtocolFault("no description of a plugin")


def _type_of(interface: str, name: str) -> t.FuncType:
    if (interface, name) == DESCRIPTOR:
        size = function_type("capwasm:fs/files", "[method]file.size")
        assert size is not None
        assert isinstance(size.result, t.Result)
        return t.FuncType(size.params, t.Result(None, size.result.err))
    found = function_type(interface, name)
    if found is None:
        raise InternalError(f"the native table has {interface}#{name}, and the ABI has not")
    return found


class NativeServed:
    """What an instance of a native plugin is served with; see `instance.Served`.

    Attributes:
        leases: behind what the process was given for good.
    """

    def __init__(self, terms: Terms) -> None:
        """Nothing is opened yet."""
        self.leases: list[Lease] = []
        self._terms = terms
        self._serving = Serving(terms)

    def function(self, interface: str, name: str) -> HostFunc:
        """The function of that interface, or one that refuses if the manifest doesn't declare it."""
        if (interface, name) == DESCRIPTOR:
            return self._descriptor
        if interface not in self._terms.owners:
            return self._refused(interface, name)
        return self._serving.function(interface, name)

    def close(self) -> None:
        """Let go of all power."""
        self._serving.close()

    def _descriptor(self, file: File) -> Descriptor:
        fd = file.read_only()
        if not any(lease is file.lease for lease in self.leases):
            self.leases.append(file.lease)
        return Descriptor(fd)

    def _refused(self, interface: str, name: str) -> Callable[..., NoReturn]:
        type_ = _type_of(interface, name)
        owner = next((c for c in self._terms.capabilities if interface in c.interfaces), None)
        what = "?" if owner is None else owner.name
        table = f"[[{what}]]" if owner is not None and owner.repeated else f"[{what}]"

        def refuse(*_args: Any) -> NoReturn:
            self._terms.recorder.record(
                Event(what, DENIED, self._terms.name, name, reason="not-declared")
            )
            if isinstance(type_.result, t.Result):
                raise CapError("denied", "not declared")
            raise LinkError(
                f"it called {interface}#{name}, which its manifest does not declare",
                code="link.undeclared-import",
                context=self._terms.name,
                faults=[Fault(interface, f"the manifest does not declare {table}", table)],
            )

        return refuse
