"""Raw wasmtime-py: the wheel's own classes, with the engine's defaults: no fuel, no deadline, no limits."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from wasmtime import Config, Engine, Store, WasiConfig
from wasmtime import component as wc

from .alone import run_here
from .guests import guest, large_component
from .kept import Workshop
from .plugins import real_plugin
from .refusing import serve
from .subject import SETTING, Job, Sample, Timer

__all__ = ["Wheel"]

_SETTINGS = {"greeting": SETTING}
_FIELDS = ("id", "ratio", "name", "live")


class Wheel:
    """One engine; components are compiled when first asked for."""

    name = "wasmtime-py"

    def __init__(self, workshop: Workshop) -> None:
        """Nothing is compiled yet."""
        self._workshop = workshop
        self._stack = ExitStack()
        self._value = b""
        self._hoard: list[Any] = []
        self._engine = Engine(Config())
        self._files = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))

    @cached_property
    def _echo(self) -> tuple[wc.Linker, wc.Component]:
        return wc.Linker(self._engine), wc.Component(self._engine, guest("echo"))

    @cached_property
    def _host(self) -> tuple[wc.Linker, wc.Component]:
        linker = wc.Linker(self._engine)
        with linker.root() as root:
            with root.add_instance("capwasm:clock/clock@0.1.0") as clock:
                clock.add_func("monotonic", lambda _store: time.monotonic_ns())
            with root.add_instance("capwasm:config/config@0.1.0") as config:
                config.add_func("get", lambda _store, key: _SETTINGS.get(key))
            with root.add_instance("capwasm:kv/store@0.1.0") as kv:
                kv.add_func("get", lambda _store, key: self._value if key == "value" else None)
                kv.add_func("set", self._set)
        return linker, wc.Component(self._engine, guest("host"))

    def _set(self, _store: Any, _key: str, value: bytes, _ttl: int | None) -> None:
        self._value = value

    def _bind(
        self, made: tuple[wc.Linker, wc.Component], function: str
    ) -> tuple[Store, wc.Func, wc.Instance]:
        store = Store(self._engine)
        linker, component = made
        instance = linker.instantiate(store, component)
        func = instance.get_func(store, function)
        assert func is not None
        return store, func, instance

    def _call(
        self,
        made: tuple[wc.Linker, wc.Component],
        function: str,
        *args: Any,
        plain: Callable[[Any], Any] = lambda v: v,
    ) -> Timer:
        store, func, _ = self._bind(made, function)
        return Job(lambda: func(store, *args), plain)

    # -- the work -------------------------------------------------------------------------------

    def add(self, how: str) -> Timer:
        """`Func.__call__`, always on a kept instance."""
        del how
        return self._call(self._echo, "add", 2, 40)

    def string(self, text: str, *, copy: bool) -> Timer:
        """A WIT `string`."""
        return self._call(self._echo, "copy-string" if copy else "echo-string", text)

    def data(self, data: bytes) -> Timer:
        """A WIT `list<u8>`."""
        return self._call(self._echo, "echo-bytes", data, plain=bytes)

    def u32s(self, numbers: list[int]) -> Timer:
        """A list of numbers."""
        return self._call(self._echo, "echo-u32s", numbers)

    def f64s(self, numbers: list[float]) -> Timer:
        """The same of floats."""
        return self._call(self._echo, "echo-f64s", numbers)

    def record(self, sample: Sample) -> Timer:
        """The wheel takes any object with these attributes."""
        return self._call(self._echo, "echo-record", _record(sample), plain=_plain)

    def records(self, samples: list[Sample]) -> Timer:
        """A list of them."""
        values = [_record(s) for s in samples]
        return self._call(
            self._echo, "echo-records", values, plain=lambda found: [_plain(s) for s in found]
        )

    def times(self, count: int) -> Timer:
        """A Python function behind the clock's name."""
        return self._call(self._host, "times", count)

    def texts(self, count: int) -> Timer:
        """A Python dict behind the setting's name."""
        return self._call(self._host, "texts", count)

    def values(self, count: int, size: int) -> Timer:
        """A Python attribute behind the store's name."""
        self._value = bytes(size)
        return self._call(self._host, "values", count)

    def fresh(self, how: str) -> Timer:
        """Store, instance, function, call; compiled before, whatever `how` says."""
        del how
        made = self._host

        def run() -> Any:
            store, func, _ = self._bind(made, "add")
            with store:
                return func(store, 2, 40)

        return Job(run)

    def start(self) -> Timer:
        """WASI is served; every other import fails when it is called."""
        code = real_plugin("Rust", self._workshop).path.read_bytes()
        component = wc.Component(self._engine, code)
        linker = wc.Linker(self._engine)
        serve(self._engine, linker, component)

        def run() -> bool:
            with Store(self._engine) as store:
                store.set_wasi(WasiConfig())
                return linker.instantiate(store, component) is not None

        return Job(run)

    def load(self) -> Timer:
        """Map what `serialize` wrote; link and instantiate; nothing is verified."""
        path = self._files / "large.cwasm"
        path.write_bytes(wc.Component(self._engine, large_component()).serialize())

        def run() -> bool:
            component = wc.Component.deserialize_file(self._engine, str(path))
            with Store(self._engine) as store:
                return wc.Linker(self._engine).instantiate(store, component) is not None

        return Job(run)

    def _on_threads(self, threads: int, function: str, calls: int, *args: int) -> Timer:
        bound = [self._bind(self._echo, function) for _ in range(threads)]

        def one(mine: tuple[Store, wc.Func, wc.Instance]) -> Any:
            store, func, _ = mine
            for _ in range(calls):
                last = func(store, *args)
            return last

        if threads == 1:
            return Job(lambda: [one(bound[0])])
        pool = self._stack.enter_context(ThreadPoolExecutor(threads))
        return Job(lambda: list(pool.map(one, bound)))

    def spin(self, rounds: int, threads: int) -> Timer:
        """A store for each thread."""
        return self._on_threads(threads, "spin", 1, rounds)

    def short(self, calls: int, threads: int) -> Timer:
        """A store for each thread."""
        return self._on_threads(threads, "add", calls, 2, 40)

    # -- alone ----------------------------------------------------------------------------------

    def alone(self, task: str, **spec: Any) -> Callable[[], dict[str, float]]:
        """`start`: a cold run leaves behind what the others map."""
        if task == "start":
            spec = self._prepare(**spec)
        return lambda: run_here(self.name, task, spec)

    def _prepare(self, language: Any, **spec: Any) -> dict[str, Any]:
        real = real_plugin(language, self._workshop)
        compiled = real.compiled(f"{self.name} {version('wasmtime')}")
        if not spec["cold"] and not compiled.exists():
            code = real.path.read_bytes()
            compiled.write_bytes(wc.Component(self._engine, code).serialize())
        return {**spec, **real.call, "path": str(real.path), "compiled": str(compiled)}

    def keep(self, count: int) -> None:
        """Stores with an instance each."""
        for _ in range(count):
            store, func, instance = self._bind(self._echo, "add")
            assert func(store, 2, 40) == 42
            self._hoard.append((store, func, instance))

    def one(self) -> Callable[[], Any]:
        """2 + 40 on a kept instance."""
        store, func, _ = self._bind(self._echo, "add")
        return lambda: func(store, 2, 40)

    def close(self) -> None:
        """Let go of the threads and files."""
        self._stack.close()


def _record(sample: Sample) -> Any:
    return SimpleNamespace(**{name: getattr(sample, name) for name in _FIELDS})


def _plain(found: Any) -> dict[str, Any]:
    return {name: getattr(found, name) for name in _FIELDS}
