"""A real plugin from nothing, in this process: each subject through the API that its users have.

Nothing but the standard library is imported before the clock runs.  What they give, in seconds:
`import`, `start` (from there to a live instance), `first-call`, `call` (the median of many),
`second-instance` (the next one), `instance` (the median of many).
"""

from __future__ import annotations

import os
import statistics
import struct
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

__all__ = ["BY_NAME"]


def capwasm(spec: dict[str, Any]) -> dict[str, float]:
    """`Runtime.open` on a home and `load` of a capsule: all is verified, granted, recorded."""
    began = time.perf_counter()
    from capwasm import Runtime

    imported = time.perf_counter()
    with (
        Runtime.open(spec["home"], core_version="1.0.0") as runtime,
        runtime.load(spec["path"]) as plugin,
        plugin.session() as session,
    ):
        started = time.perf_counter()

        def call() -> Any:
            found = session.call(spec["function"], *spec["args"])
            return found if isinstance(found, int) else {"error": found.error}

        return {
            "import": imported - began,
            "start": started - imported,
            **_go_on(spec, call, plugin.session),
        }


def wheel(spec: dict[str, Any]) -> dict[str, float]:
    """An engine, a component that is compiled or mapped, WASI, an instance; nothing is verified."""
    began = time.perf_counter()
    from wasmtime import Config, Engine, Store, WasiConfig
    from wasmtime import component as wc

    from .refusing import serve

    imported = time.perf_counter()
    engine = Engine(Config())
    if spec["cold"]:
        component = wc.Component(engine, Path(spec["path"]).read_bytes())
    else:
        component = wc.Component.deserialize_file(engine, spec["compiled"])
    linker = wc.Linker(engine)
    serve(engine, linker, component)

    def instantiate() -> tuple[Any, Any]:
        store = Store(engine)
        store.set_wasi(WasiConfig())
        return store, linker.instantiate(store, component)

    store, instance = instantiate()
    started = time.perf_counter()
    if spec["cold"]:
        Path(spec["compiled"]).write_bytes(component.serialize())
    inner = component.get_export_index(spec["interface"]) if spec["interface"] else None
    index = component.get_export_index(spec["function"], inner)
    assert index is not None
    func = instance.get_func(store, index)

    def call() -> Any:
        found = func(store, *spec["args"])
        return found if isinstance(found, int) else {"error": found.payload}

    def another() -> AbstractContextManager[Any]:
        store, _ = instantiate()
        return store  # type: ignore[no-any-return]

    return {
        "import": imported - began,
        "start": started - imported,
        **_go_on(spec, call, another),
    }


def extism(spec: dict[str, Any]) -> dict[str, float]:
    """A `CompiledPlugin` from the module's bytes, and a `Plugin` of it; nothing is verified."""
    os.environ["EXTISM_CACHE_CONFIG"] = spec["cache"]
    began = time.perf_counter()
    from extism import Plugin  # type: ignore[import-untyped,import-not-found,unused-ignore]
    from extism.extism import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
        CompiledPlugin,
    )

    imported = time.perf_counter()
    compiled = CompiledPlugin(Path(spec["path"]).read_bytes())
    plugin = Plugin(compiled)
    started = time.perf_counter()
    both, one = struct.Struct("<II"), struct.Struct("<Q")

    def call() -> Any:
        return plugin.call("add", both.pack(2, 40), lambda answer: one.unpack(answer)[0])

    return {
        "import": imported - began,
        "start": started - imported,
        **_go_on({**spec, "expected": 42}, call, lambda: Plugin(compiled)),
    }


def _go_on(
    spec: dict[str, Any],
    call: Callable[[], Any],
    another: Callable[[], AbstractContextManager[Any]],
) -> dict[str, float]:
    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        start = time.perf_counter()
        value = work()
        return time.perf_counter() - start, value

    def checked() -> float:
        seconds, value = timed(call)
        if value != spec["expected"]:
            raise AssertionError(f"{value!r} is not {spec['expected']!r}")
        return seconds

    first = checked()
    times = [checked() for _ in range(spec["calls"])]
    instances = []
    for _ in range(spec["instances"]):
        seconds, made = timed(another)
        instances.append(seconds)
        with made:
            pass
    return {
        "first-call": first,
        "call": statistics.median(times),
        "second-instance": instances[0],
        "instance": statistics.median(instances),
    }


BY_NAME: dict[str, Callable[[dict[str, Any]], dict[str, float]]] = {
    "capwasm": capwasm,
    "wasmtime-py": wheel,
    "Extism": extism,
}
