"""From a project's Python sources to a component, by componentize-py, in a directory of its own.

The author's tree is only read: sources and WIT are copied, and the glue is written beside the copy.
componentize-py runs in a process without this one's environment, so that no package that happens to
be installed here finds its way into a plugin.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capwasm._shipped import guest_sdk
from capwasm.authoring.world import BINDING_NAMES, write_world
from capwasm.errors import BuildError, Fault, ManifestError

from . import Component, Task, Tool
from ._tool import run

if TYPE_CHECKING:
    from capwasm.grants.manifest import Manifest

__all__ = ["BUILDER", "python_sources"]

TOOL: Final = "componentize-py"
SUPPORTED: Final = "0.25."
GLUE: Final = "capwasm_app"
TIMEOUT_SECONDS: Final = 900
INSTALL: Final = 'pip install "capwasm[build-python]"'
_SKIPPED: Final = frozenset({"__pycache__", "tests", "wit", "vendor", "dist", "build", "assets"})

_RUN: Final = (
    "import sys; from componentize_py import script;"
    " sys.argv = ['componentize-py', *sys.argv[1:]]; script()"
)
_GLUE_TEXT: Final = """\
from capwasm_guest._serve import exports

globals().update(exports({module!r}))
"""


def check_toolchain() -> str:
    """The version of componentize-py that is installed.

    Raises:
        BuildError: `build.toolchain`: none, or one that this version was not made for.
    """
    command = INSTALL
    try:
        found = version(TOOL)
    except PackageNotFoundError:
        found = ""
    if not found or find_spec("componentize_py") is None:
        raise BuildError(
            f"a Python plugin is built by {TOOL}, which is not installed: {command}",
            code="build.toolchain",
        )
    if not found.startswith(SUPPORTED):
        raise BuildError(
            f"{TOOL} {found} is installed, and this version of capwasm works with {SUPPORTED}x: "
            f"{command}",
            code="build.toolchain",
        )
    return found


def python_sources(project: Path, module: str) -> dict[str, Path] | None:
    """The project's Python files, by their name below the import root; None without `module`.

    The root is `src/` if the module is there, else the project itself, without its tests and
    hidden directories.
    """
    for root in (project / "src", project):
        if (root / f"{module}.py").is_file() or (root / module / "__init__.py").is_file():
            return {p.relative_to(root).as_posix(): p for p in _walk(root)}
    return None


def _walk(root: Path) -> list[Path]:
    found: list[Path] = []
    todo = [root]
    while todo:
        for entry in sorted(todo.pop().iterdir()):
            if entry.name.startswith(".") or entry.name in _SKIPPED:
                continue
            if entry.is_dir() and not entry.is_symlink() and not (entry / "pyvenv.cfg").exists():
                todo.append(entry)
            elif entry.suffix == ".py" and entry.is_file():
                found.append(entry)
    return found


class Python:
    """Builds a Python class, by componentize-py."""

    name = "python"
    title = "Python"
    takes = "10 to 30 s"

    def detects(self, project: Path, module: str = "plugin") -> bool:
        """Whether it has that module."""
        return python_sources(project, module) is not None

    def tools(self) -> list[Tool]:
        """componentize-py, of the versions that this one works with."""
        try:
            found: str | None = version(TOOL)
        except PackageNotFoundError:
            found = None
        return [Tool(TOOL, found, f"{SUPPORTED}x", INSTALL, "makes a component of a Python class")]

    def check(self, manifest: Manifest) -> None:
        """Python draws its seed when it starts: without `[random]` every call would end there.

        Raises:
            ManifestError: that table is missing or optional.
        """
        request = manifest.requests.get("random")
        if request is not None and not any(asked.optional for asked in request.asked):
            return
        what = "is optional" if request else "is not declared"
        table = '[random]\nwhy = "Python seeds its generator when it starts"'
        raise ManifestError(
            "a plugin in Python needs random bytes to start",
            context="plugin.toml",
            faults=[
                Fault("random", f"{what}, and Python seeds its generator when it starts", table)
            ],
        )

    def build(self, task: Task) -> Component:
        """Build it.

        Raises:
            BuildError: `build.toolchain`, `build.project`, or `build.failed` with what
                componentize-py or the author's own module said, by file and line.
        """
        tool = check_toolchain()
        started = time.monotonic()
        project, scratch, declared = task.project, task.scratch, task.declared
        write_world(project, scratch / "wit", declared)
        app, glue, out = scratch / "app", scratch / "glue", scratch / "out.wasm"
        for inner, path in (python_sources(project, task.module) or {}).items():
            (app / inner).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, app / inner)
        glue.mkdir()
        (glue / f"{GLUE}.py").write_text(_GLUE_TEXT.format(module=task.module), encoding="utf-8")
        shutil.copytree(
            guest_sdk() / "capwasm_guest",
            glue / "capwasm_guest",
            ignore=shutil.ignore_patterns("__pycache__", "*.pyi", "py.typed"),
        )
        paths = [app, glue]
        if (project / "vendor").is_dir():
            shutil.copytree(
                project / "vendor",
                scratch / "vendor",
                ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.pyd"),
            )
            paths.append(scratch / "vendor")
        argv = ["--wit-path", str(scratch / "wit")]
        if task.manifest.plugin.world:
            world = task.manifest.plugin.world.partition("/")[2].partition("@")[0]
            argv += ["--world", world]
        for interface, binding in BINDING_NAMES.items():
            if interface in declared:
                argv += ["--import-interface-name", f"{declared[interface]}={binding}"]
        argv += ["componentize", *(a for p in paths for a in ("--python-path", str(p)))]
        _run([*argv, GLUE, "--output", str(out)], scratch, project)
        return Component(out.read_bytes(), time.monotonic() - started, f"{TOOL} {tool}")

    def names(self, project: Path, module: str = "plugin") -> set[str] | None:
        """What the sources import: a component of Python imports all that is declared."""
        return _names(python_sources(project, module) or {})


def _run(argv: list[str], scratch: Path, project: Path) -> None:
    # An empty PATH: else componentize-py asks the python it finds there for its packages.
    env = {"PATH": "", "HOME": str(scratch), "TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"}
    if os.name == "nt":  # pragma: no cover
        env["SYSTEMROOT"] = os.environ.get("SYSTEMROOT", "")
    argv = [sys.executable, "-I", "-c", _RUN, *argv]
    said = run(argv, cwd=scratch, env=env, seconds=TIMEOUT_SECONDS, name=TOOL)
    if said.code != 0:
        raise _told(said.output, scratch, project)


def _told(output: str, scratch: Path, project: Path) -> BuildError:
    """What went wrong, without componentize-py's own frames, in the author's terms."""
    text = output.partition("\nStack backtrace:")[0]
    text = re.sub(r"\A(?:Traceback.*?\n(?:  .*\n)*)?\w*(?:Error|Exception): ", "", text)
    if "Traceback (most recent call last)" in text:  # the cause is its last line once more
        text = text.partition("\n\nCaused by:\n")[0]
    text = text.replace(f"{scratch}/wit", "wit").replace("/0/", "").replace(f"{scratch}/", "")
    lines = [line.rstrip() for line in text.strip().splitlines() if line.strip()]
    setup = next((i for i, line in enumerate(lines) if "SetupError: " in line), None)
    context = str(project)
    if setup is not None:
        first = lines[setup].partition("SetupError: ")[2]
        faults = [Fault("", line) for line in [first, *lines[setup + 1 :]]]
        return BuildError("the module does not fit wit/", context=context, faults=faults)
    # Only the author's own frames: those of the glue and of import machinery say nothing to him.
    kept: list[str] = []
    skip = False
    for line in lines:
        if line.lstrip().startswith("File "):
            skip = "capwasm_app.py" in line or "importlib" in line or "capwasm_guest/" in line
        elif not line.startswith(" "):
            skip = False
        if not skip:
            kept.append(line)
    hint = ""
    if "ModuleNotFoundError" in text:
        hint = (
            "\na plugin's dependencies must be pure Python, in vendor/: "
            "pip install --target vendor NAME"
        )
    return BuildError("\n".join(kept[-40:]) + hint, context=context)


def _names(sources: Mapping[str, Path]) -> set[str]:
    """The modules that the sources import, `open` if they call it, `secret=` if they pass one."""
    names: set[str] = set()
    for path in sources.values():
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    names |= {
                        alias.name,
                        alias.name.partition(".")[0],
                        alias.name.rpartition(".")[2],
                    }
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                names |= {module, module.partition(".")[0]}
                names |= {f"{module}.{alias.name}" for alias in node.names}
                names |= {a.name for a in node.names if module.startswith("wit_world")}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names.add(node.func.id)
            if isinstance(node, ast.keyword) and node.arg == "secret":
                names.add("secret=")
    return names


BUILDER: Final = Python()
