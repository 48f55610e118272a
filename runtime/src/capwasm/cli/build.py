"""`capwasm build`: from a project's directory to a capsule, signed if a key is given."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from capwasm.errors import ArtifactError, BuildError, Fault, ManifestError

from ._output import console, epilog, home_option, json_option, say_json, shown
from ._plugin import capabilities as all_capabilities

if TYPE_CHECKING:
    from capwasm.grants.manifest import Manifest

__all__ = ["Built", "build_project", "commands"]

PATH = click.Path(path_type=Path)
_STYLES: Final = {"low": "green", "medium": "yellow", "high": "bold red"}


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


def build_project(
    project: Path, *, module: str = "plugin", cache: Path | None = None, tell: Any = None
) -> Built:
    """Check the manifest, make the component, check its imports, and pack.

    Args:
        project: the directory with plugin.toml.
        module: the author's Python module.
        cache: where the compiled component is kept, so that a first load need not compile it.
        tell: a context manager function that is told what takes long.

    Raises:
        ManifestError: plugin.toml is malformed, with all faults.
        BuildError: a tool or a part of the project is missing, or the sources don't build.
        LinkError: the component imports what plugin.toml does not declare.
        ArtifactError: it can't be compiled or packed.
    """
    from capwasm.capsule.pack import pack

    from ._component import make_component, python_sources
    from ._plugin import read_manifest
    from ._review import check_imports, permissions, warnings
    from ._world import declared_interfaces

    telling = tell or _quiet
    capabilities = all_capabilities()
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
    sources = python_sources(project, module)
    ready = project / "plugin.wasm"
    if sources is not None and ready.exists():
        raise BuildError(
            f"both {module}.py and plugin.wasm are there: which is the plugin? Remove the other",
            code="build.project",
            context=str(project),
        )
    members = _members(project)
    if sources is not None:
        _check_random(manifest)
        declared = declared_interfaces(manifest, capabilities)
        with telling("building the component of Python (10 to 30 s)"):
            made = make_component(project, manifest, module, sources, declared)
        code, tool, seconds["build"] = made.code, made.tool, made.seconds
    elif ready.exists():
        code, tool = members.pop("plugin.wasm"), "as it was"
    else:
        raise BuildError(
            f"there is neither {module}.py (or src/{module}.py, or a package) nor plugin.wasm",
            code="build.project",
            context=str(project),
        )
    members["plugin.wasm"] = code
    started = time.monotonic()
    with telling(f"checking its imports ({len(code) / 1e6:.1f} MB to compile, once)"):
        imports = check_imports(code, manifest, capabilities, cache)
    seconds["check"] = time.monotonic() - started
    return Built(
        manifest=manifest,
        capsule=pack(members),
        code_bytes=len(code),
        members=sorted(members),
        tool=tool,
        imports=imports,
        permissions=permissions(manifest, capabilities),
        warnings=warnings(manifest, capabilities, imports, sources),
        seconds=seconds,
    )


def _check_random(manifest: Manifest) -> None:
    """Python draws its seed when it starts, so without `[random]` every call would end there."""
    request = manifest.requests.get("random")
    if request is not None and not any(asked.optional for asked in request.asked):
        return
    what = "is optional" if request else "is not declared"
    table = '[random]\nwhy = "Python seeds its generator when it starts"'
    raise ManifestError(
        "a plugin in Python needs random bytes to start",
        context="plugin.toml",
        faults=[Fault("random", f"{what}, and Python seeds its generator when it starts", table)],
    )


def _members(project: Path) -> dict[str, bytes]:
    """What goes into the capsule besides the code that is built."""
    from capwasm._files import read_file
    from capwasm.capsule.artifact import MAX_CAPSULE_BYTES

    names = ["plugin.toml", "plugin.wasm", "README.md", "LICENSE", "sbom.cdx.json"]
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


@click.command(
    "build",
    epilog=epilog(
        "capwasm build weather/ --key acme-release.key",
        "capwasm build --json -o weather.capsule",
        codes="0 done, 1 can't be built, 2 wrong usage",
    ),
)
@home_option
@json_option
@click.argument("directory", type=PATH, default=".")
@click.option("-o", "--out", type=PATH, help="ID-VERSION.capsule if none.")
@click.option("--key", "key_file", type=PATH, help="Sign it with this key (capwasm keygen).")
@click.option("--passphrase-file", type=PATH, help="The key's passphrase; asked for if none.")
@click.option(
    "--module", default="plugin", show_default=True, help="The Python module with the class."
)
def build(
    home_path: Path,
    as_json: bool,
    directory: Path,
    out: Path | None,
    key_file: Path | None,
    passphrase_file: Path | None,
    module: str,
) -> None:
    """Make a component of the project in DIRECTORY, and a capsule of it.

    DIRECTORY holds plugin.toml, and either plugin.py (or src/plugin.py) with wit/world.wit, or a
    ready plugin.wasm.  Nothing in it is written.
    """
    from capwasm._files import write_file
    from capwasm.capsule.artifact import read_artifact
    from capwasm.capsule.attest import sha256
    from capwasm.capsule.keys import PrivateKey
    from capwasm.capsule.pack import sign_capsule

    from .capsule import ask_passphrase, read_passphrase

    key = None
    if key_file is not None:  # first, so that a wrong passphrase does not cost a build
        passphrase = read_passphrase(passphrase_file)
        key = PrivateKey.load(key_file, ask_passphrase if passphrase is None else passphrase)
    built = build_project(
        directory,
        module=module,
        cache=home_path / "cache" if home_path.is_dir() else None,
        tell=_quiet if as_json else _status,
    )
    capsule = built.capsule
    if key is not None:
        capsule = sign_capsule(read_artifact(capsule), key)
    target = out or Path(built.manifest.identity.file_name)
    write_file(target, capsule, ArtifactError, code="artifact.unreadable")
    data = {
        "capsule": str(target),
        "id": built.manifest.id,
        "version": built.manifest.version,
        "size": len(capsule),
        "sha256": sha256(capsule),
        "component-size": built.code_bytes,
        "tool": built.tool,
        "members": built.members,
        "signed-by": key.public.key_id if key else None,
        "imports": built.imports,
        "permissions": built.permissions,
        "warnings": built.warnings,
        "seconds": {name: round(value, 3) for name, value in built.seconds.items()},
    }
    say_json(data, indent=2) if as_json else _print(built, data)


def _print(built: Built, data: dict[str, Any]) -> None:
    from rich.text import Text

    out = console()
    head = f"{shown(built.manifest.id)} {shown(built.manifest.version)}"
    took = ", ".join(f"{name} {value:.1f} s" for name, value in built.seconds.items())
    out.print(
        Text.assemble((head, "bold"), f"  component {built.code_bytes / 1e6:.1f} MB ({took})")
    )
    out.print("It asks:" if built.permissions else "It asks for no permission.")
    for row in built.permissions:
        notes = shown(row["risk-why"]) + ("  optional" if row["optional"] else "")
        risk = (f"  {row['risk']:<7}", _STYLES[row["risk"]])
        out.print(Text.assemble(risk, shown(row["text"]), (f"  {notes}", "dim")))
    for warning in built.warnings:
        out.print(Text.assemble(("warning ", "yellow"), warning))
    signed = f"signed by {data['signed-by']}" if data["signed-by"] else "not signed yet"
    out.print(f"{shown(data['capsule'])}: {data['size']} bytes, {signed}")


@contextmanager
def _quiet(_text: str) -> Iterator[None]:
    yield


@contextmanager
def _status(text: str) -> Iterator[None]:
    """On a terminal a spinner; elsewhere one line, so that a log tells what took so long."""
    if sys.stderr.isatty():
        with console(error=True).status(text):
            yield
    else:
        click.echo(text, err=True)
        yield


commands = [build]
