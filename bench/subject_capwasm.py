"""capwasm through its public door: a home, a publisher's key, policy, consent, signed capsules.

Everything is on, as in production: fuel, epoch deadline, limits, grants, audit log on the disk.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import capwasm
from capwasm import Plugin

from .alone import run_here
from .guests import guest, large_component
from .home import Operator
from .kept import Workshop
from .plugins import echo_library, real_plugin
from .subject import Job, Sample, Skipped, Timer

__all__ = ["Capwasm"]

_AT_A_TIME = 1_000  # sessions of one plugin; `limits.concurrency` can't be above 1,024


class Capwasm:
    """One runtime on a home of its own, in a directory that goes away with it."""

    name = "capwasm"

    def __init__(self, workshop: Workshop) -> None:
        """Open the runtime; plugins are loaded when first asked for."""
        self._workshop = workshop
        self._stack = ExitStack()
        root = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="capwasm-bench-"))
        self._root = Path(root)
        self._operator = Operator(self._root / "main")
        self._runtime = self._stack.enter_context(self._operator.runtime())
        self._hoards: list[tuple[Plugin, int]] = []

    def _capsule(self, name: str, code: bytes, instance: str, grants: str = "") -> bytes:
        return self._operator.capsule(self._runtime, name, code, instance=instance, grants=grants)

    def _load(self, name: str, code: bytes, instance: str, grants: str = "") -> Plugin:
        return self._runtime.load(self._capsule(name, code, instance, grants))

    @cached_property
    def _echo(self) -> Plugin:
        return self._load("echo", guest("echo"), "pooled")

    @cached_property
    def _host(self) -> Plugin:
        return self._load("host", guest("host"), "pooled", "all")

    @cached_property
    def _per_call(self) -> Plugin:
        return self._load("fresh", guest("host"), "per-call", "all")

    # -- the work -------------------------------------------------------------------------------

    def _session(self, plugin: Plugin) -> Callable[..., Any]:
        return self._stack.enter_context(plugin.session()).call

    def add(self, how: str) -> Timer:
        """`Session.call` on a kept instance, or `Plugin.call`."""
        call = self._session(self._echo) if how == "kept" else self._echo.call
        return Job(lambda: call("add", 2, 40))

    def _echoed(
        self, function: str, value: Any, plain: Callable[[Any], Any] = lambda v: v
    ) -> Timer:
        call = self._session(self._echo)
        return Job(lambda: call(function, value), plain)

    def string(self, text: str, *, copy: bool) -> Timer:
        """A WIT `string`."""
        return self._echoed("copy-string" if copy else "echo-string", text)

    def data(self, data: bytes) -> Timer:
        """A WIT `list<u8>`."""
        job = self._echoed("echo-bytes", data)
        try:
            job.timed(1)
        except capwasm.LimitExceeded as exc:
            raise Skipped("above the ceiling of `value-bytes`") from exc
        return job

    def u32s(self, numbers: list[int]) -> Timer:
        """A Python list, or what the runtime gives for one."""
        return self._echoed("echo-u32s", numbers, list)

    def f64s(self, numbers: list[float]) -> Timer:
        """The same of floats."""
        return self._echoed("echo-f64s", numbers, list)

    def record(self, sample: Sample) -> Timer:
        """A dataclass comes back."""
        return self._echoed("echo-record", asdict(sample), asdict)

    def records(self, samples: list[Sample]) -> Timer:
        """A list of dataclasses comes back."""
        values = [asdict(s) for s in samples]
        return self._echoed("echo-records", values, lambda found: [asdict(s) for s in found])

    def times(self, count: int) -> Timer:
        """The granted clock."""
        call = self._session(self._host)
        return Job(lambda: call("times", count))

    def texts(self, count: int) -> Timer:
        """A granted setting: looked up in the grant each time."""
        call = self._session(self._host)
        return Job(lambda: call("texts", count))

    def values(self, count: int, size: int) -> Timer:
        """The granted store, which is a file."""
        call = self._session(self._host)
        assert call("keep", size)
        return Job(lambda: call("values", count))

    def fresh(self, how: str) -> Timer:
        """One call of a `per-call` plugin; it is compiled at load, whatever `how` says."""
        del how
        call = self._per_call.call
        return Job(lambda: call("add", 2, 40))

    def start(self) -> Timer:
        """A session, opened and closed."""
        rust = real_plugin("Rust", self._workshop)
        plugin = self._load("rust", rust.path.read_bytes(), "per-call", rust.grants)

        def run() -> bool:
            with plugin.session():
                return plugin.alive

        return Job(run)

    def load(self) -> Timer:
        """`Runtime.load` from bytes: verify, grant, link, start, on record."""
        capsule = self._capsule("large", large_component(), "per-call")

        def run() -> bool:
            with self._runtime.load(capsule) as plugin:
                return plugin.alive

        return Job(run)

    def apart(self, what: str, *args: Any) -> Timer:
        """The same plugins, loaded with `isolation="process"`."""
        match what:
            case "add":
                call = self._session(self._apart("echo", "pooled"))
                return Job(lambda: call("add", 2, 40))
            case "string" | "data":
                call = self._session(self._apart("echo", "pooled"))
                name = "echo-string" if what == "string" else "echo-bytes"
                return Job(lambda: call(name, *args))
            case "times":
                call = self._session(self._apart("host", "pooled"))
                return Job(lambda: call("times", *args))
            case _:
                call = self._apart("host", "per-call").call
                return Job(lambda: call("add", 2, 40))

    def _apart(self, code: str, instance: str) -> Plugin:
        grants = "all" if code == "host" else ""
        capsule = self._capsule(f"apart-{code}-{instance}", guest(code), instance, grants)
        return self._runtime.load(capsule, isolation="process")

    def native(self, what: str, *args: Any) -> Timer:
        """`guests/echo.c`, built by the C compiler at hand."""
        call = self._native.call
        if what == "data":
            return Job(lambda: call("handle", "echo", *args).unwrap())
        if what == "times":
            (count,) = args
            asked = b"\0" * count
            return Job(lambda: call("handle", "clock", asked), lambda _: count)

        def run() -> Any:
            self._native.kill("to start it again")
            return call("handle", "echo", b"x").unwrap()

        return Job(run)

    @cached_property
    def _native(self) -> Plugin:
        code = echo_library(self._workshop).read_bytes()
        capsule = self._operator.capsule(
            self._runtime, "native", code, instance="single", grants="clock", kind="native"
        )
        return self._runtime.load(capsule)

    def _on_threads(self, threads: int, one: Callable[[], Any]) -> Timer:
        if threads == 1:
            return Job(lambda: [one()])
        pool = self._stack.enter_context(ThreadPoolExecutor(threads))
        return Job(lambda: [f.result() for f in [pool.submit(one) for _ in range(threads)]])

    def spin(self, rounds: int, threads: int) -> Timer:
        """One pooled plugin, called from several threads."""
        call = self._echo.call
        return self._on_threads(threads, lambda: call("spin", rounds))

    def short(self, calls: int, threads: int) -> Timer:
        """The same, many times."""
        call = self._echo.call

        def one() -> Any:
            for _ in range(calls):
                last = call("add", 2, 40)
            return last

        return self._on_threads(threads, one)

    # -- alone ----------------------------------------------------------------------------------

    def alone(self, task: str, **spec: Any) -> Callable[[], dict[str, float]]:
        """`start`: on a home of its own."""
        if task == "start":
            return self._prepare(**spec)
        return lambda: run_here(self.name, task, spec)

    def _prepare(self, language: Any, *, cold: bool, **spec: Any) -> Callable[[], dict[str, float]]:
        real = real_plugin(language, self._workshop)
        kept = real.compiled(self.name)  # a cache, which knows by itself what can be used
        operator = Operator(self._root / f"{language}-{'cold' if cold else 'warm'}")
        cache, capsule = operator.home / "cache", operator.home.with_name("plugin.capsule")
        if not cold and kept.exists():
            shutil.copytree(kept, cache)
        with operator.runtime() as runtime:
            capsule.write_bytes(
                operator.capsule(
                    runtime,
                    language.lower(),
                    real.path.read_bytes(),
                    instance="pooled",
                    grants=real.grants,
                )
            )
        asked = {**spec, **real.call, "home": str(operator.home), "path": str(capsule)}

        def run() -> dict[str, float]:
            if cold:
                shutil.rmtree(cache, ignore_errors=True)
            return run_here(self.name, "start", asked)

        if not cold:
            run()  # compiles, if nothing was kept, or something that this version doesn't take
            if _names(cache) - _names(kept):
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(cache, kept)
        return run

    def keep(self, count: int) -> None:
        """Sessions: `_AT_A_TIME` of one plugin, then of another with the same code."""
        for _ in range(count):
            if not self._hoards or self._hoards[-1][1] == _AT_A_TIME:
                name = f"idle{len(self._hoards)}"
                self._hoards.append((self._load(name, guest("echo"), "pooled"), 0))
            plugin, used = self._hoards[-1]
            self._hoards[-1] = plugin, used + 1
            session = self._stack.enter_context(plugin.session())
            assert session.call("add", 2, 40) == 42

    def one(self) -> Callable[[], Any]:
        """2 + 40 on a kept instance."""
        call = self._session(self._echo)
        return lambda: call("add", 2, 40)

    def close(self) -> None:
        """Close the runtime, remove the home."""
        self._stack.close()


def _names(place: Path) -> set[str]:
    return {path.name for path in place.glob("*")}
