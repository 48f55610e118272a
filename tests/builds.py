"""Components that tests build of projects: once, and kept outside the tree with what was compiled."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import capwasm
from capwasm.authoring.builders import Tool
from capwasm.authoring.project import build_project, language_of
from capwasm.capsule.container import split

REPOSITORY = Path(__file__).parents[1]
_BASE = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
CACHE = Path(os.environ.get("CAPWASM_TEST_CACHE") or Path(_BASE) / "capwasm-tests")
_SKIPPED = {"__pycache__", "node_modules", "target", "dist"}


def compiled() -> Path:
    """Where compiled code is kept between runs: link it as the cache of a world's home."""
    place = CACHE / "compiled"
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    return place


def share(source: Path, target: Path) -> None:
    """Give a cache the entries of another."""
    target.mkdir(mode=0o700, exist_ok=True)
    for entry in source.iterdir():
        if not (target / entry.name).exists():
            try:
                os.link(entry, target / entry.name)
            except OSError:  # another file system
                shutil.copy2(entry, target / entry.name)


def missing(project: Path) -> str:
    """Why that project can't be built here, with the commands that change it; or nothing."""
    lacking = [t for t in _tools(project) if t.found is None]
    if not lacking:
        return ""
    commands = "; ".join(f"{t.name}: {t.install}" for t in lacking)
    return f"not to be built here: {commands}"


def _tools(project: Path) -> list[Tool]:
    found = language_of(project)
    return found.tools() if found else []


def files_of(places: Iterable[Path]) -> dict[str, Path]:
    """Every file of these, by a name that no machine changes; without what tools leave."""
    found = {}
    for place in places:
        inside = [place] if place.is_file() else sorted(place.rglob("*"))
        for path in inside:
            inner = path.relative_to(place.parent)
            if path.is_file() and not _SKIPPED & set(inner.parts):
                found[inner.as_posix()] = path
    return found


def sources_of(project: Path) -> list[Path]:
    """All that decides what the component of a project is: itself, its SDK, the WIT, the builder."""
    builder = language_of(project)
    authoring = Path(capwasm.__file__).parent / "authoring"
    places = [project, REPOSITORY / "wit", authoring / "world.py"]
    if builder:
        places += [
            *(authoring / "builders").glob(f"{builder.name}*"),
            REPOSITORY / "guest-sdk" / builder.name / "src",
            REPOSITORY / "guest-sdk" / builder.name / "include",
            REPOSITORY / "guest-sdk" / builder.name / "tools",
        ]
    return places


def component(project: Path) -> bytes:
    """The component of a project, built unless it was built from these very files.

    Raises:
        BuildError: it does not build.
    """
    total = hashlib.sha256("".join(f"{t.name} {t.found}\n" for t in _tools(project)).encode())
    for name, path in files_of(sources_of(project)).items():
        total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    builder = language_of(project)
    folder = CACHE / "components" / (builder.name if builder else "none")
    kept = folder / f"{project.name}-{total.hexdigest()[:24]}.wasm"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        code = code_of(build_project(project, cache=compiled()).capsule)
        fd, fresh = tempfile.mkstemp(dir=folder)
        with os.fdopen(fd, "wb") as file:
            file.write(code)
        Path(fresh).replace(kept)
    return kept.read_bytes()


def code_of(capsule: bytes) -> bytes:
    """The plugin.wasm of a capsule."""
    with zipfile.ZipFile(io.BytesIO(bytes(split(capsule).archive))) as archive:
        return archive.read("plugin.wasm")
