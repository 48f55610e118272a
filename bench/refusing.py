"""What raw wasmtime-py needs before it can start a plugin of another runtime."""

from __future__ import annotations

from typing import Any, NoReturn

from wasmtime import Engine
from wasmtime import component as wc

__all__ = ["serve"]


def serve(engine: Engine, linker: wc.Linker, component: wc.Component) -> None:
    """WASI as the engine has it; every other import is there and fails when it is called."""
    linker.add_wasip2()
    with linker.root() as root:
        for interface, imported in component.type.imports(engine).items():
            held = imported.ty
            if interface.startswith("wasi:") or not isinstance(held, wc.ComponentInstanceType):
                continue
            with root.add_instance(interface) as place:
                for name, item in held.exports(engine).items():
                    if isinstance(item.ty, wc.FuncType):
                        place.add_func(name, _refuse)
                    elif isinstance(item.ty, wc.ResourceType):
                        place.add_resource(name, wc.ResourceType.host(0), _forget)


def _refuse(_store: Any, *_args: Any) -> NoReturn:
    raise NotImplementedError


def _forget(_store: Any, _rep: int) -> None:
    pass
