"""From a JavaScript or TypeScript project to a component, by esbuild and componentize-js.

The author's tree is only read.  The tools are those of the lock file that the SDK carries, installed
once into the cache, where npm runs no script of any package.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from capwasm._lock import held
from capwasm._shipped import guest_sdk
from capwasm.authoring.world import write_world
from capwasm.errors import BuildError, Fault

from . import Component, Task, Tool
from ._tool import Said, run

if TYPE_CHECKING:
    from capwasm.grants.manifest import Manifest

__all__ = ["BUILDER", "js_source"]

NEEDED: Final = "20 or newer"
INSTALL: Final = "apt-get install nodejs npm (or https://nodejs.org)"
TIMEOUT_SECONDS: Final = 600
_ENDINGS: Final = ("ts", "mts", "js", "mjs")
_SKIPPED: Final = frozenset({"node_modules", "tests", "dist", "assets", "wit"})
# Module of the SDK → the interface that it needs, and the table that asks for it.
_TABLES: Final = {
    "fetch": ("capwasm:fetch/client", "[[net]]"),
    "secrets": ("capwasm:secrets/store", "[[secret]]"),
    "kv": ("capwasm:kv/store", "[kv]"),
    "log": ("capwasm:log/log", "[log]"),
    "fs": ("capwasm:fs/files", "[[fs]]"),
    "clock": ("capwasm:clock/clock", "[clock]"),
    "random": ("capwasm:random/random", "[random]"),
    "config": ("capwasm:config/config", "[config]"),
    "exec": ("capwasm:exec/commands", "[[exec]]"),
}
# Part of the engine → the interface by whose table it is served; without the table it is left out.
_FEATURES: Final = {
    "stdio": "capwasm:log/log",
    "clocks": "capwasm:clock/clock",
    "random": "capwasm:random/random",
}
# What else in a source shows that a capability is used, besides the name of its module.
_SIGNS: Final = {
    "clock": r"\b(Date|setTimeout|setInterval|performance)\b",
    "random": r"\b(Math\.random|crypto)\b",
    "secrets": r"\bsecret\s*:",
}


def js_source(project: Path, module: str = "plugin") -> Path | None:
    """The author's module, beside package.json or in `src/`; there it may be called `index`."""
    names = [Path(module), Path("src") / module, Path("src/index")]
    found = (project / f"{name}.{ending}" for name in names for ending in _ENDINGS)
    return next((path for path in found if path.is_file()), None)


class JavaScript:
    """Builds a module of JavaScript or TypeScript."""

    name = "js"
    title = "JavaScript"
    takes = "10 to 20 s"

    def detects(self, project: Path, module: str = "plugin") -> bool:  # noqa: ARG002
        """Whether it has a package.json."""
        return (project / "package.json").is_file()

    def tools(self) -> list[Tool]:
        """Node.js and npm; all else is installed by them, of fixed versions."""
        node, npm = _node(), shutil.which("npm")
        return [
            Tool("node", node[1] if node else None, NEEDED, INSTALL, "runs the build"),
            Tool(
                "npm",
                _ask(npm, "--version") if npm else None,
                "any that comes with node",
                INSTALL,
                "installs esbuild and componentize-js, once, into the build cache",
            ),
        ]

    def check(self, manifest: Manifest) -> None:
        """Pass: a plugin in JavaScript needs nothing to start."""

    def build(self, task: Task) -> Component:
        """Build it.

        Raises:
            BuildError: `build.toolchain` with the command that brings what is missing;
                `build.project`; `build.failed` with what esbuild or the engine said, by file and
                line of the author's own source.
        """
        node = _node()
        if node is None or shutil.which("npm") is None:
            raise BuildError(
                f"a JavaScript plugin is built by node ({NEEDED}) and npm, which are not here: "
                f"{INSTALL}",
                code="build.toolchain",
            )
        source = js_source(task.project, task.module)
        if source is None:
            raise BuildError(
                f"there is a package.json, and neither {task.module}.js nor {task.module}.ts, here "
                "or in src/",
                code="build.project",
                context=str(task.project),
            )
        sdk = guest_sdk("js").resolve()
        tools = _tools(task, sdk / "tools")
        started = time.monotonic()
        write_world(task.project, task.scratch / "wit", task.declared)
        told = _build(node[0], tools, sdk, task, source.resolve())
        code = (task.scratch / "plugin.wasm").read_bytes()
        return Component(code, time.monotonic() - started, told["tool"])

    def names(self, project: Path, module: str = "plugin") -> set[str] | None:  # noqa: ARG002
        """What the sources name: a component of JavaScript imports all that is declared."""
        text = "\n".join(p.read_text("utf-8", "replace") for p in _sources(project))
        found = {word for word in _TABLES if re.search(rf"\b{word}\b", text)}
        found |= {word for word, sign in _SIGNS.items() if re.search(sign, text)}
        return {f"capwasm_guest.{word}" for word in found}


def _node() -> tuple[str, str] | None:
    """Node.js and its version, if it is new enough."""
    node = shutil.which("node")
    version = _ask(node, "--version").removeprefix("v") if node else ""
    major = version.partition(".")[0]
    return (node, version) if node and major.isdecimal() and int(major) >= 20 else None


def _ask(*argv: str) -> str:
    found = subprocess.run(  # noqa: S603 - fixed words, no shell
        argv, capture_output=True, text=True, check=False, timeout=60
    )
    return found.stdout.strip() if found.returncode == 0 else ""


def _tools(task: Task, ours: Path) -> Path:
    """The directory with the tools of the lock file; installed if it isn't there.

    Raises:
        BuildError: `build.toolchain`: npm could not, with what it said.
    """
    files = [ours / name for name in ("package.json", "package-lock.json")]
    digest = sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()
    place = task.cache / f"tools-{digest[:16]}"
    if place.is_dir():
        return place
    task.cache.mkdir(parents=True, exist_ok=True)
    with held(task.cache, BuildError, code="build.failed"):
        if place.is_dir():
            return place
        task.say("installing esbuild and componentize-js (once, 200 MB)")
        fresh = task.scratch / "tools"
        fresh.mkdir()
        for file in files:
            shutil.copyfile(file, fresh / file.name)
        # A script of a package would run with all that the author may do.
        argv = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        said = _run(argv, fresh, os.environ)
        if said.code:
            raise BuildError(
                "npm could not install what builds JavaScript plugins; in a copy of "
                f"{ours}, this should work: {' '.join(argv[:3])}\n{_tail(said.errors, 12)}",
                code="build.toolchain",
            )
        # Beside its place first: another file system may lie between the two.
        beside = task.cache / f".{place.name}"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.move(fresh, beside)
        beside.rename(place)
    return place


def _build(node: str, tools: Path, sdk: Path, task: Task, source: Path) -> dict[str, Any]:
    world = (task.manifest.plugin.world or "").partition("/")[2].partition("@")[0]
    request = {
        "project": str(task.project.resolve()),
        "source": str(source),
        "sdk": str(sdk),
        "scratch": str(task.scratch.resolve()),
        "wit": str(task.scratch.resolve() / "wit"),
        "world": world or None,
        "declared": dict(task.declared),
        "tables": {m: {"needs": needs, "table": table} for m, (needs, table) in _TABLES.items()},
        "features": _features(task),
    }
    asked = task.scratch / "request.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    # Nothing of this environment decides what is built.
    env = {"PATH": "", "HOME": str(task.scratch), "TMPDIR": str(task.scratch), "LC_ALL": "C.UTF-8"}
    argv = [node, str(sdk / "tools/build.mjs"), str(tools.resolve()), str(asked)]
    said = _run(argv, task.scratch, env)
    try:
        told: dict[str, Any] = json.loads(said.output)
    except ValueError:
        raise BuildError(_tail(said.errors, 40), context=str(task.project)) from None
    if said.code or "faults" in told:
        raise _failed(told.get("faults", ()), task)
    return told


def _features(task: Task) -> list[str]:
    """The parts of the engine that what is declared can serve.

    The engine asks for the time as each call begins, so a clock that may be missing is none.
    """
    clock = task.manifest.requests.get("clock")
    sure = clock is not None and not any(asked.optional for asked in clock.asked)
    found = [word for word, needs in _FEATURES.items() if needs in task.declared]
    return [word for word in found if word != "clocks" or sure]


def _failed(told: Sequence[Mapping[str, str]], task: Task) -> BuildError:
    """What went wrong, one fault a place in the author's sources."""
    hidden = f"{task.scratch.resolve()}/"
    faults = [
        Fault(f.get("place", ""), _tail(f["text"].replace(hidden, ""), 40), f.get("fix"))
        for f in told
    ]
    if len(faults) == 1 and not faults[0].path:
        return BuildError(faults[0].message, context=str(task.project))
    return BuildError("the sources don't build", context=str(task.project), faults=faults)


def _run(argv: list[str], cwd: Path, env: Mapping[str, str]) -> Said:
    return run(argv, cwd=cwd, env=env, seconds=TIMEOUT_SECONDS, name=argv[0], apart=True)


def _tail(text: str, most: int) -> str:
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-most:])


def _sources(project: Path) -> list[Path]:
    found = []
    todo = [project]
    while todo:
        for entry in sorted(todo.pop().iterdir()):
            if entry.name.startswith(".") or entry.name in _SKIPPED:
                continue
            if entry.is_dir() and not entry.is_symlink():
                todo.append(entry)
            elif entry.suffix[1:] in (*_ENDINGS, "tsx", "jsx") and entry.is_file():
                found.append(entry)
    return found


BUILDER: Final = JavaScript()
