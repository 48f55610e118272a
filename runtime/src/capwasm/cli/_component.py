"""From a project's Python sources to a component, by componentize-py, in a directory of its own.

The author's tree is only read: sources and WIT are copied, and the glue is written beside the copy.
componentize-py runs in a process without this one's environment, so that no package that happens to
be installed here finds its way into a plugin.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capwasm._shipped import guest_sdk
from capwasm.errors import BuildError, Fault

from ._world import BINDING_NAMES, write_world

if TYPE_CHECKING:
    from capwasm.grants.manifest import Manifest

__all__ = ["Component", "check_toolchain", "make_component", "python_sources"]

TOOL: Final = "componentize-py"
SUPPORTED: Final = "0.25."
GLUE: Final = "capwasm_app"
TIMEOUT_SECONDS: Final = 900
_SKIPPED: Final = frozenset({"__pycache__", "tests", "wit", "vendor", "dist", "build", "assets"})

_RUN: Final = (
    "import sys; from componentize_py import script;"
    " sys.argv = ['componentize-py', *sys.argv[1:]]; script()"
)
_GLUE_TEXT: Final = """\
from capwasm_guest._serve import exports

globals().update(exports({module!r}))
"""


@dataclass(frozen=True, slots=True)
class Component:
    """What came out, and how long it took."""

    code: bytes
    seconds: float
    tool: str


def check_toolchain() -> str:
    """The version of componentize-py that is installed.

    Raises:
        BuildError: `build.toolchain`: none, or one that this version was not made for.
    """
    command = 'pip install "capwasm[build-python]"'
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


def make_component(
    project: Path,
    manifest: Manifest,
    module: str,
    sources: Mapping[str, Path],
    declared: Mapping[str, str],
) -> Component:
    """Build the component.

    Args:
        project: the directory with `wit/` and, if there is one, `vendor/`.
        manifest: its `world` says which world, if `wit/` has several.
        module: the author's module, which has the class with `@plugin`.
        sources: from `python_sources`.
        declared: from `declared_interfaces`.

    Raises:
        BuildError: `build.toolchain`, `build.project`, or `build.failed` with what componentize-py
            or the author's own module said, by file and line.
    """
    tool = check_toolchain()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="capwasm-build-") as name:
        scratch = Path(name)
        write_world(project, scratch / "wit", declared)
        app, glue, out = scratch / "app", scratch / "glue", scratch / "out.wasm"
        for inner, path in sources.items():
            (app / inner).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, app / inner)
        glue.mkdir()
        (glue / f"{GLUE}.py").write_text(_GLUE_TEXT.format(module=module), encoding="utf-8")
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
        if manifest.plugin.world:
            argv += ["--world", manifest.plugin.world.partition("/")[2].partition("@")[0]]
        for interface, binding in BINDING_NAMES.items():
            if interface in declared:
                argv += ["--import-interface-name", f"{declared[interface]}={binding}"]
        argv += ["componentize", *(a for p in paths for a in ("--python-path", str(p)))]
        _run([*argv, GLUE, "--output", str(out)], scratch, project)
        return Component(out.read_bytes(), time.monotonic() - started, f"{TOOL} {tool}")


def _run(argv: list[str], scratch: Path, project: Path) -> None:
    # An empty PATH: else componentize-py asks the python it finds there for its packages.
    env = {"PATH": "", "HOME": str(scratch), "TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"}
    if os.name == "nt":  # pragma: no cover
        env["SYSTEMROOT"] = os.environ.get("SYSTEMROOT", "")
    process = subprocess.Popen(  # noqa: S603 - fixed argv, no shell
        [sys.executable, "-I", "-c", _RUN, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=scratch,
        env=env,
    )
    try:
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise BuildError(f"{TOOL} was stopped after {TIMEOUT_SECONDS} s") from None
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if process.returncode != 0:
        raise _told(output.decode("utf-8", "replace"), scratch, project)


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
