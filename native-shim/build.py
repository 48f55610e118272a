"""Builds the native plugins of this repository, and says which of the committed ones are out of date.

    python native-shim/build.py             build what is out of date, for this machine
    python native-shim/build.py NAME...     build these: those in Rust are built only when they are named
    python native-shim/build.py --all       build all that are in C
    python native-shim/build.py --check     only compare digests; needs no compiler

`digests.json` holds, for each library that is committed, its digest and that of everything it was made
from: the header, its sources, the flags.  A plain test compares both, so a source that changed without
a rebuild is found.  Two compilers need not make the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DIGESTS = Path(__file__).with_name("digests.json")
INCLUDE = "native-shim/include"
COMMITTED = ("x86_64-linux-gnu",)
FLAGS = (
    *("-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden"),
    *("-Wall", "-Wextra", "-Wpedantic", "-Werror"),
    # A plugin is confined whatever it does; these only make its own mistakes end early.
    *("-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"),
    "-Wl,-z,relro,-z,now,-z,noexecstack,--build-id=none,--strip-all",
)


@dataclass(frozen=True)
class Plugin:
    """A library, and what it is made of; paths are below the repository.

    Attributes:
        sources: C files, the one to compile first; or one Cargo.toml.
        library: with `{triple}` for the target.
        flags: besides the common ones.
    """

    sources: tuple[str, ...]
    library: str
    flags: tuple[str, ...] = ()

    @property
    def is_rust(self) -> bool:
        """Whether cargo builds it; such a library is not committed."""
        return self.sources[0].endswith("Cargo.toml")


TEST = "tests/native/{triple}/%s.so"
EXAMPLE = "native-shim/examples/%s/capsule/lib/{triple}/plugin.so"
PLUGINS = {
    "prober": Plugin(("tests/native/prober.c",), TEST % "prober"),
    "hostile": Plugin(
        tuple(f"tests/native/hostile{part}" for part in (".c", ".h", "_calls.c")), TEST % "hostile"
    ),
    "misfit": Plugin(("tests/native/misfit.c",), TEST % "misfit"),
    "needy": Plugin(
        ("tests/native/needy.c",),
        TEST % "needy",
        # Every machine with a GNU libc has that library, and no Python loads it.
        (
            "-Wl,--no-as-needed,-rpath,/lib:/usr/lib:/lib/x86_64-linux-gnu:/lib64",
            "-l:libBrokenLocale.so.1",
        ),
    ),
    "example-c": Plugin(("native-shim/examples/c/notes.c",), EXAMPLE % "c"),
    "example-rust": Plugin(("native-shim/examples/rust/Cargo.toml",), EXAMPLE % "rust"),
}


class Missing(Exception):
    """What the machine lacks, with the command that brings it."""


def triple() -> str:
    """The target of this machine, as the members of a capsule name it."""
    found = sysconfig.get_config_var("MULTIARCH")
    return str(found) if found else f"{os.uname().machine}-linux-gnu"


def say(text: str, *, error: bool = False) -> None:
    """Tell what is going on, at once."""
    stream = sys.stderr if error else sys.stdout
    stream.write(f"{text}\n")
    stream.flush()


# -- digests --------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def source_digest(plugin: Plugin) -> str:
    """SHA-256 over the flags and over the name and content of every source and header."""
    total = hashlib.sha256(" ".join((*FLAGS, *plugin.flags)).encode())
    headers = sorted((REPOSITORY / INCLUDE).glob("*.h"))
    for path in (*headers, *(REPOSITORY / source for source in plugin.sources)):
        total.update(f"{path.relative_to(REPOSITORY).as_posix()}\0{digest(path)}\n".encode())
    return total.hexdigest()


def faults() -> list[str]:
    """What is out of date or not as recorded; each line says what to do."""
    recorded = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    expected = {f"{n}/{t}": (n, t) for n, p in PLUGINS.items() if not p.is_rust for t in COMMITTED}
    found = [f"{k}: recorded in {DIGESTS.name}, but unknown" for k in set(recorded) - set(expected)]
    for key, (name, target) in expected.items():
        again = f"on such a machine, run: python native-shim/build.py {name}"
        plugin, entry = PLUGINS[name], recorded.get(key, {})
        library = REPOSITORY / plugin.library.format(triple=target)
        if not library.exists():
            found.append(f"{key}: the library is missing; {again}")
        elif entry.get("library") != digest(library):
            found.append(f"{key}: the library is not the one that was recorded; {again}")
        elif entry.get("sources") != source_digest(plugin):
            found.append(f"{key}: its sources or the header have changed; {again}")
    return found


# -- building -------------------------------------------------------------------------------------


def _compiler() -> str:
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None:
        raise Missing("a C compiler: apt-get install gcc, or set CC")
    return found


def _run(argv: list[str], **about: object) -> None:
    subprocess.run(argv, check=True, **about)  # type: ignore[call-overload]


def build_c(plugin: Plugin, library: Path) -> str:
    """Compile, and say by what."""
    compiler = _compiler()
    places = [f"-I{REPOSITORY / INCLUDE}", f"-ffile-prefix-map={REPOSITORY}=."]
    source = str(REPOSITORY / plugin.sources[0])
    # Libraries come behind what needs them.
    _run([compiler, *FLAGS, *places, source, *plugin.flags, "-o", str(library)])
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    return version.stdout.splitlines()[0]


def build_rust(plugin: Plugin, library: Path) -> str:
    """Let cargo build, and say by what; its own files go elsewhere."""
    cargo = shutil.which("cargo")
    if cargo is None:
        raise Missing("cargo: apt-get install cargo, or https://rustup.rs")
    manifest = REPOSITORY / plugin.sources[0]
    with tempfile.TemporaryDirectory(prefix="capwasm-native-") as scratch:
        env = {
            **os.environ,
            "CARGO_TARGET_DIR": scratch,
            "RUSTFLAGS": f"--remap-path-prefix={REPOSITORY}=. -Clink-arg=-Wl,-z,relro,-z,now",
        }
        argv = [
            cargo,
            "build",
            "--locked",
            "--offline",
            "--release",
            "--manifest-path",
            str(manifest),
        ]
        _run(argv, env=env)
        (built,) = Path(scratch).glob("release/*.so")
        shutil.copyfile(built, library)
    version = subprocess.run([cargo, "--version"], capture_output=True, text=True, check=True)
    return version.stdout.strip()


def build(name: str) -> None:
    """Build one plugin for this machine, put it where it belongs, and record it if it is committed."""
    plugin, target = PLUGINS[name], triple()
    library = REPOSITORY / plugin.library.format(triple=target)
    library.parent.mkdir(parents=True, exist_ok=True)
    compiler = (build_rust if plugin.is_rust else build_c)(plugin, library)
    if str(REPOSITORY).encode() in library.read_bytes():
        library.unlink()
        raise SystemExit(f"{name}: a path of this machine stands in the library")
    library.chmod(0o644)
    say(f"{name}: {library.relative_to(REPOSITORY)}, {library.stat().st_size} bytes")
    if target in COMMITTED and not plugin.is_rust:
        recorded = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
        entry = {"library": digest(library), "sources": source_digest(plugin), "compiler": compiler}
        recorded[f"{name}/{target}"] = entry
        DIGESTS.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n")


def main() -> int:
    """Check, or build."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PLUGINS))
    parser.add_argument("--all", action="store_true", help="build all that are in C")
    parser.add_argument("--check", action="store_true", help="only compare digests")
    options = parser.parse_args()
    if unknown := set(options.names) - set(PLUGINS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(PLUGINS)}")
    stale = faults()
    if options.check:
        say("\n".join(stale) or "all native plugins are up to date")
        return 1 if stale else 0
    in_c = [name for name, plugin in PLUGINS.items() if not plugin.is_rust]
    old = {line.partition("/")[0] for line in stale}
    missing = {
        n for n in in_c if not (REPOSITORY / PLUGINS[n].library.format(triple=triple())).exists()
    }
    wanted = options.names or [n for n in in_c if options.all or n in old | missing]
    try:
        for name in wanted:
            build(name)
    except Missing as exc:
        say(f"missing: {exc}", error=True)
        return 1
    except subprocess.CalledProcessError as exc:
        say(f"failed: {exc}", error=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
