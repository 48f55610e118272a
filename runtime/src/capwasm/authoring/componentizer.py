"""The part of a build that needs no compiler: WIT to C or Go, and a core module to a component.

It is `guest-sdk/componentizer`, itself a component.  It runs here as any plugin runs, with limits and
with nothing granted but random bytes for its hash tables; so authors need a compiler and no more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from capwasm.capability import Grant, GrantedClause
from capwasm.caps import standard_capabilities
from capwasm.caps.random.model import RandomClause
from capwasm.engine.compile import Compiler
from capwasm.engine.engine import PluginEngine
from capwasm.engine.lane.binary import Entries, read_leb, sections
from capwasm.engine.link import link
from capwasm.errors import BuildError
from capwasm.events import NullRecorder
from capwasm.grants.manifest import parse_manifest
from capwasm.instance import Instance
from capwasm.lattice import ClauseSet
from capwasm.limits import DEFAULTS
from capwasm.serving import Serving, Terms
from capwasm.values import Ok
from capwasm.wasi import unserved_reason

__all__ = [
    "Package",
    "bind_c",
    "bind_go",
    "command",
    "componentize",
    "embed",
    "package_of",
    "without_debug",
]

Package = Sequence[tuple[str, bytes]]
"""The files of a WIT package: name, as errors tell it, and content."""

_MANIFEST: Final = b"""
schema = 1
[plugin]
id = "capwasm.componentizer"
name = "Componentizer"
version = "0.1.0"
requires-core = ">=0"
kind = "component"
[random]
"""
# Rust's hash tables are seeded.
_GRANTED: Final = {"random": Grant((GrantedClause(RandomClause()),), ClauseSet.of())}
_LIMITS: Final = replace(
    DEFAULTS, fuel=10**12, memory=1 << 30, value_bytes=1 << 28, wall_ms=120_000
)


def package_of(folder: Path, shown: str) -> Package:
    """The WIT package in that folder; `shown` is what its files' names begin with."""
    return [(f"{shown}/{p.name}", p.read_bytes()) for p in sorted(folder.glob("*.wit"))]


def bind_c(
    packages: Sequence[Package],
    world: str | None,
    name: str,
    prefixes: Mapping[str, str],
    cache: Path | None,
) -> dict[str, bytes]:
    """C sources for a world: `NAME.h`, `NAME.c` and `NAME_component_type.o`.

    Args:
        packages: WIT packages; the first is the one with the world.
        world: its name, or None if there is just one.
        name: what stands for the world in names.
        prefixes: for an interface, what its names in C begin with.
        cache: where the compiled tool is kept.

    Raises:
        BuildError: `build.failed`: the WIT is malformed, by file and line.
    """
    made = _call("bind-c", _given(packages), world, name, list(prefixes.items()), cache=cache)
    return {f.name: bytes(f.content) for f in made}


def bind_go(packages: Sequence[Package], world: str | None, cache: Path | None) -> dict[str, bytes]:
    """Go packages for a world, by path: `wit_exports.go`, and a directory for each interface.

    An exported interface has `export_NAME/`, too, whose functions are stubs with their signatures.
    The arguments are those of `bind_c`; the text is not formatted.

    Raises:
        BuildError: `build.failed`: the WIT is malformed, by file and line.
    """
    made = _call("bind-go", _given(packages), world, cache=cache)
    return {f.name: bytes(f.content) for f in made}


def embed(
    module: bytes, packages: Sequence[Package], world: str | None, cache: Path | None
) -> bytes:
    """The same core module with the types of a world in it, for compilers that put none there.

    Raises:
        BuildError: `build.failed`: the WIT is malformed, by file and line.
    """
    return bytes(_call("embed", module, _given(packages), world, cache=cache))


def componentize(module: bytes, cache: Path | None) -> bytes:
    """A component made of a core module that holds the types of its world.

    Raises:
        BuildError: `build.failed`: it lacks an export of its world, or has it in another shape.
    """
    return bytes(_call("componentize", module, cache=cache))


def command(module: bytes, cache: Path | None) -> bytes:
    """A component that exports `wasi:cli/run`, made of a program for WASI's Preview 1.

    Raises:
        BuildError: `build.failed`: it has no `_start`, or imports what is none of WASI's.
    """
    return bytes(_call("command", module, cache=cache))


def _given(packages: Sequence[Package]) -> list[list[dict[str, Any]]]:
    return [[{"name": n, "content": c} for n, c in package] for package in packages]


def _call(function: str, *args: Any, cache: Path | None) -> Any:
    capabilities = standard_capabilities()
    manifest = parse_manifest(_MANIFEST, capabilities, context="componentizer")
    code = (files("capwasm.authoring") / "componentizer.wasm").read_bytes()
    with ExitStack() as stack:
        engine = PluginEngine()
        stack.callback(engine.close)
        terms = Terms(
            capabilities=tuple(capabilities),
            manifest=manifest,
            granted=_GRANTED,
            limits=_LIMITS,
            name=manifest.id,
            recorder=NullRecorder(),
            data_dir=Path(stack.enter_context(tempfile.TemporaryDirectory())),
        )
        serving = Serving(terms)
        compiled = Compiler(engine, cache).compile(code)
        linked = link(engine, compiled, serving.everything(), owners={}, unserved=unserved_reason)
        instance = Instance(engine, linked, manifest.id, _LIMITS, serving)
        stack.callback(instance.close)
        instance.start()
        result, _ = instance.call(linked.exports.find(function), args)
    if isinstance(result, Ok):
        return result.value
    raise BuildError(str(result.error).strip())


def without_debug(module: bytes) -> bytes:
    """The same core module without what only a debugger reads; names of functions stay."""
    code, kept = memoryview(module), [module[:8]]
    for kind, start, payload, end in sections(code, module[:8], Entries()):
        size, at = read_leb(payload, 0) if kind == 0 else (0, 0)
        if not bytes(payload[at : at + size]).startswith(b".debug_"):
            kept.append(module[start:end])
    return b"".join(kept)
