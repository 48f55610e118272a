"""Verified code to a compiled component, without trusting the compiler's input or the cache.

Compiling untrusted code can take seconds and gigabytes (RES-22, RES-23), can't be interrupted, and
is outside of the engine's own security promise; so it happens in a child process under hard limits
of time and memory.  What comes back is kept in a cache that only this machine's key can write:
`deserialize` runs what it is given, so the bytes that are checked are the bytes that are mapped
(SIG-21, SIG-22, PER-04).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import secrets
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import wasmtime
import wasmtime.component

from capwasm._files import read_file
from capwasm.errors import ArtifactError, InternalError
from capwasm.record.redact import printable

from ._compiler import INVALID
from .config import fingerprint
from .engine import PluginEngine

__all__ = ["CompileLimits", "Compiler", "check_component"]

COMPONENT_MAGIC = b"\0asm\x0d\0\x01\0"
CORE_MAGIC = b"\0asm\x01\0\0\0"
_MAC_BYTES = 32
# What a killed process left half-written is swept after this long.
_STALE_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class CompileLimits:
    """What one compilation may use.

    Attributes:
        code_bytes: the largest component taken, in bytes.
        seconds: processor time, and twice that in wall-clock time.
        memory_bytes: address space of the compile process.
        output_bytes: the largest compiled component taken, in bytes.
        output_base, output_ratio: and no larger than so many bytes, and so many for each of the
            code's: what is loaded takes many times its size in this process.
    """

    code_bytes: int = 64 * 1024 * 1024
    seconds: int = 120
    memory_bytes: int = 6 * 1024 * 1024 * 1024
    output_bytes: int = 1024 * 1024 * 1024
    output_base: int = 16 * 1024 * 1024
    output_ratio: int = 32

    def output(self, code_bytes: int) -> int:
        """The largest compiled form of a component of that size."""
        return min(self.output_bytes, self.output_base + self.output_ratio * code_bytes)


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
            cache_dir: made with mode 0700 if it isn't there; where it can't be used, nothing is
                cached.
            limits: of each compilation.
            on_slow: told one line when a compilation is not in the cache and will take a while, or
                when there can be no cache.
        """
        self._engine = engine
        self._dir: Path | None = None
        self._limits = limits or CompileLimits()
        self._on_slow = on_slow
        self._fingerprint = fingerprint()
        self._key = b""
        if cache_dir is not None:
            try:
                _make_private(cache_dir)
                self._key = _machine_key(cache_dir)
                self._dir = cache_dir
            except OSError as exc:
                if on_slow is not None:
                    on_slow(f"compiled code is not cached: {exc.strerror}: {cache_dir}")

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
                "import sys; sys.path[:0] = sys.argv[4:6]; "
                "from capwasm.engine._compiler import main; main(*map(int, sys.argv[1:4]))"
            ),
            str(limits.seconds),
            str(limits.memory_bytes),
            str(limits.output(len(code))),
            package_root,
            wasmtime_root,
        ]
        started = time.monotonic()
        try:
            status, payload, message = self._run(argv, code)
        except OSError as exc:
            raise ArtifactError(
                f"the compile process can't be started: {exc.strerror}", code="artifact.compile"
            ) from exc
        if status == 0 and payload:
            return payload
        if status == INVALID:
            raise ArtifactError(
                f"not a valid component: {_first_lines(message)}", code="artifact.compile"
            )
        if status == 1:  # Python's own: an exception that nobody expected
            raise InternalError(f"the compile process failed: {message.strip()[-600:]}")
        raise ArtifactError(
            f"compiling was stopped after {time.monotonic() - started:.1f} s "
            f"(at most {limits.seconds} s, {limits.memory_bytes >> 20} MiB, and "
            f"{limits.output(len(code)) >> 20} MiB of compiled code)",
            code="artifact.compile-limit",
        )

    def _run(self, argv: list[str], code: bytes) -> tuple[int, bytes, str]:
        """The exit status of the compile process, what it made, and what it said."""
        limits = self._limits
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
            payload = out.read(limits.output(len(code)))
            return process.returncode, payload, err.read(4000).decode("utf-8", "replace")

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
            blob = read_file(
                self._dir / f"{name}.cwasm",
                self._limits.output_bytes + _MAC_BYTES,
                ArtifactError,
                code="artifact.unreadable",
                follow=False,
            )
        except ArtifactError:
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


def _make_private(directory: Path) -> None:
    """A directory of this user's own that nobody else can enter, without what crashes left in it.

    Raises:
        OSError: it is another user's, a link, not a directory, or can't be made.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(fd, 0o700)
    finally:
        os.close(fd)
    for left in (*directory.glob(".new-*"), *directory.glob(".key-*")):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.lstat().st_mtime > _STALE_SECONDS:
                left.unlink()


def _machine_key(directory: Path) -> bytes:
    """The key of this cache: 32 random bytes in a file that only its owner can read.

    Whoever can read it can have this user run any code; so can whoever can write the user's files.

    Raises:
        OSError: it can't be had.
    """
    path = directory / "key"
    for _ in range(2):
        try:
            # O_NONBLOCK: a FIFO in its place must not make us wait.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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
            key = file.read(64) if stat.S_ISREG(status.st_mode) else b""
        if len(key) == 32 and status.st_uid == os.geteuid() and not status.st_mode & 0o077:
            return key
        path.unlink(missing_ok=True)  # unsafe or damaged: a new key makes every old entry worthless
    raise OSError(errno.EACCES, "another process keeps putting an unsafe key there")


def _first_lines(text: str, count: int = 4) -> str:
    # Names in the text are the component's own.
    lines = [printable(line.strip()) for line in text.split("\n") if line.strip()]
    return " / ".join(lines[:count])[:600]
