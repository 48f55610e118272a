"""From a Rust project to a component, by cargo.

The author's tree is only read.  A copy of it, with capwasm's WIT beside its own, and cargo's target
directory stand in the cache, so that a second build compiles only what has changed.  The SDK is the
one of this very version, whatever `Cargo.toml` says of where it comes from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from capwasm._lock import held
from capwasm._shipped import guest_sdk
from capwasm.authoring.world import write_world
from capwasm.errors import BuildError

from . import Component, Task, Tool
from ._cargo import TARGET, Cargo, find_cargo, rust_tools
from ._tool import run

if TYPE_CHECKING:
    from capwasm.grants.manifest import Manifest

__all__ = ["BUILDER"]

TIMEOUT_SECONDS: Final = 1800
_SKIPPED: Final = frozenset({"target", "tests", "dist", "assets", "__pycache__"})
_OFFLINE: Final = re.compile(
    r"--offline|offline mode|no matching package|failed to (download|select|load|get)|"
    r"unable to update|network",
    re.IGNORECASE,
)
_SHOWN: Final = 5  # errors of a failed build
_LINES: Final = 40


class Rust:
    """Builds a crate, by cargo."""

    name = "rust"
    title = "Rust"
    takes = "seconds; the first time a minute or two"

    def detects(self, project: Path, module: str = "plugin") -> bool:  # noqa: ARG002
        """Whether it has a Cargo.toml."""
        return (project / "Cargo.toml").is_file()

    def tools(self) -> list[Tool]:
        """cargo, and what makes components of what it builds."""
        return rust_tools()

    def check(self, manifest: Manifest) -> None:
        """Pass: a plugin in Rust needs nothing to start."""

    def names(self, project: Path, module: str = "plugin") -> set[str] | None:  # noqa: ARG002
        """None: a component of Rust imports what it uses, and no more."""
        return None

    def build(self, task: Task) -> Component:
        """Build it.

        Raises:
            BuildError: `build.toolchain` with the commands that bring what is missing;
                `build.project`: the crate makes no component; `build.failed` with the compiler's
                errors, by file and line of the author's own source.
        """
        started = time.monotonic()
        cargo = find_cargo(task.cache / "bin")
        if cargo is None:
            raise _missing()
        library = _library(task.project)
        place = task.cache / "projects" / _name_of(task.project, library)
        place.mkdir(parents=True, exist_ok=True)
        with held(place, BuildError, code="build.failed"):
            crate = place / "crate"
            _copy(task, crate)
            code = _cargo_build(cargo, task, crate, library)
        return Component(code, time.monotonic() - started, cargo.compiler)


def _missing() -> BuildError:
    lacking = "; ".join(f"{t.name}: {t.install}" for t in rust_tools() if t.found is None)
    return BuildError(
        f"a Rust plugin is built by cargo for {TARGET}, which is not whole here: {lacking}",
        code="build.toolchain",
    )


def _library(project: Path) -> str:
    """The name of the crate's library.

    Raises:
        BuildError: `build.project`: it makes none that could be a component.
    """
    try:
        told = tomllib.loads((project / "Cargo.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise BuildError(f"Cargo.toml: {exc}", code="build.project", context=str(project)) from None
    library = told.get("lib", {})
    if "cdylib" not in library.get("crate-type", ()):
        raise BuildError(
            'Cargo.toml: a plugin is a library that is linked: write [lib] crate-type = ["cdylib"]',
            code="build.project",
            context=str(project),
        )
    name = library.get("name") or told.get("package", {}).get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w-]*", name):
        raise BuildError(
            "Cargo.toml has no [package] name", code="build.project", context=str(project)
        )
    return name.replace("-", "_")


def _name_of(project: Path, library: str) -> str:
    digest = hashlib.sha256(str(project.resolve()).encode()).hexdigest()
    return f"{library}-{digest[:12]}"


def _copy(task: Task, crate: Path) -> None:
    """Bring the copy up to date; a file that has not changed keeps its time, by which cargo goes."""
    fresh = task.scratch / "crate"
    _copy_tree(task.project, fresh)
    shutil.rmtree(fresh / "wit", ignore_errors=True)
    # The SDK brings the imports, and a component keeps those that it uses.
    write_world(task.project, fresh / "wit", {})
    wanted = {p.relative_to(fresh) for p in fresh.rglob("*") if p.is_file()}
    for path in sorted(crate.rglob("*"), reverse=True) if crate.exists() else ():
        inner = path.relative_to(crate)
        if path.is_file() and inner not in wanted and inner != Path("Cargo.lock"):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    for inner in wanted:
        target, data = crate / inner, (fresh / inner).read_bytes()
        if not target.is_file() or target.read_bytes() != data:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def _copy_tree(source: Path, target: Path) -> None:
    target.mkdir()
    for entry in source.iterdir():
        if entry.name in _SKIPPED or entry.name == ".git" or entry.suffix == ".capsule":
            continue
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name)
        else:
            shutil.copyfile(entry, target / entry.name)


def _cargo_build(cargo: Cargo, task: Task, crate: Path, library: str) -> bytes:
    sdk = guest_sdk("rust")
    target = task.cache / "target"
    argv = [
        *cargo.argv,
        "--message-format=json",
        "--config",
        f"patch.crates-io.capwasm-guest.path={json.dumps(str(sdk))}",
    ]
    env = {
        **os.environ,
        **cargo.env,
        "CARGO_TARGET_DIR": str(target),
        "CARGO_ENCODED_RUSTFLAGS": cargo.rustflags({"capwasm-guest": sdk, "build": task.cache}),
        "CARGO_TERM_COLOR": "never",
    }
    env.pop("RUSTFLAGS", None)
    # What is in cargo's own cache needs no network, and a build without is faster.
    code, told, said = _run([*argv, "--offline"], crate, env)
    if code and not told.errors and _OFFLINE.search(said):
        task.say("fetching the crates that are not here yet")
        code, told, said = _run(argv, crate, env)
    if code:
        raise _failed(told, said, task.project, crate)
    if (made := told.made.get(library)) is None:
        raise BuildError(
            f"cargo built no {library}.wasm", code="build.project", context=str(task.project)
        )
    return Path(made).read_bytes()


class _Told:
    """What cargo's messages say: the compiler's errors, and the components that were made."""

    def __init__(self, output: str) -> None:
        self.errors: list[str] = []
        self.made: dict[str, str] = {}
        for line in output.splitlines():
            try:
                message: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            if message.get("reason") == "compiler-message":
                told = message["message"]
                if told["level"].startswith("error") and told["rendered"]:
                    self.errors.append(told["rendered"])
            elif message.get("reason") == "compiler-artifact":
                for name in message["filenames"]:
                    if name.endswith(".wasm"):
                        self.made[message["target"]["name"].replace("-", "_")] = name


def _run(argv: list[str], crate: Path, env: dict[str, str]) -> tuple[int, _Told, str]:
    said = run(argv, cwd=crate, env=env, seconds=TIMEOUT_SECONDS, name="cargo", apart=True)
    return said.code, _Told(said.output), said.errors


def _failed(told: _Told, said: str, project: Path, crate: Path) -> BuildError:
    """The compiler's own errors, or else what cargo said, in paths of the author's tree."""
    errors = [e for e in told.errors if not e.startswith("error: aborting due to")]
    if errors:
        text = "\n".join(_linker(e) for e in errors[:_SHOWN])
        if len(errors) > _SHOWN:
            text += f"\n… and {len(errors) - _SHOWN} more"
    else:
        lines = [line for line in said.splitlines() if not re.match(r"\s+[A-Z][a-z]+ ", line)]
        text = "\n".join(lines)
    text = text.replace(f"{crate}{os.sep}", "").replace(str(crate), ".")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return BuildError("\n".join(lines[:_LINES]), context=str(project))


def _linker(error: str) -> str:
    """A linker's error without the command that called it, which fills the screen."""
    if not error.startswith("error: linking with"):
        return error
    kept = [
        line.strip().removeprefix("= note: ")
        for line in error.splitlines()[1:]
        if "wasm-component-ld" not in line and not line.strip().startswith("|")
    ]
    return "\n".join(["error: the component could not be linked", *kept])


BUILDER: Final = Rust()
