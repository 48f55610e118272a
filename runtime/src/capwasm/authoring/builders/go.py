"""From a Go module to a component: the Go toolchain, and capwasm's own componentizer.

What a world exports becomes Go code that calls the author's functions.  It is laid over the author's
module by `go build -overlay`, and the SDK is put in its place by `-modfile`; so the author's tree is
only read, and what Go says is said of the author's own files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capwasm._shipped import guest_sdk
from capwasm.authoring.componentizer import Package, bind_go, componentize, embed, package_of
from capwasm.authoring.world import BINDING_NAMES, write_world
from capwasm.errors import BuildError, Fault, ManifestError

from . import Component, Task, Tool
from ._goglue import GLUE, Glue, make_glue
from ._tool import run

if TYPE_CHECKING:
    from capwasm.grants.manifest import Manifest

__all__ = ["BUILDER"]

SDK: Final = "go.example/capwasm"
LEAST: Final = (1, 25)
NEEDED: Final = "1.25 or newer"
INSTALL: Final = "apt-get install golang, or https://go.dev/dl/"
TIMEOUT_SECONDS: Final = 900
_SHOWN_LINES: Final = 40
# The Go runtime's own memory is `sbrk`, which the bindings' allocator calls by its name.
_FLAGS: Final = ("-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-mod=readonly")
_LINKER: Final = "-ldflags=-checklinkname=0"
_MODULE: Final = re.compile(r'^module[ \t]+"?([^\s"]+)"?', re.MULTILINE)
_REPLACED: Final = re.compile(
    rf"^[ \t]*(?:replace[ \t]+)?{re.escape(SDK)}\b.*=>.*\n?", re.MULTILINE
)
_IMPORTED: Final = re.compile(
    r'^[ \t]*(?:import[ \t]+)?(?:[\w.]+[ \t]+)?"([\w./-]+)"', re.MULTILINE
)
# Without these the Go runtime ends before any function of the plugin begins.
_STARTS: Final = {
    "clock": "Go reads the clock when it starts",
    "random": "Go seeds its maps when it starts",
}
# What of the standard library reaches the host with a grant that has another name.
_REACHES: Final = {"os": "fs"}
# Of this environment only what says where Go finds and keeps its things, and whom it asks.
_KEPT: Final = re.compile(
    r"PATH|HOME|USERPROFILE|XDG_\w+|TMPDIR|SYSTEMROOT|SSL_\w+|(?i:https?_proxy|no_proxy|all_proxy)"
    r"|GO(?:CACHE|MODCACHE|PATH|ENV|PROXY|NOPROXY|PRIVATE|SUMDB|NOSUMDB|AUTH|ROOT|TOOLCHAIN)"
)


def find_go() -> tuple[str, str] | None:
    """Where `go` is, and its version; None if there is none."""
    for path in (shutil.which("go"), "/usr/local/go/bin/go"):
        if path is None or not Path(path).is_file():
            continue
        try:
            found = subprocess.run(  # noqa: S603 - fixed argv, no shell
                [path, "env", "GOVERSION"],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
                env={**_environment(), "GOTOOLCHAIN": "local"},
                cwd="/",
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if version := found.stdout.strip().removeprefix("go").partition(" ")[0]:
            return path, version
    return None


def _new_enough(version: str) -> bool:
    found = re.match(r"(\d+)\.(\d+)", version)
    return bool(found) and (int(found[1]), int(found[2])) >= LEAST if found else False


class Go:
    """Builds Go, by its own toolchain."""

    name = "go"
    title = "Go"
    takes = "5 s; the first time up to a minute"

    def detects(self, project: Path, module: str = "plugin") -> bool:  # noqa: ARG002 - of Python
        """Whether it has `go.mod`."""
        return (project / "go.mod").is_file()

    def tools(self) -> list[Tool]:
        """Go itself."""
        found = find_go()
        version = found[1] if found and _new_enough(found[1]) else None
        return [Tool("go", version, NEEDED, INSTALL, "compiles and links Go for WASI")]

    def check(self, manifest: Manifest) -> None:
        """Go reads the clock and draws a seed when it starts: without, every call would end there.

        Raises:
            ManifestError: one of those tables is missing or optional.
        """
        faults = []
        for table, why in _STARTS.items():
            request = manifest.requests.get(table)
            if request is None or any(asked.optional for asked in request.asked):
                what = "is optional" if request else "is not declared"
                lines = f'[{table}]\nwhy = "{why}"'
                faults.append(Fault(table, f"{what}: {why}", lines))
        if faults:
            raise ManifestError(
                "a plugin in Go needs the clock and random bytes to start",
                context="plugin.toml",
                faults=faults,
            )

    def build(self, task: Task) -> Component:
        """Build it.

        Raises:
            BuildError: `build.toolchain`, `build.project`, or `build.failed` with what Go said, by
                file and line, or the function of the world that the sources lack.
        """
        go, version = _toolchain()
        started = time.monotonic()
        tool = task.cache / "tool"
        world = (task.manifest.plugin.world or "").partition("/")[2].partition("@")[0] or None
        # The SDK has bindings of its own for the capabilities: the plugin's are for its exports.
        bound = bind_go(_packages(task, "wit", {}), world, tool)
        glue = make_glue(bound, _module(task.project), task.project)
        _keep_for_editors(glue, task, go)
        core = task.scratch / "core.wasm"
        argv = [go, "build", *_FLAGS, _LINKER, "-modfile", str(_write_modfile(task))]
        argv += ["-overlay", str(_write_overlay(glue, task)), "-o", str(core), f"./{GLUE}"]
        _run(argv, glue, task)
        # It imports what it calls, of all that there is: the manifest is held against that.
        whole = _packages(task, "all", BINDING_NAMES)
        code = componentize(embed(core.read_bytes(), whole, world, tool), tool)
        return Component(code, time.monotonic() - started, f"go {version}")

    def names(self, project: Path, module: str = "plugin") -> set[str] | None:  # noqa: ARG002
        """What the sources import: the Go runtime itself imports much of WASI, used or not."""
        names = {f"capwasm_{table}" for table in _STARTS}
        for path in _sources(project):
            text = path.read_text("utf-8", "replace")
            for imported in _IMPORTED.findall(text):
                word = imported.removeprefix(f"{SDK}/") if imported != SDK else ""
                names.add(f"capwasm_{_REACHES.get(word, word)}")
        return names


def _toolchain() -> tuple[str, str]:
    found = find_go()
    if found is None:
        raise BuildError(
            f"a plugin in Go is built by go {NEEDED}, which is not installed: {INSTALL}",
            code="build.toolchain",
        )
    if not _new_enough(found[1]):
        raise BuildError(
            f"go {found[1]} is installed, and a plugin needs {NEEDED}: {INSTALL}",
            code="build.toolchain",
        )
    return found


def _sources(project: Path) -> Iterator[Path]:
    for path in sorted(project.rglob("*.go")):
        inner = path.relative_to(project).parts
        if not any(part[0] in "._" or part in ("testdata", "vendor") for part in inner):
            yield path


def _module(project: Path) -> str:
    found = _MODULE.search((project / "go.mod").read_text("utf-8", "replace"))
    if found is None:
        raise BuildError(
            "go.mod has no line `module NAME`", code="build.project", context=str(project)
        )
    return found[1]


def _packages(task: Task, name: str, declared: dict[str, str]) -> list[Package]:
    """The project's WIT and what it refers to, with these interfaces among the capabilities."""
    wit = task.scratch / name
    write_world(task.project, wit, declared)
    deps = sorted((wit / "deps").iterdir())
    found = [package_of(wit, "wit")]
    found += [package_of(p, f"wit/deps/{p.name}") for p in deps if p.is_dir()]
    return found + [[(f"wit/deps/{p.name}", p.read_bytes())] for p in deps if p.suffix == ".wit"]


def _write_modfile(task: Task) -> Path:
    """The author's go.mod and go.sum, with the SDK of this very version in the place of its own."""
    sdk = guest_sdk("go") / "src"
    needs = re.search(r"^require (\S+ \S+)$", (sdk / "go.mod").read_text("utf-8"), re.MULTILINE)
    text = _REPLACED.sub("", (task.project / "go.mod").read_text("utf-8", "replace")).rstrip()
    # A module's own requirements stand in the main module's go.mod, too.
    for line in (f"{SDK} v0.0.0", needs[1] if needs else ""):
        if not re.search(
            rf"^\s*(?:require\s+)?{re.escape(line.partition(' ')[0])}\s+v", text, re.MULTILINE
        ):
            text += f"\n\nrequire {line}"
    target = task.scratch / "go.mod"
    target.write_text(f"{text}\n\nreplace {SDK} => {json.dumps(str(sdk))}\n", encoding="utf-8")
    own = task.project / "go.sum"
    lines = own.read_text("utf-8", "replace").splitlines() if own.is_file() else []
    lines += (sdk / "go.sum").read_text("utf-8").splitlines()
    (task.scratch / "go.sum").write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
    return target


def _write_overlay(glue: Glue, task: Task) -> Path:
    place, replaced = task.scratch / "glue", {}
    for name, text in glue.files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        replaced[str(task.project.absolute() / name)] = str(path)
    target = task.scratch / "overlay.json"
    target.write_text(json.dumps({"Replace": replaced}), encoding="utf-8")
    return target


def _keep_for_editors(glue: Glue, task: Task, go: str) -> None:
    """Say where the types are, if the project's own copy is not what `wit/` says."""
    formatter = Path(go).resolve().with_name("gofmt")
    kept = task.cache / "bindings" / task.manifest.id
    for name in glue.bindings:
        text = glue.files[name]
        if formatter.is_file():
            made = subprocess.run(  # noqa: S603 - fixed argv, no shell
                [formatter], input=text, capture_output=True, encoding="utf-8", check=False
            )
            text = made.stdout if made.returncode == 0 else text
        own, copy = task.project / name, kept / name
        if not own.is_file() or own.read_text("utf-8", "replace") != text:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text, encoding="utf-8")
            task.say(f"for your editor: cp {copy} {name}")


def _environment() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if _KEPT.fullmatch(name)}


def _run(argv: list[str], glue: Glue, task: Task) -> None:
    target = {
        "GOOS": "wasip1",
        "GOARCH": "wasm",
        "CGO_ENABLED": "0",
        "GOWORK": "off",
        "GOFLAGS": "",
    }
    env = {**_environment(), **target}
    said = run(argv, cwd=task.project, env=env, seconds=TIMEOUT_SECONDS, name="go")
    if said.code != 0:
        raise _told(said.output, glue, task)


def _told(output: str, glue: Glue, task: Task) -> BuildError:
    """What Go said, in the author's terms: of functions that do not fit, and of the author's files."""
    context = str(task.project)
    faults = {}
    lines = []
    for line in output.splitlines():
        if not line.strip() or line.startswith("# "):
            continue
        if re.search(rf"{GLUE}/\S*:\d+:\d+: ", line):
            wanted = next((f for f in glue.wanted if f.called in line), None)
            if wanted is not None:
                lacks = "undefined" in line
                said = "is defined nowhere" if lacks else "has other parameters or results"
                faults[wanted.called] = Fault(wanted.name, said, wanted.signature)
                continue
        lines.append(line.rstrip().replace(f"{task.scratch}/", ""))
    if faults:
        return BuildError(
            "the package does not have what wit/ exports",
            context=context,
            faults=[*faults.values()],
        )
    shown = lines[:_SHOWN_LINES]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} lines more")
    return BuildError("\n".join(shown) or "go ended without a word", context=context)


BUILDER: Final = Go()
