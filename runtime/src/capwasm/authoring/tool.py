"""Code without a manifest as a plugin: what it may do is what the person who runs it says.

Its imports tell which clocks, chance or network it wants at all; directories, origins and limits are
named by the person.  What is not named is not asked, and so not granted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from capwasm.caps import standard_capabilities
from capwasm.capsule.pack import pack
from capwasm.engine.compile import CORE_MAGIC, check_component, types_of
from capwasm.engine.lane.binary import OddBinary
from capwasm.errors import ArtifactError, BuildError, Fault
from capwasm.grants._document import toml_table
from capwasm.wasi import NEEDS

from .componentizer import command

__all__ = ["LIMITS", "Asks", "tool_capsule"]

MIB: Final = 2**20
LIMITS: Final[Mapping[str, int]] = {
    "fuel": 1_000_000_000_000,
    "memory": 256 * MIB,
    "wall-ms": 60_000,
    "host-call-ms": 60_000,
    "host-calls": 10_000_000,
    "output-bytes": 256 * MIB,
    "net-bytes": 256 * MIB,
    "handles": 1_024,
}
"""What a program may use where nobody says otherwise: more than a plugin's call, for it is all of it."""

# What a component gets because it imports it: these reach nothing but what is its own.
_HARMLESS: Final = ("clock", "random", "log", "kv")


@dataclass(frozen=True, slots=True)
class Asks:
    """What a person gives a component that has no manifest.

    Attributes:
        read, write: where it sees a directory → the directory.
        net: what it may ask of whom: `https://api.example.com/*`, or `POST,PUT https://…`.
        limits: words of `[limits]`.
    """

    read: Mapping[str, Path] = field(default_factory=dict)
    write: Mapping[str, Path] = field(default_factory=dict)
    net: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def binds(self) -> dict[str, Path]:
        """The directories, by the names that the manifest gives them."""
        return {f"dir-{n}": path for n, (_, path, _) in enumerate(self._directories())}

    def _directories(self) -> list[tuple[str, Path, str]]:
        reads = [(mount, path, "read") for mount, path in self.read.items()]
        return reads + [(mount, path, "read-write") for mount, path in self.write.items()]

    def tables(self) -> Iterator[str]:
        """What it asks, as a manifest spells it."""
        for number, (mount, _, access) in enumerate(self._directories()):
            words = {"mount": mount, "bind": f"dir-{number}", "access": access}
            yield toml_table("[[fs]]", words)
        for text in self.net:
            methods, _, url = text.rpartition(" ")
            more: dict[str, Any] = {"methods": methods.split(",")} if methods else {}
            yield toml_table("[[net]]", {"allow": url} | more)


def tool_capsule(code: bytes, name: str, asks: Asks, cache: Path | None = None) -> bytes:
    """An unsigned capsule of a component, which asks for just that.

    Args:
        code: the bytes of a component; or of a program for WASI's Preview 1, of which one is made.
        name: of its file, for people.
        asks: what the person gives.
        cache: where the tool that makes it is kept compiled.

    Raises:
        ArtifactError: it is no component.
        BuildError: `build.project`: a directory is not there, or is given twice; `build.failed`: it
            is no program.
    """
    component = command(code, cache) if code.startswith(CORE_MAGIC) else code
    check_component(component)
    faults = list(_faults(asks))
    if faults:
        raise BuildError("that can't be given", code="build.project", faults=faults)
    try:
        types = types_of(component)
    except OddBinary as exc:
        raise ArtifactError(
            f"not framed as a component is: {exc}", code="artifact.compile", context=name
        ) from None
    imports = {i.name.partition("@")[0] for i in types.imports} if types else set()
    # Its standard output is the terminal's, not the log's.
    wants = {NEEDS[i] for i in imports if i in NEEDS} - {"log"}
    wants |= {c.name for c in standard_capabilities() for i in c.interfaces if _bare(i) in imports}
    plugin = {
        "id": f"local.{_word(name)}",
        "name": name[:64] or "program",
        "version": "0.0.0",
        "requires-core": ">=0",
        "kind": "component",
    }
    parts = ["schema = 1", toml_table("[plugin]", plugin)]
    parts += [f"[{word}]" for word in _HARMLESS if word in wants]
    parts += asks.tables()
    parts.append(toml_table("[limits]", {**LIMITS, **asks.limits}))
    manifest = "\n\n".join(parts) + "\n"
    return pack({"plugin.toml": manifest.encode(), "plugin.wasm": component})


def _bare(interface: str) -> str:
    return interface.partition("@")[0]


def _faults(asks: Asks) -> Iterator[Fault]:
    for mount in sorted(asks.read.keys() & asks.write.keys()):
        yield Fault(f"--write {mount}", "it is given to be read as well; one of them will do")
    for option, given in (("--read", asks.read), ("--write", asks.write)):
        for mount, path in given.items():
            if not path.is_dir():
                yield Fault(f"{option} {mount}", f"no directory: {path}")


def _word(name: str) -> str:
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower()).strip("-")
    return (kept if kept[:1].isalpha() else f"tool-{kept}".rstrip("-"))[:60].rstrip("-")
