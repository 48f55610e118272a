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

from .guests import guest, large_module
from .subject import SETTING, Job, Sample, Skipped, Unavailable

__all__ = ["Extism"]

_SETTINGS = {"greeting": SETTING}
_BOTH, _ONE = struct.Struct("<II"), struct.Struct("<Q")
_CACHE = "EXTISM_CACHE_CONFIG"  # the runtime reads it for each plugin; empty: no cache


def _from_json(answer: Any) -> Any:
    return json.loads(bytes(answer))


def _number(answer: Any) -> int:
    return int(_ONE.unpack(answer)[0])


class Extism:
    """Plugins of one module.  The SDK registers host functions for the whole process."""

    name = "Extism"

    def __init__(self) -> None:
        """Import the SDK and offer it the two host functions.

        Raises:
            Unavailable: it isn't installed.
        """
        try:
            import extism  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError as exc:
            raise Unavailable("not installed: pip install 'capwasm[bench]'") from exc
        self._extism: Any = extism
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
    ) -> Job:
        call = self._extism.Plugin(self._compiled).call
        return Job(lambda: call(function, data, parse), plain)

    # -- the work -------------------------------------------------------------------------------

    def add(self, how: str) -> Job:
        """Two numbers packed into eight bytes, on a kept plugin."""
        del how
        call, pack = self._extism.Plugin(self._compiled).call, _BOTH.pack
        return Job(lambda: call("add", pack(2, 40), _number))

    def string(self, text: str, *, copy: bool) -> Job:
        """Encoded and decoded by the SDK."""
        return self._call("copy" if copy else "echo", text, lambda buf: str(buf, "utf-8"))

    def data(self, data: bytes) -> Job:
        """What Extism is made for."""
        return self._call("echo", data)

    def record(self, sample: Sample) -> Job:
        """JSON out and in on the host's side; the guest does not even parse it."""
        call, value = self._extism.Plugin(self._compiled).call, asdict(sample)
        return Job(lambda: call("echo", json.dumps(value), _from_json))

    def records(self, samples: list[Sample]) -> Job:
        """The same with a list."""
        call, value = self._extism.Plugin(self._compiled).call, [asdict(s) for s in samples]
        return Job(lambda: call("echo", json.dumps(value), _from_json))

    def times(self, count: int) -> Job:
        """A host function that returns a number."""
        return self._call("times", _ONE.pack(count), _number)

    def texts(self, count: int) -> Job:
        """A host function from text to text, as the SDK infers it from annotations."""
        return self._call("texts", _ONE.pack(count), _number)

    def fresh(self, *, compiled: bool) -> Job:
        """`Plugin(…)` from the module's bytes, which compiles it, or from a `CompiledPlugin`."""
        make, source = self._extism.Plugin, self._compiled if compiled else guest("extism")
        data = _BOTH.pack(2, 40)

        def run() -> Any:
            with make(source) as plugin:
                return plugin.call("add", data, _number)

        return Job(run)

    def start(self) -> Job:
        """It runs no components."""
        raise Skipped("Extism runs modules, not components")

    def load(self, which: str, *, warm: bool) -> Job:
        """`Plugin(bytes)`, with the engine's compile cache or without; nothing is verified."""
        if which != "large":
            raise Skipped("Extism runs modules, not components")
        make, code = self._extism.Plugin, large_module()
        setting = ""
        if warm:
            config = self._files / "cache.toml"
            place = json.dumps(str(self._files / "cache"))
            config.write_text(f"[cache]\ndirectory = {place}\n")
            setting = str(config)

        def run() -> bool:
            os.environ[_CACHE] = setting
            try:
                with make(code) as plugin:
                    return bool(plugin.function_exists("add"))
            finally:
                os.environ[_CACHE] = ""

        return Job(run)

    def spin(self, rounds: int, threads: int) -> Job:
        """A plugin for each thread."""
        plugins = [self._extism.Plugin(self._compiled) for _ in range(threads)]
        data = _ONE.pack(rounds)

        def one(plugin: Any) -> Any:
            return plugin.call("spin", data, _number)

        if threads == 1:
            return Job(lambda: [one(plugins[0])])
        pool = self._stack.enter_context(ThreadPoolExecutor(threads))
        return Job(lambda: list(pool.map(one, plugins)))

    def idle(self, count: int) -> Callable[[], None]:
        """Plugins of one `CompiledPlugin`."""
        compiled, make, kept = self._compiled, self._extism.Plugin, []

        def fill() -> None:
            for _ in range(count):
                plugin = make(compiled)
                assert plugin.call("add", _BOTH.pack(2, 40), _number) == 42
                kept.append(plugin)

        return fill

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

    extism.host_fn(signature=([], [extism.ValType.I64]), user_data=[])(monotonic)
    extism.host_fn(user_data=[])(config)
