"""From C sources to a component: a C compiler, and capwasm's own componentizer.

What a world exports becomes `plugin.h`, which the author includes, and C around it; the SDK is compiled
with the plugin.  The author's tree is only read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capwasm._shipped import guest_sdk
from capwasm.authoring.componentizer import bind_c, componentize, package_of, without_debug
from capwasm.authoring.world import write_world
from capwasm.errors import BuildError, Fault

from . import Component, Task, Tool
from ._tool import run

if TYPE_CHECKING:
    from capwasm.grants.manifest import Manifest

__all__ = ["BUILDER", "c_sources"]

INSTALL: Final = "pip install ziglang"
NEEDED: Final = "zig 0.14 or newer, or clang 16 or newer with wasi-libc"
TIMEOUT_SECONDS: Final = 900
HEADER: Final = "plugin"
# clangd reads this file, too: what an editor sees is what is built.
_FLAGS_FILE: Final = "compile_flags.txt"
_OTHERS: Final = ("Cargo.toml", "package.json", "go.mod")
_COMPILE: Final = (
    "-std=gnu17",
    "-Oz",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror=implicit-function-declaration",
)
_LINK: Final = ("-mexec-model=reactor", "-Oz", "-g", "-Wl,-z,stack-size=1048576")
# What the linker says of a function of the world that is not there, or not in its shape.
_UNFIT: Final = re.compile(r"(undefined symbol|function signature mismatch): (exports_\w+)")
_WHY: Final = {
    "undefined symbol": "is defined nowhere",
    "function signature mismatch": "has another signature here; with plugin.h included, the"
    " compiler says where",
}
# The linker's words for an object, and what says nothing that the lines before did not.
_LINKER: Final = re.compile(r"^(?:\S*wasm-ld\S*: )?(?:error: )?(?:wasm-ld: )?(\S+\.c)\.o: ")
_NOISE: Final = re.compile(r"^\d+ (error|warning)s?.* generated\.$|linker command failed")
_SHOWN_LINES: Final = 40


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler for WASI: what it is called, by which command, with what in its environment."""

    name: str
    argv: tuple[str, ...]


def find_compiler() -> Compiler | None:
    """The one to use: zig if it is here, for it brings all that it needs, else a whole clang."""
    return _zig() or next(filter(None, map(_clang, _clangs())), None)


def _zig() -> Compiler | None:
    target = ("cc", "-target", "wasm32-wasi")
    try:
        if find_spec("ziglang") is not None:
            argv = (sys.executable, "-I", "-m", "ziglang", *target)
            return Compiler(f"zig {version('ziglang')}", argv)
    except PackageNotFoundError:
        pass
    zig = shutil.which("zig")
    return Compiler(f"zig {_told_by(zig, 'version')}", (zig, *target)) if zig else None


def _clangs() -> Iterable[str]:
    """The clangs that there may be, the likeliest first."""
    if sdk := os.environ.get("WASI_SDK_PATH"):
        yield f"{sdk}/bin/clang"
    found = [c for n in range(30, 15, -1) if (c := shutil.which(f"clang-{n}"))]
    yield from filter(None, [shutil.which("clang"), *found])


def _clang(path: str) -> Compiler | None:
    """That clang, if the libraries and the linker for WASI are where it looks for them."""
    argv = (path, "--target=wasm32-wasi")
    asked = (
        _told_by(*argv, "-print-file-name=libc.a"),
        _told_by(*argv, "--rtlib=compiler-rt", "-print-libgcc-file-name"),
        _told_by(*argv, "-print-prog-name=wasm-ld"),
    )
    if not all(a.startswith("/") and Path(a).is_file() for a in asked):
        return None
    return Compiler(f"clang {_told_by(path, '-dumpversion')}", argv)


def _told_by(*argv: str) -> str:
    try:
        found = subprocess.run(  # noqa: S603 - fixed argv, no shell
            argv, capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def c_sources(project: Path) -> list[Path]:
    """`plugin.c` with what lies beside it, and all below `src/`; empty if it is no project in C."""
    if any((project / other).exists() for other in _OTHERS):
        return []
    beside = sorted(project.glob("*.c")) if (project / "plugin.c").is_file() else []
    return [p for p in (*beside, *sorted((project / "src").rglob("*.c"))) if p.is_file()]


class C:
    """Builds C, by zig or clang."""

    name = "c"
    title = "C"
    takes = "2 s; the first time up to a minute"

    def detects(self, project: Path, module: str = "plugin") -> bool:  # noqa: ARG002 - of Python
        """Whether it has `plugin.c`, or C below `src/`."""
        return bool(c_sources(project))

    def tools(self) -> list[Tool]:
        """One compiler."""
        found = find_compiler()
        why = "compiles and links C for WASI"
        return [Tool("a C compiler", found.name if found else None, NEEDED, INSTALL, why)]

    def check(self, manifest: Manifest) -> None:
        """C needs nothing to start."""

    def build(self, task: Task) -> Component:
        """Build it.

        Raises:
            BuildError: `build.toolchain`, `build.project`, or `build.failed` with what the compiler
                said, by file and line, or the function of the world that the sources lack.
        """
        compiler = find_compiler()
        if compiler is None:
            raise BuildError(
                f"a plugin in C is built by {NEEDED}; the whole of it comes with: {INSTALL}",
                code="build.toolchain",
            )
        started = time.monotonic()
        run = _Run(compiler, task)
        made = _write_glue(task)
        sdk = guest_sdk("c")
        include = [
            f"-I{p}" for p in (sdk / "include", made, task.project, task.project / "include")
        ]
        own = [p for p in (task.project / _FLAGS_FILE,) if p.is_file()]
        flags = [line.strip() for p in own for line in p.read_text("utf-8").splitlines()]
        ours = [sdk / "src/capwasm.c", *sdk.glob("src/bindings/*.c"), made / f"{HEADER}.c"]
        objects = [run.compile(p, f"{p.name}.ours", include) for p in ours]
        for path in c_sources(task.project):
            inner = path.relative_to(task.project).as_posix()
            objects.append(run.compile(Path(inner), inner, [*include, *filter(None, flags)]))
        types = [*made.glob("*.o"), *sdk.glob("src/bindings/*.o")]
        core = run.link([*objects, *types], made / f"{HEADER}.h")
        code = componentize(without_debug(core), task.cache / "tool")
        return Component(code, time.monotonic() - started, compiler.name)

    def names(self, project: Path, module: str = "plugin") -> set[str] | None:  # noqa: ARG002
        """The component imports what it calls."""
        return None


def _write_glue(task: Task) -> Path:
    """`plugin.h`, `plugin.c` and the world's types; the header is kept for editors, too."""
    wit, made = task.scratch / "wit", task.scratch / "made"
    # The SDK has bindings of its own for the capabilities: the plugin's are for its exports.
    write_world(task.project, wit, {})
    deps = sorted(p for p in (wit / "deps").iterdir())
    packages = [package_of(wit, "wit")]
    packages += [package_of(p, f"wit/deps/{p.name}") for p in deps if p.is_dir()]
    packages += [[(f"wit/deps/{p.name}", p.read_bytes())] for p in deps if p.suffix == ".wit"]
    world = (task.manifest.plugin.world or "").partition("/")[2].partition("@")[0] or None
    made.mkdir()
    for name, content in bind_c(packages, world, HEADER, {}, task.cache / "tool").items():
        (made / name).write_bytes(content)
    kept = task.cache / "headers" / task.manifest.id
    kept.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made / f"{HEADER}.h", kept / f"{HEADER}.h")
    return made


class _Run:
    """Runs the compiler, from the author's directory, so that it names files as the author does."""

    def __init__(self, compiler: Compiler, task: Task) -> None:
        self._compiler, self._task = compiler, task
        self._objects = task.scratch / "objects"
        self._objects.mkdir()
        scratch = str(task.scratch)
        # Nothing of this environment decides what is built, but where the compiler is.
        self._env = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": scratch,
            "TMPDIR": scratch,
            "LC_ALL": "C.UTF-8",
            "ZIG_GLOBAL_CACHE_DIR": str(task.cache / "zig"),
            "ZIG_LOCAL_CACHE_DIR": str(task.cache / "zig"),
        }

    def compile(self, source: Path, name: str, flags: Sequence[str]) -> Path:
        """One source to an object."""
        target = self._objects / f"{name}.o"
        target.parent.mkdir(parents=True, exist_ok=True)
        self._call([*_COMPILE, *flags, "-c", str(source), "-o", str(target)])
        return target

    def link(self, objects: Sequence[Path], header: Path) -> bytes:
        """All objects to a core module."""
        core = self._task.scratch / "plugin.wasm"
        try:
            told = self._call([*_LINK, *map(str, objects), "-o", str(core)])
        except BuildError as exc:
            if not _UNFIT.search(exc.message):
                raise
            told = exc.message.splitlines()
        unfit = {m[2]: m[1] for line in told if (m := _UNFIT.search(line))}
        if unfit:
            text = header.read_text("utf-8")
            raise BuildError(
                "the sources don't have what wit/ exports",
                context=str(self._task.project),
                faults=[
                    Fault(name, _WHY[said], _declared(name, text)) for name, said in unfit.items()
                ],
            )
        return core.read_bytes()

    def _call(self, words: Sequence[str]) -> list[str]:
        argv = [*self._compiler.argv, *words]
        task = self._task
        said = run(
            argv,
            cwd=task.project,
            env=self._env,
            seconds=TIMEOUT_SECONDS,
            name=self._compiler.name,
        )
        told = self._tidy(said.output)
        if said.code != 0:
            shown = told[:_SHOWN_LINES]
            more = [f"and {len(told) - len(shown)} lines more"] if len(told) > len(shown) else []
            text = "\n".join([*shown, *more]) or f"{self._compiler.name} ended without a word"
            raise BuildError(text, context=str(task.project))
        for line in told:
            task.say(line)
        return told

    def _tidy(self, output: str) -> list[str]:
        """What it said, in the author's terms: no path of the build, no count of errors."""
        for place in ("objects", "made"):
            output = output.replace(f"{self._task.scratch}/{place}/", "")
        output = output.replace(f"{guest_sdk('c')}/", "")
        lines = [
            _LINKER.sub(r"\1: ", line.rstrip()) for line in output.splitlines() if line.strip()
        ]
        return [line for line in lines if not _NOISE.search(line)]


def _declared(name: str, header: str) -> str:
    """How the header declares that function, with a body to fill."""
    found = re.search(rf"^(?:extern )?([^\n/]*\b{name}\([^;]*\));", header, re.MULTILINE)
    return f"{found[1]} {{ }}" if found else name


BUILDER: Final = C()
