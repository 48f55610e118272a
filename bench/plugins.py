"""Plugins to load: a hundred kB of code that Extism has too, and real ones of three languages."""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from .guests import large_component
from .kept import Workshop, cache, run_tool
from .subject import Skipped, Unavailable

__all__ = ["LANGUAGES", "Language", "RealPlugin", "echo_library", "real_plugin"]

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parent
Language = Literal["WAT", "Rust", "JS", "Python"]
LANGUAGES: tuple[Language, ...] = ("WAT", "Rust", "JS", "Python")


@dataclass(frozen=True, slots=True)
class RealPlugin:
    """A component, and one call of it that needs no capability.

    Attributes:
        path: of the component.
        grants: the part of its manifest that asks for capabilities; empty: none.
        call: how it is called, as JSON: `function`, the `interface` that has it, `args`, and what
            is `expected`, with an err as `{"error": …}`.
    """

    path: Path
    call: dict[str, Any]
    grants: Literal["all", "random", ""] = ""

    def compiled(self, by: str) -> Path:
        """Where its compiled form is kept, from one run to the next.

        Args:
            by: who compiled it, with all that decides whether what is kept can be used.
        """
        what = hashlib.sha256(by.encode() + b"\0" + self.path.read_bytes()).hexdigest()
        place = cache() / "compiled"
        place.mkdir(exist_ok=True, mode=0o700)
        return place / what[:32]


def real_plugin(language: Language, workshop: Workshop) -> RealPlugin:
    """That one, built if need be.

    Raises:
        Skipped: its tools aren't here, or it may not be built.
    """
    try:
        return _real_plugin(language, workshop)
    except Unavailable as exc:
        raise Skipped(str(exc)) from exc


def _real_plugin(language: Language, workshop: Workshop) -> RealPlugin:
    adds = {"function": "add", "interface": None, "args": [2, 40], "expected": 42}
    match language:
        case "WAT":
            path = cache() / "large.wasm"
            path.write_bytes(large_component())
            return RealPlugin(path, adds)
        case "Rust":
            return RealPlugin(
                _REPOSITORY / "tests/guests/prober.wasm",
                {
                    "function": "run",
                    "interface": "test:prober/probe@0.1.0",
                    "args": ["nothing", []],
                    "expected": {"error": "no operation nothing"},
                },
                grants="all",
            )
        case "JS":
            return RealPlugin(_js(workshop), adds)
        case "Python":
            return RealPlugin(_python(workshop), adds, grants="random")


def _js(workshop: Workshop) -> Path:
    source = _HERE / "guests/js"

    def build(place: Path) -> Path:
        for name in ("package.json", "package-lock.json", "build.mjs"):
            shutil.copyfile(source / name, place / name)
        run_tool(["npm", "ci", "--ignore-scripts", "--silent"], cwd=place)
        made = place / "plugin.wasm"
        what = [str(source / "plugin.js"), str(source / "wit"), str(made)]
        run_tool(["node", "build.mjs", *what], cwd=place)
        return made

    note = "the JS plugin (npm and node, half a minute)"
    return workshop.get("js", sources=[source], build=build, note=note)


def _python(workshop: Workshop) -> Path:
    source, sdk = _HERE / "guests/python", _REPOSITORY / "guest-sdk/python/src"
    try:
        tool = version("componentize-py")
    except PackageNotFoundError as exc:
        raise Unavailable("not installed: pip install 'capwasm[build-python]'") from exc

    def build(place: Path) -> Path:
        from capwasm.authoring.project import build_project
        from capwasm.capsule.container import split
        from capwasm.errors import CapwasmError

        try:
            built = build_project(source)
        except CapwasmError as exc:
            raise Unavailable(str(exc)) from exc
        made = place / "plugin.wasm"
        with zipfile.ZipFile(io.BytesIO(split(built.capsule).archive)) as members:
            made.write_bytes(members.read("plugin.wasm"))
        return made

    note = "the Python plugin (componentize-py, half a minute)"
    places = [source, sdk, _REPOSITORY / "wit"]
    return workshop.get("python", sources=places, versions=[tool], build=build, note=note)


def echo_library(workshop: Workshop) -> Path:
    """The native plugin that gives back what it gets.

    Raises:
        Unavailable: there is no C compiler.
    """
    source, headers = _HERE / "guests/echo.c", _REPOSITORY / "native-shim/include"

    def build(place: Path) -> Path:
        made = place / "echo.so"
        flags = ["-shared", "-fPIC", "-O2", f"-I{headers}"]
        run_tool(["cc", *flags, str(source), "-o", str(made)], cwd=place)
        return made

    return workshop.get(
        "native", sources=[source, headers], build=build, note="the native plugin (cc, a second)"
    )
