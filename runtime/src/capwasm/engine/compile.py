"""Verified code to a compiled component, without trusting the compiler's input or the cache.

Code is compiled once: in a process apart (`compile_process.py`), by whoever comes first of all the
threads and processes that want it.  What comes back is kept for the others and for the next start
(`cache.py`).  `deserialize` runs what it is given, so the bytes that were checked are the bytes that
are mapped (`sealed.py`; SIG-21, SIG-22, PER-04).
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import wasmtime
import wasmtime.component

from capwasm.errors import ArtifactError, LinkError
from capwasm.limits import DEFAULTS

from .cache import CodeCache
from .capi import layout_faults
from .compile_process import CompileLimits, compile_apart, first_lines
from .compiled import Compiled, load
from .config import fingerprint
from .engine import PluginEngine
from .lane.wire import VERSION, NotLaned, pages_for
from .sealed import Sealed
from .typedoc import decode, encode
from .types import ComponentTypes
from .walk import walk

__all__ = ["CompileLimits", "Compiler", "Compiling", "check_component", "types_of"]

COMPONENT_MAGIC = b"\0asm\x0d\0\x01\0"
CORE_MAGIC = b"\0asm\x01\0\0\0"
# What is over sooner is not told.
_SLOW_SECONDS = 0.5
_SLOW_BYTES = 1_000_000
_TYPES_BYTES = 16 * 1024 * 1024
# For somebody else who compiles the same code, and may hang.
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Compiling:
    """How far it is with compiling something.

    Attributes:
        code_bytes: the component's size.
        seconds: since it began.
        done: whether it has ended, well or not; told once, the last.
        elsewhere: whether another thread or process compiles this very code, and this one waits.
    """

    code_bytes: int
    seconds: float
    done: bool = False
    elsewhere: bool = False


def check_component(code: bytes | memoryview) -> None:
    """Pass if the bytes begin like a binary component; nothing is parsed.

    Raises:
        ArtifactError: WAT text, a core module, a precompiled file, an ELF, or anything else
            (TYP-01..03): the engine itself would take some of these.
    """
    head = bytes(code[:8])
    if head == COMPONENT_MAGIC:
        return
    what = "bytes of an unknown kind"
    if head == CORE_MAGIC:
        what = "a core module; make a component of it (wasm-tools component new)"
    elif head[:4] == b"\0asm":
        what = "a WebAssembly binary of another version"
    elif head[:4] == b"\x7fELF":
        what = "a native or precompiled file (ELF)"
    elif head[:1] == b";" or head.lstrip()[:1] == b"(":
        what = "WebAssembly text; only the binary form is taken"
    raise ArtifactError(f"the code is {what}", code="artifact.not-a-component")


@dataclass(slots=True)
class Found:
    """Where the compiled code of loads came from, and what compiling took.

    Attributes:
        memory: it was there for another plugin.   cache: from the disk.   compiler: it was made now.
        seconds: of all that were made.
    """

    memory: int = 0
    cache: int = 0
    compiler: int = 0
    seconds: float = 0.0


class Compiler:
    """Compiles and caches.  Safe from many threads and processes.

    Attributes:
        found: what its loads came to.
    """

    def __init__(
        self,
        engine: PluginEngine,
        cache_dir: Path | None,
        limits: CompileLimits | None = None,
        on_slow: Callable[[str], None] | None = None,
        on_compile: Callable[[Compiling], None] | None = None,
        *,
        lane: bool = True,
    ) -> None:
        """Cache below `cache_dir`, or not at all.

        Args:
            engine: the engine that will run the result.
            cache_dir: made with mode 0700 if it isn't there; where it can't be used, nothing is
                cached.
            limits: of each compilation, and of the cache.
            on_slow: told one line when there can be no cache; and, unless there is an `on_compile`,
                when a compilation is not in the cache and will take a while.
            on_compile: told ten times a second how far it is with one that takes longer than half a
                second, on the thread that wants the code; what it raises ends the compilation.
            lane: whether plugins get the bulk lane, for lists; without it they run as they came.
        """
        self.found = Found()
        self._engine = engine
        self._limits = limits or CompileLimits()
        self._on_slow, self._on_compile = on_slow, on_compile
        self._fingerprint = fingerprint()
        # The lane's conversions rely on the layout of the wheel's structures (see `capi.py`).
        self._lane = lane and not layout_faults()
        self._lock = threading.Lock()
        self._loaded: weakref.WeakValueDictionary[str, Compiled] = weakref.WeakValueDictionary()
        self._cache: CodeCache | None = None
        if cache_dir is not None:
            try:
                self._cache = CodeCache(cache_dir, self._limits.cache_bytes)
            except OSError as exc:
                if on_slow is not None:
                    on_slow(f"compiled code is not cached: {exc.strerror}: {cache_dir}")

    def compile(
        self,
        code: bytes | memoryview,
        *,
        sha256: str | None = None,
        value_bytes: int = DEFAULTS.value_bytes,
        keep: bool = False,
    ) -> Compiled:
        """The compiled component for these verified bytes.

        Args:
            code: the component.
            sha256: its digest, in hex, if it was proven already; it decides which entry of the cache
                is run, so nobody but `verify` may have made it.
            value_bytes: the limit that it will run under, which bounds what the lane takes.
            keep: whether its sealed bytes stay open as long as it is there, for a process apart.

        Raises:
            ArtifactError: not a component, invalid, or over the limits of compiling.
        """
        check_component(code)
        if len(code) > self._limits.code_bytes:
            raise ArtifactError(
                f"the code has {len(code)} bytes; at most {self._limits.code_bytes} are compiled",
                code="artifact.compile-limit",
            )
        self._engine.check()
        digest = sha256 or hashlib.sha256(code).hexdigest()
        pages = pages_for(value_bytes) if self._lane else 0
        kind = f"{self._fingerprint} lane {VERSION} {pages}" if pages else self._fingerprint
        name = hashlib.sha256(bytes.fromhex(digest) + kind.encode()).hexdigest()
        with self._lock:
            compiled = self._loaded.get(name)
            self.found.memory += compiled is not None
        if compiled is None or (keep and not _kept(compiled)):
            compiled = self._find(name) or self._make(name, code, pages)
            if not keep and compiled.sealed is not None:
                compiled.sealed.close()
            with self._lock:
                # Of two that came at once the first counts: its code is in memory once.
                known = self._loaded.setdefault(name, compiled)
                if not keep or _kept(known):
                    return known
                self._loaded[name] = compiled
        return compiled

    def _find(self, name: str) -> Compiled | None:
        """The component, if the cache has a good entry for it."""
        if self._cache is None:
            return None
        for laned in (True, False):
            # An entry is good under its own name alone: so that it is laned is proven by it.
            entry = _entry(name, laned=laned)
            found = self._cache.find(f"{entry}.cwasm", self._limits.output_bytes)
            if found is not None:
                try:
                    component = self._load(found)
                except ArtifactError:
                    found.close()
                    self._cache.drop(f"{entry}.cwasm")
                else:
                    with self._lock:
                        self.found.cache += 1
                    return Compiled(component, self._types(entry, component), laned, found)
        return None

    def _types(self, entry: str, component: wasmtime.component.Component) -> ComponentTypes | None:
        """The types of compiled code, from the cache if they are there."""
        assert self._cache is not None
        found = self._cache.find(f"{entry}.types", _TYPES_BYTES)
        if found is not None:
            with found, found.view() as view, contextlib.suppress(ValueError):
                return decode(bytes(view))
        types = self._walk(component)
        self._keep_types(entry, types)
        return types

    def _walk(self, component: wasmtime.component.Component) -> ComponentTypes | None:
        with contextlib.suppress(LinkError):  # told when it is linked
            return walk(component, self._engine.wasm)
        return None

    def _keep(self, name: str, made: Sealed, compiled: Compiled) -> None:
        if self._cache is not None:
            entry = _entry(name, laned=compiled.laned)
            self._cache.keep(f"{entry}.cwasm", made)
            self._keep_types(entry, compiled.types)

    def _keep_types(self, entry: str, types: ComponentTypes | None) -> None:
        if self._cache is not None and types is not None:
            with contextlib.suppress(OSError), Sealed.holding(encode(types)) as document:
                self._cache.keep(f"{entry}.types", document)

    def _make(self, name: str, code: bytes | memoryview, pages: int) -> Compiled:
        progress = _Progress(len(code), self._on_compile)
        try:
            if self._cache is None:
                return self._compile_apart(name, code, pages, progress)
            with self._cache.turn(name, _PATIENCE_SECONDS, progress.wait):
                # Whoever had the turn before may have made it.
                return self._find(name) or self._compile_apart(name, code, pages, progress)
        finally:
            progress.end()

    def _count(self, seconds: float) -> None:
        with self._lock:
            self.found.compiler += 1
            self.found.seconds += seconds

    def _compile_apart(
        self, name: str, code: bytes | memoryview, pages: int, progress: _Progress
    ) -> Compiled:
        if self._on_slow and not self._on_compile and len(code) > _SLOW_BYTES:
            self._on_slow(f"compiling {len(code) / 1e6:.1f} MB of WebAssembly (once; then cached)")
        began = time.monotonic()
        if pages:
            try:
                compiled = self._compile_laned(name, code, pages, progress)
                self._count(time.monotonic() - began)
                return compiled
            except (NotLaned, LinkError):
                pass
            except ArtifactError:
                # Whatever is wrong with the plugin itself will show again, and is told then; but
                # what takes all the time there is does not get it twice (RES-22).
                if time.monotonic() - began > self._limits.seconds / 4:
                    raise
        made = compile_apart(code, self._limits, progress.work)
        component = self._load(made)
        compiled = Compiled(component, self._walk(component), sealed=made)
        self._keep(name, made, compiled)
        self._count(time.monotonic() - began)
        return compiled

    def _compile_laned(
        self, name: str, code: bytes | memoryview, pages: int, progress: _Progress
    ) -> Compiled:
        def read(skeleton: bytes) -> ComponentTypes:
            with compile_apart(skeleton, self._limits, progress.work) as made:
                return walk(self._load(made), self._engine.wasm)

        # What makes a lane is for those who compile.
        from .lane.prepare import prepare

        prepared = prepare(code, pages, read)
        made = compile_apart(prepared.code, self._limits, progress.work)
        component = self._load(made)
        types = walk(component, self._engine.wasm)
        prepared.check(types)
        compiled = Compiled(component, types, laned=True, sealed=made)
        self._keep(name, made, compiled)
        return compiled

    def _load(self, code: Sealed) -> wasmtime.component.Component:
        try:
            return load(self._engine.wasm, code)
        except wasmtime.WasmtimeError as exc:
            raise ArtifactError(
                f"the compiled code does not fit this engine: {first_lines(str(exc))}",
                code="artifact.compile",
            ) from None


def types_of(code: bytes | memoryview) -> ComponentTypes | None:
    """What a component imports and exports, of which nothing is run or kept.

    It is compiled without what its functions do, in a process apart.  None if it has types that
    capwasm does not know.

    Raises:
        ArtifactError: it is no component.
        OddBinary: it is not framed as one is.
    """
    from .lane.binary import skeleton

    with contextlib.closing(PluginEngine()) as engine:
        return Compiler(engine, None, lane=False).compile(skeleton(code)).types


def _kept(compiled: Compiled) -> bool:
    return compiled.sealed is not None and not compiled.sealed.closed


def _entry(name: str, *, laned: bool) -> str:
    return f"{name}.laned" if laned else name


class _Progress:
    """Tells of one compilation, if it takes long."""

    def __init__(self, code_bytes: int, tell: Callable[[Compiling], None] | None) -> None:
        self._size, self._tell, self._last = code_bytes, tell, 0.0

    def work(self, seconds: float) -> None:
        self._say(seconds, elsewhere=False)

    def wait(self, seconds: float) -> None:
        if seconds - self._last >= 0.1:
            self._say(seconds, elsewhere=True)

    def _say(self, seconds: float, *, elsewhere: bool) -> None:
        if self._tell is not None and seconds >= _SLOW_SECONDS:
            self._last = seconds
            self._tell(Compiling(self._size, seconds, elsewhere=elsewhere))

    def end(self) -> None:
        if self._tell is not None and self._last:
            self._tell(Compiling(self._size, self._last, done=True))
