"""Ways to call cargo for WebAssembly components, and which of them this machine has.

A rustup toolchain with the target is enough by itself.  Where rustup can't download one, Debian's
compiler builds its own standard library for the target; the linker is put together from two parts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import Tool

__all__ = ["TARGET", "Cargo", "find_cargo", "rust_tools"]

TARGET: Final = "wasm32-wasip2"
DEBIAN_WASI: Final = Path("/usr/lib/wasm32-wasi")
DEBIAN_RUSTC: Final = Path("/usr/bin/rustc")


@dataclass(frozen=True, slots=True)
class Cargo:
    """How to call cargo.

    Attributes:
        argv: cargo and what follows it.   env: what is set besides the environment.
        flags: for the compiler.   compiler: its name and version.
        library: the sources of the standard library, whose paths no component may hold.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    flags: tuple[str, ...]
    compiler: str
    library: Path

    def rustflags(self, places: Mapping[str, Path]) -> str:
        """The compiler's flags, encoded for `CARGO_ENCODED_RUSTFLAGS`.

        Args:
            places: word → directory whose path is replaced by that word in all that is built.
        """
        homes = {"cargo": _cargo_home(), "rust": self.library, **places}
        remap = [f"--remap-path-prefix={path}=/{word}" for word, path in homes.items()]
        return "\x1f".join([*self.flags, *remap])


def find_cargo(links: Path) -> Cargo | None:
    """A way that is whole here: a rustup target if there is one, else Debian's compiler.

    Args:
        links: a directory for the one link that the second way needs; made if it does.
    """
    cargo = shutil.which("cargo")
    if cargo is None:
        return None
    rustc = shutil.which("rustc")
    flags = ("build", "--release", "--target", TARGET)
    if rustc is not None and rustup_has_target():
        return Cargo((cargo, *flags), {}, (), _version(rustc), _sysroot(rustc))
    linker = _wasm_ld()
    if linker is None or not _debian_library() or shutil.which("wasm-component-ld") is None:
        return None
    links.mkdir(parents=True, exist_ok=True)
    link = links / "wasm-ld"
    if not link.is_symlink() or link.readlink() != Path(linker):
        link.unlink(missing_ok=True)
        link.symlink_to(linker)
    env = {
        "PATH": f"{links}{os.pathsep}{os.environ.get('PATH', '')}",
        "RUSTC": str(DEBIAN_RUSTC),
        "RUSTC_BOOTSTRAP": "1",
    }
    argv = (cargo, *flags, "-Z", "build-std=std,panic_abort")
    compiler = str(DEBIAN_RUSTC)
    return Cargo(argv, env, ("-L", str(DEBIAN_WASI)), _version(compiler), _sysroot(compiler))


def rust_tools() -> list[Tool]:
    """What a build needs: two tools where rustup has the target, else what stands in for it."""
    cargo, rustc = shutil.which("cargo"), shutil.which("rustc")
    first = Tool(
        "cargo",
        _version(cargo) if cargo else None,
        "1.87 or newer",
        "apt-get install cargo (or https://rustup.rs)",
        "builds crates",
    )
    install = f"rustup target add {TARGET}"
    if rustc is not None and rustup_has_target():
        found = _version(rustc)
        return [first, Tool(TARGET, found, "of the same toolchain", install, "what to build for")]
    compiler = _version(str(DEBIAN_RUSTC)) if _debian_library() else None
    linker, component = _wasm_ld(), shutil.which("wasm-component-ld")
    return [
        first,
        Tool(
            TARGET,
            compiler,
            "rustup's, or Debian's compiler with the sources of its library",
            f"{install} (without rustup: apt-get install rustc-web rust-web-src wasi-libc)",
            "the standard library of the target",
        ),
        Tool(
            "wasm-ld",
            Path(linker).name if linker else None,
            "19 or newer",
            "apt-get install lld-19",
            "links; a rustup target brings its own",
        ),
        Tool(
            "wasm-component-ld",
            _version(component) if component else None,
            "0.5 or newer",
            "cargo install wasm-component-ld",
            "makes a component of it; a rustup target brings its own",
        ),
    ]


def rustup_has_target() -> bool:
    """Whether the compiler on PATH has a standard library for the target."""
    # `rustup target list` can name a target whose files are gone; the compiler knows better.
    rustc = shutil.which("rustc")
    if rustc is None:
        return False
    found = _ask(rustc, "--print", "target-libdir", "--target", TARGET)
    return bool(found) and any(Path(found).glob("libstd-*.rlib"))


def _debian_library() -> bool:
    if not DEBIAN_RUSTC.exists() or not DEBIAN_WASI.exists():
        return False
    return (_sysroot(str(DEBIAN_RUSTC)) / "library").exists()


def _wasm_ld() -> str | None:
    if plain := shutil.which("wasm-ld"):
        return plain
    found = [p for p in Path("/usr/bin").glob("wasm-ld-*") if p.name[8:].isdecimal()]
    return str(max(found, key=lambda p: int(p.name[8:]))) if found else None


def _sysroot(rustc: str) -> Path:
    """Where the compiler keeps the sources of the standard library."""
    return Path(_ask(rustc, "--print", "sysroot")) / "lib/rustlib/src/rust"


def _version(tool: str) -> str:
    return _ask(tool, "--version")


def _cargo_home() -> Path:
    return Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")


def _ask(*argv: str) -> str:
    """What a tool says; nothing where it says no."""
    found = subprocess.run(  # noqa: S603 - fixed words, no shell
        argv, capture_output=True, text=True, check=False, timeout=60
    )
    return found.stdout.strip() if found.returncode == 0 else ""
