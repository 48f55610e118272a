"""Call plans: how one function's values cross, worked out once a component.

For the embedder of this layer (`instance.py`, `link.py`)::

    types = walk(component, engine)              # walk.py
    plans = Plans(types)                         # one a component; shared by threads and instances

    # one an instance
    boundary = Boundary(handles, kinds, value_bytes)

    call = plans.export(interface, name).bind(store, func, boundary)    # func: wasmtime's Func
    value = call(args)                           # args: a tuple
    # TypeError, ValueError, ValueLimitExceeded: before anything ran.  EngineFault(message): the
    # call failed.  CapError("closed"), ValueLimitExceeded afterwards: the result can't be taken.
    # The caller of `call` answers for the store: open, of this instance, entered by no one else.

    host = plans.host(interface, name)
    define_func(linker_instance, host, invoke, on_failure, lambda: boundary)
    #   invoke(args: tuple) -> value      runs in the callback; may raise anything
    #   on_failure(exc) -> message        keeps exc on the call's record; message is for the engine
    define_resource(linker_instance, name, type_id, on_drop, on_failure)
    #   on_drop(rep: int) -> None
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import wasmtime
from wasmtime import component as wc

from .crossing import Boundary
from .types import ComponentTypes, FuncType

__all__ = ["BoundCall", "CallPlan", "HostPlan", "Plans", "define_func", "define_resource"]

BoundCall = Callable[[tuple[Any, ...]], Any]
Invoke = Callable[[tuple[Any, ...]], Any]
OnFailure = Callable[[BaseException], str]


class CallPlan(Protocol):
    """How an exported function is called."""

    name: str
    type: FuncType

    def bind(self, store: wasmtime.Store, func: wc.Func, boundary: Boundary) -> BoundCall:
        """The function of one instance, ready to be called with a tuple of arguments."""
        ...


class HostPlan(Protocol):
    """How a host function is called."""

    name: str
    type: FuncType


class Plans:
    """The plans of one component's functions, made when first asked for.  Safe from threads."""

    def __init__(self, types: ComponentTypes) -> None:
        """Plan for that component."""

    def export(self, interface: str, name: str) -> CallPlan:
        """The plan of an exported function; `interface` is "" at the top level.

        Raises:
            KeyError: the component exports no such function.
        """
        raise NotImplementedError

    def host(self, interface: str, name: str) -> HostPlan:
        """The plan of an imported function.

        Raises:
            KeyError: the component imports no such function.
        """
        raise NotImplementedError


def define_func(
    linker: wc.LinkerInstance,
    plan: HostPlan,
    invoke: Invoke,
    on_failure: OnFailure,
    boundary: Callable[[], Boundary],
) -> None:
    """Define the import `plan.name` in `linker`; it lives as long as the linker and its stores.

    `CapError` from `invoke` becomes the `err` case of the function's result, where that is an
    enum or variant which has the word (else `denied`, else `unavailable`).
    """
    raise NotImplementedError


def define_resource(
    linker: wc.LinkerInstance,
    name: str,
    type_id: int,
    on_drop: Callable[[int], None],
    on_failure: OnFailure,
) -> None:
    """Define the host resource `name`; `on_drop(rep)` runs when the guest drops its last handle."""
    raise NotImplementedError
