"""From a project's directory to a capsule: what language it is in, what it holds, what comes out."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capwasm._files import read_file
from capwasm._model import MAX_TEXT_BYTES
from capwasm.caps import standard_capabilities
from capwasm.capsule.artifact import MAX_CAPSULE_BYTES
from capwasm.capsule.members import SBOM
from capwasm.capsule.pack import pack
from capwasm.errors import ArtifactError, BuildError, ManifestError
from capwasm.grants.manifest import Manifest, parse_manifest

from .builders import Builder, Task, builders
from .made import Made
from .review import check_imports, permissions, warnings
from .sbom import sbom_of
from .world import declared_interfaces

__all__ = [
    "Built",
    "build_cache",
    "build_project",
    "language_of",
    "read_manifest",
    "ready_capsule",
    "size_of",
]

Telling = Callable[[str], AbstractContextManager[None]]


@dataclass
class Built:
    """What a build made, and what is to be known of it."""

    manifest: Manifest
    capsule: bytes
    code_bytes: int
    members: list[str]
    tool: str
    imports: list[str]
    permissions: list[dict[str, Any]]
    warnings: list[str]
    seconds: dict[str, float] = field(default_factory=dict)


def size_of(count: int) -> str:
    """A number of bytes, for people: `28 kB`, `18.4 MB`."""
    return f"{count / 1e6:.1f} MB" if count >= 1_000_000 else f"{count / 1e3:.0f} kB"


def build_cache() -> Path:
    """Where builders keep what makes the next build fast: `$XDG_CACHE_HOME/capwasm/build`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "capwasm" / "build"


def language_of(project: Path, module: str = "plugin") -> Builder | None:
    """The builder for that project; None if it brings a ready `plugin.wasm`.

    Raises:
        BuildError: `build.project`: it is of no language, or of more than one.
    """
    found = [b for b in builders() if b.detects(project, module)]
    ready = (project / "plugin.wasm").exists()
    if found and ready:
        raise BuildError(
            f"there are both sources in {found[0].title} and plugin.wasm: which is the plugin?"
            " Remove the other",
            code="build.project",
            context=str(project),
        )
    if len(found) > 1:
        titles = " and ".join(b.title for b in found)
        raise BuildError(
            f"there are sources in {titles}: a project is of one language",
            code="build.project",
            context=str(project),
        )
    if not found and not ready:
        raise BuildError(
            f"there is neither {module}.py (or src/{module}.py, or a package), nor package.json,"
            " Cargo.toml, go.mod or plugin.c, nor plugin.wasm",
            code="build.project",
            context=str(project),
        )
    return found[0] if found else None


def read_manifest(path: Path) -> Manifest:
    """A draft `plugin.toml`, which nobody has verified.

    Raises:
        ManifestError: it can't be read, or is malformed.
    """
    data = read_file(
        path,
        MAX_TEXT_BYTES,
        ManifestError,
        code="manifest.unreadable",
        too_large="manifest.toml",
    )
    return parse_manifest(data, standard_capabilities(), context=ascii(str(path))[1:-1])


def build_project(
    project: Path,
    *,
    module: str = "plugin",
    cache: Path | None = None,
    tell: Telling | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Built:
    """Check the manifest, make the component, check its imports, and pack, with an SBOM.

    Args:
        project: the directory with plugin.toml.
        module: the author's Python module.
        cache: where the compiled component is kept, so that a first load need not compile it;
            `compiled` of `build_cache()` if none is given.
        tell: a context manager function that is told what takes long.
        say: told what a builder does, a line at a time.

    Raises:
        ManifestError: plugin.toml is malformed, with all faults.
        BuildError: a tool or a part of the project is missing, or the sources don't build.
        LinkError: the component imports what plugin.toml does not declare.
        ArtifactError: it can't be compiled or packed.
    """
    telling = tell or (lambda _text: nullcontext())
    capabilities = standard_capabilities()
    if not project.is_dir():
        raise BuildError("there is no such directory", code="build.project", context=str(project))
    manifest = read_manifest(project / "plugin.toml")
    if manifest.plugin.kind != "component":
        raise BuildError(
            'kind = "native" is not built but packed: capwasm pack',
            code="build.project",
            context=manifest.id,
        )
    seconds: dict[str, float] = {}
    builder = language_of(project, module)
    made = _made(project, builder, module)
    key = made.key()
    members = _members(project)
    if SBOM not in members and (bill := sbom_of(project, manifest.plugin)) is not None:
        members[SBOM] = bill
    names: set[str] | None = None
    if builder is None:
        code, tool = members.pop("plugin.wasm"), "as it was"
    else:
        builder.check(manifest)
        names = builder.names(project, module)
        declared = declared_interfaces(manifest, capabilities)
        with (
            telling(f"building the component of {builder.title} ({builder.takes})"),
            tempfile.TemporaryDirectory(prefix="capwasm-build-") as scratch,
        ):
            component = builder.build(
                Task(
                    project=project,
                    manifest=manifest,
                    declared=declared,
                    scratch=Path(scratch),
                    cache=build_cache() / builder.name,
                    module=module,
                    say=say,
                )
            )
        code, tool, seconds["build"] = component.code, component.tool, component.seconds
    members["plugin.wasm"] = code
    started = time.monotonic()
    with telling(f"checking its imports ({size_of(len(code))} to compile, once)"):
        imports = check_imports(code, manifest, capabilities, cache or build_cache() / "compiled")
    seconds["check"] = time.monotonic() - started
    built = Built(
        manifest=manifest,
        capsule=pack(members),
        code_bytes=len(code),
        members=sorted(members),
        tool=tool,
        imports=imports,
        permissions=permissions(manifest, capabilities),
        warnings=warnings(manifest, capabilities, imports, names),
        seconds=seconds,
    )
    made.keep(key, built.capsule)
    return built


def ready_capsule(
    project: Path,
    *,
    module: str = "plugin",
    tell: Telling | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> tuple[bytes, Built | None]:
    """The unsigned capsule of a project: as it was built of these very files, or built now.

    Args:
        project: the directory with plugin.toml.
        module: the author's Python module.
        tell: as for `build_project`.
        say: as for `build_project`.

    Returns:
        The capsule, and what the build made of it, if there was one.

    Raises:
        As `build_project`.
    """
    if project.is_dir() and (project / "plugin.toml").exists():
        made = _made(project, language_of(project, module), module)
        if (found := made.find(made.key())) is not None:
            return found, None
    built = build_project(project, module=module, tell=tell, say=say)
    return built.capsule, built


def _made(project: Path, language: Builder | None, module: str) -> Made:
    return Made(build_cache() / "made", project.absolute(), language, module)


def _members(project: Path) -> dict[str, bytes]:
    """What goes into the capsule besides the code that is built."""
    names = ["plugin.toml", "plugin.wasm", "README.md", "LICENSE", SBOM]
    found = [p for n in names if (p := project / n).exists()]
    # Only the project's own WIT: what it depends on is known by name and version.
    found += sorted((project / "wit").glob("*.wit"))
    assets = project / "assets"
    found += sorted(p for p in assets.rglob("*") if p.is_symlink() or not p.is_dir())
    return {
        path.relative_to(project).as_posix(): read_file(
            path,
            MAX_CAPSULE_BYTES,
            ArtifactError,
            code="artifact.unreadable",
            too_large="artifact.too-large",
            follow=False,
        )
        for path in found
    }
