"""Verified code to a compiled component, without trusting the compiler's input or the cache.

Compiling untrusted code can take seconds and gigabytes (RES-22, RES-23), can't be interrupted, and
is outside of the engine's own security promise; so it happens in a child process under hard limits
of time and memory.  What comes back is kept in a cache that only this machine's key can write:
`deserialize` runs what it is given, so the bytes that are checked are the bytes that are mapped
(SIG-21, SIG-22, PER-04).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import wasmtime
import wasmtime.component

from capwasm.errors import ArtifactError

from .config import fingerprint
from .engine import PluginEngine

__all__ = ["CompileLimits", "Compiler", "check_component"]

COMPONENT_MAGIC = b"\0asm\x0d\0\x01\0"
CORE_MAGIC = b"\0asm\x01\0\0\0"
_MAC_BYTES = 32


@dataclass(frozen=True, slots=True)
class CompileLimits:
    """What one compilation may use.

    Attributes:
        code_bytes: the largest component taken, in bytes.
        seconds: processor time, and twice that in wall-clock time.
        memory_bytes: address space of the compile process.
        inline_bytes: a component of at most this size is compiled in this process; a guest that
            small can't take long, and starting a process would take longer.
    """

    code_bytes: int = 64 * 1024 * 1024
    seconds: int = 120
    memory_bytes: int = 6 * 1024 * 1024 * 1024
    inline_bytes: int = 8 * 1024


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


class Compiler:
    """Compiles and caches.  Safe from many threads and processes."""

    def __init__(
        self,
        engine: PluginEngine,
        cache_dir: Path | None,
        limits: CompileLimits | None = None,
        on_slow: Callable[[str], None] | None = None,
    ) -> None:
        """Cache below `cache_dir`, or not at all.

        Args:
            engine: the engine that will run the result.
            cache_dir: made with mode 0700 if it isn't there.
            limits: of each compilation.
            on_slow: told one line when a compilation is not in the cache and will take a while.
        """
        self._engine = engine
        self._dir = cache_dir
        self._limits = limits or CompileLimits()
        self._on_slow = on_slow
        self._fingerprint = fingerprint()
        if cache_dir is not None:
            cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            cache_dir.chmod(0o700)
        self._key = _machine_key(cache_dir) if cache_dir is not None else b""

    def compile(self, code: bytes) -> wasmtime.component.Component:
        """The compiled component for these verified bytes.

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
        name = hashlib.sha256(
            hashlib.sha256(code).digest() + self._fingerprint.encode()
        ).hexdigest()
        cached = self._read(name)
        if cached is not None:
            return cached
        if len(code) <= self._limits.inline_bytes:
            try:
                return wasmtime.component.Component(self._engine.wasm, code)
            except wasmtime.WasmtimeError as exc:
                raise ArtifactError(
                    f"not a valid component: {_first_lines(str(exc))}", code="artifact.compile"
                ) from None
        payload = self._compile_apart(code)
        self._write(name, payload)
        return self._load(payload)

    # -- the compile process --------------------------------------------------------------------

    def _compile_apart(self, code: bytes) -> bytes:
        if self._on_slow is not None and len(code) > 1_000_000:
            self._on_slow(f"compiling {len(code) / 1e6:.1f} MB of WebAssembly (once; then cached)")
        limits = self._limits
        # -I: no PYTHON* variables, no user site, no current directory on the path.
        package_root = str(Path(__file__).resolve().parents[2])
        wasmtime_root = str(Path(wasmtime.__file__).resolve().parents[1])
        argv = [
            sys.executable,
            "-I",
            "-c",
            (
                "import sys; sys.path[:0] = sys.argv[3:5]; "
                "from capwasm.engine._compiler import main; main(int(sys.argv[1]), int(sys.argv[2]))"
            ),
            str(limits.seconds),
            str(limits.memory_bytes),
            package_root,
            wasmtime_root,
        ]
        started = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(  # noqa: S603 - fixed argv, no shell
                argv, stdin=subprocess.PIPE, stdout=out, stderr=err, env={}, close_fds=True
            )
            try:
                process.communicate(code, timeout=limits.seconds * 2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
            out.seek(0)
            err.seek(0)
            payload, message = out.read(), err.read(4000).decode("utf-8", "replace")
        if process.returncode == 0 and payload:
            return payload
        if process.returncode == 1 and message:
            raise ArtifactError(
                f"not a valid component: {_first_lines(message)}", code="artifact.compile"
            )
        raise ArtifactError(
            f"compiling was stopped after {time.monotonic() - started:.1f} s "
            f"(at most {limits.seconds} s and {limits.memory_bytes >> 20} MiB)",
            code="artifact.compile-limit",
        )

    def _load(self, payload: bytes) -> wasmtime.component.Component:
        try:
            return wasmtime.component.Component.deserialize(self._engine.wasm, payload)
        except wasmtime.WasmtimeError as exc:
            raise ArtifactError(
                f"the compiled code does not fit this engine: {_first_lines(str(exc))}",
                code="artifact.compile",
            ) from None

    # -- the cache ------------------------------------------------------------------------------

    def _mac(self, name: str, payload: bytes) -> bytes:
        mac = hmac.new(self._key, name.encode() + b"\0", hashlib.sha256)
        mac.update(payload)
        return mac.digest()

    def _read(self, name: str) -> wasmtime.component.Component | None:
        if self._dir is None:
            return None
        try:
            blob = (self._dir / f"{name}.cwasm").read_bytes()
        except OSError:
            return None
        mac, payload = blob[:_MAC_BYTES], blob[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(name, payload)):
            # Torn, corrupted or foreign: never run, and made anew.
            (self._dir / f"{name}.cwasm").unlink(missing_ok=True)
            return None
        try:
            return self._load(payload)
        except ArtifactError:
            return None

    def _write(self, name: str, payload: bytes) -> None:
        if self._dir is None:
            return
        # A cache that can't be written costs time, not safety.
        temporary: str | None = None
        try:
            fd, temporary = tempfile.mkstemp(dir=self._dir, prefix=".new-")
            with os.fdopen(fd, "wb") as file:
                file.write(self._mac(name, payload))
                file.write(payload)
            Path(temporary).replace(self._dir / f"{name}.cwasm")
        except OSError:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)


def _machine_key(directory: Path) -> bytes:
    """The key of this cache: 32 random bytes in a file that only its owner can read.

    Whoever can read it can have this user run any code; so can whoever can write the user's files.
    """
    path = directory / "key"
    for _ in range(2):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            fresh = directory / f".key-{secrets.token_hex(8)}"
            new = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(new, "wb") as file:
                file.write(secrets.token_bytes(32))
            try:
                # A link fails where another process was first: the first key stays.
                os.link(fresh, path)
            except FileExistsError:
                pass
            finally:
                fresh.unlink(missing_ok=True)
            continue
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(file.fileno())
            key = file.read(64)
        if len(key) == 32 and status.st_uid == os.geteuid() and not status.st_mode & 0o077:
            return key
        path.unlink(missing_ok=True)  # unsafe or damaged: a new key makes every old entry worthless
    # Not to be had: entries of this process alone.
    return secrets.token_bytes(32)


def _first_lines(text: str, count: int = 4) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return " / ".join(lines[:count])[:600]
