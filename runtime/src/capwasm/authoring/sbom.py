"""The SBOM of a project, made of its lock file: what the language's own tool resolved, and no guess.

It is CycloneDX 1.6, as JSON, the same bytes for the same lock file: no serial number and no time.  A
project that brings its own `sbom.cdx.json` keeps it, and one without a lock file gets none.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from capwasm._files import read_file
from capwasm.errors import BuildError
from capwasm.grants.manifest import Plugin

__all__ = ["sbom_of"]

MAX_LOCK_BYTES: Final = 32 * 2**20
_EXPRESSION: Final = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")
_HASHES: Final = {"sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}


@dataclass(frozen=True, slots=True, order=True)
class _Part:
    """One package that a lock file names; `kind` is its purl's type, `generic` for a local one."""

    kind: str
    name: str
    version: str
    digest: tuple[str, str] = ("", "")
    licence: str = ""

    def __post_init__(self) -> None:
        """Refuse what no lock file has in these places."""
        if not all(isinstance(word, str) for word in (self.name, self.version, *self.digest)):
            raise TypeError(
                f"a package of {type(self.name).__name__}, {type(self.version).__name__}"
            )

    @property
    def purl(self) -> str:
        """Its package URL."""
        space, _, name = self.name.rpartition("/")
        path = "/".join(quote(part, safe="") for part in [*space.split("/"), name] if part)
        return f"pkg:{self.kind}/{path}@{quote(self.version, safe='.-_~')}"

    def to_json(self) -> dict[str, Any]:
        """As CycloneDX has it."""
        made: dict[str, Any] = {
            "type": "library",
            "bom-ref": self.purl,
            "name": self.name,
            "version": self.version,
            "purl": self.purl,
        }
        algorithm, digest = self.digest
        if digest:
            made["hashes"] = [{"alg": algorithm, "content": digest}]
        if self.licence:
            made["licenses"] = [_licence(self.licence)]
        return made


def sbom_of(project: Path, plugin: Plugin) -> bytes | None:
    """The SBOM of a project; None if it has no lock file that is known.

    Args:
        project: its directory.
        plugin: what it is an SBOM of.

    Raises:
        BuildError: `build.project`: a lock file can't be read.
    """
    parts: set[_Part] = set()
    found = [name for name in _LOCKS if (project / name).is_file()]
    for name in found:
        data = read_file(project / name, MAX_LOCK_BYTES, BuildError, code="build.project")
        try:
            parts.update(_LOCKS[name](data.decode("utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise BuildError(
                f"the lock file can't be read: {type(exc).__name__}: {exc}",
                code="build.project",
                context=name,
            ) from None
    if not found:
        return None
    subject: dict[str, Any] = {
        "type": "application",
        "bom-ref": "plugin",
        "name": plugin.id,
        "version": plugin.version,
    }
    if plugin.license:
        subject["licenses"] = [_licence(plugin.license)]
    doc = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": [part.to_json() for part in sorted(parts)],
    }
    return (json.dumps(doc, indent=1, sort_keys=True) + "\n").encode()


def _licence(text: str) -> dict[str, Any]:
    return {"expression": text} if _EXPRESSION.fullmatch(text) else {"license": {"name": text}}


def _cargo(text: str) -> Iterator[_Part]:
    """Cargo.lock; the plugin's own crate is the one that no other needs."""
    rows = tomllib.loads(text).get("package", [])
    needed = {dep.partition(" ")[0] for row in rows for dep in row.get("dependencies", ())}
    for row in rows:
        source = row.get("source", "")
        if not source and row["name"] not in needed:
            continue
        registry = source.startswith("registry+")
        yield _Part(
            "cargo" if registry else "generic",
            row["name"],
            row["version"],
            ("SHA-256", row["checksum"]) if registry and "checksum" in row else ("", ""),
        )


def _npm(text: str) -> Iterator[_Part]:
    """package-lock.json, version 2 or 3; what only the build needs is left out."""
    for path, row in json.loads(text)["packages"].items():
        _, inside, name = path.rpartition("node_modules/")
        if not inside or row.get("dev") or row.get("link"):
            continue
        yield _Part(
            "npm", row.get("name", name), row["version"], _integrity(row.get("integrity", "")),
            row["license"] if isinstance(row.get("license"), str) else "",
        )  # fmt: skip


def _integrity(text: str) -> tuple[str, str]:
    """`sha512-<base64>`, of which the first counts, as in hex."""
    algorithm, _, digest = text.partition(" ")[0].partition("-")
    try:
        content = base64.b64decode(digest, validate=True).hex()
    except binascii.Error:
        content = ""
    return (_HASHES[algorithm], content) if content and algorithm in _HASHES else ("", "")


def _go(text: str) -> Iterator[_Part]:
    """go.mod, which since Go 1.17 lists every module; what is replaced by a directory is local."""
    local = set(
        re.findall(r"^\s*(?:replace\s+)?(\S+)(?:\s+\S+)?\s+=>\s+[./]\S*\s*$", text, re.MULTILINE)
    )
    block = False
    for line in text.splitlines():
        words = line.partition("//")[0].split()
        if words[:2] == ["require", "("]:
            block = True
        elif words == [")"]:
            block = False
        elif block or words[:1] == ["require"]:
            name, version = words[-2:] if len(words) >= 2 else ("", "")
            if name:
                yield _Part("generic" if name in local else "golang", name.strip('"'), version)


def _python(text: str) -> Iterator[_Part]:
    """pylock.toml (PEP 751), uv.lock and poetry.lock, which differ in the word for a package."""
    doc = tomllib.loads(text)
    for row in doc.get("packages", doc.get("package", [])):
        source = row.get("source", {})
        if not isinstance(source, dict) or source.keys() & {"virtual", "editable", "directory"}:
            continue
        if "version" in row:
            yield _Part("pypi", row["name"].lower().replace("_", "-"), row["version"])


_LOCKS: Final[dict[str, Callable[[str], Iterator[_Part]]]] = {
    "Cargo.lock": _cargo,
    "package-lock.json": _npm,
    "go.mod": _go,
    "pylock.toml": _python,
    "uv.lock": _python,
    "poetry.lock": _python,
}
