"""Builds the committed guests from their sources, and says which are out of date.

    python tests/guests/build.py            build what is out of date
    python tests/guests/build.py --all      build all
    python tests/guests/build.py --check    only compare digests; needs no toolchain

`digests.json` holds, for each guest, the digest of the component and of everything that it was made
from: the crate with its lock file, the WIT packages, and the flags; of a
project, what `capwasm build` takes.  A plain test compares both, so a source that changed without a
rebuild is found.  The builds are not promised to be the same byte for byte on two machines: the
standard library is the one of the compiler at hand.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from capwasm.authoring.builders._cargo import Cargo, find_cargo, rust_tools
from capwasm.errors import BuildError

REPOSITORY = Path(__file__).resolve().parents[2]
DIGESTS = Path(__file__).with_name("digests.json")
TARGET = "wasm32-wasip2"
FLAGS = ("build", "--locked", "--release", "--target", TARGET)


@dataclass(frozen=True)
class Guest:
    """A plugin's sources, the component made of them, and files that are kept as copies beside that.

    Attributes:
        source: a crate, or a project, below the repository.
        wasm: the component, below the repository.
        copies: file of the crate → its copy.
        abi: whether it is made of capwasm's WIT packages, too.
        sdk: places of the guest SDK; it is no crate then, but a plugin that `capwasm build` makes.
    """

    source: str
    wasm: str
    copies: tuple[tuple[str, str], ...] = ()
    abi: bool = True
    sdk: tuple[str, ...] = ()


GUESTS = {
    "prober": Guest("tests/guests/rust/prober", "tests/guests/prober.wasm"),
    "demo-weather": Guest(
        "guest-sdk/examples/demo-weather",
        "runtime/src/capwasm/demo/weather.wasm",
        (("plugin.toml", "runtime/src/capwasm/demo/plugin.toml"),),
    ),
    "componentizer": Guest(
        "guest-sdk/componentizer", "runtime/src/capwasm/authoring/componentizer.wasm", abi=False
    ),
    # As others make them: one knows the standard library alone, one a WIT package of its own.
    "wordcount": Guest("tests/guests/rust/wordcount", "tests/guests/wordcount.wasm", abi=False),
    "shout": Guest("tests/guests/rust/shout", "tests/guests/shout.wasm", abi=False),
    "drafts": Guest("tests/guests/rust/drafts", "tests/guests/drafts.wasm", abi=False),
    # And one that sends requests by other people's crates.
    "courier": Guest("tests/guests/rust/courier", "tests/guests/courier.wasm", abi=False),
    # One that answers requests.
    "responder": Guest("tests/guests/rust/responder", "tests/guests/responder.wasm", abi=False),
    "slugs": Guest("tests/guests/rust/slugs", "tests/guests/slugs.wasm", abi=False),
    "conformance-rust": Guest(
        "guest-sdk/conformance/rust",
        "tests/guests/conformance-rust.wasm",
        sdk=("guest-sdk/rust/src", "guest-sdk/rust/Cargo.toml"),
    ),
    "conformance-c": Guest(
        "guest-sdk/conformance/c",
        "tests/guests/conformance-c.wasm",
        sdk=("guest-sdk/c/include", "guest-sdk/c/src"),
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
    for path in (*crate.glob("Cargo.*"), *crate.glob("src/**/*.rs")):
        yield path.relative_to(crate).as_posix(), path
    for path in crate.glob("wit/*.wit"):
        yield path.relative_to(crate).as_posix(), path
    for place in map(REPOSITORY.joinpath, guest.sdk):
        inside = [place] if place.is_file() else place.rglob("*.*")
        for path in (crate / "plugin.toml", *crate.glob("*.c"), *inside):
            yield path.relative_to(REPOSITORY).as_posix(), path
    for path in (REPOSITORY / "wit").glob("*/*.wit") if guest.abi else ():
        yield f"wit/deps/{path.parent.name}/{path.name}", path


def source_digest(guest: Guest) -> str:
    """SHA-256 over the flags and over the name and content of every source."""
    total = hashlib.sha256(b"" if guest.sdk else " ".join(FLAGS).encode())
    for name, path in sorted(set(_sources(guest))):
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


def find_toolchain(scratch: Path) -> Cargo:
    """A rustup target if there is one, else Debian's compiler with its own standard library.

    Raises:
        Missing: neither is whole.
    """
    cargo = find_cargo(scratch / "bin")
    if cargo is None:
        lacking = [f"{t.name}: {t.install}" for t in rust_tools() if t.found is None]
        raise Missing("\n  ".join([f"no way to build for {TARGET}", *lacking]))
    return cargo


# -- building ------------------------------------------------------------------------------------


def _cache() -> Path:
    base = os.environ.get("CAPWASM_TEST_CACHE") or Path.home() / ".cache/capwasm-tests"
    return Path(base) / "rust"


def build(name: str, scratch: Path) -> dict[str, str]:
    """Build one guest, put it where it belongs, and say what to record."""
    guest = GUESTS[name]
    say(f"{name}: building (the first time takes minutes)")
    code, compiler = _project(guest) if guest.sdk else _crate(name, scratch)
    (REPOSITORY / guest.wasm).parent.mkdir(parents=True, exist_ok=True)
    (REPOSITORY / guest.wasm).write_bytes(code)
    for source, copy in guest.copies:
        shutil.copyfile(REPOSITORY / guest.source / source, REPOSITORY / copy)
    say(f"{name}: {guest.wasm}, {len(code)} bytes")
    return {
        "wasm": hashlib.sha256(code).hexdigest(),
        "sources": source_digest(guest),
        "compiler": compiler,
    }


def _project(guest: Guest) -> tuple[bytes, str]:
    """The component of a project, as `capwasm build` makes it, and by what."""
    from capwasm.authoring.project import build_project
    from capwasm.capsule.container import split

    built = build_project(REPOSITORY / guest.source)
    with zipfile.ZipFile(io.BytesIO(bytes(split(built.capsule).archive))) as archive:
        code = archive.read("plugin.wasm")
    if str(Path.home()).encode() in code or str(REPOSITORY).encode() in code:
        raise SystemExit(f"{guest.source}: a path of this machine stands in the component")
    return code, built.tool


def _crate(name: str, scratch: Path) -> tuple[bytes, str]:
    """The component of a crate, and the compiler."""
    cargo, crate = find_toolchain(scratch), scratch / "crates" / name
    shutil.rmtree(crate, ignore_errors=True)
    for inner, path in _sources(GUESTS[name]):
        (crate / inner).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, crate / inner)
    env = {
        **os.environ,
        **cargo.env,
        "CARGO_TARGET_DIR": str(scratch / "target"),
        # No path of this machine may stand in the component.
        "CARGO_ENCODED_RUSTFLAGS": cargo.rustflags({"build": scratch}),
    }
    subprocess.run([*cargo.argv, "--locked"], cwd=crate, env=env, check=True)
    built = scratch / "target" / TARGET / "release" / f"{name.replace('-', '_')}.wasm"
    code = built.read_bytes()
    if any(str(path).encode() in code for path in (scratch, cargo.library, Path.home())):
        raise SystemExit(f"{name}: a path of this machine stands in the component")
    return code, cargo.compiler


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
    for name in wanted:
        try:
            entry = build(name, _cache())
        except (Missing, BuildError) as exc:
            say(f"{name}: {exc}", error=True)
            return 1
        recorded = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
        recorded[name] = entry
        DIGESTS.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
