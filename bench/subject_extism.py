"""The Extism Python SDK.  It has bytes and no types: numbers are packed, records are JSON."""

from __future__ import annotations

import json
import os
import struct
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from .alone import run_here
from .guests import guest, large_module
from .kept import Workshop
from .subject import SETTING, Job, Sample, Skipped, Timer, Unavailable

__all__ = ["Extism"]

_SETTINGS = {"greeting": SETTING}
_BOTH, _ONE = struct.Struct("<II"), struct.Struct("<Q")
_CACHE = "EXTISM_CACHE_CONFIG"  # the runtime reads it for each plugin; empty: no cache
_VALUES: dict[str, bytes] = {}  # what its host function serves, which is the process's


_NO_COMPONENTS = "Extism runs modules, not components"


def _from_json(answer: Any) -> Any:
    return json.loads(bytes(answer))


def _number(answer: Any) -> int:
    return int(_ONE.unpack(answer)[0])


class Extism:
    """Plugins of one module.  The SDK registers host functions for the whole process."""

    name = "Extism"

    def __init__(self, workshop: Workshop) -> None:
        """Import the SDK and offer it the two host functions.

        Raises:
            Unavailable: it isn't installed.
        """
        try:
            import extism  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError as exc:
            raise Unavailable("not installed: pip install 'capwasm[bench]'") from exc
        del workshop  # nothing of it is built
        self._extism: Any = extism
        self._hoard: list[Any] = []
        self._stack = ExitStack()
        self._files = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        kept = os.environ.get(_CACHE)
        self._stack.callback(_set_cache, kept)
        _set_cache("")
        if not extism.extism.HOST_FN_REGISTRY:
            _offer(extism)

    @cached_property
    def _compiled(self) -> Any:
        return self._extism.extism.CompiledPlugin(guest("extism"))

    def _call(
        self,
        function: str,
        data: bytes | str,
        parse: Callable[[Any], Any] = bytes,
        plain: Callable[[Any], Any] = lambda v: v,
    ) -> Timer:
        call = self._extism.Plugin(self._compiled).call
        return Job(lambda: call(function, data, parse), plain)

    # -- the work -------------------------------------------------------------------------------

    def add(self, how: str) -> Timer:
        """Two numbers packed into eight bytes, on a kept plugin."""
        del how
        call, pack = self._extism.Plugin(self._compiled).call, _BOTH.pack
        return Job(lambda: call("add", pack(2, 40), _number))

    def string(self, text: str, *, copy: bool) -> Timer:
        """Encoded and decoded by the SDK."""
        return self._call("copy" if copy else "echo", text, lambda buf: str(buf, "utf-8"))

    def data(self, data: bytes) -> Timer:
        """What Extism is made for."""
        return self._call("echo", data)

    def record(self, sample: Sample) -> Timer:
        """JSON out and in on the host's side; the guest does not even parse it."""
        call, value = self._extism.Plugin(self._compiled).call, asdict(sample)
        return Job(lambda: call("echo", json.dumps(value), _from_json))

    def records(self, samples: list[Sample]) -> Timer:
        """The same with a list."""
        call, value = self._extism.Plugin(self._compiled).call, [asdict(s) for s in samples]
        return Job(lambda: call("echo", json.dumps(value), _from_json))

    def u32s(self, numbers: list[int]) -> Timer:
        """Packed by `struct` on the host's side, which is where a guest would have them."""
        return self._packed(numbers, f"<{len(numbers)}I")

    def f64s(self, numbers: list[float]) -> Timer:
        """The same of floats."""
        return self._packed(numbers, f"<{len(numbers)}d")

    def _packed(self, numbers: list[Any], layout: str) -> Timer:
        call, form = self._extism.Plugin(self._compiled).call, struct.Struct(layout)
        return Job(
            lambda: call("echo", form.pack(*numbers), lambda answer: list(form.unpack(answer)))
        )

    def times(self, count: int) -> Timer:
        """A host function that returns a number."""
        return self._call("times", _ONE.pack(count), _number)

    def texts(self, count: int) -> Timer:
        """A host function from text to text, as the SDK infers it from annotations."""
        return self._call("texts", _ONE.pack(count), _number)

    def values(self, count: int, size: int) -> Timer:
        """A host function from text to bytes."""
        _VALUES["value"] = bytes(size)
        return self._call("values", _ONE.pack(count), _number)

    def _cached(self) -> str:
        """A configuration that turns the runtime's compile cache on, in a directory of ours."""
        config = self._files / "cache.toml"
        place = json.dumps(str(self._files / "cache"))
        config.write_text(f"[cache]\ndirectory = {place}\n")
        return str(config)

    def fresh(self, how: str) -> Timer:
        """`Plugin(…)` from a `CompiledPlugin`, or from the module's bytes."""
        make, source = self._extism.Plugin, self._compiled if how == "compiled" else guest("extism")
        data, setting = _BOTH.pack(2, 40), self._cached() if how == "cached" else ""

        def run() -> Any:
            os.environ[_CACHE] = setting
            try:
                with make(source) as plugin:
                    return plugin.call("add", data, _number)
            finally:
                os.environ[_CACHE] = ""

        return Job(run)

    def start(self) -> Timer:
        """It runs no components."""
        raise Skipped(_NO_COMPONENTS)

    def load(self) -> Timer:
        """`Plugin(bytes)`, with the engine's compile cache; nothing is verified."""
        make, code, setting = self._extism.Plugin, large_module(), self._cached()

        def run() -> bool:
            os.environ[_CACHE] = setting
            try:
                with make(code) as plugin:
                    return bool(plugin.function_exists("add"))
            finally:
                os.environ[_CACHE] = ""

        return Job(run)

    def _on_threads(self, threads: int, function: str, calls: int, data: bytes) -> Timer:
        plugins = [self._extism.Plugin(self._compiled) for _ in range(threads)]

        def one(plugin: Any) -> Any:
            for _ in range(calls):
                last = plugin.call(function, data, _number)
            return last

        if threads == 1:
            return Job(lambda: [one(plugins[0])])
        pool = self._stack.enter_context(ThreadPoolExecutor(threads))
        return Job(lambda: list(pool.map(one, plugins)))

    def spin(self, rounds: int, threads: int) -> Timer:
        """A plugin for each thread."""
        return self._on_threads(threads, "spin", 1, _ONE.pack(rounds))

    def short(self, calls: int, threads: int) -> Timer:
        """A plugin for each thread."""
        return self._on_threads(threads, "add", calls, _BOTH.pack(2, 40))

    # -- alone ----------------------------------------------------------------------------------

    def alone(self, task: str, **spec: Any) -> Callable[[], dict[str, float]]:
        """`start`: only of the code that it has as a module, with its compile cache or without."""
        if task != "start":
            return lambda: run_here(self.name, task, spec)
        if spec["language"] != "WAT":
            raise Skipped(_NO_COMPONENTS)
        module = self._files / "large.wasm"
        module.write_bytes(large_module())
        spec |= {"path": str(module), "cache": "" if spec["cold"] else self._cached()}

        def run() -> dict[str, float]:
            return run_here(self.name, task, spec)

        if not spec["cold"]:
            run()  # fills the cache
        return run

    def keep(self, count: int) -> None:
        """Plugins of one `CompiledPlugin`."""
        for _ in range(count):
            plugin = self._extism.Plugin(self._compiled)
            assert plugin.call("add", _BOTH.pack(2, 40), _number) == 42
            self._hoard.append(plugin)

    def one(self) -> Callable[[], Any]:
        """2 + 40 on a kept plugin."""
        call, data = self._extism.Plugin(self._compiled).call, _BOTH.pack(2, 40)
        return lambda: call("add", data, _number)

    def close(self) -> None:
        """Let go of the threads and files."""
        self._stack.close()


def _set_cache(value: str | None) -> None:
    if value is None:
        os.environ.pop(_CACHE, None)
    else:
        os.environ[_CACHE] = value


def _offer(extism: Any) -> None:
    def monotonic(_plugin: Any, _inputs: Any, outputs: Any) -> None:
        outputs[0].value = time.monotonic_ns()

    def config(key: str) -> str:
        return _SETTINGS[key]

    def value(key: str) -> bytes:
        return _VALUES[key.strip()]

    extism.host_fn(signature=([], [extism.ValType.I64]), user_data=[])(monotonic)
    extism.host_fn(user_data=[])(config)
    extism.host_fn(user_data=[])(value)
