"""The house: who may import whom, where power lives, and how large a file may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import capwasm
import capwasm_shim

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(capwasm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
SHIM = Path(capwasm_shim.__file__).parent
SHIM_FILES = sorted(SHIM.rglob("*.py"))

# From the ground up.  A module imports from its own room and from the floors below, never across or
# above.  `caps.*` are rooms of one floor that do not know each other.
FLOORS: list[set[str]] = [
    {"codes"},
    {"errors", "values", "events", "lattice", "_stage", "_words", "threads"},
    {"_model", "_files", "_lock", "_shipped", "handles"},
    {"_sqlite"},
    {"limits"},
    {"call", "capability"},
    {"calling"},
    {"capsule"},
    {"record"},
    {"grants"},
    {"review"},
    {"registry"},
    {"caps", "engine"},
    {"binding", "jsonvalues", "keeping", "traps", "web"},
    {"wasi", "repository", "oci", "revocation"},
    {"instance", "serving", "strict", "learning"},
    {"governance"},
    {"isolation"},
    {"opener", "ready", "session"},
    {"plugin"},
    {"monitor"},
    {"lifecycle", "command", "asgi"},
    {"machine"},
    {"home"},
    {"loading"},
    {"runtime"},
    {""},
    {"scan"},
    {"authoring"},
    {"demo", "testing", "admin"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}

# Module of power -> who may import it.  A room stands for all its modules.
POWER: dict[str, set[str]] = {
    "os": {
        "_files", "_lock", "_sqlite", "engine.engine", "engine.cache", "engine.sealed", "engine.compile_process", "engine._compiler", "runtime", "home", "machine", "caps._descriptors", "record", "grants", "capsule",
        "registry", "repository", "revocation", "isolation", "monitor",
        "caps.exec", "caps.fs", "caps.kv", "caps.random", "caps.secrets", "wasi.http.bell", "authoring", "cli", "demo", "testing",
    },
    "socket": {"admin.server", "caps.net", "isolation", "cli", "demo"},
    "ssl": {"admin.server", "caps.net", "web"},
    "subprocess": {"engine.compile_process", "isolation.launch", "isolation.server", "machine", "authoring", "cli"},
    "sqlite3": {"_sqlite", "caps.kv", "registry.db"},
    "ctypes": {"engine", "threads", "machine", "caps.fs"},
    "wasmtime": {"engine", "instance", "isolation.inside", "machine"},
    "cryptography": {"engine.cache", "capsule", "caps.secrets"},
    "sigstore": {"capsule.bundle"},
    "h11": {"caps.net", "web", "testing"},
    "opentelemetry": {"monitor.traces"},
    "zlib": {"caps.net", "capsule.container", "scan.mirror"},
    "zipfile": {"scan.mirror"},
    "tempfile": {"_files", "strict", "scan.dryrun", "authoring", "cli", "demo"},
    "msgpack": {"isolation"},
    "starlette": {"admin"},
    "jinja2": {"admin"},
    "uvicorn": {"admin.server"},
    "capwasm_shim": {"isolation", "loading", "machine", "grants.isolation", "caps.exec", "cli", "scan.elf"},
    "elftools": {"scan.elf_image"},
    "cyclonedx": {"scan.sbom"},
    "packageurl": {"scan.bill"},
    "cvss": {"scan.advisory"},
    "license_expression": {"scan.licences"},
}  # fmt: skip
NEVER = {"pickle", "marshal", "shelve", "imp", "telnetlib", "xml", "yaml", "requests", "urllib3"}


def name_of(path: Path) -> str:
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[0]


def imports(path: Path, root: Path = PACKAGE.parent) -> Iterator[str]:
    """Absolute names of all that a file imports, anywhere in it."""
    package = path.relative_to(root).parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # A name that only a type checker sees is no dependency.
    unseen = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package[: len(package) - node.level + 1]
                base = ".".join([*up, *([base] if base else [])])
            if base == "capwasm" or (node.level and not node.module):
                yield from (f"{base}.{a.name}" for a in node.names)
            else:
                yield base


def inner(path: Path) -> Iterator[str]:
    for name in imports(path):
        if name.startswith("capwasm."):
            yield name.removeprefix("capwasm.")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_only_from_below(path: Path) -> None:
    room = room_of(name_of(path))
    for target in inner(path):
        other = room_of(target)
        if other not in LEVEL:  # `from capwasm import Runtime`: a name of the door
            other = ""
        if other == room or (room == "" and path.name == "__init__.py"):
            continue
        assert LEVEL[other] < LEVEL[room], f"{name_of(path)} imports {target}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "caps").glob("*/*.py")), ids=name_of)
def test_capabilities_do_not_know_each_other(path: Path) -> None:
    mine = path.parent.name
    for target in inner(path):
        parts = target.split(".")
        if parts[0] == "caps" and len(parts) > 1 and not parts[1].startswith("_"):
            assert parts[1] == mine, f"{name_of(path)} imports {target}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "caps").glob("*/model.py")), ids=name_of)
def test_a_model_is_pure(path: Path) -> None:
    power = {*POWER, "pathlib", "time", "threading", "random"}
    assert {i.split(".")[0] for i in imports(path)} & power == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_power_is_where_it_should_be(path: Path) -> None:
    module = name_of(path)
    for name in {i.split(".")[0] for i in imports(path)}:
        assert name not in NEVER
        allowed = POWER.get(name)
        if allowed is not None:
            assert any(module == a or module.startswith(f"{a}.") for a in allowed), (
                f"{module} imports {name}"
            )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_evaluated_and_files_are_opened_in_one_place(path: Path) -> None:
    module = name_of(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "compile", "__import__"}, module
            if node.func.id == "open":
                assert room_of(module) in {"cli", "demo"} or module == "caps.fs.beneath", module


@pytest.mark.parametrize("path", SHIM_FILES, ids=lambda p: p.name)
def test_the_shim_decides_nothing_and_knows_nothing_of_the_runtime(path: Path) -> None:
    # What a component needs of it is imported by name, in a process that is apart (`child.py`).
    roots = {name.split(".")[0] for name in imports(path, SHIM.parent)}
    assert not roots & {"capwasm", "pydantic", "cryptography", "h11", *NEVER}


@pytest.mark.parametrize("path", [*FILES, *SHIM_FILES], ids=lambda p: p.name)
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda p: p.name)
def test_no_test_file_is_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600


@pytest.mark.parametrize("path", [*FILES, *SHIM_FILES], ids=lambda p: p.name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert doc, f"{path.name} has no docstring"
    assert doc.split("\n")[0].rstrip().endswith((".", ":", "?", ";", ",")) or len(doc) > 40
