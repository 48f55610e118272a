"""Raw wasmtime-py: the wheel's own classes, with the engine's defaults: no fuel, no deadline, no limits."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from wasmtime import Config, Engine, Store
from wasmtime import component as wc

from .guests import guest, large_component, weather
from .subject import SETTING, Job, Sample

__all__ = ["Wheel"]

_SETTINGS = {"greeting": SETTING}
_FIELDS = ("id", "ratio", "name", "live")


class Wheel:
    """One engine; components are compiled when first asked for."""

    name = "wasmtime-py"

    def __init__(self) -> None:
        """Nothing is compiled yet."""
        self._stack = ExitStack()
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
        return linker, wc.Component(self._engine, guest("host"))

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
    ) -> Job:
        store, func, _ = self._bind(made, function)
        return Job(lambda: func(store, *args), plain)

    # -- the work -------------------------------------------------------------------------------

    def add(self, how: str) -> Job:
        """`Func.__call__`, always on a kept instance."""
        del how
        return self._call(self._echo, "add", 2, 40)

    def string(self, text: str, *, copy: bool) -> Job:
        """A WIT `string`."""
        return self._call(self._echo, "copy-string" if copy else "echo-string", text)

    def data(self, data: bytes) -> Job:
        """A WIT `list<u8>`."""
        return self._call(self._echo, "echo-bytes", data, plain=bytes)

    def record(self, sample: Sample) -> Job:
        """The wheel takes any object with these attributes."""
        return self._call(self._echo, "echo-record", _record(sample), plain=_plain)

    def records(self, samples: list[Sample]) -> Job:
        """A list of them."""
        values = [_record(s) for s in samples]
        return self._call(
            self._echo, "echo-records", values, plain=lambda found: [_plain(s) for s in found]
        )

    def times(self, count: int) -> Job:
        """A Python function behind the clock's name."""
        return self._call(self._host, "times", count)

    def texts(self, count: int) -> Job:
        """A Python dict behind the setting's name."""
        return self._call(self._host, "texts", count)

    def fresh(self, *, compiled: bool) -> Job:
        """Store, instance, function, call; compiled before."""
        del compiled
        made = self._host

        def run() -> Any:
            store, func, _ = self._bind(made, "add")
            with store:
                return func(store, 2, 40)

        return Job(run)

    def start(self) -> Job:
        """Every import a trap: the least that can be linked."""
        component = wc.Component(self._engine, weather()[0])
        linker = wc.Linker(self._engine)
        linker.define_unknown_imports_as_traps(component)

        def run() -> bool:
            with Store(self._engine) as store:
                return linker.instantiate(store, component) is not None

        return Job(run)

    def load(self, which: str, *, warm: bool) -> Job:
        """Compile, or map what `serialize` wrote; link and instantiate; nothing is verified."""
        code = large_component() if which == "large" else weather()[0]
        path = self._files / f"{which}.cwasm"
        if warm:
            path.write_bytes(wc.Component(self._engine, code).serialize())

        def run() -> bool:
            component = (
                wc.Component.deserialize_file(self._engine, str(path))
                if warm
                else wc.Component(self._engine, code)
            )
            linker = wc.Linker(self._engine)
            linker.define_unknown_imports_as_traps(component)
            with Store(self._engine) as store:
                return linker.instantiate(store, component) is not None

        return Job(run)

    def spin(self, rounds: int, threads: int) -> Job:
        """A store for each thread."""
        bound = [self._bind(self._echo, "spin") for _ in range(threads)]

        def one(mine: tuple[Store, wc.Func, wc.Instance]) -> Any:
            store, func, _ = mine
            return func(store, rounds)

        if threads == 1:
            return Job(lambda: [one(bound[0])])
        pool = self._stack.enter_context(ThreadPoolExecutor(threads))
        return Job(lambda: list(pool.map(one, bound)))

    def idle(self, count: int) -> Callable[[], None]:
        """Stores with an instance each."""
        made, kept = self._echo, []

        def make() -> None:
            for _ in range(count):
                store, func, instance = self._bind(made, "add")
                assert func(store, 2, 40) == 42
                kept.append((store, func, instance))

        return make

    def close(self) -> None:
        """Let go of the threads and files."""
        self._stack.close()


def _record(sample: Sample) -> Any:
    return SimpleNamespace(**{name: getattr(sample, name) for name in _FIELDS})


def _plain(found: Any) -> dict[str, Any]:
    return {name: getattr(found, name) for name in _FIELDS}
