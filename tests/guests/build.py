"""Builds the committed Rust guests from their sources, and says which are out of date.

    python tests/guests/build.py            build what is out of date
    python tests/guests/build.py --all      build all
    python tests/guests/build.py --check    only compare digests; needs no toolchain

`digests.json` holds, for each guest, the digest of the component and of everything that it was made
from: the crate with its lock file, the WIT packages, and the flags.  A plain test compares both, so
a source that changed without a rebuild is found.  The builds are not promised to be the same byte
for byte on two machines: the standard library is the one of the compiler at hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DIGESTS = Path(__file__).with_name("digests.json")
TARGET = "wasm32-wasip2"
FLAGS = ("build", "--locked", "--release", "--target", TARGET)
DEBIAN_WASI = Path("/usr/lib/wasm32-wasi")
DEBIAN_RUSTC = Path("/usr/bin/rustc")


@dataclass(frozen=True)
class Guest:
    """A crate, the component made of it, and files that are kept as copies beside that.

    Attributes:
        source: the crate, below the repository.
        wasm: the component, below the repository.
        copies: file of the crate → its copy.
    """

    source: str
    wasm: str
    copies: tuple[tuple[str, str], ...] = ()


GUESTS = {
    "prober": Guest("tests/guests/rust/prober", "tests/guests/prober.wasm"),
    "demo-weather": Guest(
        "guest-sdk/examples/demo-weather",
        "runtime/src/capwasm/demo/weather.wasm",
        (("plugin.toml", "runtime/src/capwasm/demo/plugin.toml"),),
    ),
}


# -- digests -------------------------------------------------------------------------------------


def say(text: str, *, error: bool = False) -> None:
    """Tell what is going on, at once."""
    stream = sys.stderr if error else sys.stdout
    stream.write(f"{text}\n")
    stream.flush()


def _sources(guest: Guest) -> Iterator[tuple[str, Path]]:
    """Every file that decides what the component is, with the name it goes by."""
    crate = REPOSITORY / guest.source
    for path in (crate / "Cargo.toml", crate / "Cargo.lock", *crate.glob("src/**/*.rs")):
        yield path.relative_to(crate).as_posix(), path
    for path in crate.glob("wit/*.wit"):
        yield path.relative_to(crate).as_posix(), path
    for path in (REPOSITORY / "wit").glob("*/*.wit"):
        yield f"wit/deps/{path.parent.name}/{path.name}", path


def source_digest(guest: Guest) -> str:
    """SHA-256 over the flags and over the name and content of every source."""
    total = hashlib.sha256(" ".join(FLAGS).encode())
    for name, path in sorted(_sources(guest)):
        total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def faults() -> list[str]:
    """What is out of date or not as recorded; each line says what to do."""
    recorded = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    found = [f"{n}: recorded in {DIGESTS.name}, but unknown" for n in set(recorded) - set(GUESTS)]
    for name, guest in GUESTS.items():
        again = f"run: python tests/guests/build.py {name}"
        entry = recorded.get(name, {})
        wasm = REPOSITORY / guest.wasm
        if not wasm.exists():
            found.append(f"{name}: {guest.wasm} is missing; {again}")
        elif entry.get("wasm") != hashlib.sha256(wasm.read_bytes()).hexdigest():
            found.append(f"{name}: {guest.wasm} is not the component that was recorded; {again}")
        elif entry.get("sources") != source_digest(guest):
            found.append(f"{name}: its sources or the WIT have changed; {again}")
        for source, copy in guest.copies:
            ours = REPOSITORY / copy
            if (
                not ours.exists()
                or ours.read_bytes() != (REPOSITORY / guest.source / source).read_bytes()
            ):
                found.append(f"{name}: {copy} is not the copy of {guest.source}/{source}; {again}")
    return found


# -- the toolchain -------------------------------------------------------------------------------


class Missing(Exception):
    """What the machine lacks, with the commands that bring it."""


@dataclass(frozen=True)
class Toolchain:
    """How to call cargo."""

    argv: tuple[str, ...]
    env: dict[str, str]
    flags: str
    compiler: str
    sources: Path


def find_toolchain(scratch: Path) -> Toolchain:
    """A rustup target if there is one, else Debian's compiler with its own standard library.

    Raises:
        Missing: neither is whole.
    """
    cargo = shutil.which("cargo")
    if cargo is None:
        raise Missing("cargo: apt-get install cargo, or https://rustup.rs")
    if _rustup_has_target():
        return Toolchain((cargo, *FLAGS), {}, "", _version("rustc"), _sysroot("rustc"))
    lacking = []
    library = DEBIAN_RUSTC.exists() and _sysroot(str(DEBIAN_RUSTC)) / "library"
    if not library or not library.exists() or not DEBIAN_WASI.exists():
        lacking.append("a standard library: apt-get install rustc-web rust-web-src wasi-libc")
    linker = shutil.which("wasm-ld") or _newest_wasm_ld()
    if linker is None:
        lacking.append("wasm-ld: apt-get install lld-19")
    if shutil.which("wasm-component-ld") is None:
        lacking.append("wasm-component-ld: cargo install wasm-component-ld")
    if lacking or linker is None:
        raise Missing(
            "\n  ".join(
                [
                    f"no way to build for {TARGET}.  Either: rustup target add {TARGET}",
                    "or, without rustup's downloads, what is missing of the other way:",
                    *lacking,
                ]
            )
        )
    links = scratch / "bin"
    links.mkdir(parents=True, exist_ok=True)
    (links / "wasm-ld").unlink(missing_ok=True)
    (links / "wasm-ld").symlink_to(linker)
    env = {
        "PATH": f"{links}{os.pathsep}{os.environ['PATH']}",
        "RUSTC": str(DEBIAN_RUSTC),
        "RUSTC_BOOTSTRAP": "1",
    }
    argv = (cargo, *FLAGS, "-Z", "build-std=std,panic_abort")
    rustc = str(DEBIAN_RUSTC)
    return Toolchain(argv, env, f"-L {DEBIAN_WASI}", _version(rustc), _sysroot(rustc))


def _rustup_has_target() -> bool:
    # `rustup target list` can name a target whose files are gone; the compiler knows better.
    rustc = shutil.which("rustc")
    if rustc is None:
        return False
    found = subprocess.run(
        [rustc, "--print", "target-libdir", "--target", TARGET],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.returncode == 0 and any(Path(found.stdout.strip()).glob("libstd-*.rlib"))


def _sysroot(rustc: str) -> Path:
    """Where the compiler keeps the sources of the standard library."""
    found = subprocess.run(
        [rustc, "--print", "sysroot"], capture_output=True, text=True, check=True
    )
    return Path(found.stdout.strip()) / "lib/rustlib/src/rust"


def _newest_wasm_ld() -> str | None:
    found = [p for p in Path("/usr/bin").glob("wasm-ld-*") if p.name[8:].isdecimal()]
    return str(max(found, key=lambda p: int(p.name[8:]))) if found else None


def _version(rustc: str) -> str:
    found = subprocess.run([rustc, "--version"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


# -- building ------------------------------------------------------------------------------------


def _cache() -> Path:
    base = os.environ.get("CAPWASM_TEST_CACHE") or Path.home() / ".cache/capwasm-tests"
    return Path(base) / "rust"


def build(name: str, toolchain: Toolchain, scratch: Path) -> dict[str, str]:
    """Build one guest, put it where it belongs, and say what to record."""
    guest = GUESTS[name]
    crate = scratch / "crates" / name
    shutil.rmtree(crate, ignore_errors=True)
    for inner, path in _sources(guest):
        (crate / inner).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, crate / inner)
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    # No path of this machine may stand in the component.
    places = {"cargo": home, "build": scratch, "rust": toolchain.sources}
    remap = " ".join(f"--remap-path-prefix={path}=/{name}" for name, path in places.items())
    env = {
        **os.environ,
        **toolchain.env,
        "CARGO_TARGET_DIR": str(scratch / "target"),
        "RUSTFLAGS": f"{toolchain.flags} {remap}".strip(),
    }
    say(f"{name}: building (the first time takes minutes)")
    subprocess.run(toolchain.argv, cwd=crate, env=env, check=True)
    built = scratch / "target" / TARGET / "release" / f"{name.replace('-', '_')}.wasm"
    code = built.read_bytes()
    if any(str(path).encode() in code for path in places.values()):
        raise SystemExit(f"{name}: a path of this machine stands in the component")
    (REPOSITORY / guest.wasm).parent.mkdir(parents=True, exist_ok=True)
    (REPOSITORY / guest.wasm).write_bytes(code)
    for source, copy in guest.copies:
        shutil.copyfile(REPOSITORY / guest.source / source, REPOSITORY / copy)
    say(f"{name}: {guest.wasm}, {len(code)} bytes")
    return {
        "wasm": hashlib.sha256(code).hexdigest(),
        "sources": source_digest(guest),
        "compiler": toolchain.compiler,
    }


def main() -> int:
    """Check, or build."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="GUEST", help=", ".join(GUESTS))
    parser.add_argument("--all", action="store_true", help="build all")
    parser.add_argument("--check", action="store_true", help="only compare digests")
    options = parser.parse_args()
    if unknown := set(options.names) - set(GUESTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(GUESTS)}")
    stale = faults()
    if options.check:
        say("\n".join(stale) or "all guests are up to date")
        return 1 if stale else 0
    wanted = options.names or [n for n in GUESTS if options.all or f"{n}:" in "\n".join(stale)]
    scratch = _cache()
    try:
        toolchain = find_toolchain(scratch) if wanted else None
    except Missing as exc:
        say(f"missing: {exc}", error=True)
        return 1
    for name in wanted:
        assert toolchain is not None
        entry = build(name, toolchain, scratch)
        recorded = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
        recorded[name] = entry
        DIGESTS.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
